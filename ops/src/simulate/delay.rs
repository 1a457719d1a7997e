//! How long outcomes take: log-normal, drawn again when a window would be missed.
//!
//! A click comes within 30 minutes of its impression, a cart within a day, a purchase within 3 days, so
//! that windows of these lengths see every label.

use rand_chacha::ChaCha8Rng;

use super::item::normal;

const SECOND: f64 = 1_000.0;
const MINUTE: f64 = 60.0 * SECOND;

/// Kept free before the end of a window.
const MARGIN: i64 = 1_000;

/// A step of the funnel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delay {
    /// Milliseconds after the step before.
    median: f64,
    /// Standard deviation of the logarithm.
    spread: f64,
    /// Milliseconds after the impression.
    window: i64,
}

pub(super) const CLICK: Delay = Delay { median: 6.0 * SECOND, spread: 0.8, window: 1_800_000 };
pub(super) const CART: Delay = Delay { median: 2.0 * MINUTE, spread: 1.3, window: 86_400_000 };
pub(super) const PURCHASE: Delay =
    Delay { median: 45.0 * MINUTE, spread: 1.8, window: 259_200_000 };

impl Delay {
    /// Draws when a step happens that follows another one (`after`) of an impression (`shown`).
    pub(super) fn draw(self, shown: i64, after: i64, random: &mut ChaCha8Rng) -> i64 {
        let last = shown + self.window - MARGIN;
        loop {
            let delay = self.median * (self.spread * normal(random)).exp();
            let at = after.saturating_add((delay as i64).max(1));
            if at <= last {
                return at;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn delays_have_their_medians_and_stay_within_their_windows() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        for step in [CLICK, CART, PURCHASE] {
            let mut delays: Vec<i64> = (0..20_001).map(|_| step.draw(0, 0, &mut random)).collect();
            delays.sort_unstable();
            assert!(delays[0] > 0 && delays[20_000] < step.window, "{step:?}");
            let median = delays[10_000] as f64;
            assert!((median / step.median - 1.0).abs() < 0.05, "{step:?}: {median}");
        }
        // Hardly any time left: still in time.
        let after = CLICK.window - 10 * MARGIN;
        assert!((0..100).all(|_| CLICK.draw(0, after, &mut random) < CLICK.window));
    }
}
