//! The memory of rows: slabs, each of which fills huge pages.
//!
//! A processor finds the page of a random row in its tables only if pages are few; else the row waits twice. So slab `k` takes `4ᵏ` huge pages, and what is
//! not used of it costs no memory. The first one is smaller as long as its rows do not fill a page, and grows by being copied.

use crate::kernels::{HUGE_PAGE, Zeros, prefetch, prefetch_all};

/// Rows of the first slab at first, and how many times as many it has then.
const FIRST: usize = 1024;
const TIMES: usize = 4;

/// Rows of `stride` words each, by number.
#[derive(Debug)]
pub(super) struct Slabs {
    stride: usize,
    /// Rows in a huge page.
    page: usize,
    /// `2⁶⁴ / page`, rounded up.
    reciprocal: u64,
    slabs: Vec<Zeros<u32>>,
}

impl Slabs {
    pub(super) fn new(stride: usize) -> Self {
        let page = (HUGE_PAGE / (stride * size_of::<u32>())).max(2);
        let reciprocal = (u64::MAX / page as u64) + 1;
        Self { stride, page, reciprocal, slabs: Vec::new() }
    }

    /// Words of a row.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Makes sure that there is memory for a row and those below it.
    pub(super) fn reserve(&mut self, row: u32) {
        let (slab, start) = self.place(row);
        if slab == 0 && self.slabs.first().is_none_or(|slab| start >= slab.len()) {
            let wanted = (row as usize + 1).next_multiple_of(FIRST);
            let rows = self.slabs.first().map_or(FIRST, |slab| slab.len() / self.stride * TIMES);
            let old = self.slabs.pop();
            let mut new = self.slab(rows.max(wanted).min(self.page));
            if let Some(old) = old {
                new[..old.len()].copy_from_slice(&old);
            }
            self.slabs.push(new);
        }
        while self.slabs.len() <= slab {
            self.slabs.push(self.slab(self.page << (2 * self.slabs.len())));
        }
    }

    /// Memory for so many rows, whole huge pages if it is one.
    fn slab(&self, rows: usize) -> Zeros<u32> {
        let words = rows * self.stride;
        let page = HUGE_PAGE / size_of::<u32>();
        Zeros::new(if rows < self.page { words } else { words.next_multiple_of(page) })
    }

    /// The words of a row.
    #[inline(always)]
    pub(super) fn row(&self, row: u32) -> &[u32] {
        let (slab, start) = self.place(row);
        &self.slabs[slab][start..start + self.stride]
    }

    /// The words of a row to change.
    #[inline(always)]
    pub(super) fn row_mut(&mut self, row: u32) -> &mut [u32] {
        let (slab, start) = self.place(row);
        &mut self.slabs[slab][start..start + self.stride]
    }

    /// Asks for the memory of a row.
    #[inline(always)]
    pub(super) fn prefetch(&self, row: u32) {
        let words = self.row(row);
        if words.len() > 16 {
            prefetch_all(words);
        } else {
            // In two cache lines at most: quicker than to see whether it is one.
            prefetch(words, 0);
            prefetch(words, words.len() - 1);
        }
    }

    /// Appends rows `from..to` as they lie in memory, at most to the end of a slab. Returns the row behind them.
    pub(super) fn copy(&self, from: u32, to: u32, out: &mut Vec<u32>) -> u32 {
        let (slab, start) = self.place(from);
        let end = (self.page << (2 * slab)) * self.stride;
        let words = ((to - from) as usize * self.stride).min(end - start);
        out.extend_from_slice(&self.slabs[slab][start..start + words]);
        from + (words / self.stride) as u32
    }

    /// The slab of a row, and where it begins there.
    #[inline(always)]
    fn place(&self, row: u32) -> (usize, usize) {
        // `row / page`: exact, since the reciprocal is too large by less than 2⁻³² of itself.
        let pages = (u128::from(row) * u128::from(self.reciprocal)) >> 64;
        // Slabs before slab k have 1 + 4 + ... = (4ᵏ - 1) / 3 pages, which is 0b10101... of 2 k bits.
        let slab = (3 * pages as usize + 1).ilog2() / 2;
        let before = (0x5555_5555_5555_5555 & ((1_u64 << (2 * slab)) - 1)) as usize * self.page;
        (slab as usize, (row as usize - before) * self.stride)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_what_is_written_while_slabs_grow_and_are_added() {
        for stride in [3, 18, 66, 50_000, 400_000, 600_000] {
            let mut slabs = Slabs::new(stride);
            let rows = if stride < 100 { 60_000 } else { 30 };
            for row in 0..rows {
                slabs.reserve(row);
                let words = slabs.row_mut(row);
                assert!(words.iter().all(|&word| word == 0), "{row} is another one's");
                (words[0], words[stride - 1]) = (row + 1, row + 2);
            }
            for row in 0..rows {
                let words = slabs.row(row);
                assert_eq!((words.len(), words[0], words[stride - 1]), (stride, row + 1, row + 2));
            }
            let (mut row, mut copied) = (1, Vec::new());
            while row < rows {
                row = slabs.copy(row, rows, &mut copied);
            }
            let copied = copied.chunks_exact(stride).map(|row| row[0]);
            assert!(copied.eq(2..=rows));
        }
    }

    #[test]
    fn places_are_those_of_plain_division() {
        for stride in [3, 18, 19, 600_000] {
            let slabs = Slabs::new(stride);
            let mut before = [0; 12];
            for k in 1..12 {
                before[k] = before[k - 1] + (slabs.page << (2 * (k - 1)));
            }
            let near = |row: usize| row.saturating_sub(2)..row + 2;
            let rows = before
                .iter()
                .flat_map(|&row| near(row))
                .chain((0..u32::MAX as usize).step_by(65_537));
            for row in rows.filter(|&row| row < u32::MAX as usize && row < before[11]) {
                let slab = before.iter().rposition(|&first| first <= row).unwrap();
                let expected = (slab, (row - before[slab]) * stride);
                assert_eq!(slabs.place(row as u32), expected, "row {row} of {stride} words");
            }
        }
    }
}
