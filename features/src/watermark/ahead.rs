//! Times beyond a step that wait for others to confirm them.

use serde::{Deserialize, Serialize};

use super::doubt::Doubt;
use super::{CONFIRMED, JUMP, MANY};
use crate::ids::UserId;
use crate::time::{EventTime, Span};

/// Events in a row that are beyond a step: the earliest of each of some users, how many they are, and how long they go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ahead {
    users: [Option<(UserId, EventTime)>; CONFIRMED],
    /// All events.
    events: u16,
    /// Those of another user than the one before.
    turns: u16,
    last: Option<UserId>,
    chain: Option<Chain>,
}

/// Events in the order of their times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Chain {
    first: EventTime,
    last: EventTime,
    events: u16,
    /// The sum of the steps that are no jumps, and how many are.
    covered: Span,
    pauses: u16,
}

impl Ahead {
    /// Takes note of an event. A user beyond [`CONFIRMED`] takes the place of whoever is furthest ahead, unless it is further still.
    pub(super) fn add(&mut self, time: EventTime, user: UserId) {
        self.events = self.events.saturating_add(1);
        if self.last != Some(user) {
            (self.last, self.turns) = (Some(user), self.turns.saturating_add(1));
        }
        match &mut self.chain {
            Some(chain) if chain.first <= time => chain.add(time),
            chain => *chain = Some(Chain::new(time)),
        }
        let theirs =
            |place: &&mut Option<(UserId, _)>| place.is_none_or(|(known, _)| known == user);
        if let Some(place) = self.users.iter_mut().find(theirs) {
            *place = Some((user, place.map_or(time, |(_, earliest)| earliest.min(time))));
            return;
        }
        let furthest = self.users.iter_mut().flatten().max_by_key(|(_, earliest)| *earliest);
        if let Some(furthest) = furthest.filter(|(_, earliest)| time < *earliest) {
            *furthest = (user, time);
        }
    }

    /// Returns how many events wait.
    pub(super) fn events(&self) -> u16 {
        self.events
    }

    /// Returns the earliest time that waits.
    pub(super) fn earliest(&self) -> Option<EventTime> {
        self.users.iter().flatten().map(|(_, time)| *time).min()
    }

    /// Returns the newest time of the user of the last event, if it has come there in small steps from no later than `mark`.
    pub(super) fn newest_of(&self, user: UserId, mark: EventTime) -> Option<EventTime> {
        let small = |chain: &Chain| chain.first <= mark && chain.pauses == 0;
        let chain = self.chain.filter(|chain| self.last == Some(user) && small(chain))?;
        Some(chain.last)
    }

    /// Tells whether events of several users agree that time has come so far, which is a jump or only a step.
    pub(super) fn confirms(&self, jump: bool, doubt: &Doubt) -> bool {
        let (users, turns) = if jump { (CONFIRMED, doubt.jump()) } else { (2, doubt.step()) };
        self.users() >= users && self.turns >= turns
    }

    /// Returns where time is, and the usual step, when events have gone on for so long that whoever could have refuted them has come by then, if
    /// there is anybody: for as long as the time that they claim to have left out, or over several pauses, or [`MANY`] of them.
    pub(super) fn goes_on(&self, claimed: Span, doubt: &Doubt) -> Option<(EventTime, Span)> {
        let Chain { first, last, events, covered, pauses } = self.chain?;
        if events >= 4 * doubt.jump() && covered >= claimed && pauses == 0 {
            return Some((last, Span((last - first).0 / i64::from(events - 1))));
        }
        let often = pauses >= 4 * doubt.jump() || self.events >= MANY;
        let earliest = self.earliest().filter(|_| often)?;
        Some((earliest, Span((last - first).0 / i64::from(pauses.max(1)))))
    }

    /// Forgets the earliest time, which has been confirmed.
    pub(super) fn take_earliest(&mut self) {
        let earliest = self.earliest();
        let place = self.users.iter_mut().find(|place| place.map(|(_, time)| time) == earliest);
        place.into_iter().for_each(|place| *place = None);
        (self.events, self.turns) = (self.events.saturating_sub(1), self.turns.saturating_sub(1));
        if self.users() == 0 {
            *self = Self::default();
        }
    }

    fn users(&self) -> usize {
        self.users.iter().flatten().count()
    }
}

impl Chain {
    fn new(time: EventTime) -> Self {
        Self { first: time, last: time, events: 1, covered: Span::ZERO, pauses: 0 }
    }

    fn add(&mut self, time: EventTime) {
        if time < self.last {
            return;
        }
        let step = time - self.last;
        if step > JUMP {
            self.pauses = self.pauses.saturating_add(1);
        } else {
            self.covered = Span(self.covered.0.saturating_add(step.0));
        }
        (self.last, self.events) = (time, self.events.saturating_add(1));
    }
}
