//! Outcomes that came before their impression: they wait by the impression that they name, or by user and item.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use foldhash::fast::FixedState;

use super::Outcome;
use crate::ids::{EventId, ItemId, UserId};
use crate::pages::PagedSlab;
use crate::time::{EventTime, Span};

const NONE: u32 = u32::MAX;

/// Outcomes that are copied together where a checkpoint is being written.
const PAGE: usize = 32;

/// For what an outcome waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Awaited {
    /// The impression that it names.
    Named(UserId, EventId),
    /// Any impression of this user and item.
    Any(UserId, ItemId),
}

impl Awaited {
    fn by(outcome: &Outcome) -> Self {
        match outcome.impression {
            Some(id) => Self::Named(outcome.user, id),
            None => Self::Any(outcome.user, outcome.item),
        }
    }
}

/// A waiting outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Waiting {
    pub(super) outcome: Outcome,
    /// The watermark had passed its time when it came, so its impression may have closed before.
    pub(super) behind: bool,
    /// Its number in the order of arrival.
    pub(super) arrival: u64,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    waiting: Waiting,
    next: u32,
}

/// The waiting outcomes of a shard.
#[derive(Clone, Debug)]
pub(super) struct Early {
    nodes: PagedSlab<Node, PAGE>,
    /// First and last of each chain, in the order of arrival.
    chains: HashMap<Awaited, (u32, u32), FixedState>,
    /// (deadline, arrival, place), with entries of outcomes that have found their impression meanwhile.
    deadlines: BinaryHeap<Reverse<(EventTime, u64, u32)>>,
    wait: Span,
    most: usize,
}

impl Early {
    pub(super) fn new(wait: Span, most: usize) -> Self {
        Self {
            nodes: PagedSlab::new(),
            chains: HashMap::default(),
            deadlines: BinaryHeap::new(),
            wait,
            most: most.max(1),
        }
    }

    /// Tells whether an outcome of this time has waited long enough at this watermark.
    pub(super) fn is_over(&self, time: EventTime, watermark: EventTime) -> bool {
        time + self.wait < watermark
    }

    /// Lets an outcome wait. Returns one that must go because there are too many.
    pub(super) fn push(&mut self, waiting: Waiting) -> Option<Waiting> {
        let awaited = Awaited::by(&waiting.outcome);
        let place = u32::try_from(self.nodes.insert(Node { waiting, next: NONE })).unwrap_or(NONE);
        match self.chains.get_mut(&awaited) {
            Some((_, last)) => {
                self.nodes[*last as usize].next = place;
                *last = place;
            }
            None => {
                self.chains.insert(awaited, (place, place));
            }
        }
        self.deadlines.push(Reverse((waiting.outcome.time + self.wait, waiting.arrival, place)));
        if self.deadlines.len() > 64 + 2 * self.nodes.len() {
            let nodes = &self.nodes;
            self.deadlines.retain(|Reverse((_, arrival, place))| is_live(nodes, *arrival, *place));
        }
        if self.nodes.len() > self.most { self.pop_before(EventTime::MAX) } else { None }
    }

    /// Removes and returns the outcome with the earliest deadline, if that is strictly before the watermark.
    pub(super) fn pop_before(&mut self, watermark: EventTime) -> Option<Waiting> {
        while let Some(&Reverse((deadline, arrival, place))) = self.deadlines.peek() {
            if !is_live(&self.nodes, arrival, place) {
                self.deadlines.pop();
                continue;
            }
            if deadline >= watermark {
                return None;
            }
            self.deadlines.pop();
            let waiting = self.nodes[place as usize].waiting;
            self.unlink(Awaited::by(&waiting.outcome), place);
            return Some(waiting);
        }
        None
    }

    /// Removes the outcomes that wait for this and that `wanted` accepts, in the order of arrival, into `found`.
    pub(super) fn take(
        &mut self,
        awaited: Awaited,
        wanted: impl Fn(&Outcome) -> bool,
        found: &mut Vec<Waiting>,
    ) {
        let mut place = self.chains.get(&awaited).map_or(NONE, |chain| chain.0);
        while place != NONE {
            let node = self.nodes[place as usize];
            if wanted(&node.waiting.outcome) {
                found.push(node.waiting);
                self.unlink(awaited, place);
            }
            place = node.next;
        }
    }

    /// Returns about how many bytes the outcomes take.
    pub(super) fn memory(&self) -> usize {
        self.nodes.len() * (size_of::<Node>() + 48) + self.deadlines.len() * 24
    }

    /// Returns the waiting outcomes as they are now.
    pub(super) fn picture(&self) -> EarlyPicture {
        EarlyPicture(self.nodes.clone())
    }

    fn unlink(&mut self, awaited: Awaited, place: u32) {
        let next = self.nodes.remove(place as usize).next;
        let Some(&(first, last)) = self.chains.get(&awaited) else { return };
        if first == place {
            if next == NONE {
                self.chains.remove(&awaited);
            } else {
                self.chains.insert(awaited, (next, last));
            }
            return;
        }
        let mut before = first;
        while self.nodes[before as usize].next != place {
            before = self.nodes[before as usize].next;
        }
        self.nodes[before as usize].next = next;
        if last == place {
            self.chains.insert(awaited, (first, before));
        }
    }
}

/// The waiting outcomes as they were.
#[derive(Clone, Debug)]
pub(super) struct EarlyPicture(PagedSlab<Node, PAGE>);

impl EarlyPicture {
    /// Returns the outcomes in the order of arrival.
    pub(super) fn state(&self) -> Vec<Waiting> {
        let mut state: Vec<Waiting> = self.0.iter().map(|(_, node)| node.waiting).collect();
        state.sort_unstable_by_key(|waiting| waiting.arrival);
        state
    }
}

fn is_live(nodes: &PagedSlab<Node, PAGE>, arrival: u64, place: u32) -> bool {
    nodes.get(place as usize).is_some_and(|node| node.waiting.arrival == arrival)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::BehaviourType;

    fn waiting(arrival: u64, item: u64, time: i64) -> Waiting {
        let outcome = Outcome {
            id: EventId(arrival + 1),
            kind: BehaviourType(0),
            user: UserId(1),
            item: ItemId(item),
            time: EventTime(time),
            impression: None,
        };
        Waiting { outcome, behind: false, arrival }
    }

    fn early(most: usize) -> Early {
        let mut early = Early::new(Span(10), most);
        for (arrival, (item, time)) in [(7, 5), (7, 3), (8, 4), (7, 9)].into_iter().enumerate() {
            assert_eq!(early.push(waiting(arrival as u64, item, time)), None);
        }
        early
    }

    #[test]
    fn outcomes_leave_in_the_order_of_their_deadlines_strictly_before_the_watermark() {
        let mut early = early(9);
        assert_eq!(early.pop_before(EventTime(13)), None);
        let mut times = Vec::new();
        while let Some(waiting) = early.pop_before(EventTime(16)) {
            times.push(waiting.outcome.time.0);
        }
        assert_eq!(times, [3, 4, 5]);
        assert_eq!(early.picture().state(), [waiting(3, 7, 9)]);
    }

    #[test]
    fn an_impression_takes_its_own_from_any_part_of_a_chain() {
        let mut early = early(9);
        let mut found = Vec::new();
        let any = Awaited::Any(UserId(1), ItemId(7));
        early.take(any, |outcome| outcome.time != EventTime(5), &mut found);
        assert_eq!(found, [waiting(1, 7, 3), waiting(3, 7, 9)]);
        assert_eq!(early.push(waiting(4, 7, 1)), None);
        found.clear();
        early.take(any, |_| true, &mut found);
        assert_eq!(found, [waiting(0, 7, 5), waiting(4, 7, 1)]);
        assert_eq!(early.pop_before(EventTime::MAX), Some(waiting(2, 8, 4)));
        assert_eq!(early.pop_before(EventTime::MAX), None);
        assert!(early.chains.is_empty());
    }

    #[test]
    fn a_full_buffer_gives_up_the_outcome_with_the_least_time_left() {
        let mut early = early(4);
        assert_eq!(early.push(waiting(4, 9, 8)), Some(waiting(1, 7, 3)));
        assert_eq!(early.push(waiting(5, 9, 1)), Some(waiting(5, 9, 1)));
    }
}
