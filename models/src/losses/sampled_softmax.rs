//! Softmax over the items of the batch, corrected for how often each item is in a batch
//! (Yi et al. 2019).
//!
//! Row `i` is a user, column `j` an item, the pairs that happened are on the diagonal; columns
//! beyond the rows are further negatives. With `c_ij = s_ij - ln q_j` for all columns, also the
//! positive one,
//!
//! `L = -(1/B) Σ_i r_i ln(exp c_ii / Σ_j exp c_ij)`, `dL/ds_ij = r_i (softmax_j(c_i) - [i = j]) / B`.
//!
//! Columns that hold the same item as the row's own are no negatives: they are left out of that
//! row. Without the correction popular items, which are negatives in proportion to their
//! frequency, are pushed down by it. Serving uses the plain scores.
//!
//! Shapes: scores `[B, columns]`, items and `log_q` `[columns]`, weights `[B]`.

use ndarray::ArrayViewMut2;

use crate::kernels::Real;

/// Returns the loss and overwrites `scores` by its gradient. `log_q` is the logarithm of the
/// frequency of each column's item, up to a constant; a row of weight 0 has no part.
///
/// # Panics
/// When the shapes do not fit, or when there are fewer columns than rows.
pub fn sampled_softmax<R: Real>(
    mut scores: ArrayViewMut2<R>,
    items: &[u64],
    log_q: &[R],
    weights: &[R],
) -> R {
    let (rows, columns) = scores.dim();
    assert!(rows <= columns, "expected a column for each of {rows} rows, found {columns}");
    assert_eq!(items.len(), columns, "items, and columns of scores");
    assert_eq!(log_q.len(), columns, "frequencies, and columns of scores");
    assert_eq!(weights.len(), rows, "weights, and rows of scores");

    let mut loss = R::zero();
    let share = R::one() / R::from_f64(rows.max(1) as f64);
    for (i, (mut row, &weight)) in scores.rows_mut().into_iter().zip(weights).enumerate() {
        let negative = |j: usize| j == i || items[j] != items[i];
        let mut largest = row[i] - log_q[i];
        for (j, s) in row.iter_mut().enumerate() {
            *s -= log_q[j];
            if negative(j) {
                largest = largest.max(*s);
            }
        }
        let own = row[i];
        let mut sum = R::zero();
        for (j, s) in row.iter_mut().enumerate() {
            *s = if negative(j) { (*s - largest).exp() } else { R::zero() };
            sum += *s;
        }
        loss += weight * share * (largest + sum.ln() - own);
        let scale = weight * share / sum;
        row.iter_mut().for_each(|s| *s *= scale);
        row[i] -= weight * share;
    }
    loss
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, ArrayView2};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StandardNormal, weighted::WeightedAliasIndex};

    use super::*;
    use crate::gradcheck::assert_slope;

    /// The definition, without a thought for overflow.
    fn plainly(scores: ArrayView2<f64>, items: &[u64], log_q: &[f64], weights: &[f64]) -> f64 {
        let mut loss = 0.0;
        for i in 0..weights.len() {
            let e = |j: usize| (scores[[i, j]] - log_q[j]).exp();
            let others = (0..items.len()).filter(|&j| j == i || items[j] != items[i]);
            loss -= weights[i] * (e(i) / others.map(e).sum::<f64>()).ln();
        }
        loss / weights.len() as f64
    }

    #[test]
    fn loss_is_its_definition_and_the_gradient_its_slope() {
        let scores = Array2::from_shape_fn((4, 6), |(i, j)| (1.7 * (i * 6 + j) as f64).sin() * 3.0);
        let items = [5, 8, 5, 9, 8, 1];
        let log_q = [-1.0, -2.5, -1.0, -0.3, -2.5, -4.0];
        let weights = [1.0, 0.3, 2.0, 0.0];
        let mut gradient = scores.clone();
        let loss = sampled_softmax(gradient.view_mut(), &items, &log_q, &weights);
        assert!((loss - plainly(scores.view(), &items, &log_q, &weights)).abs() < 1e-13);
        assert_slope(scores.as_slice().unwrap(), gradient.as_slice().unwrap(), |s| {
            let scores = ArrayView2::from_shape((4, 6), s).unwrap();
            plainly(scores, &items, &log_q, &weights)
        });
        // Masked columns and rows without weight get nothing at all.
        assert!(gradient[[0, 2]].abs() + gradient[[1, 4]].abs() < f64::MIN_POSITIVE);
        assert!(gradient.row(3).iter().all(|g| g.abs() < f64::MIN_POSITIVE));
        for row in gradient.rows() {
            assert!(row.sum().abs() < 1e-15, "a constant added to a row changes nothing");
        }
    }

    #[test]
    fn large_scores_stay_finite() {
        let mut scores = ndarray::arr2(&[[9e4_f32, -9e4], [9e4, -9e4]]);
        let loss = sampled_softmax(scores.view_mut(), &[1, 2], &[0.0, 0.0], &[1.0, 1.0]);
        assert!((loss - 9e4).abs() < 1.0, "{loss}");
        assert_eq!(scores, ndarray::arr2(&[[0.0, 0.0], [0.5, -0.5]]));
    }

    #[test]
    fn a_batch_of_one_item_teaches_nothing() {
        let mut scores = Array2::from_elem((3, 3), 0.7);
        assert!(sampled_softmax(scores.view_mut(), &[4; 3], &[-1.0; 3], &[1.0; 3]).abs() < 1e-15);
        assert!(scores.iter().all(|g| g.abs() < 1e-15));
        let mut empty = Array2::<f64>::zeros((0, 0));
        assert!(sampled_softmax(empty.view_mut(), &[], &[], &[]).abs() < 1e-15);
    }

    /// Identity 9: `mean exp(s_j - ln q_j)` over samples from `q` is `Σ exp s`.
    #[test]
    fn corrected_samples_estimate_the_whole_softmax() {
        let mut random = ChaCha8Rng::seed_from_u64(9);
        let s: Vec<f64> =
            (0..2000).map(|_| 0.7 * random.sample::<f64, _>(StandardNormal)).collect();
        let raw: Vec<f64> = (0..2000).map(|_| 1e-4 + random.random::<f64>().powi(3)).collect();
        let total: f64 = raw.iter().sum();
        let draw = WeightedAliasIndex::new(raw.clone()).unwrap();
        let whole = s.iter().map(|s| s.exp()).sum::<f64>().ln();

        let samples = 4096;
        let mut estimates = 0.0;
        for _ in 0..50 {
            // The row's own column first, its score 0 and its frequency 1: its loss is then
            // ln(1 + Σ exp(s_j - ln q_j)).
            let drawn: Vec<usize> = (0..samples).map(|_| draw.sample(&mut random)).collect();
            let mut scores = Array2::zeros((1, samples + 1));
            let (mut items, mut log_q) = (vec![u64::MAX], vec![0.0]);
            for (j, &item) in drawn.iter().enumerate() {
                scores[[0, j + 1]] = s[item];
                items.push(item as u64);
                log_q.push((raw[item] / total).ln());
            }
            let loss = sampled_softmax(scores.view_mut(), &items, &log_q, &[1.0]);
            estimates += (loss.exp_m1() / samples as f64).ln() / 50.0;
        }
        assert!((estimates - whole).abs() < 0.03, "{estimates} against {whole}");
    }

    /// Learns one free score per item from a stream of items that no user prefers, Zipf's law over
    /// 200 items; returns the slope of the learned scores on `ln q` over the 100 most frequent.
    fn slope(correct: bool, mask: bool) -> f64 {
        const ITEMS: usize = 200;
        const BATCH: usize = 64;
        let raw: Vec<f64> = (1..=ITEMS).map(|rank| 1.0 / rank as f64).collect();
        let total: f64 = raw.iter().sum();
        let log_q: Vec<f64> = raw.iter().map(|r| (r / total).ln()).collect();
        let draw = WeightedAliasIndex::new(raw).unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(1);

        let (mut score, mut squares) = (vec![0.0; ITEMS], vec![0.1; ITEMS]);
        let (mut scores, mut gradient) = (Array2::zeros((BATCH, BATCH)), vec![0.0; ITEMS]);
        for _ in 0..8_000 {
            let drawn: Vec<usize> = (0..BATCH).map(|_| draw.sample(&mut random)).collect();
            // With distinct names for the columns no duplicate is found, and none masked.
            let name = |(j, &item): (usize, &usize)| if mask { item as u64 } else { j as u64 };
            let names: Vec<u64> = drawn.iter().enumerate().map(name).collect();
            let used = |&item: &usize| if correct { log_q[item] } else { 0.0 };
            let log_q: Vec<f64> = drawn.iter().map(used).collect();
            for ((_, j), s) in scores.indexed_iter_mut() {
                *s = score[drawn[j]];
            }
            sampled_softmax(scores.view_mut(), &names, &log_q, &[1.0; BATCH]);
            gradient.fill(0.0);
            for (j, column) in scores.columns().into_iter().enumerate() {
                gradient[drawn[j]] += column.sum();
            }
            for (item, g) in gradient.iter().enumerate() {
                squares[item] += g * g;
                score[item] -= 0.3 * g / f64::sqrt(squares[item]);
            }
        }
        let (x, y) = (&log_q[..100], &score[..100]);
        let (mx, my) = (x.iter().sum::<f64>() / 100.0, y.iter().sum::<f64>() / 100.0);
        let both: f64 = x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum();
        both / x.iter().map(|x| (x - mx) * (x - mx)).sum::<f64>()
    }

    #[test]
    fn corrected_scores_learn_the_frequencies_and_plain_ones_do_not() {
        let (corrected, plain) = (slope(true, false), slope(false, false));
        assert!((corrected - 1.0).abs() < 0.02, "slope {corrected} corrected");
        assert!(plain.abs() < 0.02, "slope {plain} plain");
        // Masking leaves out duplicates of the row's own item only, which matters for an item
        // that is a sixth of the stream: PyTorch finds 1.019 and 0.019.
        let (corrected, plain) = (slope(true, true), slope(false, true));
        assert!((corrected - 1.0).abs() < 0.03, "slope {corrected} corrected and masked");
        assert!(plain.abs() < 0.03, "slope {plain} plain and masked");
    }
}
