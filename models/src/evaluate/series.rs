//! Consecutive spans of event time, of which the newest are open.
//!
//! ```text
//!   closed   |<------------- keep spans ------------->|
//! ... [ ] [ ] [open] [open] [open] [open] [open] [newest]
//! ```
//! An example of an open span is counted there; one that is older finds its span closed.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use sluice_features::time::{EventTime, Span};

use super::period::Split;

/// The open spans of one task, oldest first; spans without examples do not exist.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Series {
    span: i64,
    keep: i64,
    newest: Option<i64>,
    open: VecDeque<(i64, Split)>,
    /// Emptied spans, whose memory the next ones take.
    #[serde(skip)]
    spare: Vec<Split>,
}

impl Series {
    /// Creates a series of spans, of which `keep` stay open; both are at least one.
    pub(super) fn new(span: Span, keep: usize) -> Self {
        let keep = i64::try_from(keep).unwrap_or(i64::MAX).max(1);
        Self { span: span.0.max(1), keep, newest: None, open: VecDeque::new(), spare: Vec::new() }
    }

    /// Returns the span that `at` belongs to, or `None` if it is closed already. A span newer than
    /// all others closes those that fall behind: `close` sees each of them once, oldest first.
    pub(super) fn slot(
        &mut self,
        at: EventTime,
        mut close: impl FnMut(EventTime, &Split),
    ) -> Option<&mut Split> {
        let start = at.0.div_euclid(self.span).saturating_mul(self.span);
        let newest = self.newest.map_or(start, |newest| newest.max(start));
        self.newest = Some(newest);
        let first = self.first(newest);
        while let Some((old, mut split)) = self.open.pop_front_if(|(old, _)| *old < first) {
            close(EventTime(old), &split);
            split.clear();
            self.spare.push(split);
        }
        if start < first {
            return None;
        }
        let place = self.open.partition_point(|(other, _)| *other < start);
        if self.open.get(place).is_none_or(|(other, _)| *other != start) {
            let split = self.spare.pop().unwrap_or_default();
            self.open.insert(place, (start, split));
        }
        self.open.get_mut(place).map(|(_, split)| split)
    }

    /// Returns the start of the oldest span that may be open.
    fn first(&self, newest: i64) -> i64 {
        newest.saturating_sub(self.span.saturating_mul(self.keep - 1))
    }

    /// Returns the open spans with their starts, oldest first.
    pub(super) fn open(&self) -> impl Iterator<Item = (EventTime, &Split)> {
        self.open.iter().map(|(start, split)| (EventTime(*start), split))
    }

    /// Returns when the oldest span that may be open begins; `None` before the first example.
    pub(super) fn begin(&self) -> Option<EventTime> {
        self.newest.map(|newest| EventTime(self.first(newest)))
    }

    /// Returns the length of a span.
    pub(super) fn span(&self) -> Span {
        Span(self.span)
    }
}
