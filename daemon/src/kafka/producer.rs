//! The producer: idempotent, keyed like the Java client, with delivery counted.
//!
//! A record is *sent* when the local queue took it and *delivered* when the brokers acknowledged it; only
//! the counts tell the second. Several producers may live side by side: answers want no lingering, refreshed
//! embeddings want large batches. A flush with a deadline comes before the end, for whatever is still
//! queued when a producer is dropped is thrown away by the library.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header as LibraryHeader, Message as _, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};

use super::client::{Connection, Kind};
use super::context::Listener;
use super::trouble::{Right, Trouble, is_refusal};

/// What a producer is for.
#[derive(Clone, Debug)]
pub struct ProducerSettings {
    /// The cluster.
    pub connection: Connection,
    /// How long a record may wait for company in its batch.
    pub linger: Duration,
    /// How long delivery is tried; none is for ever, so that nothing is lost while Kafka is away.
    pub delivery_timeout: Option<Duration>,
    /// Bytes that may wait in the local queue.
    pub queue_bytes: usize,
    /// Records that may wait in the local queue.
    pub queue_records: usize,
}

impl ProducerSettings {
    /// Returns settings for throughput: a small linger, delivery tried for ever.
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            linger: Duration::from_millis(5),
            delivery_timeout: None,
            queue_bytes: 64 << 20,
            queue_records: 100_000,
        }
    }

    /// Returns settings for answers: no linger, and given up when nobody waits for them any more.
    pub fn for_responses(connection: Connection) -> Self {
        Self {
            linger: Duration::ZERO,
            delivery_timeout: Some(Duration::from_secs(30)),
            ..Self::new(connection)
        }
    }
}

/// Returns the library's options for a producer.
pub(super) fn options(settings: &ProducerSettings) -> ClientConfig {
    let mut options = settings.connection.options(Kind::Producer);
    let timeout = settings.delivery_timeout.map_or(0, |timeout| timeout.as_millis().max(1));
    options
        .set("enable.idempotence", "true")
        .set("compression.codec", "lz4")
        // The Java client's partitioner: records of one user meet in one partition whoever sends them.
        .set("partitioner", "murmur2_random")
        .set("linger.ms", settings.linger.as_millis().to_string())
        .set("message.timeout.ms", timeout.to_string())
        .set("queue.buffering.max.messages", settings.queue_records.max(1).to_string())
        .set("queue.buffering.max.kbytes", (settings.queue_bytes / 1024).max(1).to_string());
    options
}

/// A header of a record.
pub type Header<'a> = (&'a str, &'a [u8]);

/// A record to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The key, which decides the partition; none spreads at random.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: &'a [Header<'a>],
}

/// Why a record did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// Given up after the delivery time-out or at the end; the same record may work later.
    TimedOut,
    /// The user may not write to the topic.
    NoRight,
    /// The topic is not there.
    NoTopic,
    /// The record is larger than the topic takes.
    TooLarge,
    /// Refused for another reason, for good.
    Refused,
}

impl Undelivered {
    /// All causes, in order.
    pub const ALL: [Self; 5] =
        [Self::TimedOut, Self::NoRight, Self::NoTopic, Self::TooLarge, Self::Refused];

    /// Returns the name in metrics and log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::TimedOut => "timed-out",
            Self::NoRight => "no-right",
            Self::NoTopic => "no-topic",
            Self::TooLarge => "too-large",
            Self::Refused => "refused",
        }
    }

    /// Says whether the same record can never be delivered as things are.
    pub fn is_final(self) -> bool {
        self != Self::TimedOut
    }

    fn of(error: &KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition,
            ) => Self::NoTopic,
            Some(
                RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::MessageBatchTooLarge
                | RDKafkaErrorCode::MessageSizeTooLarge,
            ) => Self::TooLarge,
            Some(
                RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::InvalidTimestamp
                | RDKafkaErrorCode::InvalidTopic
                | RDKafkaErrorCode::PolicyViolation,
            ) => Self::Refused,
            Some(code) if is_refusal(code) => Self::NoRight,
            _ => Self::TimedOut,
        }
    }
}

/// Counts of one topic, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerCounts {
    /// Acknowledged by the brokers.
    pub delivered: u64,
    /// Not arrived, by [`Undelivered::ALL`].
    pub undelivered: [u64; Undelivered::ALL.len()],
}

impl ProducerCounts {
    /// Returns how many records did not arrive.
    pub fn failed(&self) -> u64 {
        self.undelivered.iter().sum()
    }
}

impl std::ops::AddAssign for ProducerCounts {
    fn add_assign(&mut self, more: Self) {
        self.delivered += more.delivered;
        for (sum, more) in self.undelivered.iter_mut().zip(more.undelivered) {
            *sum += more;
        }
    }
}

/// Why a record did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerFailure {
    /// Its topic.
    pub topic: String,
    /// What the broker or the library said.
    pub reason: String,
    /// The same as one of a few causes.
    pub cause: Undelivered,
}

/// Told of each record what became of it: the tag that it was sent with, and whether it was delivered.
pub type OnFate = Box<dyn Fn(usize, bool) + Send + Sync>;

/// A connected producer; shared by reference between threads.
pub struct Producer {
    inner: ThreadedProducer<Delivery>,
    brokers: String,
}

impl Producer {
    /// Creates the producer and its thread; connecting goes on in the background.
    ///
    /// # Errors
    /// [`Trouble::Settings`] when the library refuses the options.
    pub fn open(settings: &ProducerSettings) -> Result<Self, Trouble> {
        Self::open_with(settings, Box::new(|_, _| {}))
    }

    /// The same; the producer's thread tells `on_fate` what became of each record.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(settings: &ProducerSettings, on_fate: OnFate) -> Result<Self, Trouble> {
        let inner = options(settings)
            .create_with_context(Delivery::new(on_fate))
            .map_err(|error| Trouble::from_client("connecting", &error, None))?;
        Ok(Self { inner, brokers: settings.connection.brokers.clone() })
    }

    /// Queues a record; while the queue is full it waits up to `patience` (zero: not at all). One of which the client knows already that
    /// Kafka refuses it counts as refused, as if the broker had said so.
    ///
    /// # Errors
    /// [`Trouble::QueueFull`] at the deadline, the record is not queued then; [`Trouble::Failed`] when the producer has ended for good.
    pub fn send(&self, record: &Outgoing<'_>, patience: Duration) -> Result<(), Trouble> {
        self.send_tagged(record, 0, patience)
    }

    /// The same with a tag, by which [`OnFate`] knows the record again.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_tagged(
        &self,
        record: &Outgoing<'_>,
        tag: usize,
        patience: Duration,
    ) -> Result<(), Trouble> {
        if let Some(error) = self.queue(record, tag, patience)? {
            self.inner.context().note(record.topic, Some(&error), tag);
        }
        Ok(())
    }

    /// As [`Self::send`], for a caller who can do something about it: a record of which the client knows already that Kafka refuses it is an
    /// error, and is not counted.
    ///
    /// # Errors
    /// As [`Self::send`], and [`Trouble::TooLarge`] and its like.
    pub fn send_or_refuse(&self, record: &Outgoing<'_>, patience: Duration) -> Result<(), Trouble> {
        match self.queue(record, 0, patience)? {
            None => Ok(()),
            Some(error) => {
                Err(Trouble::from_client(&format!("sending to {}", record.topic), &error, None))
            }
        }
    }

    /// Queues a record. Returns why Kafka would refuse it, as far as the client knows.
    fn queue(
        &self,
        record: &Outgoing<'_>,
        tag: usize,
        patience: Duration,
    ) -> Result<Option<KafkaError>, Trouble> {
        let mut outgoing = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, tag);
        outgoing.key = record.key;
        outgoing.payload = record.value;
        if !record.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (key, value) in record.headers {
                headers = headers.insert(LibraryHeader { key, value: Some(*value) });
            }
            outgoing.headers = Some(headers);
        }
        let start = Instant::now();
        loop {
            let error = match self.inner.send(outgoing) {
                Ok(()) => return Ok(None),
                Err((error, returned)) => {
                    outgoing = returned;
                    error
                }
            };
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                if Undelivered::of(&error).is_final() {
                    return Ok(Some(error));
                }
                self.check()?;
                return Err(Trouble::from_client(
                    &format!("sending to {}", record.topic),
                    &error,
                    None,
                ));
            }
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(Trouble::QueueFull { waited: patience });
            }
            self.inner.context().wait_for_room(left);
        }
    }

    /// Makes sure that the producer has not ended for good.
    ///
    /// # Errors
    /// [`Trouble::Denied`] when the user may write to no topic at all, [`Trouble::Failed`] otherwise.
    pub fn check(&self) -> Result<(), Trouble> {
        let Some((code, reason)) = self.inner.client().fatal_error() else { return Ok(()) };
        let action = "writing".to_owned();
        Err(match code {
            RDKafkaErrorCode::ClusterAuthorizationFailed => {
                Trouble::Denied { action, reason, right: Right::to_write_at_all() }
            }
            _ => Trouble::Failed { action, reason },
        })
    }

    /// Waits until everything sent so far is delivered or has failed; [`Producer::counts`] says which.
    ///
    /// # Errors
    /// [`Trouble::Undelivered`] at the deadline.
    pub fn flush(&self, patience: Duration) -> Result<(), Trouble> {
        match self.inner.flush(patience) {
            Ok(()) => Ok(()),
            Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) => {
                Err(Trouble::Undelivered { left: self.in_flight(), waited: patience })
            }
            Err(error) => {
                let said = self.inner.context().listener.last_complaint();
                Err(Trouble::from_client("flushing", &error, said))
            }
        }
    }

    /// Returns the records that were sent and are neither delivered nor failed.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.inner.in_flight_count()).unwrap_or(0)
    }

    /// Returns the counts over all topics.
    pub fn counts(&self) -> ProducerCounts {
        let mut sum = ProducerCounts::default();
        self.inner.context().topics.lock().values().for_each(|counts| sum += *counts);
        sum
    }

    /// Returns the counts of each topic that anything was sent to.
    pub fn counts_by_topic(&self) -> BTreeMap<String, ProducerCounts> {
        self.inner.context().topics.lock().clone()
    }

    /// Returns the newest failure since the last call.
    pub fn take_failure(&self) -> Option<ProducerFailure> {
        self.inner.context().failure.lock().take()
    }

    /// Returns what the client library complained of last, such as a refused connection.
    pub fn last_complaint(&self) -> Option<String> {
        self.inner.context().listener.last_complaint()
    }

    /// Returns the brokers, for messages.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }
}

/// Counts deliveries; the library calls it on the producer's thread.
struct Delivery {
    listener: Listener,
    on_fate: OnFate,
    topics: Mutex<BTreeMap<String, ProducerCounts>>,
    failure: Mutex<Option<ProducerFailure>>,
    waiting: AtomicUsize,
    gate: Mutex<()>,
    room: Condvar,
}

impl Delivery {
    fn new(on_fate: OnFate) -> Self {
        Self {
            listener: Listener::default(),
            on_fate,
            topics: Mutex::default(),
            failure: Mutex::default(),
            waiting: AtomicUsize::new(0),
            gate: Mutex::default(),
            room: Condvar::new(),
        }
    }

    /// Takes note of what became of a record.
    fn note(&self, topic: &str, error: Option<&KafkaError>, tag: usize) {
        let cause = error.map(Undelivered::of);
        {
            let mut topics = self.topics.lock();
            if !topics.contains_key(topic) {
                topics.insert(topic.to_owned(), ProducerCounts::default());
            }
            if let Some(counts) = topics.get_mut(topic) {
                match cause {
                    None => counts.delivered += 1,
                    Some(cause) => counts.undelivered[cause as usize] += 1,
                }
            }
        }
        if let (Some(error), Some(cause)) = (error, cause) {
            let reason =
                error.rdkafka_error_code().map_or(error.to_string(), |code| code.to_string());
            *self.failure.lock() = Some(ProducerFailure { topic: topic.to_owned(), reason, cause });
        }
        (self.on_fate)(tag, error.is_none());
    }

    /// Waits until a delivery made room, or a moment has passed.
    fn wait_for_room(&self, left: Duration) {
        let mut gate = self.gate.lock();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // Room may have come before we were counted: the short slice covers that.
        self.room.wait_for(&mut gate, left.min(Duration::from_millis(10)));
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ClientContext for Delivery {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.listener.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ProducerContext for Delivery {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        let (message, error) = match result {
            Ok(message) => (message, None),
            Err((error, message)) => (message, Some(error)),
        };
        self.note(message.topic(), error, tag);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.room.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_sorted_by_cause_and_by_whether_a_retry_can_help() {
        let of = |code| Undelivered::of(&KafkaError::MessageProduction(code));
        assert_eq!(of(RDKafkaErrorCode::MessageSizeTooLarge), Undelivered::TooLarge);
        assert_eq!(of(RDKafkaErrorCode::TopicAuthorizationFailed), Undelivered::NoRight);
        assert_eq!(of(RDKafkaErrorCode::UnknownTopic), Undelivered::NoTopic);
        assert_eq!(of(RDKafkaErrorCode::InvalidRecord), Undelivered::Refused);
        for code in [
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::BrokerTransportFailure,
            RDKafkaErrorCode::NotEnoughReplicas,
        ] {
            assert_eq!(of(code), Undelivered::TimedOut);
        }
        for (i, cause) in Undelivered::ALL.into_iter().enumerate() {
            assert_eq!((cause as usize, cause.is_final()), (i, i > 0));
        }
    }
}
