//! Reading again what was taken, in the turns in which it was taken: one partition after the other, each up to an offset.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sluice_features::time::EventTime;

use super::client::{Connection, Kind};
use super::consumer::{Batch, Buffers, Gaps, Lane, Record, Source, arrival};
use super::context::Listener;
use super::probe::{PartitionRange, Probe};
use super::trouble::{Trouble, is_refusal};

/// Bytes that may wait for their turn, of all partitions; one that has its part of them is paused until then.
const AHEAD: usize = 64 << 20;
/// The longest wait for one answer about offsets.
const ASK: Duration = Duration::from_secs(5);

/// Reads ranges of partitions again.
pub struct Recall {
    consumer: BaseConsumer<Listener>,
    /// Bytes of a partition that may wait.
    ahead: usize,
    sources: Vec<Source>,
    lanes: BTreeMap<Lane, Waiting>,
}

/// What one partition has that was not taken yet.
#[derive(Default)]
struct Waiting {
    records: VecDeque<Owned>,
    bytes: usize,
    /// Everything up to the end of the range has come.
    ended: bool,
    end: i64,
    paused: bool,
}

struct Owned {
    offset: i64,
    stamp: Timestamp,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl Owned {
    fn bytes(&self) -> usize {
        let size = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        size_of::<Self>() + size(&self.key) + size(&self.value)
    }
}

impl Recall {
    /// Opens a reader of these ranges of offsets.
    ///
    /// # Errors
    /// Retriable while no broker answers; [`Trouble::OutOfRange`] where the brokers do not have all of a range, unless the topic may have gaps.
    pub fn open(
        connection: &Connection,
        sources: &[Source],
        ranges: &BTreeMap<Lane, Range<i64>>,
    ) -> Result<Self, Trouble> {
        let probe = Probe::open(connection)?;
        let failed = |error: KafkaError| Trouble::from_client("assigning partitions", &error, None);
        let mut list = TopicPartitionList::with_capacity(ranges.len());
        let mut lanes = BTreeMap::new();
        for (lane, wanted) in ranges {
            let Some(source) = sources.iter().find(|source| source.role == lane.role) else {
                continue;
            };
            let found = probe.range(&source.topic, lane.partition, ASK)?;
            let from = start_of(source, lane.partition, wanted, found)?;
            list.add_partition_offset(&source.topic, lane.partition, Offset::Offset(from))
                .map_err(failed)?;
            let ended = wanted.end <= from;
            lanes.insert(*lane, Waiting { end: wanted.end, ended, ..Waiting::default() });
        }
        let mut options = connection.options(Kind::Consumer);
        options
            .set("group.id", "sluice-recall")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.max.bytes", "2097152")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("allow.auto.create.topics", "false");
        let consumer: BaseConsumer<Listener> = options
            .create_with_context(Listener::default())
            .map_err(|error| Trouble::from_client("connecting", &error, None))?;
        consumer.assign(&list).map_err(failed)?;
        let ahead = AHEAD / lanes.len().max(1);
        Ok(Self { consumer, ahead, sources: sources.to_vec(), lanes })
    }

    /// Returns the records of a partition that are left below `next`, as of the moment at which they were polled; `None` when they have not all come
    /// within `patience`: ask again.
    ///
    /// # Errors
    /// When the brokers refuse, or the client ends for good.
    pub fn turn(
        &mut self,
        lane: Lane,
        next: i64,
        polled: EventTime,
        patience: Duration,
    ) -> Result<Option<Batch>, Trouble> {
        let deadline = Instant::now() + patience;
        while !self.has_come(lane, next) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.resume(lane)?;
            self.poll(left)?;
        }
        let Some(waiting) = self.lanes.get_mut(&lane) else {
            return Ok(Some(Batch::of(lane, polled, Buffers::default())));
        };
        let mut buffers = Buffers::default();
        while let Some(record) = waiting.records.pop_front_if(|record| record.offset < next) {
            waiting.bytes -= record.bytes();
            buffers.push(&Record {
                lane,
                offset: record.offset,
                timestamp: record.stamp.to_millis(),
                arrived: arrival(record.stamp, lane.role, polled),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                reply_topic: None,
                correlation_id: None,
            });
        }
        Ok(Some(Batch::of(lane, polled, buffers)))
    }

    /// Tells whether all records of a partition below an offset are here. Where the last of them was removed by compaction, the one behind it
    /// tells: Kafka never compacts the segment that it writes to, and so never the last record of a partition.
    fn has_come(&self, lane: Lane, next: i64) -> bool {
        let Some(waiting) = self.lanes.get(&lane) else { return true };
        waiting.ended || waiting.records.back().is_some_and(|record| record.offset + 1 >= next)
    }

    fn poll(&mut self, wait: Duration) -> Result<(), Trouble> {
        match self.consumer.poll(wait) {
            Some(Ok(message)) => {
                let Some(lane) = lane_of(&self.sources, message.topic(), message.partition())
                else {
                    return Ok(());
                };
                let record = owned(&message);
                drop(message);
                self.keep(lane, record)
            }
            Some(Err(error)) => self.judge(&error),
            None => Ok(()),
        }
    }

    fn keep(&mut self, lane: Lane, record: Owned) -> Result<(), Trouble> {
        let Some(waiting) = self.lanes.get_mut(&lane) else { return Ok(()) };
        if record.offset >= waiting.end {
            waiting.ended = true;
            return self.pause(lane);
        }
        waiting.ended |= record.offset + 1 >= waiting.end;
        waiting.bytes += record.bytes();
        waiting.records.push_back(record);
        if waiting.ended || waiting.bytes > self.ahead {
            self.pause(lane)?;
        }
        Ok(())
    }

    fn judge(&self, error: &KafkaError) -> Result<(), Trouble> {
        let code = error.rdkafka_error_code();
        // Nothing is committed, so no right on the group is needed.
        if code == Some(RDKafkaErrorCode::GroupAuthorizationFailed) {
            return Ok(());
        }
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        let lost = matches!(
            code,
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
        );
        if fatal || lost || code.is_some_and(is_refusal) {
            let said = self.consumer.context().last_complaint();
            return Err(Trouble::from_client("reading again", error, said));
        }
        tracing::debug!(%error, "kafka client");
        Ok(())
    }

    fn pause(&mut self, lane: Lane) -> Result<(), Trouble> {
        self.set_paused(lane, true)
    }

    /// Goes on with a partition whose turn it is and of which too little is here.
    fn resume(&mut self, lane: Lane) -> Result<(), Trouble> {
        self.set_paused(lane, false)
    }

    fn set_paused(&mut self, lane: Lane, paused: bool) -> Result<(), Trouble> {
        let source = self.sources.iter().find(|source| source.role == lane.role);
        let (Some(waiting), Some(source)) = (self.lanes.get_mut(&lane), source) else {
            return Ok(());
        };
        if waiting.paused == paused {
            return Ok(());
        }
        waiting.paused = paused;
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&source.topic, lane.partition);
        let done = if paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        done.map_err(|error| Trouble::from_client("pausing a partition", &error, None))
    }
}

/// Returns where a range begins that the brokers have.
fn start_of(
    source: &Source,
    partition: i32,
    wanted: &Range<i64>,
    found: PartitionRange,
) -> Result<i64, Trouble> {
    let PartitionRange { low, high } = found;
    let out_of_range =
        |wanted| Trouble::OutOfRange { topic: source.topic.clone(), partition, wanted, low, high };
    match wanted {
        Range { end, .. } if *end > high => Err(out_of_range(*end)),
        Range { start, .. } if *start >= low => Ok(*start),
        // Below the log of a compacted topic is nothing to miss.
        _ if source.gaps == Gaps::Skip => Ok(low),
        Range { start, .. } => Err(out_of_range(*start)),
    }
}

fn lane_of(sources: &[Source], topic: &str, partition: i32) -> Option<Lane> {
    let source = sources.iter().find(|source| source.topic == topic)?;
    Some(Lane { role: source.role, partition })
}

fn owned(message: &BorrowedMessage<'_>) -> Owned {
    Owned {
        offset: message.offset(),
        stamp: message.timestamp(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
    }
}
