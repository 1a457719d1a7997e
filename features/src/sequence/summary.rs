//! What is known of a segment without looking into it.

use serde::{Deserialize, Serialize};

use super::segment::View;
use crate::time::EventTime;

const WORDS: usize = 4;

/// The length of a segment, its times, and which categories it may have: a bit for each, of 256
/// ([a Bloom filter](https://doi.org/10.1145/362686.362692) of one hash). With 30 categories one look in nine is in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) count: u16,
    pub(super) first: EventTime,
    pub(super) last: EventTime,
    categories: [u64; WORDS],
}

impl Summary {
    pub(super) fn of(segment: View<'_>) -> Self {
        let mut categories = [0; WORDS];
        segment.categories(|category| {
            let (word, bit) = bit(category);
            categories[word] |= bit;
        });
        let (first, last) = (segment.first(), segment.last());
        Self { count: segment.count() as u16, first, last, categories }
    }

    /// Tells whether the segment may have behaviours of a category.
    pub(super) fn may_have(&self, category: u32) -> bool {
        let (word, bit) = bit(category);
        self.categories[word] & bit != 0
    }
}

fn bit(category: u32) -> (usize, u64) {
    // A multiplication by the golden ratio: numbers are given in order, and neighbours spread best.
    let hash = category.wrapping_mul(0x9e37_79b9) >> 24;
    (hash as usize / 64, 1 << (hash % 64))
}
