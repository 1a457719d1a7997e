//! How far the event time of a partition has come, and which times are to be believed about that.
//!
//! A sender's clock may be wrong by minutes or years, and one wrong clock must not close a window, empty a counter or move anything else. So a time
//! that would move a partition's event time far has to be plausible:
//!
//! | the time | is believed |
//! |---|---|
//! | at most [`JUMP`] beyond the newest, or four times the longest step of late that others followed: few events come far apart | at once |
//! | the same of the user who brought the newest, while others still come before that | where it is no more than that beyond the newest of the others |
//! | further ahead, of a stream whose newest record, as this one, came within [`JUMP`] of its own time | at once: the receiver's clock agrees |
//! | further ahead otherwise (a log of the past, a stream that was silent) | when events of [`CONFIRMED`] users have come beyond that mark and none in time between them; then the earliest of them counts, and those that are no jump from it |
//! | the first of a partition | at once, but windows stay open until events of [`CONFIRMED`]` - 1` other users have come near it, or [`ALONE`] of whomever; one far before it takes its place |
//!
//! A partition that is read up and silent lets the clock decide: [`Watermark::settle`].

use serde::{Deserialize, Serialize};

use crate::ids::UserId;
use crate::time::{EventTime, Span};

/// A step of event time that has to be confirmed.
pub const JUMP: Span = Span::seconds(3600);
/// So many users must agree about a jump: the one who jumped and three others.
pub const CONFIRMED: usize = 4;
/// So many events near the first one confirm it where they are of fewer users.
pub const ALONE: u16 = 32;

/// Events that are no older than this beside the newest one do not contradict it, however small the lateness.
const NEAR: Span = Span::seconds(60);

/// How far the event time of one partition has certainly come: the newest plausible time minus the allowed lateness.
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
    /// The longest step that the newest time has made and others have followed; a 512th less with each event.
    stride: Span,
    /// Whose event is the newest, and the longest step that it has made; nobody has followed yet.
    mover: Option<UserId>,
    step: Span,
    /// The newest time of other users.
    others: EventTime,
    /// Others still come before the newest time.
    contradicted: bool,
    /// Times beyond the mark, each of another user.
    ahead: [Option<(UserId, EventTime)>; CONFIRMED],
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
            stride: Span::ZERO,
            mover: None,
            step: Span::ZERO,
            others: EventTime::MIN,
            contradicted: false,
            ahead: [None; CONFIRMED],
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
        if self.newest == EventTime::MIN || self.is_far_before_the_first(time) {
            *self = Self { newest: time, live, mover: Some(user), ..Self::new(self.lateness) };
            self.backers[0] = Some(user);
            self.backing = if live { ALONE } else { 1 };
            return true;
        }
        if time > self.mark() && !(live && self.live) {
            return self.jump(time, user, live);
        }
        if time + self.lateness >= self.newest {
            self.ahead = [None; CONFIRMED];
        }
        if time + JUMP >= self.newest {
            self.back(user);
        }
        self.follow(time, user, live);
        true
    }

    /// Believes a jump that waits: the partition is read up, nothing has come for a while and the clock has passed it.
    pub fn settle(&mut self) {
        self.backing = ALONE;
        let ahead = self.ahead.iter().flatten().map(|(_, time)| *time);
        if let Some(time) = ahead.min() {
            self.move_to(time.max(self.newest), self.live);
            self.ahead = [None; CONFIRMED];
        }
    }

    /// Tells whether a jump waits to be confirmed.
    pub fn is_jumping(&self) -> bool {
        self.ahead[0].is_some()
    }

    /// Returns the newest plausible time, [`EventTime::MIN`] before the first event.
    pub fn newest(&self) -> EventTime {
        self.newest
    }

    /// Returns the watermark, [`EventTime::MIN`] until the first event is confirmed.
    pub fn value(&self) -> EventTime {
        if self.backing < ALONE { EventTime::MIN } else { self.newest - self.lateness }
    }

    /// Returns the time beyond which a jump begins.
    fn mark(&self) -> EventTime {
        let from = if self.contradicted { self.others } else { self.newest };
        from + self.reach()
    }

    /// Returns the longest step that is no jump.
    fn reach(&self) -> Span {
        JUMP.max(Span(self.stride.0.saturating_mul(4)))
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

    /// Takes note of an event that is no jump. A step counts among those that are usual once another user has followed it.
    fn follow(&mut self, time: EventTime, user: UserId, live: bool) {
        let other = self.mover != Some(user);
        self.stride = Span(self.stride.0 - self.stride.0 / 512);
        if other && time + self.lateness.max(NEAR) >= self.newest {
            self.stride = self.stride.max(self.step);
            (self.step, self.contradicted) = (Span::ZERO, false);
        } else if other && time + self.reach() >= self.newest {
            // One that is further behind is late, or of a log that is not in order: it says nothing of the newest.
            self.others = self.others.max(time);
            (self.step, self.contradicted) = (Span::ZERO, true);
        }
        if time > self.newest {
            if other {
                self.others = self.newest;
            }
            self.step = self.step.max(time - self.newest);
            (self.newest, self.live, self.mover) = (time, live, Some(user));
        }
    }

    /// Goes to a time that is confirmed.
    fn move_to(&mut self, newest: EventTime, live: bool) {
        self.stride = self.stride.max(newest - self.newest);
        (self.newest, self.live, self.others) = (newest, live, newest);
        (self.mover, self.step, self.contradicted) = (None, Span::ZERO, false);
    }

    fn is_far_before_the_first(&self, time: EventTime) -> bool {
        self.backing < ALONE && time + JUMP < self.newest
    }

    fn jump(&mut self, time: EventTime, user: UserId, live: bool) -> bool {
        for place in &mut self.ahead {
            match place {
                Some((known, earliest)) if *known == user => {
                    *earliest = time.min(*earliest);
                    return false;
                }
                Some(_) => {}
                None => {
                    *place = Some((user, time));
                    break;
                }
            }
        }
        if self.ahead.iter().any(Option::is_none) {
            return false;
        }
        // The earliest is believed, and whatever is no jump from there.
        let mut times = self.ahead.map(|ahead| ahead.map_or(time, |(_, time)| time));
        times.sort_unstable();
        self.move_to(times[0], live);
        for time in times {
            if time <= self.mark() {
                self.move_to(time, live);
            }
        }
        self.backing = ALONE;
        self.ahead = [None; CONFIRMED];
        time <= self.mark()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    /// Long after every record: the log of a file.
    const PLAYED: EventTime = EventTime(4000 * DAY);

    fn begun(lateness: Span) -> Watermark {
        let mut watermark = Watermark::new(lateness);
        for user in 0..4 {
            let time = EventTime(1000 * DAY + user);
            assert!(watermark.observe(time, UserId(user as u64), PLAYED));
        }
        watermark
    }

    fn later(span: i64) -> EventTime {
        EventTime(1000 * DAY + 3 + span)
    }

    #[test]
    fn a_watermark_never_goes_back_and_lags_by_the_lateness() {
        let mut watermark = begun(Span::seconds(5));
        assert_eq!(watermark.value(), later(-5000));
        assert!(watermark.observe(later(-10_000), UserId(1), PLAYED));
        assert_eq!(watermark.value(), later(-5000));
        assert!(watermark.observe(later(HOUR), UserId(1), PLAYED));
        assert_eq!(watermark.value(), later(HOUR - 5000));
    }

    #[test]
    fn a_jump_waits_for_three_other_users_and_an_absurd_one_does_not_count() {
        let mut watermark = begun(Span::ZERO);
        let before = watermark.value();
        assert!(!watermark.observe(later(365 * DAY), UserId(1), PLAYED));
        for _ in 0..10 {
            assert!(!watermark.observe(later(366 * DAY), UserId(1), PLAYED), "the same user");
        }
        assert!(!watermark.observe(later(DAY), UserId(2), PLAYED));
        assert!(!watermark.observe(later(DAY + 5), UserId(3), PLAYED));
        assert!(watermark.is_jumping() && watermark.value() == before);
        assert!(watermark.observe(later(DAY + 9), UserId(4), PLAYED));
        assert_eq!((watermark.value(), watermark.is_jumping()), (later(DAY + 9), false));
    }

    #[test]
    fn wrong_clocks_among_right_ones_never_add_up_to_a_jump() {
        let mut watermark = begun(Span::seconds(60));
        for step in 1..1000 {
            assert!(!watermark.observe(later(100 * DAY), UserId(step as u64), PLAYED));
            assert!(watermark.observe(later(step * 1000 - 30_000), UserId(3), PLAYED));
            assert!(watermark.observe(later(step * 1000), UserId(9), PLAYED));
        }
        assert_eq!(watermark.newest(), later(999_000));
    }

    #[test]
    fn where_few_events_come_far_apart_a_step_like_those_before_it_is_no_jump() {
        let mut watermark = begun(Span::ZERO);
        for user in 1..5 {
            let time = later(user * 5 * HOUR);
            assert_eq!(watermark.observe(time, UserId(user as u64), PLAYED), user == 4);
        }
        // Each user comes some hours after the one before and does a hundred things.
        let mut time = 20 * HOUR;
        for user in 5..200 {
            time += 3 * HOUR + user % 7 * HOUR;
            for step in 0..100 {
                let believed = watermark.observe(later(time + step), UserId(user as u64), PLAYED);
                assert!(believed, "{user}");
            }
        }
        assert!(!watermark.observe(later(time + 365 * DAY), UserId(1), PLAYED));
        // And after an hour of an event a second it is one again.
        for second in 0..3600 {
            assert!(watermark.observe(later(time + second * 1000), UserId(2), PLAYED));
        }
        assert!(!watermark.observe(later(time + 3 * HOUR), UserId(1), PLAYED));
    }

    #[test]
    fn a_live_stream_believes_a_time_that_its_record_confirms() {
        let mut watermark = Watermark::new(Span::ZERO);
        assert!(watermark.observe(later(0), UserId(1), later(20)));
        assert_eq!(watermark.value(), later(0), "one event is enough");
        assert!(watermark.observe(later(9 * HOUR), UserId(1), later(9 * HOUR + 5)));
        assert_eq!(watermark.value(), later(9 * HOUR));
        // An event that claims now, in a log of the past.
        let mut past = begun(Span::ZERO);
        assert!(!past.observe(PLAYED, UserId(1), PLAYED));
        assert_eq!(past.newest(), later(0));
    }

    #[test]
    fn a_first_event_of_the_far_future_gives_way() {
        let mut watermark = Watermark::new(Span::ZERO);
        assert!(watermark.observe(later(365 * DAY), UserId(1), PLAYED));
        for step in 0..4 {
            assert_eq!(watermark.value(), EventTime::MIN);
            assert!(watermark.observe(later(step), UserId(step as u64), PLAYED));
        }
        assert_eq!(watermark.value(), later(3));
        // However often its user says so; and where there is only one user, it is believed in the end.
        for wrong in [2, i64::from(ALONE) - 1, i64::from(ALONE)] {
            let mut watermark = Watermark::new(Span::ZERO);
            for step in 0..wrong {
                assert!(watermark.observe(later(365 * DAY + step), UserId(1), PLAYED));
            }
            let believed = watermark.value() > EventTime::MIN;
            assert_eq!(believed, wrong == i64::from(ALONE));
            watermark.observe(later(0), UserId(2), PLAYED);
            assert_eq!(watermark.newest() == later(0), !believed);
        }
    }

    /// One user among many whose clock is ahead by more and more: at most an hour beyond the others.
    #[test]
    fn one_user_alone_moves_time_no_further_than_an_hour() {
        for growth in [1.0, 1.1, 1.9, 3.0, 10.0] {
            let (mut watermark, mut ahead) = (begun(Span::seconds(300)), 50.0f64);
            for second in 1..2000 {
                let good = UserId(10 + second as u64 % 50);
                assert!(watermark.observe(later(second * 1000), good, PLAYED));
                if second % 7 == 0 {
                    let time = later(second * 1000 + (ahead * 60_000.0) as i64);
                    watermark.observe(time, UserId(1), PLAYED);
                    ahead = (ahead * growth).min(1e6);
                }
                assert!(watermark.newest() <= later(second * 1000 + HOUR), "{growth}: {second}");
            }
        }
    }

    /// A log of two users, one after the other: what is no later than the newest is no jump, and time goes on with either.
    #[test]
    fn events_far_behind_the_newest_hold_nothing_up() {
        let mut watermark = Watermark::new(Span::ZERO);
        for user in [1, 2] {
            for minute in 0..5000 {
                let time = later(minute * MINUTE);
                assert!(watermark.observe(time, UserId(user), PLAYED), "{user}: {minute}");
            }
        }
        assert!(watermark.observe(later(DAY), UserId(2), PLAYED));
        for minute in 5000..6000 {
            assert!(watermark.observe(later(minute * MINUTE), UserId(1), PLAYED), "{minute}");
        }
        assert_eq!(watermark.value(), later(5999 * MINUTE));
    }

    /// The same where nobody comes between its events: each goes an hour at most.
    #[test]
    fn steps_that_nobody_has_followed_are_not_what_is_usual() {
        let mut watermark = begun(Span::ZERO);
        assert!(watermark.observe(later(50 * MINUTE), UserId(9), PLAYED));
        assert!(!watermark.observe(later(150 * MINUTE), UserId(9), PLAYED));
        assert!(!watermark.observe(later(400 * MINUTE), UserId(9), PLAYED));
        assert_eq!(watermark.newest(), later(50 * MINUTE));
    }

    #[test]
    fn a_silent_partition_that_is_read_up_lets_the_clock_decide() {
        let mut watermark = begun(Span::ZERO);
        assert!(!watermark.observe(later(9 * HOUR), UserId(7), PLAYED));
        watermark.settle();
        assert_eq!(watermark.value(), later(9 * HOUR));
        let mut single = Watermark::new(Span::ZERO);
        assert!(single.observe(later(0), UserId(1), PLAYED));
        single.settle();
        assert_eq!(single.value(), later(0));
    }
}
