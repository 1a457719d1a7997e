//! Which occurrences of a batch are the same id.
//!
//! Adagrad, Adam and FTRL must see one gradient per id and step: the gradients of an
//! id's occurrences are summed before the update.

use super::{Seed, hash};

/// Maps a list of occurrences to distinct keys, in the order of first occurrence. Its memory is
/// reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub struct Grouping {
    keys: Vec<u64>,
    counts: Vec<u32>,
    index: Vec<u32>,
    /// Open addressing; an entry counts only if it carries the stamp of this batch.
    slots: Vec<(u32, u32)>,
    stamp: u32,
    seed: Seed,
}

impl Grouping {
    /// Groups the occurrences of a batch, forgetting the one before. Key 0 is a key like others
    /// here.
    ///
    /// # Panics
    /// With more than 2³¹ occurrences.
    pub fn group(&mut self, occurrences: &[u64]) {
        assert!(occurrences.len() < 1 << 31, "found {} occurrences", occurrences.len());
        self.keys.clear();
        self.counts.clear();
        self.index.clear();
        let slots = (occurrences.len() * 2).next_power_of_two();
        self.stamp = self.stamp.wrapping_add(1);
        if self.slots.len() < slots || self.stamp == 0 {
            let slots = slots.max(self.slots.len());
            self.slots.clear();
            self.slots.resize(slots, (0, 0));
            self.stamp = 1;
        }
        let mask = self.slots.len() - 1;
        for &key in occurrences {
            let mut place = self.seed.place(hash(key)) & mask;
            let unique = loop {
                let (stamp, unique) = self.slots[place];
                if stamp != self.stamp {
                    let unique = self.keys.len() as u32;
                    self.slots[place] = (self.stamp, unique);
                    self.keys.push(key);
                    self.counts.push(0);
                    break unique;
                }
                if self.keys[unique as usize] == key {
                    break unique;
                }
                place = (place + 1) & mask;
            };
            self.counts[unique as usize] += 1;
            self.index.push(unique);
        }
    }

    /// The distinct keys, in the order of first occurrence.
    pub fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// How often each distinct key occurs.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// For each occurrence, which of the distinct keys it is.
    pub fn index(&self) -> &[u32] {
        &self.index
    }

    /// Copies rows `[distinct, width]` to each occurrence: `out` `[occurrences, width]`.
    ///
    /// # Panics
    /// When a length does not fit.
    pub fn spread(&self, rows: &[f32], width: usize, out: &mut [f32]) {
        self.check(rows.len(), out.len(), width);
        for (out, &unique) in out.chunks_exact_mut(width).zip(&self.index) {
            out.copy_from_slice(&rows[unique as usize * width..][..width]);
        }
    }

    /// Sums the gradients of the occurrences `[occurrences, width]` into `out` `[distinct, width]`,
    /// in the order of the occurrences.
    ///
    /// # Panics
    /// When a length does not fit.
    pub fn sum(&self, gradients: &[f32], width: usize, out: &mut [f32]) {
        self.check(out.len(), gradients.len(), width);
        out.fill(0.0);
        for (gradient, &unique) in gradients.chunks_exact(width).zip(&self.index) {
            let out = &mut out[unique as usize * width..][..width];
            out.iter_mut().zip(gradient).for_each(|(out, g)| *out += g);
        }
    }

    fn check(&self, distinct: usize, occurrences: usize, width: usize) {
        let expected = (self.keys.len() * width, self.index.len() * width);
        assert!(width > 0 && (distinct, occurrences) == expected, "lengths of rows, occurrences");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_in_the_order_of_first_occurrence() {
        let mut grouping = Grouping::default();
        for _ in 0..3 {
            grouping.group(&[9, 4, 9, 0, 4, 9]);
            assert_eq!(grouping.keys(), [9, 4, 0]);
            assert_eq!(grouping.counts(), [3, 2, 1]);
            assert_eq!(grouping.index(), [0, 1, 0, 2, 1, 0]);
            grouping.group(&[]);
            assert!(grouping.keys().is_empty() && grouping.index().is_empty());
        }
    }

    #[test]
    fn sums_gradients_and_spreads_rows() {
        let mut grouping = Grouping::default();
        grouping.group(&[5, 6, 5]);
        let mut sums = [9.0; 4];
        grouping.sum(&[1.0, 2.0, 10.0, 20.0, 100.0, 200.0], 2, &mut sums);
        assert_eq!(sums.to_vec(), vec![101.0, 202.0, 10.0, 20.0]);
        let mut spread = [0.0; 6];
        grouping.spread(&sums, 2, &mut spread);
        assert_eq!(spread.to_vec(), vec![101.0, 202.0, 10.0, 20.0, 101.0, 202.0]);
    }

    #[test]
    fn batches_of_any_size_follow_each_other() {
        let mut grouping = Grouping::default();
        for size in [3, 1000, 10, 5000, 4096, 1, 0, 77] {
            let keys: Vec<u64> = (0..size).map(|i| i * i % 97 * 1_000_003).collect();
            grouping.group(&keys);
            let back: Vec<u64> =
                grouping.index().iter().map(|&i| grouping.keys()[i as usize]).collect();
            assert_eq!(back, keys);
            assert_eq!(grouping.counts().iter().sum::<u32>() as u64, size);
            let mut distinct = grouping.keys().to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), grouping.keys().len());
        }
    }

    #[test]
    fn the_stamp_may_run_over() {
        let mut grouping = Grouping { stamp: u32::MAX - 1, ..Grouping::default() };
        for key in 1..5 {
            grouping.group(&[key, 9, key]);
            assert_eq!(grouping.keys(), [key, 9]);
        }
    }
}
