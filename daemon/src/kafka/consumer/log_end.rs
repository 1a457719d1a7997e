//! Where logs end, asked for anew: what the partitions of events held at one moment.
//!
//! That the client has nothing to hand out says little of a partition: its fetch may be cut off, or the process may have slept. An answer to a
//! question that was asked at a known moment says it exactly: who has taken everything below that end has taken all that had come by then.
//! A thread of its own asks, for an answer may be long in coming; that none comes at all is how a connection shows that it is open and dead.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::probe::Probe;
use super::super::trouble::Trouble;
use super::{ConsumerSettings, Lane, Shared, TopicRole};
use crate::clock::Clock;

/// The longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest the thread sleeps.
const TICK: Duration = Duration::from_millis(100);

/// What a partition held when it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// When the question went out, by the steady clock.
    pub asked: Duration,
    /// The offset after the newest record, open transactions included.
    pub high: i64,
}

/// Asks again and again.
pub(super) struct Asker {
    probe: Probe,
    topic: String,
    every: Duration,
    clock: Clock,
    shared: Arc<Shared>,
}

impl Asker {
    /// Returns who asks for the partitions of events; `None` where none are read.
    ///
    /// # Errors
    /// [`Trouble::Settings`] when the library refuses the connection's options.
    pub(super) fn open(
        settings: &ConsumerSettings,
        shared: &Arc<Shared>,
    ) -> Result<Option<Self>, Trouble> {
        let events = settings.sources.iter().find(|source| source.role == TopicRole::Events);
        let Some(source) = events else { return Ok(None) };
        Ok(Some(Self {
            probe: Probe::open(&settings.connection)?,
            topic: source.topic.clone(),
            every: settings.ask_every,
            clock: settings.clock.clone(),
            shared: Arc::clone(shared),
        }))
    }

    /// Runs until the consumer stops.
    pub(super) fn run(&self) {
        let mut asked = None;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let partitions = self.shared.partitions_of(TopicRole::Events);
            if partitions > 0 && asked.is_none_or(|asked: Instant| asked.elapsed() >= self.every) {
                asked = Some(Instant::now());
                self.ask(partitions);
            }
            std::thread::sleep(TICK.min(self.every));
        }
    }

    fn ask(&self, partitions: usize) {
        self.shared.begin_asking(Instant::now());
        let asked = self.clock.steady();
        match self.probe.ends(&self.topic, partitions, PATIENCE) {
            Ok(ends) => {
                self.shared.note_answer(Instant::now());
                for (partition, high) in (0i32..).zip(ends) {
                    if let Some(high) = high {
                        let lane = Lane { role: TopicRole::Events, partition };
                        self.shared.note_end(lane, LogEnd { asked, high });
                    }
                }
            }
            Err(trouble) => tracing::debug!(%trouble, "kafka does not say where its logs end"),
        }
    }
}
