//! What reading does when something takes all the memory that it may and only reading less can help: open impressions, or what is known of users
//! and items (sequences, names, features).
//!
//! Windows close as event time goes on, and event time goes on as records are read, or, in a partition that is read up and silent, as the
//! clock does. At the bound nothing more is opened: records of events that come are held back unread (the poll thread pauses its
//! partitions when they are many), items and users are taken on, requests are answered on. Reading goes on once the windows of read-up
//! partitions have closed so many impressions that an eighth of the bound is free. Where no partition is read up, waiting cannot help: the
//! daemon says so, and goes on with what it has learned until it is started again with a larger bound. It does not read on beyond the
//! bound, nor does it move the time of a partition whose records wait: it would turn outcomes that are there into missing ones.
//!
//! What is known of users and items seldom becomes less. At its bound everything is held back, items and users too, until a start with more memory.
//! Users in memory who are stored as they are do not count: they make room for others. Those who are not are stored by a checkpoint ahead of its time,
//! and reading waits for that if it must.

use std::collections::VecDeque;

use super::ingest::{Ingest, State};
use crate::config::{Bounds, Part, Share};
use crate::http::Wait;
use crate::kafka::{Batch, TopicRole};
use crate::pipeline::shard::Shard;

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Four fifths of the bound are taken.
    Near,
    /// The bound is reached: reading waits.
    Full,
    /// There is room again: reading goes on.
    Free,
}

/// A bound at which reading waits.
#[derive(Clone, Copy, Debug)]
struct Level {
    most: u64,
    full: bool,
    near: bool,
}

impl Level {
    fn new(most: u64) -> Self {
        Self { most, full: false, near: false }
    }

    /// Looks at the bytes that are taken now.
    fn look(&mut self, bytes: u64) -> Option<Change> {
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
}

/// The room for what comes, and the batches that wait for it.
pub(super) struct Room {
    limit: u64,
    open: Level,
    state: Level,
    held: VecDeque<Batch>,
}

impl Room {
    pub(super) fn new(bounds: Bounds) -> Self {
        let level = |share| Level::new(bounds.of(share));
        let (open, state) = (level(Share::Open), level(Share::State));
        Self { limit: bounds.limit, open, state, held: VecDeque::new() }
    }

    /// Changes the bounds, as a start with more memory does.
    #[cfg(test)]
    pub(super) fn bounded(&mut self, bounds: Bounds) {
        self.open.most = bounds.of(Share::Open);
        self.state.most = bounds.of(Share::State);
    }

    /// Tells whether records of a topic are taken.
    pub(super) fn admits(&self, role: TopicRole) -> bool {
        let waits = self.state.full || self.open.full && role == TopicRole::Events;
        !waits
    }

    /// Holds a batch back until there is room.
    pub(super) fn hold(&mut self, batch: Batch) {
        self.held.push_back(batch);
    }

    /// Returns the first batch that was held back and for which there is room.
    pub(super) fn next(&mut self) -> Option<Batch> {
        let place = self.held.iter().position(|batch| self.admits(batch.lane().role))?;
        self.held.remove(place)
    }
}

impl Ingest {
    /// Lets reading wait where something takes all the memory that it may, and go on when there is room.
    pub(super) fn look_at_room(&self, state: &mut State) {
        let (memory, unstored, spare) = {
            let pipeline = self.shared.pipeline.read();
            (pipeline.memory(), pipeline.unstored_users() as u64, pipeline.spare_users() as u64)
        };
        let parts = Part::ALL.into_iter().zip(memory);
        let of_state = |(part, _): &(Part, u64)| part.share() == Share::State;
        let known: u64 = parts.filter(of_state).map(|(_, bytes)| bytes).sum();
        // Users who can be read again make room by themselves.
        let known = known.saturating_sub(spare);
        let room = &mut state.room;
        let (open, change) = (room.open.most, room.open.look(memory[Part::Open as usize]));
        self.tell(change, Wait::Open, open, || open_text(open, true));
        let (most, change) = (room.state.most, room.state.look(known));
        self.tell(change, Wait::Memory, most, || state_text(room.limit, most, unstored, &memory));
        let full = [room.open.full, room.state.full];
        for (gauge, full) in self.shared.metrics.memory.paused.iter().zip(full) {
            gauge.set(f64::from(u8::from(full)));
        }
    }

    /// Says that a bound comes near, is reached, or has room again.
    fn tell(&self, change: Option<Change>, wait: Wait, most: u64, text: impl FnOnce() -> String) {
        let (readiness, share) = (&self.shared.readiness, wait.name());
        match change {
            Some(Change::Near) => tracing::warn!(
                share,
                most,
                "four fifths of the memory of this share are taken: at the bound reading waits"
            ),
            Some(Change::Full) => {
                let reason = text();
                tracing::error!(
                    share,
                    most,
                    reason,
                    "the memory of this share is taken: reading waits"
                );
                readiness.wait_for(wait, reason);
            }
            Some(Change::Free) => {
                readiness.clear(wait);
                tracing::info!(share, most, "there is room again: reading goes on");
            }
            None => {}
        }
    }

    /// Says while reading waits for windows whether it can go on by itself.
    pub(super) fn look_for_an_end(&self, state: &State) {
        if !state.room.open.full {
            return;
        }
        let ends = {
            let pipeline = self.shared.pipeline.read();
            let open = |partition: usize| {
                pipeline.shards().get(partition).map_or(0, Shard::open_impressions)
            };
            self.read_up().into_iter().any(|(partition, _)| open(partition) > 0)
        };
        self.shared.readiness.wait_for(Wait::Open, open_text(state.room.open.most, ends));
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

/// Says why reading waits, what takes the most, and what ends that.
fn state_text(limit: u64, most: u64, unstored: u64, memory: &[u64; Part::ALL.len()]) -> String {
    if unstored > most / 4 {
        return format!(
            "users who have changed since the last checkpoint take {unstored} bytes of the {most} that what is known of users and items may take of \
             memory.limit = {limit}, and reading waits until the next checkpoint is in force: it is being made; what comes waits in Kafka"
        );
    }
    let mut parts: Vec<(Part, u64)> = Part::ALL.into_iter().zip(*memory).collect();
    parts.retain(|(part, _)| part.share() == Share::State);
    parts.sort_unstable_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let parts: Vec<String> =
        parts.iter().map(|(part, bytes)| format!("{} {bytes}", part.name())).collect();
    format!(
        "what is known of users and items takes its share of memory.limit = {limit}, {most} bytes ({}), and reading waits: it seldom becomes less; to go \
         on, start again with a larger memory.limit; what comes waits in Kafka, and requests are answered on",
        parts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_waits_at_the_bound_and_goes_on_when_an_eighth_is_free() {
        let mut room = Level::new(1000);
        let looks = [700, 801, 900, 1000, 1001, 900, 876, 875, 1001, 100, 801];
        let told = looks.map(|bytes| room.look(bytes));
        let (near, full, free) = (Some(Change::Near), Some(Change::Full), Some(Change::Free));
        assert_eq!(told, [None, near, None, None, full, None, None, free, full, free, near]);
    }
}
