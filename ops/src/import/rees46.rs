//! REES46: the events of shops, each row with the item's category, brand and price.
//!
//! There are no impressions: a view is the entry. An event's id is the hash of its row. A price is a
//! feature of the item as first seen, and the context of an event as seen then.

use sluice_features::wire::EventMessage;

use super::first_seen::FirstSeen;
use super::table::{Kind, Phase, Row, RowError};
use super::{Importer, Stream, calendar};
use crate::wire::{Fields, add_number, add_text};

/// Behaviours as they are called in the files, and here.
const BEHAVIOURS: [(&str, &str); 4] = [
    ("view", "view"),
    ("cart", "cart"),
    ("remove_from_cart", "remove-from-cart"),
    ("purchase", "purchase"),
];

/// Keeps the features of each item.
#[derive(Default)]
pub(super) struct Rees46 {
    items: FirstSeen<Fields>,
}

impl Importer for Rees46 {
    fn kinds(&self) -> &'static [Kind] {
        const {
            &[Kind::of(
                "events",
                Phase::Events,
                &["event_time", "event_type", "product_id", "category_id", "price", "user_id"],
            )]
        }
    }

    fn row(&mut self, _: &'static str, row: &Row<'_>, stream: &mut Stream) -> Result<(), RowError> {
        let behaviour = row.need("event_type")?;
        let Some((_, kind)) = BEHAVIOURS.iter().find(|(name, _)| *name == behaviour) else {
            let expected = "expected view, cart, remove_from_cart or purchase as event_type";
            return Err(RowError::Bad(String::from(expected)));
        };
        let time = row.need("event_time")?;
        let ts =
            calendar::date_time(time).filter(|ts| *ts >= calendar::YEAR_1990).ok_or_else(|| {
                RowError::Bad(String::from("expected event_time like 2019-10-01 00:00:00 UTC"))
            })?;
        let (item, user, id) = (row.id("product_id")?, row.id("user_id")?, row.hash());
        let price = row.number("price")?;
        let mut context = Fields::new();
        if let Some(price) = price {
            add_number(&mut context, "price", price);
        }
        self.items.see(item, ts, || {
            let mut features = Fields::new();
            add_text(&mut features, "category", row.get("category_id"));
            add_text(&mut features, "category_code", row.get("category_code"));
            add_text(&mut features, "brand", row.get("brand"));
            if let Some(price) = price {
                add_number(&mut features, "price", price);
            }
            features
        });
        let context = (!context.is_empty()).then_some(&context);
        Ok(stream.events(&[EventMessage {
            name: kind,
            id: Some(&id),
            ts,
            user,
            item,
            context,
            ..EventMessage::default()
        }])?)
    }

    fn finish(&mut self, stream: &mut Stream) -> anyhow::Result<()> {
        self.items.write(stream, |features| features)
    }
}
