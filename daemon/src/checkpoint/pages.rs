//! Pages of open impressions and of names in the store. They come there with the checkpoint that knows of them first, as every other piece does.

use std::sync::Arc;

use sluice_features::wire::Role;

use super::pieces::kind_of;
use crate::pipeline::names::{NamePages, NamesError};
use crate::pipeline::spill::{Pages, SpillError};
use crate::store::{Store, keys};

/// The pages of all shards, and of what they share.
pub(super) struct StorePages {
    store: Arc<dyn Store>,
}

impl StorePages {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

impl Pages for StorePages {
    fn get(&self, shard: u32, page: u64) -> Result<Option<Vec<u8>>, SpillError> {
        self.store.get(&keys::open_impressions(shard, page)).map_err(|source| {
            let damaged = source.is_damage();
            SpillError::Store { shard, page, damaged, source: Arc::new(source) }
        })
    }
}

impl NamePages for StorePages {
    fn get(&self, whose: Role, page: u32) -> Result<Option<Vec<u8>>, NamesError> {
        self.store.get(&keys::texts(kind_of(whose), page)).map_err(|source| {
            let damaged = source.is_damage();
            NamesError::Store { whose, page, damaged, source: Arc::new(source) }
        })
    }
}
