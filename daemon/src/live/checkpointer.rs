//! The checkpointer's thread: writes what ingest and learner have set aside for a checkpoint, while both go on.
//!
//! ```text
//! ingest   cuts the batch that fills ─▶ Freeze behind it in the learner's queue ─▶ takes the pipeline ─▶ goes on
//! learner  learns up to Freeze ─▶ takes the image of the parameters ─▶ goes on
//! this     writes the state ─▶ waits for the image ─▶ writes it ─▶ commits ─▶ tells ingest
//! ```
//!
//! State and parameters are so of the same moment in the order of records, though not of the clock. One checkpoint is written at a time.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::Live;
use super::rivals::Rivals;
use crate::checkpoint::{Changes, Checkpoint, Cut, NotSound, Offset, Outcome};
use crate::config::Topics;
use crate::error::Stop;
use crate::http::Wait;
use crate::kafka::{Consumer, DeadLetters, Lane, Mark, NextOffset, TopicRole, Trouble};
use crate::learn::trainer::TrainerImage;
use crate::shutdown::Shutdown;

/// How long dead letters may take to be written before the thread says that Kafka does not take them, and waits on.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long they may take once the daemon is to stop.
const LAST: Duration = Duration::from_secs(3);
/// How long the thread waits for them before it looks at the time.
const SLICE: Duration = Duration::from_millis(500);

/// What is to be written.
pub enum Job {
    /// Changes of the checkpoint to come.
    Ahead(Changes),
    /// A checkpoint.
    Commit {
        /// The pipeline.
        cut: Box<Cut>,
        /// Where the parameters come from, once the learner has learned up to the cut, if they are sound.
        image: Receiver<Result<TrainerImage, NotSound>>,
    },
}

/// What became of a checkpoint: it is in force, or the one before stays so, and why.
pub type Written = Result<(), String>;

/// What the checkpointer is made of.
pub struct Checkpointer {
    /// What it shares with ingest and learner.
    pub shared: Arc<Live>,
    /// Makes the checkpoints.
    pub checkpoint: Checkpoint,
    /// Must be written before a checkpoint that covers their records.
    pub letters: DeadLetters,
    /// Learns the offsets, for lag tools.
    pub consumer: Arc<Consumer>,
    /// What to do.
    pub jobs: Receiver<Job>,
    /// What became of the newest job, to ingest.
    pub done: Sender<Written>,
    /// The daemon is to stop: ingest, which is told before this thread, waits for its last checkpoint meanwhile.
    pub wish: Shutdown,
    /// Looks for another daemon of the group.
    pub rivals: Rivals,
}

impl Checkpointer {
    /// Runs until the ingest thread has ended.
    ///
    /// # Errors
    /// When the disk fails, or Kafka takes no dead letters: a checkpoint must not be ahead of them. The next start reads their records again.
    pub fn run(mut self) -> Result<(), Stop> {
        let mut untaken = None;
        while let Ok(job) = self.jobs.recv() {
            let (cut, image) = match job {
                Job::Commit { cut, image } => (cut, image),
                Job::Ahead(changes) => {
                    self.checkpoint.ahead(changes)?;
                    continue;
                }
            };
            // A checkpoint that was given up has taken along what had changed: none can follow it.
            if untaken.is_none() {
                untaken = self.settle_letters()?;
            }
            if let Some(trouble) = &untaken {
                drop(image.recv());
                let reason = format!("Kafka took no dead letters before the stop: {trouble}");
                if self.done.send(Err(reason)).is_err() {
                    break;
                }
                continue;
            }
            let clock = self.shared.clock.clone();
            let outcome = self.checkpoint.commit(*cut, &clock, || {
                let gone = |_| io::Error::other("the learner ended before a checkpoint");
                image.recv().map_err(gone)?.map_err(io::Error::other)
            })?;
            let written = match &outcome {
                Outcome::Done(_) => Ok(()),
                Outcome::NotNow(reason) => Err(reason.clone()),
            };
            // Whatever became of it: when ingest hears of it, everything before the cut is learned.
            drop(image.recv());
            self.tell(outcome)?;
            if self.done.send(written).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Waits as long as Kafka takes no dead letters. Returns why it takes none once the daemon is to stop.
    ///
    /// # Errors
    /// When it never will.
    fn settle_letters(&self) -> Result<Option<Trouble>, Stop> {
        let clock = &self.shared.clock;
        let (mut told, mut stopping) = (clock.steady(), None);
        while let Err(trouble) = self.letters.settle(SLICE) {
            if !trouble.is_retriable() {
                return Err(Stop::kafka("writing to the dead-letter topic", trouble));
            }
            let now = clock.steady();
            if self.wish.is_requested() && now - *stopping.get_or_insert(now) >= LAST {
                return Ok(Some(trouble));
            }
            if now - told >= PATIENCE {
                told = now;
                self.shared
                    .readiness
                    .wait_for(Wait::DeadLetters, "the dead-letter topic takes nothing");
                tracing::warn!(%trouble, "the dead-letter topic takes nothing: no checkpoint until it does");
            }
        }
        self.shared.readiness.clear(Wait::DeadLetters);
        Ok(None)
    }

    fn tell(&mut self, outcome: Outcome) -> Result<(), Stop> {
        let metrics = &self.shared.metrics.checkpoint;
        let pause = self.shared.take_held();
        match outcome {
            Outcome::Done(report) => {
                metrics.seconds.record(report.took.as_secs_f64());
                metrics.pause_seconds.record(pause.as_secs_f64());
                metrics.bytes.set(report.bytes() as f64);
                metrics.store_bytes.set(self.checkpoint.store_bytes()? as f64);
                self.shared.readiness.clear(Wait::Checkpoint);
                if !self.wish.is_requested() {
                    self.rivals.look(&self.shared.metrics, self.shared.clock.steady());
                }
                let lanes = lanes(&self.shared.topics, &report.offsets);
                self.consumer.commit(lanes.map(|(lane, next, _)| (lane, next)).collect());
                tracing::info!(
                    number = report.number,
                    bytes = report.bytes(),
                    whole = report.whole,
                    took_ms = report.took.as_millis() as u64,
                    pause_us = pause.as_micros() as u64,
                    "checkpoint"
                );
            }
            Outcome::NotNow(reason) => {
                metrics.failures.increment(1);
                self.shared.readiness.wait_for(Wait::Checkpoint, &reason);
                tracing::error!(reason, "no checkpoint now: the one before stays in force");
            }
        }
        Ok(())
    }
}

/// Returns the marks of the consumer's partitions as those of a checkpoint.
pub fn marked(topics: &Topics, marks: &BTreeMap<Lane, Mark>) -> BTreeMap<(String, i32), Mark> {
    let named = marks.iter().filter_map(|(lane, mark)| {
        let topic = match lane.role {
            TopicRole::Events => &topics.events,
            TopicRole::Items => &topics.items,
            TopicRole::Users => &topics.users,
            TopicRole::Requests => return None,
        };
        Some(((topic.clone(), lane.partition), *mark))
    });
    named.collect()
}

/// Returns the offsets of a checkpoint with their marks, by the consumer's partitions.
pub fn lanes<'a>(
    topics: &'a Topics,
    offsets: &'a [Offset],
) -> impl Iterator<Item = (Lane, NextOffset, Option<Mark>)> + 'a {
    let role = |topic: &str| match topic {
        _ if topic == topics.events => Some(TopicRole::Events),
        _ if topic == topics.items => Some(TopicRole::Items),
        _ if topic == topics.users => Some(TopicRole::Users),
        _ => None,
    };
    offsets.iter().filter_map(move |offset| {
        let lane = Lane { role: role(&offset.topic)?, partition: offset.partition };
        Some((lane, NextOffset(offset.next), offset.mark))
    })
}
