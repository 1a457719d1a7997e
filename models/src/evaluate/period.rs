//! What is kept of a stretch of examples, for warm and new items apart.

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use super::report::{Figures, TaskFigures};
use super::tally::Tally;

/// The nearest that a judged probability comes to 0 and 1.
const CLIP: f64 = 1e-7;

/// The sums and the histogram of some examples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    tally: Tally,
    histogram: Histogram,
}

impl Period {
    /// Adds one example; `probability` lies in `[0, 1]` and is clipped to `[1e-7, 1 - 1e-7]` for
    /// its logarithms.
    pub(super) fn record(&mut self, label: bool, probability: f64) {
        let clipped = probability.clamp(CLIP, 1.0 - CLIP);
        let (yes, no) = (clipped.ln(), (-clipped).ln_1p());
        self.tally.record(label, if label { -yes } else { -no }, probability);
        self.histogram.record(label, yes - no);
    }

    /// Adds the examples of another period.
    pub fn merge(&mut self, other: &Self) {
        self.tally.merge(&other.tally);
        self.histogram.merge(&other.histogram);
    }

    /// Returns the sums alone, which cost nothing to read.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Returns all figures but the grouped AUC, which needs the examples themselves.
    pub fn figures(&self) -> Figures {
        Figures {
            examples: self.tally.examples(),
            positives: self.tally.positives(),
            auc: self.histogram.auc(),
            log_loss: self.tally.log_loss(),
            normalised_entropy: self.tally.normalised_entropy(),
            calibration: self.tally.calibration(),
            grouped_auc: None,
        }
    }

    fn clear(&mut self) {
        self.tally = Tally::default();
        self.histogram.clear();
    }
}

/// A period whose examples are kept apart by whether the item was new.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Examples of items that had been learned from before.
    pub warm: Period,
    /// Examples of items that had not.
    pub new: Period,
}

impl Split {
    /// Adds one example, as [`Period::record`].
    pub(super) fn record(&mut self, label: bool, probability: f64, new_item: bool) {
        let period = if new_item { &mut self.new } else { &mut self.warm };
        period.record(label, probability);
    }

    /// Adds the examples of another.
    pub fn merge(&mut self, other: &Self) {
        self.warm.merge(&other.warm);
        self.new.merge(&other.new);
    }

    /// Returns the figures of all, warm and new examples, without the grouped AUC.
    pub fn figures(&self) -> TaskFigures {
        let mut all = self.warm.clone();
        all.merge(&self.new);
        TaskFigures { all: all.figures(), warm: self.warm.figures(), new: self.new.figures() }
    }

    /// Forgets all examples and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.warm.clear();
        self.new.clear();
    }
}
