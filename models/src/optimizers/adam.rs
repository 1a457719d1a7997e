//! Adam over the vector of all dense parameters (Kingma and Ba 2015): both moments corrected, `ε` added to the root.

use crate::kernels::{AdamStep, Real};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Moments and number of steps.
#[derive(Clone, Debug)]
pub struct Adam<R> {
    rate: f64,
    steps: u64,
    mean: Vec<R>,
    square: Vec<R>,
}

impl<R: Real> Adam<R> {
    /// Starts with no step done on `length` parameters.
    pub fn new(rate: f64, length: usize) -> Self {
        Self { rate, steps: 0, mean: vec![R::zero(); length], square: vec![R::zero(); length] }
    }

    /// How many steps were done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The decayed means of gradients and of their squares.
    pub fn moments(&self) -> (&[R], &[R]) {
        (&self.mean, &self.square)
    }

    /// Goes back to a state that [`Adam::steps`] and [`Adam::moments`] gave.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn restore(&mut self, steps: u64, mean: &[R], square: &[R]) {
        self.steps = steps;
        self.mean.copy_from_slice(mean);
        self.square.copy_from_slice(square);
    }

    /// Does one step.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn step(&mut self, parameters: &mut [R], gradient: &[R]) {
        let (step, mean, square) = self.advance();
        R::adam(parameters, gradient, mean, square, &step);
    }

    /// Counts a step and returns its constants and the decayed means, for a step that is done part by part with [`Real::adam`].
    pub fn advance(&mut self) -> (AdamStep<R>, &mut [R], &mut [R]) {
        self.steps += 1;
        // Beyond 2^31 steps both corrections are 1 in any precision.
        let t = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let step = AdamStep {
            rate: R::from_f64(self.rate),
            beta1: R::from_f64(BETA1),
            beta2: R::from_f64(BETA2),
            eps: R::from_f64(EPSILON),
            correction1: R::from_f64(correction(BETA1, t, 400)),
            correction2: R::from_f64(correction(BETA2, t, 40_000)),
        };
        (step, &mut self.mean, &mut self.square)
    }
}

/// `1 - βᵗ`, which is 1 to the last bit where `t` is more than `last`: a step on few parameters would take as long for the power as for itself.
fn correction(beta: f64, t: i32, last: i32) -> f64 {
    if t > last { 1.0 } else { 1.0 - beta.powi(t) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_state_goes_on_to_the_bit() {
        let mut adam = Adam::new(0.1, 2);
        let mut p = [1.0_f32, -2.0];
        adam.step(&mut p, &[0.5, -0.25]);
        let (mut other, mut q) = (Adam::new(0.1, 2), p);
        let (mean, square) = adam.moments();
        other.restore(adam.steps(), mean, square);
        adam.step(&mut p, &[0.125, 1.0]);
        other.step(&mut q, &[0.125, 1.0]);
        assert_eq!(p.map(f32::to_bits), q.map(f32::to_bits));
        assert!((p[0] - 0.8).abs() < 0.05, "{p:?}");
    }

    #[test]
    fn corrections_end_where_they_no_longer_change_a_bit() {
        for (beta, last) in [(BETA1, 400), (BETA2, 40_000)] {
            let short = correction(beta, last + 1, last);
            assert_eq!(short.to_bits(), (1.0 - beta.powi(last + 1)).to_bits());
            assert!(correction(beta, 1, last) < 0.11);
        }
    }
}
