//! What the pipeline hands to the learner, in the order in which it must be done.

use serde::{Deserialize, Serialize};
use sluice_features::attribution::Labels;
use sluice_features::example::{About, Batch};
use sluice_features::time::EventTime;

/// What becomes of an example's prediction, which the step makes before it learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// All its labels are final and its windows so short that this prediction is that of its arrival: judged at once.
    Judged,
    /// The impression has just arrived: labels that are final already are judged at once, and its prediction is kept until the verdict.
    Arrival,
    /// More is known of an impression that was predicted before: learned, not judged again.
    Update,
    /// A sampled item that was not viewed: judged for the view only.
    Negative,
}

/// Final labels of an impression that was predicted at its arrival: of all tasks whose windows have closed together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Which impression.
    pub about: About,
    /// The labels; tasks that are not judged now are masked.
    pub labels: Labels,
    /// It was the last of its windows.
    pub last: bool,
}

/// A micro-batch for the learner.
#[derive(Clone, Debug, Default)]
pub struct LearnBatch {
    /// The examples. One whose labels are all masked is only predicted.
    pub batch: Batch,
    /// One for each example.
    pub roles: Vec<Role>,
    /// Impressions of which windows have closed since the batch before; judged after this batch's predictions.
    pub verdicts: Vec<Verdict>,
    /// Every example due up to this event time is in this batch or an earlier one.
    pub covered: Option<EventTime>,
    /// Broker time of the oldest record behind this batch, for the freshness metric; `None` when unknown.
    pub oldest_record: Option<EventTime>,
}

impl LearnBatch {
    /// Creates an empty batch for a schema with so many lists and looks into the history.
    pub fn new(lists: usize, lookups: usize) -> Self {
        Self { batch: Batch::new(lists, lookups), ..Self::default() }
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.roles.clear();
        self.verdicts.clear();
        self.covered = None;
        self.oldest_record = None;
    }

    /// Tells whether there is nothing to learn and nothing to judge.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.verdicts.is_empty()
    }
}
