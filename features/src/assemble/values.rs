//! The features of one impression as they were, in one block of memory.

use serde::{Deserialize, Serialize};

use crate::attribute::Payload;
use crate::counters::Subjects;
use crate::example::Batch;
use crate::ids::{ItemId, UserId};

/// How many columns of each kind there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) keys: usize,
    pub(super) lists: usize,
    pub(super) numbers: usize,
}

impl Shape {
    /// Where the ends of the lists stand, after keys and numbers (two in a word).
    fn ends(self) -> usize {
        self.keys + self.numbers.div_ceil(2)
    }

    /// Where the keys of the lists stand.
    fn list_keys(self) -> usize {
        self.ends() + self.lists
    }
}

/// The features of an impression as of its time: keys, numbers, lists, and what hard search and counters need of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FieldValues {
    /// Keys, numbers as the bits of two f32 in a word, ends of the lists, keys of the lists.
    words: Vec<u64>,
    category: Option<u64>,
    surface: Option<u64>,
    new_item: bool,
}

impl FieldValues {
    /// Returns the id of the item's category as of the impression.
    pub fn category(&self) -> Option<u64> {
        self.category
    }

    /// Returns what counters count by. An impression is to be counted after its snapshot was taken, an outcome when its label turns
    /// to 1 ([`crate::attribute::Effect::Positive`]).
    pub fn subjects(&self, user: UserId, item: ItemId) -> Subjects {
        Subjects { item: item.0, user: user.0, category: self.category, surface: self.surface }
    }

    /// Tells whether the item was new.
    pub fn new_item(&self) -> bool {
        self.new_item
    }

    pub(super) fn start(
        &mut self,
        shape: Shape,
        category: Option<u64>,
        surface: Option<u64>,
        new_item: bool,
    ) {
        self.words.clear();
        self.words.resize(shape.list_keys(), 0);
        (self.category, self.surface, self.new_item) = (category, surface, new_item);
    }

    pub(super) fn set_key(&mut self, column: usize, key: u64) {
        self.words[column] = key;
    }

    pub(super) fn set_number(&mut self, shape: Shape, column: usize, number: f32) {
        let word = &mut self.words[shape.keys + column / 2];
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
        batch.keys.extend_from_slice(&self.words[..shape.keys]);
        for column in 0..shape.numbers {
            let word = self.words[shape.keys + column / 2] >> (32 * (column % 2));
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
