//! The candidates of one answer and their names, in memory that serves again.

use sluice_features::ids::ItemId;

use crate::pipeline::Pipeline;

/// Candidates in the order in which they were found.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    ids: Vec<ItemId>,
    unknown: Vec<bool>,
    names: String,
    ends: Vec<usize>,
}

impl Candidates {
    pub(super) fn clear(&mut self) {
        self.ids.clear();
        self.unknown.clear();
        self.names.clear();
        self.ends.clear();
    }

    /// Adds an item by its name. It is unknown when no record has ever named it.
    pub(super) fn push_named(&mut self, pipeline: &Pipeline, id: ItemId, name: &str) {
        self.push(id, name, pipeline.shared().items.text(id.0) != Some(name));
    }

    /// Adds an item that some record has named; others are left out. Returns whether it was added.
    pub(super) fn push_known(&mut self, pipeline: &Pipeline, id: ItemId) -> bool {
        let name = pipeline.shared().items.text(id.0);
        if let Some(name) = name {
            self.push(id, name, false);
        }
        name.is_some()
    }

    fn push(&mut self, id: ItemId, name: &str, unknown: bool) {
        self.ids.push(id);
        self.unknown.push(unknown);
        self.names.push_str(name);
        self.ends.push(self.names.len());
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn id(&self, place: usize) -> ItemId {
        self.ids[place]
    }

    pub(super) fn is_unknown(&self, place: usize) -> bool {
        self.unknown[place]
    }

    pub(super) fn name(&self, place: usize) -> &str {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.names[start..self.ends[place]]
    }

    /// Replaces `order` by the best `limit` places: the highest score first, of equal scores the smaller name.
    pub(super) fn rank(&self, scores: &[f32], limit: usize, order: &mut Vec<usize>) {
        order.clear();
        order.extend(0..self.len());
        order.sort_unstable_by(|&a, &b| {
            scores[b].total_cmp(&scores[a]).then_with(|| self.name(a).cmp(self.name(b)))
        });
        order.truncate(limit);
    }
}
