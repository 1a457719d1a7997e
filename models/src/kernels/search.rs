//! Search of a column for a value, newest first: what SIM's hard search does with the categories
//! of a behaviour sequence.

use super::lanes::{Kernel, Lanes};
use super::path::Proof;

/// Vectors that are looked at before a decision.
const STRIDE: usize = 4;

struct Newest<'a> {
    column: &'a [u32],
    value: u32,
    limit: usize,
    out: &'a mut Vec<u32>,
}

impl Kernel for Newest<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let mut end = self.column.len();
        let mut left = self.limit;
        while !end.is_multiple_of(L::WIDTH) && left > 0 {
            end -= 1;
            if self.column[end] == self.value {
                self.out.push(end as u32);
                left -= 1;
            }
        }
        while end > 0 && left > 0 {
            let count = (end / L::WIDTH).min(STRIDE);
            let start = end - count * L::WIDTH;
            let mut bits = 0_u64;
            for chunk in self.column[start..end].chunks_exact(L::WIDTH) {
                bits = (bits >> L::WIDTH)
                    | (u64::from(lanes.equal(chunk, self.value)) << (64 - L::WIDTH));
            }
            // The topmost bit is the newest element.
            while bits != 0 && left > 0 {
                let from_end = bits.leading_zeros() as usize;
                self.out.push((end - 1 - from_end) as u32);
                bits &= !(1 << (63 - from_end));
                left -= 1;
            }
            end = start;
        }
    }
}

/// Fills `out` with the positions of the newest `limit` elements equal to `value`, the last of the
/// column first. Reads no further back than it must.
///
/// # Panics
/// When the column is longer than a `u32` can count.
pub fn find_newest(column: &[u32], value: u32, limit: usize, out: &mut Vec<u32>) {
    find_newest_on(Proof::current(), column, value, limit, out);
}

fn find_newest_on(proof: Proof, column: &[u32], value: u32, limit: usize, out: &mut Vec<u32>) {
    assert!(u32::try_from(column.len()).is_ok(), "found a column of {} elements", column.len());
    out.clear();
    proof.run(Newest { column, value, limit, out });
}

/// [`find_newest`] without instructions of its own: blocks of 64 whose comparison any compiler
/// vectorises. A crate that this one depends on can carry the same dozen lines.
pub fn find_newest_portable(column: &[u32], value: u32, limit: usize, out: &mut Vec<u32>) {
    assert!(u32::try_from(column.len()).is_ok(), "found a column of {} elements", column.len());
    out.clear();
    let mut end = column.len();
    for block in column.rchunks(64) {
        end -= block.len();
        if out.len() < limit && block.iter().fold(false, |any, &c| any | (c == value)) {
            let matches = (0..block.len()).rev().filter(|&i| block[i] == value);
            out.extend(matches.map(|i| (end + i) as u32).take(limit - out.len()));
        }
        if out.len() >= limit {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn textbook(column: &[u32], value: u32, limit: usize) -> Vec<u32> {
        let newest_first = (0..column.len()).rev().filter(|&i| column[i] == value);
        newest_first.take(limit).map(|i| i as u32).collect()
    }

    #[test]
    fn all_paths_find_what_the_textbook_finds() {
        let mut out = vec![7; 3];
        for length in 0..300_u32 {
            let column: Vec<u32> = (0..length).map(|i| (i * i + length) % 7).collect();
            for value in [0, 1, 4, 6, 99] {
                for limit in [0, 1, 2, 10, 1000] {
                    let expected = textbook(&column, value, limit);
                    for proof in Proof::all() {
                        find_newest_on(proof, &column, value, limit, &mut out);
                        assert_eq!(out, expected, "{proof:?} {length} {value} {limit}");
                    }
                    find_newest_portable(&column, value, limit, &mut out);
                    assert_eq!(out, expected, "portable {length} {value} {limit}");
                }
            }
        }
    }

    #[test]
    fn values_with_the_top_bit_are_values() {
        for proof in Proof::all() {
            let column = [[u32::MAX, 0, 1 << 31]; 40].concat();
            let mut out = Vec::new();
            find_newest_on(proof, &column, u32::MAX, 2, &mut out);
            assert_eq!(out, [117, 114], "{proof:?}");
        }
    }
}
