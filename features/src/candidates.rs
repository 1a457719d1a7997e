//! The candidates of one request: examples of one user at one time, in which what they have in common stands once.
//!
//! ```text
//! columns that no item changes (user, context, time)   one row         Candidates::common
//! columns of the item                                  a row each      Candidates::own
//! the user's newest behaviours                         one list        Candidates::histories
//! behaviours by category (SIM's hard search)           a list for each category among the candidates
//! ```
//!
//! [`Schema::is_own`] says which fields are whose. [`Candidates::expand`] writes the same examples as a [`Batch`], everything repeated.

use crate::example::{About, Batch, Histories, LabelMode, Ragged};
use crate::maps::Map;
use crate::schema::{Lookup, Schema};

/// Rows of some of the fields of a schema, in the schema's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    /// `[rows, key fields among them]`.
    pub keys: Vec<u64>,
    /// One for each list field among them.
    pub lists: Vec<Ragged>,
    /// `[rows, number fields among them]`.
    pub numbers: Vec<f32>,
}

/// Examples of one user at one time. All buffers are kept between uses: see [`Candidates::clear`].
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// One row: the fields that all have in common; none before a request was started.
    pub common: Columns,
    /// A row for each candidate: its own fields.
    pub own: Columns,
    /// One for each look into the history. A look for the newest has one list, that of all candidates; a look by category has one for
    /// each group.
    pub histories: Vec<Histories>,
    /// `[size]`: candidates of one category are one group. Groups are numbered in the order of their first candidates.
    pub groups: Vec<u32>,
    /// `[size]`.
    pub about: Vec<About>,
    /// The group of each category; `None` is that of items without one.
    numbers: Map<Option<u64>, u32>,
}

impl Columns {
    fn new(lists: usize) -> Self {
        let mut columns = Self { lists: vec![Ragged::default(); lists], ..Self::default() };
        columns.clear();
        columns
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.numbers.clear();
        for list in &mut self.lists {
            list.keys.clear();
            list.starts.clear();
            list.starts.push(0);
        }
    }
}

impl Candidates {
    /// Creates an empty set for a schema.
    pub fn new(schema: &Schema) -> Self {
        let lists = schema.list_fields();
        let own = lists.iter().filter(|&&field| schema.is_own(field)).count();
        let mut candidates = Self {
            common: Columns::new(lists.len() - own),
            own: Columns::new(own),
            histories: vec![Histories::default(); schema.lookups.len()],
            ..Self::default()
        };
        candidates.clear();
        candidates
    }

    /// Returns how many candidates there are.
    pub fn size(&self) -> usize {
        self.about.len()
    }

    /// Tells whether there is no candidate.
    pub fn is_empty(&self) -> bool {
        self.about.is_empty()
    }

    /// Removes all candidates and what they have in common, and keeps the memory.
    pub fn clear(&mut self) {
        self.common.clear();
        self.own.clear();
        self.groups.clear();
        self.about.clear();
        self.numbers.clear();
        self.histories.iter_mut().for_each(Histories::clear);
    }

    /// Puts the next candidate into the group of its category. Returns whether the group is new: its lists are then to be added.
    pub fn join(&mut self, category: Option<u64>) -> bool {
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        let group = *self.numbers.entry(category).or_insert(next);
        self.groups.push(group);
        group == next
    }

    /// Adds the same examples to a batch, with everything repeated and all labels masked: what scoring them one by one reads.
    ///
    /// # Panics
    /// When the candidates or the batch were made for another schema.
    pub fn expand(&self, schema: &Schema, batch: &mut Batch) {
        let own = |field: &usize| schema.is_own(*field);
        for (row, about) in self.about.iter().enumerate() {
            let fields = schema.key_fields();
            let (mut common, mut mine) = (0, row * fields.iter().filter(|f| own(f)).count());
            for field in &fields {
                let (keys, place) = match own(field) {
                    true => (&self.own.keys, &mut mine),
                    false => (&self.common.keys, &mut common),
                };
                batch.keys.push(keys[*place]);
                *place += 1;
            }
            let fields = schema.number_fields();
            let (mut common, mut mine) = (0, row * fields.iter().filter(|f| own(f)).count());
            for field in &fields {
                let (numbers, place) = match own(field) {
                    true => (&self.own.numbers, &mut mine),
                    false => (&self.common.numbers, &mut common),
                };
                batch.numbers.push(numbers[*place]);
                *place += 1;
            }
            let (mut common, mut mine) = (self.common.lists.iter(), self.own.lists.iter());
            for (field, into) in schema.list_fields().iter().zip(&mut batch.lists) {
                let (list, row) = match own(field) {
                    true => (mine.next(), row),
                    false => (common.next(), 0),
                };
                let list = list.expect("candidates of another schema");
                let entries = list.starts[row] as usize..list.starts[row + 1] as usize;
                into.keys.extend_from_slice(&list.keys[entries]);
                into.starts.push(u32::try_from(into.keys.len()).unwrap_or(u32::MAX));
            }
            for (lookup, (from, into)) in
                schema.lookups.iter().zip(self.histories.iter().zip(&mut batch.histories))
            {
                let list = match lookup {
                    Lookup::Newest { .. } => 0,
                    Lookup::Matching { .. } => self.groups[row] as usize,
                };
                let entries = from.starts[list] as usize..from.starts[list + 1] as usize;
                into.items.extend_from_slice(&from.items[entries.clone()]);
                into.categories.extend_from_slice(&from.categories[entries.clone()]);
                into.gaps.extend_from_slice(&from.gaps[entries]);
                into.starts.push(u32::try_from(into.items.len()).unwrap_or(u32::MAX));
            }
            batch.labels.extend(std::iter::repeat_n(0.0, schema.tasks));
            batch.modes.extend(std::iter::repeat_n(LabelMode::Masked, schema.tasks));
            batch.groups.push(u32::try_from(batch.about.len()).unwrap_or(u32::MAX));
            batch.about.push(*about);
        }
    }
}
