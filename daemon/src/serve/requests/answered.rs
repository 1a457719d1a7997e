//! Up to where requests are answered: what Kafka is told for the next start.
//!
//! Scorers answer out of order, so requests are counted by spells of about [`SPELL`]: each holds a ticket of the spell in which it was taken. Once
//! all tickets of a spell are back, and the next spell has passed, in which Kafka takes the answers, its offsets are committed. After a kill so the
//! requests of the last second are read again; of those whose deadline has not passed some are answered twice, under the same id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::kafka::{Lane, NextOffset};

/// How long a spell lasts at least.
const SPELL: Duration = Duration::from_millis(300);

/// Held by each request that waits for its answer.
pub(super) type Ticket = Arc<()>;

/// The offsets after the requests of a spell.
type Offsets = BTreeMap<Lane, NextOffset>;

/// Spells of requests that are not committed yet.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// Requests are added to this one.
    ticket: Ticket,
    offsets: Offsets,
    since: Duration,
    /// The one before, whose answers are awaited.
    before: Option<(Ticket, Offsets)>,
    /// The one before that: answered.
    done: Option<Offsets>,
}

impl Answered {
    /// Returns the ticket for a request that is taken now.
    pub(super) fn ticket(&self) -> Ticket {
        Arc::clone(&self.ticket)
    }

    /// Takes note that all requests of a partition up to here were taken.
    pub(super) fn took(&mut self, lane: Lane, next: NextOffset) {
        self.offsets.insert(lane, next);
    }

    /// Ends the spell when its time has come. Returns offsets to commit.
    pub(super) fn look(&mut self, now: Duration) -> Option<Vec<(Lane, NextOffset)>> {
        if now.saturating_sub(self.since) < SPELL || !self.is_answered() {
            return None;
        }
        let offsets = std::mem::take(&mut self.offsets);
        let ticket = std::mem::take(&mut self.ticket);
        self.since = now;
        let before = self.before.replace((ticket, offsets)).map(|(_, offsets)| offsets);
        std::mem::replace(&mut self.done, before)
            .filter(|offsets| !offsets.is_empty())
            .map(|offsets| offsets.into_iter().collect())
    }

    /// Tells whether every request before this spell is answered.
    fn is_answered(&self) -> bool {
        self.before.as_ref().is_none_or(|(ticket, _)| Arc::strong_count(ticket) == 1)
    }

    /// Tells whether every request is answered.
    pub(super) fn is_all_answered(&self) -> bool {
        self.is_answered() && Arc::strong_count(&self.ticket) == 1
    }

    /// Returns the offsets after all requests that were taken: to be committed once all are answered, and their answers delivered.
    pub(super) fn finish(self) -> Vec<(Lane, NextOffset)> {
        let mut all = self.done.unwrap_or_default();
        all.extend(self.before.map(|(_, offsets)| offsets).unwrap_or_default());
        all.extend(self.offsets);
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::TopicRole;

    const LANE: Lane = Lane { role: TopicRole::Requests, partition: 0 };

    #[test]
    fn nothing_is_committed_before_all_of_it_is_answered() {
        let mut answered = Answered::default();
        let look = |answered: &mut Answered, second| answered.look(SPELL * second);
        let slow = answered.ticket();
        answered.took(LANE, NextOffset(1));
        assert_eq!(look(&mut answered, 1), None);
        // Offset 1 is answered before offset 0.
        drop(answered.ticket());
        answered.took(LANE, NextOffset(2));
        for second in 2..10 {
            assert_eq!(look(&mut answered, second), None, "{second}");
        }
        assert!(!answered.is_all_answered());
        drop(slow);
        assert_eq!(look(&mut answered, 10), None, "the answer is on its way");
        assert_eq!(look(&mut answered, 11), Some(vec![(LANE, NextOffset(1))]));
        assert_eq!(look(&mut answered, 12), Some(vec![(LANE, NextOffset(2))]));
        assert_eq!(look(&mut answered, 13), None, "nothing new");
        answered.took(LANE, NextOffset(5));
        assert!(answered.is_all_answered());
        assert_eq!(answered.finish(), [(LANE, NextOffset(5))]);
    }
}
