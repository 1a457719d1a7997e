//! How a model learns.

use serde::{Deserialize, Serialize};

/// Rates and limits of learning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LearningSpec {
    /// Adam's rate for dense parameters.
    pub dense_rate: f64,
    /// Row-wise Adagrad's rate for embeddings.
    pub row_rate: f64,
    /// Row-wise Adagrad's rate for the rows of `linear`, over the root of how many an example adds up: fields that are keys or lists. (So the first steps move
    /// the logit by as much whether there are five fields or fifty.)
    pub linear_rate: f64,
    /// Standard deviation of a new embedding's numbers.
    pub row_deviation: f64,
    /// The global norm of a step's gradient is cut to this; 0 means never.
    pub clip: f64,
    /// What a step is.
    pub method: Method,
    /// The priors of [`Method::Bayes`].
    pub prior: PriorSpec,
}

/// What a step is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Along the gradient: Adam and row-wise Adagrad.
    #[default]
    Gradient,
    /// An extended Kalman filter: every weight has a prior and a variance, which shrinks by what is learned of it. For models without a deep part.
    Bayes,
}

/// The priors of the weights of a model that learns by [`Method::Bayes`]: standard deviations around 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PriorSpec {
    /// Of the weights of ids (`linear`).
    pub weights: f64,
    /// Of the weights of numbers.
    pub numbers: f64,
    /// Of the numbers of embeddings (`fm`).
    pub rows: f64,
    /// What remains however much is learned, so that what changes is followed; 0: nothing.
    pub least: f64,
    /// `esmm`: what the first two are for a head after its parent, as a share of what they are for the parent; and what share of the parent's machine it has.
    pub child: f64,
}

impl Default for LearningSpec {
    fn default() -> Self {
        Self {
            dense_rate: 1e-3,
            row_rate: 0.05,
            linear_rate: 0.5,
            row_deviation: 0.01,
            clip: 10.0,
            method: Method::Gradient,
            prior: PriorSpec::default(),
        }
    }
}

impl Default for PriorSpec {
    fn default() -> Self {
        Self { weights: 0.3, numbers: 0.1, rows: 0.5, least: 0.01, child: 0.5 }
    }
}
