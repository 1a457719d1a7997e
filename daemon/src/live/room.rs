//! What reading does when open impressions take all the memory that they may.
//!
//! Windows close as event time goes on, and event time goes on as records are read, or, in a partition that is read up and silent, as the
//! clock does. At the bound nothing more is opened: records of events that come are held back unread (the poll thread pauses its
//! partitions when they are many), items and users are taken on, requests are answered on. Reading goes on once the windows of read-up
//! partitions have closed so many impressions that an eighth of the bound is free. Where no partition is read up, waiting cannot help: the
//! daemon says so, and goes on with what it has learned until it is started again with a larger bound. It does not read on beyond the
//! bound, nor does it move the time of a partition whose records wait: it would turn outcomes that are there into missing ones.

use std::collections::VecDeque;

use crate::kafka::Batch;

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Four fifths of the bound are taken.
    Near,
    /// The bound is reached: reading waits.
    Full,
    /// There is room again: reading goes on.
    Free,
}

/// The room for open impressions, and the batches that wait for it.
pub(super) struct Room {
    most: u64,
    full: bool,
    near: bool,
    held: VecDeque<Batch>,
}

impl Room {
    pub(super) fn new(most: u64) -> Self {
        Self { most, full: false, near: false, held: VecDeque::new() }
    }

    /// Returns the bound in bytes.
    pub(super) fn most(&self) -> u64 {
        self.most
    }

    /// Tells whether reading waits.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Looks at the bytes that open impressions take now.
    pub(super) fn look(&mut self, bytes: u64) -> Option<Change> {
        let was = (self.full, self.near);
        self.full = if self.full { bytes > self.most / 8 * 7 } else { bytes > self.most };
        self.near = bytes > self.most / 5 * 4;
        match (was, (self.full, self.near)) {
            ((false, _), (true, _)) => Some(Change::Full),
            ((true, _), (false, _)) => Some(Change::Free),
            ((false, false), (false, true)) => Some(Change::Near),
            _ => None,
        }
    }

    /// Holds a batch back until there is room.
    pub(super) fn hold(&mut self, batch: Batch) {
        self.held.push_back(batch);
    }

    /// Returns the next batch that was held back, once there is room.
    pub(super) fn next(&mut self) -> Option<Batch> {
        if self.full { None } else { self.held.pop_front() }
    }

    /// Tells whether records of a partition are held back.
    pub(super) fn holds(&self, partition: i32) -> bool {
        self.held.iter().any(|batch| batch.lane().partition == partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_waits_at_the_bound_and_goes_on_when_an_eighth_is_free() {
        let mut room = Room::new(1000);
        let looks = [700, 801, 900, 1000, 1001, 900, 876, 875, 1001, 100, 801];
        let told = looks.map(|bytes| room.look(bytes));
        let (near, full, free) = (Some(Change::Near), Some(Change::Full), Some(Change::Free));
        assert_eq!(told, [None, near, None, None, full, None, None, free, full, free, near]);
    }
}
