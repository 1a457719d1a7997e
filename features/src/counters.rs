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
//! half-life share the overall counts: an event costs one look and one power for each such group, not for each counter.

mod decayed;
mod group;
mod overall;

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;
use crate::schema::{Counter, Reading};
use crate::time::EventTime;
use decayed::{Added, Progress};
use group::{Group, Read};
use overall::{Overall, Rates};

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
    groups: Vec<Group>,
    overall: Vec<Overall>,
    progress: Progress,
    most: usize,
}

impl Counters {
    /// Creates empty counters, each with at most `most` entries.
    pub fn new(counters: &[Counter], most: usize) -> Self {
        let mut new = Self {
            counters: counters.to_vec(),
            groups: vec![],
            overall: vec![],
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
        for overall in &mut self.overall {
            overall.impression(time, self.progress);
        }
        for group in &mut self.groups {
            let Some(amount) = group.amount(item) else { continue };
            let shown = Added { place: 0, amount: 1.0, shown: time, known: time };
            let beside = Added { place: 1, amount, ..shown };
            let added = [shown, beside];
            let added = if amount > 0.0 { &added[..] } else { &added[..1] };
            group.add(subjects, added, self.progress, self.most);
        }
    }

    /// Tells whether any counter looks at the features of items.
    pub fn look_at_items(&self) -> bool {
        self.groups.iter().any(Group::looks_at_items)
    }

    /// Counts an outcome of a task, which became known at `known`. `shown` is the time of the impression, from which both decay alike.
    pub fn outcome(
        &mut self,
        task: usize,
        subjects: &Subjects,
        shown: EventTime,
        known: EventTime,
    ) {
        for overall in &mut self.overall {
            overall.outcome(task, shown, known, self.progress);
        }
        for group in &mut self.groups {
            if let Some(place) = group.place_of(task) {
                let added = Added { place: 1 + place, amount: 1.0, shown, known };
                group.add(subjects, &[added], self.progress, self.most);
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
        let mut rates: Option<(usize, Option<Rates>)> = None;
        for groups in self.groups.chunks(LOOKS) {
            let mut found = [None; LOOKS];
            for (group, found) in groups.iter().zip(&mut found) {
                *found = group.find(subjects);
            }
            for (group, found) in groups.iter().zip(found) {
                if rates.as_ref().is_none_or(|(overall, _)| *overall != group.overall) {
                    rates = Some((group.overall, self.overall[group.overall].rates(time)));
                }
                let rates = rates.as_ref().and_then(|(_, rates)| rates.as_ref());
                let amount = group.amount(item);
                let found = found.filter(|_| amount.is_some());
                told &= group.read(found, rates, amount, time, &mut see);
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
        let group = self.groups.iter().find(|group| group.has(counter))?;
        let amount = group.amount(item);
        let found = group.find(subjects).filter(|_| amount.is_some());
        let rates = self.overall[group.overall].rates(time);
        let mut number = None;
        group.read(found, rates.as_ref(), amount, time, &mut |member, read| {
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
        self.groups.iter().map(Group::len).sum()
    }

    /// Tells whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many counts were refused because their counter was full.
    pub fn refused(&self) -> u64 {
        self.groups.iter().map(Group::refused).sum()
    }

    fn add_counter(&mut self, number: usize, counter: &Counter) {
        let half_life = counter.half_life;
        let known = self.overall.iter().position(|overall| overall.half_life == half_life);
        let at = known.unwrap_or(self.overall.len());
        if known.is_none() {
            self.overall.push(Overall::new(half_life));
        }
        let (read, beside) = match counter.read {
            Reading::LogOdds => (Read::LogOdds, None),
            Reading::Count => (Read::Count, None),
            Reading::Any => (Read::Any, None),
            Reading::Beside(key) => (Read::Beside, Some(key)),
        };
        let fits = |group: &Group| group.fits(&counter.by, half_life, counter.task, beside);
        let place = self.groups.iter().position(fits).unwrap_or(self.groups.len());
        if place == self.groups.len() {
            self.groups.push(Group::new(counter.by.clone(), half_life, at, beside));
        }
        self.groups[place].join(number, counter.task, counter.smoothing, read);
    }
}

#[cfg(test)]
mod tests;
