//! Progressive evaluation: how good were the predictions that were made before the label was known?
//!
//! Predict, record, then learn: every final label is recorded beside the probability that was given
//! when the impression arrived. Figures come for the whole stream, for a sliding
//! window, and for each window of event time (a day, unless configured), each time for all examples
//! and for those of warm and new items apart.
//!
//! | figure | rule | undefined when |
//! |---|---|---|
//! | log loss | `-mean(y ln p + (1 - y) ln(1 - p))`, `p` clipped to `[1e-7, 1 - 1e-7]` | no example |
//! | normalised entropy | log loss / entropy of the period's own rate | one class only |
//! | calibration | `Σ p / Σ y` | no positive |
//! | AUC | `P(p⁺ > p⁻) + P(p⁺ = p⁻) / 2` over a histogram in logit space | one class only |
//! | grouped AUC | AUC of each user, weighted by examples; users of one class left out | no such user |
//!
//! Undefined figures are `None`, never NaN. Sums are integers, so the order of records and merges
//! changes no bit. Memory is bounded by [`Settings`]; nothing is allocated for an example once the
//! pages of the histograms in use exist.

mod grouped;
mod histogram;
mod period;
mod progressive;
mod report;
mod series;
mod tally;

pub use histogram::Histogram;
pub use period::{Period, Split};
pub use progressive::{Judgement, Progressive, Settings};
pub use report::{ByTask, Figures, Report, TaskFigures, Window};
pub use tally::Tally;
