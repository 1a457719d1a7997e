//! A batch as sums over rows: which distinct rows each example adds up, and with what share.
//!
//! A key field counts once, an entry of a list by its share of the mean. Where an example names an id more than once its shares are summed, so
//! that every id is one term of it, has one gradient, and takes one step. Key 0 is no term.

use std::ops::Range;

use sluice_features::example::Batch;

use crate::model::entries;
use crate::table::{Seed, Use, hash, seconds};

/// Slots at first.
const SLOTS: usize = 4096;
/// Slots for each distinct key, at least: most searches then end at the first slot.
const SPARSE: usize = 5;

/// Terms of examples. Its memory is used again.
#[derive(Clone, Debug, Default)]
pub(crate) struct TermList {
    /// The distinct keys, in the order of first occurrence: in how many examples each of them occurs, and when last.
    pub(crate) uses: Vec<Use>,
    /// For each term, which of the distinct keys it is; there is more room than terms.
    rows: Vec<u32>,
    /// For each term, its share; there is more room than terms.
    shares: Vec<f32>,
    /// `[examples + 1]`: where the terms of each example begin.
    starts: Vec<usize>,
    /// Open addressing; a slot counts only if its mark is one of this batch.
    slots: Vec<Slot>,
    /// Marks up to this one are those of batches before.
    before: u32,
    /// The mark of the newest example.
    mark: u32,
    seed: Seed,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// The example that had the key last.
    mark: u32,
    /// Which of the distinct keys it is.
    distinct: u32,
}

impl TermList {
    /// Reads the key fields of a slice of a batch, or those of them that are `chosen`, and its list fields if `lists`.
    pub(crate) fn group(
        &mut self,
        batch: &Batch,
        slice: Range<usize>,
        chosen: Option<&[usize]>,
        lists: bool,
    ) {
        let fields = batch.keys.len() / batch.size().max(1);
        let lists = if lists { &batch.lists[..] } else { &[] };
        let listed = lists.iter().map(|list| list.starts[slice.end] - list.starts[slice.start]);
        self.clear(slice.len(), slice.len() * fields + listed.sum::<u32>() as usize);
        for example in slice {
            let keys = &batch.keys[example * fields..(example + 1) * fields];
            let listed = lists.iter().map(|list| entries::<f32>(list, example).0.len());
            let most = keys.len() + listed.sum::<usize>();
            let mut terms = self.begin(most, seconds(batch.about[example].time.0));
            match chosen {
                None => keys.iter().for_each(|&key| terms.add(key, 1.0)),
                Some(chosen) => chosen.iter().for_each(|&field| terms.add(keys[field], 1.0)),
            }
            for list in lists {
                let (entries, share) = entries(list, example);
                for &key in &list.keys[entries] {
                    terms.add(key, share);
                }
            }
            let count = terms.count;
            let end = self.end() + count;
            self.starts.push(end);
        }
    }

    /// Which of the distinct keys the terms of all examples are.
    pub(crate) fn rows(&self) -> &[u32] {
        &self.rows[..self.end()]
    }

    /// Their shares.
    pub(crate) fn shares(&self) -> &[f32] {
        &self.shares[..self.end()]
    }

    /// Where the terms of an example are, counted from the beginning of the slice.
    pub(crate) fn range(&self, example: usize) -> Range<usize> {
        self.starts[example]..self.starts[example + 1]
    }

    fn end(&self) -> usize {
        self.starts.last().map_or(0, |&end| end)
    }

    /// Forgets all, and makes room for so many examples and terms.
    fn clear(&mut self, examples: usize, terms: usize) {
        self.uses.clear();
        self.starts.clear();
        self.starts.push(0);
        if self.rows.len() < terms {
            self.rows.resize(terms, 0);
            self.shares.resize(terms, 0.0);
        }
        self.before = self.mark;
        if examples >= (u32::MAX - self.mark) as usize {
            self.slots.fill(Slot::default());
            (self.before, self.mark) = (0, 0);
        }
    }

    /// Begins an example of at most so many terms.
    fn begin(&mut self, most: usize, seconds: u32) -> Example<'_> {
        let wanted = (self.uses.len() + most) * SPARSE;
        if wanted > self.slots.len() {
            self.grow(wanted);
        }
        self.mark += 1;
        let start = self.end();
        Example {
            uses: &mut self.uses,
            rows: &mut self.rows[start..start + most],
            shares: &mut self.shares[start..start + most],
            slots: &mut self.slots,
            count: 0,
            before: self.before,
            mark: self.mark,
            seconds,
            seed: self.seed,
        }
    }

    fn grow(&mut self, wanted: usize) {
        let slots = vec![Slot::default(); wanted.next_power_of_two().max(SLOTS)];
        let mask = slots.len() - 1;
        for slot in std::mem::replace(&mut self.slots, slots) {
            if slot.mark > self.before {
                let hash = hash(self.uses[slot.distinct as usize].key);
                let mut place = self.seed.place(hash) & mask;
                while self.slots[place].mark > self.before {
                    place = (place + 1) & mask;
                }
                self.slots[place] = slot;
            }
        }
    }
}

/// An example whose terms are being read.
struct Example<'a> {
    uses: &'a mut Vec<Use>,
    /// With room for all terms, of which `count` are there.
    rows: &'a mut [u32],
    shares: &'a mut [f32],
    slots: &'a mut [Slot],
    count: usize,
    before: u32,
    mark: u32,
    seconds: u32,
    seed: Seed,
}

impl Example<'_> {
    #[inline(always)]
    fn add(&mut self, key: u64, share: f32) {
        if key == 0 {
            return;
        }
        let mask = self.slots.len() - 1;
        let mut place = self.seed.place(hash(key));
        let distinct = loop {
            let slot = &mut self.slots[place & mask];
            if slot.mark <= self.before {
                let distinct = self.uses.len() as u32;
                *slot = Slot { mark: self.mark, distinct };
                self.uses.push(Use { key, count: 1, seconds: self.seconds });
                break distinct;
            }
            let used = &mut self.uses[slot.distinct as usize];
            if used.key == key {
                let Slot { mark, distinct } = *slot;
                if mark == self.mark {
                    return self.again(distinct, share);
                }
                slot.mark = self.mark;
                used.count += 1;
                used.seconds = used.seconds.max(self.seconds);
                break distinct;
            }
            place += 1;
        };
        self.rows[self.count] = distinct;
        self.shares[self.count] = share;
        self.count += 1;
    }

    /// Adds to the share of a term that the example has.
    #[cold]
    fn again(&mut self, distinct: u32, share: f32) {
        let term = self.rows[..self.count].iter().position(|&row| row == distinct);
        if let Some(term) = term {
            self.shares[term] += share;
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_features::example::About;
    use sluice_features::ids::{EventId, ItemId, UserId};

    use sluice_features::time::EventTime;

    use super::*;

    fn batch(fields: usize, keys: &[u64], lists: &[&[u64]]) -> Batch {
        let mut batch = Batch::new(usize::from(!lists.is_empty()), 0);
        batch.keys.extend_from_slice(keys);
        for i in 0..keys.len() / fields {
            batch.about.push(About {
                impression: EventId(1),
                user: UserId(1),
                item: ItemId(1),
                time: EventTime(10_000 - i as i64 * 1000),
                new_item: false,
                offered: true,
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
            terms.group(&batch, 0..3, None, true);
            let uses = [(7, 2, 10), (9, 3, 10), (5, 1, 8)];
            assert_eq!(terms.uses, uses.map(|(key, count, seconds)| Use { key, count, seconds }));
            let of = |i: usize| (&terms.rows()[terms.range(i)], &terms.shares()[terms.range(i)]);
            assert_eq!(of(0), (&[0, 1][..], &[2.5, 0.5][..]));
            assert_eq!(of(1), (&[1][..], &[1.0][..]));
            assert_eq!(of(2), (&[1, 0, 2][..], &[1.5, 1.0, 0.25][..]));
        }
        terms.group(&batch, 1..3, None, false);
        let keys = |terms: &TermList| terms.uses.iter().map(|used| used.key).collect::<Vec<_>>();
        assert_eq!((keys(&terms), terms.rows()), (vec![9, 7], &[0, 0, 1][..]));
        terms.group(&batch, 1..3, Some(&[1]), false);
        assert_eq!((keys(&terms), terms.rows()), (vec![9, 7], &[0, 1][..]));
    }

    #[test]
    fn many_ids_and_marks_that_run_over_do_no_harm() {
        let keys: Vec<u64> = (0..60_000).map(|i| i * i % 20_011 * 1_000_003 + 1).collect();
        let batch = batch(6, &keys, &[]);
        let mut terms = TermList { mark: u32::MAX - 10_100, ..TermList::default() };
        for slice in [0..10, 5..10_000, 0..2, 9..9, 0..10_000, 3..700] {
            terms.group(&batch, slice.clone(), None, true);
            for (number, example) in slice.clone().enumerate() {
                let mut wanted = keys[example * 6..(example + 1) * 6].to_vec();
                let found = terms.rows()[terms.range(number)].iter();
                let found: Vec<u64> = found.map(|&row| terms.uses[row as usize].key).collect();
                let shares: f32 = terms.shares()[terms.range(number)].iter().sum();
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
                terms.rows().len()
            );
        }
    }
}
