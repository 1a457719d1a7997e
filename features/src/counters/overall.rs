//! What was counted over all keys, beside which the counts of a key are read.

use serde::{Deserialize, Serialize};

use crate::time::{EventTime, Span};

/// Outcomes and impressions at the prior rate that stand before the overall counts.
const OVERALL_PRIOR: (f64, f64) = (1.0, 20.0);

/// What was counted over all keys with one half-life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Overall {
    pub(super) half_life: Span,
    pub(super) time: EventTime,
    impressions: f64,
    pub(super) rates: Vec<Rate>,
}

/// The overall rate of a task, as of the newest event.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Rate {
    task: usize,
    outcomes: f64,
    rate: f64,
    odds: f64,
}

impl Overall {
    /// Nothing counted yet.
    pub(super) fn new(half_life: Span) -> Self {
        Self { half_life, time: EventTime::default(), impressions: 0.0, rates: vec![] }
    }

    /// Returns the place of a task's rate, entering it when it is new.
    pub(super) fn rate_of(&mut self, task: usize) -> usize {
        let known = self.rates.iter().position(|rate| rate.task == task);
        known.unwrap_or_else(|| {
            self.rates.push(Rate { task, outcomes: 0.0, rate: 0.0, odds: 0.0 });
            self.rates.len() - 1
        })
    }

    /// Counts an outcome of a task, or an impression.
    pub(super) fn add(&mut self, time: EventTime, task: Option<usize>) {
        let (newest, before) = (time.max(self.time), self.time);
        self.time = newest;
        if self.rates.is_empty() {
            return;
        }
        let worth = decay(self.half_life, newest - time);
        if newest > before {
            let kept = decay(self.half_life, newest - before);
            self.impressions *= kept;
            self.rates.iter_mut().for_each(|rate| rate.outcomes *= kept);
        }
        match task {
            None => self.impressions += worth,
            Some(task) => {
                self.rates.iter_mut().filter(|r| r.task == task).for_each(|r| r.outcomes += worth);
            }
        }
        self.refresh();
    }

    /// Brings the rates up to date with the counts.
    pub(super) fn refresh(&mut self) {
        for share in &mut self.rates {
            let rate = (share.outcomes + OVERALL_PRIOR.0) / (self.impressions + OVERALL_PRIOR.1);
            share.rate = rate.clamp(1e-6, 1.0 - 1e-6);
            share.odds = share.rate / (1.0 - share.rate);
        }
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

/// Returns what a count is still worth after a while.
pub(super) fn decay(half_life: Span, after: Span) -> f64 {
    if after.0 == 0 { 1.0 } else { (-(after.0 as f64) / half_life.0.max(1) as f64).exp2() }
}
