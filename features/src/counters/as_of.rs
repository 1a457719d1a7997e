//! What all counters have in common that are counted or read as of one time: what its events weigh, and the overall rates of the tasks.

use super::overall::{HalfLife, Rate, Rated};
use super::weight::Weight;
use crate::time::EventTime;

/// Weights and rates that are worked out once; further ones each time they are asked for.
const KEPT: usize = 16;

/// What an event of a time weighs, by half-life.
pub(super) struct Weights {
    time: EventTime,
    kept: [Option<Weight>; KEPT],
}

/// A time, as counters are read as of it.
pub(super) struct AsOf<'a> {
    pub(super) time: EventTime,
    half_lives: &'a [HalfLife],
    rated: &'a [Rated],
    weights: Weights,
    rates: [Option<Rate>; KEPT],
}

impl Weights {
    pub(super) fn new(half_lives: &[HalfLife], time: EventTime) -> Self {
        let mut kept = [None; KEPT];
        for (kept, half_life) in kept.iter_mut().zip(half_lives) {
            *kept = Some(Weight::of(half_life.length, time));
        }
        Self { time, kept }
    }

    pub(super) fn of(&self, half_lives: &[HalfLife], number: usize) -> Weight {
        let kept = self.kept.get(number).copied().flatten();
        kept.unwrap_or_else(|| Weight::of(half_lives[number].length, self.time))
    }
}

impl<'a> AsOf<'a> {
    /// Works weights and rates out.
    pub(super) fn new(half_lives: &'a [HalfLife], rated: &'a [Rated], time: EventTime) -> Self {
        let weights = Weights::new(half_lives, time);
        let mut new = Self { time, half_lives, rated, weights, rates: [None; KEPT] };
        for i in 0..rated.len().min(KEPT) {
            new.rates[i] = new.work_out(i);
        }
        new
    }

    /// Returns what the time's own events weigh, by the number of the half-life.
    pub(super) fn weight(&self, half_life: usize) -> Weight {
        self.weights.of(self.half_lives, half_life)
    }

    /// Returns an overall rate by its number, `None` where it cannot be told any more.
    pub(super) fn rate(&self, rate: usize) -> Option<Rate> {
        if rate < KEPT { self.rates[rate] } else { self.work_out(rate) }
    }

    fn work_out(&self, rate: usize) -> Option<Rate> {
        let Rated { half_life, task } = self.rated[rate];
        self.half_lives[half_life].rate(task, self.weight(half_life), self.time)
    }
}
