//! Outcomes that came before their impression: they wait by the impression that they name, or by user and item, each as long as the window
//! of its task. Beyond that no impression that it could turn a label of can come any more: that label would be closed already.
//!
//! All orders are trees, so whatever waits for one user and item, and however much, an outcome is found and taken out in O(log n).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::Outcome;
use crate::ids::{EventId, ItemId, UserId, pair_key};
use crate::pages::PagedSlab;
use crate::time::{EventTime, Span};

/// Outcomes that are copied together where a checkpoint is being written.
const PAGE: usize = 32;

/// Parts of users and tasks for which it is known apart up to when outcomes were given up for want of room.
const PARTS: usize = 1024;

/// For what an outcome waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Awaited {
    /// The impression that it names.
    Named(UserId, EventId),
    /// Any impression of this user and item.
    Any(UserId, ItemId),
}

/// Bytes of a waiting outcome, with its places in two trees, whose nodes are two thirds full.
pub const WAITING_BYTES: usize =
    size_of::<Waiting>() + (size_of::<(Key, u32)>() + size_of::<(EventTime, u64, u32)>()) * 3 / 2;

/// What the waiting outcomes are found by: for what they wait, task, time, number in the order of arrival.
type Key = (Awaited, u8, EventTime, u64);

/// A waiting outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Waiting {
    pub(super) outcome: Outcome,
    /// The watermark had passed its time when it came, so its impression may have closed before.
    pub(super) behind: bool,
    /// Its number in the order of arrival.
    pub(super) arrival: u64,
}

impl Waiting {
    fn key(&self) -> Key {
        let Outcome { user, item, impression, kind, time, .. } = self.outcome;
        let awaited = impression.map_or(Awaited::Any(user, item), |id| Awaited::Named(user, id));
        (awaited, kind.0, time, self.arrival)
    }
}

/// The waiting outcomes of a shard.
#[derive(Clone, Debug)]
pub(super) struct Early {
    outcomes: PagedSlab<Waiting, PAGE>,
    places: BTreeMap<Key, u32>,
    /// Places by the end of waiting and the number in the order of arrival.
    deadlines: BTreeMap<(EventTime, u64), u32>,
    /// How long the outcomes of each task wait.
    windows: Vec<Span>,
    most: usize,
    /// The newest time of outcomes that were given up for want of room, by part; empty before the first.
    lost: Vec<EventTime>,
}

impl Early {
    /// Creates an empty buffer of so many bytes, at least one outcome.
    pub(super) fn new(windows: Vec<Span>, most_bytes: usize) -> Self {
        Self {
            outcomes: PagedSlab::new(),
            places: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            windows,
            most: (most_bytes / WAITING_BYTES).max(1),
            lost: Vec::new(),
        }
    }

    /// Lets an outcome wait. Returns one that must go because there are too many.
    pub(super) fn push(&mut self, waiting: Waiting) -> Option<Waiting> {
        let deadline = (self.deadline(&waiting.outcome), waiting.arrival);
        let place = u32::try_from(self.outcomes.insert(waiting)).unwrap_or(u32::MAX);
        self.places.insert(waiting.key(), place);
        self.deadlines.insert(deadline, place);
        if self.outcomes.len() > self.most { self.overflow() } else { None }
    }

    /// Removes and returns the outcome with the least time left, for want of room.
    pub(super) fn overflow(&mut self) -> Option<Waiting> {
        let gone = self.pop_before(EventTime::MAX)?;
        if self.lost.is_empty() {
            self.lost.resize(PARTS, EventTime::MIN);
        }
        let Outcome { user, kind, time, .. } = gone.outcome;
        let lost = &mut self.lost[part(user, usize::from(kind.0))];
        *lost = time.max(*lost);
        Some(gone)
    }

    /// Tells whether an outcome of this task was given up for want of room that an impression of this time may have been waiting for.
    pub(super) fn may_have_lost(&self, user: UserId, task: usize, time: EventTime) -> bool {
        !self.lost.is_empty() && time <= self.lost[part(user, task)]
    }

    /// Tells whether an outcome can have no impression any more at this watermark.
    pub(super) fn is_over(&self, outcome: &Outcome, watermark: EventTime) -> bool {
        self.deadline(outcome) < watermark
    }

    /// Removes and returns the outcome with the earliest deadline, if that is strictly before the watermark.
    pub(super) fn pop_before(&mut self, watermark: EventTime) -> Option<Waiting> {
        let (_, &place) = self.deadlines.first_key_value().filter(|(key, _)| key.0 < watermark)?;
        Some(self.remove(place))
    }

    /// Tells whether an outcome is to be given up at this watermark.
    pub(super) fn is_due(&self, watermark: EventTime) -> bool {
        self.deadlines.first_key_value().is_some_and(|(key, _)| key.0 < watermark)
    }

    /// Removes the outcomes that name an impression.
    pub(super) fn take_named(&mut self, user: UserId, id: EventId, found: &mut Vec<Waiting>) {
        let awaited = Awaited::Named(user, id);
        self.take(first(awaited)..=last(awaited, u8::MAX, EventTime::MAX), found);
    }

    /// Tells whether outcomes without a name wait for an impression of this user and item.
    pub(super) fn awaits(&self, user: UserId, item: ItemId) -> bool {
        let awaited = Awaited::Any(user, item);
        let all = first(awaited)..=last(awaited, u8::MAX, EventTime::MAX);
        !self.places.is_empty() && self.places.range(all).next().is_some()
    }

    /// Removes the outcomes of a task without a name that wait for an impression of this user and item, from the first time to the last.
    pub(super) fn take_any(
        &mut self,
        user: UserId,
        item: ItemId,
        task: usize,
        times: RangeInclusive<EventTime>,
        found: &mut Vec<Waiting>,
    ) {
        let (awaited, kind) = (Awaited::Any(user, item), u8::try_from(task).unwrap_or(u8::MAX));
        self.take((awaited, kind, *times.start(), 0)..=last(awaited, kind, *times.end()), found);
    }

    /// Returns about how many bytes the outcomes take.
    pub(super) fn memory(&self) -> usize {
        self.outcomes.len() * WAITING_BYTES
    }

    /// Returns the waiting outcomes as they are now.
    pub(super) fn picture(&self) -> EarlyPicture {
        EarlyPicture { outcomes: self.outcomes.clone(), lost: self.lost.clone() }
    }

    /// Puts back up to when outcomes were given up for want of room.
    pub(super) fn restore_lost(&mut self, lost: Vec<EventTime>) {
        if lost.len() == PARTS {
            self.lost = lost;
        }
    }

    fn deadline(&self, outcome: &Outcome) -> EventTime {
        outcome.time + self.windows[usize::from(outcome.kind.0)]
    }

    fn take(&mut self, keys: RangeInclusive<Key>, found: &mut Vec<Waiting>) {
        while let Some((_, &place)) = self.places.range(keys.clone()).next() {
            found.push(self.remove(place));
        }
    }

    fn remove(&mut self, place: u32) -> Waiting {
        let waiting = self.outcomes.remove(place as usize);
        self.places.remove(&waiting.key());
        self.deadlines.remove(&(self.deadline(&waiting.outcome), waiting.arrival));
        waiting
    }
}

fn first(awaited: Awaited) -> Key {
    (awaited, 0, EventTime::MIN, 0)
}

fn last(awaited: Awaited, kind: u8, time: EventTime) -> Key {
    (awaited, kind, time, u64::MAX)
}

/// The part of a user and a task, by the stable hash: what is masked must not differ from run to run.
fn part(user: UserId, task: usize) -> usize {
    pair_key(user.0, task as u64) as usize % PARTS
}

/// The waiting outcomes as they were.
#[derive(Clone, Debug)]
pub(super) struct EarlyPicture {
    outcomes: PagedSlab<Waiting, PAGE>,
    lost: Vec<EventTime>,
}

impl EarlyPicture {
    /// Returns the outcomes in the order of arrival, and up to when some were given up for want of room.
    pub(super) fn state(&self) -> (Vec<Waiting>, Vec<EventTime>) {
        let mut state: Vec<Waiting> = self.outcomes.iter().map(|(_, waiting)| *waiting).collect();
        state.sort_unstable_by_key(|waiting| waiting.arrival);
        (state, self.lost.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::BehaviourType;

    fn waiting(arrival: u64, item: u64, time: i64) -> Waiting {
        let outcome = Outcome {
            id: EventId(arrival + 1),
            kind: BehaviourType(0),
            user: UserId(1),
            item: ItemId(item),
            time: EventTime(time),
            impression: None,
        };
        Waiting { outcome, behind: false, arrival }
    }

    fn early(most: usize) -> Early {
        let mut early = Early::new(vec![Span(10)], most * WAITING_BYTES);
        for (arrival, (item, time)) in [(7, 5), (7, 3), (8, 4), (7, 9)].into_iter().enumerate() {
            assert_eq!(early.push(waiting(arrival as u64, item, time)), None);
        }
        early
    }

    fn take(early: &mut Early, times: RangeInclusive<i64>) -> Vec<i64> {
        let times = EventTime(*times.start())..=EventTime(*times.end());
        let mut found = Vec::new();
        early.take_any(UserId(1), ItemId(7), 0, times, &mut found);
        found.iter().map(|waiting| waiting.outcome.time.0).collect()
    }

    #[test]
    fn outcomes_leave_in_the_order_of_their_deadlines_strictly_before_the_watermark() {
        let mut early = early(9);
        assert_eq!(early.pop_before(EventTime(13)), None);
        assert!(!early.is_due(EventTime(13)) && early.is_due(EventTime(14)));
        let mut times = Vec::new();
        while let Some(waiting) = early.pop_before(EventTime(16)) {
            times.push(waiting.outcome.time.0);
        }
        assert_eq!(times, [3, 4, 5]);
        assert_eq!(early.picture().state().0, [waiting(3, 7, 9)]);
    }

    #[test]
    fn an_impression_takes_its_own_from_any_part_of_the_order() {
        let mut early = early(9);
        assert_eq!(take(&mut early, 4..=8), [5]);
        assert_eq!(early.push(waiting(4, 7, 1)), None);
        assert_eq!(take(&mut early, 0..=100), [1, 3, 9]);
        assert!(!early.awaits(UserId(1), ItemId(7)) && early.awaits(UserId(1), ItemId(8)));
        assert_eq!(early.pop_before(EventTime::MAX), Some(waiting(2, 8, 4)));
        assert_eq!(early.pop_before(EventTime::MAX), None);
        assert!(early.places.is_empty() && early.memory() == 0);
    }

    #[test]
    fn what_names_an_impression_is_taken_whatever_its_time() {
        let mut early = early(9);
        let mut named = waiting(4, 7, 77);
        named.outcome.impression = Some(EventId(7));
        assert_eq!(early.push(named), None);
        let mut found = Vec::new();
        early.take_named(UserId(1), EventId(7), &mut found);
        assert_eq!(found, [named]);
        assert_eq!(take(&mut early, 0..=100), [3, 5, 9], "an item is no impression");
    }

    #[test]
    fn a_full_buffer_gives_up_the_outcome_with_the_least_time_left_and_knows_it() {
        let mut early = early(4);
        assert!(!early.may_have_lost(UserId(1), 0, EventTime(0)));
        assert_eq!(early.push(waiting(4, 9, 8)), Some(waiting(1, 7, 3)));
        assert_eq!(early.push(waiting(5, 9, 1)), Some(waiting(5, 9, 1)));
        let lost = |time| early.may_have_lost(UserId(1), 0, EventTime(time));
        assert_eq!([0, 3, 4].map(lost), [true, true, false]);
        assert!(!early.may_have_lost(UserId(2), 0, EventTime(0)));
    }
}
