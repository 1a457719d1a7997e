//! How often clocks have been wrong of late, and how many have to agree because of that.

use serde::{Deserialize, Serialize};

/// The share one.
const ONE: u32 = 1 << 24;
/// The share that is assumed at least: one clock of a thousand.
const LEAST: u32 = ONE >> 10;
/// What is assumed at the start weighs as much as so many events.
const ASSUMED: u16 = 64;
/// An event is forgotten with so many after it.
const MEMORY: u16 = 1024;
/// The logarithm, to the base 2, of how rarely wrong clocks alone may be believed: about a step, and about a jump.
const RARE: [u32; 2] = [30, 40];

/// The share of events whose time was refuted by those after it: a mean over the newest ones, in fixed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Doubt {
    share: u32,
    events: u16,
}

impl Default for Doubt {
    fn default() -> Self {
        Self { share: LEAST, events: ASSUMED }
    }
}

impl Doubt {
    /// Takes note of an event that was no step ahead.
    pub(super) fn agreed(&mut self) {
        self.share -= self.share / u32::from(self.events);
        self.count();
    }

    /// Takes note of events that were ahead, until one was not.
    pub(super) fn refuted(&mut self, events: u16) {
        for _ in 0..events.min(MEMORY) {
            self.share += (ONE - self.share) / u32::from(self.events);
            self.count();
        }
    }

    /// Returns how many events in a row make it certain that time has made a step: three where no clock was wrong.
    pub(super) fn step(&self) -> u16 {
        self.in_a_row(RARE[0])
    }

    /// Returns of how many events the wrong ones are certainly less than half.
    pub(super) fn crowd(&self) -> usize {
        2 * usize::from(self.step()) + 1
    }

    /// Returns how many events in a row make it certain that time has jumped: four where no clock was wrong.
    pub(super) fn jump(&self) -> u16 {
        self.in_a_row(RARE[1])
    }

    /// The share to the power of what is returned is no more than two to the power of `-rare`, the share rounded up to a power of two below one.
    fn in_a_row(&self, rare: u32) -> u16 {
        let share = self.share.max(LEAST).next_power_of_two().min(ONE / 2);
        let halvings = ONE.ilog2() - share.ilog2();
        rare.div_ceil(halvings) as u16
    }

    fn count(&mut self) {
        self.events = (self.events + 1).min(MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_clocks_were_wrong_the_more_have_to_agree() {
        let after = |wrong: u32, of: u32| {
            let mut doubt = Doubt::default();
            for event in 0..4 * u32::from(MEMORY) {
                if event % of < wrong { doubt.refuted(1) } else { doubt.agreed() }
            }
            (doubt.step(), doubt.jump())
        };
        assert_eq!(after(0, 1), (3, 4));
        assert_eq!(after(1, 2000), (4, 5));
        assert_eq!(after(1, 20), (8, 10));
        assert_eq!(after(1, 5), (15, 20));
        assert_eq!(after(1, 2), (30, 40));
        assert_eq!(after(1, 1), (30, 40));
        // One of five is known after a handful.
        let mut doubt = Doubt::default();
        (0..3).for_each(|_| doubt.refuted(1));
        assert!(doubt.jump() >= 8, "{}", doubt.jump());
    }
}
