//! Pages of open impressions and of names, and packs of users and segments, in the store. They come there with the checkpoint that knows of them first, as
//! every other piece does.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sluice_features::pack::{OutOfReach, PackKind, Packs};
use sluice_features::wire::Role;

use super::pieces::kind_of;
use crate::pipeline::names::{NamePages, NamesError};
use crate::pipeline::spill::{PAGE, Pages};
use crate::store::{Store, StoreError, keys};

/// Bytes of packs that were read lately: for those that are read ahead of their use, and for users who lie together.
const READ: u64 = 16 << 20;
/// About how many packs these are.
const PACKS: usize = 1024;

/// The pages and packs of all shards, and of what they share.
pub(super) struct StorePages {
    store: Arc<dyn Store>,
    read: Cache<(PackKind, u32, u64), Arc<[u8]>, Bytes>,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<(PackKind, u32, u64), Arc<[u8]>> for Bytes {
    fn weight(&self, _: &(PackKind, u32, u64), bytes: &Arc<[u8]>) -> u64 {
        bytes.len() as u64 + 64
    }
}

impl StorePages {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, read: Cache::with_weighter(PACKS, READ, Bytes) }
    }
}

fn out_of_reach(what: &'static str, shard: u32, number: u64, source: StoreError) -> OutOfReach {
    let damaged = source.is_damage();
    OutOfReach::Store { what, shard, number, damaged, source: Arc::new(source) }
}

impl Packs for StorePages {
    fn get(
        &self,
        kind: PackKind,
        shard: u32,
        number: u64,
    ) -> Result<Option<Arc<[u8]>>, OutOfReach> {
        let key = (kind, shard, number);
        if let Some(read) = self.read.get(&key) {
            return Ok(Some(read));
        }
        let found = self.store.get(&keys::pack(kind, shard, number));
        let found = found.map_err(|source| out_of_reach(kind.name(), shard, number, source))?;
        let found: Option<Arc<[u8]>> = found.map(Into::into);
        if let Some(found) = &found {
            self.read.insert(key, Arc::clone(found));
        }
        Ok(found)
    }
}

impl Pages for StorePages {
    fn get(&self, shard: u32, page: u64) -> Result<Option<Vec<u8>>, OutOfReach> {
        let found = self.store.get(&keys::open_impressions(shard, page));
        found.map_err(|source| out_of_reach(PAGE, shard, page, source))
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
