//! Examples in batches: all that the models see of the events, with [`crate::schema`].
//!
//! A batch is made of columns. Keys are table keys ([`crate::ids::salted_key`]); key 0 is "nothing": the zero vector, no gradient.

use crate::ids::{EventId, ItemId, UserId};
use crate::time::EventTime;

/// What a label of one task means for the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum LabelMode {
    /// Nothing is known: no loss.
    #[default]
    Masked,
    /// The label is final: plain log loss.
    Final,
    /// FNW's immediate negative, weight `(1 - p)(1 + p)` with the model's own p.
    FnwNegative,
    /// FNW's positive that comes later, weight `1 + p`.
    FnwPositive,
}

/// Lists of keys, one for each example: list `i` is `keys[starts[i]..starts[i + 1]]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ragged {
    /// `[size + 1]`, starting with 0.
    pub starts: Vec<u32>,
    /// The lists end to end.
    pub keys: Vec<u64>,
}

/// Behaviours, one list for each example, newest last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histories {
    /// `[size + 1]`, starting with 0.
    pub starts: Vec<u32>,
    /// Keys in the item table.
    pub items: Vec<u64>,
    /// Keys in the category table.
    pub categories: Vec<u64>,
    /// Keys in the gap table.
    pub gaps: Vec<u64>,
}

impl Histories {
    /// Removes all lists and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.categories.clear();
        self.gaps.clear();
        self.starts.clear();
        self.starts.push(0);
    }
}

/// Who and what an example is about; no feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct About {
    /// The impression, or 0 for a candidate of a request.
    pub impression: EventId,
    /// Its user.
    pub user: UserId,
    /// Its item.
    pub item: ItemId,
    /// Its time.
    pub time: EventTime,
    /// The item was first seen within the configured span before the impression.
    pub new_item: bool,
    /// The item was offered at its time ([`crate::catalogue::Catalogue::is_offered`]); no part of a verdict.
    pub offered: bool,
}

/// A micro-batch of examples as columns. All buffers are kept between uses: see [`Batch::clear`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `[size, key fields]`.
    pub keys: Vec<u64>,
    /// One for each list field.
    pub lists: Vec<Ragged>,
    /// `[size, number fields]`.
    pub numbers: Vec<f32>,
    /// One for each look into the history.
    pub histories: Vec<Histories>,
    /// `[size, tasks]`, 0 or 1.
    pub labels: Vec<f32>,
    /// `[size, tasks]`.
    pub modes: Vec<LabelMode>,
    /// `[size]`: the number of the first example of its group. The examples of a group stand side by side (a view and its sampled negatives)
    /// and are all predicted before any of them is learned.
    pub groups: Vec<u32>,
    /// `[size]`.
    pub about: Vec<About>,
}

impl Batch {
    /// Creates an empty batch with `lists` list fields and `lookups` looks into the history.
    pub fn new(lists: usize, lookups: usize) -> Self {
        let mut batch = Self {
            lists: vec![Ragged::default(); lists],
            histories: vec![Histories::default(); lookups],
            ..Self::default()
        };
        batch.clear();
        batch
    }

    /// Returns how many examples there are.
    pub fn size(&self) -> usize {
        self.about.len()
    }

    /// Tells whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.about.is_empty()
    }

    /// Puts the last example into the group of the one before it.
    pub fn join_last(&mut self) {
        if let [.., group, last] = &mut self.groups[..] {
            *last = *group;
        }
    }

    /// Returns the examples of a range that are one group from its start on.
    pub fn group(&self, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let of = &self.groups[range.clone()];
        let end = of.iter().take_while(|group| **group == of[0]).count();
        range.start..range.start + end
    }

    /// Removes all examples and keeps the memory.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.numbers.clear();
        self.groups.clear();
        self.labels.clear();
        self.modes.clear();
        self.about.clear();
        for list in &mut self.lists {
            list.keys.clear();
            list.starts.clear();
            list.starts.push(0);
        }
        self.histories.iter_mut().for_each(Histories::clear);
    }
}
