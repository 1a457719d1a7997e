use std::collections::BTreeMap;

use sluice_features::time::{EventTime, Span};

use super::*;
use crate::model::testing::{
    PARENTS, PRIORS, batch, combinations, final_batch, schema, with_variances,
};
use crate::model::{Model, Workspace};
use crate::spec::{CrossingSpec, EmbeddingSpec, FunnelSpec, ModelSpec, SharingSpec};

/// The combinations without a deep part.
fn shallow() -> impl Iterator<Item = ModelSpec> {
    combinations().into_iter().filter(|spec| !spec.is_deep())
}

pub(super) fn learner(spec: &ModelSpec) -> Learner {
    let mut spec = spec.clone();
    spec.learning.row_deviation = 0.3;
    Learner::new(&spec, &schema(&spec), &PARENTS, &PRIORS, 11).unwrap()
}

/// Examples of which some name an id twice: in two fields, in a field and a list, in a list.
pub(super) fn tangled(spec: &ModelSpec, size: usize) -> Batch {
    let mut batch = batch(&schema(spec), size);
    let fields = batch.keys.len() / size;
    for i in (0..size).step_by(3) {
        let [item, category, user] = [3, 2, 1].map(|back| (i + 1) * fields - back);
        batch.keys[user] = batch.keys[item];
        let list = &mut batch.lists[0];
        let range = list.starts[i] as usize..list.starts[i + 1] as usize;
        list.keys[range].fill(batch.keys[category]);
    }
    batch.numbers[size / 2] = f32::NAN;
    batch
}

/// One example as a batch.
pub(super) fn one(batch: &Batch, i: usize) -> Batch {
    let mut one = Batch::new(1, 0);
    let (tasks, fields) = (PARENTS.len(), batch.keys.len() / batch.size());
    one.keys.extend_from_slice(&batch.keys[i * fields..(i + 1) * fields]);
    one.numbers.push(batch.numbers[i]);
    let list = &batch.lists[0];
    let range = list.starts[i] as usize..list.starts[i + 1] as usize;
    one.lists[0].keys.extend_from_slice(&list.keys[range.clone()]);
    one.lists[0].starts.push(range.len() as u32);
    one.labels.extend_from_slice(&batch.labels[i * tasks..(i + 1) * tasks]);
    one.modes.extend_from_slice(&batch.modes[i * tasks..(i + 1) * tasks]);
    one.groups.push(0);
    one.about.push(batch.about[i]);
    one
}

#[test]
fn a_batch_is_its_examples_one_after_the_other_to_the_bit() {
    let expiry = Some(Span::seconds(30));
    let rules = [
        EmbeddingSpec::default(),
        EmbeddingSpec { admission: 3, ..EmbeddingSpec::default() },
        EmbeddingSpec { max_rows: 9, ..EmbeddingSpec::default() },
        EmbeddingSpec { max_rows: 12, admission: 2, expiry },
        EmbeddingSpec { max_rows: 12, expiry, ..EmbeddingSpec::default() },
    ];
    let specs = shallow().chain(with_variances());
    for (spec, embeddings) in specs.flat_map(|spec| rules.clone().map(|r| (spec.clone(), r))) {
        let spec = ModelSpec { embeddings, ..spec };
        let (mut together, mut apart) = (learner(&spec), learner(&spec));
        for size in [1, 40, 7, 64] {
            let mut batch = tangled(&spec, size);
            // Times that also go back.
            let time = |i: usize| EventTime(1_000_000_000_000 + (i * 7 % 50) as i64 * 4000);
            (0..size).for_each(|i| batch.about[i].time = time(i + size));
            let report = together.step(&batch).clone();
            let mut probabilities = Vec::new();
            let mut norm = 0.0_f64;
            for i in 0..size {
                let report = apart.step(&one(&batch, i));
                probabilities.extend(report.probabilities.iter().map(|p| p.to_bits()));
                norm = norm.max(report.gradient_norm);
            }
            let found: Vec<u32> = report.probabilities.iter().map(|p| p.to_bits()).collect();
            assert_eq!(found, probabilities, "{spec:?}");
            assert_eq!(report.gradient_norm.to_bits(), norm.to_bits());
            assert_eq!(together.checksum(), apart.checksum(), "{spec:?}");
        }
        assert_eq!((together.refused(), together.steps()), (apart.refused(), apart.steps()));
        assert!(together.steps() > 50);
        assert_eq!(together.refused() > 0, spec.crossing.has_linear(), "a number that is none");
    }
}

#[test]
fn losses_and_gradients_are_those_of_the_layers_in_double_precision() {
    for spec in shallow() {
        let mut learner = learner(&spec);
        let mut batch = tangled(&spec, 30);
        batch.numbers[15] = 0.4;
        for example in (0..30).map(|i| one(&batch, i)) {
            let mut hidden = example.clone();
            hidden.modes.fill(LabelMode::Masked);
            learner.step(&hidden); // Its ids have rows now.
            let mut model =
                Model::<f64>::build(&spec, &schema(&spec), &PARENTS, &PRIORS, 11).unwrap();
            let narrow = learner.model().params().values();
            let wide = model.params_mut().values_mut();
            wide.iter_mut().zip(narrow).for_each(|(wide, &narrow)| *wide = narrow.into());
            let mut workspace = Workspace::default();
            let (rows, pass) = workspace.split();
            rows.prepare(model.plan(), &example);
            rows.fill(|store, key, k| {
                let store = &learner.embeddings().stores()[store];
                let mut row = vec![0.0; store.width()];
                store.gather(&[key], &mut row);
                row[k].into()
            });
            let (mut grads, mut loss) = (Params::zeros(model.params().layout().clone()), [0.0; 4]);
            model.forward(&example, &(0..1), rows, pass, &mut ());
            let p = pass.probabilities().to_vec();
            let (grads, loss) = (&mut grads, &mut loss);
            model.backward(&example, &(0..1), 1, rows, pass, grads, loss, &mut ());
            let square = pass.drows.iter().map(|grid| square_norm(grid.values())).sum::<f64>();
            let norm = (square + square_norm(grads.values())).sqrt();
            let report = learner.step(&example);
            for (found, expected) in report.probabilities.iter().zip(p) {
                assert!((f64::from(*found) - expected).abs() < 1e-5);
            }
            let labelled = report.labelled > 0;
            for (found, expected) in report.loss.iter().zip(loss) {
                assert!((found - *expected).abs() < 1e-5 || !labelled, "{found} {expected}");
            }
            let found = report.gradient_norm;
            assert!((found - norm).abs() < 1e-4 * norm || !labelled, "{found} {norm} {spec:?}");
        }
    }
}

#[test]
fn rows_take_the_implicit_step() {
    let spec = ModelSpec {
        crossing: CrossingSpec::FmLinear {},
        sharing: SharingSpec::None {},
        funnel: FunnelSpec::Independent { tower: vec![] },
        ..ModelSpec::default()
    };
    let mut learner = learner(&spec);
    let mut batch = final_batch(&schema(&spec), 12);
    batch.lists[0].keys.clear();
    batch.lists[0].starts.fill(0);
    for example in (0..12).map(|i| one(&batch, i)).filter(|one| one.keys[2] != 0) {
        let mut hidden = example.clone();
        hidden.modes.fill(LabelMode::Masked);
        learner.step(&hidden);
        let rows = |learner: &Learner, store: usize| -> Vec<Vec<f64>> {
            let store = &learner.embeddings().stores()[store];
            let row = |&key: &u64| {
                let mut row = vec![0.0; store.width()];
                store.gather(&[key], &mut row);
                row.into_iter().map(f64::from).collect()
            };
            example.keys.iter().map(row).collect()
        };
        let states = |learner: &Learner, store: usize| -> Vec<f64> {
            let store = &learner.embeddings().stores()[store];
            let images: Vec<_> = (0..RowStore::SHARDS).map(|shard| store.export(shard)).collect();
            let state = |key: &u64| {
                let found = images.iter().find_map(|image| {
                    let place = image.keys.binary_search(key).ok()?;
                    Some(image.accumulators[place])
                });
                f64::from(found.unwrap())
            };
            example.keys.iter().map(state).collect()
        };
        let before = [rows(&learner, 0), rows(&learner, 1)];
        // Ones, as long as Adam has hardly moved them.
        let v = learner.model().params().values().to_vec();
        let report = learner.step(&example);
        let slopes = report.probabilities.iter().zip(&example.labels);
        let slopes: Vec<f64> = slopes.map(|(p, y)| f64::from(p - y)).collect();
        let after = [rows(&learner, 0), rows(&learner, 1)];
        let rates: Vec<Vec<f64>> = [(0, spec.learning.row_rate), (1, 0.5 / 4.0_f64.sqrt())]
            .map(|(store, rate)| states(&learner, store).iter().map(|s| rate / s.sqrt()).collect())
            .into();
        let weights: Vec<f64> = v.iter().map(|&v| f64::from(v)).collect();
        let v = |t: usize, k: usize| weights[t * 3 + k];
        let sum = |k: usize| before[0].iter().map(|e| e[k]).sum::<f64>();
        let gradient = |j: usize, k: usize, slopes: &[f64]| {
            let dc: f64 = slopes.iter().enumerate().map(|(t, a)| a * v(t, k)).sum();
            dc * (sum(k) - before[0][j][k])
        };
        let length: f64 = slopes.iter().map(|a| a * a).sum();
        let mut change = 0.0;
        for (j, (vector, weight)) in rates[0].iter().zip(&rates[1]).take(3).enumerate() {
            let square: f64 = (0..3).map(|k| gradient(j, k, &slopes).powi(2)).sum();
            change += vector * square + weight * length;
        }
        let curvature = |a: f64| a.abs() * (1.0 - a.abs());
        let steps: Vec<f64> =
            slopes.iter().map(|&a| a / (1.0 + change / length * curvature(a))).collect();
        for j in 0..3 {
            for (t, step) in steps.iter().enumerate() {
                let expected = before[1][j][t] - rates[1][j] * step;
                assert!((after[1][j][t] - expected).abs() < 1e-5, "{expected}");
            }
            for k in 0..3 {
                let expected = before[0][j][k] - rates[0][j] * gradient(j, k, &steps);
                assert!((after[0][j][k] - expected).abs() < 1e-5, "{expected}");
            }
        }
    }
}

#[test]
fn one_task_is_learned_by_the_formulas_in_double_precision_in_batches_of_any_size() {
    let spec = ModelSpec {
        crossing: CrossingSpec::Linear {},
        sharing: SharingSpec::None {},
        funnel: FunnelSpec::Independent { tower: vec![] },
        ..ModelSpec::default()
    };
    let mut schema = schema(&spec);
    schema.tasks = 1;
    let learner = || Learner::new(&spec, &schema, &[None], &PRIORS[..1], 11).unwrap();
    let (mut together, mut apart) = (learner(), learner());
    let mut weights = BTreeMap::<u64, (f64, f64)>::new();
    for size in [1, 40, 7, 64] {
        let mut batch = tangled(&spec, size);
        batch.numbers[size / 2] = -0.3;
        batch.modes.fill(LabelMode::Final);
        let first = |mut batch: Batch| {
            batch.labels = batch.labels.iter().step_by(PARENTS.len()).copied().collect();
            batch.modes.truncate(batch.size());
            batch
        };
        let mut found = Vec::new();
        for example in (0..size).map(|i| first(one(&batch, i))) {
            let share = 1.0 / example.lists[0].keys.len().max(1) as f64;
            let mut terms = BTreeMap::<u64, f64>::new();
            let listed = example.lists[0].keys.iter().map(|&key| (key, share));
            let keys = example.keys.iter().map(|&key| (key, 1.0)).chain(listed);
            keys.filter(|(key, _)| *key != 0)
                .for_each(|(key, share)| *terms.entry(key).or_default() += share);
            let &[number, bias] = apart.model().params().values() else { panic!("two parameters") };
            let mut logit = f64::from(bias) + f64::from(number) * f64::from(example.numbers[0]);
            for (key, share) in &terms {
                logit += share * weights.entry(*key).or_default().0;
            }
            let p = 1.0 / (1.0 + (-logit).exp());
            let report = apart.step(&example);
            assert!((f64::from(report.probabilities[0]) - p).abs() < 1e-5, "{p} {report:?}");
            found.extend(report.probabilities.iter().map(|p| p.to_bits()));

            let slope = p - f64::from(example.labels[0]);
            let rate = spec.learning.linear_rate / 4.0_f64.sqrt();
            for (key, share) in &terms {
                weights.entry(*key).or_default().1 += (share * slope).powi(2);
            }
            let rates = terms.iter().map(|(key, share)| (key, share, rate / weights[key].1.sqrt()));
            let rates: Vec<_> = rates.collect();
            let h: f64 = rates.iter().map(|(_, share, rate)| rate * *share * *share).sum();
            let step = slope / (1.0 + h * slope.abs() * (1.0 - slope.abs()));
            for (key, share, rate) in rates {
                weights.entry(*key).or_default().0 -= rate * share * step;
            }
        }
        let report = together.step(&first(batch));
        let same: Vec<u32> = report.probabilities.iter().map(|p| p.to_bits()).collect();
        assert_eq!(same, found);
        assert_eq!(together.checksum(), apart.checksum());
    }
    assert!(weights.values().any(|(w, _)| w.abs() > 0.3), "something was learned");
}

#[test]
fn a_group_is_predicted_before_any_of_it_is_learned() {
    for spec in shallow().chain(with_variances()) {
        let mut batch = tangled(&spec, 24);
        batch.numbers.fill(0.5);
        let mut singles = learner(&spec);
        let learned_between = singles.step(&batch).probabilities.clone();
        for start in (0..24).step_by(4) {
            batch.groups[start..start + 4].fill(start as u32);
        }
        let (mut together, mut apart) = (learner(&spec), learner(&spec));
        let mut before = Vec::new();
        for start in (0..24).step_by(4) {
            for i in start..start + 4 {
                let mut hidden = one(&batch, i);
                hidden.modes.fill(LabelMode::Masked);
                before.extend_from_slice(&apart.step(&hidden).probabilities);
            }
            (start..start + 4).for_each(|i| drop(apart.step(&one(&batch, i)).clone()));
        }
        let found = &together.step(&batch).probabilities;
        assert_eq!(found, &before, "{spec:?}");
        assert_ne!(found, &learned_between, "{spec:?}");
        let params = [&together, &apart].map(|learner| learner.model().params().values().to_vec());
        assert_eq!(params[0], params[1], "learned one after the other all the same: {spec:?}");
    }
}
