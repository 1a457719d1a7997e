//! The store: 64 shards, each under its own lock.
//!
//! A call takes the locks of all shards in ascending order, for at most [`LOCKED`] keys at a time. Within them the memory of keys is asked for ahead of
//! their turn (`ahead`), so that the waits for it overlap.

mod apply;
mod config;
mod learn;
mod read;
mod sweep;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::hash;
use super::image::{ImageError, ShardImage};
use super::index::Index;
use super::shard::Shard;
pub use config::{RowStoreConfig, RowStoreStats};

const SHARD_BITS: u32 = 6;
pub(super) const SHARDS: usize = 1 << SHARD_BITS;
/// Keys for which the locks are held at a time.
pub(super) const LOCKED: usize = 1024;
/// Bytes for the bits of a row: it has changed, it had changed before a freeze, it was put aside.
const BITS_BYTES: usize = 1;
/// No row.
pub(super) const NONE: u32 = u32::MAX;

/// Embedding rows by key, see the module. All methods take `&self`: readers may be many, and one
/// writer at a time keeps results reproducible.
#[derive(Debug)]
pub struct RowStore {
    config: RowStoreConfig,
    pub(super) shards: [RwLock<Shard>; SHARDS],
    length: AtomicUsize,
    /// Somebody reads an image of what it was.
    pub(super) frozen: AtomicBool,
    /// How often rows may have been removed.
    removals: AtomicU64,
}

/// The shard of a key with this hash.
#[inline(always)]
pub(super) fn shard_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARD_BITS)) as usize
}

impl RowStore {
    /// How many shards a store has, see [`Self::export`].
    pub const SHARDS: usize = SHARDS;

    /// Returns how many bytes a row of so many numbers takes at most, with its place in the index after that has grown.
    pub const fn row_bytes(width: usize) -> usize {
        Shard::stride(width) * size_of::<u32>() + Index::MOST_BYTES + BITS_BYTES
    }

    /// Creates an empty store.
    ///
    /// # Panics
    /// When the width is 0.
    pub fn new(config: RowStoreConfig) -> Self {
        assert!(config.width > 0, "a row has at least one number");
        let rows = config.max_rows / SHARDS;
        let shards = std::array::from_fn(|_| RwLock::new(Shard::new(&config, rows, 0)));
        let (length, frozen, removals) = Default::default();
        Self { config, shards, length, frozen, removals }
    }

    /// What the store was made with.
    pub fn config(&self) -> &RowStoreConfig {
        &self.config
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.config.width
    }

    /// Rows at present.
    pub fn len(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts rows, bytes and what happened so far.
    pub fn stats(&self) -> RowStoreStats {
        self.shards.iter().map(RwLock::read).fold(RowStoreStats::default(), |sum, shard| {
            let (rows, bytes) = (shard.index.len(), shard.bytes());
            let Shard { admitted, refused, expired, .. } = *shard;
            sum + RowStoreStats { rows, bytes, admitted, refused, expired }
        })
    }

    /// Whether the key has a row.
    pub fn contains(&self, key: u64) -> bool {
        let hash = hash(key);
        self.shards[shard_of(hash)].read().index.find(key, hash).is_some()
    }

    /// Copies one of the [`Self::SHARDS`] shards, its keys in ascending order. With no writer
    /// meanwhile all of them are one picture.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn export(&self, shard: usize) -> ShardImage {
        ShardImage::of(&self.shards[shard].read())
    }

    /// Replaces one of the [`Self::SHARDS`] shards by a whole image, or takes over what an image says has changed since the one that was imported
    /// last. All of the shard counts as part of a checkpoint then: the next one writes what changes from here on.
    ///
    /// # Errors
    /// When the image does not fit itself, this store or this shard; nothing is changed then.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn import(&self, shard: usize, image: ShardImage) -> Result<(), ImageError> {
        let rows = self.config.max_rows / SHARDS;
        let place = &mut *self.shards[shard].write();
        let before = place.index.len();
        image.apply(place, &self.config, rows, shard)?;
        self.removals.fetch_add(1, Ordering::Relaxed);
        self.length.fetch_add(place.index.len(), Ordering::Relaxed);
        self.length.fetch_sub(before, Ordering::Relaxed);
        Ok(())
    }

    /// A number that two stores share when they hold the same: rows, state of the optimiser,
    /// counts, times, filter.
    pub fn checksum(&self) -> u64 {
        let shards = self.shards.iter().map(|shard| shard.read().checksum());
        shards.fold(0, |sum, shard| hash(sum.wrapping_add(shard)))
    }

    pub(super) fn removals(&self) -> &AtomicU64 {
        &self.removals
    }

    fn check(&self, keys: &[u64], numbers: usize) {
        assert_eq!(numbers, keys.len() * self.config.width, "numbers for all rows");
    }

    /// Takes all locks in ascending order, which all calls keep to.
    pub(super) fn each<'a, G>(&'a self, lock: impl Fn(&'a RwLock<Shard>) -> G) -> [G; SHARDS] {
        std::array::from_fn(|shard| lock(&self.shards[shard]))
    }
}

/// The numbers and hashes of keys.
pub(super) fn hashes(keys: &[u64]) -> impl Iterator<Item = (usize, u64)> {
    keys.iter().map(|&key| hash(key)).enumerate()
}

/// Milliseconds as whole seconds; what is outside 1970 to 2106 goes to the ends.
pub(crate) fn seconds(milliseconds: i64) -> u32 {
    let seconds = (milliseconds / 1000).max(0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
