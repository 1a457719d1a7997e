//! The figures of one task's window of final labels, and what they say of the model.
//!
//! ```text
//! n labels, y positives, P the sum of the predictions      labels of one class: observed y or n - y, predicted P or n - P
//!
//! calibration of a class     predicted / observed
//! normalised entropy         log loss / entropy of the window's rate (He et al. 2014, Practical Lessons from Predicting Clicks on Ads at Facebook)
//! ```
//!
//! A class says something once [`ENOUGH`] of it are observed or predicted: that many that do not come say as much as that many that do. So a window
//! goes on, by whole [`WINDOW`]s, until both classes say something. A class of which fewer were ever seen has no rate yet, and is left out.

use serde::{Deserialize, Serialize};

use super::WINDOW;

/// Labels of a class, observed or predicted, from which on its calibration says something: its relative error is 14 % then.
const ENOUGH: f64 = 50.0;
/// The largest sound quotient of log loss and entropy of the rate.
pub(super) const WORST_ENTROPY: f64 = 1.2;
/// Sound calibration.
pub(super) const CALIBRATION: std::ops::RangeInclusive<f64> = 0.5..=2.0;
/// A class comes to nothing when fewer than one in so many come of those that the rate of the window before lets expect: where [`ENOUGH`] are
/// expected, chance does that in fewer than one window in 10^12.
const VANISHED: f64 = 10.0;
/// A prediction is at least this far from certain.
const CERTAIN: f64 = 1e-7;

/// Final labels of one task beside their predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Labels.
    pub labels: u64,
    /// Positive ones.
    pub positives: f64,
    /// The sum of the predictions: positives that the model expects.
    pub predicted: f64,
    /// The sum of the log losses.
    loss: f64,
    /// The rate of positives in the window before; `None` in the first one.
    before: Option<f64>,
    /// Negative and positive labels in all windows before.
    seen: [f64; 2],
}

/// What is not sound about a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// More or fewer of a class are predicted than observed: the quotient.
    Calibration(f64),
    /// The log loss over the entropy of the rate.
    Entropy(f64),
    /// A class has come to nothing: those that the rate before lets expect.
    Vanished(f64),
}

impl Window {
    /// Adds a label. A prediction that is no number counts as the worst one that could be.
    pub(super) fn add(&mut self, label: bool, p: f32) {
        let worst = f32::from(u8::from(!label));
        let p = f64::from(if p.is_nan() { worst } else { p }).clamp(CERTAIN, 1.0 - CERTAIN);
        self.labels += 1;
        self.positives += f64::from(u8::from(label));
        self.predicted += p;
        self.loss -= if label { p.ln() } else { (1.0 - p).ln() };
    }

    /// Tells whether the figures say something of every class that has a rate.
    pub(super) fn is_full(&self) -> bool {
        self.labels.is_multiple_of(u64::from(WINDOW))
            && self.classes().all(|class| class.says_something())
    }

    /// Returns the window after this one.
    pub(super) fn next(&self) -> Self {
        let seen = [self.seen[0] + self.negatives(), self.seen[1] + self.positives];
        Self { before: Some(self.positives / self.labels as f64), seen, ..Self::default() }
    }

    /// Returns what is not sound; `None` when all is, and of a window that says nothing.
    pub fn fault(&self) -> Option<Fault> {
        let miscalibrated = |class: &Class| {
            let quotient = class.predicted / class.observed.max(1.0);
            let says = class.observed.max(class.predicted) >= ENOUGH;
            (says && !CALIBRATION.contains(&quotient)).then_some(Fault::Calibration(quotient))
        };
        // Positives come last in order and first in words.
        let classes = [self.class(1), self.class(0)].into_iter().filter(|class| class.has_rate);
        classes
            .clone()
            .find_map(|class| miscalibrated(&class))
            .or_else(|| classes.clone().find_map(|class| class.vanished().map(Fault::Vanished)))
            .or_else(|| {
                let (n, y) = (self.labels as f64, self.positives);
                let said = classes.count() == 2 && y.min(n - y) * *CALIBRATION.end() >= ENOUGH;
                let rate = y / n;
                let entropy = -(rate * rate.ln() + (1.0 - rate) * (1.0 - rate).ln());
                let quotient = self.loss / n / entropy;
                (said && quotient > WORST_ENTROPY).then_some(Fault::Entropy(quotient))
            })
    }

    /// Returns what is not sound, in words.
    pub(super) fn told(&self, fault: Fault) -> String {
        let Self { labels, positives, predicted, .. } = self;
        let seen =
            format!("of {labels} labels {positives} were positive, {predicted:.1} were predicted");
        let told = match fault {
            Fault::Calibration(quotient) => format!(
                "{seen}: predictions over labels of a class are {quotient:.3} ({} to {})",
                CALIBRATION.start(),
                CALIBRATION.end()
            ),
            Fault::Entropy(quotient) => format!(
                "{seen}: the log loss was {quotient:.3} times that of their rate (at most {WORST_ENTROPY})"
            ),
            Fault::Vanished(expected) => {
                format!("{seen}: {expected:.0} of a class were to be expected by the rate before")
            }
        };
        let stopped =
            positives * CALIBRATION.end() < *predicted || matches!(fault, Fault::Vanished(_));
        if stopped { format!("{told}; do its events still come, and in time?") } else { told }
    }

    fn negatives(&self) -> f64 {
        self.labels as f64 - self.positives
    }

    fn classes(&self) -> impl Iterator<Item = Class> {
        [self.class(0), self.class(1)].into_iter().filter(|class| class.has_rate)
    }

    /// Returns the negative (0) or the positive (1) labels.
    fn class(&self, label: usize) -> Class {
        let n = self.labels as f64;
        let before = self.before.unwrap_or_default();
        let (observed, predicted, rate) = match label {
            0 => (self.negatives(), n - self.predicted, self.before.map_or(0.0, |rate| 1.0 - rate)),
            _ => (self.positives, self.predicted, before),
        };
        let has_rate = self.seen[label] + observed >= ENOUGH;
        Class { observed, predicted, by_rate: rate * n, has_rate }
    }
}

/// The labels of one class in a window.
#[derive(Clone, Copy, Debug)]
struct Class {
    observed: f64,
    predicted: f64,
    /// So many were to be expected by the rate of the window before.
    by_rate: f64,
    /// Enough of it were seen to speak of a rate.
    has_rate: bool,
}

impl Class {
    fn says_something(&self) -> bool {
        self.observed.max(self.predicted) >= ENOUGH || self.vanished().is_some()
    }

    /// Returns how many were to be expected, when next to none have come.
    fn vanished(&self) -> Option<f64> {
        let gone = self.by_rate >= ENOUGH && self.observed < ENOUGH.min(self.by_rate / VANISHED);
        gone.then_some(self.by_rate)
    }
}
