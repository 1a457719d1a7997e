//! How a value becomes a key, a list of keys or a number, as its field declares.

use crate::attributes::{Value, number_id};
use crate::ids::salted_key;
use crate::schema::{Field, GAP_BUCKETS, Kind, Missing, Schema, Source};
use crate::time::{EventTime, Span};

/// A list field reads at most so many entries.
pub const MOST_LIST_ENTRIES: usize = 512;

/// The id that stands for "missing" in every table. Ids of texts are 64 bits wide, ids of buckets start at 2^20.
pub(super) const MISSING: u64 = 0x6d69;

/// Bounds of number columns.
const LARGEST: f64 = 16.0;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// What a source gives for a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given<'a> {
    /// The value is missing.
    Nothing,
    /// An id.
    Id(u64),
    /// A number.
    Number(f64),
    /// An attribute that is no number.
    Value(&'a Value),
}

impl Given<'_> {
    fn category(self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Id(id) => Some(id),
            Self::Number(number) => Some(number_id(number)),
            Self::Value(value) => value.category(),
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Value(value) => value.number(),
            Self::Nothing | Self::Id(_) => None,
        }
    }
}

/// A field with its table's salt at hand.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) source: Source,
    kind: Kind,
    salt: u64,
    missing: Missing,
    /// See [`Schema::is_own`].
    pub(super) own: bool,
}

impl Column {
    pub(super) fn new(schema: &Schema, field: usize) -> Self {
        let own = schema.is_own(field);
        let field: &Field = &schema.fields[field];
        let salt = if field.is_number() { 0 } else { schema.tables[field.table].salt() };
        Self { source: field.source.clone(), kind: field.kind, salt, missing: field.missing, own }
    }

    /// Returns the key of a value as of `time`.
    pub(super) fn key(&self, given: Given<'_>, time: EventTime) -> u64 {
        let id = self.id(given, time).or_else(|| match self.missing {
            Missing::Value(number) => self.id(Given::Number(f64::from(number)), time),
            Missing::Own | Missing::Zero => None,
        });
        match id {
            Some(id) => salted_key(self.salt, id),
            None if self.missing == Missing::Zero => 0,
            None => salted_key(self.salt, MISSING),
        }
    }

    /// Returns a value as a number column has it; a missing one is 0 where no number was declared for it.
    pub(super) fn number(&self, given: Given<'_>) -> f32 {
        let number = given.number().or(match self.missing {
            Missing::Value(number) => Some(f64::from(number)),
            Missing::Own | Missing::Zero => None,
        });
        let Some(number) = number else { return 0.0 };
        let (number, scale, shift) = match self.kind {
            Kind::Number { scale, shift } => (number, scale, shift),
            Kind::Log { scale, shift } => (number.max(0.0).ln_1p(), scale, shift),
            _ => (number, 1.0, 0.0),
        };
        (number * f64::from(scale) + f64::from(shift)).clamp(-LARGEST, LARGEST) as f32
    }

    /// Calls `push` with the key of each entry of a list. An empty list is a missing one; a single value is a list of one.
    pub(super) fn list(&self, given: Given<'_>, mut push: impl FnMut(u64)) {
        let one;
        let ids = match given {
            Given::Value(Value::List(ids)) => &ids[..],
            given => {
                one = given.category();
                one.as_slice()
            }
        };
        for &id in ids.iter().take(MOST_LIST_ENTRIES) {
            push(salted_key(self.salt, id));
        }
        if ids.is_empty() {
            match self.missing {
                Missing::Zero => {}
                Missing::Own => push(salted_key(self.salt, MISSING)),
                Missing::Value(number) => {
                    push(salted_key(self.salt, number_id(f64::from(number))));
                }
            }
        }
    }

    fn id(&self, given: Given<'_>, time: EventTime) -> Option<u64> {
        match self.kind {
            Kind::Category | Kind::List | Kind::Number { .. } | Kind::Log { .. } => {
                given.category()
            }
            Kind::LogBucket { scale, buckets } => {
                let number = (given.number()? * f64::from(scale)).max(0.0);
                Some(small_id(i64::from(floor_log2(1.0 + number).min(buckets.saturating_sub(1)))))
            }
            Kind::Steps { scale, buckets } => {
                let (most, middle) = (f64::from(buckets.saturating_sub(1)), f64::from(buckets / 2));
                let step = (given.number()? * f64::from(scale)).floor() + middle;
                Some(small_id(step.clamp(0.0, most) as i64))
            }
            Kind::Hour => Some(small_id(instant(given)?.rem_euclid(DAY) / HOUR)),
            // The first day of 1970 was a Thursday; Monday is 0.
            Kind::Weekday => Some(small_id((instant(given)?.div_euclid(DAY) + 3).rem_euclid(7))),
            Kind::Age { unit, most } => {
                let age = (time.0 - instant(given)?).div_euclid(unit.0.max(1));
                Some(small_id(age.clamp(0, i64::from(most))))
            }
        }
    }
}

/// Where a key column is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Among all key columns.
    pub(super) column: usize,
    /// Whether it is a candidate's own, see [`Schema::is_own`].
    pub(super) own: bool,
    /// Among the key columns of which that is equally true.
    pub(super) beside: usize,
}

impl Place {
    fn new(schema: &Schema, keys: &[usize], column: usize) -> Self {
        let own = schema.is_own(keys[column]);
        let beside = keys[..column].iter().filter(|&&key| schema.is_own(key) == own).count();
        Self { column, own, beside }
    }
}

/// A key column made of others.
#[derive(Clone, Debug)]
pub(super) struct Cross {
    pub(super) place: Place,
    parts: Vec<Place>,
    salt: u64,
}

impl Cross {
    /// Returns the cross of the `column`-th key field, `None` where that is no cross.
    pub(super) fn new(schema: &Schema, keys: &[usize], column: usize) -> Option<Self> {
        let field = &schema.fields[keys[column]];
        let Source::Cross(fields) = &field.source else { return None };
        let part = |&field: &usize| {
            let column = keys.iter().position(|&key| key == field)?;
            Some(Place::new(schema, keys, column))
        };
        let parts = fields.iter().filter_map(part).collect();
        let place = Place::new(schema, keys, column);
        Some(Self { place, parts, salt: schema.tables[field.table].salt() })
    }

    /// Returns the key of a combination, given the keys of the columns: 0 where one of its parts is nothing.
    pub(super) fn key(&self, key_of: impl Fn(Place) -> u64) -> u64 {
        let mut key = self.salt;
        for &part in &self.parts {
            match key_of(part) {
                0 => return 0,
                id => key = salted_key(key, id),
            }
        }
        key
    }
}

/// Returns `floor(log2(x))` for a finite `x` of at least 1, exactly: it is the exponent of the number.
fn floor_log2(x: f64) -> u32 {
    let exponent = (x.to_bits() >> 52) & 0x7ff;
    u32::try_from(exponent.saturating_sub(1023)).unwrap_or(0)
}

/// Returns the id of a bucket, for all tables.
pub(super) fn small_id(bucket: i64) -> u64 {
    (1 << 20) + bucket.unsigned_abs()
}

/// Returns the id of the bucket of the time between a behaviour and the impression: `min(floor(log2(1 + seconds)), GAP_BUCKETS - 1)`.
pub(super) fn gap_id(gap: Span) -> u64 {
    let seconds = gap.0.max(0) as f64 / 1000.0;
    small_id(i64::from(floor_log2(1.0 + seconds).min(GAP_BUCKETS - 1)))
}

/// Returns a number as milliseconds since 1970, within the range of event times.
fn instant(given: Given<'_>) -> Option<i64> {
    let number = given.number()?.clamp(EventTime::MIN.0 as f64, EventTime::MAX.0 as f64);
    Some(number as i64)
}
