//! What is on offer: places of different exposure, each with an item that is replaced now and then.
//!
//! The exposure of places falls by Zipf's law, `rank^-0.7`, with ranks at random. A new item takes the
//! place, and with it the category and the exposure, of one that leaves.

use std::collections::VecDeque;

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::item::{Item, Makers, created_before};

const ZIPF: f64 = 0.7;
/// So many newest items count as new arrivals.
const ARRIVALS: usize = 20;

/// The places and their items.
#[derive(Debug)]
pub(super) struct Shelf {
    makers: Makers,
    /// The item at each place.
    items: Vec<Item>,
    /// Standardised ln(exposure) of each place.
    exposure: Vec<f64>,
    all: Weighted,
    categories: Vec<Weighted>,
    /// Places of the newest items, the newest last.
    arrivals: VecDeque<usize>,
}

/// Places that are drawn by their exposure.
#[derive(Debug, Default)]
struct Weighted {
    places: Vec<usize>,
    /// Sums of the weights up to and with each place.
    sums: Vec<f64>,
}

impl Weighted {
    fn add(&mut self, place: usize, weight: f64) {
        self.places.push(place);
        self.sums.push(self.sums.last().unwrap_or(&0.0) + weight);
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> usize {
        let total = self.sums.last().copied().unwrap_or_default();
        let point = random.random::<f64>() * total;
        let index = self.sums.partition_point(|sum| *sum <= point).min(self.places.len() - 1);
        self.places[index]
    }
}

impl Shelf {
    pub(super) fn new(
        items: usize,
        categories: usize,
        least: usize,
        start: i64,
        random: &mut ChaCha8Rng,
    ) -> Self {
        let mut ranks: Vec<usize> = (1..=items).collect();
        ranks.shuffle(random);
        let logs: Vec<f64> = ranks.iter().map(|rank| -ZIPF * (*rank as f64).ln()).collect();
        let mean = logs.iter().sum::<f64>() / items as f64;
        let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / items as f64;
        let deviation = variance.sqrt().max(f64::MIN_POSITIVE);

        let mut shelf = Self {
            makers: Makers::new(categories, random),
            items: Vec::with_capacity(items),
            exposure: logs.iter().map(|log| (log - mean) / deviation).collect(),
            all: Weighted::default(),
            categories: (0..categories).map(|_| Weighted::default()).collect(),
            arrivals: VecDeque::with_capacity(ARRIVALS),
        };
        for (place, log) in logs.iter().enumerate() {
            // The least of each category first, then as it comes.
            let category = match place / least {
                category if category < categories => category,
                _ => random.random_range(0..categories),
            };
            let created = created_before(start, random);
            let item = shelf.makers.make(category, shelf.exposure[place], created, random);
            shelf.items.push(item);
            shelf.all.add(place, log.exp());
            shelf.categories[category].add(place, log.exp());
        }
        let mut by_age: Vec<usize> = (0..items).collect();
        by_age.sort_by_key(|place| shelf.items[*place].created);
        shelf.arrivals.extend(&by_age[items.saturating_sub(ARRIVALS)..]);
        shelf
    }

    /// Returns the item at a place.
    pub(super) fn item(&self, place: usize) -> &Item {
        &self.items[place]
    }

    /// Returns the number of places.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Replaces the item at a random place by a new one. Returns the one that left, and the place.
    pub(super) fn replace(&mut self, now: i64, random: &mut ChaCha8Rng) -> (Item, usize) {
        let place = random.random_range(0..self.items.len());
        let category = self.items[place].category;
        let item = self.makers.make(category, self.exposure[place], now, random);
        let gone = std::mem::replace(&mut self.items[place], item);
        self.arrivals.retain(|arrival| *arrival != place);
        if self.arrivals.len() == ARRIVALS {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back(place);
        (gone, place)
    }

    /// Draws a place by exposure.
    pub(super) fn popular(&self, random: &mut ChaCha8Rng) -> usize {
        self.all.draw(random)
    }

    /// Draws a place of a category by exposure.
    pub(super) fn popular_in(&self, category: usize, random: &mut ChaCha8Rng) -> usize {
        self.categories[category].draw(random)
    }

    /// Draws any place.
    pub(super) fn any(&self, random: &mut ChaCha8Rng) -> usize {
        random.random_range(0..self.items.len())
    }

    /// Draws any place of a category.
    pub(super) fn any_in(&self, category: usize, random: &mut ChaCha8Rng) -> usize {
        let places = &self.categories[category].places;
        places[random.random_range(0..places.len())]
    }

    /// Draws the place of a new arrival.
    pub(super) fn arrival(&self, random: &mut ChaCha8Rng) -> usize {
        self.arrivals[random.random_range(0..self.arrivals.len())]
    }
}
