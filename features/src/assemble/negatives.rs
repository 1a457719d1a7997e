//! Sampled negatives, where only views are known: `k` items drawn uniformly among the others that are offered stand for all that were not
//! viewed.
//!
//! Of `n - 1` other items each is drawn at the rate `r = k / (n - 1)`. An item that is the next one viewed with probability `q` is then a positive
//! of the sample `q` times for each `(1 - q) r` times as a negative: its odds there are those among all items divided by `r`. So what is learned
//! of the sample becomes the probability among all items, which is what is served, by odds times `r` ([`sampling_rate`]).

use serde::{Deserialize, Serialize};

use crate::assortment::Assortment;

/// A seeded generator of negatives. Its state is part of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negatives {
    state: u64,
}

impl Negatives {
    /// Creates the generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Draws the number of an offered item that is not the viewed one, all with the same probability; `None` when there is no other.
    pub fn draw(&mut self, offered: &Assortment, viewed: u32) -> Option<u32> {
        let out = offered.is_drawable(viewed);
        let others = offered.drawable() - u32::from(out);
        if others == 0 {
            return None;
        }
        let drawn = self.below(others);
        let behind = out && drawn >= offered.rank(viewed);
        offered.nth(drawn + u32::from(behind))
    }

    /// Returns a place among so many (at least one), all with the same probability: where a view stands among its negatives.
    pub fn place(&mut self, among: usize) -> usize {
        self.below(u32::try_from(among).unwrap_or(u32::MAX)) as usize
    }

    /// Returns a number below `bound`, all with the same probability (Lemire, 2019).
    fn below(&mut self, bound: u32) -> u32 {
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u64::from((self.next() >> 32) as u32) * u64::from(bound);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

/// Returns the rate at which each item is drawn beside a view of another: `k / (n - 1)` with `k` negatives among `n` items that can be drawn
/// (above 1 where there are fewer others than negatives: they are drawn with replacement). 1 where there is nothing to draw.
pub fn sampling_rate(negatives: usize, drawable: usize) -> f64 {
    if drawable < 2 { 1.0 } else { negatives as f64 / (drawable - 1) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items 0, 1, 2, ..., of which every third is not offered.
    fn items(count: u32) -> Assortment {
        let mut items = Assortment::default();
        (0..count).for_each(|item| items.recorded(item, item % 3 < 2));
        items
    }

    #[test]
    fn all_other_items_are_drawn_alike_and_never_the_viewed_one() {
        let items = items(7);
        for viewed in [0, 2, 4, 6] {
            let mut negatives = Negatives::new(7);
            let mut drawn = [0u32; 7];
            for _ in 0..40_000 {
                drawn[negatives.draw(&items, viewed).unwrap() as usize] += 1;
            }
            let offered = if viewed == 2 { 5 } else { 4 };
            for (item, &count) in (0u32..).zip(&drawn) {
                if item == viewed || item % 3 == 2 {
                    assert_eq!(count, 0, "{item}");
                } else {
                    assert!(count.abs_diff(40_000 / offered) < 500, "{item}: {count}");
                }
            }
        }
    }

    #[test]
    fn one_item_alone_has_no_negatives() {
        assert_eq!(Negatives::new(1).draw(&items(1), 0), None);
        assert_eq!(Negatives::new(1).draw(&items(1), 9), Some(0));
        assert_eq!(Negatives::new(1).draw(&items(0), 2), None);
    }

    #[test]
    fn a_stored_generator_goes_on_where_it_was() {
        let items = items(1000);
        let mut negatives = Negatives::new(3);
        negatives.draw(&items, 1);
        let text = serde_json::to_string(&negatives).unwrap();
        let mut again: Negatives = serde_json::from_str(&text).unwrap();
        for _ in 0..20 {
            assert_eq!(negatives.draw(&items, 1), again.draw(&items, 1));
        }
    }

    #[test]
    fn the_rate_is_that_of_each_other_item() {
        let rates = [(4, 401, 0.01), (4, 3, 2.0), (4, 1, 1.0), (4, 0, 1.0)];
        for (negatives, drawable, rate) in rates {
            let found = sampling_rate(negatives, drawable);
            assert!((found - rate).abs() < 1e-12, "{negatives} of {drawable}: {found}");
        }
    }
}
