//! What assembling asks of a user's behaviours.

use crate::time::EventTime;

/// A past behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// Its item's id.
    pub item: u64,
    /// Its category's id, if the item had one.
    pub category: Option<u64>,
    /// When.
    pub time: EventTime,
}

/// Looks into one user's behaviours.
pub trait History {
    /// Calls `visit` with the newest behaviours strictly before `before`, at most `limit`, newest first, of the types that `read` has
    /// by number.
    fn newest(&self, before: EventTime, limit: usize, read: &[bool], visit: impl FnMut(Past));

    /// The same, only of the behaviours with this category.
    fn matching(
        &self,
        category: u64,
        before: EventTime,
        limit: usize,
        read: &[bool],
        visit: impl FnMut(Past),
    );
}
