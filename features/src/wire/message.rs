//! The messages that others send to the daemon, as importers, simulators and tools write them.
//!
//! ```
//! use sluice_features::wire::EventMessage;
//!
//! let click = EventMessage { user: "712", item: "5239", ..EventMessage::new("click", 1650812741500) };
//! let json = serde_json::to_string(&click).unwrap();
//! assert_eq!(json, r#"{"type":"click","ts":1650812741500,"user":"712","item":"5239"}"#);
//! ```

use serde::Serialize;
use serde_json::{Map, Value};

/// An event. What is `None` is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EventMessage<'a> {
    /// For files only: `events`, in front of everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<&'a str>,
    /// The entry event's name, a task's or an extra behaviour's.
    #[serde(rename = "type")]
    pub name: &'a str,
    /// The event's own id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// Milliseconds since 1970.
    pub ts: i64,
    /// The user's id.
    pub user: &'a str,
    /// The item's id.
    pub item: &'a str,
    /// The impression that a behaviour answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impression: Option<&'a str>,
    /// The request that an impression answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<&'a str>,
    /// Place in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// Page or place of the product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surface: Option<&'a str>,
    /// Further circumstances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<&'a Map<String, Value>>,
}

impl<'a> EventMessage<'a> {
    /// Creates an event of a type and time, with all else still to be set.
    pub fn new(name: &'a str, ts: i64) -> Self {
        Self { name, ts, ..Self::default() }
    }
}

/// An update of an item's (`item` set) or a user's (`user` set) features.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct UpdateMessage<'a> {
    /// For files only: `items` or `users`, in front of everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<&'a str>,
    /// The item's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<&'a str>,
    /// The user's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// From when on it holds: milliseconds since 1970.
    pub ts: i64,
    /// All features; `None` is written as null and ends the item or forgets the user's features.
    pub features: Option<&'a Map<String, Value>>,
}

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RequestMessage<'a> {
    /// Its id.
    pub id: &'a str,
    /// `rank`, `recommend` or `similar`.
    pub kind: &'a str,
    /// For whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// Candidates, or the one item of a `similar`.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub items: &'a [String],
    /// The most items of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k: Option<usize>,
    /// Items that must not stand in the answer.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub exclude: &'a [String],
    /// Which items may stand in the answer: `category` (one or a list), `seen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<&'a Map<String, Value>>,
    /// Page or place of the product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surface: Option<&'a str>,
    /// As of when to answer: milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts: Option<i64>,
    /// Further circumstances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<&'a Map<String, Value>>,
    /// Milliseconds within which the answer is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u32>,
}
