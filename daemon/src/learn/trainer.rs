//! The learner's work without its thread: predict, judge, learn. Live run, replay and tests call the same function.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sluice_features::funnel::MAX_TASKS;
use sluice_features::time::EventTime;
use sluice_models::evaluate::Progressive;
use sluice_models::learner::Learner;
use sluice_models::retrieval::Retrieval;

use super::guard::{Breach, Guard};
use crate::pipeline::work::{LearnBatch, Role, Verdict};

type Predictions = HashMap<u64, [f32; MAX_TASKS], foldhash::fast::FixedState>;

/// All that learning changes: one owner, no locks but those of the embedding tables.
pub struct Trainer {
    learner: Learner,
    retrieval: Retrieval,
    judge: Judge,
    covered: EventTime,
}

/// What is known about the quality of predictions, beside the parameters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judge {
    progressive: Progressive,
    guard: Guard,
    /// Predictions of impressions whose last window is open, by impression.
    waiting: Predictions,
}

/// What one batch did.
#[derive(Clone, Debug, Default)]
pub struct WorkReport {
    /// Examples learned or predicted.
    pub examples: usize,
    /// The step was refused because the loss or a gradient was not finite.
    pub refused: bool,
    /// Verdicts without a kept prediction (thinned out, or from before the last new model).
    pub unjudged: usize,
    /// Windows that the guard found unsound.
    pub breaches: Vec<Breach>,
}
