//! What the pipeline has counted. Plain numbers: the caller turns them into metrics and reports.

use serde::{Deserialize, Serialize};
use sluice_features::reject::Reason;

/// Counts of records by fate; the joiners' counts stand beside them (`JoinCounts`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Valid records of the event topic.
    pub events: u64,
    /// Valid records of the item topic.
    pub items: u64,
    /// Valid records of the user topic.
    pub users: u64,
    /// Records refused, by [`Reason::all`].
    pub rejected: Vec<u64>,
    /// Records at an offset that had been applied before.
    pub replayed: u64,
    /// Accepted events whose time is too far ahead of their record's arrival to move the watermark.
    pub skewed: u64,
    /// Accepted events whose time would move their partition's by more than an hour without being confirmed.
    pub jumped: u64,
    /// Unknown top-level fields that were ignored.
    pub unknown_fields: u64,
    /// Examples cut into batches.
    pub examples: u64,
    /// Examples built with a feature version that is newer than their impression, because none so old is known.
    pub later_features: u64,
    /// Impressions that came so late that counters could not be told any more as of their time.
    pub untold_counters: u64,
    /// Versions of features that may still be asked for and were dropped because their item or user had more than are kept.
    pub dropped_versions: u64,
    /// Ends of items and users that are not known: nothing was changed.
    pub unknown_ends: u64,
}

impl Counts {
    /// Counts a refused record.
    pub fn reject(&mut self, reason: Reason) {
        let place = Reason::all().iter().position(|known| *known == reason).unwrap_or(0);
        if self.rejected.len() < Reason::all().len() {
            self.rejected.resize(Reason::all().len(), 0);
        }
        self.rejected[place] += 1;
    }

    /// Returns how many records were refused.
    pub fn all_rejected(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// Returns how many records were taken, whatever their fate.
    pub fn taken(&self) -> u64 {
        self.events + self.items + self.users + self.all_rejected()
    }
}
