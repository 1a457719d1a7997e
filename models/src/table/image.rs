//! The contents of a shard in a canonical order, for checkpoints: what a shard holds decides its
//! image, not the history that led there. An image is of all of a shard, or of what has changed in it.

use serde::{Deserialize, Serialize};

use super::admit::Filter;
use super::changes::Changes;
use super::hash;
use super::index::Slot;
use super::shard::Shard;
use super::store::{RowStoreConfig, shard_of};

/// A shard, or what has changed in it. Entry `i` of each column belongs to `keys[i]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardImage {
    /// Whether this is all of the shard; else it is what has changed since another image.
    pub whole: bool,
    /// The keys that have lost the row of the other image, ascending; they may have another one here.
    pub removed: Vec<u64>,
    /// The keys that have a row, or whose row has changed, ascending.
    pub keys: Vec<u64>,
    /// Their rows, `[keys, width]`.
    pub rows: Vec<f32>,
    /// Their sums of mean squared gradients.
    pub accumulators: Vec<f32>,
    /// How often they have occurred.
    pub counts: Vec<u32>,
    /// When they were last used, in seconds of event time since 1970.
    pub last_used: Vec<u32>,
    /// The admission filter's counts; empty when ids are admitted at once.
    pub filter: Vec<u8>,
    /// Occurrences that the filter has counted since its last halving.
    pub filter_additions: u32,
    /// Keys that lost their row for want of room and were not yet told by `sweep`.
    pub unreported: Vec<u64>,
    /// When it was last looked through for rows to expire, in seconds of event time.
    pub swept: u32,
    /// Rows ever created, occurrences refused for want of room, and rows expired.
    pub totals: [u64; 3],
}

/// Why an image cannot be taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// A column does not fit the keys or the configuration.
    #[error("{column} of a table's shard: expected {expected} entries, found {found}")]
    Length {
        /// Which column.
        column: &'static str,
        /// What the keys, the width and the configuration ask for.
        expected: usize,
        /// What the image has.
        found: usize,
    },
    /// The keys are not ascending, or one of them is 0.
    #[error("keys of a table's shard must ascend from above 0, found {0:#x} out of place")]
    Order(u64),
    /// A key belongs to another shard.
    #[error("key {key:#x} belongs to shard {expected}, found it in shard {found}")]
    Shard {
        /// The key.
        key: u64,
        /// Where it belongs.
        expected: usize,
        /// Where it was.
        found: usize,
    },
}

impl ShardImage {
    /// Copies a shard.
    pub(super) fn of(shard: &Shard) -> Self {
        let mut words = Vec::new();
        let mut row = 0;
        while row < shard.used() {
            row = shard.copy_rows(row, shard.used(), &mut words);
        }
        Self::without_rows(shard).with_rows(shard.index.iter().collect(), &words, shard.width())
    }

    /// Copies all of a shard but its rows.
    pub(super) fn without_rows(shard: &Shard) -> Self {
        Self {
            whole: true,
            filter: shard.filter.as_ref().map_or_else(Vec::new, |f| f.cells().to_vec()),
            filter_additions: shard.filter.as_ref().map_or(0, Filter::additions),
            unreported: shard.unreported.clone(),
            swept: shard.swept,
            totals: [shard.admitted, shard.refused, shard.expired],
            ..Self::default()
        }
    }

    /// Adds the rows that `slots` name, by their place in `words`.
    pub(super) fn with_rows(self, mut slots: Vec<Slot>, words: &[u32], width: usize) -> Self {
        let stride = Shard::stride(width);
        slots.sort_unstable_by_key(|slot| slot.key);
        let row = |slot: &Slot| &words[slot.row as usize * stride..][..stride];
        let mut rows = Vec::with_capacity(slots.len() * width);
        for slot in &slots {
            rows.extend_from_slice(bytemuck::cast_slice(&row(slot)[..width]));
        }
        Self {
            keys: slots.iter().map(|slot| slot.key).collect(),
            rows,
            accumulators: slots.iter().map(|slot| f32::from_bits(row(slot)[width])).collect(),
            counts: slots.iter().map(|slot| row(slot)[width + 1]).collect(),
            last_used: slots.iter().map(|slot| slot.last_used).collect(),
            ..self
        }
    }

    /// Makes this one of what has changed: its rows, and these keys that have lost theirs.
    pub(super) fn of_changes(self, removed: Vec<u64>) -> Self {
        Self { whole: false, removed, ..self }
    }

    /// How many cells the filter should have: as many as it has where that is the size of a filter, for it goes on as it is when the most rows are
    /// others.
    fn filter_cells(&self, shard: &Shard) -> usize {
        let cells = shard.filter.as_ref().map_or(0, |filter| filter.cells().len());
        if cells > 0 && Filter::is_of(self.filter.len()) { self.filter.len() } else { cells }
    }

    /// Makes sure that the image fits itself and shard number `number`.
    fn check(&self, shard: &Shard, number: usize) -> Result<(), ImageError> {
        let keys = self.keys.len();
        for (column, expected, found) in [
            ("rows", keys * shard.width(), self.rows.len()),
            ("accumulators", keys, self.accumulators.len()),
            ("counts", keys, self.counts.len()),
            ("last uses", keys, self.last_used.len()),
            ("filter", self.filter_cells(shard), self.filter.len()),
        ] {
            if expected != found {
                return Err(ImageError::Length { column, expected, found });
            }
        }
        for keys in [&self.keys, &self.removed] {
            let mut before = 0;
            for &key in keys {
                if key <= before {
                    return Err(ImageError::Order(key));
                }
                before = key;
                let expected = shard_of(hash(key));
                if expected != number {
                    return Err(ImageError::Shard { key, expected, found: number });
                }
            }
        }
        Ok(())
    }

    /// Puts the image in place of a shard, if it is whole, or adds it to the shard that it was made of: shard number `number` of a store. What
    /// the shard holds then counts as known to a checkpoint.
    pub(super) fn apply(
        self,
        shard: &mut Shard,
        config: &RowStoreConfig,
        rows: usize,
        number: usize,
    ) -> Result<(), ImageError> {
        if self.whole {
            let mut new = Shard::new(config, rows, self.keys.len());
            self.check(&new, number)?;
            self.fill(&mut new);
            *shard = new;
        } else {
            self.check(shard, number)?;
            self.fill(shard);
        }
        Ok(())
    }

    fn fill(self, shard: &mut Shard) {
        let width = shard.width();
        self.removed.iter().for_each(|&key| shard.remove(key));
        for (i, &key) in self.keys.iter().enumerate() {
            let row = match shard.index.find_mut(key, hash(key)) {
                Some(slot) => {
                    slot.last_used = self.last_used[i];
                    slot.row
                }
                None => shard.insert(key, self.last_used[i]),
            };
            let row = shard.row_mut(row);
            row.numbers.copy_from_slice(&self.rows[i * width..][..width]);
            *row.accumulator = self.accumulators[i];
            *row.count = self.counts[i];
        }
        if shard.filter.is_some() {
            shard.filter = Some(Filter::restore(self.filter, self.filter_additions));
        }
        shard.unreported = self.unreported;
        shard.swept = self.swept;
        [shard.admitted, shard.refused, shard.expired] = self.totals;
        shard.changes = Changes::none(shard.used());
    }
}
