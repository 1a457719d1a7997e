//! The messages that the daemon sends: answers, error answers, embeddings, refreshed top lists.
//!
//! JSON has no infinity and no "not a number": an encoder refuses a message with such a number instead of writing null.

use serde::{Serialize, Serializer};

use crate::funnel::Funnel;
use crate::time::EventTime;

/// The answer to a request.
#[derive(Clone, Debug, Serialize)]
pub struct Response<'a> {
    /// The request's id.
    pub id: &'a str,
    /// Best first.
    pub items: &'a [Scored<'a>],
    /// Every final example up to this event time is in the parameters.
    pub learned_until: EventTime,
    /// The model's name and version.
    pub model: &'a str,
    /// Microseconds from the request's arrival to its answer.
    pub took_us: u64,
    /// Nothing was known of the user: the answer rests on the items and the circumstances.
    #[serde(skip_serializing_if = "is_false")]
    pub unknown_user: bool,
    /// Nothing was known of the item whose neighbours were asked for: the answer is what is popular.
    #[serde(skip_serializing_if = "is_false")]
    pub unknown_item: bool,
}

/// An item of an answer.
#[derive(Clone, Debug, Serialize)]
pub struct Scored<'a> {
    /// Its id.
    pub item: &'a str,
    /// What the order is made of.
    pub score: f32,
    /// The probability of each task on the item, were it shown; empty for `similar`.
    #[serde(skip_serializing_if = "Probabilities::is_empty")]
    pub p: Probabilities<'a>,
    /// Nothing was known of the item: its score rests on the user and the circumstances.
    #[serde(rename = "new", skip_serializing_if = "is_false")]
    pub unknown: bool,
}

/// Probabilities by the names of the funnel's tasks, in the tasks' order.
#[derive(Clone, Copy, Debug)]
pub struct Probabilities<'a> {
    /// Whose tasks.
    pub funnel: &'a Funnel,
    /// `[tasks]`, or nothing.
    pub values: &'a [f32],
}

impl Probabilities<'_> {
    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl Serialize for Probabilities<'_> {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_map(self.funnel.tasks().iter().map(|task| &task.name).zip(self.values))
    }
}

/// The answer to a request that cannot be answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorResponse<'a> {
    /// The request's id; null where it could not be read.
    pub id: Option<&'a str>,
    /// What is wrong.
    pub error: ErrorBody<'a>,
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorBody<'a> {
    /// A fixed word: the name of a [`crate::reject::Reason`], or of a state of the daemon.
    pub code: &'a str,
    /// The same in plain words, with the field and what was expected.
    pub message: &'a str,
}

/// The vector of an item or a user, under the key `item:ID` or `user:ID`.
#[derive(Clone, Debug, Serialize)]
pub struct Embedding<'a> {
    /// The id alone.
    pub id: &'a str,
    /// `[width]`.
    pub vector: &'a [f32],
    /// Which version of the parameters made it; of two with the same key the larger one counts.
    pub version: u64,
    /// The event time up to which those parameters have learned.
    pub ts: EventTime,
}

/// A user's refreshed top list.
#[derive(Clone, Debug, Serialize)]
pub struct Scores<'a> {
    /// The user's id.
    pub user: &'a str,
    /// Best first.
    pub items: &'a [Scored<'a>],
    /// Every final example up to this event time is in the parameters.
    pub learned_until: EventTime,
    /// The model's name and version.
    pub model: &'a str,
}

/// A number that is not finite stood in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected finite numbers in an outgoing message, found one that is not: the parameters are not usable"
)]
pub struct NotFinite;

/// Replaces `output` by an answer.
///
/// # Errors
/// [`NotFinite`] when a score or a probability is not finite.
pub fn encode_response(message: &Response<'_>, output: &mut Vec<u8>) -> Result<(), NotFinite> {
    encode(scores_are_finite(message.items), message, output)
}

/// Replaces `output` by a refreshed top list.
///
/// # Errors
/// [`NotFinite`] when a score or a probability is not finite.
pub fn encode_scores(message: &Scores<'_>, output: &mut Vec<u8>) -> Result<(), NotFinite> {
    encode(scores_are_finite(message.items), message, output)
}

/// Replaces `output` by an embedding.
///
/// # Errors
/// [`NotFinite`] when the vector is not finite.
pub fn encode_embedding(message: &Embedding<'_>, output: &mut Vec<u8>) -> Result<(), NotFinite> {
    encode(are_finite(message.vector), message, output)
}

/// Replaces `output` by an error answer.
pub fn encode_error(message: &ErrorResponse<'_>, output: &mut Vec<u8>) {
    // Text alone: there is no number that could be wrong.
    let _ok: Result<(), NotFinite> = encode(true, message, output);
}

fn encode(finite: bool, message: &impl Serialize, output: &mut Vec<u8>) -> Result<(), NotFinite> {
    output.clear();
    if !finite {
        return Err(NotFinite);
    }
    // Writing these structs to memory fails for nothing else than a number that JSON cannot hold.
    serde_json::to_writer(output, message).map_err(|_| NotFinite)
}

fn scores_are_finite(items: &[Scored<'_>]) -> bool {
    items.iter().all(|item| item.score.is_finite() && are_finite(item.p.values))
}

fn are_finite(numbers: &[f32]) -> bool {
    numbers.iter().all(|number| number.is_finite())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !flag
}
