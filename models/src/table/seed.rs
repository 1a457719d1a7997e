//! Where a key goes in an open-addressed array of this process.
//!
//! Keys follow from names that strangers choose, by functions that everybody knows: with places known too, anybody could make names whose keys
//! all want the same place, and each search would walk past all of them. So places are drawn by a secret of their own array. Nothing that is
//! learned, written or answered depends on a place: whatever is listed is sorted first.

use std::hash::{BuildHasher, RandomState};

/// The secret of one array: how hashes become places.
#[derive(Clone, Copy)]
pub(crate) struct Seed {
    mask: u64,
    factor: u64,
}

impl Default for Seed {
    /// Draws a seed.
    fn default() -> Self {
        let random = RandomState::new();
        Self { mask: random.hash_one(0), factor: random.hash_one(1) | 1 }
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed")
    }
}

impl Seed {
    /// Bits of which the lower ones choose a place for a hash.
    #[inline(always)]
    pub(crate) fn place(self, hash: u64) -> usize {
        let product = u128::from(hash ^ self.mask) * u128::from(self.factor);
        ((product >> 64) as u64 ^ product as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_that_share_their_lower_bits_are_spread_by_most_seeds_alike() {
        const PLACES: usize = 1 << 12;
        for _ in 0..20 {
            let seed = Seed::default();
            let mut taken = vec![0_u32; PLACES];
            (0..PLACES as u64).for_each(|i| taken[seed.place(i << 40) & (PLACES - 1)] += 1);
            assert!(taken.iter().all(|&count| count < 64), "most at one place");
        }
    }

    #[test]
    fn each_array_has_its_own_seed() {
        let places = [Seed::default(), Seed::default()].map(|seed| seed.place(7));
        assert_ne!(places[0], places[1]);
    }
}
