//! What is popular, what is new: candidates that need no model.
//!
//! An item's popularity is the sum over its outcomes of `2^((t - now) / half_life)`. Kept as `Σ 2^((t - origin) / half_life)`
//! (forward decay, Cormode et al., ICDE 2009), so that nothing has to be decayed and the order needs no clock: weights only grow, and who is
//! among the first can only be overtaken. So the lists are kept as outcomes come, in O(log n) an outcome and without a look at other items.

use serde::{Deserialize, Serialize};
use sluice_features::maps::{self, BLOCK, Map};
use sluice_features::pages::PagedVec;
use sluice_features::sequence::NO_CATEGORY;
use sluice_features::time::{EventTime, Span};

/// Length of the ranking of all items, and of each category's.
const OVERALL: usize = 500;
const IN_CATEGORY: usize = 100;
/// Exponents stay below this before the origin moves.
const MOST_HALF_LIVES: f64 = 256.0;

/// Items that are copied together where a checkpoint is being written.
const PAGE: usize = 256;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Entry {
    weight: f64,
    category: u32,
}

/// Popularity of all items, by their dictionary number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Popular {
    half_life: Span,
    origin: Option<EventTime>,
    entries: PagedVec<Entry, PAGE>,
    newest: Vec<u32>,
    #[serde(skip)]
    ranking: Ranking,
}

/// The first of all items, and of each category.
#[derive(Clone, Debug, Default)]
struct Ranking {
    overall: Top<OVERALL>,
    by_category: Map<u32, Top<IN_CATEGORY>>,
}

/// The `MOST` items of the largest weights, largest first, equal ones by their number.
#[derive(Clone, Debug, Default)]
struct Top<const MOST: usize> {
    numbers: Vec<u32>,
    weights: Vec<f64>,
}

impl<const MOST: usize> Top<MOST> {
    /// Takes note that an item's weight has grown.
    fn rise(&mut self, number: u32, before: f64, after: f64) {
        self.leave(number, before);
        let place = self.place(number, after);
        if place < MOST {
            self.numbers.truncate(MOST - 1);
            self.weights.truncate(MOST - 1);
            self.numbers.insert(place, number);
            self.weights.insert(place, after);
        }
    }

    /// Takes an item of this weight out, if it is in.
    fn leave(&mut self, number: u32, weight: f64) {
        let place = self.place(number, weight);
        if self.numbers.get(place) == Some(&number) {
            self.numbers.remove(place);
            self.weights.remove(place);
        }
    }

    /// Returns where an item of this weight is or would be.
    fn place(&self, number: u32, weight: f64) -> usize {
        let start = self.weights.partition_point(|other| *other > weight);
        let alike = self.weights[start..].partition_point(|other| *other >= weight);
        start + self.numbers[start..start + alike].partition_point(|other| *other < number)
    }
}

impl Popular {
    /// Creates an empty ranking.
    pub fn new(half_life: Span) -> Self {
        Self {
            half_life,
            origin: None,
            entries: PagedVec::new(),
            newest: Vec::new(),
            ranking: Ranking::default(),
        }
    }

    /// Returns what a checkpoint keeps: a copy without the ranking. It costs little and stays as it is.
    pub(super) fn picture(&self) -> Self {
        Self {
            half_life: self.half_life,
            origin: self.origin,
            entries: self.entries.clone(),
            newest: self.newest.clone(),
            ranking: Ranking::default(),
        }
    }

    /// Takes note of an item that is seen for the first time.
    pub fn appeared(&mut self, item: u32, category: u32) {
        self.entry(item).category = category;
        if self.newest.len() >= 2 * OVERALL {
            self.newest.drain(..OVERALL);
        }
        self.newest.push(item);
    }

    /// Takes note of an outcome of an item. Times may come in any order.
    pub fn observe(&mut self, item: u32, category: u32, time: EventTime) {
        let origin = *self.origin.get_or_insert(time);
        let half_lives = (time - origin).0 as f64 / self.half_life.0.max(1) as f64;
        let half_lives = if half_lives > MOST_HALF_LIVES {
            self.move_origin(half_lives, time);
            0.0
        } else {
            half_lives
        };
        let entry = self.entry(item);
        let before = *entry;
        entry.weight += half_lives.exp2();
        entry.category = category;
        let after = entry.weight;
        if before.category != category
            && let Some(list) = self.ranking.by_category.get_mut(&before.category)
        {
            list.leave(item, before.weight);
        }
        self.ranking.overall.rise(item, before.weight, after);
        self.ranking.by_category.entry(category).or_default().rise(item, before.weight, after);
    }

    fn move_origin(&mut self, half_lives: f64, time: EventTime) {
        for entry in self.entries.iter_mut() {
            entry.weight *= (-half_lives).exp2();
        }
        self.origin = Some(time);
        self.rank();
    }

    /// Ranks all items anew: after a restart.
    pub(super) fn rank(&mut self) {
        let mut ranking = Ranking::default();
        for (item, &Entry { weight, category }) in (0u32..).zip(self.entries.iter()) {
            if weight > 0.0 {
                ranking.overall.rise(item, 0.0, weight);
                ranking.by_category.entry(category).or_default().rise(item, 0.0, weight);
            }
        }
        self.ranking = ranking;
    }

    /// Returns about how many bytes of memory it takes at most. O(1).
    pub fn memory(&self) -> usize {
        let (items, categories) = (self.entries.len(), self.ranking.by_category.len());
        // Every item is in the list of one category, which has grown to twice its length at most.
        let listed =
            items.min(categories * IN_CATEGORY) * 2 * (size_of::<u32>() + size_of::<f64>());
        let lists =
            maps::bytes(self.ranking.by_category.capacity(), size_of::<(u32, Top<IN_CATEGORY>)>());
        items * size_of::<Entry>() + listed + lists + categories * 2 * BLOCK
    }

    /// Returns the most popular items, best first.
    pub fn overall(&self) -> &[u32] {
        &self.ranking.overall.numbers
    }

    /// Returns the most popular items of a category, best first.
    pub fn in_category(&self, category: u32) -> &[u32] {
        self.ranking.by_category.get(&category).map_or(&[], |list| &list.numbers)
    }

    /// Returns the items that appeared last, newest first.
    pub fn newest(&self) -> impl Iterator<Item = u32> + '_ {
        self.newest.iter().rev().copied()
    }

    fn entry(&mut self, item: u32) -> &mut Entry {
        let number = item as usize;
        while number >= self.entries.len() {
            self.entries.push(Entry { weight: 0.0, category: NO_CATEGORY });
        }
        &mut self.entries[number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recent_outcome_outweighs_an_old_one() {
        let mut popular = Popular::new(Span::seconds(10));
        for _ in 0..3 {
            popular.observe(0, 7, EventTime(0));
        }
        popular.observe(1, 7, EventTime(30_000));
        popular.observe(2, 8, EventTime(0));
        assert_eq!(popular.overall(), [1, 0, 2]);
        assert_eq!(popular.in_category(7), [1, 0]);
        assert!(popular.in_category(9).is_empty());
    }

    #[test]
    fn the_lists_are_those_of_a_sort_over_all_items() {
        let mut popular = Popular::new(Span(5_000));
        let mut state = 5_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for step in 0..60_000_u64 {
            // Few that are liked by many, and many by few; times that go back; one gap of many half-lives.
            let item = if random(2) == 0 { random(50) } else { random(3_000) } as u32;
            let late = random(9_000);
            let time = step * 20 + if step > 30_000 { 3_000_000 } else { 0 };
            popular.observe(item, item % 7, EventTime(time.saturating_sub(late).cast_signed()));
            if step % 9_999 == 0 {
                let mut all: Vec<u32> = (0..popular.entries.len() as u32).collect();
                let weight = |item: u32| popular.entries[item as usize].weight;
                all.retain(|item| weight(*item) > 0.0);
                all.sort_by(|&a, &b| weight(b).total_cmp(&weight(a)).then(a.cmp(&b)));
                assert_eq!(popular.overall(), &all[..all.len().min(OVERALL)], "step {step}");
                for category in 0..7 {
                    let of: Vec<u32> = all.iter().copied().filter(|i| i % 7 == category).collect();
                    assert_eq!(popular.in_category(category), &of[..of.len().min(IN_CATEGORY)]);
                }
                let mut restored = popular.picture();
                restored.rank();
                assert_eq!(restored.overall(), popular.overall());
            }
        }
    }

    #[test]
    fn an_item_leaves_the_list_of_the_category_that_it_left() {
        let mut popular = Popular::new(Span(1000));
        popular.observe(1, 7, EventTime(0));
        popular.observe(1, 8, EventTime(1));
        assert!(popular.in_category(7).is_empty());
        assert_eq!(popular.in_category(8), [1]);
    }

    #[test]
    fn a_far_future_keeps_the_order_finite() {
        let mut popular = Popular::new(Span(1));
        popular.observe(0, 0, EventTime(0));
        popular.observe(1, 0, EventTime(1_000_000));
        popular.observe(0, 0, EventTime(2));
        assert_eq!(popular.overall()[0], 1);
    }

    #[test]
    fn the_newest_items_come_first_and_stay_bounded() {
        let mut popular = Popular::new(Span(1));
        (0..5_000).for_each(|number| popular.appeared(number, NO_CATEGORY));
        assert_eq!(popular.newest().next(), Some(4_999));
        assert!(popular.newest().count() <= 2 * OVERALL);
    }
}
