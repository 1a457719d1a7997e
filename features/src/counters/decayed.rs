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
//! What was shown at `u` counts `2^(u / h)`, and the sum is divided by `2^(t / h)` when it is read as of `t` (forward decay; Cormode, Shkapenyuk,
//! Srivastava and Xu, ICDE 2009): nothing has to be decayed as time goes on, and all sums of a half-life share the two powers ([`Weight`]).

use serde::{Deserialize, Serialize};

use super::weight::{Epoch, Weight, correction};
use crate::time::{EventTime, Span};

/// A pane that holds so many times what is added now goes into the next older one, whatever its time: beyond `2^24` an `f32` would not grow.
const FULL: f64 = (1 << 22) as f64;

/// `N` decayed sums.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(bound(
    serialize = "[f64; N]: Serialize, [f32; N]: Serialize",
    deserialize = "[f64; N]: Deserialize<'de>, [f32; N]: Deserialize<'de>"
))]
pub(super) struct Decayed<const N: usize> {
    /// The epoch of the weights: that of the latest time from which anything decays.
    epoch: Epoch,
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
    /// The weight of the time of the impression: from then on it decays.
    pub(super) shown: Weight,
    /// When it became known: nothing up to this time may see it.
    pub(super) known: EventTime,
}

/// The sums of what was known strictly before a time, as they have decayed until then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'a, const N: usize> {
    sums: &'a Decayed<N>,
    /// Of the panes, the oldest first.
    known: [bool; 3],
    scale: f64,
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

    fn scale(&mut self, by: f64) {
        self.sums.iter_mut().for_each(|sum| *sum = (f64::from(*sum) * by) as f32);
    }
}

impl<const N: usize> Reading<'_, N> {
    /// Returns one of the sums.
    pub(super) fn sum(&self, place: usize) -> f64 {
        let Decayed { settled, older, newer, instant, .. } = self.sums;
        let of =
            |pane: &Pane<N>, known: bool| if known { f64::from(pane.sums[place]) } else { 0.0 };
        let [first, second, third] = self.known;
        let sum = settled[place] + of(older, first) + of(newer, second) + of(instant, third);
        sum * self.scale
    }
}

impl<const N: usize> Decayed<N> {
    /// Nothing yet.
    pub(super) const fn new() -> Self {
        Self {
            epoch: Epoch::FIRST,
            settled: [0.0; N],
            until: EventTime::MIN,
            older: Pane::EMPTY,
            newer: Pane::EMPTY,
            instant: Pane::EMPTY,
        }
    }

    pub(super) fn add(&mut self, half_life: Span, added: Added, progress: Progress) {
        if self.until.max(self.instant.newest) > progress.newest {
            self.correct(half_life, progress.newest);
        }
        if added.shown.epoch > self.epoch {
            self.rescale(added.shown.epoch);
        }
        let weight = added.shown.within(self.epoch);
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

    /// Reads what was known strictly before a time, whose weight is `now`; `None` where it cannot be told any more.
    pub(super) fn read(&self, now: Weight, time: EventTime) -> Option<Reading<'_, N>> {
        let known = [&self.older, &self.newer, &self.instant].map(|pane| pane.newest < time);
        (self.until < time).then(|| self.reading(now, known))
    }

    /// Reads all sums as they will have decayed at a time with this weight.
    pub(super) fn total(&self, now: Weight) -> Reading<'_, N> {
        self.reading(now, [true; 3])
    }

    fn reading(&self, now: Weight, known: [bool; 3]) -> Reading<'_, N> {
        Reading { sums: self, known, scale: now.within(self.epoch).recip() }
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

    /// Takes back what a clock said that proved wrong: nothing is newer than the newest plausible time, and weighs more than what is of it.
    #[cold]
    fn correct(&mut self, half_life: Span, newest: EventTime) {
        let (from, to) = (self.epoch, self.epoch.min(Weight::of(half_life, newest).epoch));
        let by = |time: EventTime| {
            if time > newest {
                correction(half_life, (from, time), (to, newest))
            } else {
                from.to(to)
            }
        };
        let settled = by(self.until);
        self.settled.iter_mut().for_each(|sum| *sum *= settled);
        self.until = self.until.min(newest);
        for pane in [&mut self.older, &mut self.newer, &mut self.instant] {
            pane.scale(by(pane.newest));
            pane.newest = pane.newest.min(newest);
        }
        self.epoch = to;
    }

    fn rescale(&mut self, epoch: Epoch) {
        let by = self.epoch.to(epoch);
        self.epoch = epoch;
        self.settled.iter_mut().for_each(|sum| *sum *= by);
        [&mut self.older, &mut self.newer, &mut self.instant]
            .into_iter()
            .for_each(|pane| pane.scale(by));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_LIFE: Span = Span(1000);

    fn now(time: i64) -> Weight {
        Weight::of(HALF_LIFE, EventTime(time))
    }

    fn at(known: i64) -> Added {
        Added { place: 0, amount: 1.0, shown: now(known), known: EventTime(known) }
    }

    /// Returns the first sum as of a time.
    fn read<const N: usize>(sums: &Decayed<N>, time: i64) -> Option<f64> {
        sums.read(now(time), EventTime(time)).map(|read| read.sum(0))
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
            let mut sums = Decayed::<2>::new();
            let mut log: Vec<i64> = Vec::new();
            let (mut newest, mut missed) = (0, 0);
            for now in (0..40_000).step_by(7) {
                let late = if random(3) == 0 { random(lateness + 1) } else { 0 };
                let time = (now - late).max(0);
                let horizon = EventTime(newest - lateness);
                let found = read(&sums, time);
                let of = |range: &dyn Fn(i64) -> bool| -> f64 {
                    log.iter().filter(|k| range(**k)).map(|k| weight(*k, time)).sum()
                };
                let before = of(&|known| known < time);
                let settled = of(&|known| known < time - 2 * lateness - 20);
                let found = found.expect("a time that is not late can be read");
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
        let mut sums = Decayed::<1>::new();
        let progress = Progress { newest: EventTime(100), horizon: EventTime(90) };
        sums.add(HALF_LIFE, at(50), progress);
        let before = read(&sums, 100);
        for _ in 0..5 {
            sums.add(HALF_LIFE, at(100), progress);
            assert_eq!(read(&sums, 100), before);
        }
        assert!(read(&sums, 101).unwrap() > 5.0);
    }

    #[test]
    fn what_is_settled_cannot_be_read_as_of_a_time_before() {
        let mut sums = Decayed::<1>::new();
        for time in [1000, 2000, 3000, 4000] {
            let horizon = EventTime(time);
            sums.add(HALF_LIFE, at(time), Progress { newest: horizon, horizon });
        }
        assert_eq!(read(&sums, 900), None);
        assert!(read(&sums, 4001).is_some());
    }

    #[test]
    fn a_clock_that_proved_wrong_leaves_nothing_behind() {
        let year = 365 * 24 * 3_600_000;
        for wrong in [5001, 9000, 25_000, 70_000, year] {
            let mut sums = Decayed::<1>::new();
            let right = Progress { newest: EventTime(5000), horizon: EventTime::MIN };
            sums.add(HALF_LIFE, at(4000), right);
            for later in 0..3 {
                let newest = EventTime(wrong + later);
                sums.add(HALF_LIFE, at(newest.0), Progress { newest, ..right });
            }
            sums.add(HALF_LIFE, at(5000), right);
            let found = read(&sums, 5001).unwrap();
            // What is right may have shared a pane with what is wrong: then it has faded with it.
            assert!((3.9..=4.51).contains(&found), "{wrong}: {found}");
        }
    }

    #[test]
    fn old_counts_fade_without_end_and_without_overflow() {
        let mut sums = Decayed::<1>::new();
        for step in 0..200_i64 {
            let time = EventTime(step * 100_000);
            sums.add(HALF_LIFE, at(time.0), Progress { newest: time, horizon: time });
            let read = read(&sums, time.0 + 1).unwrap();
            assert!((read - 1.0).abs() < 1e-3, "{read}");
        }
        assert!(sums.total(Weight::of(HALF_LIFE, EventTime::MAX)).sum(0) < 1e-100);
    }
}
