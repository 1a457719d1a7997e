//! The output of an import: items, users, then events by time; and what was left out.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use anyhow::{Context, Result, bail, ensure};
use sluice_daemon::shutdown::Shutdown;
use sluice_features::wire::{EventMessage, Topic, UpdateMessage};

use super::sort::TimeSorter;
use crate::files::{Output, Stopped};
use crate::untaken::Untaken;
use crate::wire::{self, Fields};

/// What becomes of rows that cannot be understood.
const LEFT_OUT: &str = "rows were left out";

/// Takes the records of an import.
pub(super) struct Stream {
    output: Output,
    events: TimeSorter,
    first: Option<i64>,
    buffer: Vec<u8>,
    report: Report,
}

/// What an import wrote and what it left out.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    written: BTreeMap<(Topic, String), u64>,
    /// All rows that were read.
    rows: u64,
    left_out: Untaken,
}

impl Stream {
    pub(super) fn new(output: Output) -> Self {
        let (events, report) = (TimeSorter::new(), Report::default());
        Self { output, events, first: None, buffer: Vec::new(), report }
    }

    /// Takes events that belong together: they are sorted by the time of the first one, and stay
    /// behind each other in this order.
    pub(super) fn events(&mut self, events: &[EventMessage<'_>]) -> Result<()> {
        let Some(ts) = events.first().map(|event| event.ts) else { return Ok(()) };
        self.first = Some(self.first.map_or(ts, |first| first.min(ts)));
        self.buffer.clear();
        for event in events {
            self.report.count(Topic::Events, event.name);
            wire::write_value(&mut self.buffer, Topic::Events, event)?;
        }
        self.events.push(ts, &self.buffer)
    }

    /// Says whether there was any event.
    pub(super) fn any_event(&self) -> bool {
        self.first.is_some()
    }

    /// Returns the time of the first event. Known once all events have been taken.
    pub(super) fn first(&self) -> Result<i64> {
        self.first.context("expected events before items and users, found none")
    }

    /// Writes an item as of the first event.
    pub(super) fn item(&mut self, item: &str, features: &Fields) -> Result<()> {
        let (item, ts, features) = (Some(item), self.first()?, Some(features));
        let record = UpdateMessage { item, ts, features, ..UpdateMessage::default() };
        self.write(Topic::Items, &record)
    }

    /// Takes an item whose features changed, to be written among the events.
    pub(super) fn changed_item(&mut self, item: &str, ts: i64, features: &Fields) -> Result<()> {
        if ts < self.first()? {
            bail!("item {item}: expected a change after the first event, found one before it");
        }
        self.report.count(Topic::Items, "");
        self.buffer.clear();
        let (item, features) = (Some(item), Some(features));
        let record = UpdateMessage { item, ts, features, ..UpdateMessage::default() };
        wire::write_value(&mut self.buffer, Topic::Items, &record)?;
        self.events.push(ts, &self.buffer)
    }

    /// Writes a user as of the first event.
    pub(super) fn user(&mut self, user: &str, features: &Fields) -> Result<()> {
        let (user, ts, features) = (Some(user), self.first()?, Some(features));
        let record = UpdateMessage { user, ts, features, ..UpdateMessage::default() };
        self.write(Topic::Users, &record)
    }

    fn write(&mut self, topic: Topic, record: &impl serde::Serialize) -> Result<()> {
        self.report.count(topic, "");
        self.buffer.clear();
        wire::write_value(&mut self.buffer, topic, record)?;
        self.output.write_all(&self.buffer).context("output")
    }

    /// Counts a row that could not be understood.
    pub(super) fn leave_out(&mut self, file: &str, line: u64, reason: &str) {
        self.report.left_out.add(reason, || format!("{file}:{line}: {reason}"));
    }

    /// Counts a row, good or bad.
    pub(super) fn count_row(&mut self) {
        self.report.rows += 1;
    }

    /// Refuses rows of which more than half were left out.
    pub(super) fn ensure_few_left_out(&self) -> Result<()> {
        self.report.left_out.ensure_few(LEFT_OUT, self.report.rows)
    }

    /// Writes the events and the end of the output; what was taken and left out is told in any case.
    pub(super) fn finish(self, stop: &Shutdown) -> (Report, Result<()>) {
        let Self { mut output, events, report, .. } = self;
        let written = events
            .drain(|lines| {
                ensure!(!stop.is_requested(), Stopped("before all events were written".into()));
                output.write_all(lines).context("output")
            })
            .and_then(|()| output.finish().context("output"));
        (report, written)
    }

    /// Returns what was taken and left out until an error; the output is given up.
    pub(super) fn give_up(self) -> Report {
        self.report
    }
}

impl Report {
    fn count(&mut self, topic: Topic, kind: &str) {
        match self.written.iter_mut().find(|entry| (entry.0.0, entry.0.1.as_str()) == (topic, kind))
        {
            Some((_, count)) => *count += 1,
            None => drop(self.written.insert((topic, kind.to_owned()), 1)),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((topic, kind), count) in &self.written {
            writeln!(f, "{count:>12} {} {kind}", topic.name())?;
        }
        writeln!(f, "{:>12} rows left out", self.left_out.count())?;
        for (reason, count) in self.left_out.reasons() {
            writeln!(f, "{count:>12}   {reason}")?;
        }
        for place in self.left_out.described() {
            writeln!(f, "  {place}")?;
        }
        let summary = self.left_out.summary(LEFT_OUT, self.rows);
        summary.map_or(Ok(()), |summary| writeln!(f, "{summary}"))
    }
}
