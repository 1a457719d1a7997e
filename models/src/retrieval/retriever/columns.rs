//! Which columns of a batch a tower reads, and copies of them.
//!
//! A vector must not depend on the moment or the place of a request: user and item are described by
//! their ids, their features and the user's newest behaviours. Context, surface, position, time,
//! counters, ages and crosses stay out.

use serde::{Deserialize, Serialize};
use sluice_features::example::{Batch, Ragged};
use sluice_features::schema::{EventField, Field, Kind, Lookup, Schema, Source};

/// One of the two towers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    User,
    Item,
}

/// The columns of both towers, decided once from the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) user: SideColumns,
    pub(super) item: SideColumns,
    /// The salts of the tables with the users' and the items' own rows, where they have one.
    pub(super) user_id: Option<u64>,
    pub(super) item_id: Option<u64>,
}

/// The columns of one tower, by their places in a [`Batch`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SideColumns {
    /// Key columns, and how many the batch has.
    keys: Vec<usize>,
    all_keys: usize,
    lists: Vec<usize>,
    /// Number columns, and how many the batch has.
    numbers: Vec<usize>,
    all_numbers: usize,
    /// A look into the history, and how many of the newest of it are read.
    history: Option<(usize, usize)>,
}

impl Columns {
    /// `history` bounds the behaviours that are read.
    pub(super) fn new(schema: &Schema, history: usize) -> Self {
        let newest = |lookup: &Lookup| matches!(lookup, Lookup::Newest { .. });
        let look = schema.lookups.iter().position(newest).filter(|_| history > 0);
        let mut user = SideColumns::new(schema, Side::User);
        user.history = look.map(|look| (look, history));
        let salt = |id: EventField| {
            let mut keys = schema.key_fields().into_iter().map(|field| &schema.fields[field]);
            let own = keys.find(|f| f.source == Source::Event(id) && f.kind == Kind::Category);
            own.map(|field| schema.tables[field.table].salt())
        };
        Self {
            user,
            item: SideColumns::new(schema, Side::Item),
            user_id: salt(EventField::User),
            item_id: salt(EventField::Item),
        }
    }
}

impl SideColumns {
    fn new(schema: &Schema, side: Side) -> Self {
        let pick = |fields: Vec<usize>| -> (Vec<usize>, usize) {
            let of = |&(_, &field): &(usize, &usize)| side_of(&schema.fields[field]) == Some(side);
            let mine = fields.iter().enumerate().filter(of).map(|(column, _)| column);
            (mine.collect(), fields.len())
        };
        let (keys, all_keys) = pick(schema.key_fields());
        let (lists, _) = pick(schema.list_fields());
        let (numbers, all_numbers) = pick(schema.number_fields());
        Self { keys, all_keys, lists, numbers, all_numbers, history: None }
    }

    /// How many key columns are read.
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// How many means of rows are read: one for each list, two for the history.
    pub(super) fn means(&self) -> usize {
        self.lists.len() + if self.history.is_some() { 2 } else { 0 }
    }

    /// How many number columns are read.
    pub(super) fn numbers(&self) -> usize {
        self.numbers.len()
    }

    /// Replaces `packed` by what the tower reads of an example, as words: keys, numbers as their bits, and for each list its length and its
    /// keys. Lists of the history are no part of it. Tells whether all numbers are finite.
    pub(super) fn pack(&self, batch: &Batch, example: usize, packed: &mut Vec<u64>) -> bool {
        packed.clear();
        let keys = &batch.keys[example * self.all_keys..][..self.all_keys];
        packed.extend(self.keys.iter().map(|&column| keys[column]));
        let numbers = &batch.numbers[example * self.all_numbers..][..self.all_numbers];
        packed.extend(self.numbers.iter().map(|&column| u64::from(numbers[column].to_bits())));
        for &list in &self.lists {
            let keys = listed(&batch.lists[list], example);
            packed.push(keys.len() as u64);
            packed.extend_from_slice(keys);
        }
        self.numbers.iter().all(|&column| numbers[column].is_finite())
    }

    /// The width of the tower's input: `[keys * row | means * row | numbers]`.
    pub(super) fn width(&self, row: usize) -> usize {
        (self.keys() + self.means()) * row + self.numbers()
    }
}

/// Which tower reads a field, if any does.
fn side_of(field: &Field) -> Option<Side> {
    if matches!(field.kind, Kind::Age { .. }) {
        return None;
    }
    match field.source {
        Source::User(_) | Source::Event(EventField::User) => Some(Side::User),
        Source::Item(_) | Source::Event(EventField::Item | EventField::Category) => {
            Some(Side::Item)
        }
        Source::Event(EventField::Surface | EventField::Position | EventField::Time)
        | Source::Context(_)
        | Source::Counter(_)
        | Source::Cross(_) => None,
    }
}

/// What one tower reads of some examples. Its memory is kept between uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    size: usize,
    /// `[size, keys]`
    pub(super) keys: Vec<u64>,
    /// The lists, then the items and the categories of the newest behaviours.
    pub(super) lists: Vec<Entries>,
    /// `[size, numbers]`
    pub(super) numbers: Vec<f32>,
}

/// An example's keys in a list.
fn listed(list: &Ragged, example: usize) -> &[u64] {
    &list.keys[list.starts[example] as usize..list.starts[example + 1] as usize]
}

/// Keys of rows whose mean is read: those of example `i` are `keys[starts[i]..starts[i + 1]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Entries {
    /// `[size + 1]`
    pub(super) starts: Vec<u32>,
    pub(super) keys: Vec<u64>,
}

impl Facts {
    /// Creates facts about no example.
    pub(super) fn new(columns: &SideColumns) -> Self {
        let none = Entries { starts: vec![0], keys: Vec::new() };
        Self { lists: vec![none; columns.means()], ..Self::default() }
    }

    /// How many examples there are.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Becomes a copy of others.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.size = other.size;
        self.keys.clone_from(&other.keys);
        self.numbers.clone_from(&other.numbers);
        self.lists.resize_with(other.lists.len(), Entries::default);
        for (list, other) in self.lists.iter_mut().zip(&other.lists) {
            list.starts.clone_from(&other.starts);
            list.keys.clone_from(&other.keys);
        }
    }

    /// Adds an example from its words ([`SideColumns::pack`]).
    pub(super) fn push_packed(&mut self, columns: &SideColumns, packed: &[u64]) {
        self.size += 1;
        let (keys, rest) = packed.split_at(columns.keys());
        let (numbers, mut lists) = rest.split_at(columns.numbers());
        self.keys.extend_from_slice(keys);
        self.numbers.extend(numbers.iter().map(|&bits| f32::from_bits(bits as u32)));
        for entries in self.lists.iter_mut().take(columns.lists.len()) {
            let (length, rest) = lists.split_at(1);
            let (keys, rest) = rest.split_at(length[0] as usize);
            entries.push(keys);
            lists = rest;
        }
    }

    /// Forgets all examples.
    pub(super) fn clear(&mut self) {
        self.size = 0;
        self.keys.clear();
        self.numbers.clear();
        for list in &mut self.lists {
            list.starts.truncate(1);
            list.keys.clear();
        }
    }

    /// Copies what the tower reads of an example.
    pub(super) fn push(&mut self, columns: &SideColumns, batch: &Batch, example: usize) {
        self.size += 1;
        let keys = &batch.keys[example * columns.all_keys..][..columns.all_keys];
        self.keys.extend(columns.keys.iter().map(|&column| keys[column]));
        let numbers = &batch.numbers[example * columns.all_numbers..][..columns.all_numbers];
        self.numbers.extend(columns.numbers.iter().map(|&column| numbers[column]));
        let (lists, behaviours) = self.lists.split_at_mut(columns.lists.len());
        for (entries, &list) in lists.iter_mut().zip(&columns.lists) {
            entries.push(listed(&batch.lists[list], example));
        }
        if let (Some((look, most)), [items, categories]) = (columns.history, behaviours) {
            let history = &batch.histories[look];
            let end = history.starts[example + 1] as usize;
            let start = (history.starts[example] as usize).max(end.saturating_sub(most));
            items.push(&history.items[start..end]);
            categories.push(&history.categories[start..end]);
        }
    }

    /// Whether words are those of an example of these columns.
    pub(super) fn fits_packed(columns: &SideColumns, packed: &[u64]) -> bool {
        let Some(mut lists) = packed.get(columns.keys() + columns.numbers()..) else {
            return false;
        };
        for _ in &columns.lists {
            let rest = lists.split_first().and_then(|(&length, rest)| {
                usize::try_from(length).ok().and_then(|length| rest.get(length..))
            });
            let Some(rest) = rest else { return false };
            lists = rest;
        }
        lists.is_empty()
    }

    /// Whether all parts have the lengths that `size` examples of these columns have.
    pub(super) fn fits(&self, columns: &SideColumns, size: usize) -> bool {
        self.size == size
            && self.keys.len() == size * columns.keys()
            && self.numbers.len() == size * columns.numbers()
            && self.lists.len() == columns.means()
            && self.lists.iter().all(|entries| entries.fits(size))
    }
}

impl Entries {
    fn push(&mut self, keys: &[u64]) {
        self.keys.extend_from_slice(keys);
        self.starts.push(u32::try_from(self.keys.len()).unwrap_or(u32::MAX));
    }

    fn fits(&self, size: usize) -> bool {
        self.starts.len() == size + 1
            && self.starts[0] == 0
            && self.starts.is_sorted()
            && self.starts[size] as usize == self.keys.len()
    }
}
