//! The loop of the poll thread. It copies records and keeps the books; it never works on a record.

mod batches;
mod flow;
mod mend;
mod progress;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::super::client::Kind;
use super::super::context::{Listener, tells_of_topics_made_anew};
use super::super::probe::Probe;
use super::super::trouble::Trouble;
use super::batch::Buffers;
use super::lanes::{LaneState, resolve};
use super::{ConsumerEvent, ConsumerSettings, Control, Gap, Shared};
use crate::telemetry::RateLimit;

/// The longest wait for a record.
const IDLE: Duration = Duration::from_millis(50);
/// Records taken between two looks at the clock, the control channel and the backlog.
const ROUND: usize = 64;
/// The longest wait for one answer about partitions and offsets.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// Statistics in a row without a connection after which brokers count as down.
const DOWN_AFTER: u32 = 3;
/// Statistics in a row with a connection after which brokers count as back: one may be older than the outage.
const UP_AFTER: u32 = 2;
/// How long a stopping thread gives its last commits.
const COMMIT_PATIENCE: Duration = Duration::from_secs(1);

/// The poll thread's state.
pub(super) struct Poller {
    settings: ConsumerSettings,
    probe: Option<Probe>,
    events: Sender<ConsumerEvent>,
    control: Receiver<Control>,
    shared: Arc<Shared>,
    lanes: Vec<LaneState>,
    /// Gaps that were found at the start.
    gaps: Vec<Gap>,
    /// Lane of each partition, by source.
    index: Vec<Vec<usize>>,
    /// Lanes with an open batch, oldest first.
    open: VecDeque<(usize, Instant)>,
    outbox: VecDeque<ConsumerEvent>,
    pool: Vec<Buffers>,
    returns: (Sender<Buffers>, Receiver<Buffers>),
    read_up: bool,
    paused: bool,
    down: bool,
    /// Statistics in a row without, and with, a connection.
    silent: u32,
    heard: u32,
    caught_up: Option<bool>,
    changed: Vec<bool>,
    has_committed: bool,
    /// Commits that the client did not take.
    commits_untaken: u64,
    /// The user may not commit offsets of the group.
    denied: bool,
    /// When an error without a meaning of its own was told last.
    told: RateLimit,
}

impl Poller {
    /// Checks the settings as far as that goes without a broker.
    pub(super) fn open(
        settings: ConsumerSettings,
        events: Sender<ConsumerEvent>,
        control: Receiver<Control>,
        shared: Arc<Shared>,
    ) -> Result<Self, Trouble> {
        if settings.sources.is_empty() {
            return Err(Trouble::Settings("expected at least one topic, found none".to_owned()));
        }
        if settings.queue_low > settings.queue_high {
            return Err(Trouble::Settings("queue_low must not exceed queue_high".to_owned()));
        }
        let probe = Probe::open(&settings.connection)?;
        let changed = vec![false; settings.sources.len()];
        Ok(Self {
            returns: crossbeam_channel::bounded(settings.queue_batches.max(1) * 2),
            settings,
            probe: Some(probe),
            events,
            control,
            shared,
            lanes: Vec::new(),
            gaps: Vec::new(),
            index: Vec::new(),
            open: VecDeque::new(),
            outbox: VecDeque::new(),
            pool: Vec::new(),
            read_up: false,
            paused: false,
            down: false,
            silent: 0,
            heard: 0,
            caught_up: None,
            changed,
            has_committed: false,
            commits_untaken: 0,
            denied: false,
            told: RateLimit::default(),
        })
    }

    /// Says whether the client that reads can be created.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        self.create().map(drop)
    }

    /// Runs until told to stop or until nothing can be done.
    pub(super) fn run(&mut self) {
        if let Err(trouble) = self.work() {
            tracing::error!(%trouble, "reading from kafka ended");
            self.outbox.push_back(ConsumerEvent::Fatal(trouble));
            while !self.is_stopping() && !self.outbox.is_empty() {
                self.deliver();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.shared.connected.store(false, Ordering::Relaxed);
    }

    fn work(&mut self) -> Result<(), Trouble> {
        if !self.connect()? {
            return Ok(());
        }
        let consumer = self.create()?;
        let outcome = self.read(&consumer);
        if outcome.is_ok() {
            self.finish(&consumer);
        }
        self.close(consumer, outcome.is_err());
        outcome
    }

    fn read(&mut self, consumer: &BaseConsumer<Listener>) -> Result<(), Trouble> {
        self.read_up = !self.settings.sources.iter().any(|source| source.first);
        self.assign(consumer)?;
        self.announce();
        while !self.is_stopping() {
            self.round(consumer)?;
        }
        Ok(())
    }

    /// Waits for a broker, however long that takes; false when told to stop before.
    fn connect(&mut self) -> Result<bool, Trouble> {
        while !self.is_stopping() {
            self.shared.note_poll(Instant::now());
            let probe = match self.probe.take() {
                Some(probe) => probe,
                None => Probe::open(&self.settings.connection)?,
            };
            match resolve(&self.settings, &probe, PROBE_PATIENCE) {
                Ok((lanes, gaps)) => {
                    self.take_lanes(lanes);
                    self.gaps = gaps;
                    self.set_connected();
                    return Ok(true);
                }
                Err(trouble) if trouble.is_retriable() => {
                    self.set_down(&trouble.to_string());
                    self.deliver();
                }
                Err(trouble) => return Err(trouble),
            }
            self.probe = Some(probe);
        }
        Ok(false)
    }

    fn take_lanes(&mut self, lanes: Vec<LaneState>) {
        self.index = vec![Vec::new(); self.settings.sources.len()];
        for (at, lane) in lanes.iter().enumerate() {
            self.index[lane.source].push(at);
        }
        *self.shared.lanes.write() = lanes.iter().map(LaneState::shared).collect();
        self.lanes = lanes;
    }

    fn create(&self) -> Result<BaseConsumer<Listener>, Trouble> {
        options(&self.settings)
            .create_with_context(Listener::default())
            .map_err(|error| Trouble::from_client("connecting", &error, None))
    }

    /// Assigns what is to be read in this phase, each partition at its position.
    fn assign(&mut self, consumer: &BaseConsumer<Listener>) -> Result<(), Trouble> {
        let mut list = TopicPartitionList::with_capacity(self.lanes.len());
        for lane in &mut self.lanes {
            let source = &self.settings.sources[lane.source];
            lane.active = self.read_up || source.first;
            lane.fetched = None;
            if lane.active {
                let at = Offset::Offset(lane.position);
                list.add_partition_offset(&source.topic, lane.lane.partition, at)
                    .map_err(|error| Trouble::from_client("assigning partitions", &error, None))?;
            }
        }
        // Pauses survive an assignment inside one client (librdkafka#1802): begin with a known state.
        if self.paused {
            consumer
                .resume(&list)
                .map_err(|error| Trouble::from_client("resuming", &error, None))?;
            self.set_paused(false);
        }
        consumer
            .assign(&list)
            .map_err(|error| Trouble::from_client("assigning partitions", &error, None))
    }

    fn announce(&mut self) {
        let lanes: Vec<_> = self.lanes.iter().map(LaneState::status).collect();
        tracing::info!(partitions = lanes.len(), "reading from kafka");
        self.outbox.push_back(ConsumerEvent::Assigned(lanes));
        self.outbox.extend(self.gaps.drain(..).map(ConsumerEvent::Gap));
    }

    /// Takes up to [`ROUND`] records, then looks after everything else.
    fn round(&mut self, consumer: &BaseConsumer<Listener>) -> Result<(), Trouble> {
        for _ in 0..ROUND {
            let busy = !self.open.is_empty();
            let wait = match (busy, self.outbox.is_empty()) {
                (true, _) => Duration::ZERO,
                (false, false) => Duration::from_millis(1),
                (false, true) => IDLE,
            };
            match consumer.poll(wait) {
                Some(Ok(message)) => self.take(&message),
                Some(Err(error)) => self.handle(consumer, error)?,
                None if busy => {
                    self.seal_all();
                    break;
                }
                None => {
                    if wait == IDLE {
                        self.settle();
                    }
                    break;
                }
            }
        }
        let now = Instant::now();
        self.shared.note_poll(now);
        self.seal_old(now);
        if let Some(statistics) = consumer.context().take_statistics() {
            self.look_at(&statistics, consumer)?;
        }
        if let Some(topic) = consumer.context().take_made_anew() {
            self.made_anew(&topic, consumer)?;
        }
        self.end_read_up(consumer)?;
        self.deliver();
        self.balance(consumer)?;
        self.obey(consumer);
        Ok(())
    }

    fn finish(&mut self, consumer: &BaseConsumer<Listener>) {
        self.obey(consumer);
        // The client does not tell when a commit is through: the last ones get a moment.
        let start = Instant::now();
        while self.has_committed && !self.denied && start.elapsed() < COMMIT_PATIENCE {
            // Records that still come are given up: their offsets are not in any checkpoint.
            drop(consumer.poll(Duration::from_millis(10)));
        }
        self.count_commits(consumer);
    }

    /// Drops the client; with the brokers away or after a failure that may block for as long as a session lasts, so another
    /// thread waits for it, or ends with the process.
    fn close(&self, consumer: BaseConsumer<Listener>, failed: bool) {
        if self.down || failed {
            let name = format!("{}-close", self.settings.thread);
            // Where no thread can be made, the closure and the client with it are dropped here.
            drop(std::thread::Builder::new().name(name).spawn(move || drop(consumer)));
        }
    }

    fn is_stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }
}

/// Returns the library's options for the client that reads.
pub(in crate::kafka) fn options(settings: &ConsumerSettings) -> ClientConfig {
    let mut options = settings.connection.options(Kind::Consumer);
    let fetch_ahead = settings.fetch_ahead.max(4 << 20);
    let default = |options: &mut ClientConfig, key: &str, value: String| {
        if options.get(key).is_none() {
            options.set(key, value);
        }
    };
    // Checked before a fetch, which may come on top and be many times as large when it is decompressed: a small one.
    default(&mut options, "queued.max.messages.kbytes", (fetch_ahead / 2 / 1024).to_string());
    let fetch = (fetch_ahead / 16).max(1 << 20);
    default(&mut options, "fetch.max.bytes", fetch.to_string());
    default(&mut options, "queued.min.messages", "20000".to_owned());
    // The default of a second would stall a partition whenever the local queue was full for a moment.
    default(&mut options, "fetch.queue.backoff.ms", "10".to_owned());
    default(&mut options, "fetch.wait.max.ms", "100".to_owned());
    default(&mut options, "fetch.error.backoff.ms", "100".to_owned());
    options
        .set("group.id", &settings.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false")
        .set("check.crcs", "true")
        // A lost offset is a decision, never a silent jump.
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("allow.auto.create.topics", "false")
        .set("statistics.interval.ms", "500");
    // Failed commits are told by a warning as well: without a logger of its own the client would keep those back.
    tells_of_topics_made_anew(&mut options);
    options
}
