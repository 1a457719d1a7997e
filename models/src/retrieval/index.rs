//! The nearest items by inner product: every row is looked at, in 8 bits, and the best again in full.
//!
//! A row `v` is kept as `v ≈ scale · codes` with `scale = max |v| / 127` and codes in `[-127, 127]`,
//! and as it is. A search quantises the query the same way, scans the codes of all rows, keeps the
//! `4 k` best (64 at least), and orders those by their exact inner products. Nothing is built ahead,
//! so a row can be found as soon as it is written, and forgotten as soon as it is removed.
//!
//! ```text
//! codes  [rows, stride] i8    read by the scan: a cache line for a width of 64
//! exact  [rows, width]  f32   read for the 4 k best only
//! ```

use std::collections::HashMap;

use foldhash::fast::FixedState;
use thiserror::Error;

use crate::kernels::{Real, byte_products};

/// Candidates of the scan for each wanted hit, and the fewest that are kept.
const KEEP: usize = 4;
const KEEP_LEAST: usize = 64;
/// Rows of codes are a multiple of this long, padded by zeros: the widest vector of bytes, so that
/// the scan has no remainder, and a cache line.
const LANE: usize = 64;
/// Rows whose products are computed before they are compared with what was kept.
const BLOCK: usize = 256;

/// Why a vector was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IndexError {
    /// The vector has another width than the index.
    #[error(
        "expected a vector of width {expected}, found {found}: encode it with this model's tower"
    )]
    Width {
        /// The width of the index.
        expected: usize,
        /// The width of the vector.
        found: usize,
    },
    /// The vector has an infinite or undefined element.
    #[error("expected finite numbers, found {value} at {position}: the tower has diverged, go back to a good checkpoint", value = f32::from_bits(*.bits))]
    NotFinite {
        /// The index of the first such element.
        position: usize,
        /// Its bits.
        bits: u32,
    },
}

/// A found item and its exact inner product with the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The item.
    pub id: u64,
    /// Its inner product with the query.
    pub score: f32,
}

/// Item vectors of one width, by id, with an exhaustive search.
#[derive(Clone, Debug)]
pub struct Index {
    width: usize,
    stride: usize,
    rows: HashMap<u64, usize, FixedState>,
    ids: Vec<u64>,
    scales: Vec<f32>,
    codes: Vec<i8>,
    exact: Vec<f32>,
}

/// The memory of a search. One per searching thread, used again and again.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    query: Vec<i8>,
    products: Vec<i32>,
    kept: Vec<Candidate>,
}

/// A row that the scan found worth a second look.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    score: f32,
    id: u64,
    row: usize,
}

impl Index {
    /// Creates an empty index of vectors with `width` elements, at most 65,536.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            stride: width.max(1).next_multiple_of(LANE),
            rows: HashMap::with_hasher(FixedState::with_seed(0)),
            ids: Vec::new(),
            scales: Vec::new(),
            codes: Vec::new(),
            exact: Vec::new(),
        }
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns the width of the vectors.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the vector of an item as it was written.
    pub fn vector(&self, id: u64) -> Option<&[f32]> {
        self.rows.get(&id).map(|&row| &self.exact[row * self.width..][..self.width])
    }

    /// Writes the vector of an item, new or known.
    ///
    /// # Errors
    /// When the vector has the wrong width or is not finite; the index is as before.
    pub fn upsert(&mut self, id: u64, vector: &[f32]) -> Result<(), IndexError> {
        self.check(vector)?;
        let row = match self.rows.get(&id) {
            Some(&row) => row,
            None => {
                let row = self.ids.len();
                self.rows.insert(id, row);
                self.ids.push(id);
                self.scales.push(0.0);
                self.codes.resize(self.codes.len() + self.stride, 0);
                self.exact.resize(self.exact.len() + self.width, 0.0);
                row
            }
        };
        self.scales[row] = quantise(vector, &mut self.codes[row * self.stride..][..self.width]);
        self.exact[row * self.width..][..self.width].copy_from_slice(vector);
        Ok(())
    }

    /// Removes an item; returns whether it was there. The last row takes its place.
    pub fn remove(&mut self, id: u64) -> bool {
        let Some(row) = self.rows.remove(&id) else { return false };
        let last = self.ids.len() - 1;
        if row < last {
            self.rows.insert(self.ids[last], row);
            let (codes, exact) = (last * self.stride, last * self.width);
            self.codes.copy_within(codes..codes + self.stride, row * self.stride);
            self.exact.copy_within(exact..exact + self.width, row * self.width);
        }
        self.ids.swap_remove(row);
        self.scales.swap_remove(row);
        self.codes.truncate(last * self.stride);
        self.exact.truncate(last * self.width);
        true
    }

    /// Finds the `k` items that pass `filter` with the largest inner products with `query`, best
    /// first; of equal ones the smaller id comes first. `out` is overwritten, and has fewer than
    /// `k` hits only when fewer items pass. `filter` is asked about promising items only.
    ///
    /// # Errors
    /// When the query has the wrong width or is not finite; `out` is then empty.
    pub fn search(
        &self,
        query: &[f32],
        k: usize,
        filter: impl Fn(u64) -> bool,
        scratch: &mut Scratch,
        out: &mut Vec<Hit>,
    ) -> Result<(), IndexError> {
        out.clear();
        self.check(query)?;
        if k == 0 {
            return Ok(());
        }
        self.scan(query, k.saturating_mul(KEEP).max(KEEP_LEAST), filter, scratch);
        out.extend(scratch.kept.iter().map(|candidate| Hit {
            id: candidate.id,
            score: f32::dot(query, &self.exact[candidate.row * self.width..][..self.width]),
        }));
        out.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
        out.truncate(k);
        Ok(())
    }

    /// Leaves the `keep` best rows by their codes in `scratch.kept`, in no order.
    fn scan(
        &self,
        query: &[f32],
        keep: usize,
        filter: impl Fn(u64) -> bool,
        scratch: &mut Scratch,
    ) {
        let Scratch { query: quantised, products, kept } = scratch;
        quantised.clear();
        quantised.resize(self.stride, 0);
        // The query's own scale is the same for all rows, so the order does not need it.
        quantise(query, &mut quantised[..self.width]);
        products.resize(BLOCK, 0);
        kept.clear();
        let mut least = f32::NEG_INFINITY;

        let blocks = self.codes.chunks(BLOCK * self.stride).zip(self.scales.chunks(BLOCK));
        for (block, (codes, scales)) in blocks.enumerate() {
            let products = &mut products[..scales.len()];
            byte_products(quantised, codes, products);
            for (i, (&product, &scale)) in products.iter().zip(scales).enumerate() {
                let (row, score) = (block * BLOCK + i, scale * product as f32);
                if score < least || !filter(self.ids[row]) {
                    continue;
                }
                kept.push(Candidate { score, id: self.ids[row], row });
                if kept.len() >= keep.saturating_mul(2) {
                    least = keep_best(kept, keep);
                }
            }
        }
        if kept.len() > keep {
            keep_best(kept, keep);
        }
    }

    fn check(&self, vector: &[f32]) -> Result<(), IndexError> {
        if vector.len() != self.width {
            return Err(IndexError::Width { expected: self.width, found: vector.len() });
        }
        match vector.iter().position(|x| !x.is_finite()) {
            Some(position) => {
                Err(IndexError::NotFinite { position, bits: vector[position].to_bits() })
            }
            None => Ok(()),
        }
    }
}

/// Drops all but the `keep` best of more candidates, and returns the least score that stays. The
/// order is total (by score, then by the smaller id), so what stays does not depend on the order of
/// rows.
fn keep_best(candidates: &mut Vec<Candidate>, keep: usize) -> f32 {
    let (_, worst, _) = candidates
        .select_nth_unstable_by(keep - 1, |a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
    let least = worst.score;
    candidates.truncate(keep);
    least
}

/// Writes the codes of a vector and returns their scale; all zero for a vector of zeros.
fn quantise(vector: &[f32], codes: &mut [i8]) -> f32 {
    let largest = vector.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let scale = largest / 127.0;
    if scale > 0.0 {
        for (code, x) in codes.iter_mut().zip(vector) {
            *code = (x / scale).round().clamp(-127.0, 127.0) as i8;
        }
    } else {
        codes.fill(0);
    }
    scale
}

#[cfg(test)]
mod tests;
