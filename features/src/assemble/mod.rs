//! Impressions become examples: features as of the impression's time, the user's behaviours strictly before it, labels.
//!
//! ```text
//! impression or candidate + catalogue + counters --snapshot--> FieldValues     (when it arrives; kept while it is open)
//! FieldValues + history + labels                 --append----> a row of a Batch (when labels are known)
//! ```
//!
//! Learning and answering use the same functions for a column and for a look into the history, so both see the same rows; the candidates of
//! a request hold what they have in common once ([`Assembler::start`], [`Assembler::add`]).
//!
//! A row holds what was knowable when its impression happened: the table "As of" in the crate's README says for each value which moment that is, and
//! why.

mod columns;
mod history;
mod needs;
mod negatives;
mod request;
mod values;

#[cfg(test)]
mod tests;

pub use columns::MOST_LIST_ENTRIES;
pub use history::{History, Past, UserHistory};
pub use needs::{Needs, Owner};
pub use negatives::{Negatives, sampling_rate};
pub use values::{FieldValues, ValuePool};

use columns::{Column, Cross, Given, MISSING, gap_id};

use crate::attributes::{AttributeKey, Attributes, Value};
use crate::attribution::{Labels, Opened};
use crate::catalogue::{Catalogue, Found};
use crate::counters::{Counters, Subjects};
use crate::example::{About, Batch, Histories};
use crate::ids::{EventId, ItemId, UserId, salted_key};
use crate::schema::{EventField, Lookup, Schema, Source};
use crate::sequence::{KindNumbers, Kinds};
use crate::time::EventTime;

/// What is shown to whom: an impression, or a candidate of a request at the request's time.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The user.
    pub user: UserId,
    /// The item.
    pub item: ItemId,
    /// When. Nothing later is read.
    pub time: EventTime,
    /// The id of the surface's text ([`crate::ids::stable_hash`]).
    pub surface: Option<u64>,
    /// Place in the answer.
    pub position: Option<u32>,
    /// Further circumstances.
    pub context: &'a Attributes,
    /// The item was first seen within the configured span before `time`.
    pub new_item: bool,
}

/// What is known of items, users and rates.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Items.
    pub items: &'a Catalogue,
    /// Users.
    pub users: &'a Catalogue,
    /// Counters of the schema.
    pub counters: &'a Counters,
}

/// How well item, user and counts were known as of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The item.
    pub item: Found,
    /// The user.
    pub user: Found,
    /// Every counter could be told.
    pub counters: bool,
}

/// An example to be: a snapshot and what became of it. Its history is read strictly before the time of the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// Features as of a time.
    pub values: &'a FieldValues,
    /// The impression, 0 for a candidate.
    pub impression: EventId,
    /// The user.
    pub user: UserId,
    /// The item.
    pub item: ItemId,
    /// Labels; [`Labels::default`] masks all tasks.
    pub labels: Labels,
}

impl<'a> Labelled<'a> {
    /// Returns the example of an open impression, whose features are `values`.
    pub fn of<T>(opened: &Opened<T>, values: &'a FieldValues, labels: Labels) -> Self {
        Self { values, impression: opened.id, user: opened.user, item: opened.item, labels }
    }
}

/// Makes examples as a schema declares them.
#[derive(Clone, Debug)]
pub struct Assembler {
    keys: Vec<Column>,
    crosses: Vec<Cross>,
    lists: Vec<Column>,
    numbers: Vec<Column>,
    /// For each counter the number columns that read it.
    counted: Vec<Vec<usize>>,
    /// The place of each number column among those that are a candidate's own, or among the others.
    number_places: Vec<usize>,
    lookups: Vec<Lookup>,
    read: Kinds,
    category: AttributeKey,
    /// The attribute of items that says whether they can be had.
    available: AttributeKey,
    item_salt: u64,
    category_salt: u64,
    gap_salt: u64,
    tasks: usize,
}

impl Assembler {
    /// Creates the assembler of a schema. `category` names the attribute of items that is their category; `kinds` numbers the behaviours of the
    /// histories.
    ///
    /// # Panics
    /// When a field or history names a table that the schema does not have.
    pub fn new(schema: &Schema, category: AttributeKey, kinds: &KindNumbers) -> Self {
        let columns = |fields: Vec<usize>| -> Vec<Column> {
            fields.into_iter().map(|field| Column::new(schema, field)).collect()
        };
        let keys = schema.key_fields();
        let numbers = columns(schema.number_fields());
        let counted = (0..schema.counters.len()).map(|counter| {
            let reads = |column: &Column| column.source == Source::Counter(counter);
            (0..numbers.len()).filter(|&i| reads(&numbers[i])).collect()
        });
        Self {
            crosses: (0..keys.len()).filter_map(|i| Cross::new(schema, &keys, i)).collect(),
            keys: columns(keys),
            lists: columns(schema.list_fields()),
            counted: counted.collect(),
            number_places: (0..numbers.len())
                .map(|i| numbers[..i].iter().filter(|column| column.own == numbers[i].own).count())
                .collect(),
            numbers,
            lookups: schema.lookups.clone(),
            read: kinds.among(&schema.read),
            category,
            available: AttributeKey::of("available"),
            item_salt: schema.tables[schema.item_table].salt(),
            category_salt: schema.tables[schema.category_table].salt(),
            gap_salt: schema.tables[schema.gap_table].salt(),
            tasks: schema.tasks,
        }
    }

    /// Names the attribute of items that says whether they can be had, where it is not `available`.
    pub fn offering(self, available: AttributeKey) -> Self {
        Self { available, ..self }
    }

    /// Returns an empty batch with the columns of the schema.
    pub fn batch(&self) -> Batch {
        Batch::new(self.lists.len(), self.lookups.len())
    }

    /// Writes the features of what is shown, as of its time, into `values`.
    pub fn snapshot(
        &self,
        shown: &Shown<'_>,
        known: &Known<'_>,
        values: &mut FieldValues,
    ) -> Looked {
        known.items.as_of(shown.item.0, shown.time, |item, item_features| {
            known.users.as_of(shown.user.0, shown.time, |user, user_features| {
                let sources = Sources {
                    shown,
                    item: item_features,
                    user: user_features,
                    counters: known.counters,
                    subjects: Subjects {
                        item: shown.item.0,
                        user: shown.user.0,
                        category: item_features
                            .and_then(|features| features.get(self.category)?.category()),
                        surface: shown.surface,
                    },
                };
                let offered = known.items.is_offered(item, item_features, self.available);
                let counters = self.fill(&sources, offered, values);
                Looked { item, user, counters }
            })
        })
    }

    /// Adds an example to a batch, looking into its user's behaviours strictly before its time.
    pub fn append(&self, example: &Labelled<'_>, history: &impl History, batch: &mut Batch) {
        for (lookup, histories) in self.lookups.iter().zip(&mut batch.histories) {
            self.look(lookup, example.values.category(), example.values.time(), history, histories);
        }
        self.append_rest(example, batch);
    }

    /// Adds an example of the same user and time as the last one of the batch (candidates of a request, sampled negatives): the
    /// newest behaviours are copied from it instead of being looked up again.
    ///
    /// # Panics
    /// When the last example is of another user or time, or there is none.
    pub fn append_alike(&self, example: &Labelled<'_>, history: &impl History, batch: &mut Batch) {
        let last = batch.about.last().map(|about| (about.user, about.time));
        assert!(
            last == Some((example.user, example.values.time())),
            "expected the user and time of the batch's last example {last:?}, found {:?}: append it by itself",
            (example.user, example.values.time())
        );
        for (lookup, histories) in self.lookups.iter().zip(&mut batch.histories) {
            match lookup {
                Lookup::Newest { .. } => repeat_last(histories),
                Lookup::Matching { .. } => {
                    self.look(
                        lookup,
                        example.values.category(),
                        example.values.time(),
                        history,
                        histories,
                    );
                }
            }
        }
        self.append_rest(example, batch);
    }

    fn append_rest(&self, example: &Labelled<'_>, batch: &mut Batch) {
        example.values.write(self.shape(), batch);
        for task in 0..self.tasks {
            batch.labels.push(example.labels.label(task));
            batch.modes.push(example.labels.mode(task));
        }
        batch.groups.push(u32::try_from(batch.about.len()).unwrap_or(u32::MAX));
        batch.about.push(About {
            impression: example.impression,
            user: example.user,
            item: example.item,
            time: example.values.time(),
            new_item: example.values.new_item(),
            offered: example.values.offered(),
        });
    }

    fn shape(&self) -> values::Shape {
        values::Shape {
            keys: self.keys.len(),
            lists: self.lists.len(),
            numbers: self.numbers.len(),
        }
    }

    /// Returns false where a counter cannot be told any more.
    fn fill(&self, sources: &Sources<'_>, offered: bool, values: &mut FieldValues) -> bool {
        let time = sources.shown.time;
        let subjects = &sources.subjects;
        let new_item = sources.shown.new_item;
        let Subjects { category, surface, .. } = *subjects;
        values.start(self.shape(), category, surface, new_item, offered, time);
        for (i, column) in self.keys.iter().enumerate() {
            values.set_key(i, column.key(sources.given(&column.source), time));
        }
        for cross in &self.crosses {
            values.set_key(cross.place.column, cross.key(|part| values.key(part.column)));
        }
        for (i, column) in self.numbers.iter().enumerate() {
            if !matches!(column.source, Source::Counter(_)) {
                values.set_number(self.shape(), i, column.number(sources.given(&column.source)));
            }
        }
        let set = |i, number| values.set_number(self.shape(), i, number);
        let told = self.read_counters(sources, set);
        for (i, column) in self.lists.iter().enumerate() {
            column.list(sources.given(&column.source), |key| values.push_list_key(key));
            values.end_list(self.shape(), i);
        }
        told
    }

    /// Calls `see` with each number column that reads a counter, and its number. Returns false where one cannot be told any more.
    fn read_counters(&self, sources: &Sources<'_>, mut see: impl FnMut(usize, f32)) -> bool {
        sources.counters.read_all(
            &sources.subjects,
            sources.item,
            sources.shown.time,
            |counter, number| {
                let given =
                    number.map_or(Given::Nothing, |number| Given::Number(f64::from(number)));
                for &i in self.counted.get(counter).into_iter().flatten() {
                    see(i, self.numbers[i].number(given));
                }
            },
        )
    }

    fn look(
        &self,
        lookup: &Lookup,
        category: Option<u64>,
        time: EventTime,
        history: &impl History,
        into: &mut Histories,
    ) {
        let start = into.items.len();
        let visit = |past: Past| {
            into.items.push(salted_key(self.item_salt, past.item));
            let category = past.category.unwrap_or(MISSING);
            into.categories.push(salted_key(self.category_salt, category));
            let gap = gap_id(time - past.time);
            into.gaps.push(salted_key(self.gap_salt, gap));
        };
        match *lookup {
            Lookup::Newest { limit } => history.newest(time, limit, &self.read, visit),
            Lookup::Matching { limit } => {
                if let Some(category) = category {
                    history.matching(category, time, limit, &self.read, visit);
                }
            }
        }
        // Read from the newest back, kept with the newest last.
        into.items[start..].reverse();
        into.categories[start..].reverse();
        into.gaps[start..].reverse();
        into.starts.push(u32::try_from(into.items.len()).unwrap_or(u32::MAX));
    }
}

/// Adds the last list again.
fn repeat_last(histories: &mut Histories) {
    let [.., start, end] = histories.starts[..] else { return };
    let last = start as usize..end as usize;
    histories.items.extend_from_within(last.clone());
    histories.categories.extend_from_within(last.clone());
    histories.gaps.extend_from_within(last);
    histories.starts.push(end + (end - start));
}

/// Everything that fields may be read from.
struct Sources<'a> {
    shown: &'a Shown<'a>,
    item: Option<&'a Attributes>,
    user: Option<&'a Attributes>,
    counters: &'a Counters,
    subjects: Subjects,
}

impl<'a> Sources<'a> {
    /// Returns what a source gives; a cross is made of the other columns.
    fn given(&self, source: &Source) -> Given<'a> {
        let attribute = |attributes: Option<&'a Attributes>, key| match attributes
            .and_then(|attributes| attributes.get(key))
        {
            None => Given::Nothing,
            Some(Value::Number(number)) => Given::Number(*number),
            Some(value) => Given::Value(value),
        };
        let id = |id: Option<u64>| id.map_or(Given::Nothing, Given::Id);
        match *source {
            Source::Event(EventField::User) => Given::Id(self.shown.user.0),
            Source::Event(EventField::Item) => Given::Id(self.shown.item.0),
            Source::Event(EventField::Category) => id(self.subjects.category),
            Source::Event(EventField::Surface) => id(self.subjects.surface),
            Source::Event(EventField::Position) => {
                let position = self.shown.position;
                position.map_or(Given::Nothing, |position| Given::Number(f64::from(position)))
            }
            Source::Event(EventField::Time) => Given::Number(self.shown.time.0 as f64),
            Source::Context(key) => attribute(Some(self.shown.context), key),
            Source::Item(key) => attribute(self.item, key),
            Source::User(key) => attribute(self.user, key),
            // For key columns: number columns read all counters together.
            Source::Counter(counter) => self
                .counters
                .read(counter, &self.subjects, self.item, self.shown.time)
                .map_or(Given::Nothing, |number| Given::Number(f64::from(number))),
            Source::Cross(_) => Given::Nothing,
        }
    }
}
