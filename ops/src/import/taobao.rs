//! Taobao UserBehavior: user, item, category, behaviour, unix seconds; mostly without a header.
//!
//! There are no impressions: a view is the entry. An event's id is the hash of its row.

use sluice_features::wire::EventMessage;

use super::first_seen::FirstSeen;
use super::record::Record;
use super::table::{Kind, Phase, Row, RowError};
use super::{Importer, Stream};
use crate::wire::{Fields, add_text};

/// Behaviours as they are called in the files, and here.
const BEHAVIOURS: [(&str, &str); 4] =
    [("pv", "view"), ("cart", "cart"), ("fav", "favourite"), ("buy", "purchase")];

/// Keeps the category of each item.
#[derive(Default)]
pub(super) struct Taobao {
    categories: FirstSeen<Option<Box<str>>>,
}

impl Importer for Taobao {
    fn kinds(&self) -> &'static [Kind] {
        const {
            &[Kind::of(
                "behaviours",
                Phase::Events,
                &["user_id", "item_id", "category_id", "behavior_type", "timestamp"],
            )
            .or_headless(looks_like_behaviours)]
        }
    }

    fn row(&mut self, _: &'static str, row: &Row<'_>, stream: &mut Stream) -> Result<(), RowError> {
        let behaviour = row.need("behavior_type")?;
        let Some((_, kind)) = BEHAVIOURS.iter().find(|(name, _)| *name == behaviour) else {
            return Err(RowError::Bad(String::from("expected pv, cart, fav or buy as behaviour")));
        };
        let (ts, item) = (row.seconds("timestamp")?, row.id("item_id")?);
        let (user, id) = (row.id("user_id")?, row.hash());
        self.categories.see(item, ts, || row.get("category_id").map(Into::into));
        Ok(stream.events(&[EventMessage {
            name: kind,
            id: Some(&id),
            ts,
            user,
            item,
            ..EventMessage::default()
        }])?)
    }

    fn finish(&mut self, stream: &mut Stream) -> anyhow::Result<()> {
        self.categories.write(stream, |category| {
            let mut features = Fields::new();
            add_text(&mut features, "category", category.as_deref());
            features
        })
    }
}

fn looks_like_behaviours(first: &Record) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    first.len() == 5
        && BEHAVIOURS.iter().any(|(name, _)| first.get(3) == Some(*name))
        && first.get(4).is_some_and(digits)
}
