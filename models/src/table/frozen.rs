//! The rows as they were at one instant, read while the writer goes on: what a checkpoint writes.
//!
//! To freeze a store copies nothing but the small things of each shard. From then on the writer puts
//! a row aside before its first change, and a bit says that it has. [`FrozenRows`] gives back one
//! shard after the other: rows that have not changed from where they lie, some hundred at a time so
//! that nobody waits long, the others from those put aside; then the shard is frozen no more.
//!
//! Memory: a bit a row, the rows that change before their shard's turn, and the image of one shard
//! at a time. Who writes can ask how much is put aside ([`RowStore::put_aside`]) and wait.
//!
//! Why so: all rows copied at once take a second at 10 million; rows changed since the last
//! checkpoint, copied at once, take a tenth of it and need files that build on each other; whole
//! blocks put aside instead of rows copy a hundred rows for one that changes, all in the first steps.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

use super::image::ShardImage;
use super::index::Slot;
use super::shard::Shard;
use super::store::RowStore;

/// Rows that are copied under one lock: some ten microseconds.
const CHUNK: u32 = 1024;

/// What a shard was, as far as the shard itself cannot tell any more.
#[derive(Debug)]
pub(super) struct Frozen {
    /// Rows in use at that time, and free ones among them.
    used: u32,
    /// One bit for each of them: the row is not to be read where it lies. It was put aside, or was
    /// free and belongs to a new key now.
    gone: Vec<u64>,
    /// The rows put aside, one after the other, and what the index said of them.
    words: Vec<u32>,
    slots: Vec<Slot>,
    /// All but the rows.
    rest: ShardImage,
}

impl Frozen {
    pub(super) fn new(used: u32, rest: ShardImage) -> Self {
        let gone = vec![0; used.div_ceil(u64::BITS) as usize];
        Self { used, gone, words: Vec::new(), slots: Vec::new(), rest }
    }

    /// Puts a row aside, unless it was or is newer than the freeze.
    pub(super) fn put_aside(&mut self, slot: Slot, words: &[u32]) {
        if !self.is_gone(slot.row) {
            self.words.extend_from_slice(words);
            self.slots.push(slot);
            self.leave(slot.row);
        }
    }

    /// Takes note that a row belongs to a new key.
    pub(super) fn leave(&mut self, row: u32) {
        if let Some(bits) = self.gone.get_mut((row / u64::BITS) as usize) {
            *bits |= 1 << (row % u64::BITS);
        }
    }

    fn is_gone(&self, row: u32) -> bool {
        row >= self.used || self.gone[(row / u64::BITS) as usize] >> (row % u64::BITS) & 1 == 1
    }

    /// Bytes of the rows put aside.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.words[..]) + size_of_val(&self.slots[..])
    }
}

/// The shards of a store as they were at [`RowStore::freeze`], in order. Whatever is left is frozen
/// no more when this is dropped.
#[derive(Debug)]
pub struct FrozenRows {
    store: Arc<RowStore>,
    next: usize,
}

impl RowStore {
    /// Keeps the rows as they are now for the one who reads the answer, while the writer goes on. To
    /// be called by the writer, or while it waits; takes each lock for an instant.
    ///
    /// # Panics
    /// When an earlier answer is not used up or dropped.
    pub fn freeze(self: &Arc<Self>) -> FrozenRows {
        let before = self.frozen.swap(true, Ordering::AcqRel);
        assert!(!before, "one frozen image of a store at a time");
        for shard in &self.shards {
            shard.write().freeze();
        }
        FrozenRows { store: Arc::clone(self), next: 0 }
    }

    /// Bytes of rows that are put aside for a frozen image.
    pub fn put_aside(&self) -> usize {
        if !self.frozen.load(Ordering::Acquire) {
            return 0;
        }
        self.shards.iter().map(|shard| shard.read().put_aside_bytes()).sum()
    }
}

impl Iterator for FrozenRows {
    type Item = ShardImage;

    fn next(&mut self) -> Option<ShardImage> {
        let shard = self.store.shards.get(self.next)?;
        self.next += 1;
        image(shard, self.store.width())
    }
}

impl Drop for FrozenRows {
    fn drop(&mut self) {
        for shard in &self.store.shards[self.next..] {
            shard.write().frozen = None;
        }
        self.store.frozen.store(false, Ordering::Release);
    }
}

/// The image of a frozen shard, which is thawed.
fn image(shard: &RwLock<Shard>, width: usize) -> Option<ShardImage> {
    let (mut slots, used) = {
        let shard = shard.read();
        let frozen = shard.frozen.as_ref()?;
        let mut slots = Vec::with_capacity(shard.index.len());
        slots.extend(shard.index.iter().filter(|slot| !frozen.is_gone(slot.row)));
        (slots, frozen.used)
    };
    let mut words = Vec::with_capacity(used as usize * Shard::stride(width));
    let mut row = 0;
    while row < used {
        row = shard.read().copy_rows(row, used.min(row + CHUNK), &mut words);
    }
    let frozen = *shard.write().frozen.take()?;
    // Some of what was just read may have changed before it was.
    slots.retain(|slot| !frozen.is_gone(slot.row));
    words.extend_from_slice(&frozen.words);
    slots.extend((used..).zip(&frozen.slots).map(|(row, slot)| Slot { row, ..*slot }));
    Some(frozen.rest.with_rows(slots, &words, width))
}

#[cfg(test)]
mod tests;
