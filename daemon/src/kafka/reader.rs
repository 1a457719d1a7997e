//! A plain reader of one topic, for tools and tests: owned records, one after the other.
//!
//! The daemon itself reads through [`super::Consumer`]; this one allocates per record and keeps no books.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Connection, Kind};
use super::consumer::Start;
use super::context::Listener;
use super::probe::Probe;
use super::trouble::{Trouble, is_refusal};

/// A record with everything that it carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedRecord {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's stamp in milliseconds since 1970: its producer's claim, or the broker's in a topic that says `LogAppendTime`.
    pub timestamp: Option<i64>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers in their order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl OwnedRecord {
    /// Returns a header's value as text, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value).ok()
    }
}

/// A reader of all partitions of one topic.
pub struct Reader {
    consumer: BaseConsumer<Listener>,
    topic: String,
    /// Next offset and end at the opening, by partition.
    progress: Vec<(i64, i64)>,
}

impl Reader {
    /// Finds the partitions and fixes where reading starts: a record sent after this returns is read
    /// when `start` is [`Start::End`].
    ///
    /// # Errors
    /// [`Trouble::Unreachable`], [`Trouble::Refused`], [`Trouble::MissingTopic`] or [`Trouble::Settings`].
    pub fn open(
        connection: &Connection,
        topic: &str,
        start: Start,
        patience: Duration,
    ) -> Result<Self, Trouble> {
        let probe = Probe::open(connection)?;
        let missing = || Trouble::MissingTopic { topic: topic.to_owned() };
        let partitions = probe.partitions(topic, patience)?.ok_or_else(missing)?;
        let mut progress = Vec::with_capacity(partitions);
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            let range = probe.range(topic, partition, patience)?;
            let next = match start {
                Start::Beginning => range.low,
                Start::End => range.high,
            };
            progress.push((next, range.high));
        }
        let mut options = connection.options(Kind::Consumer);
        options
            .set("group.id", "sluice-reader")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("allow.auto.create.topics", "false");
        let consumer: BaseConsumer<Listener> = options
            .create_with_context(Listener::default())
            .map_err(|error| Trouble::from_client("connecting", &error, None))?;
        let mut list = TopicPartitionList::with_capacity(partitions);
        for (partition, (next, _)) in (0..).zip(&progress) {
            list.add_partition_offset(topic, partition, Offset::Offset(*next))
                .map_err(|error| Trouble::from_client("assigning partitions", &error, None))?;
        }
        consumer
            .assign(&list)
            .map_err(|error| Trouble::from_client("assigning partitions", &error, None))?;
        Ok(Self { consumer, topic: topic.to_owned(), progress })
    }

    /// Returns the next record; none when `patience` passes without one.
    ///
    /// # Errors
    /// [`Trouble::Refused`], or [`Trouble::Failed`] when the client ends for good.
    pub fn next(&mut self, patience: Duration) -> Result<Option<OwnedRecord>, Trouble> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.poll(left) {
                Some(Ok(message)) => {
                    let record = owned(&message);
                    drop(message);
                    let partition = usize::try_from(record.partition).unwrap_or(usize::MAX);
                    if let Some((next, _)) = self.progress.get_mut(partition) {
                        *next = record.offset + 1;
                    }
                    return Ok(Some(record));
                }
                Some(Err(error)) => {
                    let fatal =
                        matches!(error, rdkafka::error::KafkaError::MessageConsumptionFatal(_));
                    let code = error.rdkafka_error_code();
                    match code {
                        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                            return Err(Trouble::MissingTopic { topic: self.topic.clone() });
                        }
                        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                            return Err(Trouble::unreadable(&self.topic, &error));
                        }
                        // Nothing is committed, so no right on the group is needed.
                        Some(RDKafkaErrorCode::GroupAuthorizationFailed) => continue,
                        _ => {}
                    }
                    if fatal || code.is_some_and(is_refusal) {
                        let said = self.consumer.context().last_complaint();
                        return Err(Trouble::from_client("reading", &error, said));
                    }
                }
                None if left.is_zero() => return Ok(None),
                None => {}
            }
        }
    }

    /// Reads what the topic held when the reader was opened, partition by partition in no fixed order.
    ///
    /// # Errors
    /// Those of [`Self::next`]; [`Trouble::Unreachable`] when nothing comes for `patience`.
    pub fn read_to_end(&mut self, patience: Duration) -> Result<Vec<OwnedRecord>, Trouble> {
        let mut records = Vec::new();
        while self.progress.iter().any(|(next, end)| next < end) {
            match self.next(patience)? {
                Some(record) => records.push(record),
                None => {
                    return Err(Trouble::Unreachable {
                        brokers: self.topic.clone(),
                        waited: patience,
                        reason: "the topic's end was not reached".to_owned(),
                    });
                }
            }
        }
        Ok(records)
    }
}

fn owned(message: &BorrowedMessage<'_>) -> OwnedRecord {
    let headers = message.headers().map(|headers| {
        let pair = |header: rdkafka::message::Header<'_, &[u8]>| {
            (header.key.to_owned(), header.value.unwrap_or_default().to_vec())
        };
        headers.iter().map(pair).collect()
    });
    OwnedRecord {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}
