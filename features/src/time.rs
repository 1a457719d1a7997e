//! Event time. Nothing in this crate knows the wall clock.

use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// An instant of event time: milliseconds since 1970, UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EventTime(pub i64);

/// A length of event time in milliseconds, never negative where it is configured.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Span(pub i64);

impl EventTime {
    /// Before every record.
    pub const MIN: Self = Self(i64::MIN / 4);
    /// After every record: a watermark here closes all windows.
    pub const MAX: Self = Self(i64::MAX / 4);
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// Returns a span of whole seconds.
    pub const fn seconds(seconds: i64) -> Self {
        Self(seconds * 1000)
    }
}

impl Add<Span> for EventTime {
    type Output = EventTime;

    fn add(self, span: Span) -> EventTime {
        EventTime(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for EventTime {
    type Output = EventTime;

    fn sub(self, span: Span) -> EventTime {
        EventTime(self.0.saturating_sub(span.0))
    }
}

impl Sub for EventTime {
    type Output = Span;

    fn sub(self, earlier: EventTime) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}
