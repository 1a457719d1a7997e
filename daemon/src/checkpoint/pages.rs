//! Pages of open impressions in the store: additions that are written ahead of the checkpoint that will know of them.

use std::path::PathBuf;
use std::sync::Arc;

use crate::pipeline::spill::{Pages, SpillError};
use crate::store::{Batch, Store, StoreError, keys};

/// The pages of all shards.
pub(super) struct StorePages {
    store: Arc<dyn Store>,
    folder: PathBuf,
    /// Room that has to be left: the store must not meet a full disk.
    room: u64,
}

impl StorePages {
    pub(super) fn new(store: Arc<dyn Store>, folder: PathBuf, room: u64) -> Self {
        Self { store, folder, room }
    }
}

impl Pages for StorePages {
    fn put(&self, shard: u32, page: u64, bytes: &[u8]) -> Result<bool, SpillError> {
        let failed = |source| failed(shard, page, "written", source);
        let free = fs2::available_space(&self.folder).map_err(|source| {
            let action = "tell its free space";
            failed(StoreError::Io { path: self.folder.clone(), action, source })
        })?;
        if free < self.room.saturating_add(bytes.len() as u64) {
            return Ok(false);
        }
        let mut batch = Batch::default();
        batch.put(keys::open_impressions(shard, page), bytes);
        self.store.apply(batch).map(|()| true).map_err(failed)
    }

    fn get(&self, shard: u32, page: u64) -> Result<Option<Vec<u8>>, SpillError> {
        let found = self.store.get(&keys::open_impressions(shard, page));
        found.map_err(|source| failed(shard, page, "read", source))
    }

    fn remove(&self, shard: u32, page: u64) -> Result<(), SpillError> {
        let mut batch = Batch::default();
        batch.delete(keys::open_impressions(shard, page));
        self.store.apply(batch).map_err(|source| failed(shard, page, "removed", source))
    }
}

fn failed(shard: u32, page: u64, action: &'static str, source: StoreError) -> SpillError {
    let damaged = source.is_damage();
    SpillError::Store { shard, page, action, damaged, source: Arc::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn a_page_is_put_read_and_removed_and_refused_where_there_is_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<MemoryStore> = Arc::default();
        let pages = |room| StorePages::new(store.clone(), folder.path().into(), room);
        assert!(pages(0).put(1, 7, b"page").unwrap());
        assert!(!pages(u64::MAX).put(1, 8, b"page").unwrap());
        let pages = pages(0);
        assert_eq!(pages.get(1, 7).unwrap().as_deref(), Some(&b"page"[..]));
        assert_eq!((pages.get(1, 8).unwrap(), pages.get(0, 7).unwrap()), (None, None));
        pages.remove(1, 7).unwrap();
        assert_eq!(pages.get(1, 7).unwrap(), None);
    }
}
