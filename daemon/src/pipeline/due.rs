//! What is due of what was taken, in portions.
//!
//! A record, a silent partition or the end of the input may close any number of windows. Each brings an example, so they are closed in
//! portions ([`sluice_features::attribution::MOST_CLOSINGS`]), the first at once and the others as batches are fetched:
//!
//! ```text
//! take, quiet, finish, cut ──> hand_on: Batch ──> hand_on: Due ──> hand_on: Batch ──> ... Nothing
//! ```
//!
//! So only as many batches wait as a portion brings. Batches and their order do not depend on who fetches when: what is still due is carried
//! out before anything else is taken.

use std::collections::VecDeque;

use sluice_features::time::EventTime;

use super::Pipeline;
use super::work::LearnBatch;

/// Something that is still due.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// A shard's windows up to its watermark.
    Windows { shard: usize, watermark: EventTime, arrived: EventTime },
    /// The end of the batch that fills.
    Cut,
}

/// What the pipeline has to hand on.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart at once, and a box would be an allocation a batch"
)]
pub enum Next {
    /// The next batch for the learner, in order.
    Batch(LearnBatch),
    /// No batch yet: a portion of what was due has been carried out, and more is. A good moment to let others read.
    Due,
    /// Everything that was taken is in batches that were fetched, or in the one that fills.
    Nothing,
}

/// What is still due, in order.
pub(super) type Dues = VecDeque<Due>;

impl Pipeline {
    /// Tells whether something is due still: windows that have closed without their examples being in a batch.
    pub fn is_behind(&self) -> bool {
        !self.due.is_empty()
    }

    /// Returns the next batch, or carries out the next portion of what is due.
    pub fn hand_on(&mut self) -> Next {
        if let Some(batch) = self.batcher.pop() {
            return Next::Batch(batch);
        }
        self.go_on();
        match self.batcher.pop() {
            Some(batch) => Next::Batch(batch),
            None if self.is_behind() => Next::Due,
            None => Next::Nothing,
        }
    }

    /// Returns the next batch, carrying out what is due until there is one; `None` when there is nothing more.
    pub fn next_batch(&mut self) -> Option<LearnBatch> {
        loop {
            match self.hand_on() {
                Next::Batch(batch) => return Some(batch),
                Next::Due => {}
                Next::Nothing => return None,
            }
        }
    }

    /// Carries out the next portion of what is due, if anything is.
    fn go_on(&mut self) {
        let Some(&due) = self.due.front() else { return };
        let more = match due {
            Due::Windows { shard, watermark, arrived } => {
                let more = self.shards[shard].joiner.advance(watermark, &mut self.effects);
                self.run_effects(shard, None, arrived);
                more
            }
            Due::Cut => {
                self.end_batch();
                false
            }
        };
        if !more {
            self.due.pop_front();
        }
    }

    /// Carries out all that is due. Drivers that fetch batches in between leave nothing to it.
    pub(super) fn catch_up(&mut self) {
        while self.is_behind() {
            self.go_on();
        }
    }

    /// Moves a shard's watermark, which closes windows: the first portion at once.
    pub(super) fn advance(&mut self, shard: usize, watermark: EventTime, arrived: EventTime) {
        self.due.push_back(Due::Windows { shard, watermark, arrived });
        self.go_on();
    }

    /// Ends the batch that fills, if there is anything in it.
    pub fn cut(&mut self) {
        self.catch_up();
        self.end_batch();
    }

    /// Moves the watermark of a partition that is caught up and silent to `time`, which closes windows, and believes a jump that waits; until its
    /// next record the partition does not hold back [`Pipeline::covered`].
    pub fn quiet(&mut self, partition: u32, time: EventTime) {
        self.catch_up();
        let number = self.shard_number(partition);
        let shard = &mut self.shards[number];
        shard.idle = true;
        shard.watermark.settle();
        let watermark = shard.watermark.value();
        self.observe_progress();
        self.advance(number, time.max(watermark), time);
    }

    /// Closes all windows and ends the batch that fills: the end of the input.
    pub fn finish(&mut self) {
        self.catch_up();
        for (shard, state) in self.shards.iter().enumerate() {
            let (watermark, arrived) = (EventTime::MAX, state.watermark.newest());
            self.due.push_back(Due::Windows { shard, watermark, arrived });
        }
        self.due.push_back(Due::Cut);
        self.go_on();
    }

    pub(super) fn end_batch(&mut self) {
        let covered = self.covered();
        self.batcher.cut(covered);
    }
}

#[cfg(test)]
mod tests;
