//! Where reading requests begins: after those that were answered, and not before those for which somebody may still wait.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_features::time::{EventTime, Span};

use crate::kafka::{Connection, Lane, NextOffset, PartitionRange, Probe, TopicRole, Trouble};

/// Nobody waits for longer than this for an answer: what was asked before is not answered after a start.
const LONGEST: Span = Span::seconds(60);
/// How long Kafka may take to tell.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns the offsets at which to begin, now.
///
/// # Errors
/// When Kafka does not tell.
pub(super) fn offsets(
    connection: &Connection,
    group: &str,
    topic: &str,
    now: EventTime,
) -> Result<BTreeMap<Lane, NextOffset>, Trouble> {
    let probe = Probe::open(connection)?;
    let recent = probe.since(topic, now - LONGEST, PATIENCE)?;
    let committed = match Probe::committed(connection, group, topic, PATIENCE) {
        Ok(committed) => committed,
        // The user may not commit either, so there is nothing to find.
        Err(Trouble::Denied { .. }) => Vec::new(),
        Err(trouble) => return Err(trouble),
    };
    let (mut offsets, mut unanswered) = (BTreeMap::new(), 0);
    for (partition, recent) in (0..).zip(recent) {
        let range = probe.range(topic, partition, PATIENCE)?;
        let committed = committed.get(partition as usize).copied().flatten();
        let (begin, lost) = begin(committed, recent, range);
        unanswered += lost;
        offsets.insert(Lane { role: TopicRole::Requests, partition }, begin);
    }
    if unanswered > 0 {
        tracing::warn!(
            requests = unanswered,
            "requests were asked while nobody answered, and nobody waits for them any more: they are not answered"
        );
    }
    Ok(offsets)
}

/// Returns where a partition begins, and how many requests before that were never answered. `recent` is the first request that is not too old.
fn begin(
    committed: Option<NextOffset>,
    recent: Option<NextOffset>,
    range: PartitionRange,
) -> (NextOffset, i64) {
    let recent =
        recent.map_or(range.high, |NextOffset(recent)| recent.clamp(range.low, range.high));
    // Beyond the end it is of a topic before this one.
    match committed.filter(|NextOffset(committed)| *committed <= range.high) {
        Some(NextOffset(committed)) if committed >= recent => (NextOffset(committed), 0),
        Some(NextOffset(committed)) => (NextOffset(recent), recent - committed),
        None => (NextOffset(recent), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_begins_after_what_was_answered_and_not_before_what_is_waited_for() {
        let range = PartitionRange { low: 10, high: 100 };
        let at = |committed: Option<i64>, recent: Option<i64>| {
            let (NextOffset(offset), lost) =
                begin(committed.map(NextOffset), recent.map(NextOffset), range);
            (offset, lost)
        };
        assert_eq!(at(None, None), (100, 0), "all are old");
        assert_eq!(at(None, Some(60)), (60, 0));
        assert_eq!(at(Some(80), Some(60)), (80, 0), "answered up to 80");
        assert_eq!(at(Some(40), Some(60)), (60, 20), "away for longer than anybody waits");
        assert_eq!(at(Some(40), None), (100, 60));
        assert_eq!(at(Some(100), Some(60)), (100, 0), "all are answered");
        assert_eq!(at(Some(101), Some(60)), (60, 0), "the topic was made anew");
        assert_eq!(at(Some(3), Some(10)), (10, 7), "deleted meanwhile");
        assert_eq!(at(None, Some(5)), (10, 0));
    }
}
