//! What reading does when open impressions take all the memory that they may.
//!
//! Windows close as event time goes on, and event time goes on as records are read, or, in a partition that is read up and silent, as the
//! clock does. At the bound nothing more is opened: records of events that come are held back unread (the poll thread pauses its
//! partitions when they are many), items and users are taken on, requests are answered on. Reading goes on once the windows of read-up
//! partitions have closed so many impressions that an eighth of the bound is free. Where no partition is read up, waiting cannot help: the
//! daemon says so, and goes on with what it has learned until it is started again with a larger bound. It does not read on beyond the
//! bound, nor does it move the time of a partition whose records wait: it would turn outcomes that are there into missing ones.

use std::collections::VecDeque;

use super::ingest::{Ingest, State};
use crate::http::Wait;
use crate::kafka::{Batch, Lane, TopicRole};
use crate::pipeline::shard::Shard;

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

impl Ingest {
    /// Tells of each partition whether all that it has is taken. While reading waits for room that is known only as long as the poll thread
    /// goes on fetching.
    pub(super) fn read_up(&self, state: &State) -> Vec<bool> {
        let partitions = (0i32..).take(state.last.len());
        if !state.room.is_full() {
            let caught_up = self.shared.is_caught_up();
            return partitions.map(|partition| caught_up && !state.room.holds(partition)).collect();
        }
        let gauges = self.consumer.gauges();
        let fetching = gauges.connected && !gauges.paused;
        let at_end = |partition| {
            let lane = Lane { role: TopicRole::Events, partition };
            gauges.lanes.iter().any(|status| status.lane == lane && status.lag() == 0)
        };
        let read_up = |partition| fetching && at_end(partition) && !state.room.holds(partition);
        partitions.map(read_up).collect()
    }

    /// Lets reading wait where open impressions take all the memory that they may, and go on when there is room.
    pub(super) fn look_at_room(&self, state: &mut State) {
        let bytes = self.shared.pipeline.read().open_bytes() as u64;
        let (change, most) = (state.room.look(bytes), state.room.most());
        let readiness = &self.shared.readiness;
        match change {
            Some(Change::Near) => tracing::warn!(
                bytes,
                most,
                "open impressions come near open.max_bytes: at the bound reading waits"
            ),
            Some(Change::Full) => {
                self.shared.metrics.join.open_paused.set(1.0);
                readiness.wait_for(Wait::Open, open_text(most, true));
                tracing::error!(bytes, most, "open impressions take open.max_bytes: reading waits");
            }
            Some(Change::Free) => {
                self.shared.metrics.join.open_paused.set(0.0);
                readiness.clear(Wait::Open);
                tracing::info!(bytes, most, "there is room for open impressions: reading goes on");
            }
            None => {}
        }
    }

    /// Says while reading waits whether it can go on by itself.
    pub(super) fn look_for_an_end(&self, state: &State) {
        if !state.room.is_full() {
            return;
        }
        let read_up = self.read_up(state);
        let ends = {
            let pipeline = self.shared.pipeline.read();
            let open = pipeline.shards().iter().map(Shard::open_impressions);
            open.zip(read_up).any(|(open, read_up)| open > 0 && read_up)
        };
        self.shared.readiness.wait_for(Wait::Open, open_text(state.room.most(), ends));
    }
}

/// Says why reading waits for room, and what ends that.
fn open_text(most: u64, ends: bool) -> String {
    let end = if ends {
        "it goes on when windows of partitions that are read up have closed; to go on at once"
    } else {
        "every partition has records that wait, so no window closes by itself; to go on"
    };
    format!(
        "open impressions take open.max_bytes = {most} bytes and reading waits: {end}, start again with a larger bound: \
         nothing is lost"
    )
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
