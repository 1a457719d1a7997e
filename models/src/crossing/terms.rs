//! A batch as sums over rows: which distinct rows each example adds up, and with what share.
//!
//! A key field counts once, an entry of a list by its share of the mean. Where an example names an id more than once its shares are summed, so
//! that every id is one term of it, has one gradient, and takes one step. Key 0 is no term.

use std::ops::Range;

use sluice_features::example::Batch;
use sluice_features::time::EventTime;

use crate::model::entries;
use crate::table::{Use, hash};

/// Slots at first; they double when half of them are taken.
const SLOTS: usize = 4096;

/// Terms of examples. Its memory is used again.
#[derive(Clone, Debug, Default)]
pub(crate) struct TermList {
    /// The distinct keys, in the order of first occurrence.
    pub(crate) keys: Vec<u64>,
    /// In how many examples each of them occurs, and when last.
    pub(crate) uses: Vec<Use>,
    /// For each term, which of the distinct keys it is.
    pub(crate) rows: Vec<u32>,
    /// For each term, its share.
    pub(crate) shares: Vec<f32>,
    /// `[examples + 1]`: where the terms of each example begin.
    starts: Vec<usize>,
    /// For each distinct key, one more than the example that had it last.
    seen: Vec<u32>,
    /// Open addressing; a slot counts only if it carries the stamp of this batch.
    slots: Vec<Slot>,
    stamp: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u64,
    stamp: u32,
    distinct: u32,
}

impl TermList {
    /// Reads the key fields of a slice of a batch, and its list fields if `lists`.
    pub(crate) fn group(&mut self, batch: &Batch, slice: Range<usize>, lists: bool) {
        self.clear();
        let fields = batch.keys.len() / batch.size().max(1);
        self.rows.reserve(slice.len() * fields);
        self.shares.reserve(slice.len() * fields);
        for (number, example) in slice.enumerate() {
            let (mark, time) = (number as u32 + 1, batch.about[example].time);
            let start = self.rows.len();
            for &key in &batch.keys[example * fields..(example + 1) * fields] {
                self.add(key, 1.0, mark, start, time);
            }
            for list in batch.lists.iter().filter(|_| lists) {
                let (entries, share) = entries(list, example);
                for &key in &list.keys[entries] {
                    self.add(key, share, mark, start, time);
                }
            }
            self.starts.push(self.rows.len());
        }
    }

    /// Where the terms of an example are, counted from the beginning of the slice.
    pub(crate) fn range(&self, example: usize) -> Range<usize> {
        self.starts[example]..self.starts[example + 1]
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.uses.clear();
        self.seen.clear();
        self.rows.clear();
        self.shares.clear();
        self.starts.clear();
        self.starts.push(0);
        self.stamp = self.stamp.wrapping_add(1);
        if self.slots.is_empty() || self.stamp == 0 {
            self.slots.resize(self.slots.len().max(SLOTS), Slot::default());
            self.slots.fill(Slot::default());
            self.stamp = 1;
        }
    }

    #[inline]
    fn add(&mut self, key: u64, share: f32, mark: u32, start: usize, time: EventTime) {
        if key == 0 {
            return;
        }
        let distinct = self.find(key);
        let (seen, used) = (&mut self.seen[distinct as usize], &mut self.uses[distinct as usize]);
        used.time = used.time.max(time);
        if *seen == mark {
            let twice = self.rows[start..].iter().position(|&row| row == distinct);
            if let Some(term) = twice {
                self.shares[start + term] += share;
            }
            return;
        }
        *seen = mark;
        used.count += 1;
        self.rows.push(distinct);
        self.shares.push(share);
    }

    #[inline]
    fn find(&mut self, key: u64) -> u32 {
        let mask = self.slots.len() - 1;
        let mut place = hash(key) as usize & mask;
        loop {
            let slot = self.slots[place];
            if slot.stamp != self.stamp {
                return self.insert(key, place);
            }
            if slot.key == key {
                return slot.distinct;
            }
            place = (place + 1) & mask;
        }
    }

    #[cold]
    #[inline(never)]
    fn insert(&mut self, key: u64, place: usize) -> u32 {
        let distinct = self.keys.len() as u32;
        self.slots[place] = Slot { key, stamp: self.stamp, distinct };
        self.keys.push(key);
        self.uses.push(Use { count: 0, time: EventTime(i64::MIN) });
        self.seen.push(0);
        if self.keys.len() * 2 > self.slots.len() {
            self.grow();
        }
        distinct
    }

    fn grow(&mut self) {
        let slots = self.slots.len() * 2;
        self.slots.clear();
        self.slots.resize(slots, Slot::default());
        self.stamp = 1;
        for (distinct, &key) in self.keys.iter().enumerate() {
            let mut place = hash(key) as usize & (slots - 1);
            while self.slots[place].stamp == self.stamp {
                place = (place + 1) & (slots - 1);
            }
            self.slots[place] = Slot { key, stamp: self.stamp, distinct: distinct as u32 };
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_features::example::About;
    use sluice_features::ids::{EventId, ItemId, UserId};

    use super::*;

    fn batch(fields: usize, keys: &[u64], lists: &[&[u64]]) -> Batch {
        let mut batch = Batch::new(usize::from(!lists.is_empty()), 0);
        batch.keys.extend_from_slice(keys);
        for i in 0..keys.len() / fields {
            batch.about.push(About {
                impression: EventId(1),
                user: UserId(1),
                item: ItemId(1),
                time: EventTime(1000 - i as i64),
                new_item: false,
            });
            if let Some(list) = lists.get(i) {
                let ragged = &mut batch.lists[0];
                ragged.keys.extend_from_slice(list);
                ragged.starts.push(ragged.keys.len() as u32);
            }
        }
        batch
    }

    #[test]
    fn an_id_is_one_term_of_an_example() {
        let batch = batch(2, &[7, 7, 0, 9, 9, 7], &[&[9, 7], &[], &[9, 9, 5, 0]]);
        let mut terms = TermList::default();
        for _ in 0..2 {
            terms.group(&batch, 0..3, true);
            assert_eq!(terms.keys, [7, 9, 5]);
            let uses = [(2, 1000), (3, 1000), (1, 998)];
            assert_eq!(terms.uses, uses.map(|(count, t)| Use { count, time: EventTime(t) }));
            let of = |i: usize| (&terms.rows[terms.range(i)], &terms.shares[terms.range(i)]);
            assert_eq!(of(0), (&[0, 1][..], &[2.5, 0.5][..]));
            assert_eq!(of(1), (&[1][..], &[1.0][..]));
            assert_eq!(of(2), (&[1, 0, 2][..], &[1.5, 1.0, 0.25][..]));
        }
        terms.group(&batch, 1..3, false);
        assert_eq!((&terms.keys[..], &terms.rows[..]), (&[9, 7][..], &[0, 0, 1][..]));
    }

    #[test]
    fn many_ids_and_a_stamp_that_runs_over_do_no_harm() {
        let keys: Vec<u64> = (0..60_000).map(|i| i * i % 20_011 * 1_000_003 + 1).collect();
        let batch = batch(6, &keys, &[]);
        let mut terms = TermList { stamp: u32::MAX - 1, ..TermList::default() };
        for slice in [0..10, 5..10_000, 0..2, 9..9, 0..10_000, 3..700] {
            terms.group(&batch, slice.clone(), true);
            for (number, example) in slice.clone().enumerate() {
                let mut wanted = keys[example * 6..(example + 1) * 6].to_vec();
                let found = terms.rows[terms.range(number)].iter();
                let found: Vec<u64> = found.map(|&row| terms.keys[row as usize]).collect();
                let shares: f32 = terms.shares[terms.range(number)].iter().sum();
                assert!((shares - 6.0).abs() < 1e-6);
                let mut first = Vec::new();
                wanted.retain(|key| {
                    !first.contains(key) && {
                        first.push(*key);
                        true
                    }
                });
                assert_eq!(found, wanted);
            }
            assert_eq!(
                terms.uses.iter().map(|used| used.count as usize).sum::<usize>(),
                terms.rows.len()
            );
        }
    }
}
