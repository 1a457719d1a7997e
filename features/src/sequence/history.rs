//! The behaviours of one user: full segments, oldest first, and an open tail.

use serde::{Deserialize, Serialize};

use super::reader::Reader;
use super::segment::{MOST, Segment, View};
use super::summary::Summary;
use super::{Appended, Entry, Kinds};
use crate::maps::BLOCK;
use crate::time::EventTime;

/// How many behaviours of a full tail are packed; the rest stays open for those that come a little late.
const SEALED: usize = 224;

/// Returns how many behaviours are kept at most, wherever the horizon is: a robot may have any number within the longest window.
fn bound(most: usize) -> usize {
    most + most.max(4096)
}

/// Where a segment is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Spot {
    pub(super) pack: u64,
    pub(super) place: u16,
}

/// A segment, in memory or away, and what is known of it without looking into it.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    summary: Summary,
    /// Where it is stored; none before a checkpoint was given it.
    at: Option<Spot>,
    body: Option<Segment>,
}

/// The behaviours of one user.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    slots: Vec<Slot>,
    tail: Vec<Entry>,
    /// Behaviours in slots and tail.
    count: usize,
    /// Bytes of the segments in memory.
    packed: u32,
}

/// A history as it is stored.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    slots: Vec<(Summary, Spot)>,
    /// A segment, or nothing.
    tail: &'a [u8],
}

/// The version of [`Head`].
const VERSION: u8 = 1;

impl Slot {
    fn new(segment: Segment) -> Self {
        Self { summary: Summary::of(segment.view()), at: None, body: Some(segment) }
    }

    fn count(&self) -> usize {
        usize::from(self.summary.count)
    }

    /// Calls `look` with the segment, wherever it is.
    fn read<R>(&self, reader: &Reader, look: impl FnOnce(View<'_>) -> R) -> Option<R> {
        match (&self.body, self.at) {
            (Some(segment), _) => Some(look(segment.view())),
            (None, Some(spot)) => reader.segment(spot, look),
            (None, None) => None,
        }
    }

    fn count_before(&self, time: EventTime, reader: &Reader) -> usize {
        if self.summary.last < time {
            return self.count();
        }
        if self.summary.first >= time {
            return 0;
        }
        self.read(reader, |segment| segment.count_before(time)).unwrap_or(0)
    }
}

impl History {
    /// Returns how many behaviours there are, at most `most`.
    pub(super) fn length(&self, most: usize) -> usize {
        self.count.min(most)
    }

    /// Adds a behaviour after all that are not later. `removed` gets the spots of stored segments that are no more: those behind which `most`
    /// behaviours strictly before the horizon stand, or too many altogether; and one in which the behaviour belongs.
    pub(super) fn append(
        &mut self,
        entry: Entry,
        (most, horizon): (usize, EventTime),
        reader: &Reader,
        room: &mut Vec<Entry>,
        removed: &mut impl FnMut(Spot),
    ) -> Appended {
        let appended = if self.newest().is_none_or(|newest| newest <= entry.time) {
            self.tail.push(entry);
            Appended::InOrder
        } else if self.count >= most && self.is_too_old(entry.time, most, horizon, reader) {
            return Appended::TooOld;
        } else {
            self.insert(entry, reader, room, removed);
            Appended::Late
        };
        self.count += 1;
        let sealed = self.tail.len() >= MOST;
        if sealed {
            self.seal();
        }
        if self.count > most && (sealed || appended == Appended::Late) {
            self.drop_oldest(most, horizon, reader, removed);
        }
        appended
    }

    /// Tells whether no read from the horizon on would see a behaviour of this time.
    fn is_too_old(
        &self,
        time: EventTime,
        most: usize,
        horizon: EventTime,
        reader: &Reader,
    ) -> bool {
        let older = self.count_before(EventTime(time.0.saturating_add(1)), reader);
        older + most <= self.count_before(horizon, reader) || older + bound(most) <= self.count
    }

    fn drop_oldest(
        &mut self,
        most: usize,
        horizon: EventTime,
        reader: &Reader,
        removed: &mut impl FnMut(Spot),
    ) {
        let mut settled = self.count_before(horizon, reader);
        let mut gone = 0;
        while let Some(head) = self.slots.get(gone)
            && (head.count() + most <= settled || head.count() + bound(most) <= self.count)
        {
            settled = settled.saturating_sub(head.count());
            self.count -= head.count();
            self.packed -= weight(head.body.as_ref());
            head.at.into_iter().for_each(&mut *removed);
            gone += 1;
        }
        self.slots.drain(..gone);
    }

    /// Drops what would have been dropped with the next full tail, were it appended now.
    pub(super) fn trim(
        &mut self,
        most: usize,
        horizon: EventTime,
        reader: &Reader,
        removed: &mut impl FnMut(Spot),
    ) {
        if self.count > most {
            self.drop_oldest(most, horizon, reader, removed);
        }
    }

    /// Calls `visit` with the behaviours strictly before a time, newest first, until it returns false.
    pub(super) fn visit_back(
        &self,
        before: EventTime,
        most: usize,
        reader: &Reader,
        mut visit: impl FnMut(Entry) -> bool,
    ) {
        let mut skip = self.skipped(before, most, reader);
        let end = self.tail.partition_point(|entry| entry.time < before);
        let packed = self.count - self.tail.len();
        if !self.tail[..end].iter().skip(skip.saturating_sub(packed)).rev().all(|e| visit(*e)) {
            return;
        }
        skip = skip.min(packed);
        self.segments_back(
            before,
            skip,
            reader,
            |_| true,
            |segment, from, to| segment.visit_back(from, to, &mut visit),
        );
    }

    /// The same for the behaviours with a category and one of the types read.
    pub(super) fn visit_category_back(
        &self,
        category: u32,
        read: &Kinds,
        before: EventTime,
        most: usize,
        reader: &Reader,
        mut visit: impl FnMut(Entry) -> bool,
    ) {
        let mut skip = self.skipped(before, most, reader);
        let end = self.tail.partition_point(|entry| entry.time < before);
        let packed = self.count - self.tail.len();
        let tail = self.tail[..end].iter().skip(skip.saturating_sub(packed)).rev();
        for entry in tail {
            if entry.category == category && read.has(entry.kind) && !visit(*entry) {
                return;
            }
        }
        skip = skip.min(packed);
        let may_have = |summary: &Summary| summary.may_have(category);
        self.segments_back(before, skip, reader, may_have, |segment, from, to| {
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
        let packed: u32 = self.slots.iter().map(|slot| weight(slot.body.as_ref())).sum();
        self.memory() - self.packed as usize + packed as usize
    }

    /// Calls `put` with each segment that is not stored, and takes it as stored where that says.
    pub(super) fn store(&mut self, mut put: impl FnMut(&Segment) -> Spot) {
        for slot in self.slots.iter_mut().filter(|slot| slot.at.is_none()) {
            slot.at = slot.body.as_ref().map(&mut put);
        }
    }

    /// Takes what is stored at some spots as not stored: it is to be stored elsewhere. `removed` gets the spots.
    pub(super) fn unstore(
        &mut self,
        reader: &Reader,
        is: impl Fn(Spot) -> bool,
        mut removed: impl FnMut(Spot),
    ) {
        for slot in &mut self.slots {
            let Some(spot) = slot.at.filter(|spot| is(*spot)) else { continue };
            if slot.body.is_none() {
                slot.body = reader.segment(spot, |segment| segment.to_segment());
                self.packed += weight(slot.body.as_ref());
            }
            // One that is out of reach stays where it is.
            if slot.body.is_some() {
                slot.at = None;
                removed(spot);
            }
        }
    }

    /// Lets go of the segments that are stored.
    pub(super) fn shed(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.at.is_some()) {
            self.packed -= weight(slot.body.take().as_ref());
        }
    }

    /// Appends the history as it is stored. All segments must be.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let tail = (!self.tail.is_empty()).then(|| Segment::pack(&self.tail));
        let slots = self.slots.iter().filter_map(|slot| Some((slot.summary, slot.at?))).collect();
        let head = Head { slots, tail: tail.as_ref().map_or(&[], Segment::bytes) };
        to.push(VERSION);
        // Into a vector it cannot fail.
        *to = postcard::to_extend(&head, std::mem::take(to)).unwrap_or_default();
    }

    /// Reads a history as it was stored; `None` for bytes that are none. So many types of behaviour have a number.
    pub(super) fn parse(bytes: &[u8], kinds: usize) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        let Head { slots, tail } = postcard::from_bytes(rest).ok()?;
        let mut history = Self::default();
        if !tail.is_empty() {
            View::parse(tail, kinds).ok()?.unpack(&mut history.tail);
        }
        let slot = |(summary, spot)| Slot { summary, at: Some(spot), body: None };
        history.slots = slots.into_iter().map(slot).collect();
        let packed: usize = history.slots.iter().map(Slot::count).sum();
        history.count = packed + history.tail.len();
        let sound = history.slots.iter().all(|slot| (1..=MOST).contains(&slot.count()));
        (version == VERSION && sound).then_some(history)
    }

    /// Tells whether a segment is stored at such a spot.
    pub(super) fn has(&self, is: impl Fn(Spot) -> bool) -> bool {
        self.slots.iter().filter_map(|slot| slot.at).any(is)
    }

    /// Calls `visit` with the segments that reach before a time and that `may` lets through, newest first, and which of their behaviours count,
    /// until it returns false. The oldest `skip` behaviours do not count.
    fn segments_back(
        &self,
        before: EventTime,
        skip: usize,
        reader: &Reader,
        may: impl Fn(&Summary) -> bool,
        mut visit: impl FnMut(View<'_>, usize, usize) -> bool,
    ) {
        let mut first: usize = self.slots.iter().map(Slot::count).sum();
        for slot in self.slots.iter().rev() {
            first -= slot.count();
            if slot.summary.first < before && may(&slot.summary) {
                let from = skip.saturating_sub(first);
                let goes_on = slot.read(reader, |segment| {
                    let to = segment.count_before(before);
                    from >= to || visit(segment, from, to)
                });
                if goes_on == Some(false) {
                    return;
                }
            }
            if first <= skip {
                return;
            }
        }
    }

    fn newest(&self) -> Option<EventTime> {
        let packed = || self.slots.last().map(|slot| slot.summary.last);
        self.tail.last().map(|entry| entry.time).or_else(packed)
    }

    /// Returns how many behaviours a read before a time does not see because there are `most` newer ones.
    fn skipped(&self, before: EventTime, most: usize, reader: &Reader) -> usize {
        if self.count <= most { 0 } else { self.count_before(before, reader).saturating_sub(most) }
    }

    /// Returns how many behaviours are strictly before a time.
    fn count_before(&self, time: EventTime, reader: &Reader) -> usize {
        let packed: usize = self.slots.iter().map(|slot| slot.count_before(time, reader)).sum();
        packed + self.tail.partition_point(|entry| entry.time < time)
    }

    fn insert(
        &mut self,
        entry: Entry,
        reader: &Reader,
        room: &mut Vec<Entry>,
        removed: &mut impl FnMut(Spot),
    ) {
        let in_tail = self.tail.first().is_some_and(|first| first.time <= entry.time);
        if in_tail || self.slots.is_empty() {
            let place = self.tail.partition_point(|known| known.time <= entry.time);
            self.tail.insert(place, entry);
            return;
        }
        let not_after = self.slots.partition_point(|slot| slot.summary.first <= entry.time);
        let number = not_after.saturating_sub(1);
        let slot = &mut self.slots[number];
        room.clear();
        slot.read(reader, |segment| segment.unpack(room));
        room.insert(room.partition_point(|known| known.time <= entry.time), entry);
        slot.at.into_iter().for_each(&mut *removed);
        self.packed -= weight(slot.body.as_ref());
        let parts =
            if room.len() <= MOST { (&room[..], &[][..]) } else { room.split_at(room.len() / 2) };
        *slot = Slot::new(Segment::pack(parts.0));
        self.packed += weight(slot.body.as_ref());
        if !parts.1.is_empty() {
            let slot = Slot::new(Segment::pack(parts.1));
            self.packed += weight(slot.body.as_ref());
            self.slots.insert(number + 1, slot);
        }
    }

    /// Packs the older part of a full tail.
    fn seal(&mut self) {
        let slot = Slot::new(Segment::pack(&self.tail[..SEALED]));
        self.packed += weight(slot.body.as_ref());
        self.tail.drain(..SEALED);
        self.slots.push(slot);
    }
}

/// Returns how many bytes of memory a segment takes.
fn weight(segment: Option<&Segment>) -> u32 {
    segment.map_or(0, |segment| u32::try_from(segment.bytes().len() + BLOCK).unwrap_or(u32::MAX))
}
