//! What was counted over all keys, beside which the counts of a key are read.

use serde::{Deserialize, Serialize};

use super::decayed::{Added, Decayed, Progress};
use crate::funnel::MAX_TASKS;
use crate::time::{EventTime, Span};

/// Outcomes and impressions at the prior rate that stand before the overall counts.
const PRIOR: (f64, f64) = (1.0, 20.0);

/// What was counted over all keys with one half-life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Overall {
    pub(super) half_life: Span,
    /// Impressions, then the outcomes of each task.
    sums: Decayed<{ 1 + MAX_TASKS }>,
}

/// What was counted over all keys, as of one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates([f64; 1 + MAX_TASKS]);

/// The overall rate of a task as of one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    rate: f64,
    odds: f64,
}

impl Overall {
    /// Nothing counted yet.
    pub(super) fn new(half_life: Span) -> Self {
        Self { half_life, sums: Decayed::new(EventTime::default()) }
    }

    /// Counts an impression.
    pub(super) fn impression(&mut self, time: EventTime, progress: Progress) {
        let added = Added { place: 0, amount: 1.0, shown: time, known: time };
        self.sums.add(self.half_life, added, progress);
    }

    /// Counts an outcome of a task.
    pub(super) fn outcome(
        &mut self,
        task: usize,
        shown: EventTime,
        known: EventTime,
        progress: Progress,
    ) {
        let added = Added { place: 1 + task, amount: 1.0, shown, known };
        self.sums.add(self.half_life, added, progress);
    }

    /// Returns the rates as of a time, `None` where they cannot be told any more.
    pub(super) fn rates(&self, time: EventTime) -> Option<Rates> {
        self.sums.read(self.half_life, time).map(Rates)
    }
}

impl Rates {
    /// Returns the rate of a task.
    pub(super) fn of(&self, task: usize) -> Rate {
        let rate = (self.0[1 + task] + PRIOR.0) / (self.0[0] + PRIOR.1);
        let rate = rate.clamp(1e-6, 1.0 - 1e-6);
        Rate { rate, odds: rate / (1.0 - rate) }
    }
}

impl Rate {
    /// Returns the log-odds of `c` outcomes of `n` impressions, smoothed by `k` impressions at the overall rate, beside the overall ones.
    pub(super) fn odds_beside(&self, n: f64, c: f64, k: f64) -> f64 {
        // An outcome may be counted whose impression has been swept: the odds stay finite.
        let missed = (n - c).max(0.0) + k * (1.0 - self.rate);
        let odds = (c + k * self.rate) / missed.max(1e-9);
        (odds.max(1e-9) / self.odds).ln()
    }
}
