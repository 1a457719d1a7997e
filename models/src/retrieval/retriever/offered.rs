//! The items that are offered, as they were last seen: what negatives are drawn from, evenly.
//!
//! Items of a batch are negatives in proportion to how often they are taken; an item that nobody takes would never be one, and its vector would
//! stay where chance has put it, near some users. So each step draws further items, every offered one with the same chance, whether it is ever
//! taken or not. An item is entered by the first example that shows it offered, of whatever label, and leaves by one that shows it not offered,
//! or when it was not seen for as long as a row is kept.
//!
//! At most [`MOST`] are kept. Of more of them those stay whose hashes are lowest, so that they are an even sample of all, however often each is
//! seen: a sketch by bottom-k (Cohen and Kaplan 2007).

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;
use rand::Rng;
use serde::{Deserialize, Serialize};
use sluice_features::ids::{ItemId, salted_hash};
use sluice_features::pages::PagedVec;
use sluice_features::time::{EventTime, Span};

/// Items that are kept: some 50 MB with a dozen features each.
const MOST: usize = if cfg!(test) { 1 << 10 } else { 1 << 18 };
/// Items that are copied together while a checkpoint is being written.
const PAGE: usize = 64;

/// Items by place, as they are written in a checkpoint.
pub(super) type Articles = PagedVec<Article, PAGE>;

/// An offered item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Article {
    item: u64,
    /// The time of the newest example of it.
    seen: EventTime,
    /// What the item's tower reads of it ([`super::columns::SideColumns::pack`]).
    facts: Box<[u64]>,
}

impl Article {
    pub(super) fn facts(&self) -> &[u64] {
        &self.facts
    }
}

/// The offered items.
#[derive(Clone, Debug)]
pub(super) struct Offered {
    seed: u64,
    articles: Articles,
    places: HashMap<u64, usize, RandomState>,
    /// The items by their hashes.
    order: BTreeSet<(u64, u64)>,
}

impl Offered {
    /// Creates an offered without items; the seed decides which stay where there are too many.
    pub(super) fn new(seed: u64) -> Self {
        let (articles, places, order) = Default::default();
        Self { seed, articles, places, order }
    }

    /// Puts back items in the order of their places. Returns nothing when an item is there twice, or there are too many.
    pub(super) fn restore(seed: u64, articles: Articles) -> Option<Self> {
        let mut offered = Self::new(seed);
        for (place, article) in articles.iter().enumerate() {
            let twice = offered.places.insert(article.item, place).is_some();
            offered.order.insert((offered.hash(article.item), article.item));
            if twice || place >= MOST {
                return None;
            }
        }
        Some(Self { articles, ..offered })
    }

    /// The items by place.
    pub(super) fn articles(&self) -> &Articles {
        &self.articles
    }

    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        self.articles.len()
    }

    /// Takes note of an example that shows an offered item.
    pub(super) fn see(&mut self, item: ItemId, time: EventTime, facts: &[u64]) {
        if let Some(&place) = self.places.get(&item.0) {
            let article = &self.articles[place];
            if time > article.seen || *article.facts != *facts {
                let article = &mut self.articles[place];
                article.seen = article.seen.max(time);
                if *article.facts != *facts {
                    article.facts = facts.into();
                }
            }
            return;
        }
        let hash = self.hash(item.0);
        if self.len() >= MOST {
            match self.order.last() {
                Some(&(highest, last)) if (hash, item.0) < (highest, last) => {
                    self.withdraw(ItemId(last));
                }
                _ => return,
            }
        }
        self.places.insert(item.0, self.len());
        self.order.insert((hash, item.0));
        self.articles.push(Article { item: item.0, seen: time, facts: facts.into() });
    }

    /// Takes an item out, if it is there. The last one takes its place.
    pub(super) fn withdraw(&mut self, item: ItemId) {
        let Some(place) = self.places.remove(&item.0) else { return };
        self.order.remove(&(self.hash(item.0), item.0));
        let Some(last) = self.articles.pop() else { return };
        if last.item != item.0 {
            self.places.insert(last.item, place);
            self.articles[place] = last;
        }
    }

    /// Draws `count` items, each evenly among those that were seen within `expiry` before `now`, and gives them with their facts to `take`.
    /// Nothing is drawn where there are none.
    pub(super) fn draw(
        &mut self,
        count: usize,
        now: EventTime,
        expiry: Option<Span>,
        random: &mut impl Rng,
        mut take: impl FnMut(ItemId, &[u64]),
    ) {
        let mut drawn = 0;
        while drawn < count && self.len() > 0 {
            let article = &self.articles[random.random_range(0..self.len())];
            if expiry.is_some_and(|span| article.seen < now - span) {
                self.withdraw(ItemId(article.item));
                continue;
            }
            take(ItemId(article.item), &article.facts);
            drawn += 1;
        }
    }

    /// Tells whether an item is among those that may be drawn.
    pub(super) fn has(&self, item: ItemId) -> bool {
        self.places.contains_key(&item.0)
    }

    fn hash(&self, item: u64) -> u64 {
        salted_hash(self.seed, &item.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn drawn(offered: &mut Offered, count: usize, now: i64) -> BTreeMap<u64, usize> {
        let (mut random, mut drawn) = (ChaCha8Rng::seed_from_u64(1), BTreeMap::new());
        let expiry = Some(Span(100));
        offered.draw(count, EventTime(now), expiry, &mut random, |item, facts| {
            assert_eq!(facts, [item.0, 9]);
            *drawn.entry(item.0).or_default() += 1;
        });
        drawn
    }

    #[test]
    fn every_item_is_drawn_alike_however_often_it_was_seen() {
        let mut offered = Offered::new(1);
        for item in 1..=20 {
            (0..item * item).for_each(|i| {
                offered.see(ItemId(item), EventTime(i as i64), &[item, i % 2 + 8]);
            });
            offered.see(ItemId(item), EventTime(50), &[item, 9]);
        }
        let drawn = drawn(&mut offered, 20_000, 100);
        assert_eq!(drawn.len(), 20);
        assert!(drawn.values().all(|count| (850..1150).contains(count)), "{drawn:?}");
    }

    #[test]
    fn what_is_withdrawn_or_was_not_seen_for_long_is_drawn_no_more() {
        let mut offered = Offered::new(1);
        (1..=9).for_each(|item| offered.see(ItemId(item), EventTime(item as i64), &[item, 9]));
        offered.withdraw(ItemId(9));
        offered.withdraw(ItemId(77));
        offered.see(ItemId(2), EventTime(200), &[2, 9]);
        assert_eq!(drawn(&mut offered, 1000, 105).into_keys().collect::<Vec<_>>(), [2, 5, 6, 7, 8]);
        assert_eq!(drawn(&mut offered, 1000, 1000), BTreeMap::new());
        assert_eq!((offered.len(), offered.has(ItemId(2))), (0, false));
    }

    #[test]
    fn of_too_many_an_even_sample_stays_whatever_their_order_and_frequency() {
        let items = 4 * MOST as u64;
        let (mut one, mut other) = (Offered::new(7), Offered::new(7));
        for item in 1..=items {
            one.see(ItemId(item), EventTime(0), &[item, 9]);
        }
        for item in (1..=items).rev() {
            (0..item % 3).for_each(|_| other.see(ItemId(item), EventTime(0), &[item, 9]));
            other.see(ItemId(item), EventTime(0), &[item, 9]);
        }
        let kept = |of: &Offered| of.order.iter().map(|entry| entry.1).collect::<Vec<_>>();
        assert_eq!((one.len(), kept(&one)), (MOST, kept(&other)));
        let early = kept(&one).iter().filter(|item| **item <= items / 2).count() as f64;
        assert!((early / MOST as f64 - 0.5).abs() < 0.05, "{early} of the first half");

        // A restored one goes on alike, and a copy stays as it is.
        let copy = one.articles().clone();
        let mut restored = Offered::restore(7, copy.clone()).unwrap();
        for offered in [&mut one, &mut restored] {
            offered.withdraw(ItemId(kept(offered)[3]));
            offered.see(ItemId(items + 1), EventTime(5), &[items + 1, 9]);
            offered.see(ItemId(items + 2), EventTime(5), &[items + 2, 9]);
        }
        assert!(one.articles().iter().eq(restored.articles().iter()));
        assert_eq!(drawn(&mut one, 500, 50), drawn(&mut restored, 500, 50));
        assert!(copy.iter().all(|article| article.item <= items) && copy.len() == MOST);
        let mut twice = copy.clone();
        twice[1] = twice[0].clone();
        assert!(Offered::restore(7, twice).is_none());
    }
}
