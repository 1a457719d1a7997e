//! The schema of a configuration: standard and declared fields, their tables, the counters and the number field of each.

mod counters;
mod fields;

use sluice_features::event::BehaviourType;
use sluice_features::funnel::Funnel;
use sluice_features::schema::{EventField, Field, Kind, Lookup, Missing, Schema, Source};

use super::check::one_of;
use super::file;
use super::mistake::Mistakes;
use super::tables::Tables;

const MOST_FIELDS: usize = 1000;

/// The source of a field that reads the number of a counter in steps.
const COUNTER: &str = "counter";

/// Builds the schema, noting what cannot be.
pub(super) fn build(
    config: &file::Config,
    funnel: &Funnel,
    lookups: Vec<Lookup>,
    mistakes: &mut Mistakes,
) -> Schema {
    let mut tables = Tables::new(config.model.width);
    let mut fields: Vec<Field> = Vec::new();
    for (i, name) in config.features.standard.iter().enumerate() {
        let path = format!("features.standard.{i}");
        let Some((event, kind)) = one_of(mistakes, &path, name, &STANDARD) else { continue };
        if config.fields.iter().any(|field| field.name == *name) {
            continue;
        }
        if fields.iter().any(|field| field.name == *name) {
            mistakes.add(path, format!("\"{name}\" is named twice: name it once"));
            continue;
        }
        let table = tables.number(name, None, "", mistakes);
        let source = Source::Event(event);
        fields.push(Field { name: name.clone(), source, kind, table, missing: Missing::Own });
    }
    for (i, field) in config.fields.iter().enumerate() {
        let path = format!("fields.{i}");
        if field.name.is_empty() {
            mistakes.add(format!("{path}.name"), "expected a name, found none: give the field one");
        } else if config.fields[..i].iter().any(|other| other.name == field.name) {
            mistakes.add(
                format!("{path}.name"),
                format!("\"{}\" is the name of an earlier field: choose another", field.name),
            );
        }
        if field.cross.is_empty() && field.source != COUNTER {
            fields.extend(fields::declared(field, &path, &mut tables, mistakes));
        }
    }
    let counters = counters::read(config, funnel, &mut fields, mistakes);
    for (i, field) in config.fields.iter().enumerate() {
        if field.cross.is_empty() && field.source == COUNTER {
            let found =
                fields::stepped(field, &format!("fields.{i}"), &fields, &mut tables, mistakes);
            fields.extend(found);
        }
    }
    let parts = fields.len();
    for (i, field) in config.fields.iter().enumerate().filter(|(_, field)| !field.cross.is_empty())
    {
        let path = format!("fields.{i}");
        let found = fields::crossed(field, &path, &fields[..parts], &mut tables, mistakes);
        fields.extend(found);
    }
    if fields.len() > MOST_FIELDS {
        mistakes.add(
            "fields",
            format!(
                "expected at most {MOST_FIELDS} fields, counters included, found {}",
                fields.len()
            ),
        );
    }
    if fields.is_empty() {
        mistakes.add(
            "features.standard",
            "the model would read nothing: name a standard field, or declare one under [[fields]]",
        );
    }
    Schema {
        fields,
        counters,
        lookups,
        read: read(config, funnel, mistakes),
        item_table: Tables::ITEM,
        category_table: Tables::CATEGORY,
        gap_table: Tables::GAP,
        tasks: funnel.tasks().len(),
        tables: tables.into_list(),
    }
}

const STANDARD: [(&str, (EventField, Kind)); 7] = [
    ("user", (EventField::User, Kind::Category)),
    ("item", (EventField::Item, Kind::Category)),
    ("category", (EventField::Category, Kind::Category)),
    ("surface", (EventField::Surface, Kind::Category)),
    ("position", (EventField::Position, Kind::Category)),
    ("hour", (EventField::Time, Kind::Hour)),
    ("weekday", (EventField::Time, Kind::Weekday)),
];

/// Which behaviours the looks into the history read.
fn read(config: &file::Config, funnel: &Funnel, mistakes: &mut Mistakes) -> Vec<bool> {
    let tasks = funnel.tasks().len();
    let mut read: Vec<bool> = (0..funnel.behaviours())
        .map(|kind| config.sequence.read.is_empty() && kind < tasks)
        .collect();
    let known: Vec<_> = (0u8..)
        .zip(0..funnel.behaviours())
        .map(|(kind, i)| (funnel.behaviour_name(BehaviourType(kind)), i))
        .collect();
    for (i, name) in config.sequence.read.iter().enumerate() {
        if let Some(kind) = one_of(mistakes, &format!("sequence.read.{i}"), name, &known) {
            read[kind] = true;
        }
    }
    read
}
