//! Counters that share their entries: those by the same subjects, with the same half-life.

use serde::{Deserialize, Serialize};

use super::Subjects;
use super::overall::{Rate, decay};
use crate::attributes::{AttributeKey, Attributes};
use crate::ids::salted_key;
use crate::pages::PagedMap;
use crate::schema::Subject;
use crate::time::{EventTime, Span};

/// Tasks that share an entry; counters of further tasks get entries of their own, or all entries would be larger.
const TASKS: usize = 3;
/// Counts below this are forgotten by a sweep.
const NEGLIGIBLE: f64 = 0.02;
/// The fewest new keys between two sweeps.
const SWEEP: usize = 1024;

/// Counts by one key.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Entry {
    time: EventTime,
    impressions: f64,
    /// By the places of [`Group::tasks`].
    outcomes: [f64; TASKS],
}

/// Counters by the same subjects, with the same half-life, of at most [`TASKS`] tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Group {
    by: Vec<Subject>,
    half_life: Span,
    /// Index of the overall counts of this half-life.
    pub(super) overall: usize,
    /// The number of the item whose logarithms are added up in place of outcomes; then there is one counter.
    beside: Option<AttributeKey>,
    tasks: Vec<usize>,
    members: Vec<Member>,
    entries: PagedMap<Entry>,
    /// New keys until the next sweep.
    until_sweep: usize,
    refused: u64,
}

/// One counter of a group.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Member {
    counter: usize,
    /// Place of its task in the group.
    task: usize,
    smoothing: f64,
    read: Read,
}

/// What is read of an entry.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Read {
    /// Log-odds beside those of the rate at a place of the overall counts.
    LogOdds(usize),
    Count,
    Any,
    Beside,
}

/// What an event adds to an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Added {
    pub(super) impressions: f64,
    /// Place of the task in the group.
    pub(super) task: usize,
    pub(super) outcomes: f64,
}

impl Entry {
    /// Moves on to a time. Returns what a count of that time is worth: one that comes late as little as had it come in time.
    fn reach(&mut self, half_life: Span, time: EventTime) -> f64 {
        if time < self.time {
            return decay(half_life, self.time - time);
        }
        let kept = decay(half_life, time - self.time);
        self.time = time;
        self.impressions *= kept;
        self.outcomes.iter_mut().for_each(|outcomes| *outcomes *= kept);
        1.0
    }

    fn count(&mut self, added: Added, worth: f64) {
        self.impressions += added.impressions * worth;
        self.outcomes[added.task] += added.outcomes * worth;
    }

    /// Returns what its counts are still worth at a time.
    fn worth(&self, half_life: Span, time: EventTime) -> f64 {
        if time > self.time { decay(half_life, time - self.time) } else { 1.0 }
    }
}

impl Group {
    /// No counter and no entry yet. `overall` is the index of the overall counts.
    pub(super) fn new(
        by: Vec<Subject>,
        half_life: Span,
        overall: usize,
        beside: Option<AttributeKey>,
    ) -> Self {
        let (tasks, members, entries) = Default::default();
        Self {
            by,
            half_life,
            overall,
            beside,
            tasks,
            members,
            entries,
            until_sweep: SWEEP,
            refused: 0,
        }
    }

    /// Tells whether such a counter may share the entries.
    pub(super) fn fits(
        &self,
        by: &[Subject],
        half_life: Span,
        task: usize,
        beside: Option<AttributeKey>,
    ) -> bool {
        let room = self.tasks.len() < TASKS || self.tasks.contains(&task);
        let counted = self.beside.is_none() && beside.is_none();
        counted && self.by == by && self.half_life == half_life && room
    }

    /// Adds a counter of a task.
    pub(super) fn join(&mut self, counter: usize, task: usize, smoothing: f32, read: Read) {
        let known = self.tasks.iter().position(|known| *known == task);
        let place = known.unwrap_or_else(|| {
            self.tasks.push(task);
            self.tasks.len() - 1
        });
        self.members.push(Member { counter, task: place, smoothing: smoothing.into(), read });
    }

    /// Tells whether a counter is one of this group.
    pub(super) fn has(&self, counter: usize) -> bool {
        self.members.iter().any(|member| member.counter == counter)
    }

    /// Tells whether it counts a number of items in place of outcomes.
    pub(super) fn looks_at_items(&self) -> bool {
        self.beside.is_some()
    }

    /// Returns the place of a task whose outcomes are counted.
    pub(super) fn place_of(&self, task: usize) -> Option<usize> {
        let place = self.tasks.iter().position(|known| *known == task);
        place.filter(|_| self.beside.is_none())
    }

    /// Returns how many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns how many counts were refused for want of room.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Returns the entry of the subjects: `None` where one of these is missing, `Some(None)` where nothing was counted.
    pub(super) fn find(&self, subjects: &Subjects) -> Option<Option<&Entry>> {
        key(&self.by, subjects).map(|key| self.entries.get(key))
    }

    /// Returns what an impression of an item adds beside itself: `ln(1 + x)` of the item's number that the group is about (a negative one
    /// counts as 0), `None` where the item has none; 0 where outcomes are counted.
    pub(super) fn amount(&self, item: Option<&Attributes>) -> Option<f64> {
        let Some(key) = self.beside else { return Some(0.0) };
        Some(item?.get(key)?.number()?.max(0.0).ln_1p())
    }

    /// Reads all members of an entry; `found` is `None` where a subject or the amount is missing, and `Some(None)` where nothing was counted.
    pub(super) fn read(
        &self,
        found: Option<Option<&Entry>>,
        rates: &[Rate],
        amount: Option<f64>,
        time: EventTime,
        see: &mut impl FnMut(usize, Option<f32>),
    ) {
        let Some(Some(entry)) = found else {
            let nothing = found.map(|_| 0.0);
            return self.members.iter().for_each(|member| see(member.counter, nothing));
        };
        let worth = entry.worth(self.half_life, time);
        let n = entry.impressions * worth;
        for member in &self.members {
            let outcomes = entry.outcomes[member.task];
            let c = outcomes * worth;
            let number = match member.read {
                Read::LogOdds(place) => rates[place].odds_beside(n, c, member.smoothing),
                Read::Count => c.ln_1p(),
                Read::Any => c / (1.0 + c),
                // Both sums fade alike, so their quotient does not.
                Read::Beside => amount.unwrap_or(0.0) - outcomes / entry.impressions.max(1e-9),
            };
            see(member.counter, Some(number as f32));
        }
    }

    pub(super) fn add(
        &mut self,
        subjects: &Subjects,
        time: EventTime,
        added: Added,
        now: EventTime,
        most: usize,
    ) {
        let Some(key) = key(&self.by, subjects) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(key) {
            let worth = entry.reach(self.half_life, time);
            entry.count(added, worth);
            return;
        }
        self.until_sweep -= 1;
        if self.until_sweep == 0 {
            self.sweep(now);
        }
        if self.entries.len() >= most {
            self.refused += 1;
            return;
        }
        let mut entry = Entry { time, ..Entry::default() };
        entry.count(added, 1.0);
        self.entries.insert(key, entry);
    }

    /// Forgets negligible entries. The next sweep comes after as many new keys as there are entries, so it costs O(1) a key.
    fn sweep(&mut self, now: EventTime) {
        let half_life = self.half_life;
        self.entries.retain(|_, entry| {
            let outcomes = entry.outcomes.iter().copied().fold(0.0, f64::max);
            (entry.impressions + outcomes) * entry.worth(half_life, now) >= NEGLIGIBLE
        });
        self.until_sweep = self.entries.len().max(SWEEP);
    }
}

/// Returns the key of a counter's subjects, `None` where one is missing.
fn key(by: &[Subject], subjects: &Subjects) -> Option<u64> {
    let mut key = 0;
    for subject in by {
        let id = match subject {
            Subject::Item => subjects.item,
            Subject::User => subjects.user,
            Subject::Category => subjects.category?,
            Subject::Surface => subjects.surface?,
        };
        key = salted_key(key, id);
    }
    Some(key)
}
