//! A joiner as a value that checkpoints keep: with the same records afterwards it does the same as the joiner it was taken from.

use serde::{Deserialize, Serialize, Serializer};

use super::early::{EarlyPicture, Waiting};
use super::open::{Open, OpenPicture};
use super::seen::{Page, SeenPicture};
use super::{JoinCounts, JoinLimits, Joiner, Kept, Opened, Orphan, Payload, TaskSet};
use crate::funnel::Funnel;
use crate::time::EventTime;

/// What a joiner knows, as it is read back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinerState<T> {
    watermark: EventTime,
    arrivals: u64,
    counts: JoinCounts,
    opens: Vec<OpenState<T>>,
    waiting: Vec<Waiting>,
    lost: Vec<EventTime>,
    seen: Vec<Vec<Page>>,
}

/// An open impression with the outcomes seen of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OpenState<T> {
    opened: Opened<Kept<T>>,
    named: TaskSet,
    turned: TaskSet,
    masked: TaskSet,
    outcomes: Vec<(usize, EventTime)>,
}

impl<T> JoinerState<T> {
    /// Returns how many impressions are open.
    pub fn open(&self) -> usize {
        self.opens.len()
    }
}

/// A state does not belong to the configured funnel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the stored joins are of a funnel with {found} types of behaviour, the configured one has {expected}: start without the stored state, or configure the funnel it was stored with"
)]
pub struct OtherFunnel {
    /// Types of behaviour in the configured funnel.
    pub expected: usize,
    /// Types of behaviour in the state.
    pub found: usize,
}

/// What a joiner knew at one moment. Taking it costs little, and it stays as it is ([`crate::pages`]); it is serialised as the
/// [`JoinerState`] of that moment.
#[derive(Clone, Debug)]
pub struct JoinerPicture<T> {
    watermark: EventTime,
    arrivals: u64,
    counts: JoinCounts,
    opens: OpenPicture<T>,
    early: EarlyPicture,
    seen: SeenPicture,
}

impl<T: Payload> JoinerPicture<T> {
    /// Returns the state, impressions in the order of arrival.
    fn state(&self) -> JoinerState<&T> {
        let mut opens: Vec<OpenState<&T>> = self
            .opens
            .iter()
            .map(|open| {
                let opened = &open.opened;
                let mut outcomes: Vec<(usize, EventTime)> = self.opens.kept(open).collect();
                outcomes.reverse();
                let payload = match &opened.payload {
                    Kept::Here(payload) => Kept::Here(payload),
                    Kept::Away(number) => Kept::Away(*number),
                };
                let Opened { id, user, item, time, number, new_item, .. } = *opened;
                let opened = Opened { id, user, item, time, number, new_item, payload };
                let Open { named, turned, masked, .. } = *open;
                OpenState { opened, named, turned, masked, outcomes }
            })
            .collect();
        opens.sort_unstable_by_key(|open| open.opened.number);
        let (waiting, lost) = self.early.state();
        JoinerState {
            watermark: self.watermark,
            arrivals: self.arrivals,
            counts: self.counts.clone(),
            opens,
            waiting,
            lost,
            seen: self.seen.state(),
        }
    }
}

impl<T: Payload + Serialize> Serialize for JoinerPicture<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.state().serialize(serializer)
    }
}

impl<T: Payload> Joiner<T> {
    /// Returns what it knows now, for another thread to write while this joiner goes on. All effects must have been handled.
    pub fn picture(&self) -> JoinerPicture<T> {
        JoinerPicture {
            watermark: self.watermark,
            arrivals: self.arrivals,
            counts: self.counts.clone(),
            opens: self.opens.picture(),
            early: self.early.picture(),
            seen: self.seen.picture(),
        }
    }

    /// Creates the joiner that a state was taken from.
    ///
    /// # Errors
    /// [`OtherFunnel`] when the state has counts of another number of behaviours.
    pub fn restore(
        funnel: &Funnel,
        limits: JoinLimits,
        state: JoinerState<T>,
    ) -> Result<Self, OtherFunnel> {
        let mut joiner = Self::new(funnel, limits);
        let (expected, found) = (joiner.counts.kinds.len(), state.counts.kinds.len());
        if expected != found {
            return Err(OtherFunnel { expected, found });
        }
        joiner.watermark = state.watermark;
        joiner.arrivals = state.arrivals;
        joiner.counts = state.counts;
        for open in state.opens {
            joiner.reopen(open);
        }
        for waiting in state.waiting {
            if let Some(waiting) = joiner.early.push(waiting) {
                joiner.give_up(&waiting, Orphan::Overflow);
            }
        }
        joiner.early.restore_lost(state.lost);
        joiner.seen.restore(state.seen);
        Ok(joiner)
    }

    fn reopen(&mut self, open: OpenState<T>) {
        let OpenState { opened, named, turned, masked, outcomes } = open;
        let stage = self.stages_over(opened.time);
        let place = self.opens.insert(opened, named, masked);
        for (task, time) in outcomes {
            self.opens.keep(place, task, time);
            let open = self.opens.get_mut(place);
            open.seen = open.seen.with(task);
        }
        let open = self.opens.get_mut(place);
        open.positive = self.rules.positive(open.seen);
        open.turned = turned;
        self.schedule(place, stage);
    }
}
