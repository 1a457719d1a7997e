//! The features of one impression as they were, in one block of memory.

use serde::{Deserialize, Serialize};

use crate::attribution::Payload;
use crate::counters::Subjects;
use crate::example::Batch;
use crate::ids::{ItemId, UserId};
use crate::time::EventTime;

/// Words in front of the columns: flags, category, surface, time.
const HEADER: usize = 4;
/// Flags: there is a category, there is a surface, the item was new, it was offered.
const CATEGORY: u64 = 1;
const SURFACE: u64 = 2;
const NEW_ITEM: u64 = 4;
const OFFERED: u64 = 8;

/// How many columns of each kind there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) keys: usize,
    pub(super) lists: usize,
    pub(super) numbers: usize,
}

impl Shape {
    /// Where the numbers stand, two in a word.
    fn numbers(self) -> usize {
        HEADER + self.keys
    }

    /// Where the ends of the lists stand.
    fn ends(self) -> usize {
        self.numbers() + self.numbers.div_ceil(2)
    }

    /// Where the keys of the lists stand.
    fn list_keys(self) -> usize {
        self.ends() + self.lists
    }
}

/// The features of an impression as of a time: keys, numbers, lists, and what hard search and counters need of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FieldValues {
    /// Header, keys, numbers as the bits of two f32 in a word, ends of the lists, keys of the lists.
    words: Vec<u64>,
}

impl FieldValues {
    /// Returns the id of the item's category as of the impression.
    pub fn category(&self) -> Option<u64> {
        self.flagged(CATEGORY, 1)
    }

    /// Returns what counters count by. An impression is to be counted after its snapshot was taken, an outcome when its label turns
    /// to 1 ([`crate::attribution::Effect::Positive`]).
    pub fn subjects(&self, user: UserId, item: ItemId) -> Subjects {
        let surface = self.flagged(SURFACE, 2);
        Subjects { item: item.0, user: user.0, category: self.category(), surface }
    }

    /// Returns the time as of which they are: nothing of that time or later is in them, nor may be in the history beside them.
    pub fn time(&self) -> EventTime {
        EventTime(self.words.get(3).map_or(EventTime::MIN.0, |word| word.cast_signed()))
    }

    /// Tells whether the item was new.
    pub fn new_item(&self) -> bool {
        self.words.first().is_some_and(|flags| flags & NEW_ITEM != 0)
    }

    /// Tells whether the item was offered.
    pub fn offered(&self) -> bool {
        self.words.first().is_some_and(|flags| flags & OFFERED != 0)
    }

    /// Adds the values to `out` as bytes, eight for each word.
    pub fn write_bytes(&self, out: &mut Vec<u8>) {
        out.reserve(8 * self.words.len());
        for word in &self.words {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// Becomes the values that [`Self::write_bytes`] wrote. Returns false, and holds nothing, when the bytes are no whole words.
    pub fn read_bytes(&mut self, bytes: &[u8]) -> bool {
        self.words.clear();
        let (words, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return false;
        }
        self.words.extend(words.iter().map(|word| u64::from_le_bytes(*word)));
        true
    }

    fn flagged(&self, flag: u64, place: usize) -> Option<u64> {
        let flags = *self.words.first()?;
        (flags & flag != 0).then(|| self.words.get(place).copied()).flatten()
    }

    pub(super) fn start(
        &mut self,
        shape: Shape,
        category: Option<u64>,
        surface: Option<u64>,
        new_item: bool,
        offered: bool,
        time: EventTime,
    ) {
        self.words.clear();
        self.words.resize(shape.list_keys(), 0);
        let flags = [
            (category.is_some(), CATEGORY),
            (surface.is_some(), SURFACE),
            (new_item, NEW_ITEM),
            (offered, OFFERED),
        ];
        self.words[0] = flags.into_iter().filter(|(is, _)| *is).map(|(_, flag)| flag).sum();
        self.words[1] = category.unwrap_or(0);
        self.words[2] = surface.unwrap_or(0);
        self.words[3] = time.0.cast_unsigned();
    }

    pub(super) fn set_key(&mut self, column: usize, key: u64) {
        self.words[HEADER + column] = key;
    }

    pub(super) fn key(&self, column: usize) -> u64 {
        self.words[HEADER + column]
    }

    pub(super) fn set_number(&mut self, shape: Shape, column: usize, number: f32) {
        let word = &mut self.words[shape.numbers() + column / 2];
        *word |= u64::from(number.to_bits()) << (32 * (column % 2));
    }

    pub(super) fn push_list_key(&mut self, key: u64) {
        self.words.push(key);
    }

    pub(super) fn end_list(&mut self, shape: Shape, list: usize) {
        self.words[shape.ends() + list] = self.words.len() as u64;
    }

    /// Adds the columns to a batch.
    pub(super) fn write(&self, shape: Shape, batch: &mut Batch) {
        batch.keys.extend_from_slice(&self.words[HEADER..shape.numbers()]);
        for column in 0..shape.numbers {
            let word = self.words[shape.numbers() + column / 2] >> (32 * (column % 2));
            batch.numbers.push(f32::from_bits(word as u32));
        }
        let mut start = shape.list_keys();
        for (list, column) in batch.lists.iter_mut().enumerate() {
            let end = usize::try_from(self.words[shape.ends() + list]).unwrap_or(usize::MAX);
            column.keys.extend_from_slice(&self.words[start..end]);
            column.starts.push(u32::try_from(column.keys.len()).unwrap_or(u32::MAX));
            start = end;
        }
    }
}

impl Payload for FieldValues {
    fn memory(&self) -> usize {
        8 * self.words.capacity()
    }
}

/// Blocks of memory of closed impressions, for those to come.
#[derive(Clone, Debug)]
pub struct ValuePool {
    spare: Vec<FieldValues>,
    most: usize,
}

impl ValuePool {
    /// Creates an empty pool that keeps at most so many blocks.
    pub fn new(most: usize) -> Self {
        Self { spare: Vec::new(), most }
    }

    /// Returns values to be filled in, with memory where there is some.
    pub fn get(&mut self) -> FieldValues {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes values back.
    pub fn put(&mut self, values: FieldValues) {
        if self.spare.len() < self.most {
            self.spare.push(values);
        }
    }
}
