//! The behaviours of one user: full segments, oldest first, and an open tail.

use super::segment::{MOST, Segment};
use super::{Appended, Entry, Kinds};
use crate::maps::BLOCK;
use crate::time::EventTime;

/// How many behaviours of a full tail are packed; the rest stays open for those that come a little late.
const SEALED: usize = 224;
/// The distance between two places in order, so that segments between them find room.
const GAP: u64 = 1 << 32;

/// Returns how many behaviours are kept at most, wherever the horizon is: a robot may have any number within the longest window.
fn bound(most: usize) -> usize {
    most + most.max(4096)
}

/// Whether the store has a segment as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// It has it.
    Same,
    /// It has never seen it.
    New,
    /// It has an older state of it.
    Changed,
}

/// A segment and its place in the order of segments.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) place: u64,
    pub(super) stored: Stored,
    pub(super) segment: Segment,
}

/// The behaviours of one user.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) slots: Vec<Slot>,
    pub(super) tail: Vec<Entry>,
    /// Behaviours in slots and tail.
    count: usize,
    /// Bytes of all segments.
    packed: u32,
    /// The tail has changed since it was stored.
    pub(super) open: bool,
    /// The user is on the list of those with changes.
    pub(super) listed: bool,
}

impl History {
    /// Returns how many behaviours there are, at most `most`.
    pub(super) fn length(&self, most: usize) -> usize {
        self.count.min(most)
    }

    /// Adds a behaviour after all that are not later. `removed` gets the places of stored segments that are no more: those behind which `most`
    /// behaviours strictly before the horizon stand, or too many altogether.
    pub(super) fn append(
        &mut self,
        entry: Entry,
        most: usize,
        horizon: EventTime,
        room: &mut Vec<Entry>,
        removed: &mut impl FnMut(u64),
    ) -> Appended {
        let appended = if self.newest().is_none_or(|newest| newest <= entry.time) {
            self.tail.push(entry);
            self.open = true;
            Appended::InOrder
        } else if self.count >= most && self.is_too_old(entry.time, most, horizon) {
            return Appended::TooOld;
        } else {
            self.insert(entry, room, removed);
            Appended::Late
        };
        self.count += 1;
        let sealed = self.tail.len() >= MOST;
        if sealed {
            self.seal();
        }
        if self.count > most && (sealed || appended == Appended::Late) {
            self.drop_oldest(most, horizon, removed);
        }
        appended
    }

    /// Tells whether no read from the horizon on would see a behaviour of this time.
    fn is_too_old(&self, time: EventTime, most: usize, horizon: EventTime) -> bool {
        let older = self.count_before(EventTime(time.0.saturating_add(1)));
        older + most <= self.count_before(horizon) || older + bound(most) <= self.count
    }

    fn drop_oldest(&mut self, most: usize, horizon: EventTime, removed: &mut impl FnMut(u64)) {
        let mut settled = self.count_before(horizon);
        while let Some(head) = self.slots.first()
            && (head.segment.count() + most <= settled
                || head.segment.count() + bound(most) <= self.count)
        {
            settled = settled.saturating_sub(head.segment.count());
            self.count -= head.segment.count();
            self.packed -= weight(&head.segment);
            if head.stored != Stored::New {
                removed(head.place);
            }
            self.slots.remove(0);
        }
    }

    /// Puts back a segment as it was stored. Returns whether its place was free.
    pub(super) fn restore(&mut self, place: u64, segment: Segment) -> bool {
        let Err(at) = self.slots.binary_search_by_key(&place, |slot| slot.place) else {
            return false;
        };
        self.count += segment.count();
        self.packed += weight(&segment);
        self.slots.insert(at, Slot { place, stored: Stored::Same, segment });
        true
    }

    /// Puts back the tail as it was stored. Returns whether there was none.
    pub(super) fn restore_tail(&mut self, segment: &Segment) -> bool {
        let empty = self.tail.is_empty();
        if empty {
            self.count += segment.count();
            segment.unpack(&mut self.tail);
        }
        empty
    }

    /// Calls `visit` with the behaviours strictly before a time, newest first, until it returns false.
    pub(super) fn visit_back(
        &self,
        before: EventTime,
        most: usize,
        mut visit: impl FnMut(Entry) -> bool,
    ) {
        let mut skip = self.skipped(before, most);
        let end = self.tail.partition_point(|entry| entry.time < before);
        let packed = self.count - self.tail.len();
        if !self.tail[..end].iter().skip(skip.saturating_sub(packed)).rev().all(|e| visit(*e)) {
            return;
        }
        skip = skip.min(packed);
        self.segments_back(before, skip, |segment, from, to| {
            segment.visit_back(from, to, &mut visit)
        });
    }

    /// The same for the behaviours with a category and one of the types read.
    pub(super) fn visit_category_back(
        &self,
        category: u32,
        read: &Kinds,
        before: EventTime,
        most: usize,
        mut visit: impl FnMut(Entry) -> bool,
    ) {
        let mut skip = self.skipped(before, most);
        let end = self.tail.partition_point(|entry| entry.time < before);
        let packed = self.count - self.tail.len();
        let tail = self.tail[..end].iter().skip(skip.saturating_sub(packed)).rev();
        for entry in tail {
            if entry.category == category && read.has(entry.kind) && !visit(*entry) {
                return;
            }
        }
        skip = skip.min(packed);
        self.segments_back(before, skip, |segment, from, to| {
            segment.visit_category_back(category, from, to, read, &mut visit)
        });
    }

    /// Returns about how many bytes of memory are behind this history. O(1).
    pub(super) fn memory(&self) -> usize {
        fn list<T>(list: &Vec<T>) -> usize {
            if list.capacity() == 0 { 0 } else { list.capacity() * size_of::<T>() + BLOCK }
        }
        self.packed as usize + list(&self.slots) + list(&self.tail)
    }

    /// The same by a walk over all segments.
    #[cfg(test)]
    pub(super) fn weighed(&self) -> usize {
        let packed: usize = self.slots.iter().map(|slot| slot.segment.bytes().len() + BLOCK).sum();
        self.memory() - self.packed as usize + packed
    }

    /// Drops what would have been dropped with the next full tail, were it appended now.
    pub(super) fn trim(&mut self, most: usize, horizon: EventTime, removed: &mut impl FnMut(u64)) {
        if self.count > most {
            self.drop_oldest(most, horizon, removed);
        }
    }

    /// Calls `visit` with the segments that reach before a time, newest first, and which of their behaviours count, until it returns
    /// false. The oldest `skip` behaviours do not count.
    fn segments_back(
        &self,
        before: EventTime,
        skip: usize,
        mut visit: impl FnMut(&Segment, usize, usize) -> bool,
    ) {
        let mut first: usize = self.slots.iter().map(|slot| slot.segment.count()).sum();
        for slot in self.slots.iter().rev() {
            first -= slot.segment.count();
            let from = skip.saturating_sub(first);
            let to = slot.segment.count_before(before);
            if from < to && !visit(&slot.segment, from, to) {
                return;
            }
            if first <= skip {
                return;
            }
        }
    }

    fn newest(&self) -> Option<EventTime> {
        let packed = || self.slots.last().map(|slot| slot.segment.last());
        self.tail.last().map(|entry| entry.time).or_else(packed)
    }

    /// Returns how many behaviours a read before a time does not see because there are `most` newer ones.
    fn skipped(&self, before: EventTime, most: usize) -> usize {
        if self.count <= most { 0 } else { self.count_before(before).saturating_sub(most) }
    }

    /// Returns how many behaviours are strictly before a time.
    fn count_before(&self, time: EventTime) -> usize {
        let packed: usize = self.slots.iter().map(|slot| slot.segment.count_before(time)).sum();
        packed + self.tail.partition_point(|entry| entry.time < time)
    }

    fn insert(&mut self, entry: Entry, room: &mut Vec<Entry>, removed: &mut impl FnMut(u64)) {
        let in_tail = self.tail.first().is_some_and(|first| first.time <= entry.time);
        if in_tail || self.slots.is_empty() {
            let place = self.tail.partition_point(|known| known.time <= entry.time);
            self.tail.insert(place, entry);
            self.open = true;
            return;
        }
        let not_after = self.slots.partition_point(|slot| slot.segment.first() <= entry.time);
        let number = not_after.saturating_sub(1);
        let slot = &mut self.slots[number];
        room.clear();
        slot.segment.unpack(room);
        room.insert(room.partition_point(|known| known.time <= entry.time), entry);
        if slot.stored == Stored::Same {
            slot.stored = Stored::Changed;
        }
        self.packed -= weight(&slot.segment);
        if room.len() <= MOST {
            slot.segment = Segment::pack(room);
            self.packed += weight(&slot.segment);
            return;
        }
        let (left, right) = room.split_at(room.len() / 2);
        slot.segment = Segment::pack(left);
        let segment = Segment::pack(right);
        self.packed += weight(&slot.segment) + weight(&segment);
        let place = slot.place;
        let next = self.slots.get(number + 1).map_or(place.saturating_add(2 * GAP), |n| n.place);
        let between = place + (next - place) / 2;
        self.slots.insert(number + 1, Slot { place: between, stored: Stored::New, segment });
        if between == place {
            self.renumber(removed);
        }
    }

    /// Gives all segments new places, behind all that were ever used, because two had no room between them.
    fn renumber(&mut self, removed: &mut impl FnMut(u64)) {
        let mut place = self.slots.iter().map(|slot| slot.place).max().unwrap_or(0);
        for slot in &mut self.slots {
            if slot.stored != Stored::New {
                removed(slot.place);
            }
            place = place.saturating_add(GAP);
            (slot.place, slot.stored) = (place, Stored::New);
        }
    }

    /// Packs the older part of a full tail.
    fn seal(&mut self) {
        let segment = Segment::pack(&self.tail[..SEALED]);
        self.packed += weight(&segment);
        self.tail.drain(..SEALED);
        let place = self.slots.last().map_or(0, |slot| slot.place.saturating_add(GAP));
        self.slots.push(Slot { place, stored: Stored::New, segment });
    }
}

/// Returns how many bytes of memory a segment takes.
fn weight(segment: &Segment) -> u32 {
    u32::try_from(segment.bytes().len() + BLOCK).unwrap_or(u32::MAX)
}
