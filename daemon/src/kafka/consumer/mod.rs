//! The consumer: one named thread that polls Kafka and hands out batches of records.
//!
//! ```text
//!            poll thread                                   owner
//!  broker ─▶ copy into a batch of its partition ─▶ bounded channel ─▶ events()
//!            pause / resume  ◀─ bytes that the owner still holds (a dropped batch counts no more)
//!            commit          ◀─ commit(): for lag tools only
//! ```
//!
//! **All partitions are assigned by hand.** There is one instance of the daemon, so no group is joined and
//! nothing is ever revoked: every partition that the metadata lists is ours, from the offsets that the
//! caller gives (its checkpoint). The group's name is used only to commit offsets where lag tools look.
//! More partitions than at the start are reported ([`ConsumerEvent::PartitionsChanged`]) and not read,
//! because users would move between shards; those of requests are taken up from their beginning.
//!
//! **An offset is not trusted alone.** The caller keeps a [`Mark`] of the last record that it applied of each
//! partition; before reading begins that record is read again and compared. Where records are missing, or
//! are not those that were read before, the thread ends ([`ConsumerEvent::Fatal`]), or goes on knowingly
//! ([`ConsumerSettings::accept_gaps`]) and says so ([`ConsumerEvent::Gap`]).
//!
//! **The phases** of the thread: ask for partitions and offsets until a broker answers; read the topics
//! marked [`Source::first`] up to the high-water marks of that moment and say [`ConsumerEvent::ReadUp`];
//! then read everything until told to stop. Batches arrive in the order of offsets within a partition.
//!
//! **Backpressure.** Above `queue_high` bytes in batches that the owner has not dropped, all partitions
//! are paused; below `queue_low` they go on. The thread polls all the time, for the library handles its
//! own affairs only inside poll.
//!
//! **Silence.** Whether a partition is read up is proven, not assumed: `log_end`.

mod batch;
mod broker_clock;
mod gap;
mod lanes;
mod log_end;
mod mark;
pub(super) mod poll;
mod witness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use parking_lot::{Mutex, RwLock};

use super::client::Connection;
use super::trouble::Trouble;
use crate::clock::Clock;

pub use batch::{Batch, Record};
pub(super) use batch::{Buffers, arrival};
pub use gap::{Gap, GapCause};
pub use log_end::LogEnd;
pub use mark::Mark;

/// What a topic is to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopicRole {
    /// Impressions, behaviours, searches, erasures.
    Events,
    /// Item features, compacted.
    Items,
    /// User features, compacted.
    Users,
    /// Questions to answer.
    Requests,
}

impl TopicRole {
    /// All roles, in order.
    pub const ALL: [Self; 4] = [Self::Events, Self::Items, Self::Users, Self::Requests];

    /// Returns the name used in topic names, labels and keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Items => "items",
            Self::Users => "users",
            Self::Requests => "requests",
        }
    }
}

/// One partition of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The topic.
    pub role: TopicRole,
    /// The partition's number.
    pub partition: i32,
}

/// The offset of the record that comes *after* what is done. Kafka commits these, not the last one done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(pub i64);

/// Where a partition starts for which the caller has no offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record.
    Beginning,
    /// After the newest record of the moment.
    End,
}

/// What to do when the wanted offset is not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gaps {
    /// Stop with [`Trouble::OutOfRange`]: records would be lost, and a person must decide.
    Refuse,
    /// Continue at the nearest offset that is there where nothing is missed: below the log of compacted topics, and for requests.
    Skip,
}

/// One topic to read.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it is.
    pub role: TopicRole,
    /// Its name.
    pub topic: String,
    /// Where partitions start that are not in [`ConsumerSettings::offsets`].
    pub start: Start,
    /// What to do when a wanted offset is gone.
    pub gaps: Gaps,
    /// Read to its high-water mark before the others are begun.
    pub first: bool,
}

impl Source {
    /// Returns a topic with the habits of its role: catalogue topics are read first and from the beginning,
    /// requests from the end.
    pub fn new(role: TopicRole, topic: impl Into<String>) -> Self {
        let (start, gaps, first) = match role {
            TopicRole::Events => (Start::Beginning, Gaps::Refuse, false),
            TopicRole::Items | TopicRole::Users => (Start::Beginning, Gaps::Skip, true),
            TopicRole::Requests => (Start::End, Gaps::Skip, false),
        };
        Self { role, topic: topic.into(), start, gaps, first }
    }
}

/// When a batch is handed on.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// At this many records.
    pub records: usize,
    /// At this many bytes.
    pub bytes: usize,
    /// At this age; sooner when nothing more is waiting to be read.
    pub age: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { records: 256, bytes: 256 << 10, age: Duration::from_millis(5) }
    }
}

/// Everything that a consumer needs to start.
#[derive(Clone, Debug)]
pub struct ConsumerSettings {
    /// The cluster.
    pub connection: Connection,
    /// Dates the records whose stamp cannot be believed.
    pub clock: Clock,
    /// The name of the poll thread.
    pub thread: String,
    /// The group under which offsets are committed.
    pub group: String,
    /// Who commits them: kept beside them.
    pub name: String,
    /// The topics, at most one per role.
    pub sources: Vec<Source>,
    /// Where to continue: the caller's checkpoint.
    pub offsets: BTreeMap<Lane, NextOffset>,
    /// The last record that was applied of each partition: the caller's checkpoint.
    pub marks: BTreeMap<Lane, Mark>,
    /// Whether reading goes on, knowingly, where records are missing; it ends there otherwise.
    pub accept_gaps: bool,
    /// When batches are handed on.
    pub batch: BatchLimits,
    /// Bytes in the owner's hands above which reading pauses.
    pub queue_high: usize,
    /// Bytes in the owner's hands below which reading goes on.
    pub queue_low: usize,
    /// Batches that the channel holds.
    pub queue_batches: usize,
    /// Bytes that the library may fetch ahead, over all partitions.
    pub fetch_ahead: usize,
    /// Records behind the high-water marks up to which we count as caught up.
    pub caught_up_within: u64,
    /// How often the brokers are asked where the partitions of events end.
    pub ask_every: Duration,
}

impl ConsumerSettings {
    /// Returns settings with the default limits.
    pub fn new(connection: Connection, group: impl Into<String>, sources: Vec<Source>) -> Self {
        Self {
            connection,
            clock: Clock::system(),
            thread: "kafka-poll".to_owned(),
            group: group.into(),
            name: String::new(),
            sources,
            offsets: BTreeMap::new(),
            marks: BTreeMap::new(),
            accept_gaps: false,
            batch: BatchLimits::default(),
            queue_high: 64 << 20,
            queue_low: 32 << 20,
            queue_batches: 1024,
            fetch_ahead: 32 << 20,
            caught_up_within: 1000,
            ask_every: Duration::from_secs(1),
        }
    }
}

/// What the poll thread tells its owner.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// The partitions are known and reading begins; one entry per partition.
    Assigned(Vec<LaneStatus>),
    /// Records of one partition.
    Batch(Batch),
    /// All topics marked `first` are read up to where they ended at the start; the batches are all out.
    ReadUp,
    /// Everything up to the high-water marks is handed out, but for `lag` records.
    CaughtUp {
        /// Records not handed out yet.
        lag: u64,
    },
    /// Records are missing, and reading went on behind them knowingly. The partition's next batch follows.
    Gap(Gap),
    /// More is waiting than `caught_up_within` and its slack allow.
    Behind {
        /// Records not handed out yet.
        lag: u64,
    },
    /// No broker can be reached; the thread keeps trying.
    BrokersDown {
        /// What the client library said last.
        reason: String,
    },
    /// Brokers answer again.
    BrokersBack,
    /// A topic other than that of requests has more partitions than at the start; the new ones are not read.
    PartitionsChanged {
        /// The topic.
        role: TopicRole,
        /// Partitions at the start.
        known: usize,
        /// Partitions now.
        found: usize,
    },
    /// The thread cannot go on and ends.
    Fatal(Trouble),
}

/// How far one partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneStatus {
    /// The partition.
    pub lane: Lane,
    /// The next offset to hand out.
    pub position: NextOffset,
    /// The offset after the newest record, as far as known.
    pub high: i64,
    /// What the brokers said last when asked where it ends; of partitions of events only.
    pub end: Option<LogEnd>,
    /// Whether the owner, or a queue on the way to it, has records that are not dropped yet.
    pub in_hand: bool,
}

impl LaneStatus {
    /// Returns the records that are not handed out yet.
    pub fn lag(&self) -> u64 {
        u64::try_from(self.high - self.position.0).unwrap_or(0)
    }

    /// Returns the moment, by the steady clock, up to which everything that had come is certainly taken: that of the newest answer, if all
    /// below the end of then was handed out and dropped.
    pub fn read_up_to(&self) -> Option<Duration> {
        let end = self.end.filter(|end| self.position.0 >= end.high && !self.in_hand);
        end.map(|end| end.asked)
    }
}

/// Figures of a consumer at one moment.
#[derive(Clone, Debug)]
pub struct ConsumerGauges {
    /// Time since the thread last called poll.
    pub poll_age: Duration,
    /// Bytes of batches that are not dropped yet.
    pub bytes_in_flight: usize,
    /// Records handed out since the start.
    pub records: u64,
    /// Records below the wanted offset that were dropped.
    pub skipped: u64,
    /// Whether reading is paused because the owner is behind.
    pub paused: bool,
    /// Whether brokers can be reached.
    pub connected: bool,
    /// Commits that Kafka refused or that got lost.
    pub commits_failed: u64,
    /// Position and high-water mark of every partition; empty before the assignment.
    pub lanes: Vec<LaneStatus>,
}

impl ConsumerGauges {
    /// Returns the records not handed out yet, over all partitions.
    pub fn lag(&self) -> u64 {
        self.lanes.iter().map(LaneStatus::lag).sum()
    }
}

/// The handle of a running consumer. Dropping it stops the thread without waiting for it.
pub struct Consumer {
    events: Receiver<ConsumerEvent>,
    control: Sender<Control>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    name: String,
}

impl Consumer {
    /// Starts the poll thread; the first thing it does is to wait for a broker.
    ///
    /// # Errors
    /// [`Trouble::Settings`] when the library refuses the options or the thread cannot be made.
    pub fn start(settings: ConsumerSettings) -> Result<Self, Trouble> {
        let name = settings.thread.clone();
        let (event_sender, events) = crossbeam_channel::bounded(settings.queue_batches.max(1));
        let (control, control_receiver) = crossbeam_channel::bounded(16);
        let shared = Arc::new(Shared::new());
        let asker = log_end::Asker::open(&settings, &shared)?;
        let mut poller =
            poll::Poller::open(settings, event_sender, control_receiver, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || poller.run())
            .map_err(|error| Trouble::Settings(format!("thread {name}: {error}")))?;
        // From here on dropping it ends the threads.
        let consumer = Self { events, control, shared, thread: Some(thread), name };
        if let Some(asker) = asker {
            let name = "kafka-log-ends";
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || asker.run())
                .map_err(|error| Trouble::Settings(format!("thread {name}: {error}")))?;
        }
        Ok(consumer)
    }

    /// Creates the clients that reading needs and lets them go again: whether their options, certificates and keys will do.
    ///
    /// # Errors
    /// [`Trouble::Settings`] when the library refuses them.
    pub fn check(settings: ConsumerSettings) -> Result<(), Trouble> {
        let (events, _) = crossbeam_channel::bounded(1);
        let (_, control) = crossbeam_channel::bounded(1);
        poll::Poller::open(settings, events, control, Arc::new(Shared::new()))?.check()
    }

    /// Returns the channel of events; it is disconnected once the thread has ended.
    pub fn events(&self) -> &Receiver<ConsumerEvent> {
        &self.events
    }

    /// Asks to commit offsets to Kafka, for lag tools. Returns false when the thread is busy with
    /// earlier commits; nothing is lost then, the next commit covers it.
    pub fn commit(&self, offsets: Vec<(Lane, NextOffset)>) -> bool {
        match self.control.try_send(Control::Commit(offsets)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// Returns the figures of the moment.
    pub fn gauges(&self) -> ConsumerGauges {
        self.shared.gauges()
    }

    /// Stops the thread: pending commits are waited for shortly, batches not yet received are given up.
    ///
    /// # Errors
    /// [`Trouble::StillRunning`] at the deadline; the thread then ends by itself or with the process.
    pub fn stop(mut self, patience: Duration) -> Result<(), Trouble> {
        let start = Instant::now();
        self.shared.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        while !thread.is_finished() {
            if start.elapsed() >= patience {
                return Err(Trouble::StillRunning { thread: self.name.clone(), waited: patience });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        thread.join().map_err(|_| Trouble::Failed {
            action: "poll thread".to_owned(),
            reason: "it panicked".to_owned(),
        })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// What the owner asks of the thread.
enum Control {
    Commit(Vec<(Lane, NextOffset)>),
}

/// What both sides see.
struct Shared {
    stop: AtomicBool,
    started: Instant,
    last_poll: AtomicU64,
    /// When the brokers last said where partitions end; `None` where nobody asks.
    answered: Mutex<Option<Instant>>,
    bytes_in_flight: Arc<AtomicUsize>,
    records: AtomicU64,
    skipped: AtomicU64,
    paused: AtomicBool,
    connected: AtomicBool,
    commits_failed: AtomicU64,
    lanes: RwLock<Vec<SharedLane>>,
}

/// How far a partition is, as others may see it.
struct SharedLane {
    lane: Lane,
    position: AtomicI64,
    high: AtomicI64,
    end: Mutex<Option<LogEnd>>,
    in_hand: Arc<AtomicUsize>,
}

impl Shared {
    fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            started: Instant::now(),
            last_poll: AtomicU64::new(0),
            answered: Mutex::default(),
            bytes_in_flight: Arc::default(),
            records: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            commits_failed: AtomicU64::new(0),
            lanes: RwLock::default(),
        }
    }

    fn note_poll(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.started).as_millis();
        self.last_poll.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns how many partitions of a topic are known.
    fn partitions_of(&self, role: TopicRole) -> usize {
        self.lanes.read().iter().filter(|lane| lane.lane.role == role).count()
    }

    /// From now on an answer is expected.
    fn begin_asking(&self, now: Instant) {
        self.answered.lock().get_or_insert(now);
    }

    fn note_answer(&self, now: Instant) {
        *self.answered.lock() = Some(now);
    }

    fn note_end(&self, lane: Lane, end: LogEnd) {
        if let Some(shared) = self.lanes.read().iter().find(|shared| shared.lane == lane) {
            *shared.end.lock() = Some(end);
        }
    }

    /// Returns for how long the brokers have not said where partitions end; nothing where nobody asks.
    fn unanswered(&self, now: Instant) -> Duration {
        self.answered.lock().map_or(Duration::ZERO, |then| now.saturating_duration_since(then))
    }

    fn gauges(&self) -> ConsumerGauges {
        let last_poll = Duration::from_millis(self.last_poll.load(Ordering::Relaxed));
        let status = |lane: &SharedLane| LaneStatus {
            lane: lane.lane,
            // In this order: what is below the position was in hand before it went up.
            position: NextOffset(lane.position.load(Ordering::Acquire)),
            high: lane.high.load(Ordering::Relaxed),
            end: *lane.end.lock(),
            in_hand: lane.in_hand.load(Ordering::Acquire) > 0,
        };
        ConsumerGauges {
            poll_age: self.started.elapsed().saturating_sub(last_poll),
            bytes_in_flight: self.bytes_in_flight.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            paused: self.paused.load(Ordering::Relaxed),
            connected: self.connected.load(Ordering::Relaxed),
            commits_failed: self.commits_failed.load(Ordering::Relaxed),
            lanes: self.lanes.read().iter().map(status).collect(),
        }
    }
}
