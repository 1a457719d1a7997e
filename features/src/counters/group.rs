//! Counters that share their entries: those by the same subjects, with the same half-life.

use serde::{Deserialize, Serialize};

use super::as_of::AsOf;
use super::decayed::Decayed;
use super::room::Room;
use crate::attributes::{AttributeKey, Attributes};
use crate::pages::PagedVec;

/// Tasks that share an entry; counters of further tasks get entries of their own, or all entries would be larger.
const TASKS: usize = 3;
/// Entries that are copied together while a checkpoint is being written.
const PAGE: usize = 128;

/// Counts by one key: impressions, then outcomes by the places of [`Group::tasks`].
pub(super) type Entry = Decayed<{ 1 + TASKS }>;

/// What stands where nothing was counted.
static NOTHING: Entry = Entry::new();

/// Counters by the same subjects, with the same half-life, of at most [`TASKS`] tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Group {
    /// Which half-life.
    pub(super) half_life: usize,
    /// The number of the item whose logarithms are added up in place of outcomes; then there is one counter.
    beside: Option<AttributeKey>,
    tasks: Vec<usize>,
    members: Vec<Member>,
    entries: PagedVec<Entry, PAGE>,
    /// Places of entries that have ended.
    free: Vec<u32>,
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
    /// Log-odds beside those of the overall rate at this place.
    LogOdds(usize),
    Count,
    Any,
    Beside,
}

impl Group {
    /// No counter and no entry yet.
    pub(super) fn new(half_life: usize, beside: Option<AttributeKey>) -> Self {
        let (tasks, members, entries, free) = Default::default();
        Self { half_life, beside, tasks, members, entries, free, refused: 0 }
    }

    /// Tells whether such a counter may share the entries.
    pub(super) fn fits(&self, half_life: usize, task: usize, beside: Option<AttributeKey>) -> bool {
        let room = self.tasks.len() < TASKS || self.tasks.contains(&task);
        let counted = self.beside.is_none() && beside.is_none();
        counted && self.half_life == half_life && room
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
        self.entries.len() - self.free.len()
    }

    /// Returns how many entries were refused for want of room.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Returns how many places of entries there are, free ones among them.
    pub(super) fn places(&self) -> usize {
        self.entries.len()
    }

    /// Returns about how many bytes the entries take.
    pub(super) fn memory(&self) -> usize {
        self.places() * size_of::<Entry>() + self.free.capacity() * size_of::<u32>()
    }

    /// Begins an entry and returns its place, `None` where there is no room: then it is counted.
    pub(super) fn begin(&mut self, room: &mut Room) -> Option<u32> {
        if let Some(place) = self.free.pop() {
            return Some(place);
        }
        if !room.take(self.places()) {
            self.refused += 1;
            return None;
        }
        self.entries.push(Entry::new());
        Some(self.entries.len() as u32 - 1)
    }

    /// Returns the entry at a place, to add to it.
    pub(super) fn entry(&mut self, place: u32) -> &mut Entry {
        &mut self.entries[place as usize]
    }

    /// Ends the entry at a place.
    pub(super) fn end(&mut self, place: u32) {
        self.entries[place as usize] = Entry::new();
        self.free.push(place);
    }

    /// Orders the free places, after entries ended in an order that the seed of a map decides: the lowest is used first.
    pub(super) fn settle(&mut self) {
        self.free.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// Returns what an impression of an item adds beside itself: `ln(1 + x)` of the item's number that the group is about (a negative one
    /// counts as 0), `None` where the item has none; 0 where outcomes are counted.
    pub(super) fn amount(&self, item: Option<&Attributes>) -> Option<f64> {
        let Some(key) = self.beside else { return Some(0.0) };
        Some(item?.get(key)?.number()?.max(0.0).ln_1p())
    }

    /// Reads all members of an entry as of a time; `place` is `None` where a subject is missing, and `Some(None)` where nothing was counted.
    /// Returns false where what was counted cannot be told any more: then it is missing.
    pub(super) fn read(
        &self,
        place: Option<Option<u32>>,
        item: Option<&Attributes>,
        as_of: &AsOf<'_>,
        see: &mut impl FnMut(usize, Option<f32>),
    ) -> bool {
        let (Some(place), Some(amount)) = (place, self.amount(item)) else {
            self.members.iter().for_each(|member| see(member.counter, None));
            return true;
        };
        let entry = place.map_or(&NOTHING, |place| &self.entries[place as usize]);
        let Some(sums) = entry.read(as_of.weight(self.half_life), as_of.time) else {
            self.members.iter().for_each(|member| see(member.counter, None));
            return false;
        };
        let mut told = true;
        let n = sums.sum(0);
        for member in &self.members {
            let c = sums.sum(1 + member.task);
            let number = match member.read {
                Read::LogOdds(rate) => {
                    let rate = as_of.rate(rate);
                    told &= rate.is_some();
                    rate.map(|rate| rate.odds_beside(n, c, member.smoothing))
                }
                Read::Count => Some(c.ln_1p()),
                Read::Any => Some(c / (1.0 + c)),
                // Both sums fade alike, so their quotient does not.
                Read::Beside if n > 0.0 => Some(amount - c / n),
                Read::Beside => Some(0.0),
            };
            see(member.counter, number.map(|number| number as f32));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_less_than_a_cache_line_and_a_half() {
        assert_eq!(size_of::<Entry>(), 88);
    }
}
