//! Open addressing from keys to rows: linear probing, at most 65 of 100 slots taken.
//!
//! A removal closes the gap by moving later entries of the same run back, so there are no
//! tombstones and probes stay short however many ids come and go.

use bytemuck::Zeroable;

use super::{Seed, hash};
use crate::kernels::{Zeros, prefetch};

/// One entry; free when the key is 0.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
pub(super) struct Slot {
    pub(super) key: u64,
    pub(super) row: u32,
    /// Seconds of event time since 1970.
    pub(super) last_used: u32,
}

/// The slots of one shard; their number is a power of two.
#[derive(Debug)]
pub(super) struct Index {
    slots: Zeros<Slot>,
    length: usize,
    seed: Seed,
}

impl Index {
    /// Bytes of an entry at most: right after the index has grown, half of 65 of 100 slots are taken.
    pub(super) const MOST_BYTES: usize = (size_of::<Slot>() * 200).div_ceil(65);

    /// Creates an index with room for `keys` keys.
    pub(super) fn with_room(keys: usize) -> Self {
        Self { slots: Zeros::new(slots(keys)), length: 0, seed: Seed::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.slots[..])
    }

    /// Bytes that the entries need, however many there have been: at least a fourth of [`Self::bytes`] after [`Self::shrink`].
    pub(super) fn needed_bytes(&self) -> usize {
        slots(self.length) * size_of::<Slot>()
    }

    /// Gives back memory that many more entries have needed.
    pub(super) fn shrink(&mut self) {
        if self.bytes() > 4 * self.needed_bytes() {
            self.move_to(2 * slots(self.length));
        }
    }

    /// The entries, in no meaningful order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.slots.iter().copied().filter(|slot| slot.key != 0)
    }

    /// Asks for the memory in which a search with this hash begins.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(&self.slots, self.home(hash));
    }

    /// The entry of a key. `hash` is the key's.
    #[inline(always)]
    pub(super) fn find(&self, key: u64, hash: u64) -> Option<Slot> {
        let slot = self.slots[self.place(key, hash)];
        (slot.key != 0).then_some(slot)
    }

    /// The entry of a key, to change.
    #[inline(always)]
    pub(super) fn find_mut(&mut self, key: u64, hash: u64) -> Option<&mut Slot> {
        let place = self.place(key, hash);
        let slot = &mut self.slots[place];
        (slot.key != 0).then_some(slot)
    }

    /// Adds an entry whose key is new and not 0.
    pub(super) fn insert(&mut self, slot: Slot) {
        if (self.length + 1) * 100 > self.slots.len() * 65 {
            self.grow();
        }
        let place = self.place(slot.key, hash(slot.key));
        self.slots[place] = slot;
        self.length += 1;
    }

    /// Removes a key, if it is there.
    pub(super) fn remove(&mut self, key: u64) -> Option<Slot> {
        let mut gap = self.place(key, hash(key));
        let removed = self.slots[gap];
        if removed.key == 0 {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut next = gap;
        loop {
            next = (next + 1) & mask;
            let slot = self.slots[next];
            if slot.key == 0 {
                break;
            }
            // An entry may fill the gap unless its home lies between the gap and itself.
            let home = self.home(hash(slot.key));
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(gap) & mask) {
                self.slots[gap] = slot;
                gap = next;
            }
        }
        self.slots[gap] = Slot::default();
        self.length -= 1;
        Some(removed)
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        self.seed.place(hash) & (self.slots.len() - 1)
    }

    /// Where the key is, or the free slot where it would go. Key 0 is at a free slot.
    #[inline(always)]
    fn place(&self, key: u64, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut place = self.home(hash);
        // Ends, since at least a third of the slots is free.
        loop {
            let found = self.slots[place & mask].key;
            if found == key || found == 0 {
                return place & mask;
            }
            place += 1;
        }
    }

    fn grow(&mut self) {
        self.move_to(self.slots.len() * 2);
    }

    fn move_to(&mut self, slots: usize) {
        let slots = Zeros::new(slots);
        for &slot in &*std::mem::replace(&mut self.slots, slots) {
            if slot.key != 0 {
                let place = self.place(slot.key, hash(slot.key));
                self.slots[place] = slot;
            }
        }
    }
}

/// How many slots so many keys need.
fn slots(keys: usize) -> usize {
    (keys * 100 / 65 + 1).next_power_of_two().max(16)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn agrees_with_a_map_under_insertions_and_removals() {
        let (mut index, mut map) = (Index::with_room(0), BTreeMap::new());
        let mut state = 1_u64;
        for round in 0..40_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Few keys, many of them with homes side by side.
            let key = (state >> 33) % 700 + 1;
            let h = hash(key);
            if round.is_multiple_of(5_000) {
                // Most go at once.
                for key in 8..=700 {
                    assert_eq!(index.remove(key).map(|slot| slot.row), map.remove(&key));
                }
                index.shrink();
                assert!(index.bytes() <= 4 * index.needed_bytes());
            } else if (state >> 20).is_multiple_of(3) {
                assert_eq!(index.remove(key).map(|slot| slot.row), map.remove(&key));
            } else if index.find(key, h).is_none() {
                index.insert(Slot { key, row: round, last_used: 0 });
                assert!(map.insert(key, round).is_none());
            }
            assert_eq!(index.len(), map.len());
            assert_eq!(index.find(key, h).map(|slot| slot.row), map.get(&key).copied());
        }
        for key in 1..=700 {
            assert_eq!(index.find(key, hash(key)).map(|s| s.row), map.get(&key).copied());
        }
        assert_eq!(index.iter().count(), map.len());
        assert!(index.find(0, hash(0)).is_none());
    }

    /// Keys made by whoever knows [`hash`], so that all their hashes end alike.
    #[test]
    fn keys_that_were_chosen_to_meet_are_spread() {
        let mut index = Index::with_room(0);
        // The inverse of the folded product has no formula: keys are tried, twelve bits are soon found.
        let meeting = (1..).filter(|&key| hash(key) & 0xfff == 0x123);
        for key in meeting.take(1500) {
            index.insert(Slot { key, row: 0, last_used: 0 });
        }
        let mask = index.slots.len() - 1;
        let far = |(place, slot): (usize, &Slot)| {
            (slot.key != 0).then(|| place.wrapping_sub(index.home(hash(slot.key))) & mask)
        };
        let farthest = index.slots.iter().enumerate().filter_map(far).max();
        assert!(farthest < Some(100), "a search passes {farthest:?} slots");
    }
}
