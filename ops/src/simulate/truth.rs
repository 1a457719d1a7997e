//! The planted truth: the probability of each task for each impression.
//!
//! ```text
//! logit p(click | impression) = base + quality + eagerness + desire + surface
//!     - slope(surface) ln(position) + device - 0.12 (dearness - affluence)²
//!     + 0.35 e^(-age / 3 days) + evening
//! desire = 0.5 affinity + 0.8 (1 - e^-fast) + 0.7 (1 - e^(-slow / 2))
//! logit p(cart | click)       = base + conversion + decision + 0.3 affinity + 0.4 (1 - e^-fast)
//!     + surface + device - 0.15 (dearness - affluence)²
//! logit p(purchase | cart)    = base + decision + 0.2 affinity - 0.35 dearness
//!     + 0.15 (segment - 2)
//! ```
//!
//! What is written beside an impression are the unconditional probabilities: products down the funnel.

use rand_chacha::ChaCha8Rng;

use super::item::{DAY, Item, normal};
use super::user::{DEVICES, DIMENSIONS, Taste, User};

const CLICK_BASE: f64 = -2.7;
const CART_BASE: f64 = -1.8;
const PURCHASE_BASE: f64 = -1.0;

/// Where a page is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surface {
    Home,
    Search,
    Category,
}

impl Surface {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Search => "search",
            Self::Category => "category",
        }
    }

    /// Log-odds of a click, how they fall with ln(position), and log-odds of a cart.
    fn effects(self) -> (f64, f64, f64) {
        match self {
            Self::Home => (0.0, 0.45, 0.0),
            Self::Search => (0.5, 0.75, 0.3),
            Self::Category => (0.1, 0.55, 0.0),
        }
    }
}

/// Probabilities that an impression leads to each task.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Probabilities {
    /// Of a click.
    pub click: f64,
    /// Of a click and a cart.
    pub cart: f64,
    /// Of a click, a cart and a purchase.
    pub purchase: f64,
}

impl Probabilities {
    /// Builds them from the probability of a click, and of each further task after the one before.
    pub(super) fn chain(click: f64, cart: f64, purchase: f64) -> Self {
        Self { click, cart: click * cart, purchase: click * cart * purchase }
    }

    /// Returns them in the order of the funnel.
    pub fn in_order(&self) -> [f64; 3] {
        [self.click, self.cart, self.purchase]
    }
}

/// Where and when an item is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) now: i64,
    pub(super) surface: Surface,
    pub(super) device: usize,
    /// From 1.
    pub(super) position: usize,
}

/// What categories mean to tastes: a direction each.
#[derive(Debug)]
pub(super) struct Directions(Vec<Taste>);

impl Directions {
    pub(super) fn new(categories: usize, random: &mut ChaCha8Rng) -> Self {
        let direction = |random: &mut ChaCha8Rng| {
            let point: Taste = std::array::from_fn::<_, DIMENSIONS, _>(|_| normal(random));
            let length = point.iter().map(|x| x * x).sum::<f64>().sqrt();
            point.map(|x| x / length)
        };
        Self((0..categories).map(|_| direction(random)).collect())
    }

    /// Returns what a category means to a user, of mean 0 and variance 1.
    pub(super) fn affinity(&self, user: &User, category: usize) -> f64 {
        self.0[category].iter().zip(user.taste).map(|(direction, taste)| direction * taste).sum()
    }
}

/// Returns what a user is after in a category: the part of the log-odds that is taste and interest.
pub(super) fn desire(directions: &Directions, user: &User, category: usize, now: i64) -> f64 {
    let (fast, slow) = user.interest(category, now);
    0.5 * directions.affinity(user, category)
        + 0.8 * (1.0 - (-fast).exp())
        + 0.7 * (1.0 - (-slow / 2.0).exp())
}

/// Returns the true probabilities of an impression.
pub(super) fn probabilities(
    directions: &Directions,
    user: &User,
    item: &Item,
    setting: Setting,
) -> Probabilities {
    let (surface, slope, surface_cart) = setting.surface.effects();
    let (_, device, device_cart) = DEVICES[setting.device];
    let affinity = directions.affinity(user, item.category);
    let fast = 1.0 - (-user.interest(item.category, setting.now).0).exp();
    let misfit = (item.dearness - user.affluence).powi(2);
    let age = (setting.now - item.created).max(0) as f64 / DAY;
    let click = CLICK_BASE
        + item.quality
        + user.eagerness
        + desire(directions, user, item.category, setting.now)
        + surface
        - slope * (setting.position as f64).ln()
        + device
        - 0.12 * misfit
        + 0.35 * (-age / 3.0).exp()
        + evening(setting.now);
    let cart = CART_BASE
        + item.conversion
        + user.decision
        + 0.3 * affinity
        + 0.4 * fast
        + surface_cart
        + device_cart
        - 0.15 * misfit;
    let purchase = PURCHASE_BASE + user.decision + 0.2 * affinity - 0.35 * item.dearness
        + 0.15 * (user.segment as f64 - 2.0);
    Probabilities::chain(sigmoid(click), sigmoid(cart), sigmoid(purchase))
}

/// Up to 0.15 more at 20 h, as much less at 8 h (UTC).
fn evening(now: i64) -> f64 {
    let hour = (now as f64 / DAY).fract() * 24.0;
    0.15 * ((hour - 20.0) / 24.0 * std::f64::consts::TAU).cos()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Returns the probabilities of a bot's impression, which are the same for every item.
pub(super) fn of_bot() -> Probabilities {
    Probabilities::chain(0.9, 0.01, 0.01)
}
