//! Declared fields: where their values come from, what kind they are, and their tables.

use std::ops::RangeInclusive;

use sluice_features::attributes::AttributeKey;
use sluice_features::schema::{EventField, Field, Kind, Missing, Source};
use sluice_features::time::Span;

use crate::config::check::{one_of, within};
use crate::config::file;
use crate::config::mistake::Mistakes;
use crate::config::tables::{GAP_NAME, Tables};

const EVENT_FIELDS: [(&str, EventField); 6] = [
    ("user", EventField::User),
    ("item", EventField::Item),
    ("category", EventField::Category),
    ("surface", EventField::Surface),
    ("position", EventField::Position),
    ("time", EventField::Time),
];

/// Reads a field of an event, an item or a user.
pub(super) fn declared(
    field: &file::Field,
    path: &str,
    tables: &mut Tables,
    mistakes: &mut Mistakes,
) -> Option<Field> {
    let key = if field.key.is_empty() { &field.name } else { &field.key };
    let source = source(field, key, path, mistakes);
    let kind = kind(field, path, mistakes);
    let (source, kind) = (source?, kind?);
    if let Source::Event(event) = &source {
        fits(*event, kind, &format!("{path}.kind"), mistakes);
    }
    let missing = missing(field, kind, &format!("{path}.missing"), mistakes);
    let table = if kind.is_number() {
        for (key, found) in [("table", !field.table.is_empty()), ("width", field.width.is_some())] {
            if found {
                mistakes.add(
                    format!("{path}.{key}"),
                    "a number has no table: remove it, or use kind = \"log-bucket\"",
                );
            }
        }
        0
    } else {
        table(field, matches!(kind, Kind::List), path, tables, mistakes)
    };
    Some(Field { name: field.name.clone(), source, kind, table, missing: missing? })
}

/// Returns the number of a field's table.
fn table(
    field: &file::Field,
    is_list: bool,
    path: &str,
    tables: &mut Tables,
    mistakes: &mut Mistakes,
) -> usize {
    let name = if field.table.is_empty() { &field.name } else { &field.table };
    if let Some(width) = field.width {
        // A list is a mean of rows, so it needs some.
        within(mistakes, &format!("{path}.width"), width, usize::from(is_list)..=1024);
    }
    if name == GAP_NAME {
        mistakes.add(format!("{path}.table"), "\"gap\" is the table of the time between behaviour and impression: choose another name");
    }
    tables.number(name, field.width, path, mistakes)
}

/// Reads a field that puts the number of a counter, whose field is one of `fields`, in steps.
pub(super) fn stepped(
    field: &file::Field,
    path: &str,
    fields: &[Field],
    tables: &mut Tables,
    mistakes: &mut Mistakes,
) -> Option<Field> {
    let numbers: Vec<_> = fields
        .iter()
        .filter_map(|field| match field.source {
            Source::Counter(number) => Some((field.name.as_str(), number)),
            _ => None,
        })
        .collect();
    let key = if field.key.is_empty() { &field.name } else { &field.key };
    let counter = one_of(mistakes, &format!("{path}.key"), key, &numbers);
    let kind = kind(field, path, mistakes)?;
    if !matches!(kind, Kind::Steps { .. }) {
        mistakes.add(
            format!("{path}.kind"),
            "expected steps for a counter, which is a number field by itself",
        );
    }
    let missing = missing(field, kind, &format!("{path}.missing"), mistakes)?;
    let table = table(field, false, path, tables, mistakes);
    let source = Source::Counter(counter?);
    Some(Field { name: field.name.clone(), source, kind, table, missing })
}

/// How many fields a cross has.
const CROSSED: RangeInclusive<usize> = 2..=4;

/// Reads a field that is made of others, which are `fields`.
pub(super) fn crossed(
    field: &file::Field,
    path: &str,
    fields: &[Field],
    tables: &mut Tables,
    mistakes: &mut Mistakes,
) -> Option<Field> {
    let given = [
        ("source", !field.source.is_empty()),
        ("key", !field.key.is_empty()),
        ("kind", field.kind != "category"),
        ("scale", field.scale.is_some()),
        ("shift", field.shift.is_some()),
        ("buckets", field.buckets.is_some()),
        ("unit", field.unit.is_some()),
        ("most", field.most.is_some()),
        ("missing", field.missing.is_some()),
    ];
    for (key, _) in given.iter().filter(|(_, given)| *given) {
        mistakes.add(
            format!("{path}.{key}"),
            "is not used by a cross, which has what its fields have: remove it",
        );
    }
    let here = format!("{path}.cross");
    within(mistakes, &here, field.cross.len(), CROSSED);
    let suit = |(_, part): &(usize, &Field)| !part.is_number() && !part.is_list();
    let known: Vec<_> = fields
        .iter()
        .enumerate()
        .filter(suit)
        .map(|(number, part)| (part.name.as_str(), number))
        .collect();
    let mut parts: Vec<usize> = Vec::new();
    for (j, name) in field.cross.iter().enumerate() {
        match one_of(mistakes, &format!("{here}.{j}"), name, &known) {
            Some(part) if parts.contains(&part) => {
                mistakes.add(format!("{here}.{j}"), "is named twice: name each once");
            }
            part => parts.extend(part),
        }
    }
    let table = table(field, false, path, tables, mistakes);
    let (name, source) = (field.name.clone(), Source::Cross(parts));
    Some(Field { name, source, kind: Kind::Category, table, missing: Missing::Own })
}

fn source(field: &file::Field, key: &str, path: &str, mistakes: &mut Mistakes) -> Option<Source> {
    let here = format!("{path}.source");
    match field.source.as_str() {
        "" => {
            mistakes.add(
                here,
                "expected event, context, item, user or counter, found none: say where the value comes from",
            );
            None
        }
        _ => {
            let choices = [("event", 0), ("context", 1), ("item", 2), ("user", 3)];
            match one_of(mistakes, &here, &field.source, &choices)? {
                0 => {
                    one_of(mistakes, &format!("{path}.key"), key, &EVENT_FIELDS).map(Source::Event)
                }
                1 => Some(Source::Context(AttributeKey::of(key))),
                2 => Some(Source::Item(AttributeKey::of(key))),
                _ => Some(Source::User(AttributeKey::of(key))),
            }
        }
    }
}

/// The keys that each kind takes, in the order of [`file::Field`].
const KIND_KEYS: [(&str, &[&str]); 9] = [
    ("category", &[]),
    ("list", &[]),
    ("number", &["scale", "shift"]),
    ("log", &["scale", "shift"]),
    ("log-bucket", &["scale", "buckets"]),
    ("steps", &["scale", "buckets"]),
    ("hour", &[]),
    ("weekday", &[]),
    ("age", &["unit", "most"]),
];

fn kind(field: &file::Field, path: &str, mistakes: &mut Mistakes) -> Option<Kind> {
    let keys = one_of(mistakes, &format!("{path}.kind"), &field.kind, &KIND_KEYS)?;
    let given = [
        ("scale", field.scale.is_some()),
        ("shift", field.shift.is_some()),
        ("buckets", field.buckets.is_some()),
        ("unit", field.unit.is_some()),
        ("most", field.most.is_some()),
    ];
    for (key, _) in given.iter().filter(|(key, given)| *given && !keys.contains(key)) {
        mistakes.add(
            format!("{path}.{key}"),
            format!("is not used by kind \"{}\": remove it", field.kind),
        );
    }
    let mut number = |key: &str, value: Option<f64>, default: f64| {
        let value = value.unwrap_or(default);
        within(mistakes, &format!("{path}.{key}"), value, NUMBERS);
        // Negative values of a logarithm count as 0.
        let (is_log, zero) = (field.kind == "log-bucket", value.abs() <= 0.0);
        if key == "scale" && (zero || is_log && value < 0.0) {
            let expected = if is_log { "more than 0" } else { "another number than 0" };
            let problem = format!(
                "expected {expected}, found {value}: the field would be the same whatever comes"
            );
            mistakes.add(format!("{path}.scale"), problem);
        }
        value as f32
    };
    Some(match field.kind.as_str() {
        "number" => Kind::Number {
            scale: number("scale", field.scale, 1.0),
            shift: number("shift", field.shift, 0.0),
        },
        "log" => Kind::Log {
            scale: number("scale", field.scale, 1.0),
            shift: number("shift", field.shift, 0.0),
        },
        "log-bucket" | "steps" => {
            let scale = number("scale", field.scale, 1.0);
            let buckets = field.buckets.unwrap_or(24);
            within(mistakes, &format!("{path}.buckets"), buckets, 2..=1024);
            if field.kind == "steps" {
                Kind::Steps { scale, buckets }
            } else {
                Kind::LogBucket { scale, buckets }
            }
        }
        "age" => {
            let unit = field.unit.map_or(DAY, |unit| unit.span());
            let most = field.most.unwrap_or(60);
            if unit.0 == 0 {
                mistakes.add(format!("{path}.unit"), "expected more than 0s, such as \"1d\"");
            }
            within(mistakes, &format!("{path}.most"), most, 1..=100_000);
            Kind::Age { unit, most }
        }
        "list" => Kind::List,
        "hour" => Kind::Hour,
        "weekday" => Kind::Weekday,
        _ => Kind::Category,
    })
}

/// What scales, shifts and numbers in place of missing ones may be.
const NUMBERS: RangeInclusive<f64> = -1e30..=1e30;

const DAY: Span = Span::seconds(86_400);

/// Checks that a kind makes sense for a part of the impression.
fn fits(event: EventField, kind: Kind, path: &str, mistakes: &mut Mistakes) {
    let (fits, expected) = match event {
        EventField::Time => (matches!(kind, Kind::Hour | Kind::Weekday), "hour or weekday"),
        EventField::Position => (
            matches!(kind, Kind::Category | Kind::LogBucket { .. }) || kind.is_number(),
            "category, number, log or log-bucket",
        ),
        _ => (matches!(kind, Kind::Category), "category"),
    };
    if !fits {
        mistakes.add(path, format!("does not suit this part of an event: expected {expected}"));
    }
}

fn missing(
    field: &file::Field,
    kind: Kind,
    path: &str,
    mistakes: &mut Mistakes,
) -> Option<Missing> {
    let is_number = kind.is_number();
    let number = |value: f64| NUMBERS.contains(&value).then_some(Missing::Value(value as f32));
    let found = match &field.missing {
        None if is_number => Some(Missing::Value(0.0)),
        None if matches!(kind, Kind::List) => Some(Missing::Zero),
        None => Some(Missing::Own),
        Some(toml::Value::String(text)) if text == "own" && !is_number => Some(Missing::Own),
        Some(toml::Value::String(text)) if text == "zero" && is_number => Some(Missing::Value(0.0)),
        Some(toml::Value::String(text)) if text == "zero" => Some(Missing::Zero),
        Some(toml::Value::Float(value)) if is_number => number(*value),
        Some(toml::Value::Integer(value)) if is_number => number(*value as f64),
        Some(_) => None,
    };
    if found.is_none() {
        let expected =
            if is_number { "\"zero\" or a number of -1e30 to 1e30" } else { "\"own\" or \"zero\"" };
        let value = field.missing.as_ref().map(ToString::to_string).unwrap_or_default();
        mistakes
            .add(path, format!("expected {expected} for kind \"{}\", found {value}", field.kind));
    }
    found
}
