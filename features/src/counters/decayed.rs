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

/// `N` decayed sums, in 24 + 16 `N` bytes: reading one costs what fetching it from memory costs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "[f32; N]: Serialize", deserialize = "[f32; N]: Deserialize<'de>"))]
pub(super) struct Decayed<const N: usize> {
    /// The time of the newest instant; [`EventTime::MIN`] before the first.
    newest: EventTime,
    /// How much older the newest of each other part is.
    ages: [Age; PARTS - 1],
    /// The epoch of the weights: that of the latest time from which anything decays.
    epoch: Epoch,
    /// Settled, older pane, newer pane, newest instant.
    parts: [[f32; N]; PARTS],
}

const PARTS: usize = 4;
const SETTLED: usize = 0;
const OLDER: usize = 1;
const NEWER: usize = 2;
const INSTANT: usize = 3;

/// Milliseconds, seven weeks at most: what is older is taken to be of then, so that reads from before miss it. The largest where there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Age(u32);

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
    /// Of the parts.
    known: [bool; PARTS],
    scale: f64,
}

impl Age {
    const NONE: Self = Self(u32::MAX);

    fn of(span: Span) -> Self {
        Self(span.0.clamp(0, i64::from(u32::MAX) - 1) as u32)
    }

    fn grow(&mut self, by: Self) {
        if *self != Self::NONE {
            *self = Self(self.0.saturating_add(by.0).min(u32::MAX - 1));
        }
    }
}

impl<const N: usize> Default for Decayed<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Reading<'_, N> {
    /// Returns one of the sums.
    pub(super) fn sum(&self, place: usize) -> f64 {
        let parts = self.sums.parts.iter().zip(self.known);
        let sum: f64 =
            parts.map(|(part, known)| if known { f64::from(part[place]) } else { 0.0 }).sum();
        sum * self.scale
    }
}

impl<const N: usize> Decayed<N> {
    /// Nothing yet.
    pub(super) const fn new() -> Self {
        Self {
            newest: EventTime::MIN,
            ages: [Age::NONE; PARTS - 1],
            epoch: Epoch::FIRST,
            parts: [[0.0; N]; PARTS],
        }
    }

    pub(super) fn add(&mut self, half_life: Span, added: Added, progress: Progress) {
        if self.newest > progress.newest {
            self.correct(half_life, progress.newest);
        }
        if added.shown.epoch > self.epoch {
            self.rescale(added.shown.epoch);
        }
        let weight = added.shown.within(self.epoch);
        if added.known > self.newest {
            self.next_instant(added.known, FULL * weight, progress.horizon);
        }
        let known = |part: &usize| added.known <= self.time(*part);
        let part = (SETTLED..INSTANT).find(known).unwrap_or(INSTANT);
        self.parts[part][added.place] += (added.amount * weight) as f32;
    }

    /// Reads what was known strictly before a time, whose weight is `now`; `None` where it cannot be told any more.
    pub(super) fn read(&self, now: Weight, time: EventTime) -> Option<Reading<'_, N>> {
        let known = std::array::from_fn(|part| self.time(part) < time);
        let scale = now.within(self.epoch).recip();
        known[SETTLED].then_some(Reading { sums: self, known, scale })
    }

    /// Returns what the largest of its sums will come to at a time with this weight, at most.
    pub(super) fn most(&self, now: Weight) -> f64 {
        let largest: f64 = (SETTLED..PARTS).map(|part| self.largest(part)).sum();
        largest / now.within(self.epoch)
    }

    /// Returns the newest time of a part, [`EventTime::MIN`] where it is empty.
    fn time(&self, part: usize) -> EventTime {
        match self.ages.get(part) {
            None => self.newest,
            Some(&Age::NONE) => EventTime::MIN,
            Some(age) => self.newest - Span(age.0.into()),
        }
    }

    fn largest(&self, part: usize) -> f64 {
        self.parts[part].iter().fold(0.0, |largest, sum| f64::from(*sum).max(largest))
    }

    /// Closes the newest instant and begins one of this later time.
    fn next_instant(&mut self, time: EventTime, full: f64, horizon: EventTime) {
        if self.newest > EventTime::MIN {
            if self.ages[NEWER] != Age::NONE
                && (self.time(OLDER) < horizon || self.largest(OLDER) >= full)
            {
                self.join(OLDER, SETTLED);
                self.join(NEWER, OLDER);
            } else if self.largest(NEWER) >= full {
                self.join(NEWER, OLDER);
            }
            let later = Age::of(time - self.newest);
            self.ages.iter_mut().for_each(|age| age.grow(later));
            // The instant that was is the newest of the newer pane.
            self.ages[NEWER] = later;
            self.pour(INSTANT, NEWER);
        }
        self.newest = time;
    }

    /// Adds a pane to the next older part, and empties it.
    fn join(&mut self, later: usize, earlier: usize) {
        let age = std::mem::replace(&mut self.ages[later], Age::NONE);
        if age != Age::NONE {
            self.ages[earlier] = age;
        }
        self.pour(later, earlier);
    }

    fn pour(&mut self, from: usize, into: usize) {
        let poured = std::mem::replace(&mut self.parts[from], [0.0; N]);
        self.parts[into].iter_mut().zip(poured).for_each(|(sum, more)| *sum += more);
    }

    /// Takes back what a clock said that proved wrong: nothing is newer than the newest plausible time, and weighs more than what is of it.
    #[cold]
    fn correct(&mut self, half_life: Span, newest: EventTime) {
        let (from, to) = (self.epoch, self.epoch.min(Weight::of(half_life, newest).epoch));
        let times: [EventTime; PARTS] = std::array::from_fn(|part| self.time(part));
        for (part, time) in times.into_iter().enumerate() {
            let by = if time > newest {
                correction(half_life, (from, time), (to, newest))
            } else {
                from.to(to)
            };
            self.scale(part, by);
            if part < INSTANT && time > EventTime::MIN {
                self.ages[part] = Age::of(newest - time);
            }
        }
        (self.newest, self.epoch) = (newest, to);
    }

    fn rescale(&mut self, epoch: Epoch) {
        let by = self.epoch.to(epoch);
        self.epoch = epoch;
        (SETTLED..PARTS).for_each(|part| self.scale(part, by));
    }

    fn scale(&mut self, part: usize, by: f64) {
        self.parts[part].iter_mut().for_each(|sum| *sum = (f64::from(*sum) * by) as f32);
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
        assert!(sums.most(Weight::of(HALF_LIFE, EventTime::MAX)) < 1e-100);
    }
}
