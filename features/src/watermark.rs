//! How far the event time of a partition has come, and which times are to be believed about that.
//!
//! A sender's clock may be wrong by minutes or years, and one wrong clock must not close a window, empty a counter or move anything else. So a time
//! that would move a partition's event time by more than a step has to be confirmed by others:
//!
//! | the time | moves the partition's |
//! |---|---|
//! | at most a step beyond what two thirds of the newest events have reached: the lateness (at least [`LEAST`]), or several times the second longest step that this has made of late | at once |
//! | beyond a step, up to [`JUMP`] | when three events in turn of at least two users have come beyond it and none in time between them |
//! | further ahead, of a stream whose newest record, as this one, came within [`JUMP`] of its own time | at once: the receiver's clock agrees |
//! | further ahead otherwise (a log of the past, a stream that was silent) | when events of [`CONFIRMED`] users have come beyond that mark and none in time between them |
//! | the same of fewer users, nobody else's coming in time between them | when their events have gone on for as long as the time that they left out, in small steps; or over four times as many pauses as a jump needs users; or when they are [`MANY`] |
//! | the first of a partition | at once, but windows stay open until events of [`CONFIRMED`]` - 1` other users have come near it, or [`ALONE`] of whomever; one before it by more than a step takes its place |
//!
//! Of those that confirm a time the earliest counts, and those that are no more than a step from it. Where clocks were refuted of late, more
//! events have to agree, and more are asked for what most of them say: so many that wrong clocks alone, at the share that was seen, would be in
//! a row once in a million millions (of a step, once in a thousand millions).
//!
//! An event beyond the mark of a jump is not plausible: it counts as of the newest time. One beyond a step is, and only waits to move anything.
//! A partition that is read up and silent lets the clock decide: [`Watermark::settle`].

use serde::{Deserialize, Serialize};

use crate::ids::UserId;
use crate::time::{EventTime, Span};

mod ahead;
mod doubt;
mod recent;

use ahead::Ahead;
use doubt::Doubt;
use recent::Recent;

/// A time this far beyond the newest is not plausible until it is confirmed.
pub const JUMP: Span = Span::seconds(3600);
/// So many users must agree about a jump: the one who jumped and three others.
pub const CONFIRMED: usize = 4;
/// So many events of fewer users confirm the first of a partition.
pub const ALONE: u16 = 32;
/// So many events in a row, of however few users, confirm whatever they say.
pub const MANY: u16 = 256;
/// A step of this length needs no other to confirm it, however small the lateness.
pub const LEAST: Span = Span::seconds(1);

/// How far the event time of one partition has certainly come: the newest confirmed time minus the allowed lateness.
///
/// A window that ends strictly before the watermark is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    newest: EventTime,
    lateness: Span,
    /// The newest time came within [`JUMP`] of its arrival.
    live: bool,
    /// Users with events near the first one.
    backers: [Option<UserId>; CONFIRMED],
    /// Events near the first one, up to [`ALONE`].
    backing: u16,
    /// The newest events, and the time that two thirds of them have reached.
    recent: Recent,
    reached: EventTime,
    /// The two longest steps that this has made, the longest first; a 512th less whenever another user comes. The second decides: one gap in
    /// a log says nothing of what is usual.
    strides: [Span; 2],
    /// Times beyond a step, not yet confirmed.
    ahead: Ahead,
    doubt: Doubt,
}

impl Watermark {
    /// Creates the watermark of a partition that has seen nothing.
    pub fn new(lateness: Span) -> Self {
        Self {
            newest: EventTime::MIN,
            lateness,
            live: false,
            backers: [None; CONFIRMED],
            backing: 0,
            recent: Recent::default(),
            reached: EventTime::MIN,
            strides: [Span::ZERO; 2],
            ahead: Ahead::default(),
            doubt: Doubt::default(),
        }
    }

    /// Goes on with another lateness.
    #[must_use]
    pub fn with_lateness(self, lateness: Span) -> Self {
        Self { lateness, ..self }
    }

    /// Returns the time that an event of this time counts as: its own where that is plausible, else the newest plausible one, or its arrival
    /// where there is none yet.
    pub fn as_plausible(&self, time: EventTime, plausible: bool, arrived: EventTime) -> EventTime {
        match (plausible, self.newest) {
            (true, _) => time,
            (false, EventTime::MIN) => time.min(arrived),
            (false, newest) => time.min(newest),
        }
    }

    /// Takes note of the time of an accepted event and of when its record arrived. Tells whether the time is plausible; one that is not has moved
    /// nothing.
    pub fn observe(&mut self, time: EventTime, user: UserId, arrived: EventTime) -> bool {
        let live = time + JUMP >= arrived;
        if self.newest == EventTime::MIN || self.is_before_the_first(time) {
            let doubt = self.doubt;
            *self = Self { newest: time, live, doubt, ..Self::new(self.lateness) };
            self.backers[0] = Some(user);
            self.backing = if live { ALONE } else { 1 };
            self.follow(time, user);
            return true;
        }
        self.follow(time, user);
        let mark = self.mark();
        if time > mark {
            let newest = self.ahead.newest_of(user, self.newest + JUMP).unwrap_or(self.newest);
            let plausible = time <= mark.max(newest + JUMP);
            if !plausible && live && self.live {
                self.move_to(time, live, None);
                return true;
            }
            return self.wait(time, user, live) || plausible;
        }
        if time + self.step_allowed() >= self.newest {
            self.doubt.refuted(self.ahead.events());
            self.ahead = Ahead::default();
        }
        self.doubt.agreed();
        if time + JUMP >= self.newest {
            self.back(user);
        }
        if time > self.newest {
            (self.newest, self.live) = (time, live);
        }
        true
    }

    /// Believes what waits to be confirmed: the partition is read up, nothing has come for a while and the clock has passed it.
    pub fn settle(&mut self) {
        self.backing = ALONE;
        if let Some(time) = self.ahead.earliest() {
            self.move_to(time, self.live, None);
            self.ahead = Ahead::default();
        }
    }

    /// Tells whether a jump waits to be confirmed.
    pub fn is_jumping(&self) -> bool {
        self.ahead.earliest().is_some_and(|time| time > self.newest + self.step_allowed().max(JUMP))
    }

    /// Returns the newest confirmed time, [`EventTime::MIN`] before the first event.
    pub fn newest(&self) -> EventTime {
        self.newest
    }

    /// Returns the earliest time that waits to be confirmed, unless that would be a jump, or else the newest: it goes on with every event that
    /// says that time does.
    pub fn awaited(&self) -> EventTime {
        self.ahead.earliest().filter(|_| !self.is_jumping()).unwrap_or(self.newest)
    }

    /// Returns the watermark, [`EventTime::MIN`] until the first event is confirmed.
    pub fn value(&self) -> EventTime {
        if self.backing < ALONE { EventTime::MIN } else { self.newest - self.lateness }
    }

    /// Returns the time up to which an event moves the newest at once.
    fn mark(&self) -> EventTime {
        (self.reached + self.step_allowed()).max(self.newest)
    }

    /// Returns the longest step that needs no confirmation: what two thirds have reached lies so many events behind the newest.
    fn step_allowed(&self) -> Span {
        let steps = 4 + 2 * self.doubt.crowd() as i64 / 3;
        self.slack().max(Span(self.strides[1].0.saturating_mul(steps)))
    }

    /// Returns by how much events may be out of order and say nothing about one another.
    fn slack(&self) -> Span {
        self.lateness.max(LEAST)
    }

    /// Takes note of an event near the first one.
    fn back(&mut self, user: UserId) {
        if self.backing >= ALONE {
            return;
        }
        let place = self.backers.iter_mut().find(|known| known.is_none_or(|known| known == user));
        place.into_iter().for_each(|place| *place = Some(user));
        let all = self.backers.iter().all(Option::is_some);
        self.backing = if all { ALONE } else { self.backing + 1 };
    }

    /// Takes note of what an event says of how far time has come. What two thirds say is confirmed, unless it is a jump.
    fn follow(&mut self, time: EventTime, user: UserId) {
        if self.recent.push(time, user) {
            self.strides = self.strides.map(|stride| Span(stride.0 - stride.0 / 512));
        }
        let reached = self.recent.reached(self.doubt.crowd());
        if reached <= self.reached || reached > self.newest + self.step_allowed().max(JUMP) {
            return;
        }
        if self.reached > EventTime::MIN {
            self.is_usual(reached - self.reached);
        }
        self.reached = reached;
        if reached > self.newest {
            self.newest = reached;
            while self.ahead.earliest().is_some_and(|earliest| earliest <= self.mark()) {
                self.ahead.take_earliest();
            }
        }
    }

    /// Takes note of a step that is confirmed.
    fn is_usual(&mut self, step: Span) {
        let [longest, second] = self.strides;
        self.strides = [longest.max(step), second.max(step.min(longest))];
    }

    /// Goes to a time that is confirmed.
    fn move_to(&mut self, newest: EventTime, live: bool, alone: Option<UserId>) {
        self.is_usual(newest - self.newest);
        (self.newest, self.live, self.reached) = (newest, live, newest);
        self.recent.restart(newest, alone);
    }

    fn is_before_the_first(&self, time: EventTime) -> bool {
        self.backing < ALONE && time + self.slack() < self.newest
    }

    /// Takes note of an event beyond a step. Tells whether its time is confirmed by now.
    fn wait(&mut self, time: EventTime, user: UserId, live: bool) -> bool {
        self.ahead.add(time, user);
        while let Some(earliest) = self.ahead.earliest() {
            let step = earliest - self.newest;
            let jump = step > self.step_allowed().max(JUMP);
            if earliest <= self.mark() || self.ahead.confirms(jump, &self.doubt) {
                self.move_to(earliest.max(self.newest), live, None);
                self.ahead.take_earliest();
            } else if let Some((newest, usual)) = self.ahead.goes_on(step, &self.doubt) {
                self.move_to(newest, live, Some(user));
                self.is_usual(usual);
                self.ahead = Ahead::default();
            } else {
                break;
            }
            self.backing = ALONE;
        }
        time <= self.mark()
    }
}

#[cfg(test)]
mod tests;
