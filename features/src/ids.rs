//! Stable 64-bit ids of the strings that records carry.
//!
//! An id is XXH3-64 of the UTF-8 bytes, so it is the same in every run, on every machine, in every replica. Zero is kept free:
//! tables use it for "no row". Collisions are detected where the strings are entered ([`crate::dictionary`]) and reported, never merged.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::maps::{self, Map};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Returns the id of a string.
            pub fn of(text: &str) -> Self {
                Self(stable_hash(text.as_bytes()))
            }
        }
    };
}

id!(
    /// A user.
    UserId
);
id!(
    /// An item.
    ItemId
);
id!(
    /// A category of items.
    CategoryId
);
id!(
    /// A record's own id, by which duplicates are known. An impression's id is what its outcomes refer to.
    EventId
);

/// Returns the hash of some bytes that all ids are made of; never zero.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes).max(1)
}

/// Returns the hash of some bytes under a seed, for names inside a named space (a table, a field); never zero.
pub fn salted_hash(seed: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, seed).max(1)
}

/// Returns the key of an id inside the space `salt` (a table), never zero: a bijective mix (save that 0 becomes 1), so that two ids of one space do not
/// share a key. Finaliser of MurmurHash3, which is a permutation of the 64-bit integers.
#[inline]
pub fn salted_key(salt: u64, id: u64) -> u64 {
    let mut key = id ^ salt;
    key = (key ^ (key >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    key = (key ^ (key >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (key ^ (key >> 33)).max(1)
}

/// Returns the key of two ids together, never zero. Each is mixed by itself: equal ids, or the same two in the other order, have keys like
/// any others.
#[inline]
pub fn pair_key(first: u64, second: u64) -> u64 {
    salted_key(salted_key(1, first), second)
}

/// Returns the id of a key inside the space `salt`: the inverse of [`salted_key`], but for the one id
/// whose key would be 0. Of a key of another space it is an id that nothing has.
pub fn unsalted(salt: u64, key: u64) -> u64 {
    // Each shift undoes itself, and the factors are the inverses of those above modulo 2⁶⁴, in the opposite order.
    let mut id = (key ^ (key >> 33)).wrapping_mul(0x9cb4_b2f8_1293_37db);
    id = (id ^ (id >> 33)).wrapping_mul(0x4f74_430c_22a5_4005);
    (id ^ (id >> 33)) ^ salt
}

/// Ids of one kind, numbered in the order of their first sight, where the strings are not needed (categories).
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    numbers: Map<u64, u32>,
    ids: Vec<u64>,
}

impl Numbers {
    /// Returns the number of an id, entering it when it is new.
    pub fn enter(&mut self, id: u64) -> u32 {
        let next = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(id).or_insert(next);
        if number == next {
            self.ids.push(id);
        }
        number
    }

    /// Returns the number of an id, if it was ever entered.
    pub fn number(&self, id: u64) -> Option<u32> {
        self.numbers.get(&id).copied()
    }

    /// Returns the id behind a number.
    ///
    /// # Panics
    /// When the number was not given out here.
    pub fn id(&self, number: u32) -> u64 {
        self.ids[number as usize]
    }

    /// Returns how many ids there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Tells whether nothing was entered yet.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns the ids in the order of their numbers, from number `from` on.
    pub fn ids_from(&self, from: usize) -> &[u64] {
        &self.ids[from.min(self.ids.len())..]
    }

    /// Returns about how many bytes of memory the numbers take. O(1).
    pub fn memory(&self) -> usize {
        let map = maps::bytes(self.numbers.capacity(), size_of::<(u64, u32)>());
        self.ids.capacity() * size_of::<u64>() + map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_across_releases() {
        // The value is part of every checkpoint and every table: changing it needs a migration.
        assert_eq!(ItemId::of("5239").0, 10_443_815_584_964_402_828);
    }

    #[test]
    fn keys_of_one_space_never_meet() {
        let keys: std::collections::HashSet<u64> =
            (1..100_000).map(|id| salted_key(7, id)).collect();
        assert_eq!(keys.len(), 99_999);
        assert_ne!(salted_key(7, 1), salted_key(8, 1));
    }

    #[test]
    fn keys_of_pairs_meet_neither_for_equal_ids_nor_for_turned_ones() {
        let ids = || 1..300u64;
        let keys: std::collections::HashSet<u64> =
            ids().flat_map(|a| ids().map(move |b| pair_key(a, b))).collect();
        assert_eq!(keys.len(), 299 * 299);
    }

    #[test]
    fn an_id_is_found_back_by_its_key() {
        // The key of 7 itself would be 0: it is the one that is not found back.
        for id in (8..10_000).chain([1, 6, u64::MAX, 1 << 63]) {
            assert_eq!(unsalted(7, salted_key(7, id)), id);
        }
        assert_ne!(unsalted(8, salted_key(7, 5)), 5);
    }

    #[test]
    fn numbers_are_given_out_in_the_order_of_first_sight() {
        let mut numbers = Numbers::default();
        assert_eq!([70, 90, 70, 80].map(|id| numbers.enter(id)), [0, 1, 0, 2]);
        assert_eq!((numbers.number(80), numbers.number(60), numbers.id(1)), (Some(2), None, 90));
        assert_eq!(numbers.ids_from(1), [90, 80]);
    }
}
