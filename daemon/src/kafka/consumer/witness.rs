//! Reads single records again, to compare them with what was kept of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::super::client::{Connection, Kind};
use super::super::context::Listener;
use super::super::trouble::{Trouble, is_refusal};
use super::mark::{Found, Mark};

/// How long to wait for the next record before the rest counts as not to be had.
const SILENCE: Duration = Duration::from_secs(5);
/// The same once something could not be read.
const AFTER_TROUBLE: Duration = Duration::from_millis(500);
/// Bytes of a partition that are fetched at a time; a larger batch comes as a whole.
const SMALL: &str = "1024";
/// The same where what follows a batch is looked for: several of the largest usual ones.
const LARGE: &str = "8388608";

/// A client that reads a few records and takes no part in anything.
pub(super) struct Witness {
    client: BaseConsumer<Listener>,
}

/// What was found at a place of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readable {
    /// Records, or the end.
    Yes,
    /// Nothing that can be read; the next record that can be is at this offset, if there is one.
    No(Option<i64>),
}

impl Witness {
    /// Creates a client for single records.
    ///
    /// # Errors
    /// [`Trouble::Settings`] when the library refuses the options.
    pub(super) fn open(connection: &Connection, group: &str) -> Result<Self, Trouble> {
        Self::fetching(connection, group, SMALL)
    }

    /// Creates a client that looks for what follows a batch.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn beyond(connection: &Connection, group: &str) -> Result<Self, Trouble> {
        Self::fetching(connection, group, LARGE)
    }

    fn fetching(connection: &Connection, group: &str, bytes: &str) -> Result<Self, Trouble> {
        let mut options = connection.options(Kind::Consumer);
        options
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_uncommitted")
            .set("allow.auto.create.topics", "false")
            .set("check.crcs", "true")
            .set("max.partition.fetch.bytes", bytes)
            .set("queued.min.messages", "1");
        let client = options
            .create_with_context(Listener::default())
            .map_err(|error| Trouble::from_client("connecting", &error, None))?;
        Ok(Self { client })
    }

    /// Reads the first record at or behind each of these offsets, by partition: those that there are, and can be read.
    ///
    /// # Errors
    /// [`Trouble::Denied`] or [`Trouble::Refused`].
    pub(super) fn records(
        &self,
        topic: &str,
        places: &[(i32, i64)],
    ) -> Result<BTreeMap<i32, Found>, Trouble> {
        self.assign(topic, places)?;
        let mut found = BTreeMap::new();
        let mut ended = 0;
        let (mut since, mut patience) = (Instant::now(), SILENCE);
        while found.len() + ended < places.len() && since.elapsed() < patience {
            match self.client.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => {
                    let stamp = message.timestamp();
                    let (key, value) = (message.key(), message.payload());
                    let mark = Mark::of(message.offset(), stamp.to_millis(), key, value);
                    let appended = matches!(stamp, Timestamp::LogAppendTime(_));
                    if !found.contains_key(&message.partition()) {
                        found.insert(message.partition(), Found { mark, appended });
                        since = Instant::now();
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended += usize::from(!found.contains_key(&partition));
                }
                Some(Err(error)) => {
                    if self.is_trouble(topic, &error)? {
                        patience = AFTER_TROUBLE;
                    }
                }
                None => {}
            }
        }
        Ok(found)
    }

    /// Says whether a partition can be read from an offset on.
    ///
    /// # Errors
    /// As [`Self::records`].
    pub(super) fn readable(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<Readable, Trouble> {
        self.assign(topic, &[(partition, offset)])?;
        let mut unreadable = false;
        let (since, mut patience) = (Instant::now(), SILENCE);
        while since.elapsed() < patience {
            match self.client.poll(Duration::from_millis(50)) {
                Some(Ok(message)) if unreadable => {
                    return Ok(Readable::No(Some(message.offset())));
                }
                Some(Ok(_)) | Some(Err(KafkaError::PartitionEOF(_))) => return Ok(Readable::Yes),
                Some(Err(error)) => {
                    if self.is_trouble(topic, &error)? && !unreadable {
                        unreadable = true;
                        patience = since.elapsed() + AFTER_TROUBLE;
                    }
                }
                None => {}
            }
        }
        Ok(if unreadable { Readable::No(None) } else { Readable::Yes })
    }

    fn assign(&self, topic: &str, places: &[(i32, i64)]) -> Result<(), Trouble> {
        let mut list = TopicPartitionList::with_capacity(places.len());
        for (partition, offset) in places {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
                .map_err(|error| Trouble::from_client("assigning partitions", &error, None))?;
        }
        self.client
            .assign(&list)
            .map_err(|error| Trouble::from_client("assigning partitions", &error, None))
    }

    /// Says whether an error means that a partition cannot be read, as far as errors tell.
    fn is_trouble(&self, topic: &str, error: &KafkaError) -> Result<bool, Trouble> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                Err(Trouble::unreadable(topic, error))
            }
            // Nothing is committed, so no right on the group is needed.
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => Ok(false),
            Some(code) if is_refusal(code) => {
                let said = self.client.context().last_complaint();
                Err(Trouble::from_client("reading", error, said))
            }
            Some(code) => Ok(is_unreadable(code) || code == RDKafkaErrorCode::AutoOffsetReset),
            None => Ok(false),
        }
    }
}

/// Says whether a code means that a batch of records is damaged or of a form that the library does not know: it stays so.
pub(super) fn is_unreadable(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BadMessage
            | RDKafkaErrorCode::BadCompression
            | RDKafkaErrorCode::NotImplemented
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::Unknown
    )
}
