//! What a store is made with, and what it tells of itself.

use std::ops::Add;

use sluice_features::time::Span;

use crate::kernels::AdagradStep;

/// What the rows of a store are like.
#[derive(Clone, Debug, PartialEq)]
pub struct RowStoreConfig {
    /// Numbers in a row, at least 1.
    pub width: usize,
    /// Decides the first numbers of all rows.
    pub seed: u64,
    /// The deviation of the first numbers.
    pub initial_scale: f32,
    /// The occurrence from which on an id has a row; 0 and 1 both mean the first. Counted by a
    /// sketch in bounded memory, so an id may rarely be early.
    pub admission: u8,
    /// Most rows at a time. Ids that would need more are refused and counted.
    pub max_rows: usize,
    /// How long a row is kept without being used; for ever when absent.
    pub expiry: Option<Span>,
    /// The update of row-wise Adagrad.
    pub step: AdagradStep,
}

/// What a store holds and what happened in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowStoreStats {
    /// Rows at present.
    pub rows: usize,
    /// Bytes of memory.
    pub bytes: usize,
    /// Rows ever created.
    pub admitted: u64,
    /// Occurrences of ids that were due a row when there was no room.
    pub refused: u64,
    /// Rows removed because they were not used for long.
    pub expired: u64,
}

impl Add for RowStoreStats {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            rows: self.rows + more.rows,
            bytes: self.bytes + more.bytes,
            admitted: self.admitted + more.admitted,
            refused: self.refused + more.refused,
            expired: self.expired + more.expired,
        }
    }
}
