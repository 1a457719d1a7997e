//! Reading ahead: users of a batch who are not in memory are read by several threads before it is taken, so that a disk has as much to do at a
//! time as it can, and the pipeline is not held meanwhile.
//!
//! Whose a record is, its key says. One without a key, or with another, is read when it is taken, and so is one whose window closes: the pipeline
//! is held then, which costs time and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_features::ids::UserId;
use sluice_features::pack::{PackKind, Packs};

use super::ingest::Ingest;
use crate::kafka::Batch;

/// Reads at a time.
const READERS: usize = 8;
/// Fewer are read as they are needed: a thread costs as much as some reads.
const FEW: usize = 32;

impl Ingest {
    /// Reads the packs of a batch's users.
    pub(super) fn read_ahead(&self, batch: &Batch, partition: u32) {
        let (packs, wanted) = {
            let pipeline = self.shared.pipeline.read();
            let Some(shard) = pipeline.shards().get(partition as usize) else { return };
            let Some(packs) = shard.sequences.packs() else { return };
            let keys = batch.records().filter_map(|record| std::str::from_utf8(record.key?).ok());
            let packed = keys.filter_map(|key| shard.sequences.pack_of(UserId::of(key)));
            (Arc::clone(packs), packed.collect::<BTreeSet<u64>>())
        };
        if wanted.len() >= FEW {
            read(&*packs, partition, &wanted.into_iter().collect::<Vec<_>>());
        }
    }
}

/// Reads packs of users into the cache before the store. What cannot be read is told when it is taken.
fn read(packs: &dyn Packs, shard: u32, wanted: &[u64]) {
    std::thread::scope(|scope| {
        for part in wanted.chunks(wanted.len().div_ceil(READERS)) {
            let read = move || {
                part.iter().for_each(|number| drop(packs.get(PackKind::Users, shard, *number)));
            };
            // Where the system gives no thread they are read later.
            drop(std::thread::Builder::new().name("read-ahead".into()).spawn_scoped(scope, read));
        }
    });
}
