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

/// How far the event time of one partition has certainly come: the largest accepted time minus the allowed lateness.
///
/// A window that ends strictly before the watermark is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    newest: EventTime,
    lateness: Span,
}

impl Watermark {
    /// Creates the watermark of a partition that has seen nothing.
    pub fn new(lateness: Span) -> Self {
        Self { newest: EventTime::MIN, lateness }
    }

    /// Takes note of an accepted and plausible time.
    pub fn observe(&mut self, time: EventTime) {
        self.newest = self.newest.max(time);
    }

    /// Returns the newest time observed.
    pub fn newest(&self) -> EventTime {
        self.newest
    }

    /// Returns the watermark.
    pub fn value(&self) -> EventTime {
        if self.newest == EventTime::MIN { EventTime::MIN } else { self.newest - self.lateness }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_never_goes_back_and_lags_by_the_lateness() {
        let mut watermark = Watermark::new(Span::seconds(5));
        assert_eq!(watermark.value(), EventTime::MIN);
        watermark.observe(EventTime(20_000));
        watermark.observe(EventTime(10_000));
        assert_eq!(watermark.value(), EventTime(15_000));
    }
}
