//! A batch of records of one partition: one arena of bytes and one list of ranges into it.
//!
//! The buffers go back to the poll thread when a batch is dropped, and its bytes leave the budget then,
//! so in steady state nothing is allocated per record, and what the owner holds is always counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::Sender;
use rdkafka::Timestamp;
use sluice_features::time::EventTime;
use sluice_features::watermark::JUMP;
use sluice_features::wire::OLDEST;

use super::{Lane, Mark, NextOffset, TopicRole};

/// Stands for an absent key, value or header.
const ABSENT: u32 = u32::MAX;

/// Stands for an absent timestamp.
const NO_TIME: i64 = i64::MIN;

/// One record as the broker gave it, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The topic, by its part in our design, and the partition.
    pub lane: Lane,
    /// The record's offset in its partition.
    pub offset: i64,
    /// The record's stamp in milliseconds since 1970: what its producer claims, or, in a topic that says `LogAppendTime`, the broker's.
    pub timestamp: Option<i64>,
    /// When it arrived, as far as can be known: see `arrival`, and for requests `LaneState::arrived`.
    pub arrived: EventTime,
    /// The key, if there is one.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The header `reply-topic`; read for requests only.
    pub reply_topic: Option<&'a [u8]>,
    /// The header `correlation-id`; read for requests only.
    pub correlation_id: Option<&'a [u8]>,
}

/// Returns when a record arrived: the earlier of its stamp and the own clock as it was polled, never later than the moment at which it is here.
///
/// A stamp before 1990 (seconds, zero, -1) says nothing. One that the producer has given (`CreateTime`) says when the event was, not when it came:
/// a wrong clock agrees with itself. So in a backlog of events, where it lies more than [`JUMP`] back, it is not believed: the poll counts. A
/// request that waited while we were away is as old as its asker says.
pub(in super::super) fn arrival(stamp: Timestamp, role: TopicRole, polled: EventTime) -> EventTime {
    let claimed = matches!(stamp, Timestamp::CreateTime(_)) && role != TopicRole::Requests;
    let stamp = stamp.to_millis().map(EventTime).filter(|stamp| *stamp >= OLDEST);
    let stamp = stamp.filter(|stamp| !claimed || *stamp + JUMP >= polled);
    stamp.map_or(polled, |stamp| stamp.min(polled))
}

/// Records of one partition in the order of their offsets.
pub struct Batch {
    lane: Lane,
    polled: EventTime,
    buffers: Buffers,
    charge: usize,
    /// Who counts its bytes as long as it lives: all batches, and those of its partition.
    budgets: [Arc<AtomicUsize>; 2],
    returns: Sender<Buffers>,
}

impl Batch {
    /// Returns the partition from which all records came.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Returns when its first record was polled, by the own clock.
    pub fn polled(&self) -> EventTime {
        self.polled
    }

    /// Returns the number of records; never zero.
    pub fn len(&self) -> usize {
        self.buffers.entries.len()
    }

    /// Says whether there are no records; never so for a batch that was received.
    pub fn is_empty(&self) -> bool {
        self.buffers.entries.is_empty()
    }

    /// Returns the bytes of keys, values and headers.
    pub fn bytes(&self) -> usize {
        self.buffers.arena.len()
    }

    /// Returns the offset to continue from once every record of the batch is applied.
    pub fn next_offset(&self) -> NextOffset {
        NextOffset(self.buffers.entries.last().map_or(0, |entry| entry.offset + 1))
    }

    /// Returns what is to be kept of the last record once all are applied.
    pub fn mark(&self) -> Option<Mark> {
        let last = self.records().next_back()?;
        Some(Mark::of(last.offset, last.timestamp, last.key, last.value))
    }

    /// Walks over the records.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'_>> + DoubleEndedIterator {
        self.buffers.entries.iter().map(|entry| {
            let mut at = entry.start as usize;
            let mut next = |len: u32| {
                (len != ABSENT).then(|| {
                    let from = at;
                    at += len as usize;
                    &self.buffers.arena[from..at]
                })
            };
            Record {
                lane: self.lane,
                offset: entry.offset,
                timestamp: (entry.timestamp != NO_TIME).then_some(entry.timestamp),
                arrived: entry.arrived,
                key: next(entry.key),
                value: next(entry.value),
                reply_topic: next(entry.reply_topic),
                correlation_id: next(entry.correlation_id),
            }
        })
    }

    /// Makes a batch that nobody counts.
    pub(in super::super) fn of(lane: Lane, polled: EventTime, buffers: Buffers) -> Self {
        let (returns, _) = crossbeam_channel::bounded(1);
        Self::seal(lane, polled, buffers, [&Arc::default(), &Arc::default()], &returns)
    }

    /// Makes a batch of filled buffers and charges them to the budgets.
    pub(super) fn seal(
        lane: Lane,
        polled: EventTime,
        buffers: Buffers,
        budgets: [&Arc<AtomicUsize>; 2],
        returns: &Sender<Buffers>,
    ) -> Self {
        let charge = buffers.bytes();
        let budgets = budgets.map(Arc::clone);
        for budget in &budgets {
            budget.fetch_add(charge, Ordering::AcqRel);
        }
        Self { lane, polled, buffers, charge, budgets, returns: returns.clone() }
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first = self.buffers.entries.first().map_or(0, |entry| entry.offset);
        write!(f, "Batch({:?}, {}..{})", self.lane, first, self.next_offset().0)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for budget in &self.budgets {
            budget.fetch_sub(self.charge, Ordering::AcqRel);
        }
        // A full or closed return channel only means that the buffers are freed.
        drop(self.returns.try_send(std::mem::take(&mut self.buffers)));
    }
}

/// The reusable memory of a batch.
#[derive(Default)]
pub(in super::super) struct Buffers {
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    offset: i64,
    timestamp: i64,
    arrived: EventTime,
    start: u32,
    key: u32,
    value: u32,
    reply_topic: u32,
    correlation_id: u32,
}

impl Buffers {
    /// Appends a copy of a record.
    pub(in super::super) fn push(&mut self, record: &Record<'_>) {
        let start = self.arena.len() as u32;
        let mut put = |bytes: Option<&[u8]>| match bytes {
            Some(bytes) => {
                self.arena.extend_from_slice(bytes);
                bytes.len() as u32
            }
            None => ABSENT,
        };
        let key = put(record.key);
        let value = put(record.value);
        let reply_topic = put(record.reply_topic);
        let correlation_id = put(record.correlation_id);
        self.entries.push(Entry {
            offset: record.offset,
            timestamp: record.timestamp.unwrap_or(NO_TIME),
            arrived: record.arrived,
            start,
            key,
            value,
            reply_topic,
            correlation_id,
        });
    }

    /// Returns the number of records.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the bytes in use, ranges included.
    pub(super) fn bytes(&self) -> usize {
        self.arena.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Empties the buffers for another use; one huge record must not keep its memory for ever.
    pub(super) fn clear(&mut self, keep_at_most: usize) {
        self.entries.clear();
        self.arena.clear();
        self.arena.shrink_to(keep_at_most);
    }
}

#[cfg(test)]
mod tests {
    use super::super::TopicRole;
    use super::*;

    const LANE: Lane = Lane { role: TopicRole::Requests, partition: 3 };

    fn record<'a>(offset: i64, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Record<'a> {
        let timestamp = (offset % 2 == 0).then_some(offset * 10);
        Record {
            lane: LANE,
            offset,
            timestamp,
            arrived: EventTime(offset * 7),
            key,
            value,
            reply_topic: None,
            correlation_id: None,
        }
    }

    #[test]
    fn a_stamp_is_believed_only_where_it_can_be_true() {
        let polled = EventTime(1_796_033_294_000);
        let by = |stamp, role| arrival(stamp, role, polled).0;
        let kinds = [Timestamp::CreateTime, Timestamp::LogAppendTime];
        // A backlog is old: the broker says so, and an asker. A producer says when the event was.
        for old in [1_650_812_741_436, OLDEST.0] {
            assert_eq!(by(Timestamp::LogAppendTime(old), TopicRole::Events), old);
            assert_eq!(by(Timestamp::CreateTime(old), TopicRole::Requests), old);
            assert_eq!(by(Timestamp::CreateTime(old), TopicRole::Events), polled.0);
        }
        let lately = polled.0 - JUMP.0;
        assert_eq!(by(Timestamp::CreateTime(lately), TopicRole::Events), lately);
        // Nothing, -1, 0, seconds, the end of 1989.
        assert_eq!(by(Timestamp::NotAvailable, TopicRole::Events), polled.0);
        for stamp in [i64::MIN + 1, -1, 0, 1_796_033_294, OLDEST.0 - 1] {
            for kind in kinds {
                assert_eq!(by(kind(stamp), TopicRole::Events), polled.0, "{stamp:?}");
            }
        }
        // A clock ahead, microseconds, nanoseconds, the end of time.
        for ahead in [1, 50 * 60_000, 1_796_033_294_000_000, 1_796_033_294_000_000_000, i64::MAX] {
            let ahead = ahead.max(polled.0 + 1);
            for kind in kinds {
                assert_eq!(by(kind(ahead), TopicRole::Requests), polled.0, "{ahead}");
            }
        }
    }

    /// Whatever a stamp says and whoever gave it, nothing arrives later than it is here, nor before 1990; and a producer moves the arrival of an event
    /// by an hour at most.
    #[test]
    fn no_stamp_moves_an_arrival_out_of_its_bounds() {
        let polled = EventTime(1_796_033_294_000);
        let draw = |seed: u64| sluice_features::ids::stable_hash(&seed.to_le_bytes());
        let minutes = [0, 1, 5, 55, 59, 60, 61, 24 * 60, 60 * 24 * 365 * 30];
        let near = minutes.iter().flat_map(|m| [-m, *m]).map(|m| polled.0 + m * 60_000);
        let wild = (0..2_000).map(|seed| draw(seed).cast_signed() >> (draw(seed + 9_999) % 64));
        for stamp in near.chain(wild).flat_map(|stamp| [stamp.saturating_sub(1), stamp]) {
            for role in TopicRole::ALL {
                for stamp in [Timestamp::CreateTime(stamp), Timestamp::LogAppendTime(stamp)] {
                    let arrived = arrival(stamp, role, polled);
                    assert!(arrived <= polled && arrived >= OLDEST, "{stamp:?} {role:?}");
                    if role != TopicRole::Requests && matches!(stamp, Timestamp::CreateTime(_)) {
                        assert!(arrived >= polled - JUMP, "{stamp:?} {role:?}");
                    }
                }
            }
        }
        // A clock 55 minutes ahead, and behind: of a producer, and of a broker.
        for kind in [Timestamp::CreateTime, Timestamp::LogAppendTime] {
            let at = |minutes: i64| {
                arrival(kind(polled.0 + minutes * 60_000), TopicRole::Events, polled) - polled
            };
            assert_eq!((at(55).0, at(-55).0), (0, -55 * 60_000));
        }
    }

    #[test]
    fn records_come_back_as_they_went_in() {
        let mut all = vec![
            record(4, Some(b"k"), Some(b"value")),
            record(5, None, Some(b"")),
            record(8, Some(b""), None),
        ];
        all[1].reply_topic = Some(b"replies");
        all[2].correlation_id = Some(&[0, 255]);
        let mut buffers = Buffers::default();
        all.iter().for_each(|record| buffers.push(record));
        let budgets = [Arc::new(AtomicUsize::new(7)), Arc::default()];
        let (returns, back) = crossbeam_channel::bounded(1);
        let batch = Batch::seal(LANE, EventTime(5), buffers, budgets.each_ref(), &returns);
        assert_eq!(batch.records().collect::<Vec<_>>(), all);
        assert_eq!((batch.len(), batch.next_offset()), (3, NextOffset(9)));
        let held = || budgets.each_ref().map(|budget| budget.load(Ordering::Relaxed));
        assert!(held()[0] > 7 + batch.bytes() && held()[1] == held()[0] - 7);
        drop(batch);
        assert_eq!(held(), [7, 0]);
        let mut buffers = back.try_recv().expect("the buffers come back");
        buffers.clear(1024);
        assert_eq!((buffers.len(), buffers.bytes()), (0, 0));
    }
}
