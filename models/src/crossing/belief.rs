//! What a model without a deep part believes of its weights (`learning.method = "bayes"`): a mean, which is the weight, and a variance.
//!
//! The weight `w` of an id for a task is normal, `N(w, 1 / (1/s² + λ))`: `s` is the deviation expected of it ([`PriorSpec`]), `λ` what was learned
//! of it so far, which stands in the id's row behind all its weights. All numbers of an embedding share one `λ`, the accumulator of its row. The weights of
//! numbers, which say similar things, and the bias behind them have a whole covariance `C` for each task, a block of the parameters.
//!
//! An example whose log loss has slope `g` and curvature `h` by a logit `<x, w>` of variance `v = Σ_j x_j² v_j + xᵀ C x` makes of the belief the next
//! (the extended Kalman filter for a logistic likelihood, or the Laplace approximation example by example; Spiegelhalter and Lauritzen 1990; AdPredictor,
//! Graepel et al., ICML 2010, is the same for a probit):
//!
//! ```text
//! w_j -= v_j x_j g / (1 + h v)        λ_j += x_j² h / (1 + h (v - v_j x_j²))
//! w   -= C x g / (1 + h v)            C   -= C x (C x)ᵀ h / (1 + h v)
//! ```
//!
//! So a weight moves by what is still uncertain of it: a mean of all it has seen, drawn to 0 as long as that is little. That what is true may change is
//! always expected: no deviation falls below `d` ([`PriorSpec::least`]). A variance of an id or an embedding is at least `d²`, and `h d⁴` is added to each
//! variance of a number, which for one alone ends at `d²` too.
//!
//! In the funnel `esmm` every step down multiplies the deviations by [`PriorSpec::child`]: what makes a difference to a click makes less to the purchase of
//! what is in the cart already, and less is seen of it. The machine's `v_t` is that share of its parent's.

use crate::kernels::Real;
use crate::params::{Block, Layout, Params, Start};
use crate::spec::PriorSpec;

/// The deviation expected of a bias, around the log-odds of the task's prior.
const BIAS: f64 = 1.0;

/// Deviations and covariances.
#[derive(Clone, Debug)]
pub struct Belief {
    /// `[T * inputs, inputs]`
    covariance: Block,
    /// Numbers and, last, the bias.
    inputs: usize,
    /// `1 / s²` of the weights of ids, for each task.
    weights: Vec<f32>,
    /// `1 / s²` of the numbers of embeddings.
    rows: f32,
    /// The machine's `v_t`.
    shares: Vec<f32>,
    /// The smallest variance.
    least: f32,
}

impl Belief {
    /// Adds the block `belief.covariance`. `shares[t]` is what [`shares`] gives.
    pub(crate) fn new(
        layout: &mut Layout,
        prior: &PriorSpec,
        numbers: usize,
        shares: &[f64],
    ) -> Self {
        let inputs = numbers + 1;
        let mut start = vec![0.0; shares.len() * inputs * inputs];
        for (share, covariance) in shares.iter().zip(start.chunks_exact_mut(inputs * inputs)) {
            for place in 0..inputs {
                let deviation = if place < numbers { prior.numbers * share } else { BIAS };
                covariance[place * inputs + place] = deviation * deviation;
            }
        }
        let start = Start::Values(start);
        let precision = |deviation: f64| (1.0 / (deviation * deviation)) as f32;
        Self {
            covariance: layout.add("belief.covariance", shares.len() * inputs, inputs, start),
            inputs,
            weights: shares.iter().map(|share| precision(prior.weights * share)).collect(),
            rows: precision(prior.rows),
            shares: shares.iter().map(|&share| share as f32).collect(),
            least: (prior.least * prior.least) as f32,
        }
    }

    /// The machine's `v_t` of a task.
    pub(crate) fn share(&self, task: usize) -> f32 {
        self.shares[task]
    }

    /// The variance of an id's weight for a task, of which this much was learned.
    pub(crate) fn variance(&self, task: usize, learned: f32) -> f32 {
        (1.0 / (self.weights[task] + learned)).max(self.least)
    }

    /// The variance of an embedding's numbers, of which this much was learned.
    pub(crate) fn row_variance(&self, learned: f32) -> f32 {
        (1.0 / (self.rows + learned)).max(self.least)
    }

    /// Writes `C x` of a task to `product`, for `x` the numbers and, last, 1. Returns `xᵀ C x`.
    pub(crate) fn spread(
        &self,
        params: &Params<f32>,
        task: usize,
        x: &[f32],
        product: &mut [f32],
    ) -> f32 {
        let size = self.inputs * self.inputs;
        let covariance = &params.slice(self.covariance)[task * size..(task + 1) * size];
        for (product, row) in product.iter_mut().zip(covariance.chunks_exact(self.inputs)) {
            *product = f32::dot(row, x);
        }
        // Rounding may leave a little less than nothing of what is known well.
        f32::dot(product, x).max(0.0)
    }

    /// `C -= product productᵀ h / (1 + h v)` of a task, and `h d⁴` more of each variance; `variance` is `v`, `curvature` is `h`.
    pub(crate) fn shrink(
        &self,
        params: &mut Params<f32>,
        task: usize,
        product: &[f32],
        curvature: f32,
        variance: f32,
    ) {
        let size = self.inputs * self.inputs;
        let gain = curvature / (1.0 + curvature * variance);
        let drift = curvature * self.least * self.least;
        let covariance = &mut params.slice_mut(self.covariance)[task * size..(task + 1) * size];
        let rows = covariance.chunks_exact_mut(self.inputs);
        for (place, (&by, row)) in product.iter().zip(rows).enumerate() {
            f32::axpy(-gain * by, product, row);
            row[place] += drift;
        }
    }
}

/// For each task the product of `child` along its path from the root if its head is `conditional`, else 1.
pub(crate) fn shares(parents: &[Option<usize>], conditional: bool, child: f64) -> Vec<f64> {
    let mut shares: Vec<f64> = Vec::with_capacity(parents.len());
    for parent in parents {
        shares.push(match parent.filter(|_| conditional) {
            Some(parent) => shares[parent] * child,
            None => 1.0,
        });
    }
    shares
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const PRIOR: PriorSpec =
        PriorSpec { weights: 0.4, numbers: 0.2, rows: 0.5, least: 0.0, child: 0.5 };

    #[test]
    fn every_step_down_halves_what_is_expected() {
        let parents = [None, Some(0), Some(1), None];
        assert_eq!(shares(&parents, true, 0.5), [1.0, 0.5, 0.25, 1.0]);
        assert_eq!(shares(&parents, false, 0.5), [1.0; 4]);
        let belief = Belief::new(&mut Layout::default(), &PRIOR, 2, &[1.0, 0.5]);
        assert!((belief.variance(0, 0.0) - 0.16).abs() < 1e-6);
        assert!((belief.variance(1, 0.0) - 0.04).abs() < 1e-6);
        assert!((belief.variance(1, 25.0) - 0.02).abs() < 1e-6, "as much as was expected");
        assert!((belief.row_variance(4.0) - 0.125).abs() < 1e-6);
    }

    #[test]
    fn a_covariance_becomes_that_of_a_regression_on_what_was_seen() {
        let mut layout = Layout::default();
        let belief = Belief::new(&mut layout, &PRIOR, 1, &[1.0, 0.5]);
        let mut params = Params::<f32>::initial(Arc::new(layout), 1);
        // The inverse of the covariance is that of the prior and the sum of h x xᵀ.
        let (mut precision, mut product) = ([25.0 / 0.25, 0.0, 0.0, 1.0], [0.0; 2]);
        for i in 0..300 {
            let (x, h) = ([(i as f32 * 0.7).sin() + 0.5, 1.0], 0.05 + 0.001 * (i % 90) as f32);
            let spread = belief.spread(&params, 1, &x, &mut product);
            belief.shrink(&mut params, 1, &product, h, spread);
            for (place, sum) in precision.iter_mut().enumerate() {
                *sum += f64::from(h * x[place / 2] * x[place % 2]);
            }
        }
        let [a, b, _, d] = precision;
        let determinant = a * d - b * b;
        for (x, wanted) in [([1.0, 0.0], d), ([0.0, 1.0], a), ([1.0, 1.0], a + d - 2.0 * b)] {
            let (found, wanted) =
                (f64::from(belief.spread(&params, 1, &x, &mut product)), wanted / determinant);
            assert!((found - wanted).abs() < 1e-4 * wanted, "{found} {wanted}");
        }
        let untouched = belief.spread(&params, 0, &[1.0, 0.0], &mut product);
        assert!((untouched - 0.04).abs() < 1e-7);
    }

    #[test]
    fn no_deviation_falls_below_the_least() {
        let mut layout = Layout::default();
        let belief = Belief::new(&mut layout, &PriorSpec { least: 0.05, ..PRIOR }, 1, &[1.0]);
        let mut params = Params::<f32>::initial(Arc::new(layout), 1);
        assert!((belief.variance(0, 1e9) - 0.0025).abs() < 1e-6);
        assert!((belief.row_variance(1e9) - 0.0025).abs() < 1e-6);
        let (mut product, mut spread) = ([0.0; 2], 0.0);
        for _ in 0..40_000 {
            spread = belief.spread(&params, 0, &[1.0, 0.0], &mut product);
            belief.shrink(&mut params, 0, &product, 0.2, spread);
        }
        assert!((spread - 0.0025).abs() < 1e-5, "{spread}");
    }
}
