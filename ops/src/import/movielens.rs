//! MovieLens as RecBole's atomic files: columns are separated by tabs and called `name:type`.
//!
//! A rating is a view; a rating of 4 or more is also a like, which follows its view directly. The
//! rating itself is written nowhere: it is what the like says. An event's id is the hash of its row.

use sluice_features::wire::EventMessage;

use super::table::{Kind, Phase, Row, RowError};
use super::{Importer, Stream};
use crate::wire::{Fields, add, add_number, add_text};

/// From this rating on it is a like.
const LIKED: f64 = 4.0;
/// What the column of an item's genres is called, depending on the version.
const GENRES: [&str; 3] = ["class", "genre", "genres"];

pub(super) struct Movielens;

impl Importer for Movielens {
    fn kinds(&self) -> &'static [Kind] {
        const {
            &[
                Kind::of(
                    "ratings (.inter)",
                    Phase::Events,
                    &["user_id", "item_id", "rating", "timestamp"],
                )
                .of_tabs(),
                Kind::of("items (.item)", Phase::Items, &["item_id"])
                    .lacking(&["user_id"])
                    .of_tabs(),
                Kind::of("users (.user)", Phase::Users, &["user_id"])
                    .lacking(&["item_id"])
                    .of_tabs(),
            ]
        }
    }

    fn row(
        &mut self,
        kind: &'static str,
        row: &Row<'_>,
        stream: &mut Stream,
    ) -> Result<(), RowError> {
        match kind {
            "ratings (.inter)" => rating(row, stream),
            "items (.item)" => Ok(stream.item(row.id("item_id")?, &features(row, "item_id")?)?),
            _ => Ok(stream.user(row.id("user_id")?, &features(row, "user_id")?)?),
        }
    }
}

fn rating(row: &Row<'_>, stream: &mut Stream) -> Result<(), RowError> {
    let rating = super::table::number("rating", row.need("rating")?)?;
    let (id, ts) = (row.hash(), row.seconds("timestamp")?);
    let (user, item) = (row.id("user_id")?, row.id("item_id")?);
    let view =
        EventMessage { name: "view", id: Some(&id), ts, user, item, ..EventMessage::default() };
    if rating < LIKED {
        return Ok(stream.events(&[view])?);
    }
    let like = format!("{id}/like");
    let like =
        EventMessage { name: "like", id: Some(&like), impression: Some(&id), ..view.clone() };
    Ok(stream.events(&[view, like])?)
}

/// All columns but the id: lists of genres as lists, the first genre as the category, other texts
/// and numbers as they are.
fn features(row: &Row<'_>, id: &str) -> Result<Fields, RowError> {
    let mut features = Fields::new();
    for (column, kind, value) in row.columns() {
        if column == id || value.is_empty() {
            continue;
        } else if GENRES.contains(&column) {
            let genres: Vec<&str> = value.split_whitespace().collect();
            add_text(&mut features, "category", genres.first().copied());
            add(&mut features, "genres", genres);
        } else if kind == "float" {
            add_number(&mut features, column, super::table::number(column, value)?);
        } else {
            add(&mut features, column, value);
        }
    }
    Ok(features)
}
