//! Rows read for serving.

use parking_lot::{RwLock, RwLockReadGuard};

use super::super::ahead::{Ahead, search};
use super::super::shard::Shard;
use super::{LOCKED, NONE, RowStore, SHARDS, hashes};

impl RowStore {
    /// Reads the rows of `keys` into `out` `[keys, width]`, for serving: a key without a row reads as
    /// zeros, and nothing is counted.
    ///
    /// # Panics
    /// When `out` does not fit.
    pub fn gather(&self, keys: &[u64], out: &mut [f32]) {
        self.check(keys, out.len());
        let width = self.config.width;
        for (keys, out) in keys.chunks(LOCKED).zip(out.chunks_mut(LOCKED * width)) {
            let mut shards: [RwLockReadGuard<Shard>; SHARDS] = self.each(RwLock::read);
            let mut ahead = Ahead::new(hashes(keys));
            while let Some(turn) =
                ahead.next(&mut shards, |shard, turn| search(shard, keys[turn.number], turn.hash))
            {
                let out = &mut out[turn.number * width..][..width];
                copy(&shards[turn.shard()], turn.row, out);
            }
        }
    }
}

/// Copies a row, or zeros.
#[inline(always)]
pub(super) fn copy(shard: &Shard, row: u32, out: &mut [f32]) {
    if row == NONE {
        out.fill(0.0);
    } else {
        out.copy_from_slice(shard.numbers(row));
    }
}
