//! The journal of a live run, and what a start repeats of it.
//!
//! Parameters are a function of the records of each partition, of the order in which partitions took turns, and of what the clock decided. The
//! records are in Kafka. The order and the decisions are written here before they take effect, so that a start after a kill learns what came
//! since the checkpoint in the same steps as the run that was killed, to the bit:
//!
//! ```text
//! checkpoint with journal 7     000000000007.journal   took events/0 below 4711, took events/3 below 815, cut, ..., next
//!                               000000000008.journal   (a checkpoint was begun here, and is not in force)   took ..., next
//!                               000000000009.journal   took ..., cut, took ...     <- the newest, up to the kill
//! ```
//!
//! A checkpoint names the file that goes on behind it; files that no checkpoint needs any more are removed. A file that ends without `next` is
//! the last: what a crash has torn, or a disk had no room for, is not repeated but taken anew, in an order of its own. That costs equality with the
//! run before and nothing else: every record is applied once, whatever the journal holds.

mod chain;
mod journal;

use serde::{Deserialize, Serialize};
use sluice_features::time::EventTime;
use sluice_features::wire::Topic;

pub use chain::{Chain, Part};
pub use journal::Journal;

use crate::capture::Decision;

/// What the files' names end with.
const ENDING: &str = ".journal";

/// One entry of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The next records of a partition were taken.
    Took(Turn),
    /// Something was decided that is not a function of the records.
    Decided(Decision),
    /// A checkpoint was begun: the file with the next number goes on.
    Next,
}

/// A partition's turn: which of its records were taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Which topic, as its place in [`Topic::ALL`].
    topic: u8,
    partition: u32,
    /// All that were left below this offset.
    pub next: i64,
    /// When they were polled: it bounds when they arrived.
    pub polled: EventTime,
}

impl Turn {
    /// Returns the turn in which everything below `next` was taken.
    pub fn new(topic: Topic, partition: u32, next: i64, polled: EventTime) -> Self {
        Self { topic: topic as u8, partition, next, polled }
    }

    /// Returns whose turn it was; `None` for a topic that a later version knows.
    pub fn part(&self) -> Option<Part> {
        Some((*Topic::ALL.get(usize::from(self.topic))?, self.partition))
    }
}

#[cfg(test)]
mod tests;
