//! A share of one core, measured by the clock.
//!
//! Time is earned at `share` seconds a second, up to one [`BURST`], and spent as it is used. Work begins while anything is left, so what
//! is overdrawn by the last piece is paid back first.

use std::time::Duration;

/// The most that is earned ahead, as real time: idleness does not save up for long.
const BURST: Duration = Duration::from_secs(1);

/// What may be spent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    share: f64,
    /// Seconds that are left; below 0 when overdrawn.
    left: f64,
    earned: Duration,
}

impl Budget {
    /// Creates a budget that has earned nothing. `now` is a time of the clock that measures ([`crate::clock::Clock::steady`]).
    pub(super) fn new(share: f64, now: Duration) -> Self {
        Self { share, left: 0.0, earned: now }
    }

    /// Earns up to now, and tells whether anything is left.
    pub(super) fn allows(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.earned).as_secs_f64();
        self.earned = now;
        self.left = (self.left + self.share * passed).min(self.share * BURST.as_secs_f64());
        self.left > 0.0
    }

    /// Spends.
    pub(super) fn spend(&mut self, time: Duration) {
        self.left -= time.as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_share_is_spent() {
        let (mut budget, mut spent) = (Budget::new(0.1, Duration::ZERO), Duration::ZERO);
        let (mut now, piece) = (Duration::ZERO, Duration::from_millis(7));
        while now < Duration::from_secs(20) {
            now += Duration::from_millis(1);
            if budget.allows(now) {
                now += piece;
                spent += piece;
                budget.spend(piece);
            }
        }
        let share = spent.as_secs_f64() / now.as_secs_f64();
        assert!((0.099..0.1005).contains(&share), "{share}");
    }

    #[test]
    fn idleness_saves_up_for_a_second_only() {
        let mut budget = Budget::new(0.5, Duration::ZERO);
        assert!(!budget.allows(Duration::ZERO), "nothing is earned yet");
        let late = Duration::from_secs(1000);
        let mut pieces = 0;
        while budget.allows(late) {
            budget.spend(Duration::from_millis(125));
            pieces += 1;
        }
        assert_eq!(pieces, 4);
    }
}
