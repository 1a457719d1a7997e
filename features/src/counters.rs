//! Near-real-time counters: exponentially decayed counts of impressions and of a task's outcomes, by item, user, category, surface or
//! several of them together.
//!
//! With impressions `n = Σ 2^(-(t - t_i) / h)`, outcomes `c` likewise, half-life `h`, the overall rate `r` of the task and smoothing
//! `k`, a counter is read as `ln((c + k r) / (n - c + k (1 - r)) / (r / (1 - r)))`: smoothed log-odds beside the overall ones, 0 where
//! nothing is known. Where it matters how much there was, not how often (what a user is after just now), a counter is read as
//! `ln(1 + c)` or `c / (1 + c)`. On sparse tasks such counters beat embeddings alone.
//!
//! With `c = Σ 2^(-(t - t_i) / h) ln(1 + x_i)` for a number `x` of the item that is shown, the counter is read as `ln(1 + x) - c / n`: a price
//! beside the usual one of its category; 0 where nothing was shown yet.
//!
//! Read as of an impression's time, a counter holds what was known strictly before it: an impression from its own time on, an outcome from the
//! outcome's, although both decay from the impression's. What cannot be told any more is missing (the page of `decayed`).
//!
//! Counters by the same subjects with the same half-life share their entries (impressions once, outcomes by task), and all of one
//! half-life share the overall counts and what an event weighs: it costs one look for each such group and one power for each half-life.

mod decayed;
mod group;
mod overall;
mod weight;

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;
use crate::schema::{Counter, Reading};
use crate::time::{EventTime, Span};
use decayed::{Added, Progress};
use group::{Group, Read};
use overall::Overall;
use weight::Weight;

/// Entries that are looked up before the first of them is read, so that the processor waits for their memory together.
const LOOKS: usize = 8;

/// What a counter counts by, as of one impression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subjects {
    /// The item.
    pub item: u64,
    /// The user.
    pub user: u64,
    /// The item's category, if it has one.
    pub category: Option<u64>,
    /// The surface, if it is known.
    pub surface: Option<u64>,
}

/// All counters of a schema. A copy costs little and stays as it is ([`crate::pages`]).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Counters {
    counters: Vec<Counter>,
    /// Half-life and group of each counter.
    places: Vec<(usize, usize)>,
    half_lives: Vec<HalfLife>,
    progress: Progress,
    most: usize,
}

/// The counters of one half-life.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct HalfLife {
    length: Span,
    overall: Overall,
    /// The tasks whose overall rates are read.
    rated: Vec<usize>,
    groups: Vec<Group>,
}

impl Counters {
    /// Creates empty counters, each with at most `most` entries.
    pub fn new(counters: &[Counter], most: usize) -> Self {
        let mut new = Self {
            counters: counters.to_vec(),
            places: vec![],
            half_lives: vec![],
            progress: Progress { newest: EventTime::MAX, horizon: EventTime::MIN },
            most: most.max(1),
        };
        for (number, counter) in counters.iter().enumerate() {
            new.add_counter(number, counter);
        }
        new
    }

    /// Takes note of how far event time has come: the newest plausible time of any partition, and the lowest watermark of all that have
    /// begun, before which no impression in time comes.
    pub fn advance(&mut self, newest: EventTime, horizon: EventTime) {
        self.progress = Progress { newest, horizon: self.progress.horizon.max(horizon) };
    }

    /// Counts an impression of an item with these features for all counters.
    pub fn impression(&mut self, subjects: &Subjects, item: Option<&Attributes>, time: EventTime) {
        for HalfLife { length, overall, groups, .. } in &mut self.half_lives {
            let weight = Weight::of(*length, time);
            let shown = Added { place: 0, amount: 1.0, shown: weight, known: time };
            overall.add(*length, shown, self.progress);
            for group in groups {
                let Some(amount) = group.amount(item) else { continue };
                let added = [shown, Added { place: 1, amount, ..shown }];
                let added = if amount > 0.0 { &added[..] } else { &added[..1] };
                group.add(*length, subjects, added, self.progress, self.most);
            }
        }
    }

    /// Tells whether any counter looks at the features of items.
    pub fn look_at_items(&self) -> bool {
        self.groups().any(Group::looks_at_items)
    }

    /// Counts an outcome of a task, which became known at `known`. `shown` is the time of the impression, from which both decay alike.
    pub fn outcome(
        &mut self,
        task: usize,
        subjects: &Subjects,
        shown: EventTime,
        known: EventTime,
    ) {
        for HalfLife { length, overall, groups, .. } in &mut self.half_lives {
            let place = 1 + task;
            let added = Added { place, amount: 1.0, shown: Weight::of(*length, shown), known };
            overall.add(*length, added, self.progress);
            for group in groups {
                if let Some(place) = group.place_of(task) {
                    let added = Added { place: 1 + place, ..added };
                    group.add(*length, subjects, &[added], self.progress, self.most);
                }
            }
        }
    }

    /// Calls `see` with each counter and the number that the model reads of it (see the module's page) for an item with these features,
    /// `None` where a subject or the item's number is missing; in the order of the groups, not of the counters. Returns false where something was
    /// counted that cannot be told any more as of the time: those counters are missing too.
    pub fn read_all(
        &self,
        subjects: &Subjects,
        item: Option<&Attributes>,
        time: EventTime,
        mut see: impl FnMut(usize, Option<f32>),
    ) -> bool {
        let mut told = true;
        for HalfLife { length, overall, rated, groups } in &self.half_lives {
            let now = Weight::of(*length, time);
            let rates = overall.rates(rated, now, time);
            for groups in groups.chunks(LOOKS) {
                let mut found = [None; LOOKS];
                for (group, found) in groups.iter().zip(&mut found) {
                    *found = group.find(subjects);
                }
                for (group, found) in groups.iter().zip(found) {
                    let amount = group.amount(item);
                    let found = found.filter(|_| amount.is_some());
                    told &= group.read(found, rates.as_ref(), amount, (now, time), &mut see);
                }
            }
        }
        told
    }

    /// Returns the number that the model reads of one counter, `None` where it is missing or there is no such counter.
    pub fn read(
        &self,
        counter: usize,
        subjects: &Subjects,
        item: Option<&Attributes>,
        time: EventTime,
    ) -> Option<f32> {
        let (half_life, group) = *self.places.get(counter)?;
        let HalfLife { length, overall, rated, groups } = &self.half_lives[half_life];
        let (now, group) = (Weight::of(*length, time), &groups[group]);
        let amount = group.amount(item);
        let found = group.find(subjects).filter(|_| amount.is_some());
        let rates = overall.rates(rated, now, time);
        let mut number = None;
        group.read(found, rates.as_ref(), amount, (now, time), &mut |member, read| {
            if member == counter {
                number = read;
            }
        });
        number
    }

    /// Tells whether these are the counters of a schema.
    pub fn count_by(&self, counters: &[Counter]) -> bool {
        self.counters == counters
    }

    /// Returns how many entries there are.
    pub fn len(&self) -> usize {
        self.groups().map(Group::len).sum()
    }

    /// Tells whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many counts were refused because their counter was full.
    pub fn refused(&self) -> u64 {
        self.groups().map(Group::refused).sum()
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        self.half_lives.iter().flat_map(|half_life| &half_life.groups)
    }

    fn add_counter(&mut self, number: usize, counter: &Counter) {
        let length = counter.half_life;
        let known = self.half_lives.iter().position(|half_life| half_life.length == length);
        let at = known.unwrap_or_else(|| {
            let (rated, groups) = Default::default();
            self.half_lives.push(HalfLife { length, overall: Overall::new(), rated, groups });
            self.half_lives.len() - 1
        });
        let HalfLife { rated, groups, .. } = &mut self.half_lives[at];
        let (read, beside) = match counter.read {
            Reading::LogOdds => (Read::LogOdds, None),
            Reading::Count => (Read::Count, None),
            Reading::Any => (Read::Any, None),
            Reading::Beside(key) => (Read::Beside, Some(key)),
        };
        if matches!(read, Read::LogOdds) && !rated.contains(&counter.task) {
            rated.push(counter.task);
        }
        let fits = |group: &Group| group.fits(&counter.by, counter.task, beside);
        let place = groups.iter().position(fits).unwrap_or(groups.len());
        if place == groups.len() {
            groups.push(Group::new(counter.by.clone(), beside));
        }
        groups[place].join(number, counter.task, counter.smoothing, read);
        self.places.push((at, place));
    }
}

#[cfg(test)]
mod tests;
