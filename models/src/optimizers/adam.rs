//! Adam over the vector of all dense parameters (Kingma and Ba 2015): both moments corrected, `ε` added to the root.

use crate::kernels::{AdamStep, Real};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;
/// Steps that are counted in so many bits have a correction.
const BITS: usize = 16;

/// Moments and number of steps.
#[derive(Clone, Debug)]
pub struct Adam<R> {
    rate: f64,
    decays: [Decay; 2],
    steps: u64,
    mean: Vec<R>,
    square: Vec<R>,
}

impl<R: Real> Adam<R> {
    /// Starts with no step done on `length` parameters.
    pub fn new(rate: f64, length: usize) -> Self {
        Self {
            rate,
            decays: [Decay::new(BETA1, 400), Decay::new(BETA2, 40_000)],
            steps: 0,
            mean: vec![R::zero(); length],
            square: vec![R::zero(); length],
        }
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

    /// Counts a step that was done otherwise.
    pub fn count(&mut self) {
        self.steps += 1;
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
        let [correction1, correction2] = self.decays.each_ref().map(|d| d.correction(self.steps));
        let step = AdamStep {
            rate: R::from_f64(self.rate),
            beta1: R::from_f64(BETA1),
            beta2: R::from_f64(BETA2),
            eps: R::from_f64(EPSILON),
            correction1: R::from_f64(correction1),
            correction2: R::from_f64(correction2),
        };
        (step, &mut self.mean, &mut self.square)
    }
}

/// How a mean forgets.
#[derive(Clone, Debug)]
struct Decay {
    /// `β^(2ᵏ)`
    powers: [f64; BITS],
    /// The last step at which `1 - βᵗ` is not 1 to the last bit.
    last: u64,
}

impl Decay {
    /// `last` is below `2^BITS`.
    fn new(beta: f64, last: u64) -> Self {
        let mut powers = [beta; BITS];
        for k in 1..BITS {
            powers[k] = powers[k - 1] * powers[k - 1];
        }
        Self { powers, last }
    }

    /// `1 - βᵗ`, as [`f64::powi`] has it: a step on few parameters would take as long for the power as for itself.
    fn correction(&self, t: u64) -> f64 {
        if t > self.last {
            return 1.0;
        }
        let factors = self.powers.iter().enumerate();
        1.0 - factors.map(|(k, &power)| if t >> k & 1 == 1 { power } else { 1.0 }).product::<f64>()
    }
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
    fn corrections_are_those_of_plain_powers_to_the_bit() {
        for (beta, last) in [(BETA1, 400), (BETA2, 40_000)] {
            let decay = Decay::new(beta, last);
            for t in (1..=last + 1).chain([u64::MAX]) {
                let plain = 1.0 - beta.powi(i32::try_from(t).unwrap_or(i32::MAX));
                assert_eq!(decay.correction(t).to_bits(), plain.to_bits(), "{beta} {t}");
            }
        }
    }
}
