//! What a configuration means: validated, in the units of the code. Only this leaves the folder.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sluice_features::attributes::AttributeKey;
use sluice_features::funnel::Funnel;
use sluice_features::schema::Schema;
use sluice_features::time::Span;
use sluice_models::spec::ModelSpec;

use super::expression::Expression;
use super::memory::{Bounds, Memory};
use crate::kafka::{Connection, Start};

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to reach the cluster, and the topics' names.
    pub kafka: Kafka,
    /// The tree of tasks and the extra behaviours.
    pub funnel: Funnel,
    /// How long events of one impression wait for each other.
    pub joining: Joining,
    /// What the daemon has to know of an item's attributes.
    pub items: Items,
    /// The most behaviours that are kept of a user, at least 1.
    pub sequence_length: usize,
    /// What the model reads: made of fields, counters and the model's looks into the history.
    pub schema: Schema,
    /// What is learned.
    pub model: Model,
    /// How it is learned.
    pub learn: Learn,
    /// The two-tower model.
    pub retrieval: Retrieval,
    /// Answers to requests.
    pub serve: Serve,
    /// A touched embedding is published at most once in so long.
    pub publish_interval: Duration,
    /// Refreshed top lists.
    pub scores: Scores,
    /// The state on disk.
    pub checkpoint: Checkpoint,
    /// How much memory what grows may take.
    pub memory: Memory,
    /// The most bytes that a capture takes on disk.
    pub capture_bytes: u64,
    /// Progressive validation.
    pub evaluate: Evaluate,
    /// Where `/metrics`, `/live`, `/ready` and `/status` listen.
    pub listen: SocketAddr,
    /// What is logged, and how.
    pub log: Log,
}

impl Config {
    /// The same with the bounds of a run on another machine.
    #[must_use]
    pub fn bounded(mut self, bounds: Bounds) -> Self {
        self.memory.bounds = bounds;
        self.model.spec.embeddings.max_rows = usize::try_from(bounds.rows).unwrap_or(usize::MAX);
        self
    }
}

/// How to reach the cluster, and the topics' names.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// The cluster.
    pub connection: Connection,
    /// The consumer group.
    pub group: String,
    /// The topics' names.
    pub topics: Topics,
    /// Topics that a request may name for its answer, beside [`Topics::responses`].
    pub reply_topics: Vec<String>,
    /// Where a daemon without checkpoint starts.
    pub start: Start,
    /// Runs a broker inside the process instead of connecting to one.
    pub embedded: bool,
}

/// The topics' names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Impressions and behaviours, in.
    pub events: String,
    /// Item features, in, compacted.
    pub items: String,
    /// User features, in, compacted.
    pub users: String,
    /// Requests, in.
    pub requests: String,
    /// Answers, out.
    pub responses: String,
    /// Vectors of items and users, out, compacted.
    pub embeddings: String,
    /// Refreshed top lists, out, compacted.
    pub scores: String,
    /// Records that were refused, out.
    pub dead_letter: String,
}

impl Topics {
    /// Returns the names that begin with a prefix.
    pub fn with_prefix(prefix: &str) -> Self {
        let name = |what: &str| format!("{prefix}.{what}");
        Self {
            events: name("events"),
            items: name("items"),
            users: name("users"),
            requests: name("requests"),
            responses: name("responses"),
            embeddings: name("embeddings"),
            scores: name("scores"),
            dead_letter: name("dead-letter"),
        }
    }
}

/// How long events of one impression wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joining {
    /// How much later than its partition's newest event an event may come and be in time.
    pub lateness: Span,
}

/// What the daemon has to know of an item's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Items {
    /// The attribute that holds the category.
    pub category: AttributeKey,
    /// The attribute that says whether an item may be recommended.
    pub available: AttributeKey,
    /// How long an item counts as new.
    pub new_for: Span,
}

/// What is learned.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The four slots, rates and limits of learning, limits of the embedding tables.
    pub spec: ModelSpec,
    /// For each task, the probability that is expected before anything is learned, between 0 and 1; with a view as entry that of a view in the
    /// sample, of the other tasks that on a view.
    pub priors: Vec<f32>,
}

/// How it is learned, beside the rates and limits in [`Model::spec`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learn {
    /// Examples in a step, at least 1.
    pub batch: usize,
    /// A step is made with fewer examples when the oldest has waited for so long.
    pub max_age: Duration,
    /// From what the first parameters are drawn.
    pub seed: u64,
    /// Threads of a step, at least 1.
    pub threads: usize,
}

/// The two-tower model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retrieval {
    /// Width of the vectors.
    pub width: usize,
    /// The task whose positives train it.
    pub task: usize,
    /// After so many steps of this model all item vectors are encoded anew, at least 1; at first earlier, after 16, 32, 64, ... of them.
    pub refresh: u64,
    /// Divides the similarities in the softmax, above 0.
    pub temperature: f32,
}

/// Answers to requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Serve {
    /// The ranking score.
    pub score: Expression,
    /// The most items of a `rank` request.
    pub max_candidates: usize,
    /// Candidates that a `recommend` request scores.
    pub candidates: usize,
    /// Threads that score, at least 1.
    pub scorers: usize,
    /// Requests that may wait, at least 1.
    pub queue: usize,
}

/// Refreshed top lists.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// The share of one core that they may take, 0 to 1; 0: none are made.
    pub budget: f64,
    /// Items in a list, at least 1.
    pub k: usize,
    /// A user gets at most one list in so long.
    pub interval: Duration,
}

/// The state on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The folder of the state.
    pub path: PathBuf,
    /// How often a checkpoint is made.
    pub interval: Duration,
    /// Of how many checkpoints the parameter files are kept, at least 2.
    pub keep: usize,
}

/// Progressive validation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluate {
    /// The length of the sliding windows.
    pub window: Span,
    /// The share of impressions that are predicted on arrival, above 0 to 1.
    pub share: f64,
    /// So many impressions that would be judged come first and are left out of the figures. Set by `sluice replay`, not by a file.
    pub from_impression: u64,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level, or a filter of targets and levels.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}
