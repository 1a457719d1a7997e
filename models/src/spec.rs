//! The configuration of a model, and the only list of models: interest x crossing x sharing x funnel, one entry of each.
//!
//! ```toml
//! interest = { name = "sim", limit = 50, matching = 50 }
//! crossing = { name = "none" }
//! sharing = { name = "ple", levels = 1, shared = 2, own = 1, hidden = [128, 64], normalise = "layer-norm" }
//! funnel = { name = "aitm", tower = [64, 32], calibrator = 0.6 }
//! learning = { dense_rate = 0.001, row_rate = 0.05 }
//! ```

use serde::{Deserialize, Serialize};
use sluice_features::schema::Lookup;
use sluice_features::time::Span;

pub use crate::interest::Normalise;
pub use learning::{LearningSpec, Method, PriorSpec};

mod check;
mod learning;
#[cfg(test)]
mod tests;

/// A model and how it learns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSpec {
    /// Slot 1: what the history says about the candidate.
    pub interest: InterestSpec,
    /// Slot 2: what pairs of fields, or single ones, add to the logits.
    pub crossing: CrossingSpec,
    /// Slot 3: what the tasks share.
    pub sharing: SharingSpec,
    /// Slot 4: how the tasks hang together.
    pub funnel: FunnelSpec,
    /// Rates and limits of learning.
    pub learning: LearningSpec,
    /// Which ids have rows, and for how long.
    pub embeddings: EmbeddingSpec,
}

/// Slot 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum InterestSpec {
    /// The mean of the newest behaviours.
    Base {
        /// How many of the newest.
        #[serde(default = "fifty")]
        limit: usize,
    },
    /// DIN's activation unit over the newest behaviours.
    Din {
        /// How many of the newest.
        #[serde(default = "fifty")]
        limit: usize,
        /// Widths of the unit's two hidden layers.
        #[serde(default = "unit")]
        hidden: [usize; 2],
        /// Whether the weights of a history are put through a softmax.
        #[serde(default)]
        normalise: Normalise,
    },
    /// `din`, and multi-head attention over the behaviours of the candidate's category.
    Sim {
        /// How many of the newest.
        #[serde(default = "fifty")]
        limit: usize,
        /// Widths of the unit's two hidden layers.
        #[serde(default = "unit")]
        hidden: [usize; 2],
        /// Whether the unit's weights of a history are put through a softmax.
        #[serde(default)]
        normalise: Normalise,
        /// How many of the candidate's category.
        #[serde(default = "fifty")]
        matching: usize,
        /// Heads of the attention.
        #[serde(default = "two")]
        heads: usize,
        /// Width of keys and queries of one head.
        #[serde(default = "sixteen")]
        width: usize,
    },
}

/// Slot 2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CrossingSpec {
    /// Nothing.
    None {},
    /// A factorisation machine over the key fields.
    Fm {},
    /// A weight for each id and task, and for each number and task.
    Linear {},
    /// Both.
    #[serde(rename = "fm+linear")]
    FmLinear {},
}

/// Slot 3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SharingSpec {
    /// No deep part: the logits are the crossing's. Interest and towers are not built.
    None {},
    /// One network for all tasks.
    SharedBottom {
        /// Widths of its layers.
        #[serde(default = "expert")]
        hidden: Vec<usize>,
    },
    /// Experts, mixed for each task by a gate of its own.
    Mmoe {
        /// How many experts.
        #[serde(default = "four")]
        experts: usize,
        /// Widths of an expert's layers.
        #[serde(default = "expert")]
        hidden: Vec<usize>,
        /// What stands behind an expert's last layer.
        #[serde(default)]
        normalise: ExpertNorm,
    },
    /// Experts of each task beside shared ones, in levels.
    Ple {
        /// How many levels.
        #[serde(default = "one")]
        levels: usize,
        /// Shared experts of a level.
        #[serde(default = "two")]
        shared: usize,
        /// Experts of each task in a level.
        #[serde(default = "one")]
        own: usize,
        /// Widths of an expert's layers.
        #[serde(default = "expert")]
        hidden: Vec<usize>,
        /// What stands behind an expert's last layer.
        #[serde(default)]
        normalise: ExpertNorm,
    },
}

/// What stands behind the last layer of an expert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpertNorm {
    /// ReLU.
    #[default]
    None,
    /// Layer normalisation and SiLU (HoME).
    LayerNorm,
}

/// Slot 4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FunnelSpec {
    /// Each task's head gives its probability on every impression.
    Independent {
        /// Widths of each task's tower.
        #[serde(default = "tower")]
        tower: Vec<usize>,
    },
    /// Each head gives the probability after the parent; they are multiplied along the tree.
    Esmm {
        /// Widths of each task's tower.
        #[serde(default = "tower")]
        tower: Vec<usize>,
    },
    /// Each tower hears its parent's; a calibrator keeps a child below its parent.
    Aitm {
        /// Widths of each task's tower.
        #[serde(default = "tower")]
        tower: Vec<usize>,
        /// Weight of the calibrator.
        #[serde(default = "calibrator")]
        calibrator: f64,
    },
}

/// Which ids have rows, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddingSpec {
    /// The occurrence from which on an id has a row: 1 is the first.
    pub admission: u8,
    /// Most rows of one width. No part of what a model is: rows that are there stay where there may be fewer, and none come.
    #[serde(skip)]
    pub max_rows: usize,
    /// Event time for which a row is kept without being used; `None` means for ever.
    pub expiry: Option<Span>,
}

impl Default for EmbeddingSpec {
    fn default() -> Self {
        Self { admission: 1, max_rows: 10_000_000, expiry: None }
    }
}

impl Default for InterestSpec {
    fn default() -> Self {
        Self::Sim {
            limit: fifty(),
            hidden: unit(),
            normalise: Normalise::None,
            matching: fifty(),
            heads: two(),
            width: sixteen(),
        }
    }
}

impl Default for CrossingSpec {
    fn default() -> Self {
        Self::None {}
    }
}

impl Default for SharingSpec {
    fn default() -> Self {
        Self::Ple {
            levels: one(),
            shared: two(),
            own: one(),
            hidden: expert(),
            normalise: ExpertNorm::LayerNorm,
        }
    }
}

impl Default for FunnelSpec {
    fn default() -> Self {
        Self::Aitm { tower: tower(), calibrator: calibrator() }
    }
}

impl FunnelSpec {
    /// Widths of each task's tower.
    pub fn tower(&self) -> &[usize] {
        match self {
            Self::Independent { tower } | Self::Esmm { tower } | Self::Aitm { tower, .. } => tower,
        }
    }
}

impl CrossingSpec {
    /// Whether there is a factorisation machine.
    pub fn has_fm(&self) -> bool {
        matches!(self, Self::Fm {} | Self::FmLinear {})
    }

    /// Whether there are linear weights.
    pub fn has_linear(&self) -> bool {
        matches!(self, Self::Linear {} | Self::FmLinear {})
    }
}

impl ModelSpec {
    /// The reference model of the parity figures: as the default, with experts behind ReLU.
    pub fn reference() -> Self {
        let sharing = SharingSpec::Ple {
            levels: one(),
            shared: two(),
            own: one(),
            hidden: expert(),
            normalise: ExpertNorm::None,
        };
        Self { sharing, ..Self::default() }
    }

    /// The names of the four slots' entries, such as `sim+none+ple+aitm`.
    pub fn name(&self) -> String {
        let interest = match self.interest {
            InterestSpec::Base { .. } => "base",
            InterestSpec::Din { .. } => "din",
            InterestSpec::Sim { .. } => "sim",
        };
        let crossing = match self.crossing {
            CrossingSpec::None {} => "none",
            CrossingSpec::Fm {} => "fm",
            CrossingSpec::Linear {} => "linear",
            CrossingSpec::FmLinear {} => "fm-linear",
        };
        let sharing = match self.sharing {
            SharingSpec::None {} => "none",
            SharingSpec::SharedBottom { .. } => "shared-bottom",
            SharingSpec::Mmoe { .. } => "mmoe",
            SharingSpec::Ple { .. } => "ple",
        };
        let funnel = match self.funnel {
            FunnelSpec::Independent { .. } => "independent",
            FunnelSpec::Esmm { .. } => "esmm",
            FunnelSpec::Aitm { .. } => "aitm",
        };
        [interest, crossing, sharing, funnel].join("+")
    }

    /// Whether there is more than the crossing.
    pub fn is_deep(&self) -> bool {
        !matches!(self.sharing, SharingSpec::None {})
    }

    /// Whether the weights have variances.
    pub(crate) fn has_variances(&self) -> bool {
        self.learning.method == Method::Bayes
    }

    /// The looks into the history that the model reads, in order: what a schema's `lookups` must be.
    pub fn lookups(&self) -> Vec<Lookup> {
        if !self.is_deep() {
            return Vec::new();
        }
        match self.interest {
            InterestSpec::Base { limit } | InterestSpec::Din { limit, .. } => {
                vec![Lookup::Newest { limit }]
            }
            InterestSpec::Sim { limit, matching, .. } => {
                vec![Lookup::Newest { limit }, Lookup::Matching { limit: matching }]
            }
        }
    }
}

/// A mistake in a model's configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct SpecError {
    /// Path below the model's section, such as `sharing.hidden`.
    pub place: String,
    /// What was expected, what was found, and what would be right.
    pub problem: String,
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

fn four() -> usize {
    4
}

fn sixteen() -> usize {
    16
}

fn fifty() -> usize {
    50
}

fn unit() -> [usize; 2] {
    [80, 40]
}

fn expert() -> Vec<usize> {
    vec![128, 64]
}

fn tower() -> Vec<usize> {
    vec![64, 32]
}

fn calibrator() -> f64 {
    0.6
}
