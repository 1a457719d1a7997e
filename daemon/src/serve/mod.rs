//! Answers to requests: what stands between a request and its answer, and what answering reads.
//!
//! ```text
//! requests -> Intake -> queue -> Answering (one a scorer) -> responses
//!                                   Scorer: candidates -> examples -> probabilities -> score -> order
//! ```
//!
//! Candidates become examples by the functions that make impressions into examples, at the request's time, so an answer and the
//! training see the same rows. The pipeline's lock is held for reading only while candidates and examples are gathered; scoring reads a
//! snapshot of the dense parameters, and rows under the table's own short locks. Names that are not in memory are read from the store without the
//! lock, those of the best only.

pub mod answer;
mod candidates;
mod finder;
mod gather;
mod joint;
pub mod requests;
mod sieve;
mod unanswered;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use sluice_features::catalogue::Catalogue;
use sluice_features::time::EventTime;
use sluice_models::model::{Embeddings, Model};
use sluice_models::retrieval::{Index, Towers};

use crate::clock::Clock;
use crate::config;
use crate::pipeline::names::Names;
use crate::pipeline::{Pipeline, Rules};

pub use answer::Scorer;
pub(crate) use gather::{Asker, append};
pub use unanswered::{Code, KINDS, OUTCOMES, Outcome, Unanswered, kind_number};

/// What the learner hands to readers, swapped as a whole.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The dense part of the model.
    pub model: Model<f32>,
    /// The retrieval model.
    pub towers: Towers,
    /// Every final example up to this event time is in the parameters; `None` before the first.
    pub learned_until: Option<EventTime>,
    /// Steps that were made.
    pub version: u64,
    /// The guard lets this be published.
    pub sound: bool,
}

/// Item vectors and the towers that made them: users are encoded by these, so that the inner products mean something.
#[derive(Clone, Debug)]
pub struct ItemIndex {
    /// The towers of this version.
    pub towers: Towers,
    /// The vectors of all items that can be had.
    pub index: Index,
}

/// What answering and publishing read.
pub struct Serving {
    /// Histories, features, counters, names.
    pub pipeline: Arc<RwLock<Pipeline>>,
    /// The strings of names.
    pub names: Arc<Names>,
    /// The newest parameters.
    pub snapshot: ArcSwap<Snapshot>,
    /// The rows of the model.
    pub embeddings: Arc<Embeddings>,
    /// The retrieval index; `None` until the publisher has made the first.
    pub index: RwLock<Option<ItemIndex>>,
    /// The pipeline's rules.
    pub rules: Rules,
    /// Features of items, without the pipeline's lock.
    pub items: Arc<Catalogue>,
    /// How requests are answered.
    pub settings: config::Serve,
    /// The model's name in answers; the number of steps is added to it.
    pub model: String,
    /// The clock of deadlines and durations.
    pub clock: Clock,
}

impl Serving {
    /// Creates what answering reads, around a pipeline and the first snapshot.
    pub fn new(
        pipeline: Arc<RwLock<Pipeline>>,
        snapshot: Snapshot,
        embeddings: Arc<Embeddings>,
        settings: config::Serve,
        model: impl Into<String>,
        clock: Clock,
    ) -> Self {
        let (rules, items, names) = {
            let pipeline = pipeline.read();
            (pipeline.rules().clone(), pipeline.item_features(), pipeline.names())
        };
        Self {
            pipeline,
            names,
            snapshot: ArcSwap::from_pointee(snapshot),
            embeddings,
            index: RwLock::new(None),
            rules,
            items,
            settings,
            model: model.into(),
            clock,
        }
    }
}
