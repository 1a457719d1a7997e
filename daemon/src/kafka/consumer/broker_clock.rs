//! When a record arrived in Kafka, by the own clock, from the stamps of a broker whose clock may be another.
//!
//! ```text
//! polled - stamp = (own clock - broker's clock) + how long the record waited in Kafka
//! ```
//!
//! The wait is never below nothing, and while a partition is read up now and then next to nothing. So the least difference of then is that of the
//! clocks, and what is above it was waited: the minimum filter of one-way delays (RFC 5905 takes the offset of the sample with the least delay for the same reason).

use sluice_features::time::{EventTime, Span};

/// How long the least difference counts: one to two of these. A broker's clock that is set back looks like records that wait for so long.
const WINDOW: Span = Span::seconds(30);

/// The least difference of late between the own clock and the stamps of one partition.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BrokerClock {
    /// In this window, and in the one before.
    least: [Option<Span>; 2],
    /// When this window began.
    since: Option<EventTime>,
}

impl BrokerClock {
    /// Returns when a record arrived that the broker dated `stamp`, and that was polled just now.
    pub(super) fn arrived(
        &mut self,
        stamp: EventTime,
        polled: EventTime,
        is_read_up: bool,
    ) -> EventTime {
        let difference = polled - stamp;
        if is_read_up {
            // The own clock may have been set back.
            if self.since.is_none_or(|since| polled - since >= WINDOW || polled < since) {
                self.least = [None, self.least[0]];
                self.since = Some(polled);
            }
            let least = &mut self.least[0];
            *least = Some(least.map_or(difference, |least| least.min(difference)));
        }
        let least = self.least.iter().flatten().min().map_or(0, |least| least.0);
        polled - Span(difference.0.saturating_sub(least).max(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_796_033_294_000;

    /// How long records waited that were polled after so many milliseconds, with a broker's clock that is so far ahead of ours.
    fn waits(clock: &mut BrokerClock, ahead: i64, waited: &[(i64, i64)]) -> Vec<i64> {
        let wait = |&(at, waited): &(i64, i64)| {
            let polled = EventTime(NOW + at);
            (polled - clock.arrived(EventTime(polled.0 - waited + ahead), polled, true)).0
        };
        waited.iter().map(wait).collect()
    }

    #[test]
    fn a_broker_whose_clock_is_another_ages_nothing_and_what_waits_grows_older() {
        for ahead in [0, 200, -200, 3_600_000, -3_600_000] {
            let mut clock = BrokerClock::default();
            let waited = [(0, 2), (10, 3), (20, 1), (5_000, 4_001), (5_010, 1)];
            assert_eq!(waits(&mut clock, ahead, &waited), [0, 1, 0, 4_000, 0], "{ahead}");
            // After a minute without a record, stopped meanwhile, all that waited is old.
            let waited = [(65_000, 60_001), (65_001, 59_001), (65_002, 1)];
            assert_eq!(waits(&mut clock, ahead, &waited), [60_000, 59_000, 0], "{ahead}");
        }
    }

    #[test]
    fn what_waits_for_minutes_because_much_is_waiting_is_no_clock() {
        let mut clock = BrokerClock::default();
        let polled = |at: i64| EventTime(NOW + at * 1_000);
        let age = |clock: &mut BrokerClock, at, waited: i64, is_read_up| {
            let stamp = polled(at) - Span(waited);
            (polled(at) - clock.arrived(stamp, polled(at), is_read_up)).0
        };
        assert_eq!(age(&mut clock, 0, 700, false), 700, "nothing is known: the stamp counts");
        assert_eq!(age(&mut clock, 0, -700, false), 0, "but nothing comes from the future");
        assert_eq!(age(&mut clock, 1, 2, true), 0);
        for at in 2..600 {
            assert_eq!(age(&mut clock, at, 100_002, false), 100_000, "{at}");
        }
        assert_eq!(age(&mut clock, 600, 2, true), 0);
    }

    #[test]
    fn a_clock_that_is_set_is_followed() {
        let mut clock = BrokerClock::default();
        assert_eq!(waits(&mut clock, 0, &[(0, 1), (10, 1)]), [0, 0]);
        // Forward at once, back after two windows.
        assert_eq!(waits(&mut clock, 500, &[(20, 1), (30, 1)]), [0, 0]);
        assert_eq!(waits(&mut clock, 0, &[(40, 1), (31_000, 1), (61_000, 1)]), [500, 500, 0]);
        // Our own, back by an hour: the broker's is ahead of it.
        assert_eq!(waits(&mut clock, 3_600_000, &[(61_000 - 3_600_000, 1)]), [0]);
    }

    #[test]
    fn absurd_stamps_do_not_overflow() {
        let mut clock = BrokerClock::default();
        for stamp in [i64::MIN, -1, 0, i64::MAX, NOW] {
            let arrived = clock.arrived(EventTime(stamp), EventTime(NOW), stamp != 0);
            assert!(arrived <= EventTime(NOW), "{stamp}: {arrived:?}");
        }
    }
}
