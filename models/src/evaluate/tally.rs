//! Counts and sums of a period: what log loss, entropy and calibration are made of.

use serde::{Deserialize, Serialize};

/// One in the sums, which are fixed-point integers: their order cannot change them.
const ONE: f64 = (1u64 << 48) as f64;

/// The sums over the examples of one period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    examples: u64,
    positives: u64,
    loss: u128,
    predicted: u128,
}

impl Tally {
    /// Adds one example: its label, its logistic loss and its predicted probability, both finite
    /// and not negative.
    pub(super) fn record(&mut self, label: bool, loss: f64, probability: f64) {
        self.examples += 1;
        self.positives += u64::from(label);
        self.loss += (loss * ONE) as u128;
        self.predicted += (probability * ONE) as u128;
    }

    /// Adds the examples of another period.
    pub fn merge(&mut self, other: &Self) {
        self.examples += other.examples;
        self.positives += other.positives;
        self.loss += other.loss;
        self.predicted += other.predicted;
    }

    /// Returns the number of examples.
    pub fn examples(&self) -> u64 {
        self.examples
    }

    /// Returns the number of examples with a positive label.
    pub fn positives(&self) -> u64 {
        self.positives
    }

    /// Returns the mean logistic loss in nats; `None` without examples.
    pub fn log_loss(&self) -> Option<f64> {
        (self.examples > 0).then(|| self.loss as f64 / ONE / self.examples as f64)
    }

    /// Returns the log loss over the entropy of the period's own rate: 1 is what the constant rate
    /// would have reached. `None` unless both classes occur.
    pub fn normalised_entropy(&self) -> Option<f64> {
        let negatives = self.examples - self.positives;
        if self.positives == 0 || negatives == 0 {
            return None;
        }
        let all = self.examples as f64;
        let share = |part: u64| {
            let rate = part as f64 / all;
            -rate * rate.ln()
        };
        Some(self.log_loss()? / (share(self.positives) + share(negatives)))
    }

    /// Returns the sum of predictions over the number of positives; `None` without positives.
    pub fn calibration(&self) -> Option<f64> {
        (self.positives > 0).then(|| self.predicted as f64 / ONE / self.positives as f64)
    }
}
