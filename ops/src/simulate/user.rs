//! Users: their tastes, which drift, and what they are after just now.
//!
//! A taste is a point in a space in which every category is a direction: `affinity = taste ·
//! category`, of variance 1 over users and categories. It wanders around the user's home, half of the
//! variance each (an Ornstein-Uhlenbeck process):
//! `taste(t + d) = home + (taste(t) - home) e^(-d / 3 days) + s sqrt(1 - e^(-2 d / 3 days)) N(0, 1)`.
//!
//! An interest is what clicks in a category leave behind: two sums over them, one fading within the
//! hour and one within days.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::item::{DAY, normal};
use crate::wire::{Fields, add};

/// Dimensions of the taste.
pub(super) const DIMENSIONS: usize = 4;
/// Hours in which the deviation from home falls to 1/e.
const TASTE_FADES: f64 = 72.0;
/// Variances of a taste's coordinate: of the segment's home, of one's own, and of the deviation.
const SEGMENT_VARIANCE: f64 = 0.2;
const OWN_VARIANCE: f64 = 0.4;
const DRIFT_VARIANCE: f64 = 0.4;
const HOUR: f64 = 3_600_000.0;
const FAST_FADES: f64 = 0.75 * HOUR;
const SLOW_FADES: f64 = 36.0 * HOUR;
/// An interest below this is forgotten.
const FORGOTTEN: f64 = 1e-3;

const SEGMENTS: usize = 5;
const COUNTRIES: [&str; 6] = ["DE", "FR", "GB", "IT", "PL", "US"];
/// Devices, and the log-odds that they add to a click and to a cart.
pub(super) const DEVICES: [(&str, f64, f64); 3] =
    [("ios", 0.12, 0.0), ("android", 0.0, 0.0), ("web", -0.25, 0.35)];

const ACTIVITY_SPREAD: f64 = 0.7;
const EAGERNESS_SPREAD: f64 = 0.35;
const DECISION_SPREAD: f64 = 0.15;

pub(super) type Taste = [f64; DIMENSIONS];

/// One user.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) segment: usize,
    country: usize,
    pub(super) device: usize,
    /// How often they come, relative to others.
    pub(super) activity: f64,
    /// Log-odds of a click, and of a cart and a purchase.
    pub(super) eagerness: f64,
    pub(super) decision: f64,
    /// The dearness of items that suits them.
    pub(super) affluence: f64,
    home: Taste,
    pub(super) taste: Taste,
    taste_at: i64,
    interests: Vec<Interest>,
}

/// What clicks in a category have left behind, as of a time.
#[derive(Clone, Copy, Debug)]
struct Interest {
    category: usize,
    fast: f64,
    slow: f64,
    at: i64,
}

impl Interest {
    fn at(self, now: i64) -> (f64, f64) {
        let elapsed = (now - self.at) as f64;
        (self.fast * (-elapsed / FAST_FADES).exp(), self.slow * (-elapsed / SLOW_FADES).exp())
    }
}

/// What segments have in common.
#[derive(Debug)]
pub(super) struct Segments(Vec<(Taste, f64)>);

impl Segments {
    pub(super) fn new(random: &mut ChaCha8Rng) -> Self {
        let segment = |i: usize, random: &mut ChaCha8Rng| {
            // From thrifty to rich, evenly.
            (point(SEGMENT_VARIANCE, random), 1.2 * (i as f64 / (SEGMENTS - 1) as f64 - 0.5))
        };
        Self((0..SEGMENTS).map(|i| segment(i, random)).collect())
    }
}

fn point(variance: f64, random: &mut ChaCha8Rng) -> Taste {
    std::array::from_fn(|_| variance.sqrt() * normal(random))
}

impl User {
    pub(super) fn new(segments: &Segments, start: i64, random: &mut ChaCha8Rng) -> Self {
        let segment = random.random_range(0..SEGMENTS);
        let country = random.random_range(0..COUNTRIES.len());
        let (centre, affluence) = segments.0[segment];
        let own = point(OWN_VARIANCE, random);
        let away = point(DRIFT_VARIANCE, random);
        let home: Taste = std::array::from_fn(|i| centre[i] + own[i]);
        Self {
            segment,
            country,
            device: random.random_range(0..DEVICES.len()),
            activity: (ACTIVITY_SPREAD * normal(random)).exp(),
            // A country says a little about its people.
            eagerness: EAGERNESS_SPREAD * normal(random) + 0.06 * (country as f64 - 2.5),
            decision: DECISION_SPREAD * normal(random),
            affluence: affluence + 0.2 * normal(random),
            home,
            taste: std::array::from_fn(|i| home[i] + away[i]),
            taste_at: start,
            interests: Vec::new(),
        }
    }

    /// Returns what can be seen of them.
    pub(super) fn features(&self) -> Fields {
        let mut features = Fields::new();
        add(&mut features, "segment", format!("s{}", self.segment));
        add(&mut features, "country", COUNTRIES[self.country]);
        features
    }

    /// Lets the taste drift until now.
    pub(super) fn drift(&mut self, now: i64, random: &mut ChaCha8Rng) {
        let days = (now - self.taste_at) as f64 / DAY;
        let stays = (-days * 24.0 / TASTE_FADES).exp();
        let spread = (DRIFT_VARIANCE * (1.0 - stays * stays)).sqrt();
        for (taste, home) in self.taste.iter_mut().zip(self.home) {
            *taste = home + (*taste - home) * stays + spread * normal(random);
        }
        self.taste_at = now;
    }

    /// Returns the fast and the slow sum of the clicks in a category.
    pub(super) fn interest(&self, category: usize, now: i64) -> (f64, f64) {
        let found = self.interests.iter().find(|interest| interest.category == category);
        found.map_or((0.0, 0.0), |interest| interest.at(now))
    }

    /// Notes a click.
    pub(super) fn clicked(&mut self, category: usize, now: i64) {
        let (fast, slow) = self.interest(category, now);
        let keep =
            |interest: &Interest| interest.category != category && interest.at(now).1 > FORGOTTEN;
        self.interests.retain(keep);
        self.interests.push(Interest { category, fast: fast + 1.0, slow: slow + 1.0, at: now });
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const START: i64 = 1_700_000_000_000;

    fn correlation(pairs: &[(f64, f64)]) -> f64 {
        let n = pairs.len() as f64;
        let (mx, my) = pairs.iter().fold((0.0, 0.0), |m, p| (m.0 + p.0 / n, m.1 + p.1 / n));
        let product = |f: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>();
        let xy = product(&|p| (p.0 - mx) * (p.1 - my));
        let (xx, yy) = (product(&|p| (p.0 - mx).powi(2)), product(&|p| (p.1 - my).powi(2)));
        xy / (xx * yy).sqrt()
    }

    #[test]
    fn tastes_drift_within_days_towards_home() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let segments = Segments::new(&mut random);
        let mut users: Vec<_> =
            (0..5_000).map(|_| User::new(&segments, START, &mut random)).collect();
        let away = |user: &User| -> Vec<f64> {
            user.taste.iter().zip(user.home).map(|(taste, home)| taste - home).collect()
        };
        let before: Vec<f64> = users.iter().flat_map(away).collect();
        let mut now = START;
        // In steps of any length: the process is exact.
        for (hours, expected) in [(24.0, 0.717), (48.0, 0.368), (216.0, 0.018)] {
            now += (hours * HOUR) as i64;
            users.iter_mut().for_each(|user| user.drift(now, &mut random));
            let after: Vec<f64> = users.iter().flat_map(away).collect();
            let pairs: Vec<_> = before.iter().copied().zip(after.iter().copied()).collect();
            assert!(
                (correlation(&pairs) - expected).abs() < 0.03,
                "{hours}: {}",
                correlation(&pairs)
            );
            let variance = after.iter().map(|x| x * x).sum::<f64>() / after.len() as f64;
            assert!((variance - DRIFT_VARIANCE).abs() < 0.02, "{variance}");
        }
    }

    #[test]
    fn an_interest_grows_by_clicks_and_fades() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut user = User::new(&Segments::new(&mut random), START, &mut random);
        assert_eq!(user.interest(3, START), (0.0, 0.0));
        user.clicked(3, START);
        user.clicked(4, START);
        let later = START + FAST_FADES as i64;
        user.clicked(3, later);
        let (fast, slow) = user.interest(3, later);
        assert!((fast - 1.0 - (-1.0_f64).exp()).abs() < 1e-9);
        assert!((slow - 1.0 - (-FAST_FADES / SLOW_FADES).exp()).abs() < 1e-9);
        let months = later + (90.0 * DAY) as i64;
        user.clicked(5, months);
        assert_eq!(user.interests.len(), 1, "what has faded is forgotten");
    }
}
