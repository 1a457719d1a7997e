//! A walk over keys that asks for memory before it is needed: for the slot of a key some turns before it is searched, for its row some turns before it
//! is given out. So the waits of all keys overlap, with each other and with the work on rows.

use parking_lot::{RwLockReadGuard, RwLockWriteGuard};

use super::shard::Shard;
use super::store::{NONE, SHARDS, shard_of};

/// Turns between the search for a key and its own.
const ROW: usize = 16;
/// Turns between the asking for its slot and its own: a power of two.
const SLOT: usize = 32;

/// A shard under its lock, if the caller has it.
pub(super) trait Held {
    fn shard(&self) -> Option<&Shard>;
}

impl Held for RwLockReadGuard<'_, Shard> {
    fn shard(&self) -> Option<&Shard> {
        Some(self)
    }
}

impl Held for RwLockWriteGuard<'_, Shard> {
    fn shard(&self) -> Option<&Shard> {
        Some(self)
    }
}

impl Held for Option<RwLockWriteGuard<'_, Shard>> {
    fn shard(&self) -> Option<&Shard> {
        self.as_deref()
    }
}

/// A key whose turn it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// Which of the keys.
    pub(super) number: usize,
    pub(super) hash: u64,
    /// What the search found.
    pub(super) row: u32,
}

impl Turn {
    /// The number of the key's shard.
    #[inline(always)]
    pub(super) fn shard(self) -> usize {
        shard_of(self.hash)
    }
}

/// The keys on their way.
#[derive(Debug)]
pub(super) struct Ahead<I> {
    keys: I,
    ring: [Turn; SLOT],
    /// How many keys had their slot asked for, were searched, had their turn.
    asked: usize,
    searched: usize,
    done: usize,
}

impl<I: Iterator<Item = (usize, u64)>> Ahead<I> {
    /// Takes the numbers and hashes of keys in the order of their turns.
    pub(super) fn new(keys: I) -> Self {
        let ring = [Turn { number: 0, hash: 0, row: NONE }; SLOT];
        Self { keys, ring, asked: 0, searched: 0, done: 0 }
    }

    /// The next key. `search` returns a key's row, whose memory it has asked for.
    #[inline(always)]
    pub(super) fn next<G: Held>(
        &mut self,
        shards: &mut [G; SHARDS],
        mut search: impl FnMut(&mut G, Turn) -> u32,
    ) -> Option<Turn> {
        while self.asked < self.done + SLOT {
            let Some((number, hash)) = self.keys.next() else { break };
            let turn = Turn { number, hash, row: NONE };
            if let Some(shard) = shards[turn.shard()].shard() {
                shard.index.prefetch(hash);
            }
            self.ring[self.asked % SLOT] = turn;
            self.asked += 1;
        }
        while self.searched < self.asked.min(self.done + ROW) {
            let turn = &mut self.ring[self.searched % SLOT];
            turn.row = search(&mut shards[turn.shard()], *turn);
            self.searched += 1;
        }
        let turn = (self.done < self.searched).then(|| self.ring[self.done % SLOT]);
        self.done += usize::from(turn.is_some());
        turn
    }
}

/// The row of a key, whose memory is asked for.
#[inline(always)]
pub(super) fn search<G: Held>(shard: &G, key: u64, hash: u64) -> u32 {
    let Some(shard) = shard.shard() else { return NONE };
    let Some(slot) = shard.index.find(key, hash) else { return NONE };
    shard.prefetch_row(slot.row);
    slot.row
}

#[cfg(test)]
mod tests {
    use parking_lot::RwLock;
    use sluice_features::time::EventTime;

    use super::*;
    use crate::kernels::AdagradStep;
    use crate::table::{RowStore, RowStoreConfig};

    #[test]
    fn every_key_has_its_turn_with_what_a_plain_search_finds() {
        let store = RowStore::new(RowStoreConfig {
            width: 2,
            seed: 1,
            initial_scale: 0.1,
            admission: 1,
            max_rows: 1000,
            expiry: None,
            step: AdagradStep { rate: 0.1, eps: 1e-8 },
        });
        let known: Vec<u64> = (1..=200).map(|key| key * 3).collect();
        store.gather_or_insert(&known, EventTime(1000), &mut vec![0.0; 400]);
        for count in (0..80).chain([700]) {
            let mut shards = store.each(RwLock::read);
            let keys = 0..count;
            let hashes = keys.clone().map(|key| (key, crate::table::hash(key as u64)));
            let mut ahead = Ahead::new(hashes);
            let mut next = || {
                ahead.next(&mut shards, |shard, turn| search(shard, turn.number as u64, turn.hash))
            };
            for key in keys {
                let turn = next().unwrap();
                assert_eq!(turn.number, key);
                assert_eq!(turn.row != NONE, key > 0 && key % 3 == 0 && key <= 600);
            }
            assert!(next().is_none() && next().is_none());
        }
    }
}
