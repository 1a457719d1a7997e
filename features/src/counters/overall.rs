//! What was counted over all keys, beside which the counts of a key are read.

use serde::{Deserialize, Serialize};

use super::decayed::{Added, Decayed, Progress, Reading};
use super::weight::Weight;
use crate::funnel::MAX_TASKS;
use crate::time::{EventTime, Span};

/// Outcomes and impressions at the prior rate that stand before the overall counts.
const PRIOR: (f64, f64) = (1.0, 20.0);

/// What was counted over all keys with one half-life: impressions, then the outcomes of each task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Overall(Decayed<{ 1 + MAX_TASKS }>);

/// The overall rates of the tasks that are asked for, as of one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates([Rate; MAX_TASKS]);

/// The overall rate of a task as of one time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    rate: f64,
    odds: f64,
}

impl Overall {
    /// Nothing counted yet.
    pub(super) fn new() -> Self {
        Self(Decayed::new())
    }

    /// Counts an impression: place 0, or an outcome: 1 and the task.
    pub(super) fn add(&mut self, half_life: Span, added: Added, progress: Progress) {
        self.0.add(half_life, added, progress);
    }

    /// Returns the rates of these tasks as of a time with this weight, `None` where they cannot be told any more.
    pub(super) fn rates(&self, tasks: &[usize], now: Weight, time: EventTime) -> Option<Rates> {
        let sums = self.0.read(now, time)?;
        let mut rates = [Rate::default(); MAX_TASKS];
        tasks.iter().for_each(|task| rates[*task] = Rate::of(&sums, *task));
        Some(Rates(rates))
    }
}

impl Rates {
    /// Returns the rate of a task.
    pub(super) fn of(&self, task: usize) -> &Rate {
        &self.0[task]
    }
}

impl Rate {
    fn of(sums: &Reading<'_, { 1 + MAX_TASKS }>, task: usize) -> Self {
        let rate = (sums.sum(1 + task) + PRIOR.0) / (sums.sum(0) + PRIOR.1);
        let rate = rate.clamp(1e-6, 1.0 - 1e-6);
        Self { rate, odds: rate / (1.0 - rate) }
    }

    /// Returns the log-odds of `c` outcomes of `n` impressions, smoothed by `k` impressions at the overall rate, beside the overall ones.
    pub(super) fn odds_beside(&self, n: f64, c: f64, k: f64) -> f64 {
        // An outcome may be counted whose impression has been swept: the odds stay finite.
        let missed = (n - c).max(0.0) + k * (1.0 - self.rate);
        let odds = (c + k * self.rate) / missed.max(1e-9);
        (odds.max(1e-9) / self.odds).ln()
    }
}
