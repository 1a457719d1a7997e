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
use crate::checkpoint::{Checkpoint, Cut, NotSound, Offset, Outcome};
use crate::config::Topics;
use crate::error::Stop;
use crate::http::Wait;
use crate::kafka::{Consumer, DeadLetters, Lane, Mark, NextOffset, TopicRole};
use crate::learn::trainer::TrainerImage;
use crate::shutdown::Shutdown;

/// How long dead letters may take to be written before the thread says that Kafka does not take them, and waits on.
const PATIENCE: Duration = Duration::from_secs(5);

/// A checkpoint to be written.
pub struct Job {
    /// The pipeline.
    pub cut: Cut,
    /// Where the parameters come from, once the learner has learned up to the cut, if they are sound.
    pub image: Receiver<Result<TrainerImage, NotSound>>,
}

/// What became of a job: it is in force, or the one before stays so, and why.
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
}

impl Checkpointer {
    /// Runs until the ingest thread has ended.
    ///
    /// # Errors
    /// When the disk fails, or Kafka takes no dead letters.
    pub fn run(mut self, shutdown: &Shutdown) -> Result<(), Stop> {
        while let Ok(Job { cut, image }) = self.jobs.recv() {
            self.settle_letters(shutdown)?;
            let clock = self.shared.clock.clone();
            let outcome = self.checkpoint.commit(cut, &clock, |mut to| {
                let gone = |_| io::Error::other("the learner ended before a checkpoint");
                image.recv().map_err(gone)?.map_err(io::Error::other)?.write(&mut to)
            })?;
            let written = match &outcome {
                Outcome::Done(_) => Ok(()),
                Outcome::NotNow(reason) => Err(reason.clone()),
            };
            // Whatever became of it: when ingest hears of it, everything before the cut is learned.
            drop(image.recv());
            self.tell(outcome)?;
            if self.done.send(written).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits as long as Kafka takes no dead letters: a checkpoint must not be ahead of them. Once the daemon is to stop it waits no longer;
    /// the next start reads their records again.
    fn settle_letters(&self, shutdown: &Shutdown) -> Result<(), Stop> {
        while let Err(trouble) = self.letters.settle(PATIENCE) {
            if !trouble.is_retriable() || shutdown.is_requested() {
                return Err(Stop::kafka("writing to the dead-letter topic", trouble));
            }
            self.shared
                .readiness
                .wait_for(Wait::DeadLetters, "the dead-letter topic takes nothing");
            tracing::warn!(%trouble, "the dead-letter topic takes nothing: no checkpoint until it does");
        }
        self.shared.readiness.clear(Wait::DeadLetters);
        Ok(())
    }

    fn tell(&self, outcome: Outcome) -> Result<(), Stop> {
        let metrics = &self.shared.metrics.checkpoint;
        let pause = self.shared.take_held();
        match outcome {
            Outcome::Done(report) => {
                metrics.seconds.record(report.took.as_secs_f64());
                metrics.pause_seconds.record(pause.as_secs_f64());
                metrics.bytes.set(report.bytes() as f64);
                metrics.store_bytes.set(self.checkpoint.store_bytes()? as f64);
                self.shared.readiness.clear(Wait::Checkpoint);
                let lanes = lanes(&self.shared.topics, &report.offsets);
                self.consumer.commit(lanes.map(|(lane, next, _)| (lane, next)).collect());
                tracing::info!(
                    number = report.number,
                    bytes = report.bytes(),
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
