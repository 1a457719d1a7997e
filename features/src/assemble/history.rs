//! What assembling asks of a user's behaviours.

use crate::dictionary::Dictionary;
use crate::ids::Numbers;
use crate::sequence::{Entry, Kinds, NO_CATEGORY, Sequence};
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
    /// Calls `visit` with the newest behaviours strictly before `before`, at most `limit`, newest first, of the types that `read` has.
    fn newest(&self, before: EventTime, limit: usize, read: &Kinds, visit: impl FnMut(Past));

    /// The same, only of the behaviours with this category.
    fn matching(
        &self,
        category: u64,
        before: EventTime,
        limit: usize,
        read: &Kinds,
        visit: impl FnMut(Past),
    );
}

/// One user's sequence, read through the numbers that stand for items and categories in it.
#[derive(Debug)]
pub struct UserHistory<'a> {
    /// What the user did.
    pub sequence: Sequence<'a>,
    /// The items behind their numbers.
    pub items: &'a Dictionary,
    /// The categories behind their numbers.
    pub categories: &'a Numbers,
}

impl UserHistory<'_> {
    fn past(&self, entry: Entry) -> Past {
        let category = (entry.category != NO_CATEGORY).then(|| self.categories.id(entry.category));
        Past { item: self.items.id(entry.item), category, time: entry.time }
    }
}

impl History for UserHistory<'_> {
    fn newest(&self, before: EventTime, limit: usize, read: &Kinds, mut visit: impl FnMut(Past)) {
        self.sequence.newest(before, limit, read, |entry| visit(self.past(entry)));
    }

    fn matching(
        &self,
        category: u64,
        before: EventTime,
        limit: usize,
        read: &Kinds,
        mut visit: impl FnMut(Past),
    ) {
        // A category without a number was never in a sequence.
        if let Some(category) = self.categories.number(category) {
            self.sequence.matching(category, before, limit, read, |entry| visit(self.past(entry)));
        }
    }
}
