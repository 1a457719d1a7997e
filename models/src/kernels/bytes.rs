//! Products of signed bytes, for scans over quantised vectors: exact in 32 bits.

use super::lanes::{Kernel, Lanes};
use super::path::Proof;

/// Longest vectors whose product cannot leave 32 bits on any path.
const LONGEST: usize = 1 << 16;

struct Products<'a> {
    query: &'a [i8],
    rows: &'a [i8],
    out: &'a mut [i32],
}

impl Kernel for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let surplus = lanes.surplus(self.query);
        let whole = self.query.len() / L::BYTES * L::BYTES;
        for (row, out) in self.rows.chunks_exact(self.query.len()).zip(self.out) {
            let mut sums = lanes.no_sums();
            let chunks = self.query.chunks_exact(L::BYTES).zip(row.chunks_exact(L::BYTES));
            for (q, r) in chunks {
                sums = lanes.add_products(sums, q, r);
            }
            let rest = self.query[whole..].iter().zip(&row[whole..]);
            let rest: i32 = rest.map(|(&q, &r)| i32::from(q) * i32::from(r)).sum();
            *out = lanes.total(sums) - surplus + rest;
        }
    }
}

/// `out[i] = Σ_j query[j] rows[i, j]`: the products of a query with each of the rows, which lie one
/// after the other. Exact, the same on every path.
///
/// # Panics
/// When the query is empty or longer than 65,536, or `rows` is not `out.len()` times as long.
pub fn byte_products(query: &[i8], rows: &[i8], out: &mut [i32]) {
    byte_products_on(Proof::current(), query, rows, out);
}

fn byte_products_on(proof: Proof, query: &[i8], rows: &[i8], out: &mut [i32]) {
    assert!((1..=LONGEST).contains(&query.len()), "found a query of {} bytes", query.len());
    assert_eq!(rows.len(), query.len() * out.len(), "bytes in all rows");
    proof.run(Products { query, rows, out });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_paths_are_exact() {
        for width in 1..200 {
            let byte = |i: usize| ((i * 2_654_435_761) >> 7) as u8 as i8;
            let query: Vec<i8> = (0..width).map(byte).collect();
            let rows: Vec<i8> = (1000..1000 + 5 * width).map(byte).collect();
            let exact = |row: &[i8]| -> i64 {
                row.iter().zip(&query).map(|(&r, &q)| i64::from(r) * i64::from(q)).sum()
            };
            let expected: Vec<i64> = rows.chunks(width).map(exact).collect();
            for proof in Proof::all() {
                let mut out = [0; 5];
                byte_products_on(proof, &query, &rows, &mut out);
                assert_eq!(out.map(i64::from).to_vec(), expected, "{proof:?} {width}");
            }
        }
    }

    #[test]
    fn extremes_do_not_saturate() {
        for (q, r) in [(-128, -128), (-128, 127), (127, -128), (127, 127)] {
            for width in [64, 100, LONGEST] {
                let (query, row) = (vec![q; width], vec![r; width]);
                for proof in Proof::all() {
                    let mut out = [0];
                    byte_products_on(proof, &query, &row, &mut out);
                    assert_eq!(out[0], width as i32 * i32::from(q) * i32::from(r), "{proof:?}");
                }
            }
        }
    }
}
