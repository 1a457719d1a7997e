//! Pages of open impressions in the store. They come there with the checkpoint that knows of them first, as every other piece does.

use std::sync::Arc;

use crate::pipeline::spill::{Pages, SpillError};
use crate::store::{Store, keys};

/// The pages of all shards.
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
