//! KuaiRand: one row of a log is an impression with its outcomes.
//!
//! The impression's id is the hash of its row, so that rows that are equal in every column (there are
//! some) are one event twice: they are passed on, for the daemon to count. Outcomes have the
//! impression's time and ids that follow from its id. Values that name something stay the text that
//! they are in the file (`9.0` is a name of a music type, not a number).

use sluice_features::wire::EventMessage;

use super::table::{Kind, Phase, Row, RowError};
use super::{Importer, Stream, calendar};
use crate::wire::{Fields, add, add_number, add_text};

/// Outcomes and their columns, in the order in which they follow the impression.
const OUTCOMES: [(&str, &str); 8] = [
    ("click", "is_click"),
    ("long_view", "long_view"),
    ("like", "is_like"),
    ("follow", "is_follow"),
    ("comment", "is_comment"),
    ("forward", "is_forward"),
    ("hate", "is_hate"),
    ("profile_enter", "is_profile_enter"),
];

/// Columns of users and videos that are amounts; every other one names something.
const AMOUNTS: [&str; 7] = [
    "follow_user_num",
    "fans_user_num",
    "friend_user_num",
    "register_days",
    "video_duration",
    "server_width",
    "server_height",
];

pub(super) struct Kuairand;

impl Importer for Kuairand {
    fn kinds(&self) -> &'static [Kind] {
        const {
            &[
                Kind::of(
                    "log",
                    Phase::Events,
                    &["user_id", "video_id", "time_ms", "is_click", "duration_ms", "tab"],
                ),
                Kind::of(
                    "video features",
                    Phase::Items,
                    &["video_id", "author_id", "upload_dt", "tag"],
                )
                .lacking(&["user_id"]),
                Kind::of("user features", Phase::Users, &["user_id", "user_active_degree"])
                    .lacking(&["video_id"]),
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
            "log" => impression(row, stream),
            "video features" => Ok(stream.item(row.id("video_id")?, &video(row)?)?),
            _ => Ok(stream.user(row.id("user_id")?, &user(row)?)?),
        }
    }
}

fn impression(row: &Row<'_>, stream: &mut Stream) -> Result<(), RowError> {
    let id = row.hash();
    let mut context = Fields::new();
    if let Some(duration) = row.number("duration_ms")? {
        add_number(&mut context, "duration_ms", duration);
    }
    let impression = EventMessage {
        name: "impression",
        id: Some(&id),
        ts: row.milliseconds("time_ms")?,
        user: row.id("user_id")?,
        item: row.id("video_id")?,
        surface: row.get("tab"),
        context: (!context.is_empty()).then_some(&context),
        ..EventMessage::default()
    };
    let mut outcomes = Vec::new();
    for (outcome, column) in OUTCOMES {
        if row.flag(column)? {
            outcomes.push((outcome, format!("{id}/{outcome}")));
        }
    }
    let mut events = vec![impression.clone()];
    events.extend(outcomes.iter().map(|(name, outcome)| EventMessage {
        name,
        id: Some(outcome),
        impression: Some(&id),
        surface: None,
        context: None,
        ..impression.clone()
    }));
    Ok(stream.events(&events)?)
}

fn video(row: &Row<'_>) -> Result<Fields, RowError> {
    let mut features = Fields::new();
    if let Some(tags) = row.get("tag") {
        let tags: Vec<&str> = tags.split(',').filter(|tag| !tag.is_empty()).collect();
        add_text(&mut features, "category", tags.first().copied());
        add(&mut features, "tags", tags);
    }
    if let Some(day) = row.get("upload_dt") {
        let bad = || RowError::Bad(String::from("expected a date like 2022-04-10 in upload_dt"));
        add(&mut features, "upload_ts", calendar::date(day).ok_or_else(bad)?);
    }
    others(row, &["video_id", "tag", "upload_dt"], &mut features)?;
    Ok(features)
}

fn user(row: &Row<'_>) -> Result<Fields, RowError> {
    let mut features = Fields::new();
    others(row, &["user_id"], &mut features)?;
    Ok(features)
}

fn others(row: &Row<'_>, except: &[&str], features: &mut Fields) -> Result<(), RowError> {
    for (column, _, value) in row.columns().filter(|(column, ..)| !except.contains(column)) {
        if value.is_empty() {
            continue;
        } else if AMOUNTS.contains(&column) {
            add_number(features, column, super::table::number(column, value)?);
        } else {
            add(features, column, value);
        }
    }
    Ok(())
}
