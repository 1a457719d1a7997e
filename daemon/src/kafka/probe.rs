//! Questions to the brokers before reading: which partitions a topic has and which offsets they hold.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use sluice_features::time::EventTime;

use super::client::{Connection, Kind};
use super::consumer::NextOffset;
use super::context::Listener;
use super::trouble::{Right, Trouble, is_denial, is_refusal};

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
        let metadata = self.ask("reading the metadata", None, patience, |client, left| {
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
            Some(code) if is_refusal(code) => Err(Trouble::Denied {
                action: format!("reading the metadata of {topic}"),
                reason: code.to_string(),
                right: Right::to_describe(topic),
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
        let (action, right) =
            (format!("reading the offsets of {topic}"), Right::to_describe(topic));
        let (low, high) = self.ask(&action, Some(&right), patience, |client, left| {
            client.fetch_watermarks(topic, partition, left)
        })?;
        Ok(PartitionRange { low, high })
    }

    /// Returns where the partitions of a topic end, open transactions included, by one question to each broker; `None` for a partition
    /// that has no leader now.
    ///
    /// # Errors
    /// [`Trouble::Unreachable`] or [`Trouble::Refused`].
    pub(super) fn ends(
        &self,
        topic: &str,
        partitions: usize,
        patience: Duration,
    ) -> Result<Vec<Option<i64>>, Trouble> {
        // In place of a time: the end, as the protocol has it.
        self.offsets(topic, partitions, Offset::End, patience)
    }

    /// Returns, by partition, the offset of the first record that is not older than a time, by the stamps of the records; `None` where all are
    /// older.
    ///
    /// # Errors
    /// [`Trouble::MissingTopic`], [`Trouble::Unreachable`] or [`Trouble::Refused`].
    pub fn since(
        &self,
        topic: &str,
        time: EventTime,
        patience: Duration,
    ) -> Result<Vec<Option<NextOffset>>, Trouble> {
        let missing = || Trouble::MissingTopic { topic: topic.to_owned() };
        let partitions = self.partitions(topic, patience)?.ok_or_else(missing)?;
        let found = self.offsets(topic, partitions, Offset::Offset(time.0.max(0)), patience)?;
        Ok(found.into_iter().map(|offset| offset.map(NextOffset)).collect())
    }

    /// Asks for the offsets of a time, in every partition.
    fn offsets(
        &self,
        topic: &str,
        partitions: usize,
        time: Offset,
        patience: Duration,
    ) -> Result<Vec<Option<i64>>, Trouble> {
        let mut list = TopicPartitionList::with_capacity(partitions);
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            list.add_partition_offset(topic, partition, time)
                .map_err(|error| Trouble::from_client("asking for offsets", &error, None))?;
        }
        let (action, right) =
            (format!("reading the offsets of {topic}"), Right::to_describe(topic));
        let found = self.ask(&action, Some(&right), patience, |client, left| {
            client.offsets_for_times(list.clone(), left)
        })?;
        // Copied out: the lists must be gone before the client is (rust-rdkafka#453).
        let mut offsets = vec![None; partitions];
        for element in found.elements() {
            let partition = usize::try_from(element.partition()).unwrap_or(usize::MAX);
            if let (Ok(()), Offset::Offset(offset), Some(place)) =
                (element.error(), element.offset(), offsets.get_mut(partition))
            {
                *place = Some(offset);
            }
        }
        Ok(offsets)
    }

    /// Returns the number of brokers that the cluster names.
    ///
    /// # Errors
    /// [`Trouble::Unreachable`] or [`Trouble::Refused`].
    pub fn broker_count(&self, patience: Duration) -> Result<usize, Trouble> {
        // A topic name that cannot exist: the answer lists the brokers and not every topic of the cluster.
        let metadata = self.ask("reading the metadata", None, patience, |client, left| {
            client.fetch_metadata(Some("__sluice_probe"), left)
        })?;
        Ok(metadata.brokers().len())
    }

    /// Returns the offsets that a group has committed for a topic, by partition: what lag tools see.
    ///
    /// # Errors
    /// [`Trouble::MissingTopic`], [`Trouble::Unreachable`] or [`Trouble::Refused`].
    pub fn committed(
        connection: &Connection,
        group: &str,
        topic: &str,
        patience: Duration,
    ) -> Result<Vec<Option<NextOffset>>, Trouble> {
        let offset = |element: &TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => Some(NextOffset(offset)),
            _ => None,
        };
        Self::of_group(connection, group, topic, patience, offset)
    }

    /// Returns what was written beside the offsets that a group has committed for a topic, by partition; empty where there is nothing.
    ///
    /// # Errors
    /// As [`Self::committed`].
    pub fn committers(
        connection: &Connection,
        group: &str,
        topic: &str,
        patience: Duration,
    ) -> Result<Vec<String>, Trouble> {
        let name = |element: &TopicPartitionListElem<'_>| element.metadata().to_owned();
        Self::of_group(connection, group, topic, patience, name)
    }

    fn of_group<T>(
        connection: &Connection,
        group: &str,
        topic: &str,
        patience: Duration,
        of: impl Fn(&TopicPartitionListElem<'_>) -> T,
    ) -> Result<Vec<T>, Trouble> {
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
        let (action, right) = ("reading committed offsets", Right::to_commit(group));
        let found = probe.ask(action, Some(&right), patience, |client, left| {
            client.committed_offsets(list.clone(), left)
        })?;
        // Copied out: the lists must be gone before the client is (rust-rdkafka#453).
        Ok(found.elements().iter().map(of).collect())
    }

    /// Makes sure that the records of a topic may be read, as far as one partition tells.
    ///
    /// # Errors
    /// [`Trouble::Denied`] when they may not.
    pub(super) fn may_read(
        connection: &Connection,
        group: &str,
        topic: &str,
        patience: Duration,
    ) -> Result<(), Trouble> {
        let mut options = connection.options(Kind::Consumer);
        options.set("group.id", group).set("enable.auto.commit", "false");
        let client: BaseConsumer<Listener> = options
            .create_with_context(Listener::default())
            .map_err(|error| Trouble::from_client("connecting", &error, None))?;
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, 0, Offset::Beginning)
            .and_then(|()| client.assign(&list))
            .map_err(|error| Trouble::from_client("assigning partitions", &error, None))?;
        drop(list);
        let start = Instant::now();
        while start.elapsed() < patience {
            match client.poll(LISTENING) {
                Some(Ok(_)) => return Ok(()),
                Some(Err(error))
                    if error.rdkafka_error_code()
                        == Some(RDKafkaErrorCode::TopicAuthorizationFailed) =>
                {
                    return Err(Trouble::unreadable(topic, &error));
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Asks within `patience`, in slices, so that a refusal shows before the time is up.
    fn ask<T>(
        &self,
        action: &str,
        right: Option<&Right>,
        patience: Duration,
        call: impl Fn(&BaseConsumer<Listener>, Duration) -> Result<T, KafkaError>,
    ) -> Result<T, Trouble> {
        let start = Instant::now();
        loop {
            self.listen(action, right, Duration::ZERO)?;
            let left = patience.saturating_sub(start.elapsed());
            let slice = left.clamp(Duration::from_millis(10), Duration::from_secs(1));
            let error = match call(&self.client, slice) {
                Ok(answer) => {
                    // Not before: the library says the same only once in 30 s, the first time perhaps before anybody asked.
                    self.client.context().forget_complaint();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            self.judge(action, right, &error)?;
            // The cause comes as an event of its own, and an immediate failure must not spin.
            self.listen(action, right, LISTENING)?;
            if start.elapsed() >= patience {
                let said = self.client.context().last_complaint();
                return Err(self.unreachable(patience, said.unwrap_or_else(|| error.to_string())));
            }
        }
    }

    /// Handles what the client has to say: errors, log lines and tokens come only inside poll
    /// (librdkafka#3753).
    fn listen(&self, action: &str, right: Option<&Right>, time: Duration) -> Result<(), Trouble> {
        let start = Instant::now();
        loop {
            let left = time.saturating_sub(start.elapsed());
            if let Some(Err(error)) = self.client.poll(left) {
                self.judge(action, right, &error)?;
            }
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// Fails when an error means that asking again is of no use; `right` is what is missing when the user may not.
    fn judge(
        &self,
        action: &str,
        right: Option<&Right>,
        error: &KafkaError,
    ) -> Result<(), Trouble> {
        let Some(code) = error.rdkafka_error_code().filter(|code| is_refusal(*code)) else {
            return Ok(());
        };
        let said = self.client.context().last_complaint();
        Err(match right.filter(|_| is_denial(code)) {
            Some(right) => {
                let reason = said.unwrap_or_else(|| code.to_string());
                Trouble::Denied { action: action.to_owned(), reason, right: right.clone() }
            }
            None => Trouble::from_client(action, error, said),
        })
    }

    fn unreachable(&self, waited: Duration, reason: String) -> Trouble {
        Trouble::Unreachable { brokers: self.brokers.clone(), waited, reason }
    }
}
