//! The questions at the end: one of each kind, asked over Kafka as `sluice query` does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::feed::Page;
use super::inside::Inside;
use crate::query::{Asker, Kind, fresh_id, question, readable};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Items of an answer.
const BEST: u32 = 5;

/// A question in words, and its answer as a table.
pub(super) struct Answered {
    /// What was asked.
    pub(super) question: String,
    /// What came.
    pub(super) answer: String,
    /// From sending to receiving.
    pub(super) took: Duration,
}

/// Asks about the newest page.
///
/// # Errors
/// When no answer comes, or one is an error.
pub(super) fn ask(daemon: &Inside, page: &Page) -> Result<Vec<Answered>> {
    let (requests, responses) = (daemon.topic("requests"), daemon.topic("responses"));
    let mut asker = Asker::open(&daemon.connection, &requests, &responses, PATIENCE)?;
    let first = page.items.get(..1).context("expected a page with items, found an empty one")?;
    let user = Some(page.user.as_str());
    let count = page.items.len();
    let questions = [
        (
            format!("rank: of the {count} items just shown to {}, which come first?", page.user),
            (Kind::Rank, user, page.items.as_slice()),
        ),
        (
            format!("recommend: what of the whole shop for {}?", page.user),
            (Kind::Recommend, user, &[]),
        ),
        (format!("similar: what is like {}?", first[0]), (Kind::Similar, None, first)),
    ];
    let ask = |(words, (kind, user, items))| {
        let id = fresh_id();
        let text = question(&id, kind, user, items, BEST, PATIENCE)?;
        let begun = Instant::now();
        let answer = asker.ask(&id, user, &text, PATIENCE)?;
        let took = begun.elapsed();
        Ok(Answered { question: words, answer: readable(&answer)?, took })
    };
    questions.into_iter().map(ask).collect()
}
