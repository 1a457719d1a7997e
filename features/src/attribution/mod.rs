//! Which outcome belongs to which impression, and when a label is known: one [`Joiner`] for each shard.
//!
//! The rules:
//!
//! - An outcome of task `t` counts for an impression when `0 <= outcome.time - impression.time <= window[t]`, both ends included.
//! - It belongs to the impression that it names; without a name to the newest impression `(time, id)` of its user and item whose
//!   window covers it. When a newer such impression arrives out of order, the outcomes that are its own move to it.
//! - An outcome without its impression waits for it until the watermark is its task's window beyond its time, then it is an orphan: an
//!   impression that comes later than that has no label of this task.
//! - An impression that comes when a task's window is over has no label of it: outcomes may have been given up, so what is missing proves
//!   nothing, and to learn only those that are there would make the rate too high. It is neither learned nor judged, under either rule, and
//!   counted. So are all tasks below it, which without their parent's outcome could only be found to be 0; and tasks of which outcomes were
//!   given up for want of room that it may have been waiting for. One without any label is not opened, and takes no outcome.
//! - A task's label is closed once the watermark is strictly beyond `impression.time + window[t]`, and never changes after that.
//! - A closed label is 1 when the outcome and those of all ancestors were seen in their windows. A child without its parent is 0.
//! - `wait` tasks are learned when they close, tasks with equal windows together. `fnw` tasks are learned as negatives at arrival
//!   and again as positives when the outcome is seen. A positive that is late under either rule is only counted.
//! - Where views open the funnel, the view's own label is certain and learned at arrival under either rule.
//! - Windows close in the order of (deadline, arrival), whatever the steps of the watermark, and in portions ([`MOST_CLOSINGS`]).
//! - A second copy of an event changes nothing. Its id is remembered by event time: of an impression while it is open and for
//!   [`JoinLimits::seen_for`], of an outcome for that or its window, whichever is longer. A copy that comes later still is late by then: it has
//!   no label and turns none.
//! - What the caller keeps with an impression may be put away once its first window is over ([`Effect::Waits`]): to find the impressions
//!   of outcomes and to close windows the joiner needs nothing of it.
//!
//! Every behaviour has exactly one [`Fate`], and [`JoinCounts`] adds up to what came in. Any order of arrival within the allowed
//! lateness gives the same final labels (the tests compare with a brute force over the whole log).

mod chains;
mod closing;
mod counts;
mod deadlines;
mod early;
mod joiner;
mod labels;
mod links;
mod open;
#[cfg(test)]
mod reference;
mod seen;
mod state;
#[cfg(test)]
mod tests;
mod waiting;

use serde::{Deserialize, Serialize};

pub use closing::MOST_CLOSINGS;
pub use counts::{JoinCounts, KindCounts};
pub use early::WAITING_BYTES;
pub use joiner::Joiner;
pub use labels::{Labels, TaskSet};
pub use state::{JoinerPicture, JoinerState, OtherFunnel};

use crate::event::BehaviourType;
use crate::ids::{EventId, ItemId, UserId};
use crate::time::{EventTime, Span};

/// What the caller keeps with an impression while it is open: its features as of its time.
pub trait Payload: Clone {
    /// Returns how many bytes it takes beyond its own size.
    fn memory(&self) -> usize;
}

impl Payload for () {
    fn memory(&self) -> usize {
        0
    }
}

/// Where what the caller keeps with an open impression is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept<T> {
    /// With the joiner.
    Here(T),
    /// The caller put it away, and finds it by this number.
    Away(u64),
}

/// An impression that waits for its labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened<T> {
    /// Its event id.
    pub id: EventId,
    /// Its user.
    pub user: UserId,
    /// Its item.
    pub item: ItemId,
    /// When it was shown.
    pub time: EventTime,
    /// Its number in the order of arrival; grows within a shard.
    pub number: u64,
    /// Its item was new.
    pub new_item: bool,
    /// What the caller keeps with it.
    pub payload: T,
}

/// A behaviour as the joiner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its event id.
    pub id: EventId,
    /// Which type of behaviour.
    pub kind: BehaviourType,
    /// Its user.
    pub user: UserId,
    /// Its item.
    pub item: ItemId,
    /// When it happened.
    pub time: EventTime,
    /// The impression that it names.
    pub impression: Option<EventId>,
}

/// Names an impression inside the joiner from [`Joiner::impression`] until [`Joiner::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub(crate) usize);

/// What became of a behaviour when it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The first outcome of its task for this impression.
    Attributed(Place),
    /// Its impression has an outcome of this task already.
    Repeated,
    /// Its event id was seen before.
    Duplicate,
    /// It came after its window had closed.
    Late,
    /// It has no impression.
    Orphaned(Orphan),
    /// It waits for its impression; the counts say later what became of it.
    Waiting,
    /// Its type is no task.
    Extra,
}

/// Why an outcome has no impression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(usize)]
pub enum Orphan {
    /// No impression came that it could belong to.
    NoImpression,
    /// It happened after the window of the impression that it names.
    OutsideWindow,
    /// It happened before the impression that it names.
    BeforeImpression,
    /// The impression that it names showed another item.
    OtherItem,
    /// Too many outcomes were waiting, and this one had the least time left.
    Overflow,
}

impl Orphan {
    /// All reasons, in the order of [`KindCounts::orphaned`].
    pub const ALL: [Self; 5] = [
        Self::NoImpression,
        Self::OutsideWindow,
        Self::BeforeImpression,
        Self::OtherItem,
        Self::Overflow,
    ];

    /// Returns the reason as the value of a metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoImpression => "no_impression",
            Self::OutsideWindow => "outside_window",
            Self::BeforeImpression => "before_impression",
            Self::OtherItem => "other_item",
            Self::Overflow => "overflow",
        }
    }
}

/// What the caller has to do, in this order. The effects of one call are to be handled before the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Labels of an open impression turned to 1: outcomes of these tasks count for it from now on (counters). `wait` learns them
    /// later.
    Positive {
        /// The impression.
        place: Place,
        /// The tasks.
        tasks: TaskSet,
        /// The time of the outcome by which they turned.
        time: EventTime,
    },
    /// Learn an example of this impression.
    Example {
        /// The impression.
        place: Place,
        /// Labels and how each is meant; the other tasks are masked.
        labels: Labels,
    },
    /// Windows have closed: judge the prediction made at arrival by these final labels; the other tasks are masked.
    Final {
        /// The impression.
        place: Place,
        /// The labels of the tasks whose windows have closed now.
        labels: Labels,
    },
    /// The first of several windows has closed: from here on what is kept with the impression is needed only when a further outcome
    /// turns a label or a further window is learned, so it may be put away with [`Joiner::put_away`].
    Waits {
        /// The impression.
        place: Place,
    },
    /// All windows have closed. It is the last effect of this impression and is to be followed by [`Joiner::take`].
    Closed {
        /// The impression.
        place: Place,
        /// Final labels of all tasks.
        labels: Labels,
    },
}

/// Bounds of what a joiner remembers beside open impressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinLimits {
    /// How many bytes outcomes take at most that wait for their impression ([`WAITING_BYTES`] each): the one with the least time left is given
    /// up, as an orphan.
    pub early_bytes: usize,
    /// How long an event's id is remembered at least: until the watermark is so far beyond its time. Of a task, at least as long as its
    /// window.
    pub seen_for: Span,
    /// How many bytes the remembered event ids take at most: the commonest type forgets its oldest ones first, and they are counted.
    pub seen_bytes: usize,
}

impl Default for JoinLimits {
    /// 32 MiB of outcomes; a day, 256 MiB of ids.
    fn default() -> Self {
        Self { early_bytes: 32 << 20, seen_for: Span::seconds(86_400), seen_bytes: 256 << 20 }
    }
}
