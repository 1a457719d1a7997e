//! Rows read for learning: occurrences are counted, and new ids get their row.

use std::sync::atomic::Ordering;

use parking_lot::{RwLock, RwLockWriteGuard};
use sluice_features::time::EventTime;

use super::super::ahead::{Ahead, search};
use super::super::hash;
use super::super::shard::Shard;
use super::read::copy;
use super::{LOCKED, NONE, RowStore, SHARDS, hashes, seconds, shard_of};

impl RowStore {
    /// Like [`Self::gather`] for learning: counts one occurrence of each key, gives it a row when it
    /// is due one, and marks the row as used at `now`. Keys that are not admitted read as zeros and
    /// take no gradient.
    ///
    /// # Panics
    /// When `out` does not fit.
    pub fn gather_or_insert(&self, keys: &[u64], now: EventTime, out: &mut [f32]) {
        self.learn(keys, None, now, out);
    }

    /// Like [`Self::gather_or_insert`] for keys that stand for `counts` occurrences each, as
    /// [`Grouping`](crate::table::Grouping) finds them.
    ///
    /// # Panics
    /// When `counts` or `out` does not fit.
    pub fn gather_or_insert_counted(
        &self,
        keys: &[u64],
        counts: &[u32],
        now: EventTime,
        out: &mut [f32],
    ) {
        assert_eq!(counts.len(), keys.len(), "lengths of keys and counts");
        self.learn(keys, Some(counts), now, out);
    }

    fn learn(&self, keys: &[u64], counts: Option<&[u32]>, now: EventTime, out: &mut [f32]) {
        self.check(keys, out.len());
        let (width, now) = (self.config.width, seconds(now.0));
        let mut start = 0;
        for (keys, out) in keys.chunks(LOCKED).zip(out.chunks_mut(LOCKED * width)) {
            let mut shards: [RwLockWriteGuard<Shard>; SHARDS] = self.each(RwLock::write);
            self.make_room(&mut shards, keys.len(), now);
            let mut ahead = Ahead::new(hashes(keys));
            while let Some(turn) =
                ahead.next(&mut shards, |shard, turn| search(shard, keys[turn.number], turn.hash))
            {
                let (key, shard) = (keys[turn.number], &mut *shards[turn.shard()]);
                let occurrences = counts.map_or(1, |counts| counts[start + turn.number]);
                // The search was for its memory: a key may have got its row since.
                let row = if key == 0 { NONE } else { self.occur(shard, key, now, occurrences) };
                copy(shard, row, &mut out[turn.number * width..][..width]);
            }
            start += keys.len();
        }
    }

    /// Counts occurrences of a key and returns its row, if it has or gets one.
    pub(in crate::table) fn occur(
        &self,
        shard: &mut Shard,
        key: u64,
        now: u32,
        occurrences: u32,
    ) -> u32 {
        let hash = hash(key);
        shard.keep(key);
        if let Some(slot) = shard.index.find_mut(key, hash) {
            slot.last_used = slot.last_used.max(now);
            let row = slot.row;
            let count = shard.row_mut(row).count;
            *count = count.saturating_add(occurrences);
            return row;
        }
        let count = match &mut shard.filter {
            Some(filter) => {
                let count = filter.add(hash, occurrences);
                if count < self.config.admission {
                    return NONE;
                }
                occurrences.max(count.into())
            }
            None => occurrences,
        };
        if self.len() >= self.config.max_rows {
            shard.refused += u64::from(occurrences);
            return NONE;
        }
        self.length.fetch_add(1, Ordering::Relaxed);
        shard.admit(&self.config, key, now, count)
    }

    /// Sets the numbers of a key's row, which is created when there is room, past admission: for
    /// parameters that come from elsewhere. Returns whether the key has a row now.
    ///
    /// # Panics
    /// When `numbers` is not one row.
    pub fn set(&self, key: u64, numbers: &[f32], now: EventTime) -> bool {
        self.check(&[key], numbers.len());
        let (hash, now) = (hash(key), seconds(now.0));
        let shard = &mut *self.shards[shard_of(hash)].write();
        shard.keep(key);
        let row = match shard.index.find(key, hash) {
            Some(slot) => slot.row,
            None if key != 0 && self.len() < self.config.max_rows => {
                self.length.fetch_add(1, Ordering::Relaxed);
                shard.admit(&self.config, key, now, 0)
            }
            None => return false,
        };
        shard.row_mut(row).numbers.copy_from_slice(numbers);
        true
    }
}
