use std::collections::BTreeMap;

use sluice_features::example::LabelMode;

use super::super::tests::{learner, one, tangled};
use super::*;
use crate::crossing::shares;
use crate::learner::Learner;
use crate::model::testing::{PARENTS, schema, with_variances};
use crate::spec::{FunnelSpec, ModelSpec};
use crate::table::RowStore;

/// The same filter in double precision and by the textbook: variances instead of precisions, ids in maps, matrices as they are written.
struct Twin {
    shares: Vec<f64>,
    /// For each id and task, mean and variance.
    weights: BTreeMap<u64, Vec<(f64, f64)>>,
    /// Numbers and their variance.
    rows: BTreeMap<u64, (Vec<f64>, f64)>,
    /// For each task the weights of numbers and, last, the bias, and their covariance.
    numbers: Vec<(Vec<f64>, Vec<Vec<f64>>)>,
}

/// For each distinct id its share.
fn terms_of(keys: impl Iterator<Item = (u64, f64)>) -> BTreeMap<u64, f64> {
    let mut terms = BTreeMap::new();
    keys.filter(|(key, _)| *key != 0).for_each(|(key, x)| *terms.entry(key).or_insert(0.0) += x);
    terms
}

impl Twin {
    fn new(learner: &Learner) -> Self {
        let spec = learner.spec();
        let prior = &spec.learning.prior;
        let conditional = matches!(spec.funnel, FunnelSpec::Esmm { .. });
        let shares = shares(&PARENTS, conditional, prior.child);
        let numbers = usize::from(spec.crossing.has_linear());
        let first = |task: usize| {
            let (mut biases, mut p) = (vec![0.0_f32; PARENTS.len()], vec![0.0; PARENTS.len()]);
            let mut model = learner.model().clone();
            let (_, funnel, _, params) = model.shallow().unwrap();
            funnel.predict_one(params, &mut biases, &mut p);
            let mut mean = vec![0.0; numbers];
            mean.push(f64::from(biases[task]));
            let mut covariance = vec![vec![0.0; numbers + 1]; numbers + 1];
            for (i, row) in covariance.iter_mut().enumerate() {
                let deviation = if i < numbers { prior.numbers * shares[task] } else { 1.0 };
                row[i] = deviation * deviation;
            }
            (mean, covariance)
        };
        let numbers = (0..PARENTS.len()).map(first).collect();
        Self { numbers, shares, weights: BTreeMap::new(), rows: BTreeMap::new() }
    }

    /// Predicts and learns one example: returns its logits.
    fn step(&mut self, learner: &Learner, example: &Batch) -> Vec<f64> {
        let spec = learner.spec();
        let (linear, fm) = (spec.crossing.has_linear(), spec.crossing.has_fm());
        let prior = &spec.learning.prior;
        let list = &example.lists[0].keys;
        let all =
            terms_of(
                example.keys.iter().map(|&key| (key, 1.0)).chain(
                    list.iter().filter(|_| linear).map(|&key| (key, 1.0 / list.len() as f64)),
                ),
            );
        // The pair of item and user has no width.
        let wide = terms_of(example.keys[usize::from(linear)..].iter().map(|&key| (key, 1.0)));
        for &key in all.keys() {
            let first = |share: &f64| (0.0, (prior.weights * share).powi(2));
            self.weights.entry(key).or_insert_with(|| self.shares.iter().map(first).collect());
        }
        for &key in wide.keys().filter(|_| fm) {
            let store = &learner.embeddings().stores()[0];
            self.rows.entry(key).or_insert_with(|| {
                let mut row = vec![0.0; store.width()];
                store.gather(&[key], &mut row);
                (row.into_iter().map(f64::from).collect(), prior.rows * prior.rows)
            });
        }
        let mut x: Vec<f64> =
            example.numbers.iter().filter(|_| linear).map(|&x| f64::from(x)).collect();
        x.push(1.0);
        let width = self.rows.values().next().map_or(0, |(row, _)| row.len());
        let sum: Vec<f64> =
            (0..width).map(|k| wide.iter().map(|(key, x)| x * self.rows[key].0[k]).sum()).collect();
        let directions: BTreeMap<u64, Vec<f64>> = wide
            .iter()
            .filter(|_| fm)
            .map(|(key, x)| {
                (*key, sum.iter().zip(&self.rows[key].0).map(|(s, e)| x * (s - e)).collect())
            })
            .collect();
        let pairs: f64 = wide
            .iter()
            .filter(|_| fm)
            .map(|(key, x)| {
                let own = self.rows[key].0.iter().zip(&sum);
                x * own.map(|(e, s)| e * (s - e)).sum::<f64>() / 2.0
            })
            .sum();
        let logits: Vec<f64> = (0..PARENTS.len())
            .map(|task| {
                let weights = all.iter().filter(|_| linear);
                let (mean, _) = &self.numbers[task];
                self.shares[task] * pairs
                    + mean.iter().zip(&x).map(|(w, x)| w * x).sum::<f64>()
                    + weights.map(|(key, x)| x * self.weights[key][task].0).sum::<f64>()
            })
            .collect();

        let (mut loss, mut evidence) = (vec![0.0; PARENTS.len()], Vec::new());
        let mut model = learner.model().clone();
        let (_, funnel, _, _) = model.shallow().unwrap();
        let narrow: Vec<f32> = logits.iter().map(|&logit| logit as f32).collect();
        funnel.weigh_one(&Targets::slice(example, 0..1, 1), &narrow, &mut loss, &mut evidence);
        for (task, evidence) in evidence.into_iter().enumerate() {
            let Some(Evidence { slope, curvature, damping }) = evidence else { continue };
            let [g, h, damping] = [slope, curvature, damping].map(f64::from);
            let (mean, covariance) = &mut self.numbers[task];
            let product: Vec<f64> =
                covariance.iter().map(|row| row.iter().zip(&x).map(|(c, x)| c * x).sum()).collect();
            let mut variance = product.iter().zip(&x).map(|(p, x)| p * x).sum::<f64>();
            if linear {
                variance +=
                    all.iter().map(|(key, x)| x * x * self.weights[key][task].1).sum::<f64>();
            }
            let share = self.shares[task];
            for (key, direction) in &directions {
                let square = direction.iter().map(|d| d * d).sum::<f64>();
                variance += share * share * square * self.rows[key].1;
            }
            let (step, gain) = (-g / (1.0 + damping * variance), h / (1.0 + h * variance));
            for (i, by) in product.iter().enumerate() {
                mean[i] += step * by;
                product.iter().enumerate().for_each(|(j, p)| covariance[i][j] -= gain * by * p);
            }
            for (key, x) in all.iter().filter(|_| linear) {
                let (w, v) = &mut self.weights.get_mut(key).unwrap()[task];
                *w += step * *v * x;
                *v -= *v * *v * x * x * gain;
            }
            for (key, direction) in &directions {
                let (row, v) = self.rows.get_mut(key).unwrap();
                row.iter_mut().zip(direction).for_each(|(e, d)| *e += share * step * *v * d);
                // Of the posterior covariance `v I - v² d dᵀ h / (1 + h V)` the mean variance is kept.
                let variances = direction.iter().map(|d| *v - (*v * share * d).powi(2) * gain);
                *v = variances.sum::<f64>() / direction.len() as f64;
            }
        }
        logits
    }
}

fn final_probabilities(spec: &ModelSpec, logits: &[f64]) -> Vec<f64> {
    let own: Vec<f64> = logits.iter().map(|a| 1.0 / (1.0 + (-a).exp())).collect();
    let mut p: Vec<f64> = Vec::new();
    for (task, own) in own.into_iter().enumerate() {
        let parent = PARENTS[task].filter(|_| matches!(spec.funnel, FunnelSpec::Esmm { .. }));
        p.push(parent.map_or(1.0, |parent| p[parent]) * own);
    }
    p
}

#[test]
fn the_filter_is_that_of_the_textbook_in_double_precision() {
    for mut spec in with_variances() {
        spec.learning.prior.least = 0.0;
        let mut learner = learner(&spec);
        let mut batch = tangled(&spec, 60);
        batch.numbers[30] = 0.4;
        let mut hidden = batch.clone();
        hidden.modes.fill(LabelMode::Masked);
        learner.step(&hidden); // Its ids have rows now.
        let mut twin = Twin::new(&learner);
        for round in 0..4 {
            for example in (0..60).map(|i| one(&batch, i)) {
                let logits = twin.step(&learner, &example);
                let found = &learner.step(&example).probabilities;
                for (found, wanted) in found.iter().zip(final_probabilities(&spec, &logits)) {
                    let distance = (f64::from(*found) - wanted).abs();
                    assert!(distance < 1e-4, "{round} {found} {wanted} {spec:?}");
                }
            }
        }
        if spec.crossing.has_fm() {
            let mut compared = 0;
            let store = &learner.embeddings().stores()[0];
            for shard in (0..RowStore::SHARDS).map(|shard| store.export(shard)) {
                for (key, learned) in shard.keys.iter().zip(&shard.accumulators) {
                    let Some((_, v)) = twin.rows.get(key) else { continue };
                    let wanted = 1.0 / v - 1.0 / spec.learning.prior.rows.powi(2);
                    let distance = (f64::from(*learned) - wanted).abs();
                    assert!(distance < 1e-3 * (1.0 + wanted), "{learned} {wanted} {spec:?}");
                    compared += usize::from(wanted > 0.5);
                }
            }
            assert!(compared > 5, "{compared}");
        }
        let moved = learner.predict(&batch).to_vec();
        assert!(moved.iter().any(|p| (p - 0.3).abs() > 0.2), "something was learned");
    }
}

#[test]
fn a_rate_is_found_from_labels_that_come_late() {
    // A click in five impressions and a like in two clicks, each told by itself after its impression.
    let spec = with_variances().pop().unwrap();
    assert!(matches!(spec.funnel, FunnelSpec::Esmm { .. }) && spec.crossing.has_fm());
    let mut learner = learner(&spec);
    let mut examples = tangled(&spec, 1);
    examples.numbers[0] = 0.0;
    let (negative, positive, masked) =
        (LabelMode::FnwNegative, LabelMode::FnwPositive, LabelMode::Masked);
    for i in 0..4000 {
        let (click, like) = (i % 5 == 0, i % 10 == 0);
        examples.modes = vec![negative; 4];
        examples.labels = vec![0.0; 4];
        learner.step(&examples);
        for (task, _) in [click, like].iter().enumerate().filter(|(_, on)| **on) {
            examples.modes = vec![masked; 4];
            examples.modes[task] = positive;
            examples.labels = vec![0.0; 4];
            examples.labels[task] = 1.0;
            learner.step(&examples);
        }
    }
    let p = learner.predict(&examples);
    assert!((p[0] - 0.2).abs() < 0.01 && (p[1] - 0.1).abs() < 0.01, "{p:?}");
    assert!(p[2] < 0.01 && p[3] < 0.01, "{p:?}");
}

#[test]
fn what_is_served_is_what_was_learned() {
    for spec in with_variances() {
        let mut learner = learner(&spec);
        let schema = schema(&spec);
        for size in [40, 7] {
            learner.step(&crate::model::testing::batch(&schema, size));
        }
        let batch = crate::model::testing::batch(&schema, 9);
        let mut hidden = batch.clone();
        hidden.modes.fill(LabelMode::Masked);
        let wanted = learner.predict(&batch).to_vec();
        let found = &learner.step(&hidden).probabilities;
        assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{spec:?}");
    }
}
