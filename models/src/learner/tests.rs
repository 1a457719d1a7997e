use sluice_features::example::LabelMode;

use super::*;
use crate::model::testing::{
    PARENTS, PRIORS, batch, combinations, final_batch, schema, with_variances,
};
use crate::spec::{FunnelSpec, SharingSpec};
use crate::synthetic::Synthetic;

fn learner(spec: &ModelSpec) -> Learner {
    Learner::new(spec, &schema(spec), &PARENTS, &PRIORS, 11).unwrap()
}

#[test]
fn the_same_batches_give_the_same_bits() {
    let spec = ModelSpec::default();
    let run = |seed: u64| {
        let mut learner = Learner::new(&spec, &schema(&spec), &PARENTS, &PRIORS, seed).unwrap();
        for size in [5, 16, 1, 7] {
            learner.step(&batch(learner.schema(), size).clone());
        }
        (learner.checksum(), learner.report.clone())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}

#[test]
fn a_step_reports_what_was_predicted_before_it() {
    for spec in combinations().iter().step_by(5).chain(&with_variances()) {
        let mut learner = learner(spec);
        // Without a deep part each example is a step.
        let batch = batch(&schema(spec), if spec.is_deep() { 6 } else { 1 });
        learner.step(&batch);
        let known = learner.predict(&batch).to_vec();
        let checksum = learner.checksum();
        assert_eq!(learner.predict(&batch), known);
        assert_eq!(learner.checksum(), checksum, "a prediction changes nothing");
        for (p, known) in learner.step(&batch).probabilities.iter().zip(&known) {
            assert!((p - known).abs() < if spec.is_deep() { 1e-9 } else { 1e-6 }, "{p} {known}");
        }
        assert_ne!(learner.predict(&batch), known);
    }
}

#[test]
fn heads_start_at_the_priors() {
    for spec in combinations().iter().step_by(3) {
        let mut learner = learner(spec);
        let batch = batch(&schema(spec), 6);
        for p in learner.predict(&batch).chunks(PARENTS.len()) {
            for (p, prior) in p.iter().zip(PRIORS) {
                let odds = |p: f64| (p / (1.0 - p)).ln();
                assert!((odds(f64::from(*p)) - odds(prior)).abs() < 0.2, "{p} {prior} {spec:?}");
            }
        }
    }
}

#[test]
fn an_empty_batch_is_predicted_and_learned_as_nothing() {
    for spec in combinations().into_iter().chain(with_variances()) {
        let mut learner = learner(&spec);
        let schema = schema(&spec);
        let empty = Batch::new(schema.list_fields().len(), schema.lookups.len());
        for size in [0, 3] {
            learner.step(&batch(&schema, size));
            let (checksum, steps) = (learner.checksum(), learner.steps());
            assert_eq!(learner.predict(&empty), [0.0; 0], "{spec:?}");
            let report = learner.step(&empty);
            assert!(report.probabilities.is_empty() && !report.refused && report.labelled == 0);
            assert!(report.loss.iter().all(|loss| *loss == 0.0));
            assert_eq!((learner.checksum(), learner.steps()), (checksum, steps), "{spec:?}");
        }
    }
}

#[test]
fn a_batch_that_is_not_finite_is_refused_and_changes_no_number() {
    let spec = ModelSpec::default();
    let mut learner = learner(&spec);
    let good = batch(&schema(&spec), 6);
    learner.step(&good);
    let mut bad = good.clone();
    bad.numbers[0] = f32::NAN;
    let dense = learner.model().params().values().to_vec();
    let known = learner.predict(&good).to_vec();
    assert!(learner.step(&bad).refused);
    assert_eq!((learner.refused(), learner.steps()), (1, 1));
    assert_eq!(learner.model().params().values(), dense);
    assert_eq!(learner.predict(&good), known);
    assert!(!learner.step(&good).refused);
}

#[test]
fn masked_examples_are_predicted_and_do_not_change_the_step() {
    let spec = ModelSpec::default();
    let (mut alone, mut beside) = (learner(&spec), learner(&spec));
    let mut both = final_batch(&schema(&spec), 6);
    let masked = sluice_features::example::LabelMode::Masked;
    both.modes[3 * PARENTS.len()..].fill(masked);
    let mut first = final_batch(&schema(&spec), 3);
    // Ids of the masked examples get rows as well: give the other learner the same ones.
    alone.step(&{
        let mut seen = both.clone();
        seen.modes.fill(masked);
        seen
    });
    assert_eq!(alone.steps(), 0, "without labels there is no step");
    alone.step(&first);
    beside.step(&both);
    assert_eq!(beside.report.labelled, 3);
    assert_eq!(beside.report.probabilities.len(), 6 * PARENTS.len());
    first.labels.truncate(0);
    for (a, b) in alone.model().params().values().iter().zip(beside.model().params().values()) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn a_child_of_a_product_head_is_never_above_its_parent() {
    for spec in combinations() {
        if !matches!(spec.funnel, FunnelSpec::Esmm { .. }) {
            continue;
        }
        let mut learner = learner(&spec);
        let batch = batch(&schema(&spec), 8);
        (0..5).for_each(|_| drop(learner.step(&batch).clone()));
        for p in learner.predict(&batch).chunks(PARENTS.len()) {
            for (task, parent) in PARENTS.iter().enumerate() {
                assert!(parent.is_none_or(|parent| p[task] <= p[parent]), "{p:?}");
            }
        }
    }
}

#[test]
fn every_combination_learns_64_rows_by_heart() {
    for mut spec in combinations() {
        match &mut spec.sharing {
            SharingSpec::None {} => {}
            SharingSpec::SharedBottom { hidden }
            | SharingSpec::Mmoe { hidden, .. }
            | SharingSpec::Ple { hidden, .. } => *hidden = vec![24, 16],
        }
        match &mut spec.funnel {
            FunnelSpec::Independent { tower }
            | FunnelSpec::Esmm { tower }
            | FunnelSpec::Aitm { tower, .. } => *tower = vec![16, 12],
        }
        spec.learning.dense_rate = 0.01;
        spec.learning.row_rate = 0.1;
        spec.learning.linear_rate = 0.6;
        let mut batch = final_batch(&schema(&spec), 64);
        // An id of its own makes every row separable, whatever the model.
        let columns = batch.keys.len() / 64;
        for (i, keys) in batch.keys.chunks_mut(columns).enumerate() {
            keys[columns - 1] = i as u64 + 1000;
        }
        let mut learner = learner(&spec);
        let mut loss = f64::INFINITY;
        for _ in 0..1000 {
            loss = learner.step(&batch).loss.iter().sum();
            if loss < 0.01 {
                break;
            }
        }
        assert!(loss < 0.01, "{loss} {spec:?}");
    }
}

#[test]
fn priors_follow_the_tree() {
    assert_eq!(default_priors(&[None, Some(0), Some(1)]).len(), 3);
    let priors = default_priors(&[None, Some(0), Some(0), None]);
    assert!(priors[1] < priors[0] && (priors[1] - priors[2]).abs() < 1e-12);
}

/// Claims to have so many threads and does the pieces in another order.
struct Backwards(usize);

impl Executor for Backwards {
    fn threads(&self) -> usize {
        self.0
    }
    fn run(&self, pieces: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..pieces).rev().for_each(work);
    }
}

/// So many threads, started for each step.
struct Threads(usize);

impl Executor for Threads {
    fn threads(&self) -> usize {
        self.0
    }
    fn run(&self, pieces: usize, work: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for k in 1..pieces {
                scope.spawn(move || work(k));
            }
            work(0);
        });
    }
}

#[test]
fn slices_side_by_side_learn_what_one_learns() {
    for mut spec in combinations().into_iter().filter(ModelSpec::is_deep).step_by(4) {
        // Steps of Adam have the length of the rate whatever the gradient: near zero its sign would be rounding's.
        spec.learning.clip = 0.01;
        let (mut one, mut three) = (learner(&spec), learner(&spec));
        for size in [60, 35, 7] {
            let batch = batch(&schema(&spec), size);
            let expected = one.step(&batch).clone();
            let found = three.step_on(&batch, batch.size(), &Backwards(3), &mut ());
            assert_eq!((found.labelled, found.refused), (expected.labelled, expected.refused));
            assert!((found.gradient_norm / expected.gradient_norm - 1.0).abs() < 1e-3, "{spec:?}");
            for (a, b) in found.loss.iter().zip(&expected.loss) {
                assert!((a - b).abs() < 1e-3 * b.abs() + 1e-6, "{a} {b} {spec:?}");
            }
            for (a, b) in found.probabilities.iter().zip(&expected.probabilities) {
                assert!((a - b).abs() < 2e-3, "{a} {b} {spec:?}");
            }
        }
        assert_eq!(one.steps(), three.steps());
    }
}

#[test]
fn the_gradients_of_slices_are_those_of_the_batch() {
    let spec = ModelSpec::default();
    let (mut one, mut two) = (learner(&spec), learner(&spec));
    let batch = batch(&schema(&spec), 64);
    one.step(&batch);
    two.step_on(&batch, batch.size(), &Backwards(2), &mut ());
    let (ours, theirs) = (one.adam.moments().0, two.adam.moments().0);
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
    assert!(ours.iter().any(|a| a.abs() > 1e-4));
}

#[test]
fn the_same_number_of_threads_gives_the_same_bits() {
    let spec = ModelSpec::default();
    let run = |executor: &dyn Executor| {
        let mut learner = learner(&spec);
        for size in [64, 33, 5, 128] {
            learner.step_on(&batch(&schema(&spec), size), size, executor, &mut ());
        }
        learner.checksum()
    };
    for threads in [1, 2, 5] {
        assert_eq!(run(&Threads(threads)), run(&Backwards(threads)), "{threads}");
    }
    assert_eq!(run(&Alone), run(&Threads(1)));
    assert_ne!(run(&Alone), run(&Threads(2)), "slices are summed in another order");
}

#[test]
#[should_panic(expected = "was made for this test")]
fn a_panic_in_a_slice_reaches_the_caller() {
    struct Breaks;
    impl Executor for Breaks {
        fn threads(&self) -> usize {
            2
        }
        fn run(&self, pieces: usize, work: &(dyn Fn(usize) + Sync)) {
            Threads(2).run(pieces, &|k| {
                work(k);
                assert_ne!(k, 0, "a panic that was made for this test");
            });
        }
    }
    let spec = ModelSpec::default();
    learner(&spec).step_on(&batch(&schema(&spec), 64), 64, &Breaks, &mut ());
}

/// Outcomes that come alone, in batches that time cuts short while no impression comes, do not outweigh what thousands have taught.
#[test]
fn batches_that_are_cut_short_move_the_model_by_less() {
    let spec = ModelSpec::default();
    let mut stream = Synthetic::new(&spec, 3);
    let asked = stream.impressions(200);
    let before: Vec<Batch> = (0..20).map(|_| stream.impressions(256)).collect();
    let alone = |stream: &mut Synthetic| {
        let mut batch = stream.impressions(7);
        batch.labels.fill(1.0);
        batch.modes.fill(LabelMode::FnwPositive);
        batch
    };
    let alone: Vec<Batch> = (0..20).map(|_| alone(&mut stream)).collect();
    let clicks = |learner: &mut Learner| {
        let p = learner.predict(&asked).chunks(PARENTS.len()).map(|p| f64::from(p[0]));
        p.sum::<f64>() / 200.0
    };
    let moved = |whole: usize| {
        let mut learner = stream.learner(&spec, 1).unwrap();
        before.iter().for_each(|batch| _ = learner.step(batch));
        let before = clicks(&mut learner);
        for batch in &alone {
            learner.step_on(batch, whole, &Alone, &mut ());
        }
        clicks(&mut learner) - before
    };
    let (as_they_are, as_a_part) = (moved(7), moved(256));
    assert!(as_they_are > 0.2, "{as_they_are}");
    assert!(as_a_part > 0.0 && as_a_part < as_they_are / 4.0, "{as_a_part} of {as_they_are}");
}
