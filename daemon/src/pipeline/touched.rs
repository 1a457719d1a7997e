//! Which items and users have changed since somebody last asked: what has to be encoded and published anew.

use sluice_features::ids::{ItemId, UserId};
use sluice_features::maps::Set;

/// Ids of one kind, beyond which all are meant.
const MOST: usize = 100_000;

/// Items with new features, and users with new behaviour or features.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    items: Set<ItemId>,
    users: Set<UserId>,
    /// In the order of their newest behaviour, with repetitions.
    order: Vec<UserId>,
    all_items: bool,
}

impl Changed {
    pub(super) fn item(&mut self, item: ItemId) {
        if self.items.len() < MOST {
            self.items.insert(item);
        } else {
            self.all_items = true;
        }
    }

    pub(super) fn user(&mut self, user: UserId) {
        self.users.insert(user);
        self.order.push(user);
        if self.order.len() >= MOST {
            // Who was active longest ago is put off until the next behaviour.
            self.order.drain(..MOST / 2);
            self.users.clear();
            self.users.extend(&self.order);
        }
    }

    /// Tells whether more items have changed than are listed.
    pub fn all_items(&self) -> bool {
        self.all_items
    }

    /// Returns the items in ascending order.
    pub fn items(&self) -> Vec<ItemId> {
        let mut items: Vec<ItemId> = self.items.iter().copied().collect();
        items.sort_unstable();
        items
    }

    /// Returns the users, each once, the newest behaviour first.
    pub fn users(&self) -> Vec<UserId> {
        let mut left = self.users.clone();
        self.order.iter().rev().copied().filter(|user| left.remove(user)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_come_once_and_the_newest_first() {
        let mut changed = Changed::default();
        for user in [1, 2, 1, 3] {
            changed.user(UserId(user));
        }
        assert_eq!(changed.users(), [UserId(3), UserId(1), UserId(2)]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut changed = Changed::default();
        for id in 0..3 * MOST as u64 {
            changed.user(UserId(id));
            changed.item(ItemId(id));
        }
        assert!(changed.users().len() <= MOST && changed.items().len() <= MOST);
        assert!(changed.all_items() && changed.users()[0] == UserId(3 * MOST as u64 - 1));
    }
}
