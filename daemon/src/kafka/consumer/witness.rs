//! Reads single records again, to compare them with what was kept of them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
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

/// A client that reads a few records and takes no part in anything.
pub(super) struct Witness {
    client: BaseConsumer<Listener>,
    brokers: String,
}

impl Witness {
    /// Creates a client for single records.
    ///
    /// # Errors
    /// [`Trouble::Settings`] when the library refuses the options.
    pub(super) fn open(connection: &Connection, group: &str) -> Result<Self, Trouble> {
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
            .set("max.partition.fetch.bytes", SMALL)
            .set("fetch.wait.max.ms", "10")
            .set("queued.min.messages", "1");
        let client = options
            .create_with_context(Listener::default())
            .map_err(|error| Trouble::from_client("connecting", &error, None))?;
        Ok(Self { client, brokers: connection.brokers.clone() })
    }

    /// Reads the first record at or behind each of these offsets, by partition: those that there are, and can be read.
    ///
    /// # Errors
    /// [`Trouble::Unreachable`], [`Trouble::Denied`] or [`Trouble::Refused`].
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
                    let partition = message.partition();
                    drop(message);
                    // Those behind the first come as well, at the cost of the other partitions: brokers give of one alone what is larger than asked for.
                    if let Entry::Vacant(place) = found.entry(partition) {
                        place.insert(Found { mark, appended });
                        self.pause(topic, partition)?;
                        since = Instant::now();
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended += usize::from(!found.contains_key(&partition));
                }
                Some(Err(error)) if self.is_trouble(topic, &error)? => patience = AFTER_TROUBLE,
                Some(Err(_)) | None => {}
            }
        }
        // Nothing may be concluded from brokers that do not answer.
        if found.len() + ended < places.len() && patience == SILENCE {
            return Err(self.silent(topic));
        }
        Ok(found)
    }

    /// Returns the next offset that can be read, from an offset on and at most `high`; that one where it can be read itself.
    ///
    /// Only the batch as a whole is damaged, and where it ends the library does not tell: steps that double find a sound place behind it,
    /// halving them its beginning. Where a second damaged batch follows so soon, sound records between the two may be passed over.
    ///
    /// # Errors
    /// As [`Self::records`].
    pub(super) fn next_readable(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        high: i64,
    ) -> Result<i64, Trouble> {
        search(offset, high, |place| self.is_readable(topic, partition, place))
    }

    /// Says whether a partition can be read from an offset on: a record comes, or its end.
    fn is_readable(&self, topic: &str, partition: i32, offset: i64) -> Result<bool, Trouble> {
        self.assign(topic, &[(partition, offset)])?;
        let since = Instant::now();
        while since.elapsed() < SILENCE {
            match self.client.poll(Duration::from_millis(50)) {
                Some(Ok(_)) | Some(Err(KafkaError::PartitionEOF(_))) => return Ok(true),
                Some(Err(error)) => {
                    // That an offset is out of range is another matter, which the one who reads hears of.
                    let out = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset);
                    if self.is_trouble(topic, &error)? {
                        return Ok(out);
                    }
                }
                None => {}
            }
        }
        Err(self.silent(topic))
    }

    fn silent(&self, topic: &str) -> Trouble {
        let said = self.client.context().last_complaint();
        let reason = said.unwrap_or_else(|| format!("no records of {topic} came"));
        Trouble::Unreachable { brokers: self.brokers.clone(), waited: SILENCE, reason }
    }

    fn pause(&self, topic: &str, partition: i32) -> Result<(), Trouble> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(topic, partition);
        self.client
            .pause(&list)
            .map_err(|error| Trouble::from_client("pausing a partition", &error, None))
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
    )
}

/// Returns the first place from `from` to `to` that is readable, if those before it are not; `to` counts as readable.
fn search<E>(from: i64, to: i64, is_readable: impl Fn(i64) -> Result<bool, E>) -> Result<i64, E> {
    if from >= to || is_readable(from)? {
        return Ok(from);
    }
    let (mut bad, mut step) = (from, 1);
    let mut good = loop {
        let place = bad.saturating_add(step);
        if place >= to {
            break to;
        }
        if is_readable(place)? {
            break place;
        }
        (bad, step) = (place, step * 2);
    };
    while bad + 1 < good {
        let middle = bad + (good - bad) / 2;
        if is_readable(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sound_record_behind_a_damaged_batch_is_found() {
        for end in 10..200 {
            for to in [end, end + 1, end + 77, 1000] {
                let asked = std::cell::Cell::new(0);
                let found = search::<()>(10, to, |place| {
                    assert!((10..to).contains(&place));
                    asked.set(asked.get() + 1);
                    Ok(place >= end)
                });
                assert_eq!(found, Ok(end), "up to {to}");
                assert!(asked.get() < 20, "{} questions", asked.get());
            }
        }
    }
}
