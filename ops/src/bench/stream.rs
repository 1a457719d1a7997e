//! Records in memory, and how fast a pipeline takes them.

use std::ops::Range;
use std::time::{Duration, Instant};

use sluice_daemon::pipeline::Pipeline;
use sluice_daemon::pipeline::record::Record;
use sluice_features::time::EventTime;
use sluice_features::wire::Topic;

/// The arrival of all records: later than any of them.
const ARRIVED: EventTime = EventTime(1_900_000_000_000);

/// Messages end to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    text: String,
    messages: Vec<(Topic, Range<usize>)>,
}

impl Stream {
    /// Adds a message that `write` appends.
    pub(super) fn push(&mut self, topic: Topic, write: impl FnOnce(&mut String)) {
        let begin = self.text.len();
        write(&mut self.text);
        self.messages.push((topic, begin..self.text.len()));
    }

    /// Removes all messages and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.messages.clear();
    }

    /// Removes all messages but the first `length`.
    pub(super) fn truncate(&mut self, length: usize) {
        self.messages.truncate(length);
    }

    /// Returns how many messages there are.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Returns the records of a part of the messages; their offsets go on from `offset`.
    pub(super) fn records(
        &self,
        part: Range<usize>,
        offset: usize,
    ) -> impl Iterator<Item = Record<'_>> {
        (offset as i64..).zip(&self.messages[part]).map(|(offset, (topic, range))| Record {
            topic: *topic,
            partition: 0,
            offset,
            arrived: ARRIVED,
            key: None,
            value: Some(&self.text.as_bytes()[range.clone()]),
        })
    }
}

/// Lets a pipeline take a record, and gives back its batches as a learner would. Returns whether it was taken.
pub(super) fn take(pipeline: &mut Pipeline, record: &Record<'_>) -> bool {
    let taken = pipeline.take(record).is_ok();
    while let Some(batch) = pipeline.next_batch() {
        pipeline.recycle(batch);
    }
    taken
}

/// Lets a pipeline take records. Returns how long this thread worked on that and how many were refused.
pub(super) fn play<'a>(
    pipeline: &mut Pipeline,
    records: impl Iterator<Item = Record<'a>>,
) -> (Duration, usize) {
    let clock = Busy::new();
    let refused = records.filter(|record| !take(pipeline, record)).count();
    (clock.elapsed(), refused)
}

/// How long this thread has had a core: what a core does does not depend on who else wants one. Where the system does not tell, the time
/// that has passed.
pub(super) struct Busy {
    begun: Instant,
    busy: Option<Duration>,
}

impl Busy {
    /// Begins now.
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), busy: busy() }
    }

    /// Returns the time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        match (busy(), self.busy) {
            (Some(now), Some(then)) if now > then => now - then,
            _ => self.begun.elapsed(),
        }
    }
}

fn busy() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    told.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
