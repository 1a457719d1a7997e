//! What a model reads of an impression: declared fields, named tables, counters and looks into the history.
//!
//! Fields are declared in the configuration, never coded. Every field ends up in one of three places of an
//! [`crate::example::Batch`]: a *key column* (one table row), a *list* (the mean of several rows), or a *number column*.

use serde::{Deserialize, Serialize};

use crate::attributes::AttributeKey;
use crate::ids::salted_hash;
use crate::time::Span;

/// Where a field's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The impression itself.
    Event(EventField),
    /// The impression's context.
    Context(AttributeKey),
    /// The item's features as of the impression.
    Item(AttributeKey),
    /// The user's features as of the impression.
    User(AttributeKey),
    /// A counter, by its index in [`Schema::counters`].
    Counter(usize),
    /// The keys of several other key fields together, by their indices in [`Schema::fields`]: a category for each combination. None of
    /// them is a cross itself. Where one of them is nothing (key 0), the cross is nothing.
    Cross(Vec<usize>),
}

/// A part of the impression itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventField {
    /// The user's id.
    User,
    /// The item's id.
    Item,
    /// The item's category, as the catalogue has it.
    Category,
    /// Page or place.
    Surface,
    /// Place in the answer.
    Position,
    /// The event time.
    Time,
}

/// How a value becomes a key or a number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One category: text, or a number by its shortest decimal text.
    Category,
    /// Several categories; the field is the mean of their rows. At most 512.
    List,
    /// A number as it is: `clamp(value * scale + shift, -16, 16)`.
    Number {
        /// Factor.
        scale: f32,
        /// Summand.
        shift: f32,
    },
    /// The logarithm of a number: `clamp(ln(1 + value) * scale + shift, -16, 16)`. Negative values count as 0.
    Log {
        /// Factor.
        scale: f32,
        /// Summand.
        shift: f32,
    },
    /// `floor(log2(1 + value * scale))`, between 0 and `buckets - 1`, as a category. Negative values count as 0.
    LogBucket {
        /// Factor.
        scale: f32,
        /// How many buckets.
        buckets: u32,
    },
    /// A number in equal steps around 0: `floor(value * scale) + buckets / 2`, between 0 and `buckets - 1`, as a category.
    Steps {
        /// How many steps a unit has.
        scale: f32,
        /// How many buckets.
        buckets: u32,
    },
    /// Hour of the day of a time in milliseconds, UTC, as a category.
    Hour,
    /// Day of the week of a time in milliseconds, UTC, as a category.
    Weekday,
    /// Whole units between a time in milliseconds and the impression, between 0 and `most`, as a category.
    Age {
        /// The unit.
        unit: Span,
        /// The largest category.
        most: u32,
    },
}

impl Kind {
    /// Tells whether values become numbers.
    pub fn is_number(self) -> bool {
        matches!(self, Self::Number { .. } | Self::Log { .. })
    }
}

/// What a missing value means.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// A category of its own, with a row that is learned.
    Own,
    /// The zero vector, or nothing in the list.
    Zero,
    /// This number (number fields only).
    Value(f32),
}

/// A declared field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Its name in reports.
    pub name: String,
    /// Where its value comes from.
    pub source: Source,
    /// How the value becomes a key or a number.
    pub kind: Kind,
    /// Index of its table in [`Schema::tables`]; not used by number fields.
    pub table: usize,
    /// What a missing value means.
    pub missing: Missing,
}

impl Field {
    /// Tells whether the field is a number column.
    pub fn is_number(&self) -> bool {
        let stepped = matches!(self.kind, Kind::Steps { .. });
        self.kind.is_number() || matches!(self.source, Source::Counter(_)) && !stepped
    }

    /// Tells whether the field is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.kind, Kind::List)
    }
}

/// A named embedding table. Fields that name the same table share its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Width of its rows; 0: its keys have no row, and only the crossing `linear` reads them.
    pub width: usize,
}

impl Table {
    /// Returns the salt by which ids become keys of this table ([`crate::ids::salted_key`]).
    pub fn salt(&self) -> u64 {
        salted_hash(0x736c_7569_6365, self.name.as_bytes())
    }
}

/// By what a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// The item.
    Item,
    /// The user.
    User,
    /// The item's category.
    Category,
    /// The surface.
    Surface,
}

/// Exponentially decayed counts of a task's outcomes and of the impressions behind them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counter {
    /// Index of the task; not used by [`Reading::Beside`].
    pub task: usize,
    /// One or several subjects: `[user, category]` counts for each pair.
    pub by: Vec<Subject>,
    /// After this much event time a count is worth half.
    pub half_life: Span,
    /// How many impressions at the overall rate stand in front of the counts ([`Reading::LogOdds`]).
    pub smoothing: f32,
    /// What the model reads of the counts.
    pub read: Reading,
}

/// What a model reads of a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// How often: the smoothed log-odds beside the overall ones.
    #[default]
    LogOdds,
    /// How much: `ln(1 + outcomes)`.
    Count,
    /// Whether there was any lately: `outcomes / (1 + outcomes)`, so that the first counts most.
    Any,
    /// No outcomes are counted but a number of the item, and what is read is how large it is beside the usual: the logarithm `ln(1 + number)`
    /// minus its decayed mean over the impressions. The price beside those of the category.
    Beside(AttributeKey),
}

/// A look into the user's history that an interest encoder asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lookup {
    /// The newest behaviours before the impression.
    Newest {
        /// At most so many.
        limit: usize,
    },
    /// The newest behaviours before the impression whose category is the candidate's (SIM's hard search).
    Matching {
        /// At most so many.
        limit: usize,
    },
}

/// All that a model reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// Fields in the order of their columns.
    pub fields: Vec<Field>,
    /// Tables that fields and histories name.
    pub tables: Vec<Table>,
    /// Counters that fields name.
    pub counters: Vec<Counter>,
    /// Looks into the history, in the order of [`crate::example::Batch::histories`].
    pub lookups: Vec<Lookup>,
    /// Which behaviours the looks read, by [`crate::event::BehaviourType`].
    pub read: Vec<bool>,
    /// Index of the table of behaviours' items.
    pub item_table: usize,
    /// Index of the table of behaviours' categories.
    pub category_table: usize,
    /// Index of the table of the time between behaviour and impression, in [`GAP_BUCKETS`] buckets.
    pub gap_table: usize,
    /// How many tasks an example has labels for.
    pub tasks: usize,
}

/// The time between a behaviour and the impression, in seconds `s`, is bucket `min(floor(log2(1 + s)), GAP_BUCKETS - 1)`.
pub const GAP_BUCKETS: u32 = 24;

impl Schema {
    /// Returns the indices of the fields with a key column, in the order of the columns.
    pub fn key_fields(&self) -> Vec<usize> {
        self.indices(|field| !field.is_number() && !field.is_list())
    }

    /// Returns the indices of the list fields, in the order of [`crate::example::Batch::lists`].
    pub fn list_fields(&self) -> Vec<usize> {
        self.indices(Field::is_list)
    }

    /// Returns the indices of the number fields, in the order of the columns.
    pub fn number_fields(&self) -> Vec<usize> {
        self.indices(Field::is_number)
    }

    /// Tells whether a field may differ between two candidates of one request: it is the item's or its category's, or counts by them. All
    /// other fields are the same for all candidates, none of which has a place yet.
    ///
    /// # Panics
    /// When there is no such field, or no counter that it names.
    pub fn is_own(&self, field: usize) -> bool {
        match &self.fields[field].source {
            Source::Item(_) | Source::Event(EventField::Item | EventField::Category) => true,
            Source::Counter(counter) => {
                let Counter { by, read, .. } = &self.counters[*counter];
                let of_item = by.contains(&Subject::Item) || by.contains(&Subject::Category);
                of_item || matches!(read, Reading::Beside(_))
            }
            Source::Cross(parts) => parts.iter().any(|&part| self.is_own(part)),
            Source::Event(_) | Source::Context(_) | Source::User(_) => false,
        }
    }

    /// Returns the key column that holds the candidate item, in the item table.
    pub fn target_item(&self) -> Option<usize> {
        self.key_column(self.item_table, |source| *source == Source::Event(EventField::Item))
    }

    /// Returns the key column that holds the candidate's category, in the category table.
    pub fn target_category(&self) -> Option<usize> {
        self.key_column(self.category_table, |source| {
            *source == Source::Event(EventField::Category)
        })
    }

    /// Returns the attributes of items that fields and counters read.
    pub fn item_attributes(&self) -> Vec<AttributeKey> {
        let fields = self.fields.iter().filter_map(|field| match field.source {
            Source::Item(key) => Some(key),
            _ => None,
        });
        let counters = self.counters.iter().filter_map(|counter| match counter.read {
            Reading::Beside(key) => Some(key),
            _ => None,
        });
        fields.chain(counters).collect()
    }

    /// Returns the attributes of users that fields read.
    pub fn user_attributes(&self) -> Vec<AttributeKey> {
        let of_user = |field: &Field| match field.source {
            Source::User(key) => Some(key),
            _ => None,
        };
        self.fields.iter().filter_map(of_user).collect()
    }

    /// Returns a hash of all that decides the meaning of columns and rows: a checkpoint belongs to one fingerprint.
    pub fn fingerprint(&self) -> u64 {
        // Struct and enum fields are written in their declared order, so the text is canonical.
        let text = serde_json::to_vec(self).unwrap_or_default();
        salted_hash(1, &text)
    }

    fn indices(&self, wanted: impl Fn(&Field) -> bool) -> Vec<usize> {
        (0..self.fields.len()).filter(|&i| wanted(&self.fields[i])).collect()
    }

    fn key_column(&self, table: usize, wanted: impl Fn(&Source) -> bool) -> Option<usize> {
        self.key_fields()
            .iter()
            .position(|&i| self.fields[i].table == table && wanted(&self.fields[i].source))
    }
}
