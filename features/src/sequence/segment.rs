//! Up to 256 behaviours of one user in time order, packed as columns in one block of bytes, which is also how they are stored.
//!
//! ```text
//! version u8 | 0 | count u16 | distinct categories u16 | bytes of times u16 | first time i64 | last time i64
//! items       count x u32
//! categories  distinct x u32, in the order of first sight
//! which       count x u8: place of the behaviour's category among the distinct ones
//! kinds       count x u8
//! anchors     for every 32nd behaviour but the first: time i64, place u16 of what follows among the bytes of times
//! times       for all other behaviours: milliseconds since the one before, as a variable-length integer of 7 bits a byte, low bits first
//! ```
//!
//! All numbers are little-endian. A search for a category first looks for it among the few distinct ones: most segments end there. The
//! checksum is the store's.

use super::search::{find_number, visit_back};
use super::{Entry, KindNumber, Kinds, NO_CATEGORY};
use crate::time::EventTime;

/// The most behaviours of a segment.
pub(super) const MOST: usize = 256;
const VERSION: u8 = 1;
const HEADER: usize = 24;
/// Behaviours between two anchors.
const GROUP: usize = 32;
const ANCHOR: usize = 10;

/// Why bytes are no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Written by a version that this one does not know.
    #[error(
        "expected a sequence segment of version {VERSION}, found {0}: use the version of sluice that wrote it or a newer one"
    )]
    Version(u8),
    /// The lengths, places or times do not fit together.
    #[error(
        "expected a sequence segment, found damaged bytes ({0}): rebuild the store from the input topics"
    )]
    Damaged(&'static str),
}

/// A packed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment(Box<[u8]>);

/// A segment, wherever its bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a>(&'a [u8]);

/// The columns of a segment.
struct Columns<'a> {
    items: &'a [u8],
    categories: &'a [u8],
    which: &'a [u8],
    kinds: &'a [u8],
    anchors: &'a [u8],
    times: &'a [u8],
}

/// Times of one group, unpacked.
struct Group {
    number: usize,
    times: [i64; GROUP],
}

impl Segment {
    /// Packs behaviours in time order, at least 1 and at most [`MOST`].
    pub(super) fn pack(entries: &[Entry]) -> Self {
        assert!((1..=MOST).contains(&entries.len()), "a segment has 1 to {MOST} behaviours");
        let mut categories = Vec::with_capacity(4 * 64);
        let mut which = Vec::with_capacity(entries.len());
        let (mut anchors, mut times) = (Vec::new(), Vec::with_capacity(4 * entries.len()));
        let mut before = entries[0].time;
        for (i, entry) in entries.iter().enumerate() {
            let place = find_number(&categories, entry.category).unwrap_or_else(|| {
                categories.extend_from_slice(&entry.category.to_le_bytes());
                categories.len() / 4 - 1
            });
            which.push(place as u8);
            if i % GROUP != 0 {
                put_varint(&mut times, (entry.time - before).0 as u64);
            } else if i > 0 {
                anchors.extend_from_slice(&entry.time.0.to_le_bytes());
                anchors.extend_from_slice(&(times.len() as u16).to_le_bytes());
            }
            before = entry.time;
        }
        let columns = entries.len() * 6 + categories.len() + anchors.len() + times.len();
        let mut bytes = Vec::with_capacity(HEADER + columns);
        bytes.extend_from_slice(&[VERSION, 0]);
        for length in [entries.len(), categories.len() / 4, times.len()] {
            bytes.extend_from_slice(&(length as u16).to_le_bytes());
        }
        bytes.extend_from_slice(&entries[0].time.0.to_le_bytes());
        bytes.extend_from_slice(&before.0.to_le_bytes());
        bytes.extend(entries.iter().flat_map(|entry| entry.item.to_le_bytes()));
        bytes.extend_from_slice(&categories);
        bytes.extend_from_slice(&which);
        bytes.extend(entries.iter().map(|entry| entry.kind.0));
        bytes.extend_from_slice(&anchors);
        bytes.extend_from_slice(&times);
        Self(bytes.into_boxed_slice())
    }

    /// Returns the bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn view(&self) -> View<'_> {
        View(&self.0)
    }
}

impl<'a> View<'a> {
    /// Takes bytes as a segment if they are one in every respect, so that reading it never fails. So many types of behaviour have a number.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub(super) fn parse(bytes: &'a [u8], kinds: usize) -> Result<Self, SegmentError> {
        let damaged = |what| Err(SegmentError::Damaged(what));
        let Some(&version) = bytes.first() else {
            return damaged("nothing there");
        };
        if version != VERSION {
            return Err(SegmentError::Version(version));
        }
        if bytes.len() < HEADER {
            return damaged("shorter than its header");
        }
        let segment = Self(bytes);
        let (count, distinct, times) = (segment.count(), segment.number(4), segment.number(6));
        if count == 0 || count > MOST || distinct == 0 || distinct > count {
            return damaged("impossible counts");
        }
        let anchors = (count - 1) / GROUP * ANCHOR;
        if bytes.len() != HEADER + 6 * count + 4 * distinct + anchors + times {
            return damaged("lengths do not add up");
        }
        let columns = segment.columns();
        if columns.which.iter().any(|&place| usize::from(place) >= distinct) {
            return damaged("a category that is not there");
        }
        if columns.kinds.iter().any(|&kind| usize::from(kind) >= kinds) {
            return damaged("a type of behaviour that has no name");
        }
        let (mut place, mut before) = (0, segment.first().0);
        for i in 0..count {
            let time = if i % GROUP != 0 {
                let Some(step) = checked_varint(columns.times, &mut place) else {
                    return damaged("a time that does not end");
                };
                i64::try_from(step).ok().and_then(|step| before.checked_add(step))
            } else if i > 0 {
                let (time, start) = anchor(&columns, i / GROUP);
                (start == place && time >= before).then_some(time)
            } else {
                Some(before)
            };
            let Some(time) = time else {
                return damaged("times out of order");
            };
            before = time;
        }
        if place != times || before != segment.last().0 {
            return damaged("times that do not end at the last one");
        }
        Ok(segment)
    }

    /// Returns a copy.
    pub(super) fn to_segment(self) -> Segment {
        Segment(self.0.into())
    }

    /// Returns how many behaviours there are.
    pub(super) fn count(&self) -> usize {
        self.number(2)
    }

    /// Returns the time of the first behaviour.
    pub(super) fn first(&self) -> EventTime {
        EventTime(time_at(self.0, 8))
    }

    /// Returns the time of the last behaviour.
    pub(super) fn last(&self) -> EventTime {
        EventTime(time_at(self.0, 16))
    }

    /// Returns how many behaviours are strictly before a time.
    pub(super) fn count_before(&self, time: EventTime) -> usize {
        if self.last() < time {
            return self.count();
        }
        if self.first() >= time {
            return 0;
        }
        let columns = self.columns();
        let mut number = (self.count() - 1) / GROUP;
        while number > 0 && anchor(&columns, number).0 >= time.0 {
            number -= 1;
        }
        let group = self.group(&columns, number);
        let length = GROUP.min(self.count() - number * GROUP);
        number * GROUP + group.times[..length].partition_point(|&known| known < time.0)
    }

    /// Calls `visit` with the behaviours `from..to`, last first, until it returns false. Returns whether it never did.
    pub(super) fn visit_back(
        &self,
        from: usize,
        to: usize,
        mut visit: impl FnMut(Entry) -> bool,
    ) -> bool {
        if from >= to {
            return true;
        }
        let columns = self.columns();
        let mut group = self.group(&columns, (to - 1) / GROUP);
        for i in (from..to).rev() {
            if i / GROUP != group.number {
                group = self.group(&columns, i / GROUP);
            }
            if !visit(columns.entry(i, &group)) {
                return false;
            }
        }
        true
    }

    /// Calls `visit` with those of the behaviours `from..to` that have a category and one of the types read, last first, until it returns
    /// false. Returns whether it never did.
    pub(super) fn visit_category_back(
        &self,
        category: u32,
        from: usize,
        to: usize,
        read: &Kinds,
        mut visit: impl FnMut(Entry) -> bool,
    ) -> bool {
        if from >= to {
            return true;
        }
        let columns = self.columns();
        let Some(which) = find_number(columns.categories, category) else {
            return true;
        };
        let mut group: Option<Group> = None;
        visit_back(&columns.which[from..to], which as u8, |place| {
            let i = from + place;
            // Times are unpacked only for what is wanted: a common category may have few behaviours of the types read.
            if !read.has(KindNumber(columns.kinds[i])) {
                return true;
            }
            let known = group.take().filter(|group| group.number == i / GROUP);
            let known = group.insert(known.unwrap_or_else(|| self.group(&columns, i / GROUP)));
            visit(columns.entry(i, known))
        })
    }

    /// Calls `see` with each category that there is.
    pub(super) fn categories(&self, see: impl FnMut(u32)) {
        let columns = self.columns();
        let distinct = columns.categories.len() / 4;
        (0..distinct).map(|i| number_at(columns.categories, i)).for_each(see);
    }

    /// Adds all behaviours to `out`, in time order.
    pub(super) fn unpack(&self, out: &mut Vec<Entry>) {
        let columns = self.columns();
        for number in 0..=(self.count() - 1) / GROUP {
            let group = self.group(&columns, number);
            let end = self.count().min((number + 1) * GROUP);
            out.extend((number * GROUP..end).map(|i| columns.entry(i, &group)));
        }
    }

    fn number(&self, at: usize) -> usize {
        usize::from(u16::from_le_bytes([self.0[at], self.0[at + 1]]))
    }

    fn columns(&self) -> Columns<'a> {
        let (count, distinct) = (self.count(), self.number(4));
        let (items, rest) = self.0[HEADER..].split_at(4 * count);
        let (categories, rest) = rest.split_at(4 * distinct);
        let (which, rest) = rest.split_at(count);
        let (kinds, rest) = rest.split_at(count);
        let (anchors, times) = rest.split_at((count - 1) / GROUP * ANCHOR);
        Columns { items, categories, which, kinds, anchors, times }
    }

    fn group(&self, columns: &Columns<'_>, number: usize) -> Group {
        let (mut time, mut place) = match number {
            0 => (self.first().0, 0),
            _ => anchor(columns, number),
        };
        let mut times = [0; GROUP];
        times[0] = time;
        let length = GROUP.min(columns.which.len() - number * GROUP);
        for slot in &mut times[1..length] {
            time += varint(columns.times, &mut place) as i64;
            *slot = time;
        }
        Group { number, times }
    }
}

impl Columns<'_> {
    fn entry(&self, i: usize, group: &Group) -> Entry {
        let which = usize::from(self.which[i]);
        Entry {
            item: number_at(self.items, i),
            category: number_at(self.categories, which),
            kind: KindNumber(self.kinds[i]),
            time: EventTime(group.times[i % GROUP]),
        }
    }
}

/// Returns the time and the place of what follows of a group other than the first.
fn anchor(columns: &Columns<'_>, number: usize) -> (i64, usize) {
    let bytes = &columns.anchors[(number - 1) * ANCHOR..number * ANCHOR];
    (time_at(bytes, 0), usize::from(u16::from_le_bytes([bytes[8], bytes[9]])))
}

fn time_at(bytes: &[u8], at: usize) -> i64 {
    let mut array = [0; 8];
    array.copy_from_slice(&bytes[at..at + 8]);
    i64::from_le_bytes(array)
}

fn number_at(column: &[u8], i: usize) -> u32 {
    column
        .get(4 * i..4 * i + 4)
        .map_or(NO_CATEGORY, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Reads an integer of checked bytes.
fn varint(bytes: &[u8], place: &mut usize) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[*place];
        *place += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}

/// Reads an integer of at most 9 bytes, if there is one.
fn checked_varint(bytes: &[u8], place: &mut usize) -> Option<u64> {
    let length = 1 + bytes.get(*place..)?.iter().take(9).position(|&byte| byte < 0x80)?;
    let number = varint(&bytes[*place..*place + length], &mut 0);
    *place += length;
    Some(number)
}
