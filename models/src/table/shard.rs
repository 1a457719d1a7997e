//! One shard: its index, its rows in slabs, its filter and what happened in it.
//!
//! A row is `width` numbers, the accumulator and the count, side by side, so that an update touches
//! neighbouring cache lines. They are stored as words, of which the first are `f32`.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::admit::Filter;
use super::frozen::Frozen;
use super::image::ShardImage;
use super::index::{Index, Slot};
use super::store::RowStoreConfig;
use super::{hash, initial};
use crate::kernels::{prefer_huge_pages, prefetch};

/// Rows in the first slab. Each slab has four times the rows of the one before, so that there are few
/// of them and most rows lie in memory that huge pages can hold; what is not used costs no memory.
const FIRST_SLAB: usize = 1024;

/// Words of a row beside its numbers: accumulator and count.
const EXTRA: usize = 2;

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) index: Index,
    width: usize,
    slabs: Vec<Box<[u32]>>,
    /// Rows that were given back; and how many were ever in use.
    free: Vec<u32>,
    used: u32,
    pub(super) filter: Option<Filter>,
    /// Keys that lost their row for want of room, not yet reported.
    pub(super) unreported: Vec<u64>,
    /// When it was last looked through for rows to expire, in seconds of event time.
    pub(super) swept: u32,
    pub(super) admitted: u64,
    pub(super) refused: u64,
    pub(super) expired: u64,
    /// What was before changes, from a freeze on.
    pub(super) frozen: Option<Box<Frozen>>,
}

/// A row with its state.
pub(super) struct RowMut<'a> {
    pub(super) numbers: &'a mut [f32],
    pub(super) accumulator: &'a mut f32,
    pub(super) count: &'a mut u32,
}

impl Shard {
    /// Creates an empty shard with room for `keys` keys.
    pub(super) fn new(config: &RowStoreConfig, rows: usize, keys: usize) -> Self {
        Self {
            index: Index::with_room(keys),
            width: config.width,
            slabs: Vec::new(),
            free: Vec::new(),
            used: 0,
            filter: (config.admission > 1).then(|| Filter::new(rows)),
            unreported: Vec::new(),
            swept: 0,
            admitted: 0,
            refused: 0,
            expired: 0,
            frozen: None,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let slabs = self.used as usize * (self.width + EXTRA) * size_of::<u32>();
        let lists = self.free.capacity() * size_of::<u32>() + self.unreported.capacity() * 8;
        self.index.bytes() + slabs + lists + self.filter.as_ref().map_or(0, |f| f.cells().len())
    }

    /// Asks for the memory of a row.
    #[inline(always)]
    pub(super) fn prefetch_row(&self, row: u32) {
        let words = self.words(row);
        // One number in each cache line, and the last.
        for line in (0..words.len()).step_by(16) {
            prefetch(words, line);
        }
        prefetch(words, words.len() - 1);
    }

    /// The numbers of a row.
    #[inline(always)]
    pub(super) fn numbers(&self, row: u32) -> &[f32] {
        bytemuck::cast_slice(&self.words(row)[..self.width])
    }

    /// A row to change.
    #[inline(always)]
    pub(super) fn row_mut(&mut self, row: u32) -> RowMut<'_> {
        let (slab, range) = self.place(row);
        let (numbers, state) = self.slabs[slab][range].split_at_mut(self.width);
        let (accumulator, count) = state.split_at_mut(1);
        RowMut {
            numbers: bytemuck::cast_slice_mut(numbers),
            accumulator: bytemuck::cast_mut(&mut accumulator[0]),
            count: &mut count[0],
        }
    }

    /// What is lent of a row: its numbers, then its accumulator.
    #[inline(always)]
    pub(super) fn lent(&self, row: u32) -> &[f32] {
        bytemuck::cast_slice(&self.words(row)[..=self.width])
    }

    /// The same to change.
    #[inline(always)]
    pub(super) fn lent_mut(&mut self, row: u32) -> &mut [f32] {
        let (slab, range) = self.place(row);
        bytemuck::cast_slice_mut(&mut self.slabs[slab][range][..=self.width])
    }

    /// Keeps what the shard is now until its frozen image is taken.
    pub(super) fn freeze(&mut self) {
        self.frozen = Some(Box::new(Frozen::new(self.used, ShardImage::without_rows(self))));
    }

    /// To be called before anything of a key's row or slot changes: puts the row aside where the
    /// shard is frozen.
    #[inline(always)]
    pub(super) fn keep(&mut self, key: u64) {
        if self.frozen.is_some() {
            self.put_aside(key);
        }
    }

    #[cold]
    fn put_aside(&mut self, key: u64) {
        let Some(slot) = self.index.find(key, hash(key)) else { return };
        let (slab, range) = self.place(slot.row);
        if let Some(frozen) = &mut self.frozen {
            frozen.put_aside(slot, &self.slabs[slab][range]);
        }
    }

    /// Bytes of rows that are put aside.
    pub(super) fn put_aside_bytes(&self) -> usize {
        self.frozen.as_ref().map_or(0, |frozen| frozen.bytes())
    }

    /// Rows that were ever in use.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Numbers in a row.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Words of a row of so many numbers.
    pub(super) fn stride(width: usize) -> usize {
        width + EXTRA
    }

    /// Appends rows `from..to`, all below [`Self::used`], as they lie in memory, at most to the end of
    /// a slab. Returns the row behind them.
    pub(super) fn copy_rows(&self, from: u32, to: u32, out: &mut Vec<u32>) -> u32 {
        let (slab, first) = self.place(from);
        let rest = &self.slabs[slab][first.start..];
        let rows = (rest.len() / first.len()).min((to - from) as usize);
        out.extend_from_slice(&rest[..rows * first.len()]);
        from + rows as u32
    }

    /// Gives a new key a row of zeros and returns it.
    pub(super) fn insert(&mut self, key: u64, last_used: u32) -> u32 {
        let row = self.free.pop().unwrap_or_else(|| {
            if self.place(self.used).0 == self.slabs.len() {
                let rows = FIRST_SLAB << (2 * self.slabs.len());
                let slab = vec![0; rows * (self.width + EXTRA)].into_boxed_slice();
                prefer_huge_pages(&slab);
                self.slabs.push(slab);
            }
            self.used += 1;
            self.used - 1
        });
        let (slab, range) = self.place(row);
        self.slabs[slab][range].fill(0);
        self.index.insert(Slot { key, row, last_used });
        if let Some(frozen) = &mut self.frozen {
            frozen.leave(row);
        }
        row
    }

    /// Gives a new key its first row.
    pub(super) fn admit(&mut self, config: &RowStoreConfig, key: u64, now: u32, count: u32) -> u32 {
        let row = self.insert(key, now);
        let new = self.row_mut(row);
        initial::fill(config.seed, key, config.initial_scale, new.numbers);
        *new.count = count;
        self.admitted += 1;
        row
    }

    /// Removes the rows that were not used for more than `span` seconds and adds their keys to
    /// `removed`, in ascending order.
    pub(super) fn expire(&mut self, now: u32, span: u32, removed: &mut Vec<u64>) {
        let start = removed.len();
        let old = |slot: &Slot| now.saturating_sub(slot.last_used) > span;
        removed.extend(self.index.iter().filter(old).map(|slot| slot.key));
        removed[start..].sort_unstable();
        for &key in &removed[start..] {
            self.keep(key);
            if let Some(slot) = self.index.remove(key) {
                self.free.push(slot.row);
            }
        }
        self.expired += (removed.len() - start) as u64;
    }

    /// A number that depends on all that the shard holds, not on where it lies.
    pub(super) fn checksum(&self) -> u64 {
        let rows = self.index.iter().fold(0_u64, |sum, slot| {
            let seed = hash(slot.key ^ u64::from(slot.last_used).rotate_left(32));
            let bytes = bytemuck::cast_slice(self.words(slot.row));
            sum.wrapping_add(xxh3_64_with_seed(bytes, seed))
        });
        let filter = self
            .filter
            .as_ref()
            .map_or(0, |filter| xxh3_64_with_seed(filter.cells(), u64::from(filter.additions())));
        let history = [self.admitted, self.refused, self.expired, u64::from(self.swept)];
        let history = xxh3_64_with_seed(bytemuck::cast_slice(&history), rows);
        history ^ filter.rotate_left(1)
    }

    #[inline(always)]
    fn words(&self, row: u32) -> &[u32] {
        let (slab, range) = self.place(row);
        &self.slabs[slab][range]
    }

    /// The slab of a row, and its words there.
    #[inline(always)]
    fn place(&self, row: u32) -> (usize, std::ops::Range<usize>) {
        let row = row as usize;
        // Slabs before slab k have 1 + 4 + ... = (4ᵏ - 1) / 3 times the rows of the first.
        let slab = (row * 3 / FIRST_SLAB + 1).ilog2() as usize / 2;
        let before = ((1 << (2 * slab)) - 1) / 3 * FIRST_SLAB;
        let stride = self.width + EXTRA;
        let start = (row - before) * stride;
        (slab, start..start + stride)
    }
}
