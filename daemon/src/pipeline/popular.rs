//! What is popular, what is new: candidates that need no model.
//!
//! An item's popularity is the sum over its outcomes of `2^((t - now) / half_life)`. Kept as `Σ 2^((t - origin) / half_life)`
//! (forward decay, Cormode et al., ICDE 2009), so that nothing has to be decayed and the order needs no clock.

use serde::{Deserialize, Serialize};
use sluice_features::pages::PagedVec;
use sluice_features::sequence::NO_CATEGORY;
use sluice_features::time::{EventTime, Span};

/// Observations between two rankings.
const REFRESH: u32 = 2_048;
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

#[derive(Clone, Debug, Default)]
struct Ranking {
    overall: Vec<u32>,
    by_category: std::collections::HashMap<u32, Vec<u32>, foldhash::fast::FixedState>,
    age: u32,
    ready: bool,
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
        if half_lives > MOST_HALF_LIVES {
            for entry in self.entries.iter_mut() {
                entry.weight *= (-half_lives).exp2();
            }
            self.origin = Some(time);
        }
        let half_lives = if half_lives > MOST_HALF_LIVES { 0.0 } else { half_lives };
        let entry = self.entry(item);
        entry.weight += half_lives.exp2();
        entry.category = category;
        self.ranking.age += 1;
    }

    /// Ranks anew when enough has happened since the last time; cheap otherwise.
    pub fn refresh(&mut self) {
        if self.ranking.ready && self.ranking.age < REFRESH {
            return;
        }
        let mut numbers: Vec<u32> = (0u32..)
            .zip(self.entries.iter())
            .filter(|(_, e)| e.weight > 0.0)
            .map(|(i, _)| i)
            .collect();
        let weight = |number: &u32| self.entries[*number as usize].weight;
        numbers.sort_unstable_by(|a, b| weight(b).total_cmp(&weight(a)).then(a.cmp(b)));
        for list in self.ranking.by_category.values_mut() {
            list.clear();
        }
        for &number in &numbers {
            let category = self.entries[number as usize].category;
            let list = self.ranking.by_category.entry(category).or_default();
            if list.len() < IN_CATEGORY {
                list.push(number);
            }
        }
        numbers.truncate(OVERALL);
        self.ranking.overall = numbers;
        self.ranking.age = 0;
        self.ranking.ready = !self.ranking.overall.is_empty();
    }

    /// Returns the most popular items, best first.
    pub fn overall(&self) -> &[u32] {
        &self.ranking.overall
    }

    /// Returns the most popular items of a category, best first.
    pub fn in_category(&self, category: u32) -> &[u32] {
        self.ranking.by_category.get(&category).map_or(&[], Vec::as_slice)
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
        popular.refresh();
        assert_eq!(popular.overall(), [1, 0, 2]);
        assert_eq!(popular.in_category(7), [1, 0]);
        assert!(popular.in_category(9).is_empty());
    }

    #[test]
    fn a_far_future_keeps_the_order_finite() {
        let mut popular = Popular::new(Span(1));
        popular.observe(0, 0, EventTime(0));
        popular.observe(1, 0, EventTime(1_000_000));
        popular.observe(0, 0, EventTime(2));
        popular.refresh();
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
