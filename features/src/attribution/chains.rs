//! The order of long chains of open impressions of one user and item, by which a place in them is found without walking.

use std::collections::BTreeMap;

use crate::ids::{EventId, ItemId, UserId};
use crate::maps::Map;
use crate::time::EventTime;

/// The order within a chain.
pub(super) type Rank = (EventTime, EventId);

/// Places in chains that were found to be long, by rank.
#[derive(Clone, Debug, Default)]
pub(super) struct LongChains {
    chains: Map<(UserId, ItemId), BTreeMap<Rank, u32>>,
    length: usize,
}

impl LongChains {
    /// Adds an impression to a chain, which is long from now on.
    pub(super) fn insert(&mut self, of: (UserId, ItemId), rank: Rank, place: u32) {
        self.chains.entry(of).or_default().insert(rank, place);
        self.length += 1;
    }

    /// Takes an impression out of a chain. One that is empty is long no more.
    pub(super) fn remove(&mut self, of: (UserId, ItemId), rank: Rank) {
        let Some(chain) = self.chains.get_mut(&of) else { return };
        self.length -= usize::from(chain.remove(&rank).is_some());
        if chain.is_empty() {
            self.chains.remove(&of);
        }
    }

    /// Returns the newest impression of a chain that ranks below this.
    pub(super) fn below(&self, of: (UserId, ItemId), rank: Rank) -> Option<u32> {
        self.chains.get(&of)?.range(..rank).next_back().map(|(_, &place)| place)
    }

    /// Returns the oldest impression of a chain.
    pub(super) fn oldest(&self, of: (UserId, ItemId)) -> Option<u32> {
        self.chains.get(&of)?.first_key_value().map(|(_, &place)| place)
    }

    /// Returns about how many bytes the order takes; nodes of trees are two thirds full.
    pub(super) fn memory(&self) -> usize {
        self.length * size_of::<(Rank, u32)>() * 3 / 2
    }
}
