//! Decayed sums that can be read as of a moment that is past.
//!
//! Events come late, and partitions are not equally far: a count may be there before the impression that must not see it. So the newest counts
//! stay apart for a while, in panes by the time at which they became known:
//!
//! ```text
//!   settled: all up to `until`  |  older pane  |  newer pane  |  newest instant          known time ->
//!        before the horizon      `--- each with the newest time in it ---'
//! ```
//!
//! A read as of `t` adds up the panes whose newest time is strictly before `t`. It never sees what was known at `t` or later; of what was known
//! before, it may miss what shares a pane with something later, at most about twice the distance to the horizon. In the order of time it sees all.
//! The horizon is the lowest watermark of all partitions: no impression in time is before it, so what is older is settled for good. Settled sums
//! that hold something of `t` or later cannot be read as of `t`: nothing is known then.
//!
//! What was shown at `u` counts `2^((u - origin) / h)`, and the sum is scaled by `2^(-(t - origin) / h)` when it is read as of `t` (forward decay;
//! Cormode, Shkapenyuk, Srivastava and Xu, ICDE 2009): nothing has to be decayed as time goes on.

use serde::{Deserialize, Serialize};

use crate::time::{EventTime, Span};

/// The origin moves on before weights grow beyond `2^this`: sums of a pane stay far within an `f32`.
const MOST_HALF_LIVES: f64 = 32.0;
/// A pane that holds so many times what is added now goes into the next older one, whatever its time: beyond `2^24` an `f32` would not grow.
const FULL: f64 = (1 << 22) as f64;

/// `N` decayed sums.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(bound(
    serialize = "[f64; N]: Serialize, [f32; N]: Serialize",
    deserialize = "[f64; N]: Deserialize<'de>, [f32; N]: Deserialize<'de>"
))]
pub(super) struct Decayed<const N: usize> {
    origin: EventTime,
    settled: [f64; N],
    /// The newest time of what is settled.
    until: EventTime,
    older: Pane<N>,
    newer: Pane<N>,
    instant: Pane<N>,
}

/// What became known within a stretch of time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "[f32; N]: Serialize", deserialize = "[f32; N]: Deserialize<'de>"))]
struct Pane<const N: usize> {
    /// The newest time in it; [`EventTime::MIN`] where it is empty.
    newest: EventTime,
    sums: [f32; N],
}

/// How far event time has come, over all partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The newest plausible time of any partition.
    pub(super) newest: EventTime,
    /// The lowest watermark of those that have begun.
    pub(super) horizon: EventTime,
}

/// What is added to one of the sums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Added {
    /// Which sum.
    pub(super) place: usize,
    pub(super) amount: f64,
    /// The time of the impression: from it on it decays.
    pub(super) shown: EventTime,
    /// When it became known: nothing up to this time may see it.
    pub(super) known: EventTime,
}

impl<const N: usize> Pane<N> {
    const EMPTY: Self = Self { newest: EventTime::MIN, sums: [0.0; N] };

    fn is_empty(&self) -> bool {
        self.newest == EventTime::MIN
    }

    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::EMPTY)
    }

    fn join(&mut self, later: Self) {
        self.newest = self.newest.max(later.newest);
        self.sums.iter_mut().zip(later.sums).for_each(|(sum, more)| *sum += more);
    }

    fn largest(&self) -> f64 {
        self.sums.iter().fold(0.0, |largest, sum| f64::from(*sum).max(largest))
    }
}

impl<const N: usize> Decayed<N> {
    /// Nothing yet. Weights are one at `origin`.
    pub(super) fn new(origin: EventTime) -> Self {
        Self {
            origin,
            settled: [0.0; N],
            until: EventTime::MIN,
            older: Pane::EMPTY,
            newer: Pane::EMPTY,
            instant: Pane::EMPTY,
        }
    }

    pub(super) fn add(&mut self, half_life: Span, added: Added, progress: Progress) {
        self.correct(progress.newest);
        let mut half_lives = exponent(half_life, added.shown - self.origin);
        if half_lives > MOST_HALF_LIVES {
            self.move_origin(half_life, added.shown);
            half_lives = 0.0;
        }
        let weight = half_lives.exp2();
        let amount = added.amount * weight;
        if added.known <= self.until {
            self.settled[added.place] += amount;
            return;
        }
        if added.known > self.instant.newest {
            self.next_instant(added.known, FULL * weight, progress.horizon);
        }
        let panes = [&mut self.older, &mut self.newer, &mut self.instant];
        if let Some(pane) = panes.into_iter().find(|pane| added.known <= pane.newest) {
            pane.sums[added.place] += amount as f32;
        }
    }

    /// Returns the sums of what was known strictly before a time, as they have decayed until then; `None` where it cannot be told any more.
    pub(super) fn read(&self, half_life: Span, time: EventTime) -> Option<[f64; N]> {
        if self.until >= time {
            return None;
        }
        let mut sums = self.settled;
        for pane in [&self.older, &self.newer, &self.instant] {
            if pane.newest < time {
                sums.iter_mut().zip(pane.sums).for_each(|(sum, more)| *sum += f64::from(more));
            }
        }
        let worth = (-exponent(half_life, time - self.origin)).exp2();
        Some(sums.map(|sum| sum * worth))
    }

    /// Returns all sums, as they will have decayed at a time.
    pub(super) fn total(&self, half_life: Span, time: EventTime) -> [f64; N] {
        let mut all = *self;
        all.until = EventTime::MIN;
        for pane in [&mut all.older, &mut all.newer, &mut all.instant] {
            pane.newest = EventTime::MIN;
        }
        all.read(half_life, time).unwrap_or([0.0; N])
    }

    /// Closes the newest instant and begins one of this later time.
    fn next_instant(&mut self, time: EventTime, full: f64, horizon: EventTime) {
        let before = std::mem::replace(&mut self.instant, Pane { newest: time, ..Pane::EMPTY });
        if before.is_empty() {
            return;
        }
        if !self.newer.is_empty() && (self.older.newest < horizon || self.older.largest() >= full) {
            let older = std::mem::replace(&mut self.older, self.newer.take());
            self.settle(older);
        } else if self.newer.largest() >= full {
            let newer = self.newer.take();
            self.older.join(newer);
        }
        self.newer.join(before);
    }

    fn settle(&mut self, pane: Pane<N>) {
        self.until = self.until.max(pane.newest);
        self.settled.iter_mut().zip(pane.sums).for_each(|(sum, more)| *sum += f64::from(more));
    }

    /// Takes back what a clock said that proved wrong: nothing is newer than the newest plausible time.
    fn correct(&mut self, newest: EventTime) {
        self.origin = self.origin.min(newest);
        self.until = self.until.min(newest);
        for pane in [&mut self.older, &mut self.newer, &mut self.instant] {
            pane.newest = pane.newest.min(newest);
        }
    }

    fn move_origin(&mut self, half_life: Span, origin: EventTime) {
        let kept = (-exponent(half_life, origin - self.origin)).exp2();
        self.origin = origin;
        self.settled.iter_mut().for_each(|sum| *sum *= kept);
        for pane in [&mut self.older, &mut self.newer, &mut self.instant] {
            pane.sums.iter_mut().for_each(|sum| *sum = (f64::from(*sum) * kept) as f32);
        }
    }
}

/// Returns a length of time in half-lives, within what a power of two can be raised to.
fn exponent(half_life: Span, length: Span) -> f64 {
    (length.0 as f64 / half_life.0.max(1) as f64).clamp(-512.0, 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_LIFE: Span = Span(1000);

    fn at(known: i64) -> Added {
        Added { place: 0, amount: 1.0, shown: EventTime(known), known: EventTime(known) }
    }

    fn weight(at: i64, time: i64) -> f64 {
        (-((time - at) as f64) / 1000.0).exp2()
    }

    /// Reads never see what was known at their time or later, miss nothing in the order of time, and miss at most what is near a later
    /// one: compared with the whole log, under disorder up to the lateness.
    #[test]
    fn a_read_sees_nothing_of_its_time_or_later_and_all_that_is_clearly_older() {
        let mut state = 7_u64;
        let mut random = move |below: i64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % below as u64) as i64
        };
        for lateness in [0, 5, 200, 3000] {
            let mut sums = Decayed::<2>::new(EventTime(0));
            let mut log: Vec<i64> = Vec::new();
            let (mut newest, mut missed) = (0, 0);
            for now in (0..40_000).step_by(7) {
                let late = if random(3) == 0 { random(lateness + 1) } else { 0 };
                let time = (now - late).max(0);
                let horizon = EventTime(newest - lateness);
                let read = sums.read(HALF_LIFE, EventTime(time));
                let of = |range: &dyn Fn(i64) -> bool| -> f64 {
                    log.iter().filter(|k| range(**k)).map(|k| weight(*k, time)).sum()
                };
                let before = of(&|known| known < time);
                let settled = of(&|known| known < time - 2 * lateness - 20);
                let found = read.expect("a time that is not late can be read")[0];
                assert!(found <= before * (1.0 + 1e-5) + 1e-9, "{found} of {before}");
                assert!(found >= settled * (1.0 - 1e-5) - 1e-9, "{found}, settled {settled}");
                if time > newest {
                    assert!((found - before).abs() <= 1e-5 * before + 1e-9, "{found} {before}");
                }
                missed += i32::from(found < before * 0.999);
                newest = newest.max(time);
                sums.add(HALF_LIFE, at(time), Progress { newest: EventTime(newest), horizon });
                log.push(time);
            }
            assert!(lateness < 7 || missed > 0, "the panes were never needed");
        }
    }

    #[test]
    fn what_belongs_together_does_not_see_each_other() {
        let mut sums = Decayed::<1>::new(EventTime(0));
        let progress = Progress { newest: EventTime(100), horizon: EventTime(90) };
        sums.add(HALF_LIFE, at(50), progress);
        let before = sums.read(HALF_LIFE, EventTime(100)).unwrap();
        for _ in 0..5 {
            sums.add(HALF_LIFE, at(100), progress);
            assert_eq!(sums.read(HALF_LIFE, EventTime(100)), Some(before));
        }
        assert!(sums.read(HALF_LIFE, EventTime(101)).unwrap()[0] > 5.0);
    }

    #[test]
    fn what_is_settled_cannot_be_read_as_of_a_time_before() {
        let mut sums = Decayed::<1>::new(EventTime(0));
        for time in [1000, 2000, 3000, 4000] {
            let horizon = EventTime(time);
            sums.add(HALF_LIFE, at(time), Progress { newest: horizon, horizon });
        }
        assert_eq!(sums.read(HALF_LIFE, EventTime(900)), None);
        assert!(sums.read(HALF_LIFE, EventTime(4001)).is_some());
    }

    #[test]
    fn a_clock_that_proved_wrong_leaves_nothing_behind() {
        let year = 365 * 24 * 3_600_000;
        let mut sums = Decayed::<1>::new(EventTime(year));
        sums.add(
            HALF_LIFE,
            at(year),
            Progress { newest: EventTime(year), horizon: EventTime::MIN },
        );
        let progress = Progress { newest: EventTime(5000), horizon: EventTime::MIN };
        sums.add(HALF_LIFE, at(5000), progress);
        let read = sums.read(HALF_LIFE, EventTime(5001)).unwrap()[0];
        assert!((1.9..=2.0).contains(&read), "{read}");
    }

    #[test]
    fn old_counts_fade_without_end_and_without_overflow() {
        let mut sums = Decayed::<1>::new(EventTime(0));
        for step in 0..200_i64 {
            let time = EventTime(step * 100_000);
            sums.add(HALF_LIFE, at(time.0), Progress { newest: time, horizon: time });
            let read = sums.read(HALF_LIFE, time + Span(1)).unwrap()[0];
            assert!((read - 1.0).abs() < 1e-3, "{read}");
        }
        assert!(sums.total(HALF_LIFE, EventTime::MAX)[0] < 1e-100);
    }
}
