//! What a valid record says. `wire` makes these from bytes; nothing after it has to validate again.

use std::borrow::Cow;

use crate::attributes::Attributes;
use crate::ids::EventId;
use crate::time::EventTime;

/// Which type of behaviour: first the tasks of the funnel in their order, then the extra behaviours in theirs.
///
/// The number indexes [`crate::funnel::Funnel::behaviour_name`].
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct BehaviourType(pub u8);

/// An item was shown to a user, or, for a shop without impressions, the entry event (a view).
#[derive(Clone, Debug, PartialEq)]
pub struct Impression<'a> {
    /// Its own id, or the hash of the record's bytes where it has none.
    pub id: EventId,
    /// When it was shown.
    pub time: EventTime,
    /// The user's id as text.
    pub user: Cow<'a, str>,
    /// The item's id as text.
    pub item: Cow<'a, str>,
    /// The request that it answered.
    pub request: Option<Cow<'a, str>>,
    /// Place in the answer, from 0 or 1 as the sender counts.
    pub position: Option<u32>,
    /// Page or place of the product.
    pub surface: Option<Cow<'a, str>>,
    /// Further circumstances (device, language, ...).
    pub context: &'a Attributes,
}

/// A user did something with an item: a task of the funnel or an extra behaviour.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour<'a> {
    /// Its own id, or the hash of the record's bytes where it has none.
    pub id: EventId,
    /// What was done.
    pub kind: BehaviourType,
    /// When.
    pub time: EventTime,
    /// The user's id as text.
    pub user: Cow<'a, str>,
    /// The item's id as text.
    pub item: Cow<'a, str>,
    /// The impression that it answers, where the sender knows it; otherwise the newest open one of this user and item is meant.
    pub impression: Option<EventId>,
}

/// A record of the event topic.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// See [`Impression`].
    Impression(Impression<'a>),
    /// See [`Behaviour`].
    Behaviour(Behaviour<'a>),
}

impl Event<'_> {
    /// Returns the event time.
    pub fn time(&self) -> EventTime {
        match self {
            Self::Impression(impression) => impression.time,
            Self::Behaviour(behaviour) => behaviour.time,
        }
    }

    /// Returns the user's id as text.
    pub fn user(&self) -> &str {
        match self {
            Self::Impression(impression) => &impression.user,
            Self::Behaviour(behaviour) => &behaviour.user,
        }
    }
}

/// A record of the item or the user topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Update<'a> {
    /// The item's or user's id as text.
    pub id: Cow<'a, str>,
    /// From when on this holds.
    pub time: EventTime,
    /// All features, replacing the former ones. `None`: the item is gone, the user's features are forgotten.
    pub features: Option<&'a Attributes>,
}
