//! Which items may be drawn as negatives of a view: those that are offered ([`crate::catalogue::Catalogue::is_offered`]).
//!
//! Where some item's record has come, that is what records say can be had; where there is no catalogue, what events have named. A positive that
//! could not have been drawn as a negative says nothing about the difference between the two: the caller masks it.

use serde::{Deserialize, Serialize};

use crate::pages::PagedVec;

/// Items that are copied together where a checkpoint is being written.
const PAGE: usize = 256;

/// An event has named the item.
const NAMED: u8 = 1;
/// Its record says that it can be had.
const OFFERED: u8 = 2;

/// The standing of all items, by their number.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Assortment {
    items: PagedVec<u8, PAGE>,
    /// Some record has come.
    catalogue: bool,
    /// Which are drawable, as sums (Fenwick, 1994): place `i` has those of the numbers from `i + 1 - lowest bit of (i + 1)` to `i`.
    #[serde(skip)]
    sums: Vec<u32>,
    #[serde(skip)]
    drawable: u32,
}

impl Assortment {
    /// Takes note that an event names an item.
    pub fn named(&mut self, item: u32) {
        self.change(item, |standing| standing | NAMED);
    }

    /// Takes note of an item's record: whether it can be had. One that is gone cannot.
    pub fn recorded(&mut self, item: u32, offered: bool) {
        if !self.catalogue {
            self.catalogue = true;
            self.sum_up();
        }
        self.change(item, |standing| standing & !OFFERED | if offered { OFFERED } else { 0 });
    }

    /// Tells whether an item may be drawn as a negative.
    pub fn is_drawable(&self, item: u32) -> bool {
        self.items.get(item as usize).is_some_and(|standing| self.draws(*standing))
    }

    /// Returns about how many bytes of memory the standings take. O(1).
    pub fn memory(&self) -> usize {
        self.items.len() + self.sums.capacity() * size_of::<u32>()
    }

    /// Tells whether records say what can be had.
    pub fn has_catalogue(&self) -> bool {
        self.catalogue
    }

    /// Returns how many items may be drawn.
    pub fn drawable(&self) -> u32 {
        self.drawable
    }

    /// Returns how many drawable items have a lower number. O(log n).
    pub fn rank(&self, item: u32) -> u32 {
        let (mut sum, mut end) = (0, (item as usize).min(self.sums.len()));
        while end > 0 {
            sum += self.sums[end - 1];
            end &= end - 1;
        }
        sum
    }

    /// Returns the drawable item that so many others stand before. O(log n).
    pub fn nth(&self, mut rank: u32) -> Option<u32> {
        if rank >= self.drawable {
            return None;
        }
        let mut place = 0;
        let mut step = self.sums.len().next_power_of_two();
        while step > 0 {
            if place + step <= self.sums.len() && self.sums[place + step - 1] <= rank {
                rank -= self.sums[place + step - 1];
                place += step;
            }
            step /= 2;
        }
        u32::try_from(place).ok()
    }

    /// Makes the sums anew: after a restart, or when the first record changes the rule.
    pub fn sum_up(&mut self) {
        self.drawable = 0;
        self.sums = self.items.iter().map(|standing| u32::from(self.draws(*standing))).collect();
        for place in 0..self.sums.len() {
            self.drawable += u32::from(self.is_drawable(place as u32));
            let above = place | (place + 1);
            if above < self.sums.len() {
                self.sums[above] += self.sums[place];
            }
        }
    }

    fn draws(&self, standing: u8) -> bool {
        standing & if self.catalogue { OFFERED } else { NAMED } > 0
    }

    fn change(&mut self, item: u32, new: impl Fn(u8) -> u8) {
        let place = item as usize;
        while self.items.len() <= place {
            self.push();
        }
        let before = self.items[place];
        let after = new(before);
        if after == before {
            return;
        }
        self.items[place] = after;
        let (was, is) = (self.draws(before), self.draws(after));
        if was == is {
            return;
        }
        let add = if is { 1 } else { u32::MAX };
        self.drawable = self.drawable.wrapping_add(add);
        let mut at = place;
        while at < self.sums.len() {
            self.sums[at] = self.sums[at].wrapping_add(add);
            at |= at + 1;
        }
    }

    fn push(&mut self) {
        self.items.push(0);
        // The sum of a new place is that of the places below it that it covers.
        let place = self.sums.len();
        let (mut sum, mut below) = (0, place);
        let first = place & (place + 1);
        while below > first {
            sum += self.sums[below - 1];
            below &= below - 1;
        }
        self.sums.push(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_and_ranks_are_those_of_a_list() {
        let mut assortment = Assortment::default();
        let mut state = 11_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for step in 0..6_000 {
            let item = random(700) as u32;
            if step > 2_000 && random(2) == 0 {
                assortment.recorded(item, random(3) > 0);
            } else {
                assortment.named(item);
            }
            if step % 50 == 0 {
                if step % 100 == 0 {
                    assortment = postcard_again(&assortment);
                }
                let list: Vec<u32> = (0..700).filter(|i| assortment.is_drawable(*i)).collect();
                assert_eq!(assortment.drawable() as usize, list.len());
                for (rank, item) in (0..).zip(&list) {
                    assert_eq!(assortment.nth(rank), Some(*item));
                    assert_eq!(assortment.rank(*item), rank);
                }
                assert_eq!(assortment.nth(list.len() as u32), None);
            }
        }
        assert!(assortment.has_catalogue());
    }

    fn postcard_again(assortment: &Assortment) -> Assortment {
        let text = serde_json::to_string(assortment).unwrap();
        let mut again: Assortment = serde_json::from_str(&text).unwrap();
        again.sum_up();
        again
    }

    #[test]
    fn where_there_is_a_catalogue_it_decides() {
        let mut assortment = Assortment::default();
        assortment.named(0);
        assert!(assortment.is_drawable(0));
        assortment.recorded(5, true);
        assert!(assortment.is_drawable(5) && !assortment.is_drawable(0), "no record names it");
        assortment.recorded(5, false);
        assert_eq!((assortment.drawable(), assortment.nth(0)), (0, None));
    }
}
