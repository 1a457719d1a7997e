//! Questions to the brokers before reading: which partitions a topic has and which offsets they hold.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Connection, Kind};
use super::consumer::NextOffset;
use super::context::Listener;
use super::trouble::{Trouble, is_refusal};

/// How long a failed question listens for its cause.
const LISTENING: Duration = Duration::from_millis(30);

/// A short-lived client that only asks; it joins no group.
pub struct Probe {
    client: BaseConsumer<Listener>,
    brokers: String,
}

/// The offsets that a partition holds: `low..high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionRange {
    /// The first offset that the broker still has.
    pub low: i64,
    /// The offset after the newest record (the high-water mark, open transactions included).
    pub high: i64,
}

impl Probe {
    /// Creates the client; nothing is asked yet.
    ///
    /// # Errors
    /// [`Trouble::Settings`] when the library refuses the connection's options.
    pub fn open(connection: &Connection) -> Result<Self, Trouble> {
        let mut options = connection.options(Kind::Metadata);
        // Uncommitted: a mark that hides open transactions would make a read-up stop too early (KAFKA-10167).
        options.set("isolation.level", "read_uncommitted");
        options.set("allow.auto.create.topics", "false");
        let client: BaseConsumer<Listener> = options
            .create_with_context(Listener::default())
            .map_err(|error| Trouble::from_client("connecting", &error, None))?;
        Ok(Self { client, brokers: connection.brokers.clone() })
    }

    /// Returns how many partitions a topic has; `None` when there is no such topic.
    ///
    /// # Errors
    /// [`Trouble::Unreachable`] or [`Trouble::Refused`].
    pub fn partitions(&self, topic: &str, patience: Duration) -> Result<Option<usize>, Trouble> {
        let metadata = self.ask("reading the metadata", patience, |client, left| {
            client.fetch_metadata(Some(topic), left)
        })?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(None);
        };
        match found.error().map(RDKafkaErrorCode::from) {
            None if found.partitions().is_empty() => Ok(None),
            None => Ok(Some(found.partitions().len())),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Ok(None)
            }
            Some(code) if is_refusal(code) => Err(Trouble::Refused {
                action: format!("reading the metadata of {topic}"),
                reason: code.to_string(),
            }),
            Some(code) => Err(self.unreachable(patience, code.to_string())),
        }
    }

    /// Returns the offsets that a partition holds.
    ///
    /// # Errors
    /// [`Trouble::Unreachable`] or [`Trouble::Refused`].
    pub fn range(
        &self,
        topic: &str,
        partition: i32,
        patience: Duration,
    ) -> Result<PartitionRange, Trouble> {
        let (low, high) = self.ask("reading the offsets", patience, |client, left| {
            client.fetch_watermarks(topic, partition, left)
        })?;
        Ok(PartitionRange { low, high })
    }

    /// Returns the number of brokers that the cluster names.
    ///
    /// # Errors
    /// [`Trouble::Unreachable`] or [`Trouble::Refused`].
    pub fn broker_count(&self, patience: Duration) -> Result<usize, Trouble> {
        // A topic name that cannot exist: the answer lists the brokers and not every topic of the cluster.
        let metadata = self.ask("reading the metadata", patience, |client, left| {
            client.fetch_metadata(Some("__sluice_probe"), left)
        })?;
        Ok(metadata.brokers().len())
    }

    /// Returns the offsets that a group has committed for a topic, by partition: what lag tools see.
    ///
    /// # Errors
    /// [`Trouble::Unreachable`] or [`Trouble::Refused`].
    pub fn committed(
        connection: &Connection,
        group: &str,
        topic: &str,
        patience: Duration,
    ) -> Result<Vec<Option<NextOffset>>, Trouble> {
        let missing = || Trouble::MissingTopic { topic: topic.to_owned() };
        let partitions =
            Self::open(connection)?.partitions(topic, patience)?.ok_or_else(missing)?;
        let mut options = connection.options(Kind::Metadata);
        options.set("group.id", group).set("enable.auto.commit", "false");
        let client = options
            .create_with_context(Listener::default())
            .map_err(|error| Trouble::from_client("connecting", &error, None))?;
        let probe = Self { client, brokers: connection.brokers.clone() };
        let mut list = TopicPartitionList::with_capacity(partitions);
        list.add_partition_range(topic, 0, i32::try_from(partitions).unwrap_or(i32::MAX) - 1);
        let found = probe.ask("reading committed offsets", patience, |client, left| {
            client.committed_offsets(list.clone(), left)
        })?;
        let offset = |offset: Offset| match offset {
            Offset::Offset(offset) => Some(NextOffset(offset)),
            _ => None,
        };
        // Copied out: the lists must be gone before the client is (rust-rdkafka#453).
        Ok(found.elements().iter().map(|element| offset(element.offset())).collect())
    }

    /// Asks within `patience`, in slices, so that a refusal shows before the time is up.
    fn ask<T>(
        &self,
        action: &str,
        patience: Duration,
        call: impl Fn(&BaseConsumer<Listener>, Duration) -> Result<T, KafkaError>,
    ) -> Result<T, Trouble> {
        let start = Instant::now();
        self.client.context().forget_complaint();
        loop {
            self.listen(action, Duration::ZERO)?;
            let left = patience.saturating_sub(start.elapsed());
            let slice = left.clamp(Duration::from_millis(10), Duration::from_secs(1));
            let error = match call(&self.client, slice) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.judge(action, &error)?;
            // The cause comes as an event of its own, and an immediate failure must not spin.
            self.listen(action, LISTENING)?;
            if start.elapsed() >= patience {
                let said = self.client.context().last_complaint();
                return Err(self.unreachable(patience, said.unwrap_or_else(|| error.to_string())));
            }
        }
    }

    /// Handles what the client has to say: errors, log lines and tokens come only inside poll
    /// (librdkafka#3753).
    fn listen(&self, action: &str, time: Duration) -> Result<(), Trouble> {
        let start = Instant::now();
        loop {
            let left = time.saturating_sub(start.elapsed());
            if let Some(Err(error)) = self.client.poll(left) {
                self.judge(action, &error)?;
            }
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// Fails when an error means that asking again is of no use.
    fn judge(&self, action: &str, error: &KafkaError) -> Result<(), Trouble> {
        match error.rdkafka_error_code() {
            Some(code) if is_refusal(code) => {
                let said = self.client.context().last_complaint();
                Err(Trouble::from_client(action, error, said))
            }
            _ => Ok(()),
        }
    }

    fn unreachable(&self, waited: Duration, reason: String) -> Trouble {
        Trouble::Unreachable { brokers: self.brokers.clone(), waited, reason }
    }
}
