//! The running daemon's own threads: ingest and learner, and what they share.
//!
//! ```text
//! poll thread --batches--> ingest --micro-batches--> learner --snapshot--> scorers, publisher
//!                            ^  `--> dead letters     |   `--touched ids--> publisher
//!                            `------- used batches ---'
//!                            `--state--> checkpointer <--parameters--'
//! ```
//!
//! All queues are bounded: the slowest thread sets the pace, back to the poll thread, which pauses its partitions.

mod ahead;
pub mod checkpointer;
pub mod ingest;
pub mod lateness;
pub mod learn;
pub mod notices;
pub mod orphans;
pub mod outputs;
mod partitioning;
pub mod poison;
pub mod refusals;
pub mod repeat;
pub mod rivals;
mod room;
mod silence;
mod status;
pub mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lateness::Lateness;
use orphans::Orphans;
use parking_lot::{Mutex, RwLock};
use refusals::Refusals;
use sluice_features::wire::Topic;

use crate::checkpoint::NotSound;
use crate::clock::Clock;
use crate::config::Topics;
use crate::http::{Readiness, Wait};
use crate::learn::trainer::{Trainer, TrainerImage};
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::pipeline::work::LearnBatch;

/// What ingest and learner share with each other and with those who watch.
pub struct Live {
    /// The state of the pipeline. The ingest thread alone writes.
    pub pipeline: Arc<RwLock<Pipeline>>,
    /// The parameters. The learner holds the lock during a step.
    pub trainer: Mutex<Trainer>,
    /// The clock.
    pub clock: Clock,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Why the daemon is not ready.
    pub readiness: Arc<Readiness>,
    /// The topics' names.
    pub topics: Topics,
    /// What was refused of late.
    pub refusals: Mutex<Refusals>,
    /// Which outcomes find fewer impressions than usual.
    pub orphans: Mutex<Orphans>,
    /// What came too late of late.
    pub lateness: Mutex<Lateness>,
    caught_up: AtomicBool,
    records: AtomicU64,
    /// Records that Kafka has not taken.
    undelivered: AtomicU64,
    /// Users seen in more than one partition.
    split_users: AtomicU64,
    /// Nanoseconds for which the newest checkpoint has held something up.
    held: AtomicU64,
}

impl Live {
    /// Creates what is shared, at the start.
    pub fn new(
        pipeline: Arc<RwLock<Pipeline>>,
        trainer: Trainer,
        clock: Clock,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
        topics: Topics,
    ) -> Self {
        Self {
            pipeline,
            trainer: Mutex::new(trainer),
            clock,
            metrics,
            readiness,
            topics,
            refusals: Mutex::default(),
            orphans: Mutex::default(),
            lateness: Mutex::default(),
            caught_up: AtomicBool::new(false),
            records: AtomicU64::new(0),
            undelivered: AtomicU64::new(0),
            split_users: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    /// Tells whether everything up to the high-water marks has been handed out.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire)
    }

    /// Tells whether everything that Kafka had is taken and what comes is taken too.
    pub fn takes_everything(&self) -> bool {
        let hindered = [Wait::Catalogue, Wait::Kafka, Wait::Lag, Wait::Open, Wait::Memory];
        self.is_caught_up() && !hindered.into_iter().any(|what| self.readiness.waits_for(what))
    }

    pub(crate) fn set_caught_up(&self, caught_up: bool) {
        self.caught_up.store(caught_up, Ordering::Release);
    }

    pub(crate) fn count(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn set_undelivered(&self, records: u64) {
        self.undelivered.store(records, Ordering::Relaxed);
    }

    pub(crate) fn split_users(&self) -> u64 {
        self.split_users.load(Ordering::Relaxed)
    }

    pub(crate) fn set_split_users(&self, users: u64) {
        self.split_users.store(users, Ordering::Relaxed);
        self.metrics.events.split_users.set(users as f64);
    }

    /// Takes note that a checkpoint has held up reading, learning or answering for so long.
    pub(crate) fn hold(&self, time: Duration) {
        self.held.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns for how long a checkpoint has held anything up since the last call, all together.
    pub(crate) fn take_held(&self) -> Duration {
        Duration::from_nanos(self.held.swap(0, Ordering::Relaxed))
    }

    /// Returns the name of an input topic.
    pub fn topic_name(&self, topic: Topic) -> &str {
        match topic {
            Topic::Events => &self.topics.events,
            Topic::Items => &self.topics.items,
            Topic::Users => &self.topics.users,
            Topic::Requests => &self.topics.requests,
        }
    }

    /// Returns how many records were taken since the start.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}

/// What the learner is told to do, in order.
pub enum Work {
    /// Predict, judge, learn.
    Learn(Box<LearnBatch>),
    /// Send an image of the parameters as everything before has made them, or why they may not be kept; then go on with what comes next.
    Freeze(crossbeam_channel::Sender<Result<TrainerImage, NotSound>>),
}
