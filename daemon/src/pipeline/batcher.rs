//! Gathers examples into micro-batches. A batch is cut when it is full, or when the caller says so.

use std::collections::VecDeque;

use sluice_features::schema::Schema;
use sluice_features::time::EventTime;

use super::work::{LearnBatch, Role, Verdict};

/// Verdicts of one batch, beyond which it is cut although it has few examples.
const MOST_VERDICTS: usize = 4096;

/// The batch that fills, those that wait to be fetched, and used ones whose memory serves again.
pub(super) struct Batcher {
    size: usize,
    lists: usize,
    lookups: usize,
    filling: LearnBatch,
    ready: VecDeque<LearnBatch>,
    spare: Vec<LearnBatch>,
}

impl Batcher {
    pub(super) fn new(size: usize, schema: &Schema) -> Self {
        let (lists, lookups) = (schema.list_fields().len(), schema.lookups.len());
        Self {
            size: size.max(1),
            lists,
            lookups,
            filling: LearnBatch::new(lists, lookups),
            ready: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// Returns the batch that fills. Whatever is added to its columns is completed by [`Batcher::added`].
    pub(super) fn filling(&mut self) -> &mut LearnBatch {
        &mut self.filling
    }

    /// Takes note of the role of the example that was added last, and of when its record arrived.
    pub(super) fn added(&mut self, role: Role, arrived: EventTime) {
        self.filling.roles.push(role);
        let oldest = self.filling.oldest_record.get_or_insert(arrived);
        *oldest = (*oldest).min(arrived);
    }

    /// Tells whether the batch is full.
    pub(super) fn is_full(&self) -> bool {
        self.filling.roles.len() >= self.size
    }

    /// Adds a verdict. Tells whether the batch is full.
    pub(super) fn judge(&mut self, verdict: Verdict) -> bool {
        self.filling.verdicts.push(verdict);
        self.filling.verdicts.len() >= MOST_VERDICTS
    }

    /// Ends the batch, unless it is empty.
    pub(super) fn cut(&mut self, covered: Option<EventTime>) {
        if self.filling.is_empty() {
            return;
        }
        let next = self.spare.pop().unwrap_or_else(|| LearnBatch::new(self.lists, self.lookups));
        let mut full = std::mem::replace(&mut self.filling, next);
        full.covered = covered;
        self.ready.push_back(full);
    }

    pub(super) fn pop(&mut self) -> Option<LearnBatch> {
        self.ready.pop_front()
    }

    /// Returns how many batches wait to be fetched.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn recycle(&mut self, mut used: LearnBatch) {
        used.clear();
        self.spare.push(used);
    }

    /// Tells whether nothing fills and nothing waits to be fetched.
    pub(super) fn is_empty(&self) -> bool {
        self.filling.is_empty() && self.ready.is_empty()
    }

    pub(super) fn is_filling(&self) -> bool {
        !self.filling.is_empty()
    }
}
