//! The rows as they were at one instant, read while the writer goes on: what a checkpoint writes.
//!
//! To freeze a store copies nothing but the small things of each shard. From then on the writer puts
//! a row aside before its first change, and a bit says that it has. [`FrozenRows`] gives back one
//! shard after the other: rows that have not changed from where they lie, some hundred at a time so
//! that nobody waits long, the others from those put aside; then the shard is frozen no more.
//!
//! A shard is given back whole, or as what has changed since the newest checkpoint ([`Part`]). Which changes an image has covered
//! is known to it until it is over: [`FrozenRows::keep`] says that they are in a checkpoint now, and whatever else becomes of it, an
//! error, a full disk, a panic, gives them back to the store, for the next one.
//!
//! Memory: three bits a row, the rows that change before their shard's turn, and the image of one shard
//! at a time. Who writes can ask how much is put aside ([`RowStore::put_aside`]) and wait.
//!
//! Why so: all rows copied at once take a second at 10 million; rows changed since the last
//! checkpoint, copied at once, take a tenth of it; whole blocks put aside instead of rows copy a
//! hundred rows for one that changes, all in the first steps.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

use super::changes::Changes;
use super::image::ShardImage;
use super::index::Slot;
use super::shard::Shard;
use super::store::RowStore;

/// Rows side by side that are copied under one lock: some ten microseconds.
const CHUNK: u32 = 1024;
/// Rows here and there that take as long.
const SCATTERED: usize = 128;

/// How much of the rows is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All rows.
    Whole,
    /// Those that have changed since the newest checkpoint, and the keys that have lost theirs.
    Changes,
}

/// What a shard was, as far as the shard itself cannot tell any more.
#[derive(Debug)]
pub(super) struct Frozen {
    /// Keys at that time.
    keys: usize,
    /// Rows in use at that time, and free ones among them.
    used: u32,
    /// One bit for each of them: the row is not to be read where it lies. It was put aside, or was
    /// free and belongs to a new key now.
    gone: Vec<u64>,
    /// The rows put aside, one after the other, and what the index said of them.
    words: Vec<u32>,
    slots: Vec<Slot>,
    /// What had changed since the newest checkpoint.
    changes: Changes,
    /// All but the rows.
    rest: ShardImage,
}

impl Frozen {
    pub(super) fn new(keys: usize, used: u32, changes: Changes, rest: ShardImage) -> Self {
        let gone = vec![0; used.div_ceil(u64::BITS) as usize];
        Self { keys, used, gone, words: Vec::new(), slots: Vec::new(), changes, rest }
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

    /// What of the shard a part consists of: all of it also where no checkpoint has anything of it.
    fn is_whole(&self, part: Part) -> bool {
        part == Part::Whole || self.changes.is_everything()
    }

    /// How many bytes of numbers a part consists of, at most.
    fn image_bytes(&self, part: Part, width: usize) -> usize {
        let row = size_of::<u64>() + size_of::<u32>() * (Shard::stride(width) + 1);
        let filter = self.rest.filter.len();
        if self.is_whole(part) {
            self.keys * row + filter
        } else {
            let removed = self.changes.removals() * size_of::<u64>();
            self.changes.rows().min(self.keys) * row + removed + filter
        }
    }
}

/// The shards of a store as they were at [`RowStore::freeze`], in order. Whatever is left is frozen
/// no more when this is dropped.
#[derive(Debug)]
pub struct FrozenRows {
    store: Arc<RowStore>,
    /// What had changed in those that were given back.
    covered: Vec<Changes>,
}

impl RowStore {
    /// Keeps the rows as they are now for the one who reads the answer, while the writer goes on. To
    /// be called by the writer, or while it waits; takes each lock for an instant.
    ///
    /// # Panics
    /// When an earlier answer is not dropped.
    pub fn freeze(self: &Arc<Self>) -> FrozenRows {
        let before = self.frozen.swap(true, Ordering::AcqRel);
        assert!(!before, "one frozen image of a store at a time");
        for shard in &self.shards {
            shard.write().freeze();
        }
        FrozenRows { store: Arc::clone(self), covered: Vec::with_capacity(Self::SHARDS) }
    }

    /// Bytes of rows that are put aside for a frozen image.
    pub fn put_aside(&self) -> usize {
        if !self.frozen.load(Ordering::Acquire) {
            return 0;
        }
        self.shards.iter().map(|shard| shard.read().put_aside_bytes()).sum()
    }
}

impl FrozenRows {
    /// Returns the image of the next shard; nothing when all were given back.
    pub fn next_shard(&mut self, part: Part) -> Option<ShardImage> {
        let shard = self.store.shards.get(self.covered.len())?;
        let (image, changes) = image(shard, self.store.width(), part)?;
        self.covered.push(changes);
        Some(image)
    }

    /// Returns about how many bytes of numbers are still to come, at most.
    pub fn bytes(&self, part: Part) -> u64 {
        let shards = &self.store.shards[self.covered.len()..];
        let bytes = shards.iter().map(|shard| {
            let shard = shard.read();
            shard.frozen.as_ref().map_or(0, |frozen| frozen.image_bytes(part, self.store.width()))
        });
        bytes.sum::<usize>() as u64
    }

    /// Says that what was given back is in a checkpoint now: the next one needs not what has changed before.
    pub fn keep(mut self) {
        for (covered, shard) in self.covered.iter_mut().zip(&self.store.shards) {
            *covered = Changes::none(0);
            debug_assert!(shard.read().frozen.is_none());
        }
    }
}

impl Drop for FrozenRows {
    fn drop(&mut self) {
        let mut covered = std::mem::take(&mut self.covered).into_iter();
        for shard in &self.store.shards {
            let shard = &mut *shard.write();
            let frozen = shard.frozen.take().map(|frozen| frozen.changes);
            if let Some(changes) = covered.next().or(frozen) {
                let used = shard.used();
                shard.changes.add_earlier(changes, used);
            }
        }
        self.store.frozen.store(false, Ordering::Release);
    }
}

/// The image of a frozen shard, which is thawed, and what had changed in it.
fn image(shard: &RwLock<Shard>, width: usize, part: Part) -> Option<(ShardImage, Changes)> {
    let (mut slots, used, whole) = {
        let shard = shard.read();
        let frozen = shard.frozen.as_ref()?;
        let whole = frozen.is_whole(part);
        let mut slots = Vec::with_capacity(if whole { shard.index.len() } else { 0 });
        let wanted =
            |slot: &Slot| !frozen.is_gone(slot.row) && (whole || frozen.changes.has(slot.row));
        slots.extend(shard.index.iter().filter(wanted));
        (slots, frozen.used, whole)
    };
    let words = if whole { side_by_side(shard, used, width) } else { scattered(shard, &mut slots) };
    let frozen = *shard.write().frozen.take()?;
    let stride = Shard::stride(width);
    let mut words = words;
    let mut places = Vec::with_capacity(slots.len() + frozen.slots.len());
    for (place, slot) in (0..).zip(&slots) {
        // Some of what was just read may have changed before it was.
        if !frozen.is_gone(slot.row) {
            places.push(Slot { row: if whole { slot.row } else { place }, ..*slot });
        }
    }
    let behind = (words.len() / stride) as u32;
    for (place, slot) in (behind..).zip(&frozen.slots) {
        if whole || frozen.changes.has(slot.row) {
            places.push(Slot { row: place, ..*slot });
        }
    }
    words.extend_from_slice(&frozen.words);
    let Frozen { changes, rest, .. } = frozen;
    let image = rest.with_rows(places, &words, width);
    let image = if whole { image } else { image.of_changes(changes.removed()) };
    Some((image, changes))
}

/// All rows below `used`, as they lie in memory.
fn side_by_side(shard: &RwLock<Shard>, used: u32, width: usize) -> Vec<u32> {
    let mut words = Vec::with_capacity(used as usize * Shard::stride(width));
    let mut row = 0;
    while row < used {
        row = shard.read().copy_rows(row, used.min(row + CHUNK), &mut words);
    }
    words
}

/// The rows of these slots, which are put in the order of their rows, one after the other.
fn scattered(shard: &RwLock<Shard>, slots: &mut [Slot]) -> Vec<u32> {
    slots.sort_unstable_by_key(|slot| slot.row);
    let mut words = Vec::new();
    for slots in slots.chunks(SCATTERED) {
        let shard = shard.read();
        slots.iter().for_each(|slot| shard.copy_row(slot.row, &mut words));
    }
    words
}

#[cfg(test)]
mod tests;
