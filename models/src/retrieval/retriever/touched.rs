//! Users and items whose vectors have changed since they were last asked for.

use std::collections::HashSet;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use sluice_features::ids::{ItemId, UserId};

/// Ids of one kind that are kept; beyond, all count as touched.
const MOST: usize = 100_000;

/// What [`Retriever::touched`](super::Retriever::touched) returns, ids ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// Users whose behaviours or rows have changed, or whose row is gone; empty when `all_users`. May
    /// hold ids that nobody has.
    pub users: Vec<UserId>,
    /// Items whose rows have changed or are gone; empty when `all_items`. May hold ids that nothing has.
    pub items: Vec<ItemId>,
    /// There were too many users to keep: take every one as changed.
    pub all_users: bool,
    /// There were too many items to keep: take every one as changed.
    pub all_items: bool,
}

/// The ids since the last drain.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    users: Kind,
    items: Kind,
}

#[derive(Clone, Debug, Default)]
struct Kind {
    ids: HashSet<u64, RandomState>,
    all: bool,
}

impl Marks {
    pub(super) fn user(&mut self, user: UserId) {
        self.users.add(user.0);
    }

    pub(super) fn item(&mut self, item: ItemId) {
        self.items.add(item.0);
    }

    /// Returns what was marked and forgets it.
    pub(super) fn drain(&mut self) -> Touched {
        let touched = self.list();
        self.users.clear();
        self.items.clear();
        touched
    }

    /// Returns what was marked.
    pub(super) fn list(&self) -> Touched {
        Touched {
            users: self.users.sorted().into_iter().map(UserId).collect(),
            items: self.items.sorted().into_iter().map(ItemId).collect(),
            all_users: self.users.all,
            all_items: self.items.all,
        }
    }
}

impl From<Touched> for Marks {
    fn from(touched: Touched) -> Self {
        let mut marks = Self::default();
        touched.users.into_iter().for_each(|user| marks.user(user));
        touched.items.into_iter().for_each(|item| marks.item(item));
        marks.users.all |= touched.all_users;
        marks.items.all |= touched.all_items;
        marks
    }
}

impl Kind {
    fn add(&mut self, id: u64) {
        if self.all {
            return;
        }
        self.ids.insert(id);
        if self.ids.len() > MOST {
            self.ids.clear();
            self.all = true;
        }
    }

    fn clear(&mut self) {
        self.ids.clear();
        self.all = false;
    }

    fn sorted(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.ids.iter().copied().collect();
        ids.sort_unstable();
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_drained_ascending_and_end_at_their_bound() {
        let mut marks = Marks::default();
        [9, 3, 9].into_iter().for_each(|user| marks.user(UserId(user)));
        marks.item(ItemId(5));
        let restored = Marks::from(marks.list()).drain();
        let first = marks.drain();
        assert_eq!(
            (&first.users[..], &first.items[..]),
            (&[UserId(3), UserId(9)][..], &[ItemId(5)][..])
        );
        assert_eq!(restored, first);
        assert_eq!(marks.drain(), Touched::default());
        (0..=MOST as u64).for_each(|item| marks.item(ItemId(item)));
        let all = Touched { all_items: true, ..Touched::default() };
        assert_eq!(marks.drain(), all);
        assert_eq!(marks.drain(), Touched::default());
    }
}
