//! The variances of the weights of a model without a deep part (`learning.method = "bayes"`), beside the weights, which are the means.
//!
//! The prior of a weight is `N(0, s²)` ([`PriorSpec`]). What was learned since is an extended Kalman filter over a static state with the log loss of a
//! logistic likelihood as its measurement (cf. Spiegelhalter and Lauritzen 1990): an example is linearised at the means before it, and its step is one Newton
//! step on the log posterior, not the minimum of it. Covariances are kept for the weights of numbers and the bias behind them, which say
//! similar things: a matrix `C` for each task, a block of the parameters. The weights of ids have variances alone, `v_j = 1 / (1/s² + λ_j)`; their
//! precision `λ_j` beyond the prior's stands in the id's row, behind all its weights. The `K` numbers of an embedding share one `λ`, the accumulator of its
//! row. Other covariances are dropped after every step.
//!
//! With `g` and `h` the slope and curvature of the log loss by the logit, `x_j` the slope of the logit by weight `j` (its input; in the machine, taken
//! where the example found the rows) and `V = Σ_j x_j² v_j + xᵀ C x` the variance of the logit:
//!
//! ```text
//! w_j -= v_j x_j g / (1 + h V)        λ_j += x_j² h / (1 + h (V - v_j x_j²))        v_j' = v_j - v_j² x_j² h / (1 + h V)
//! w   -= C x g / (1 + h V)            C   -= C x (C x)ᵀ h / (1 + h V)
//! e   -= v d g / (1 + h V)            λ   += m h / (1 + h (V - v m)),   m = |d|² / K, d the slopes by the row's numbers
//! ```
//!
//! The last is the mean variance of the row's exact posterior, `trace(v I - v² d dᵀ h / (1 + h V)) / K`, as a precision: of all normals with one variance the
//! nearest one to it by Kullback-Leibler divergence.
//!
//! What is true may change, so no deviation falls below `δ` ([`PriorSpec::least`]): the variance of an id or an embedding is taken as at least `δ²`, and `h δ⁴` is
//! added to that of a number's weight and of the bias, which for one alone ends at `δ²` too.
//!
//! In the funnel `esmm` every step down multiplies the prior's deviations by [`PriorSpec::child`]: what makes a difference to a click makes less to the purchase of
//! what is in the cart already, and less is seen of it. The machine's `v_t` is that share of its parent's.

use crate::kernels::Real;
use crate::params::{Block, Layout, Params, Start};
use crate::spec::PriorSpec;

/// The prior deviation of a bias around the log-odds of the task's prior.
const BIAS: f64 = 1.0;

/// Priors and covariances.
#[derive(Clone, Debug)]
pub struct Variances {
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

impl Variances {
    /// Adds the block `variances.covariance`. `shares[t]` is what [`shares`] gives.
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
            covariance: layout.add("variances.covariance", shares.len() * inputs, inputs, start),
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

    /// The variance of an id's weight for a task, given the precision that was learned.
    pub(crate) fn variance(&self, task: usize, learned: f32) -> f32 {
        (1.0 / (self.weights[task] + learned)).max(self.least)
    }

    /// The variance of an embedding's numbers, given the precision that was learned.
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

    /// `C -= product productᵀ h / (1 + h v)` of a task, and `h δ⁴` more of each variance; `variance` is `v`, `curvature` is `h`.
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
        let variances = Variances::new(&mut Layout::default(), &PRIOR, 2, &[1.0, 0.5]);
        assert!((variances.variance(0, 0.0) - 0.16).abs() < 1e-6);
        assert!((variances.variance(1, 0.0) - 0.04).abs() < 1e-6);
        assert!((variances.variance(1, 25.0) - 0.02).abs() < 1e-6, "as much as was expected");
        assert!((variances.row_variance(4.0) - 0.125).abs() < 1e-6);
    }

    #[test]
    fn a_covariance_becomes_that_of_a_regression_on_what_was_seen() {
        let mut layout = Layout::default();
        let variances = Variances::new(&mut layout, &PRIOR, 1, &[1.0, 0.5]);
        let mut params = Params::<f32>::initial(Arc::new(layout), 1);
        // The inverse of the covariance is that of the prior and the sum of h x xᵀ.
        let (mut precision, mut product) = ([25.0 / 0.25, 0.0, 0.0, 1.0], [0.0; 2]);
        for i in 0..300 {
            let (x, h) = ([(i as f32 * 0.7).sin() + 0.5, 1.0], 0.05 + 0.001 * (i % 90) as f32);
            let spread = variances.spread(&params, 1, &x, &mut product);
            variances.shrink(&mut params, 1, &product, h, spread);
            for (place, sum) in precision.iter_mut().enumerate() {
                *sum += f64::from(h * x[place / 2] * x[place % 2]);
            }
        }
        let [a, b, _, d] = precision;
        let determinant = a * d - b * b;
        for (x, wanted) in [([1.0, 0.0], d), ([0.0, 1.0], a), ([1.0, 1.0], a + d - 2.0 * b)] {
            let (found, wanted) =
                (f64::from(variances.spread(&params, 1, &x, &mut product)), wanted / determinant);
            assert!((found - wanted).abs() < 1e-4 * wanted, "{found} {wanted}");
        }
        let untouched = variances.spread(&params, 0, &[1.0, 0.0], &mut product);
        assert!((untouched - 0.04).abs() < 1e-7);
    }

    #[test]
    fn no_deviation_falls_below_the_least() {
        let mut layout = Layout::default();
        let variances = Variances::new(&mut layout, &PriorSpec { least: 0.05, ..PRIOR }, 1, &[1.0]);
        let mut params = Params::<f32>::initial(Arc::new(layout), 1);
        assert!((variances.variance(0, 1e9) - 0.0025).abs() < 1e-6);
        assert!((variances.row_variance(1e9) - 0.0025).abs() < 1e-6);
        let (mut product, mut spread) = ([0.0; 2], 0.0);
        for _ in 0..40_000 {
            spread = variances.spread(&params, 0, &[1.0, 0.0], &mut product);
            variances.shrink(&mut params, 0, &product, 0.2, spread);
        }
        assert!((spread - 0.0025).abs() < 1e-5, "{spread}");
    }
}
