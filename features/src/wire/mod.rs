//! Messages: bytes become valid events, updates and requests, or a [`Rejection`] that names the reason and the field.
//!
//! Format version 1 is JSON, UTF-8, one object a message; `features/examples_wire` has an example of each. The limits below hold
//! before anything is kept. Unknown fields of the outermost object are ignored and counted; a key that stands twice in any object
//! refuses the message, because readers disagree about which one counts.
//!
//! An id is a text, or a whole number that stands for its decimal text: `12` and `"12"` are one user.
//!
//! Decoding borrows from the message. Nothing is allocated for an event whose ids are texts, whose strings have no escapes and whose context
//! has no lists.

mod event;
mod line;
mod message;
mod object;
mod outgoing;
mod request;
mod update;
mod values;
mod walk;

#[cfg(test)]
mod tests;

use crate::attributes::Attributes;
use crate::reject::{Reason, Rejection};
use crate::time::{EventTime, Span};

pub use event::{Decoded, decode_event};
pub use line::{Topic, split_line};
pub use message::{EventMessage, RequestMessage, UpdateMessage};
pub use outgoing::{
    Embedding, ErrorBody, ErrorResponse, NotFinite, Probabilities, Response, Scored, Scores,
    encode_embedding, encode_error, encode_response, encode_scores,
};
pub use request::{Filter, RefusedRequest, Request, RequestKind, decode_request};
pub use update::{DecodedUpdate, Role, decode_update};

/// The most bytes of a message.
pub const MAX_MESSAGE: usize = 256 * 1024;
/// The most levels of objects and lists, the outermost object being the first.
pub const MAX_DEPTH: u32 = 32;
/// The most bytes of an id and of a key.
pub const MAX_ID: usize = 256;
/// The most bytes of any other text.
pub const MAX_TEXT: usize = 4096;
/// The most entries of a list, and of keys in one object.
pub const MAX_LIST: usize = 512;
/// The most candidates, excluded items and answers of a request.
pub const MAX_CANDIDATES: usize = 1000;

/// The beginning of 1990: nothing that a shop sends is older, but seconds taken for milliseconds are.
pub const OLDEST: EventTime = EventTime(631_152_000_000);
/// The beginning of the year 10000, where no other bound is known.
const NEWEST: EventTime = EventTime(253_402_300_800_000);
/// A time further ahead than this of the record's arrival is refused.
const FAR_FUTURE: Span = Span::seconds(24 * 3600);
/// A time further ahead than this of the record's arrival does not move the watermark.
const SKEW: Span = Span::seconds(5 * 60);

/// When the record arrived: never later than the reader's own clock said; `None` where that is not known. In files the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrivalTime(pub Option<EventTime>);

impl ArrivalTime {
    /// Checks an event time. Returns whether it is so far ahead that the watermark must not follow it.
    fn check(self, time: EventTime) -> Result<bool, Rejection> {
        let newest = self.0.map_or(NEWEST, |arrival| arrival + FAR_FUTURE);
        if time < OLDEST {
            Err(too_old(time))
        } else if time > newest {
            Err(Rejection::found(Reason::TimeInFuture, "ts", time.0))
        } else {
            Ok(self.0.is_some_and(|arrival| time > arrival + SKEW))
        }
    }
}

/// Says of a time before 1990 what it may be.
fn too_old(time: EventTime) -> Rejection {
    let rejection = Rejection::found(Reason::TimeTooOld, "ts", time.0);
    let in_milliseconds = EventTime(time.0.saturating_mul(1000));
    if (OLDEST..NEWEST).contains(&in_milliseconds) {
        let detail = format!("found {}, which are seconds: write milliseconds since 1970", time.0);
        return rejection.with(detail);
    }
    rejection
}

/// Memory that decoding reuses from message to message, and the names that came with the newest one.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    walk: walk::Walk,
    attributes: Attributes,
}

impl Scratch {
    /// From the next message on the names of attributes are kept, or not. Those of the last message are forgotten: a record without value has
    /// none of its own.
    pub fn keep_attribute_names(&mut self, keep: bool) {
        self.walk.keep_attributes(keep);
    }

    /// Returns the names of the attributes of the newest message, if they are kept.
    pub fn attribute_names(&self) -> impl Iterator<Item = &str> {
        self.walk.attributes()
    }

    /// Returns the fields of the newest message's outermost object that nobody knows.
    pub fn unknown_fields(&self) -> impl Iterator<Item = &str> {
        self.walk.unknown()
    }
}

/// Returns the message as text if it is short enough and UTF-8.
fn text_of(bytes: &[u8]) -> Result<&str, Rejection> {
    if bytes.len() > MAX_MESSAGE {
        return Err(Rejection::whole(Reason::TooLarge));
    }
    std::str::from_utf8(bytes).map_err(|_| Rejection::whole(Reason::InvalidUtf8))
}

/// Checks the format version: 1 when absent.
fn check_version(version: Option<u64>) -> Result<(), Rejection> {
    match version {
        None | Some(1) => Ok(()),
        Some(version) => Err(Rejection::found(Reason::UnsupportedVersion, "v", version)),
    }
}
