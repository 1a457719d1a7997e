//! The partitions of a consumer: where each one starts and how far it is.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use sluice_features::time::EventTime;

use super::super::probe::{PartitionRange, Probe};
use super::super::trouble::Trouble;
use super::batch::Buffers;
use super::{ConsumerSettings, Gaps, Lane, LaneStatus, NextOffset, Source, Start};

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
}

impl LaneState {
    fn new(lane: Lane, source: usize, position: i64, high: i64) -> Self {
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

    /// Returns the state at the start for the owner.
    pub(super) fn status(&self) -> LaneStatus {
        let (position, in_hand) = (NextOffset(self.reached()), false);
        LaneStatus { lane: self.lane, position, high: self.high, end: None, in_hand }
    }
}

/// Asks the brokers for all partitions and decides where each one starts.
///
/// # Errors
/// Retriable while no broker answers; otherwise a missing topic, a refusal or an offset that is gone.
pub(super) fn resolve(
    settings: &ConsumerSettings,
    probe: &Probe,
    patience: Duration,
) -> Result<Vec<LaneState>, Trouble> {
    let mut lanes = Vec::new();
    for (index, source) in settings.sources.iter().enumerate() {
        let missing = || Trouble::MissingTopic { topic: source.topic.clone() };
        let partitions = probe.partitions(&source.topic, patience)?.ok_or_else(missing)?;
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            let lane = Lane { role: source.role, partition };
            let range = probe.range(&source.topic, partition, patience)?;
            let wanted = settings.offsets.get(&lane).copied();
            let position = start_of(source, partition, wanted, range)?;
            lanes.push(LaneState::new(lane, index, position, range.high));
        }
    }
    Ok(lanes)
}

/// Decides where one partition starts.
///
/// # Errors
/// [`Trouble::OutOfRange`] when the wanted offset is not in the log and the topic must not have gaps.
pub(super) fn start_of(
    source: &Source,
    partition: i32,
    wanted: Option<NextOffset>,
    range: PartitionRange,
) -> Result<i64, Trouble> {
    let PartitionRange { low, high } = range;
    match (wanted, source.start) {
        (None, Start::Beginning) => Ok(low),
        (None, Start::End) => Ok(high),
        (Some(NextOffset(offset)), _) if (low..=high).contains(&offset) => Ok(offset),
        // Below the log of a compacted topic is nothing to miss; above it, the topic was made anew.
        (Some(NextOffset(_)), Start::Beginning) if source.gaps == Gaps::Skip => Ok(low),
        (Some(NextOffset(_)), Start::End) if source.gaps == Gaps::Skip => Ok(high),
        (Some(NextOffset(wanted)), _) => {
            Err(Trouble::OutOfRange { topic: source.topic.clone(), partition, wanted, low, high })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::TopicRole;
    use super::*;

    const RANGE: PartitionRange = PartitionRange { low: 10, high: 20 };

    fn start(role: TopicRole, wanted: Option<i64>) -> Result<i64, Trouble> {
        start_of(&Source::new(role, "t"), 0, wanted.map(NextOffset), RANGE)
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
    fn events_never_jump_over_a_gap() {
        for wanted in [9, 21] {
            let trouble = start(TopicRole::Events, Some(wanted)).expect_err("a gap");
            assert!(matches!(trouble, Trouble::OutOfRange { low: 10, high: 20, .. }), "{trouble}");
        }
    }

    #[test]
    fn compacted_topics_begin_again_and_requests_go_on_at_the_end() {
        for wanted in [9, 21] {
            assert_eq!(start(TopicRole::Users, Some(wanted)), Ok(10));
            assert_eq!(start(TopicRole::Requests, Some(wanted)), Ok(20));
        }
    }
}
