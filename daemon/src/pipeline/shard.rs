//! The state of one input partition: its users' sequences and open impressions, and how far its topics have been applied.

use sluice_features::assemble::FieldValues;
use sluice_features::attribution::Joiner;
use sluice_features::sequence::{KindNumbers, Sequences};
use sluice_features::time::EventTime;
use sluice_features::watermark::Watermark;
use sluice_features::wire::Topic;

use super::Rules;
use super::spill::Spill;

/// Stands for an offset that is not known: below all that there are.
const UNKNOWN: i64 = -1;

/// One shard.
pub struct Shard {
    /// Which outcome belongs to which impression.
    pub joiner: Joiner<FieldValues>,
    /// What its users did.
    pub sequences: Sequences,
    /// How far its event time has come.
    pub watermark: Watermark,
    /// Nothing has come for a while: it does not hold back what is said about all shards.
    pub idle: bool,
    /// Impressions so far.
    pub arrivals: u64,
    pub(super) next: [i64; 4],
    /// The features of those that wait longer than their first window.
    pub(super) spill: Spill,
}

impl Shard {
    /// Creates the empty shard of this number.
    pub fn new(rules: &Rules, number: u32, kinds: &KindNumbers) -> Self {
        Self {
            joiner: Joiner::new(&rules.funnel, rules.limits()),
            sequences: Sequences::new(number, rules.max_length, kinds),
            watermark: Watermark::new(rules.lateness),
            idle: false,
            arrivals: 0,
            next: [UNKNOWN; 4],
            spill: Spill::new(number),
        }
    }

    /// Returns the offset that is expected next of a topic: a record below it is in already. `None` until it is known where the topic begins.
    pub fn next(&self, topic: Topic) -> Option<i64> {
        Some(self.next[topic as usize]).filter(|next| *next != UNKNOWN)
    }

    /// Sets the offset that is expected next of a topic.
    pub fn set_next(&mut self, topic: Topic, next: i64) {
        self.next[topic as usize] = next;
    }

    /// Returns how many impressions are open.
    pub fn open_impressions(&self) -> u64 {
        self.joiner.counts().opened - self.joiner.counts().closed
    }

    /// Returns the newest plausible event time, `None` before the first event.
    pub fn newest(&self) -> Option<EventTime> {
        Some(self.watermark.newest()).filter(|newest| *newest > EventTime::MIN)
    }
}
