//! Rows that were not used for long go: some at a time, with each step.

use std::sync::atomic::Ordering;

use parking_lot::RwLockWriteGuard;
use sluice_features::time::EventTime;

use super::super::shard::Shard;
use super::{RowStore, SHARDS, seconds};

/// How often a shard is looked through for rows to expire within the time that they live.
const TURNS: u32 = 16;
/// Bytes that keys need, after which a look through shards waits for the next call: less than a millisecond.
const LOOKED: usize = if cfg!(test) { 4 << 10 } else { 256 << 10 };
/// Rows that are looked at before a step goes on, when room is wanted: some milliseconds.
const SWEPT: usize = 500_000;

impl RowStore {
    /// Looks through shards whose turn has come, those that were looked through longest ago first: each has one `TURNS` times in the
    /// configured span. Their rows that were not used for the span before `now` are removed, so a row lives for the span and at most a
    /// sixteenth of it. Calls `removed` with their keys and with those that a shard lost for want of room.
    ///
    /// One call looks through one shard, or through several small ones (`LOOKED`), so that it may follow every step.
    pub fn sweep(&self, now: EventTime, mut removed: impl FnMut(u64)) {
        let Some(span) = self.config.expiry.map(|span| seconds(span.0)) else { return };
        let now = seconds(now.0);
        let mut looked = 0;
        while looked < LOOKED {
            let swept = self.shards.iter().map(|shard| shard.read().swept).enumerate();
            let longest_ago = swept.min_by_key(|&(number, swept)| (swept, number));
            let due = |&(_, swept): &(usize, u32)| now.saturating_sub(swept) > span / TURNS;
            let Some((number, _)) = longest_ago.filter(due) else { return };
            let shard = &mut *self.shards[number].write();
            self.removals.fetch_add(1, Ordering::Relaxed);
            shard.swept = now;
            // What it needs, not what it takes: that follows from what was, of which a restored store knows nothing.
            looked += shard.index.needed_bytes();
            let mut keys = std::mem::take(&mut shard.unreported);
            let before = keys.len();
            shard.expire(now, span, &mut keys);
            self.length.fetch_sub(keys.len() - before, Ordering::Relaxed);
            keys.into_iter().for_each(&mut removed);
        }
    }

    /// Removes all rows that were not used for the configured span before `now`: the plain twin of
    /// [`Self::sweep`]. Returns their keys and those that lost their row for want of room since the last
    /// call, ascending.
    #[cfg(test)]
    pub(crate) fn expire(&self, now: EventTime) -> Vec<u64> {
        let span = self.config.expiry.map(|span| seconds(span.0));
        self.removals.fetch_add(1, Ordering::Relaxed);
        let mut keys = Vec::new();
        for shard in &self.shards {
            let shard = &mut *shard.write();
            keys.append(&mut shard.unreported);
            if let Some(span) = span {
                let before = keys.len();
                shard.expire(seconds(now.0), span, &mut keys);
                self.length.fetch_sub(keys.len() - before, Ordering::Relaxed);
            }
        }
        keys.sort_unstable();
        keys
    }

    /// Where `rows` more might not fit, removes rows that are due to expire: shard after shard, each
    /// at most `TURNS` times in a span, and no more at a time than is soon done.
    pub(super) fn make_room(
        &self,
        shards: &mut [RwLockWriteGuard<Shard>; SHARDS],
        rows: usize,
        now: u32,
    ) {
        let Some(span) = self.config.expiry.map(|span| seconds(span.0)) else { return };
        let mut looked_at = 0;
        for shard in shards {
            if self.len().saturating_add(rows) <= self.config.max_rows || looked_at > SWEPT {
                return;
            }
            if now.saturating_sub(shard.swept) > span / TURNS {
                self.removals.fetch_add(1, Ordering::Relaxed);
                shard.swept = now;
                looked_at += shard.index.len();
                let mut removed = std::mem::take(&mut shard.unreported);
                let before = removed.len();
                shard.expire(now, span, &mut removed);
                self.length.fetch_sub(removed.len() - before, Ordering::Relaxed);
                shard.unreported = removed;
            }
        }
    }
}
