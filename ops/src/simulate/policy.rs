//! What the shop shows: the policy that made the log, neither blind nor clever.
//!
//! A home page draws candidates from popular items, from categories that the user likes, from new
//! arrivals, and at random; a page of a category or a search draws from its category. The candidates
//! are ranked by a noisy guess at what will be clicked, and the first ten are shown.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::config::PAGE;
use super::shelf::Shelf;
use super::truth::{Directions, Surface, desire};
use super::user::User;

const HOME_CANDIDATES: usize = 30;
const CATEGORY_CANDIDATES: usize = 16;
/// How much of the truth the ranking knows, and how noisy it is.
const INSIGHT: f64 = 0.5;
/// How sharply a user chooses among categories.
const CHOICE: f64 = 1.2;

/// Chooses pages; keeps its buffers.
#[derive(Debug, Default)]
pub(super) struct Policy {
    weights: Vec<f64>,
    candidates: Vec<usize>,
    ranked: Vec<(f64, usize)>,
}

impl Policy {
    /// Draws the category that a user looks into: the more they want it, the likelier.
    pub(super) fn focus(
        &mut self,
        directions: &Directions,
        categories: usize,
        user: &User,
        now: i64,
        random: &mut ChaCha8Rng,
    ) -> usize {
        self.weigh(directions, categories, user, now);
        self.draw(random)
    }

    fn weigh(&mut self, directions: &Directions, categories: usize, user: &User, now: i64) {
        self.weights.clear();
        let mut sum = 0.0;
        for category in 0..categories {
            sum += (CHOICE * desire(directions, user, category, now)).exp();
            self.weights.push(sum);
        }
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> usize {
        let total = self.weights.last().copied().unwrap_or_default();
        let point = random.random::<f64>() * total;
        self.weights.partition_point(|sum| *sum <= point).min(self.weights.len() - 1)
    }

    /// Chooses the places whose items are shown, in order.
    pub(super) fn page(
        &mut self,
        shelf: &Shelf,
        directions: &Directions,
        (user, categories, now): (&User, usize, i64),
        (surface, focus): (Surface, usize),
        random: &mut ChaCha8Rng,
    ) -> Vec<usize> {
        let wanted = match surface {
            Surface::Home => HOME_CANDIDATES,
            Surface::Search | Surface::Category => CATEGORY_CANDIDATES,
        };
        self.weigh(directions, categories, user, now);
        self.candidates.clear();
        while self.candidates.len() < wanted {
            let source = random.random::<f64>();
            let place = match surface {
                Surface::Home if source < 0.40 => shelf.popular(random),
                Surface::Home if source < 0.70 => shelf.popular_in(self.draw(random), random),
                Surface::Home if source < 0.80 => shelf.arrival(random),
                Surface::Home => shelf.any(random),
                Surface::Search | Surface::Category if source < 0.7 => {
                    shelf.popular_in(focus, random)
                }
                Surface::Search | Surface::Category => shelf.any_in(focus, random),
            };
            if !self.candidates.contains(&place) {
                self.candidates.push(place);
            }
        }
        self.ranked.clear();
        for place in &self.candidates {
            let item = shelf.item(*place);
            let guess = item.quality + desire(directions, user, item.category, now);
            // Gumbel noise: the ranking draws in proportion to e^guess, without replacement.
            let noise = -(-(1.0 - random.random::<f64>()).ln()).ln();
            self.ranked.push((INSIGHT * guess + noise, *place));
        }
        self.ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.ranked.iter().take(PAGE).map(|(_, place)| *place).collect()
    }
}
