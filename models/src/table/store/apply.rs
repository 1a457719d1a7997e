//! Steps of row-wise Adagrad on rows.

use parking_lot::RwLockWriteGuard;

use super::super::ahead::{Ahead, search};
use super::super::shard::Shard;
use super::{LOCKED, NONE, RowStore, SHARDS, hashes, shard_of};
use crate::kernels::{RowStep, RowSteps, adagrad_rows};

impl RowStore {
    /// Applies one step of row-wise Adagrad to each key: `gradients` `[keys, width]`, already summed
    /// over the occurrences of a key. Keys without a row are skipped.
    ///
    /// # Panics
    /// When `gradients` does not fit.
    pub fn apply(&self, unique_keys: &[u64], gradients: &[f32]) {
        self.apply_part(unique_keys, gradients, 0, 1);
    }

    /// Like [`Self::apply`] for the keys of one part of the shards. Calls for different parts may run at the same time: none waits
    /// for the locks of another, and together they do what one call does.
    ///
    /// # Panics
    /// When `gradients` does not fit, or when there is no such part.
    pub fn apply_part(&self, unique_keys: &[u64], gradients: &[f32], part: usize, parts: usize) {
        assert!(part < parts, "found part {part} of {parts}");
        self.check(unique_keys, gradients.len());
        let width = self.config.width;
        let mine = part * SHARDS / parts..(part + 1) * SHARDS / parts;
        for (keys, gradients) in unique_keys.chunks(LOCKED).zip(gradients.chunks(LOCKED * width)) {
            let lock = |shard| mine.contains(&shard).then(|| self.shards[shard].write());
            let keys_of_mine = hashes(keys).filter(|&(_, hash)| mine.contains(&shard_of(hash)));
            let mut steps = Steps {
                shards: std::array::from_fn(lock),
                ahead: Ahead::new(keys_of_mine),
                keys,
                gradients,
                width,
            };
            adagrad_rows(&mut steps, self.config.step);
        }
    }
}

/// Rows and their gradients; keys without a row are passed over.
struct Steps<'a, I> {
    shards: [Option<RwLockWriteGuard<'a, Shard>>; SHARDS],
    ahead: Ahead<I>,
    keys: &'a [u64],
    gradients: &'a [f32],
    width: usize,
}

impl<I: Iterator<Item = (usize, u64)>> RowSteps for Steps<'_, I> {
    #[inline(always)]
    fn next(&mut self) -> Option<RowStep<'_>> {
        let Self { shards, ahead, keys, gradients, width } = self;
        let turn = loop {
            let turn =
                ahead.next(shards, |shard, turn| search(shard, keys[turn.number], turn.hash))?;
            if turn.row != NONE {
                break turn;
            }
        };
        let shard = shards[turn.shard()].as_mut()?;
        shard.keep(keys[turn.number]);
        let row = shard.row_mut(turn.row);
        Some((row.numbers, &gradients[turn.number * *width..][..*width], row.accumulator))
    }
}
