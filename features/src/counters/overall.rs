//! What was counted over all keys, beside which the counts of a key are read.

use serde::{Deserialize, Serialize};

use super::decayed::{Added, Decayed, Progress, Reading};
use super::weight::Weight;
use crate::funnel::MAX_TASKS;
use crate::time::{EventTime, Span};

/// Outcomes and impressions at the prior rate that stand before the overall counts.
const PRIOR: (f64, f64) = (1.0, 20.0);

/// What was counted over all keys with one half-life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct HalfLife {
    pub(super) length: Span,
    /// Impressions, then the outcomes of each task.
    overall: Decayed<{ 1 + MAX_TASKS }>,
}

/// An overall rate that counters are read beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rated {
    pub(super) half_life: usize,
    pub(super) task: usize,
}

/// The overall rate of a task as of one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    rate: f64,
    odds: f64,
}

impl HalfLife {
    /// Nothing counted yet.
    pub(super) fn new(length: Span) -> Self {
        Self { length, overall: Decayed::new() }
    }

    /// Counts an impression: place 0, or an outcome: 1 and the task.
    pub(super) fn add(&mut self, added: Added, progress: Progress) {
        self.overall.add(self.length, added, progress);
    }

    /// Returns the rate of a task as of a time with this weight, `None` where it cannot be told any more.
    pub(super) fn rate(&self, task: usize, now: Weight, time: EventTime) -> Option<Rate> {
        self.overall.read(now, time).map(|sums| Rate::of(&sums, task))
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
