use std::sync::Arc;

use sluice_features::example::{About, Batch};
use sluice_features::ids::{EventId, ItemId, UserId, salted_key};
use sluice_features::schema::Schema;
use sluice_features::time::EventTime;

use super::super::testing::{PARENTS, PRIORS, combinations, final_batch, schema, with_variances};
use super::*;
use crate::learner::Learner;
use crate::model::Workspace;

/// A model that has learned a little, so that rows and layers are not as they started.
fn learner(spec: &crate::spec::ModelSpec) -> Learner {
    let schema = schema(spec);
    let mut learner = Learner::new(spec, &schema, &PARENTS, &PRIORS, 3).unwrap();
    // Covariances are not moved by hand.
    if !spec.has_variances() {
        for value in learner.model_mut().params_mut().values_mut().iter_mut().step_by(3) {
            *value += 0.05;
        }
    }
    let batch = final_batch(&schema, 40);
    for _ in 0..10 {
        assert!(!learner.step(&batch).refused);
    }
    learner
}

/// Candidates with these items, of categories `item % 3` or none; `newest` and `found` behaviours in the histories. Items from 100 on
/// are unknown.
fn candidates(schema: &Schema, items: &[u64], newest: u64, found: u64) -> Candidates {
    let key = |table: usize, id: u64| salted_key(schema.tables[table].salt(), id);
    let mut candidates = Candidates::new(schema);
    // The schema's key fields are item, category and user, its number and its list are the item's.
    candidates.common.keys.push(key(2, 3));
    let push = |history: &mut sluice_features::example::Histories, count: u64, category| {
        for j in 0..count {
            let item = (j * 3 + 1) % 7;
            history.items.push(key(0, item));
            history.categories.push(key(1, if category == 9 { item % 3 } else { category }));
            history.gaps.push(key(4, j * 2));
        }
        history.starts.push(history.items.len() as u32);
    };
    if let Some(history) = candidates.histories.first_mut() {
        push(history, newest, 9);
    }
    for &item in items {
        let category = (item % 5 != 4).then_some(item % 3);
        if schema.fields[0].name == "pair" {
            candidates.own.keys.push(key(5, item * 5 + 3));
        }
        candidates.own.keys.extend([key(0, item), category.map_or(0, |c| key(1, c))]);
        candidates.own.numbers.push((item as f32 * 0.7).sin());
        let list = &mut candidates.own.lists[0];
        list.keys.extend((0..item % 3).map(|tag| key(3, tag + item % 4)));
        list.starts.push(list.keys.len() as u32);
        if candidates.join(category)
            && let Some(history) = candidates.histories.get_mut(1)
        {
            let count = category.map_or(0, |category| (found + category) % (found + 1));
            push(history, count, category.unwrap_or(0));
        }
        candidates.about.push(About {
            impression: EventId(0),
            user: UserId(3),
            item: ItemId(item),
            time: EventTime(1_000_000_000_000),
            new_item: false,
            offered: true,
        });
    }
    candidates
}

/// The probabilities of the shared pass and of the plain one.
fn both(learner: &Learner, candidates: &Candidates, work: &mut Scoring) -> [Vec<f32>; 2] {
    let (model, rows) = (learner.model(), learner.embeddings());
    let schema = learner.schema();
    let mut shared = vec![f32::NAN; candidates.size() * PARENTS.len()];
    model.score_candidates(rows, candidates, work, &mut shared);
    let mut batch = Batch::new(schema.list_fields().len(), schema.lookups.len());
    candidates.expand(schema, &mut batch);
    let mut plain = vec![f32::NAN; shared.len()];
    if !batch.is_empty() {
        model.score(rows, &batch, &mut Workspace::default(), &mut plain);
    }
    [shared, plain]
}

fn assert_close([shared, plain]: &[Vec<f32>; 2], what: &str) {
    assert_eq!(shared.len(), plain.len());
    for (i, (&shared, &plain)) in shared.iter().zip(plain).enumerate() {
        // Rounding of f32 through half a dozen layers, summed in another order.
        let logit = |p: f32| f64::from(p).ln() - (1.0 - f64::from(p)).ln();
        let error = (logit(shared) - logit(plain)).abs();
        assert!(error < 2e-5 * (1.0 + logit(plain).abs()), "{what} {i}: {shared} {plain}");
    }
}

#[test]
fn every_combination_scores_candidates_as_it_scores_examples() {
    let specs = combinations();
    assert!(specs.len() > 100, "{}", specs.len());
    for spec in specs.into_iter().chain(with_variances()) {
        let learner = learner(&spec);
        let mut work = Scoring::default();
        let many: Vec<u64> = (0..60).map(|i| i * i % 23).chain([100, 101, 3]).collect();
        let cases: [(&[u64], u64, u64); 6] = [
            (&many, 4, 3),
            (&[5], 3, 2),
            (&many, 0, 0),
            (&[100], 0, 4),
            (&[4, 9], 4, 0),
            (&[], 4, 4),
        ];
        for (items, newest, found) in cases {
            let candidates = candidates(learner.schema(), items, newest, found);
            let found = both(&learner, &candidates, &mut work);
            assert_close(&found, &format!("{} {newest} {}", spec.name(), items.len()));
            if items.len() > 3 && spec.is_deep() {
                let differ =
                    found[0].chunks(PARENTS.len()).any(|p| p != &found[0][..PARENTS.len()]);
                assert!(differ, "{}: all candidates are alike", spec.name());
            }
        }
    }
}

#[test]
fn sharing_leaves_fewer_operations_and_costs_one_candidate_little() {
    let learner = learner(&crate::spec::ModelSpec::default());
    let count = |items: &[u64]| {
        let (candidates, mut work) =
            (candidates(learner.schema(), items, 4, 4), Scoring::default());
        both(&learner, &candidates, &mut work);
        let schema = learner.schema();
        let mut batch = Batch::new(schema.list_fields().len(), schema.lookups.len());
        candidates.expand(schema, &mut batch);
        let plain = crate::work::Work::of(learner.model(), &batch).forward;
        (work.operations(learner.model(), &candidates), plain)
    };
    let many: Vec<u64> = (0..60).map(|i| i % 7).collect();
    let (shared, plain) = count(&many);
    assert!(shared * 20 < plain * 19, "{shared} {plain}");
    let (shared, plain) = count(&[5]);
    assert!(shared < 2 * plain, "{shared} {plain}");
}

#[test]
fn a_candidate_does_not_depend_on_the_others() {
    let learner = learner(&crate::spec::ModelSpec::default());
    let (mut work, tasks) = (Scoring::default(), PARENTS.len());
    let items: Vec<u64> = (0..50).collect();
    let all = both(&learner, &candidates(learner.schema(), &items, 4, 4), &mut work);
    for (place, item) in items.iter().enumerate().step_by(7) {
        let alone = both(&learner, &candidates(learner.schema(), &[*item], 4, 4), &mut work);
        let together = all[0][place * tasks..(place + 1) * tasks].to_vec();
        assert_close(&[alone[0].clone(), together], "alone");
    }
}

#[test]
fn the_same_candidates_give_the_same_bits() {
    let learner = learner(&crate::spec::ModelSpec::default());
    let items: Vec<u64> = (0..30).rev().collect();
    let candidates = candidates(learner.schema(), &items, 4, 4);
    let one = both(&learner, &candidates, &mut Scoring::default());
    let snapshot = Arc::new(learner.model().clone());
    let mut two = vec![0.0; one[0].len()];
    let mut work = Scoring::default();
    for _ in 0..3 {
        snapshot.score_candidates(learner.embeddings(), &candidates, &mut work, &mut two);
        assert_eq!(one[0], two);
    }
}
