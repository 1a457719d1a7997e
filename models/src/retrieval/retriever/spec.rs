//! How the retrieval model is shaped and how it learns.

use serde::{Deserialize, Serialize};
use sluice_features::ids::salted_hash;
use sluice_features::schema::Schema;
use sluice_features::time::Span;

use crate::retrieval::LogQ;
use crate::table::RowStore;

/// The configuration of a [`Retriever`](super::Retriever). Whoever configures validates it: widths,
/// temperature, batch and rates are above 0, the task is one of the schema's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrieverSpec {
    /// The width of the vectors.
    pub width: usize,
    /// The width of the towers' hidden layers.
    pub hidden: usize,
    /// What inner products are divided by in the loss.
    pub temperature: f64,
    /// The width of the embedding rows, the same for all ids.
    pub row_width: usize,
    /// Positives of a step; each of them has the items of all others as negatives.
    pub batch: usize,
    /// Further negatives of a step, drawn evenly from the items that are offered.
    pub uniform: usize,
    /// Adam's rate for the towers.
    pub dense_rate: f64,
    /// Row-wise Adagrad's rate for the rows.
    pub row_rate: f64,
    /// The standard deviation of a new row's numbers.
    pub row_deviation: f64,
    /// The weight of a new gap in the estimate of an item's frequency.
    pub frequency_rate: f64,
    /// Index of the task whose positives are learned.
    pub task: usize,
    /// The newest behaviours whose mean the user tower reads, at most as many as the schema looks up.
    pub history: usize,
    /// The occurrence from which on an id has a row: 1 is the first.
    pub admission: u8,
    /// Most rows, and most items whose frequency is kept. No part of what a model is: rows that are there stay where there may be fewer.
    #[serde(skip)]
    pub max_rows: usize,
    /// How long a row is kept without being used, in event time; for ever when absent.
    pub expiry: Option<Span>,
}

impl Default for RetrieverSpec {
    fn default() -> Self {
        Self {
            width: 64,
            hidden: 128,
            temperature: 0.07,
            row_width: 16,
            batch: 128,
            uniform: 64,
            dense_rate: 1e-3,
            row_rate: 0.05,
            row_deviation: 0.01,
            frequency_rate: 0.01,
            task: 0,
            history: 20,
            admission: 1,
            max_rows: 10_000_000,
            expiry: None,
        }
    }
}

impl RetrieverSpec {
    /// Returns how many bytes a row takes at most, with what is known of the frequency of its item.
    pub fn row_bytes(&self) -> usize {
        RowStore::row_bytes(self.row_width) + LogQ::ITEM_BYTES
    }

    /// Returns a hash of all that decides what a checkpoint means: this configuration and the schema.
    pub fn fingerprint(&self, schema: &Schema) -> u64 {
        // Fields are written in their declared order, so the text is canonical.
        let text = serde_json::to_vec(self).unwrap_or_default();
        salted_hash(schema.fingerprint(), &text)
    }
}
