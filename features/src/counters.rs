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
//! Counters by the same subjects share a look, those with the same half-life also their entries (impressions once, outcomes by
//! task), and all of one half-life the overall counts and what an event weighs: a look for each kind of subjects and a power for each half-life.

mod as_of;
mod decayed;
mod group;
mod keyed;
mod overall;
mod room;
mod weight;

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;
use crate::schema::{Counter, Reading};
use crate::time::EventTime;
use as_of::{AsOf, Weights};
use decayed::{Added, Progress};
use group::{Entry, Group, Read};
use keyed::Keyed;
use overall::{HalfLife, Rated};
use room::Room;

/// Keys that are looked up before the first of them is read, so that the processor waits for their memory together.
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
    /// Which of `keyed`, and which group of it, by counter.
    places: Vec<(usize, usize)>,
    half_lives: Vec<HalfLife>,
    rated: Vec<Rated>,
    keyed: Vec<Keyed>,
    progress: Progress,
    most: usize,
}

impl Counters {
    /// Bytes of an entry with its place in the map, at most.
    pub const ENTRY_BYTES: usize = size_of::<Entry>() + Keyed::KEY_BYTES;

    /// Creates empty counters with at most `most` entries all together. Half of them are kept apart in even parts, one for each group, so that many
    /// users leave room for items; the other half is for whoever comes first.
    pub fn new(counters: &[Counter], most: usize) -> Self {
        let mut new = Self {
            counters: counters.to_vec(),
            places: vec![],
            half_lives: vec![],
            rated: vec![],
            keyed: vec![],
            progress: Progress { newest: EventTime::MAX, horizon: EventTime::MIN },
            most: most.max(1),
        };
        for (number, counter) in counters.iter().enumerate() {
            new.add_counter(number, counter);
        }
        new
    }

    /// The same with another bound. Where there are more entries they stay, and no new ones come.
    #[must_use]
    pub fn bounded(self, most: usize) -> Self {
        Self { most: most.max(1), ..self }
    }

    /// Takes note of how far event time has come: the newest plausible time of any partition, and the lowest watermark of all that have
    /// begun, before which no impression in time comes.
    pub fn advance(&mut self, newest: EventTime, horizon: EventTime) {
        self.progress = Progress { newest, horizon: self.progress.horizon.max(horizon) };
    }

    /// Counts an impression of an item with these features for all counters.
    pub fn impression(&mut self, subjects: &Subjects, item: Option<&Attributes>, time: EventTime) {
        let mut room = Room::new(self.groups(), self.most);
        let Self { half_lives, keyed, progress, .. } = self;
        let weights = Weights::new(half_lives, time);
        let added = |half_lives: &[HalfLife], half_life: usize| {
            let shown = weights.of(half_lives, half_life);
            Added { place: 0, amount: 1.0, shown, known: time }
        };
        for i in 0..half_lives.len() {
            let shown = added(half_lives, i);
            half_lives[i].add(shown, *progress);
        }
        for keyed in keyed {
            keyed.add(subjects, half_lives, (*progress, &mut room), |group| {
                let amount = group.amount(item)?;
                let shown = added(half_lives, group.half_life);
                Some([Some(shown), (amount > 0.0).then_some(Added { place: 1, amount, ..shown })])
            });
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
        let mut room = Room::new(self.groups(), self.most);
        let Self { half_lives, keyed, progress, .. } = self;
        let weights = Weights::new(half_lives, shown);
        let added = |half_lives: &[HalfLife], half_life: usize, place: usize| {
            let shown = weights.of(half_lives, half_life);
            Added { place: 1 + place, amount: 1.0, shown, known }
        };
        for i in 0..half_lives.len() {
            let outcome = added(half_lives, i, task);
            half_lives[i].add(outcome, *progress);
        }
        for keyed in keyed {
            keyed.add(subjects, half_lives, (*progress, &mut room), |group| {
                Some([Some(added(half_lives, group.half_life, group.place_of(task)?)), None])
            });
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
        let as_of = AsOf::new(&self.half_lives, &self.rated, time);
        let mut told = true;
        for keyed in self.keyed.chunks(LOOKS) {
            let mut found = [None; LOOKS];
            for (keyed, found) in keyed.iter().zip(&mut found) {
                *found = keyed.find(subjects);
            }
            for (keyed, found) in keyed.iter().zip(found) {
                told &= keyed.read(None, found, item, &as_of, &mut see);
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
        let (keyed, group) = *self.places.get(counter)?;
        let (keyed, mut number) = (&self.keyed[keyed], None);
        let as_of = AsOf::new(&self.half_lives, &self.rated, time);
        keyed.read(Some(group), keyed.find(subjects), item, &as_of, &mut |member, read| {
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

    /// Returns about how many bytes the entries take at most.
    pub fn memory(&self) -> usize {
        let entries: usize = self.groups().map(Group::memory).sum();
        entries + self.keyed.iter().map(Keyed::memory).sum::<usize>()
    }

    /// Returns how many counts of new keys were refused for want of room.
    pub fn refused(&self) -> u64 {
        self.groups().map(Group::refused).sum()
    }

    fn groups(&self) -> impl Iterator<Item = &Group> + Clone {
        self.keyed.iter().flat_map(|keyed| &keyed.groups)
    }

    fn add_counter(&mut self, number: usize, counter: &Counter) {
        let length = counter.half_life;
        let half_life = self.half_lives.iter().position(|known| known.length == length);
        let half_life = half_life.unwrap_or_else(|| {
            self.half_lives.push(HalfLife::new(length));
            self.half_lives.len() - 1
        });
        let (read, beside) = match counter.read {
            Reading::LogOdds => {
                let rated = Rated { half_life, task: counter.task };
                let known = self.rated.iter().position(|known| *known == rated);
                let rate = known.unwrap_or_else(|| {
                    self.rated.push(rated);
                    self.rated.len() - 1
                });
                (Read::LogOdds(rate), None)
            }
            Reading::Count => (Read::Count, None),
            Reading::Any => (Read::Any, None),
            Reading::Beside(key) => (Read::Beside, Some(key)),
        };
        let place = |keyed: &mut Keyed| keyed.place(&counter.by, half_life, counter.task, beside);
        let known =
            self.keyed.iter_mut().enumerate().find_map(|(i, keyed)| Some((i, place(keyed)?)));
        let (keyed, group) = known.unwrap_or_else(|| {
            self.keyed.push(Keyed::new(counter.by.clone()));
            let last = self.keyed.len() - 1;
            (last, place(&mut self.keyed[last]).unwrap_or_default())
        });
        self.keyed[keyed].groups[group].join(number, counter.task, counter.smoothing, read);
        self.places.push((keyed, group));
    }
}

#[cfg(test)]
mod tests;
