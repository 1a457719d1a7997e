//! The partitions of a consumer: where each one starts and how far it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::Timestamp;
use sluice_features::time::EventTime;

use super::super::probe::{PartitionRange, Probe};
use super::super::trouble::Trouble;
use super::batch::{Buffers, arrival};
use super::broker_clock::BrokerClock;
use super::gap::{Gap, GapCause};
use super::mark::{Mark, Proof, compare};
use super::witness::Witness;
use super::{
    ConsumerSettings, Gaps, Lane, LaneStatus, NextOffset, SharedLane, Source, Start, TopicRole,
};

/// Records behind the high-water mark up to which a partition counts as read up: nothing waits in Kafka.
const READ_UP: i64 = 64;

/// One partition as the poll thread sees it.
pub(super) struct LaneState {
    /// The partition.
    pub(super) lane: Lane,
    /// Index of its topic in the settings.
    pub(super) source: usize,
    /// The next offset to take; anything below it is a repetition.
    pub(super) position: i64,
    /// The high-water mark at the start: how far a read-up goes.
    pub(super) target: i64,
    /// The newest known high-water mark.
    pub(super) high: i64,
    /// Everything below this offset was handed out or is not a record (control records, compacted ones).
    pub(super) passed: i64,
    /// What `passed` becomes once nothing more is waiting in the client.
    pub(super) fetched: Option<i64>,
    /// Whether it is being read.
    pub(super) active: bool,
    /// Records taken and not handed on yet, and when the first of them was polled.
    pub(super) open: Option<(EventTime, Buffers)>,
    /// Bytes of its batches that are not dropped yet.
    pub(super) in_hand: Arc<AtomicUsize>,
    broker: BrokerClock,
}

impl LaneState {
    pub(super) fn new(lane: Lane, source: usize, position: i64, high: i64) -> Self {
        Self {
            lane,
            source,
            position,
            target: high,
            high,
            passed: position,
            fetched: None,
            active: false,
            open: None,
            in_hand: Arc::default(),
            broker: BrokerClock::default(),
        }
    }

    /// Returns the offset up to which nothing is left to hand out.
    pub(super) fn reached(&self) -> i64 {
        self.position.max(self.passed)
    }

    /// Returns the records that are not handed out yet.
    pub(super) fn lag(&self) -> u64 {
        u64::try_from(self.high - self.reached()).unwrap_or(0)
    }

    /// Returns what both sides see.
    pub(super) fn shared(&self) -> SharedLane {
        SharedLane {
            lane: self.lane,
            position: AtomicI64::new(self.reached()),
            high: AtomicI64::new(self.high),
            end: Mutex::default(),
            in_hand: Arc::clone(&self.in_hand),
        }
    }

    /// Returns when a record arrived that was polled just now. A request that was there before us is as old as its stamp says; of the others the
    /// own clock tells, and where the broker has dated them how long they waited: an asker's clock that is behind must not spend its deadline.
    pub(super) fn arrived(
        &mut self,
        stamp: Timestamp,
        offset: i64,
        polled: EventTime,
    ) -> EventTime {
        match stamp {
            _ if self.lane.role != TopicRole::Requests || offset < self.target => {
                arrival(stamp, self.lane.role, polled)
            }
            Timestamp::LogAppendTime(stamp) => {
                let is_read_up = self.high.saturating_sub(offset) <= READ_UP;
                self.broker.arrived(EventTime(stamp), polled, is_read_up)
            }
            _ => polled,
        }
    }

    /// Returns the state at the start for the owner.
    pub(super) fn status(&self) -> LaneStatus {
        let (position, in_hand) = (NextOffset(self.reached()), false);
        LaneStatus { lane: self.lane, position, high: self.high, end: None, in_hand }
    }
}

/// Asks the brokers for all partitions, makes sure that they are the ones that were read before, and decides where each one starts. What
/// is missing there is told beside.
///
/// # Errors
/// Retriable while no broker answers; otherwise a missing topic, a refusal, an offset that is gone or a topic that was made anew.
pub(super) fn resolve(
    settings: &ConsumerSettings,
    probe: &Probe,
    patience: Duration,
) -> Result<(Vec<LaneState>, Vec<Gap>), Trouble> {
    let (mut lanes, mut gaps) = (Vec::new(), Vec::new());
    for (index, source) in settings.sources.iter().enumerate() {
        let missing = || Trouble::MissingTopic { topic: source.topic.clone() };
        let partitions = probe.partitions(&source.topic, patience)?.ok_or_else(missing)?;
        let mut ranges = Vec::with_capacity(partitions);
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            let lane = Lane { role: source.role, partition };
            ranges.push((lane, probe.range(&source.topic, partition, patience)?));
        }
        let proofs = proofs(settings, source, &ranges)?;
        for (lane, range) in ranges {
            let wanted = settings.offsets.get(&lane).copied();
            let proof = proofs.get(&lane.partition).unwrap_or(&Proof::Unknown);
            let (position, gap) =
                start_of(source, lane, wanted, proof, range, settings.accept_gaps)?;
            lanes.push(LaneState::new(lane, index, position, range.high));
            gaps.extend(gap);
        }
    }
    Ok((lanes, gaps))
}

/// Compares the partitions of a topic with what was kept of them.
fn proofs(
    settings: &ConsumerSettings,
    source: &Source,
    ranges: &[(Lane, PartitionRange)],
) -> Result<BTreeMap<i32, Proof>, Trouble> {
    let marked = ranges.iter().filter_map(|(lane, range)| {
        let mark = settings.marks.get(lane).filter(|mark| mark.offset >= range.low);
        mark.filter(|_| range.low < range.high).map(|mark| (lane.partition, *mark, *range))
    });
    let marked: Vec<(i32, Mark, PartitionRange)> = marked.collect();
    if marked.is_empty() {
        return Ok(BTreeMap::new());
    }
    let witness = Witness::open(&settings.connection, &settings.group)?;
    let there = marked.iter().filter(|(_, mark, range)| mark.offset < range.high);
    let there: Vec<_> = there.map(|(partition, mark, _)| (*partition, mark.offset)).collect();
    let at =
        if there.is_empty() { BTreeMap::new() } else { witness.records(&source.topic, &there)? };
    let gone = marked.iter().filter(|(partition, mark, _)| {
        at.get(partition).is_none_or(|found| found.mark.offset != mark.offset)
    });
    let gone: Vec<_> = gone.map(|(partition, _, range)| (*partition, range.low)).collect();
    let oldest =
        if gone.is_empty() { BTreeMap::new() } else { witness.records(&source.topic, &gone)? };
    let proof = |(partition, mark, _): &(i32, Mark, PartitionRange)| {
        (*partition, compare(mark, at.get(partition), oldest.get(partition)))
    };
    Ok(marked.iter().map(proof).collect())
}

/// Decides where one partition starts, and what is missing there.
///
/// # Errors
/// Where records are missing, or are not those that were read before, and that is not accepted: [`Trouble::OutOfRange`],
/// [`Trouble::MadeAnew`].
pub(super) fn start_of(
    source: &Source,
    lane: Lane,
    wanted: Option<NextOffset>,
    proof: &Proof,
    range: PartitionRange,
    accept: bool,
) -> Result<(i64, Option<Gap>), Trouble> {
    let PartitionRange { low, high } = range;
    let Some(NextOffset(offset)) = wanted else {
        return Ok((if source.start == Start::Beginning { low } else { high }, None));
    };
    let (cause, to) = match proof {
        Proof::Other(_) => (GapCause::MadeAnew, low),
        _ if (low..=high).contains(&offset) => return Ok((offset, None)),
        // Questions of a while ago are not waited for any more.
        _ if source.gaps == Gaps::Skip && source.start == Start::End => return Ok((high, None)),
        // Below the log of a compacted topic is nothing to miss.
        _ if source.gaps == Gaps::Skip && offset < low => return Ok((low, None)),
        _ if offset < low => (GapCause::Deleted, low),
        Proof::Same => (GapCause::EndLost, high),
        Proof::Unknown => (GapCause::MadeAnew, low),
    };
    if accept {
        let (from, to) = (NextOffset(offset), NextOffset(to));
        return Ok((to.0, Some(Gap { lane, cause, from, to })));
    }
    let (topic, partition) = (source.topic.clone(), lane.partition);
    Err(match proof {
        Proof::Other(what) => {
            Trouble::MadeAnew { topic, what: format!("partition {partition}: {what}") }
        }
        _ => Trouble::OutOfRange { topic, partition, wanted: offset, low, high },
    })
}

#[cfg(test)]
mod tests {
    use super::super::TopicRole;
    use super::*;

    const RANGE: PartitionRange = PartitionRange { low: 10, high: 20 };

    fn place(
        role: TopicRole,
        wanted: Option<i64>,
        proof: &Proof,
        accept: bool,
    ) -> Result<(i64, Option<GapCause>), Trouble> {
        let (source, lane) = (Source::new(role, "t"), Lane { role, partition: 0 });
        let place = start_of(&source, lane, wanted.map(NextOffset), proof, RANGE, accept);
        place.map(|(position, gap)| (position, gap.map(|gap| gap.cause)))
    }

    fn start(role: TopicRole, wanted: Option<i64>) -> Result<i64, Trouble> {
        place(role, wanted, &Proof::Unknown, false).map(|(position, _)| position)
    }

    #[test]
    fn the_callers_offset_wins_when_the_log_has_it() {
        for wanted in [10, 15, 20] {
            assert_eq!(start(TopicRole::Events, Some(wanted)), Ok(wanted));
            assert_eq!(start(TopicRole::Requests, Some(wanted)), Ok(wanted));
        }
    }

    #[test]
    fn without_an_offset_the_role_decides() {
        assert_eq!(start(TopicRole::Events, None), Ok(10));
        assert_eq!(start(TopicRole::Items, None), Ok(10));
        assert_eq!(start(TopicRole::Requests, None), Ok(20));
    }

    #[test]
    fn nothing_is_jumped_over_that_is_missed() {
        for (role, wanted) in
            [(TopicRole::Events, 9), (TopicRole::Events, 21), (TopicRole::Items, 21)]
        {
            let trouble = start(role, Some(wanted)).expect_err("a gap");
            assert!(matches!(trouble, Trouble::OutOfRange { low: 10, high: 20, .. }), "{trouble}");
        }
    }

    #[test]
    fn compacted_topics_miss_nothing_below_their_log_and_requests_go_on_at_the_end() {
        assert_eq!(start(TopicRole::Users, Some(9)), Ok(10));
        for wanted in [9, 21] {
            assert_eq!(start(TopicRole::Requests, Some(wanted)), Ok(20));
        }
    }

    #[test]
    fn another_topic_under_the_same_name_is_refused_wherever_the_offset_lies() {
        let other = Proof::Other("record 14 is another one".into());
        for role in [TopicRole::Events, TopicRole::Items, TopicRole::Users] {
            for wanted in [9, 10, 15, 20, 21] {
                let trouble = place(role, Some(wanted), &other, false).expect_err("another one");
                assert!(matches!(trouble, Trouble::MadeAnew { .. }), "{trouble}");
                let accepted = place(role, Some(wanted), &other, true);
                assert_eq!(accepted, Ok((10, Some(GapCause::MadeAnew))), "from its beginning");
            }
        }
    }

    #[test]
    fn a_gap_that_is_accepted_is_told_with_its_cause() {
        let events = |wanted, proof| place(TopicRole::Events, Some(wanted), &proof, true);
        assert_eq!(events(7, Proof::Unknown), Ok((10, Some(GapCause::Deleted))));
        assert_eq!(events(7, Proof::Same), Ok((10, Some(GapCause::Deleted))));
        assert_eq!(events(25, Proof::Unknown), Ok((10, Some(GapCause::MadeAnew))));
        // What it has lost was read: it would be read twice from the beginning.
        assert_eq!(events(25, Proof::Same), Ok((20, Some(GapCause::EndLost))));
        assert_eq!(events(15, Proof::Same), Ok((15, None)));
        assert_eq!(place(TopicRole::Items, Some(7), &Proof::Unknown, true), Ok((10, None)));
    }

    #[test]
    fn a_gap_knows_how_many_records_are_missing_where_that_can_be_known() {
        let missing = |cause, from, to| {
            let lane = Lane { role: TopicRole::Events, partition: 0 };
            Gap { lane, cause, from: NextOffset(from), to: NextOffset(to) }.missing()
        };
        assert_eq!(missing(GapCause::Deleted, 10, 40), Some(30));
        assert_eq!(missing(GapCause::Unreadable, 10, 12), Some(2));
        assert_eq!(missing(GapCause::MadeAnew, 10, 0), None);
        assert_eq!(missing(GapCause::EndLost, 10, 7), None);
    }
}
