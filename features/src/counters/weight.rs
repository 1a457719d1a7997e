//! What a count is worth by when it was shown: powers of two that are worked out once for all sums of a half-life.

use serde::{Deserialize, Serialize};

use crate::time::{EventTime, Span};

/// Half-lives of an epoch: within it weights stay below `2^32`, so that sums of them stay far within an `f32`.
const HALF_LIVES: i64 = 32;
/// Powers beyond this and its inverse are taken for these: nothing is left of what was counted so long ago.
const MOST: f64 = 480.0;

/// A stretch of 32 half-lives. Sums of different epochs differ by an exact power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Epoch(i32);

/// The weight `2^(t / h)` of what is shown at `t`, for a half-life `h`: in its epoch, from 1 to below `2^32`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    pub(super) epoch: Epoch,
    in_epoch: f64,
}

impl Epoch {
    /// Before all others, for sums of nothing.
    pub(super) const FIRST: Self = Self(i32::MIN);

    fn of(half_life: Span, time: EventTime) -> Self {
        let epoch = time.0.div_euclid(length(half_life));
        Self(epoch.clamp(i32::MIN.into(), i32::MAX.into()) as i32)
    }

    /// Returns what turns sums of this epoch into those of another one.
    pub(super) fn to(self, other: Self) -> f64 {
        let epochs = i64::from(self.0) - i64::from(other.0);
        if epochs == 0 { 1.0 } else { power((epochs * HALF_LIVES) as f64) }
    }

    /// Returns how many half-lives a time lies beyond its beginning: fewer than 32 in it, but at the ends of time.
    fn half_lives(self, half_life: Span, time: EventTime) -> f64 {
        let begin = i64::from(self.0).saturating_mul(length(half_life));
        time.0.saturating_sub(begin) as f64 / half_life.0.max(1) as f64
    }
}

impl Weight {
    /// Returns what counts of a time weigh.
    pub(super) fn of(half_life: Span, time: EventTime) -> Self {
        let epoch = Epoch::of(half_life, time);
        Self { epoch, in_epoch: power(epoch.half_lives(half_life, time)) }
    }

    /// Returns the weight in sums of an epoch.
    pub(super) fn within(self, epoch: Epoch) -> f64 {
        self.in_epoch * self.epoch.to(epoch)
    }
}

/// Returns what counts of `wrong` in sums of an epoch are to be multiplied by so that they weigh there in those of `to` what they would
/// weigh at the time that is right.
pub(super) fn correction(
    half_life: Span,
    (epoch, wrong): (Epoch, EventTime),
    (to, right): (Epoch, EventTime),
) -> f64 {
    power(to.half_lives(half_life, right) - epoch.half_lives(half_life, wrong))
}

fn power(half_lives: f64) -> f64 {
    half_lives.clamp(-MOST, MOST).exp2()
}

fn length(half_life: Span) -> i64 {
    half_life.0.max(1).saturating_mul(HALF_LIVES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_power_of_two_in_whatever_epoch() {
        for half_life in [1000, 7_777, 3 * 86_400_000].map(Span) {
            for time in [-5, 0, 1, 31_999, 32_000, 1_650_000_000_123].map(EventTime) {
                let now = Weight::of(half_life, time);
                assert!((1.0..4_294_967_296.0).contains(&now.in_epoch));
                for half_lives in [-70, -32, -1, 0, 1, 31, 33, 400] {
                    let then = Weight::of(half_life, time + Span(half_lives * half_life.0));
                    let wanted = (half_lives as f64).exp2();
                    for epoch in [now.epoch, then.epoch] {
                        let found = then.within(epoch) / now.within(epoch);
                        assert!((found / wanted - 1.0).abs() < 1e-9, "{found} {wanted}");
                    }
                }
            }
        }
    }

    #[test]
    fn absurd_times_and_half_lives_stay_finite() {
        let times = [EventTime::MIN, EventTime(0), EventTime::MAX];
        for (half_life, time) in [Span(0), Span(1), Span(i64::MAX)].into_iter().zip(times) {
            for other in times.map(|other| Weight::of(half_life, other)) {
                let weight = Weight::of(half_life, time).within(other.epoch);
                assert!(weight.is_finite() && weight > 0.0, "{weight}");
            }
        }
    }
}
