//! How many entries each group may have.

use super::group::Group;

/// The room that is left. Half of it is kept apart in even parts, so that many users leave room for items; the other half is for whoever comes
/// first. Places of entries that have ended are used again by their own group.
pub(super) struct Room {
    /// Kept apart for each group.
    part: usize,
    /// What is left beside, for all.
    left: usize,
}

impl Room {
    /// Returns what is left of `most` entries.
    pub(super) fn new<'a>(groups: impl Iterator<Item = &'a Group> + Clone, most: usize) -> Self {
        let part = most / (2 * groups.clone().count().max(1));
        let taken: usize = groups.map(|group| group.places().max(part)).sum();
        Self { part, left: most.saturating_sub(taken) }
    }

    /// Takes a place for a group that has so many. Returns false when there is none left.
    pub(super) fn take(&mut self, places: usize) -> bool {
        if places < self.part {
            return true;
        }
        let free = self.left > 0;
        self.left -= usize::from(free);
        free
    }
}
