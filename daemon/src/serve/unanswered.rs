//! Why a request has no answer, in the words of answers and metrics.

use sluice_features::reject::{Reason, Rejection};
use sluice_features::wire::RequestKind;

/// The kinds of requests in metrics, in the order of [`kind_number`].
pub const KINDS: [&str; 4] = ["rank", "recommend", "similar", "other"];

/// The outcomes of requests in metrics, in the order of [`Outcome`].
pub const OUTCOMES: [&str; 6] =
    ["answered", "refused", "late", "overloaded", "failed", "undelivered"];

/// Returns the place of a kind in [`KINDS`]; the last one is for requests that could not be read.
pub fn kind_number(kind: Option<RequestKind>) -> usize {
    match kind {
        Some(RequestKind::Rank) => 0,
        Some(RequestKind::Recommend) => 1,
        Some(RequestKind::Similar) => 2,
        None => 3,
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has its answer: Kafka has taken it.
    Answered,
    /// It was wrong.
    Refused,
    /// Its deadline had passed.
    Late,
    /// Too many were waiting.
    Overloaded,
    /// It was right, and yet there is no answer.
    Failed,
    /// Kafka has not taken the answer, whatever it said.
    Undelivered,
}

/// The fixed word of an error answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request is wrong.
    Refused(Reason),
    /// The topic that it names for its answer is not allowed.
    ReplyTopicRefused,
    /// Its deadline has passed.
    Deadline,
    /// Too many requests are waiting.
    Overloaded,
    /// The model's numbers are not finite.
    NotFinite,
    /// The state on disk cannot be read.
    OutOfReach,
}

impl Code {
    /// Returns the word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused(reason) => reason.name(),
            Self::ReplyTopicRefused => "reply-topic-refused",
            Self::Deadline => "deadline",
            Self::Overloaded => "overloaded",
            Self::NotFinite => "not-finite",
            Self::OutOfReach => "out-of-reach",
        }
    }

    /// Returns what it counts as.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Refused(_) | Self::ReplyTopicRefused => Outcome::Refused,
            Self::Deadline => Outcome::Late,
            Self::Overloaded => Outcome::Overloaded,
            Self::NotFinite | Self::OutOfReach => Outcome::Failed,
        }
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// The fixed word.
    pub code: Code,
    /// The same in plain words.
    pub message: String,
}

impl Unanswered {
    /// Creates an error answer.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<&Rejection> for Unanswered {
    fn from(rejection: &Rejection) -> Self {
        Self::new(Code::Refused(rejection.reason), rejection.to_string())
    }
}
