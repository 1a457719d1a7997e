//! Counters that share their entries: those by the same subjects, with the same half-life.

use serde::{Deserialize, Serialize};

use super::Subjects;
use super::decayed::{Added, Decayed, Progress};
use super::overall::Rates;
use super::weight::Weight;
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

/// Counts by one key: impressions, then outcomes by the places of [`Group::tasks`].
pub(super) type Entry = Decayed<{ 1 + TASKS }>;

/// What stands where nothing was counted.
static NOTHING: Entry = Entry::new();

/// Counters by the same subjects, with the same half-life, of at most [`TASKS`] tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Group {
    by: Vec<Subject>,
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
    /// Log-odds beside those of the overall rate.
    LogOdds,
    Count,
    Any,
    Beside,
}

impl Group {
    /// No counter and no entry yet.
    pub(super) fn new(by: Vec<Subject>, beside: Option<AttributeKey>) -> Self {
        let (tasks, members, entries) = Default::default();
        Self { by, beside, tasks, members, entries, until_sweep: SWEEP, refused: 0 }
    }

    /// Tells whether such a counter may share the entries.
    pub(super) fn fits(&self, by: &[Subject], task: usize, beside: Option<AttributeKey>) -> bool {
        let room = self.tasks.len() < TASKS || self.tasks.contains(&task);
        let counted = self.beside.is_none() && beside.is_none();
        counted && self.by == by && room
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

    /// Reads all members of an entry as of a time, beside the overall rates as of it; `found` is `None` where a subject or the amount is missing,
    /// and `Some(None)` where nothing was counted. Returns false where what was counted cannot be told any more: then all are missing.
    pub(super) fn read(
        &self,
        found: Option<Option<&Entry>>,
        rates: Option<&Rates>,
        amount: Option<f64>,
        (now, time): (Weight, EventTime),
        see: &mut impl FnMut(usize, Option<f32>),
    ) -> bool {
        let Some(found) = found else {
            self.members.iter().for_each(|member| see(member.counter, None));
            return true;
        };
        let (Some(sums), Some(rates)) = (found.unwrap_or(&NOTHING).read(now, time), rates) else {
            self.members.iter().for_each(|member| see(member.counter, None));
            return false;
        };
        let n = sums.sum(0);
        for member in &self.members {
            let c = sums.sum(1 + member.task);
            let number = match member.read {
                Read::LogOdds => {
                    rates.of(self.tasks[member.task]).odds_beside(n, c, member.smoothing)
                }
                Read::Count => c.ln_1p(),
                Read::Any => c / (1.0 + c),
                // Both sums fade alike, so their quotient does not.
                Read::Beside if n > 0.0 => amount.unwrap_or(0.0) - c / n,
                Read::Beside => 0.0,
            };
            see(member.counter, Some(number as f32));
        }
        true
    }

    /// Adds to the sums of an entry. `place` and `amount` name what is added (see [`Entry`]).
    pub(super) fn add(
        &mut self,
        half_life: Span,
        subjects: &Subjects,
        added: &[Added],
        progress: Progress,
        most: usize,
    ) {
        let Some(key) = key(&self.by, subjects) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(key) {
            added.iter().for_each(|added| entry.add(half_life, *added, progress));
            return;
        }
        self.until_sweep -= 1;
        if self.until_sweep == 0 {
            self.sweep(Weight::of(half_life, progress.newest));
        }
        if self.entries.len() >= most {
            self.refused += 1;
            return;
        }
        let mut entry = Entry::new();
        added.iter().for_each(|added| entry.add(half_life, *added, progress));
        self.entries.insert(key, entry);
    }

    /// Forgets negligible entries. The next sweep comes after as many new keys as there are entries, so it costs O(1) a key.
    fn sweep(&mut self, now: Weight) {
        self.entries.retain(|_, entry| {
            let sums = entry.total(now);
            let outcomes = (1..=TASKS).map(|place| sums.sum(place)).fold(0.0, f64::max);
            sums.sum(0) + outcomes >= NEGLIGIBLE
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_and_its_key_take_no_more_than_a_cache_line_and_a_half() {
        assert_eq!(size_of::<(u64, Entry)>(), 96);
    }
}
