//! The producer: idempotent, keyed like the Java client, with delivery counted.
//!
//! A record is *sent* when the local queue took it and *delivered* when the brokers acknowledged it; only
//! the counts tell the second. Several producers may live side by side: answers want no lingering, refreshed
//! embeddings want large batches. A flush with a deadline comes before the end, for whatever is still
//! queued when a producer is dropped is thrown away by the library.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header as LibraryHeader, Message as _, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};

use super::client::{Connection, Kind};
use super::context::Listener;
use super::trouble::{Trouble, is_refusal};

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

/// Counts of one topic, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerCounts {
    /// Acknowledged by the brokers.
    pub delivered: u64,
    /// Given up after the delivery time-out or at the end; the same record may work later.
    pub timed_out: u64,
    /// Refused by the brokers: too large, no right, no such topic.
    pub refused: u64,
}

impl ProducerCounts {
    /// Returns how many records did not arrive.
    pub fn failed(&self) -> u64 {
        self.timed_out + self.refused
    }
}

/// Why a record did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerFailure {
    /// Its topic.
    pub topic: String,
    /// What the broker or the library said.
    pub reason: String,
    /// Whether the brokers refused it, so that trying again is of no use.
    pub refused: bool,
}

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
        let inner = options
            .create_with_context(Delivery::default())
            .map_err(|error| Trouble::from_client("connecting", &error, None))?;
        Ok(Self { inner, brokers: settings.connection.brokers.clone() })
    }

    /// Queues a record; while the queue is full it waits up to `patience` (zero: not at all).
    ///
    /// # Errors
    /// [`Trouble::QueueFull`] at the deadline, the record is not queued then; [`Trouble::Failed`] when the
    /// record can never be sent.
    pub fn send(&self, record: &Outgoing<'_>, patience: Duration) -> Result<(), Trouble> {
        let mut outgoing = BaseRecord::<[u8], [u8]>::to(record.topic);
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
                Ok(()) => return Ok(()),
                Err((error, returned)) => {
                    outgoing = returned;
                    error
                }
            };
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
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
        let context = self.inner.context();
        ProducerCounts {
            delivered: context.delivered.load(Ordering::Acquire),
            timed_out: context.timed_out.load(Ordering::Acquire),
            refused: context.refused.load(Ordering::Acquire),
        }
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
#[derive(Default)]
struct Delivery {
    listener: Listener,
    delivered: AtomicU64,
    timed_out: AtomicU64,
    refused: AtomicU64,
    topics: Mutex<BTreeMap<String, ProducerCounts>>,
    failure: Mutex<Option<ProducerFailure>>,
    waiting: AtomicUsize,
    gate: Mutex<()>,
    room: Condvar,
}

impl Delivery {
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
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let (message, error) = match result {
            Ok(message) => (message, None),
            Err((error, message)) => (message, Some(error)),
        };
        let topic = message.topic();
        let refused = error.is_some_and(is_final);
        let mut topics = self.topics.lock();
        if !topics.contains_key(topic) {
            topics.insert(topic.to_owned(), ProducerCounts::default());
        }
        if let Some(counts) = topics.get_mut(topic) {
            let (count, total) = match (error, refused) {
                (None, _) => (&mut counts.delivered, &self.delivered),
                (Some(_), false) => (&mut counts.timed_out, &self.timed_out),
                (Some(_), true) => (&mut counts.refused, &self.refused),
            };
            *count += 1;
            total.fetch_add(1, Ordering::Release);
        }
        drop(topics);
        if let Some(error) = error {
            let reason =
                error.rdkafka_error_code().map_or(error.to_string(), |code| code.to_string());
            *self.failure.lock() =
                Some(ProducerFailure { topic: topic.to_owned(), reason, refused });
        }
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.room.notify_all();
        }
    }
}

/// Says whether the same record can never be delivered.
fn is_final(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| {
        is_refusal(code)
            || matches!(
                code,
                RDKafkaErrorCode::MessageSizeTooLarge
                    | RDKafkaErrorCode::InvalidMessage
                    | RDKafkaErrorCode::InvalidMessageSize
                    | RDKafkaErrorCode::InvalidRecord
                    | RDKafkaErrorCode::InvalidTimestamp
                    | RDKafkaErrorCode::InvalidTopic
                    | RDKafkaErrorCode::MessageBatchTooLarge
                    | RDKafkaErrorCode::PolicyViolation
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownTopicOrPartition
            )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_sorted_by_whether_a_retry_can_help() {
        let of = |code| is_final(&KafkaError::MessageProduction(code));
        assert!(of(RDKafkaErrorCode::MessageSizeTooLarge));
        assert!(of(RDKafkaErrorCode::TopicAuthorizationFailed));
        assert!(of(RDKafkaErrorCode::UnknownTopic));
        assert!(!of(RDKafkaErrorCode::MessageTimedOut));
        assert!(!of(RDKafkaErrorCode::BrokerTransportFailure));
        assert!(!of(RDKafkaErrorCode::NotEnoughReplicas));
    }
}
