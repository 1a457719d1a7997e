//! One shard: its index, its rows in slabs, its filter and what happened in it.
//!
//! A row is `width` numbers, the accumulator and the count, side by side, so that an update touches
//! neighbouring cache lines. They are stored as words, of which the first are `f32`.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::admit::Filter;
use super::changes::Changes;
use super::frozen::Frozen;
use super::image::ShardImage;
use super::index::{Index, Slot};
use super::slabs::Slabs;
use super::store::RowStoreConfig;
use super::{hash, initial};

/// Words of a row beside its numbers: accumulator and count.
const EXTRA: usize = 2;

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) index: Index,
    width: usize,
    rows: Slabs,
    /// Rows that were given back; and how many were ever in use.
    free: Vec<u32>,
    used: u32,
    /// What no checkpoint has yet.
    pub(super) changes: Changes,
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
            rows: Slabs::new(Self::stride(config.width)),
            free: Vec::new(),
            used: 0,
            changes: Changes::everything(0),
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
        let rows = self.used as usize * self.rows.stride() * size_of::<u32>();
        let lists = self.free.capacity() * size_of::<u32>() + self.unreported.capacity() * 8;
        let rows = rows + self.changes.bytes();
        self.index.bytes() + rows + lists + self.filter.as_ref().map_or(0, |f| f.cells().len())
    }

    /// Asks for the memory of a row.
    #[inline(always)]
    pub(super) fn prefetch_row(&self, row: u32) {
        self.rows.prefetch(row);
    }

    /// The numbers of a row.
    #[inline(always)]
    pub(super) fn numbers(&self, row: u32) -> &[f32] {
        bytemuck::cast_slice(&self.rows.row(row)[..self.width])
    }

    /// A row to change.
    #[inline(always)]
    pub(super) fn row_mut(&mut self, row: u32) -> RowMut<'_> {
        self.changes.note(row);
        let (numbers, state) = self.rows.row_mut(row).split_at_mut(self.width);
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
        bytemuck::cast_slice(&self.rows.row(row)[..=self.width])
    }

    /// The same after counting occurrences.
    #[inline(always)]
    pub(super) fn count(&mut self, row: u32, occurrences: u32) -> &[f32] {
        self.changes.note(row);
        let (lent, count) = self.rows.row_mut(row).split_at_mut(self.width + 1);
        count[0] = count[0].saturating_add(occurrences);
        bytemuck::cast_slice(lent)
    }

    /// What is lent, to change.
    #[inline(always)]
    pub(super) fn lent_mut(&mut self, row: u32) -> &mut [f32] {
        self.changes.note(row);
        bytemuck::cast_slice_mut(&mut self.rows.row_mut(row)[..=self.width])
    }

    /// Keeps what the shard is now until its frozen image is taken, and what has changed up to now with it.
    pub(super) fn freeze(&mut self) {
        let changes = std::mem::replace(&mut self.changes, Changes::none(self.used));
        let rest = ShardImage::without_rows(self);
        self.frozen = Some(Box::new(Frozen::new(self.index.len(), self.used, changes, rest)));
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
        if let Some(frozen) = &mut self.frozen {
            frozen.put_aside(slot, self.rows.row(slot.row));
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
    pub(super) const fn stride(width: usize) -> usize {
        width + EXTRA
    }

    /// Appends rows `from..to`, all below [`Self::used`], as they lie in memory, at most to the end of
    /// a slab. Returns the row behind them.
    pub(super) fn copy_rows(&self, from: u32, to: u32, out: &mut Vec<u32>) -> u32 {
        self.rows.copy(from, to, out)
    }

    /// Appends a row, which is below [`Self::used`].
    pub(super) fn copy_row(&self, row: u32, out: &mut Vec<u32>) {
        out.extend_from_slice(self.rows.row(row));
    }

    /// Gives a new key a row of zeros and returns it.
    pub(super) fn insert(&mut self, key: u64, last_used: u32) -> u32 {
        let row = self.free.pop().unwrap_or_else(|| {
            self.rows.reserve(self.used);
            self.changes.reserve(self.used);
            self.used += 1;
            self.used - 1
        });
        self.rows.row_mut(row).fill(0);
        self.changes.note(row);
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
            self.remove(key);
        }
        self.index.shrink();
        self.expired += (removed.len() - start) as u64;
    }

    /// Takes a key's row away, if it has one.
    pub(super) fn remove(&mut self, key: u64) {
        if let Some(slot) = self.index.remove(key) {
            self.free.push(slot.row);
            self.changes.note_removed(key, self.used);
        }
    }

    /// A number that depends on all that the shard holds, not on where it lies.
    pub(super) fn checksum(&self) -> u64 {
        let rows = self.index.iter().fold(0_u64, |sum, slot| {
            let seed = hash(slot.key ^ u64::from(slot.last_used).rotate_left(32));
            let bytes = bytemuck::cast_slice(self.rows.row(slot.row));
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
}
