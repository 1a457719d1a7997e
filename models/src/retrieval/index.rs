//! The nearest items by inner product, exactly: every row is looked at in 8 bits, and each that may be among the best again in full.
//!
//! A row `v` is kept as `v = scale · codes + rest` with `scale = max |v| / 127` and codes in `[-127, 127]`, and as it is. A query
//! `q = scale' · codes' + rest'` is quantised the same way. By the inequality of Cauchy and Schwarz
//!
//! `|<q, v> - scale scale' <codes, codes'>| <= |q - rest'| |rest| + |rest'| |v|`
//!
//! so with the lengths of `rest` and `v` beside the codes a row whose bound is below the score of the k-th best so far is none of the best: it
//! is passed over, and all others are compared by their inner products as `f32` has them. The bound has room for the rounding of both. What is
//! found is what a scan of the vectors themselves finds, of equal scores the smaller ids.
//!
//! Cost: one scan of the codes, and a read of the vector for each row within the bound; where rows cannot be told apart (a tight cluster, one
//! vector for all) for each of those, at most a scan of all vectors. Memory: `k` candidates. Nothing is built ahead, so a row can be found as
//! soon as it is written, and forgotten as soon as it is removed.
//!
//! ```text
//! codes  [rows, stride] i8    read by the scan: a cache line for a width of 64
//! exact  [rows, width]  f32   read where the bound admits it
//! ```

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::HashTable;
use sluice_features::maps::{Seeded, most_bytes};
use thiserror::Error;

use crate::kernels::{Real, byte_products};

/// Rows of codes are a multiple of this long, padded by zeros: the widest vector of bytes, so that
/// the scan has no remainder, and a cache line.
const LANE: usize = 64;
/// Rows whose bounds are computed before they are compared with what was kept.
const BLOCK: usize = 256;
/// The greatest length of a vector: no sum of products of two such overflows, so scores are numbers.
const LONGEST: f64 = 1e18;
/// Part of the product of two lengths, for each element, by which sums of `f32` are off at most: twice the unit of rounding, and what is
/// rounded in a bound counts as [`ROUNDED`] elements more.
const ROUNDING: f32 = 2.0 * f32::EPSILON;
const ROUNDED: usize = 32;

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
    /// The vector is so long that its inner products would not be numbers.
    #[error("expected a vector of length up to 1e18, found {length:e}: the tower has diverged, go back to a good checkpoint", length = f64::from_bits(*.bits))]
    TooLong {
        /// The bits of its length.
        bits: u64,
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
    /// Places by the ids that stand there.
    rows: HashTable<u32>,
    hashing: Seeded,
    ids: Vec<u64>,
    scales: Vec<f32>,
    /// The lengths of what codes leave over, and of the vectors, both rounded up.
    rests: Vec<f32>,
    lengths: Vec<f32>,
    codes: Vec<i8>,
    exact: Vec<f32>,
}

/// The memory of a search. One per searching thread, used again and again.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    query: Vec<i8>,
    products: Vec<i32>,
    bounds: Vec<f32>,
    /// The best so far, the last of them first.
    kept: BinaryHeap<Kept>,
}

/// A row among the best so far. The order is total (the lowest score, and of equal ones the greatest id, comes first), so what is kept does not
/// depend on the order of rows.
#[derive(Clone, Copy, Debug)]
struct Kept(Hit);

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.score.total_cmp(&self.0.score).then(self.0.id.cmp(&other.0.id))
    }
}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Kept {}

/// What a vector is in 8 bits.
#[derive(Clone, Copy, Debug)]
struct Quantised {
    scale: f32,
    /// The lengths of what the codes leave over, of what they stand for, and of the vector, all rounded up.
    rest: f32,
    coded: f32,
    length: f32,
}

impl Index {
    /// Returns how many bytes a vector of so many numbers takes, with its codes and its place.
    pub const fn row_bytes(width: usize) -> usize {
        let row = width.next_multiple_of(LANE) + (width + 3) * size_of::<f32>() + size_of::<u64>();
        row + most_bytes(size_of::<u32>())
    }

    /// Creates an empty index of vectors with `width` elements, at most 65,536.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            stride: width.max(1).next_multiple_of(LANE),
            rows: HashTable::new(),
            hashing: Seeded::default(),
            ids: Vec::new(),
            scales: Vec::new(),
            rests: Vec::new(),
            lengths: Vec::new(),
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
        self.row(id).map(|row| &self.exact[row * self.width..][..self.width])
    }

    /// Writes the vector of an item, new or known.
    ///
    /// # Errors
    /// When the vector has the wrong width, is not finite or too long; the index is as before.
    pub fn upsert(&mut self, id: u64, vector: &[f32]) -> Result<(), IndexError> {
        self.check(vector)?;
        let row = match self.row(id) {
            Some(row) => row,
            None => {
                let row = self.ids.len();
                self.ids.push(id);
                let (ids, hashing) = (&self.ids, &self.hashing);
                let again = |row: &u32| hashing.hash_one(ids[*row as usize]);
                // Vectors of 2³² items take more memory than there is.
                self.rows.insert_unique(hashing.hash_one(id), row as u32, again);
                self.scales.push(0.0);
                self.rests.push(0.0);
                self.lengths.push(0.0);
                self.codes.resize(self.codes.len() + self.stride, 0);
                self.exact.resize(self.exact.len() + self.width, 0.0);
                row
            }
        };
        let quantised = quantise(vector, &mut self.codes[row * self.stride..][..self.width]);
        self.scales[row] = quantised.scale;
        self.rests[row] = quantised.rest;
        self.lengths[row] = quantised.length;
        self.exact[row * self.width..][..self.width].copy_from_slice(vector);
        Ok(())
    }

    /// Removes an item; returns whether it was there. The last row takes its place.
    pub fn remove(&mut self, id: u64) -> bool {
        let (ids, hash) = (&self.ids, self.hashing.hash_one(id));
        let Ok(found) = self.rows.find_entry(hash, |&row| ids[row as usize] == id) else {
            return false;
        };
        let (row, _) = found.remove();
        let (row, last) = (row as usize, ids.len() - 1);
        if row < last {
            let hash = self.hashing.hash_one(ids[last]);
            if let Some(moved) = self.rows.find_mut(hash, |&row| row as usize == last) {
                *moved = row as u32;
            }
            let (codes, exact) = (last * self.stride, last * self.width);
            self.codes.copy_within(codes..codes + self.stride, row * self.stride);
            self.exact.copy_within(exact..exact + self.width, row * self.width);
        }
        self.ids.swap_remove(row);
        self.scales.swap_remove(row);
        self.rests.swap_remove(row);
        self.lengths.swap_remove(row);
        self.codes.truncate(last * self.stride);
        self.exact.truncate(last * self.width);
        true
    }

    /// Finds the `k` items that pass `filter` with the largest inner products with `query`, best
    /// first; of equal ones the smaller id comes first. `out` is overwritten, and has fewer than
    /// `k` hits only when fewer items pass. `filter` is asked about promising items only.
    ///
    /// # Errors
    /// When the query has the wrong width, is not finite or too long; `out` is then empty.
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
        let Scratch { query: codes, products, bounds, kept } = scratch;
        codes.clear();
        codes.resize(self.stride, 0);
        let quantised = quantise(query, &mut codes[..self.width]);
        kept.clear();
        let last = |kept: &BinaryHeap<Kept>| kept.peek().copied().filter(|_| kept.len() == k);
        let mut least = f32::NEG_INFINITY;
        let mut row = 0;
        for block in self.codes.chunks(BLOCK * self.stride) {
            let rows = row..row + block.len() / self.stride;
            products.resize(rows.len(), 0);
            byte_products(codes, block, products);
            self.bound(&quantised, rows.clone(), products, bounds);
            for (row, &bound) in rows.zip(&*bounds) {
                if bound < least {
                    continue;
                }
                // Zero has one sign, so that zeros are equal.
                let score = f32::dot(query, &self.exact[row * self.width..][..self.width]) + 0.0;
                let (hit, before) = (Kept(Hit { id: self.ids[row], score }), last(kept));
                if before.is_some_and(|last| hit >= last) || !filter(hit.0.id) {
                    continue;
                }
                if before.is_some() {
                    kept.pop();
                }
                kept.push(hit);
                least = last(kept).map_or(least, |last| last.0.score);
            }
            row += block.len() / self.stride;
        }
        out.extend(kept.drain().map(|kept| kept.0));
        out.sort_unstable_by_key(|&hit| Kept(hit));
        Ok(())
    }

    /// Replaces `bounds` by what the scores of some rows are at most, given the products of their codes.
    fn bound(
        &self,
        query: &Quantised,
        rows: Range<usize>,
        products: &[i32],
        bounds: &mut Vec<f32>,
    ) {
        let rounding = (self.width + ROUNDED) as f32 * ROUNDING;
        let (by_rest, by_length) = (query.coded, query.rest + query.length * rounding);
        let (scales, rests) = (&self.scales[rows.clone()], &self.rests[rows.clone()]);
        let rows = scales.iter().zip(rests).zip(&self.lengths[rows]).zip(products);
        bounds.clear();
        // Numbers too small for their full precision are off by less than the smallest that has it.
        bounds.extend(rows.map(|(((scale, rest), length), &product)| {
            let coded = scale * (query.scale * product as f32);
            coded + by_rest * rest + by_length * length + f32::MIN_POSITIVE
        }));
    }

    fn row(&self, id: u64) -> Option<usize> {
        let found = self.rows.find(self.hashing.hash_one(id), |&row| self.ids[row as usize] == id);
        found.map(|&row| row as usize)
    }

    fn check(&self, vector: &[f32]) -> Result<(), IndexError> {
        if vector.len() != self.width {
            return Err(IndexError::Width { expected: self.width, found: vector.len() });
        }
        if let Some(position) = vector.iter().position(|x| !x.is_finite()) {
            return Err(IndexError::NotFinite { position, bits: vector[position].to_bits() });
        }
        let length = length(vector.iter().map(|&x| f64::from(x)));
        if length > LONGEST {
            return Err(IndexError::TooLong { bits: length.to_bits() });
        }
        Ok(())
    }
}

/// Writes the codes of a vector; all zero for a vector of zeros.
fn quantise(vector: &[f32], codes: &mut [i8]) -> Quantised {
    let largest = vector.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let scale = largest / 127.0;
    if scale > 0.0 {
        for (code, x) in codes.iter_mut().zip(vector) {
            *code = (x / scale).round().clamp(-127.0, 127.0) as i8;
        }
    } else {
        codes.fill(0);
    }
    let coded = || codes.iter().map(|&code| f64::from(scale) * f64::from(code));
    let rest = vector.iter().zip(coded()).map(|(&x, coded)| f64::from(x) - coded);
    Quantised {
        scale,
        rest: rounded_up(length(rest)),
        coded: rounded_up(length(coded())),
        length: rounded_up(length(vector.iter().map(|&x| f64::from(x)))),
    }
}

fn length(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.map(|x| x * x).sum::<f64>().sqrt()
}

/// A number that is no smaller, by a little more than the double precision sum before was rounded.
fn rounded_up(length: f64) -> f32 {
    (length * (1.0 + 1e-6)) as f32 + f32::MIN_POSITIVE
}

#[cfg(test)]
mod tests;
