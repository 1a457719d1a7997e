//! Maps and sets whose keys come from outside.
//!
//! Ids are unkeyed hashes of what a producer writes, so whoever writes events could choose ids that meet in one place of a table. A seed
//! that each process draws for itself keeps that place from being known. Nothing that is learned, answered or written may depend on the
//! seed: such a map is only asked by key, or what is read of all of it is brought into an order of its own first. Ids keep the stable hash
//! ([`crate::ids`]); where a hash decides about results it is that one.

use std::collections::{HashMap, HashSet};

/// The hash of places in tables: another one in every process.
pub type Seeded = foldhash::fast::RandomState;

/// A map by ids from outside.
pub type Map<K, V> = HashMap<K, V, Seeded>;

/// A set of ids from outside.
pub type Set<K> = HashSet<K, Seeded>;

/// What an allocator adds to a block: its own words, and what it rounds up to.
pub const BLOCK: usize = 16;

/// Returns how many bytes a map takes that has room for `capacity` entries of so many bytes: an entry and a byte for each place, of which at most
/// seven eighths are taken.
pub fn bytes(capacity: usize, entry: usize) -> usize {
    if capacity == 0 { 0 } else { (capacity * 8 / 7).next_power_of_two() * (entry + 1) + BLOCK }
}

/// Returns how many bytes an entry takes at most in a map that has just grown: seven sixteenths of the places are taken then.
pub const fn most_bytes(entry: usize) -> usize {
    ((entry + 1) * 16).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_never_larger_than_its_entries_at_most() {
        let mut map = Map::default();
        for key in 0..10_000u64 {
            map.insert(key, 0u32);
            let (bytes, entry) = (bytes(map.capacity(), 16), map.len() * most_bytes(16));
            assert!(bytes <= entry + 8 * 17 + BLOCK && bytes >= map.len() * 17, "{key}: {bytes}");
        }
        assert_eq!(bytes(0, 16), 0);
    }
}
