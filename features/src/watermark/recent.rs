//! The times of the newest events, of which most are right.

use serde::{Deserialize, Serialize};

use crate::ids::UserId;
use crate::time::EventTime;

/// So many are known.
const KNOWN: usize = 32;

/// The newest events' times. Of events of one user in a row the last counts: nobody outnumbers others by saying the same more often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recent {
    times: [EventTime; KNOWN],
    /// How many there are.
    count: usize,
    /// Where the newest is.
    place: usize,
    last: Option<UserId>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { times: [EventTime::MIN; KNOWN], count: 0, place: 0, last: None }
    }
}

impl Recent {
    /// Takes note of an event. Tells whether it is of another user than the one before.
    pub(super) fn push(&mut self, time: EventTime, user: UserId) -> bool {
        let turn = self.last != Some(user);
        if turn {
            self.last = Some(user);
            self.place = (self.place + 1) % KNOWN;
            self.count = (self.count + 1).min(KNOWN);
        }
        self.times[self.place] = time;
        turn
    }

    /// Returns the time that two thirds of up to `most` of the newest events have reached.
    ///
    /// # Panics
    /// When there is none.
    pub(super) fn reached(&self, most: usize) -> EventTime {
        let count = most.min(self.count);
        let mut newest = [EventTime::MIN; KNOWN];
        for (back, time) in newest[..count].iter_mut().enumerate() {
            *time = self.times[(self.place + KNOWN - back) % KNOWN];
        }
        *newest[..count].select_nth_unstable((count - 1) / 3).1
    }

    /// Begins anew where time is confirmed to be: by the last event of a user who is alone, or else by nobody, so that the next event is the
    /// second one.
    pub(super) fn restart(&mut self, time: EventTime, alone: Option<UserId>) {
        *self = Self { last: alone, ..Self::default() };
        (self.times[0], self.count) = (time, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_most_have_reached_is_of_the_newest_turns() {
        let mut recent = Recent::default();
        let mut all: Vec<EventTime> = Vec::new();
        for event in 0..500i64 {
            let (time, user) = (EventTime(event * 7919 % 1000), UserId(event.cast_unsigned() / 3));
            assert_eq!(recent.push(time, user), event % 3 == 0);
            if event % 3 != 0 {
                all.pop();
            }
            all.push(time);
            for most in [1, 2, 7, 31, KNOWN] {
                let mut newest: Vec<EventTime> = all.iter().rev().take(most).copied().collect();
                newest.sort_unstable();
                assert_eq!(recent.reached(most), newest[(newest.len() - 1) / 3], "{event}: {most}");
            }
        }
        recent.restart(EventTime(5), None);
        assert!(recent.push(EventTime(9), UserId(166)));
        assert_eq!(recent.reached(7), EventTime(5));
        recent.restart(EventTime(5), Some(UserId(1)));
        assert!(!recent.push(EventTime(9), UserId(1)));
        assert_eq!(recent.reached(7), EventTime(9));
    }
}
