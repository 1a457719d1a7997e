//! The softmax of each row of a matrix.

use ndarray::ArrayViewMut2;

use super::exponential::exp;
use super::lanes::{Kernel, Lanes};
use super::matrix::MatrixMut;
use super::path::Proof;

struct Rows<'a>(MatrixMut<'a>);

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) {
        for i in 0..self.0.rows {
            row(lanes, self.0.row(i));
        }
    }
}

#[inline(always)]
fn row<L: Lanes>(lanes: L, scores: &mut [f32]) {
    let (whole, rest) = scores.split_at_mut(scores.len() / L::WIDTH * L::WIDTH);
    let top = rest.iter().fold(f32::NEG_INFINITY, |top, &score| top.max(score));
    let mut tops = lanes.splat(top);
    for scores in whole.chunks_exact(L::WIDTH) {
        tops = lanes.max(tops, lanes.load(scores));
    }
    let mut each = [0.0; LARGEST];
    lanes.store(&mut each, tops);
    let top = each[..L::WIDTH].iter().fold(f32::NEG_INFINITY, |top, &score| top.max(score));
    let tops = lanes.splat(top);

    let mut totals = lanes.splat(0.0);
    for scores in whole.chunks_exact_mut(L::WIDTH) {
        let powers = exp(lanes, lanes.sub(lanes.load(scores), tops));
        totals = lanes.add(totals, powers);
        lanes.store(scores, powers);
    }
    let mut total = lanes.sum(totals);
    if !rest.is_empty() {
        lanes.store_part(rest, exp(lanes, lanes.sub(lanes.load_part(rest), tops)));
        total += rest.iter().sum::<f32>();
    }
    let share = 1.0 / total;
    let shares = lanes.splat(share);
    for scores in whole.chunks_exact_mut(L::WIDTH) {
        lanes.store(scores, lanes.mul(lanes.load(scores), shares));
    }
    rest.iter_mut().for_each(|score| *score *= share);
}

/// The widest vector of all paths.
const LARGEST: usize = 16;

/// Replaces the scores of each row by their softmax; rows without columns stay so.
///
/// # Panics
/// When rows are not contiguous.
pub fn softmax_rows(scores: ArrayViewMut2<'_, f32>) {
    apply(Proof::current(), scores);
}

fn apply(proof: Proof, scores: ArrayViewMut2<'_, f32>) {
    if !scores.is_empty() {
        proof.run(Rows(MatrixMut::new(scores)));
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    #[test]
    fn rows_agree_with_double_precision_at_every_length() {
        for proof in Proof::all() {
            for columns in (0..70).chain([200]) {
                let scores = Array2::from_shape_fn((3, columns), |(i, j)| {
                    ((i * 31 + j) as f32 * 0.7).sin() * 10.0 - 200.0 * i as f32
                });
                let mut found = scores.clone();
                apply(proof, found.view_mut());
                for (found, scores) in found.rows().into_iter().zip(scores.rows()) {
                    let top = scores.iter().fold(f64::MIN, |top, &z| top.max(z.into()));
                    let power = |z: f32| (f64::from(z) - top).exp();
                    let total: f64 = scores.iter().map(|&z| power(z)).sum();
                    for (&found, &z) in found.iter().zip(scores) {
                        let exact = power(z) / total;
                        assert!((f64::from(found) - exact).abs() < 1e-6, "{proof:?} {columns}");
                    }
                }
            }
        }
    }
}
