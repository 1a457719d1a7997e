//! The loop of the poll thread. It copies records and keeps the books; it never works on a record.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::super::client::Kind;
use super::super::context::{Listener, Statistics};
use super::super::probe::Probe;
use super::super::trouble::{Trouble, is_refusal};
use super::batch::{Batch, Buffers, Record};
use super::lanes::{LaneState, resolve, start_of};
use super::{
    ConsumerEvent, ConsumerSettings, Control, Lane, NextOffset, Shared, SharedLane, TopicRole,
};

/// The longest wait for a record.
const IDLE: Duration = Duration::from_millis(50);
/// Records taken between two looks at the clock, the control channel and the backlog.
const ROUND: usize = 64;
/// The longest wait for one answer about partitions and offsets.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// Statistics in a row without a connection after which brokers count as down.
const DOWN_AFTER: u32 = 3;
/// How long a stopping thread waits for the answers to its commits.
const COMMIT_PATIENCE: Duration = Duration::from_secs(1);

/// The poll thread's state.
pub(super) struct Poller {
    settings: ConsumerSettings,
    probe: Option<Probe>,
    events: Sender<ConsumerEvent>,
    control: Receiver<Control>,
    shared: Arc<Shared>,
    lanes: Vec<LaneState>,
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
    silent: u32,
    caught_up: Option<bool>,
    changed: Vec<bool>,
    commits_sent: u64,
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
            index: Vec::new(),
            open: VecDeque::new(),
            outbox: VecDeque::new(),
            pool: Vec::new(),
            read_up: false,
            paused: false,
            down: false,
            silent: 0,
            caught_up: None,
            changed,
            commits_sent: 0,
        })
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
                Ok(lanes) => {
                    self.take_lanes(lanes);
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
        let shared = lanes.iter().map(|lane| SharedLane {
            lane: lane.lane,
            position: AtomicI64::new(lane.position),
            high: AtomicI64::new(lane.high),
        });
        *self.shared.lanes.write() = shared.collect();
        self.lanes = lanes;
    }

    fn create(&self) -> Result<BaseConsumer<Listener>, Trouble> {
        let mut options = self.settings.connection.options(Kind::Consumer);
        let fetch_ahead = self.settings.fetch_ahead.max(4 << 20);
        let default = |options: &mut rdkafka::ClientConfig, key: &str, value: String| {
            if options.get(key).is_none() {
                options.set(key, value);
            }
        };
        // Checked before decompression, and each fetch may come on top: half and a quarter keep the sum in bounds.
        default(&mut options, "queued.max.messages.kbytes", (fetch_ahead / 2 / 1024).to_string());
        default(&mut options, "fetch.max.bytes", (fetch_ahead / 4).to_string());
        default(&mut options, "queued.min.messages", "20000".to_owned());
        // The default of a second would stall a partition whenever the local queue was full for a moment.
        default(&mut options, "fetch.queue.backoff.ms", "10".to_owned());
        default(&mut options, "fetch.wait.max.ms", "100".to_owned());
        default(&mut options, "fetch.error.backoff.ms", "100".to_owned());
        default(&mut options, "check.crcs", "true".to_owned());
        options
            .set("group.id", &self.settings.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            // A lost offset is a decision, never a silent jump.
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("allow.auto.create.topics", "false")
            .set("statistics.interval.ms", "500");
        options
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
            self.look_at(&statistics, consumer);
        }
        self.end_read_up(consumer)?;
        self.deliver();
        self.balance(consumer)?;
        self.obey(consumer);
        Ok(())
    }

    /// Copies one record into the open batch of its partition.
    fn take(&mut self, message: &BorrowedMessage<'_>) {
        if self.down {
            self.set_connected();
        }
        let topic = message.topic();
        let source = self.settings.sources.iter().position(|source| source.topic == topic);
        let partition = usize::try_from(message.partition()).unwrap_or(usize::MAX);
        let Some(&at) = source.and_then(|source| self.index[source].get(partition)) else {
            return; // not assigned by us
        };
        let lane = &mut self.lanes[at];
        if message.offset() < lane.position {
            self.shared.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        lane.position = message.offset() + 1;
        let mut record = Record {
            lane: lane.lane,
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            reply_topic: None,
            correlation_id: None,
        };
        if lane.lane.role == TopicRole::Requests
            && let Some(headers) = message.headers()
        {
            for header in headers.iter() {
                match header.key {
                    "reply-topic" => record.reply_topic = header.value,
                    "correlation-id" => record.correlation_id = header.value,
                    _ => {}
                }
            }
        }
        let limits = self.settings.batch;
        let open = lane.open.get_or_insert_with(|| {
            self.open.push_back((at, Instant::now()));
            self.pool.pop().or_else(|| self.returns.1.try_recv().ok()).map_or_else(
                Buffers::default,
                |mut buffers| {
                    buffers.clear(limits.bytes);
                    buffers
                },
            )
        });
        open.push(&record);
        if open.len() >= limits.records || open.bytes() >= limits.bytes {
            self.open.retain(|(other, _)| *other != at);
            self.seal(at);
        }
    }

    fn seal(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        let Some(buffers) = lane.open.take() else { return };
        self.shared.records.fetch_add(buffers.len() as u64, Ordering::Relaxed);
        if let Some(shared) = self.shared.lanes.read().get(at) {
            shared.position.store(lane.reached(), Ordering::Relaxed);
        }
        let batch = Batch::seal(lane.lane, buffers, &self.shared.bytes_in_flight, &self.returns.0);
        self.outbox.push_back(ConsumerEvent::Batch(batch));
    }

    fn seal_all(&mut self) {
        while let Some((at, _)) = self.open.pop_front() {
            self.seal(at);
        }
    }

    fn seal_old(&mut self, now: Instant) {
        while let Some(&(at, since)) = self.open.front()
            && now.duration_since(since) >= self.settings.batch.age
        {
            self.open.pop_front();
            self.seal(at);
        }
    }

    /// Nothing is waiting in the client: what it fetched and did not hand out is not a record.
    fn settle(&mut self) {
        if self.paused {
            return;
        }
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            if let Some(fetched) = lane.fetched.take() {
                lane.passed = lane.passed.max(fetched);
                if let Some(shared) = self.shared.lanes.read().get(at) {
                    shared.position.store(lane.reached(), Ordering::Relaxed);
                }
            }
        }
        self.judge_lag();
    }

    fn look_at(&mut self, statistics: &Statistics, consumer: &BaseConsumer<Listener>) {
        self.silent = if statistics.any_broker_up() { 0 } else { self.silent.saturating_add(1) };
        if self.silent == 0 && self.down {
            self.set_connected();
        } else if self.silent >= DOWN_AFTER && !self.down {
            let said = consumer.context().last_complaint();
            self.set_down(&said.unwrap_or_else(|| "no connection".to_owned()));
        }
        for (source, known) in self.index.iter().enumerate() {
            let mut found = 0;
            for partition in statistics.partitions(&self.settings.sources[source].topic) {
                found += 1;
                let Some(&at) =
                    known.get(usize::try_from(partition.partition).unwrap_or(usize::MAX))
                else {
                    continue;
                };
                let lane = &mut self.lanes[at];
                if partition.hi_offset > lane.high {
                    lane.high = partition.hi_offset;
                    if let Some(shared) = self.shared.lanes.read().get(at) {
                        shared.high.store(lane.high, Ordering::Relaxed);
                    }
                }
                if lane.active && !self.paused && partition.next_offset > lane.reached() {
                    lane.fetched = Some(partition.next_offset);
                }
            }
            if found > known.len() && !self.changed[source] {
                self.changed[source] = true;
                let role = self.settings.sources[source].role;
                self.outbox.push_back(ConsumerEvent::PartitionsChanged {
                    role,
                    known: known.len(),
                    found,
                });
            }
        }
        let (_, failed) = consumer.context().commits();
        self.shared.commits_failed.store(failed, Ordering::Relaxed);
        self.judge_lag();
    }

    fn judge_lag(&mut self) {
        if !self.read_up {
            return;
        }
        let counted = self.lanes.iter().filter(|lane| lane.is_pausable());
        let lag: u64 = counted.map(|lane| lane.status().lag()).sum();
        let within = self.settings.caught_up_within;
        if lag <= within && !self.paused && self.caught_up != Some(true) {
            self.caught_up = Some(true);
            self.seal_all();
            self.outbox.push_back(ConsumerEvent::CaughtUp { lag });
        } else if lag > within.saturating_mul(4).saturating_add(100)
            && self.caught_up != Some(false)
        {
            self.caught_up = Some(false);
            self.outbox.push_back(ConsumerEvent::Behind { lag });
        }
    }

    /// Begins with everything once the topics that come first are read.
    fn end_read_up(&mut self, consumer: &BaseConsumer<Listener>) -> Result<(), Trouble> {
        if self.read_up || self.lanes.iter().any(|lane| lane.active && lane.reached() < lane.target)
        {
            return Ok(());
        }
        self.read_up = true;
        self.seal_all();
        self.outbox.push_back(ConsumerEvent::ReadUp);
        self.assign(consumer)
    }

    /// Hands on what the channel takes; never waits.
    fn deliver(&mut self) {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => {
                    self.shared.stop.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    /// Pauses or resumes by the bytes that the owner holds.
    fn balance(&mut self, consumer: &BaseConsumer<Listener>) -> Result<(), Trouble> {
        let held = self.shared.bytes_in_flight.load(Ordering::Relaxed);
        let crowded = self.outbox.len() >= self.settings.queue_batches;
        if !self.paused && (held >= self.settings.queue_high || crowded) {
            let list = self.pausable()?;
            consumer.pause(&list).map_err(|error| Trouble::from_client("pausing", &error, None))?;
            self.set_paused(true);
            for lane in self.lanes.iter_mut().filter(|lane| lane.is_pausable()) {
                lane.fetched = None; // what was fetched ahead is thrown away by the pause
            }
        } else if self.paused && held <= self.settings.queue_low && self.outbox.is_empty() {
            let list = self.pausable()?;
            consumer
                .resume(&list)
                .map_err(|error| Trouble::from_client("resuming", &error, None))?;
            self.set_paused(false);
        }
        Ok(())
    }

    fn pausable(&self) -> Result<TopicPartitionList, Trouble> {
        let mut list = TopicPartitionList::with_capacity(self.lanes.len());
        for lane in self.lanes.iter().filter(|lane| lane.active && lane.is_pausable()) {
            list.add_partition(&self.settings.sources[lane.source].topic, lane.lane.partition);
        }
        Ok(list)
    }

    fn obey(&mut self, consumer: &BaseConsumer<Listener>) {
        while let Ok(Control::Commit(offsets)) = self.control.try_recv() {
            self.commit(consumer, &offsets);
        }
    }

    fn commit(&mut self, consumer: &BaseConsumer<Listener>, offsets: &[(Lane, NextOffset)]) {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (lane, NextOffset(offset)) in offsets {
            let source = self.settings.sources.iter().find(|source| source.role == lane.role);
            if let Some(source) = source
                && let Err(error) = list.add_partition_offset(
                    &source.topic,
                    lane.partition,
                    Offset::Offset(*offset),
                )
            {
                tracing::debug!(%error, "offset not committed to kafka");
            }
        }
        if list.count() == 0 {
            return;
        }
        match consumer.commit(&list, CommitMode::Async) {
            Ok(()) => self.commits_sent += 1,
            Err(error) => {
                tracing::debug!(%error, "offsets not committed to kafka");
                self.shared.commits_failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Sorts an error of the client into: goes away by itself, can be mended here, ends the thread.
    fn handle(
        &mut self,
        consumer: &BaseConsumer<Listener>,
        error: KafkaError,
    ) -> Result<(), Trouble> {
        let said = consumer.context().last_complaint();
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return Err(Trouble::from_client("reading", &error, said));
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.set_down(&said.unwrap_or_else(|| error.to_string()));
                Ok(())
            }
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.mend_offsets(consumer)
            }
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ) => self.check_topics(),
            Some(code) if is_refusal(code) => Err(Trouble::from_client("reading", &error, said)),
            _ => {
                tracing::debug!(%error, said, "kafka client");
                Ok(())
            }
        }
    }

    /// A position fell out of the log: stops for topics without gaps, goes on at the nearest offset for others.
    fn mend_offsets(&mut self, consumer: &BaseConsumer<Listener>) -> Result<(), Trouble> {
        self.seal_all();
        let probe = Probe::open(&self.settings.connection)?;
        for lane in self.lanes.iter_mut().filter(|lane| lane.active) {
            let source = &self.settings.sources[lane.source];
            let range = match probe.range(&source.topic, lane.lane.partition, PROBE_PATIENCE) {
                Err(trouble) if trouble.is_retriable() => continue,
                other => other?,
            };
            let wanted = Some(NextOffset(lane.position));
            let position = start_of(source, lane.lane.partition, wanted, range)?;
            if position != lane.position {
                tracing::warn!(
                    topic = source.topic,
                    partition = lane.lane.partition,
                    from = lane.position,
                    to = position,
                    "records are gone, going on at the nearest offset"
                );
                lane.position = position;
                lane.passed = position;
                lane.high = range.high;
                lane.target = lane.target.min(range.high);
            }
        }
        self.assign(consumer)
    }

    fn check_topics(&self) -> Result<(), Trouble> {
        let probe = Probe::open(&self.settings.connection)?;
        for source in &self.settings.sources {
            // Without an answer nothing is known to be missing; the client asks again by itself.
            if let Ok(None) = probe.partitions(&source.topic, PROBE_PATIENCE) {
                return Err(Trouble::MissingTopic { topic: source.topic.clone() });
            }
        }
        Ok(())
    }

    fn finish(&mut self, consumer: &BaseConsumer<Listener>) {
        self.obey(consumer);
        let start = Instant::now();
        while consumer.context().commits().0 < self.commits_sent
            && start.elapsed() < COMMIT_PATIENCE
        {
            // Records that still come are given up: their offsets are not in any checkpoint.
            drop(consumer.poll(Duration::from_millis(10)));
        }
        let (_, failed) = consumer.context().commits();
        self.shared.commits_failed.store(failed, Ordering::Relaxed);
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

    fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        self.shared.paused.store(paused, Ordering::Relaxed);
    }

    fn set_down(&mut self, reason: &str) {
        self.shared.connected.store(false, Ordering::Relaxed);
        if !self.down {
            self.down = true;
            tracing::warn!(
                brokers = self.settings.connection.brokers,
                reason,
                "kafka is away, waiting"
            );
            self.outbox.push_back(ConsumerEvent::BrokersDown { reason: reason.to_owned() });
        }
    }

    fn set_connected(&mut self) {
        self.silent = 0;
        self.shared.connected.store(true, Ordering::Relaxed);
        if self.down {
            self.down = false;
            tracing::info!(brokers = self.settings.connection.brokers, "kafka is back");
            self.outbox.push_back(ConsumerEvent::BrokersBack);
        }
    }
}
