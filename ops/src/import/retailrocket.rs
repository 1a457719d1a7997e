//! RetailRocket: events of a shop, and the properties of its items as they changed.
//!
//! There are no impressions: a view is the entry. An event's id is the hash of its row. Of the
//! properties only `categoryid` and `available` have readable names and values; the others are left
//! aside. An item starts with its state at the first event (or its first known one, if that came
//! later); later changes are written among the events, at their time.

use std::collections::BTreeMap;

use sluice_features::wire::EventMessage;

use super::table::{Kind, Phase, Row, RowError};
use super::{Importer, Stream};
use crate::wire::{Fields, add, add_text};

/// Behaviours as they are called in the files, and here.
const BEHAVIOURS: [(&str, &str); 3] =
    [("view", "view"), ("addtocart", "cart"), ("transaction", "purchase")];

/// Keeps the changes of each item.
#[derive(Default)]
pub(super) struct Retailrocket {
    changes: BTreeMap<Box<str>, Vec<(i64, Change)>>,
}

enum Change {
    Category(Box<str>),
    Available(bool),
}

impl Importer for Retailrocket {
    fn kinds(&self) -> &'static [Kind] {
        const {
            &[
                Kind::of("events", Phase::Events, &["timestamp", "visitorid", "event", "itemid"]),
                Kind::of(
                    "item properties",
                    Phase::Items,
                    &["timestamp", "itemid", "property", "value"],
                ),
            ]
        }
    }

    fn row(
        &mut self,
        kind: &'static str,
        row: &Row<'_>,
        stream: &mut Stream,
    ) -> Result<(), RowError> {
        if kind == "events" { event(row, stream) } else { self.property(row) }
    }

    fn finish(&mut self, stream: &mut Stream) -> anyhow::Result<()> {
        let first = stream.first()?;
        for (item, mut changes) in std::mem::take(&mut self.changes) {
            changes.sort_by_key(|(ts, _)| *ts);
            let known = changes.first().map_or(first, |(ts, _)| *ts).max(first);
            let (mut category, mut available) = (None, None);
            let mut written = Fields::new();
            let mut changes = changes.into_iter().peekable();
            while let Some((ts, change)) = changes.next() {
                match change {
                    Change::Category(value) => category = Some(value),
                    Change::Available(value) => available = Some(value),
                }
                // Changes of one time, and all up to the first event, are one state.
                if changes.peek().is_some_and(|(next, _)| *next == ts || *next <= known) {
                    continue;
                }
                let mut features = Fields::new();
                add_text(&mut features, "category", category.as_deref());
                if let Some(available) = available {
                    add(&mut features, "available", available);
                }
                if ts <= known {
                    stream.item(&item, &features)?;
                } else if features != written {
                    stream.changed_item(&item, ts, &features)?;
                }
                written = features;
            }
        }
        Ok(())
    }
}

impl Retailrocket {
    fn property(&mut self, row: &Row<'_>) -> Result<(), RowError> {
        let change = match row.need("property")? {
            "categoryid" => Change::Category(row.need("value")?.into()),
            "available" => Change::Available(row.flag("value")?),
            _ => return Ok(()),
        };
        let (item, ts) = (row.id("itemid")?, row.milliseconds("timestamp")?);
        match self.changes.get_mut(item) {
            Some(changes) => changes.push((ts, change)),
            None => drop(self.changes.insert(item.into(), vec![(ts, change)])),
        }
        Ok(())
    }
}

fn event(row: &Row<'_>, stream: &mut Stream) -> Result<(), RowError> {
    let behaviour = row.need("event")?;
    let Some((_, kind)) = BEHAVIOURS.iter().find(|(name, _)| *name == behaviour) else {
        let expected = "expected view, addtocart or transaction as event";
        return Err(RowError::Bad(String::from(expected)));
    };
    let (ts, id) = (row.milliseconds("timestamp")?, row.hash());
    let (user, item) = (row.id("visitorid")?, row.id("itemid")?);
    Ok(stream.events(&[EventMessage {
        name: kind,
        id: Some(&id),
        ts,
        user,
        item,
        ..EventMessage::default()
    }])?)
}
