//! Pages against a list; and what is learned with pages against what is learned without.

use std::collections::HashMap;

use parking_lot::Mutex;
use sluice_features::funnel::{Entry, LabelRule};
use sluice_features::pack::{PackKind, Packs};
use sluice_features::sequence::{SequencePart, Sequences};

use super::*;
use crate::config::Share;
use crate::pipeline::shard::Shard;
use crate::pipeline::{Pipeline, Rules};
use crate::testing::stream::{assert_same, rules, settle, stream, take, tally};

type PackKey = (PackKind, u32, u64);

/// Pages in memory, and packs.
#[derive(Default)]
struct MemoryPages {
    pages: Mutex<HashMap<(u32, u64), Vec<u8>>>,
    packs: Mutex<HashMap<PackKey, Arc<[u8]>>>,
}

impl Packs for MemoryPages {
    fn get(
        &self,
        kind: PackKind,
        shard: u32,
        number: u64,
    ) -> Result<Option<Arc<[u8]>>, OutOfReach> {
        Ok(self.packs.lock().get(&(kind, shard, number)).cloned())
    }
}

impl Pages for MemoryPages {
    fn get(&self, shard: u32, page: u64) -> Result<Option<Vec<u8>>, OutOfReach> {
        Ok(self.pages.lock().get(&(shard, page)).cloned())
    }
}

impl MemoryPages {
    /// What a checkpoint that comes into force writes of users.
    fn store_users(&self, shard: u32, sequences: &mut Sequences) {
        let mut packs = self.packs.lock();
        sequences.cut(|part, bytes| {
            let SequencePart::Pack(kind, number) = part else { return };
            match bytes {
                Some(bytes) => drop(packs.insert((kind, shard, number), bytes.into())),
                None => drop(packs.remove(&(kind, shard, number))),
            }
        });
        drop(packs);
        sequences.stored();
    }

    /// What a checkpoint that comes into force writes.
    fn store(&self, shard: u32, spill: &mut Spill) {
        let mut pages = self.pages.lock();
        assert_eq!(
            spill.give(usize::MAX, |page, bytes| drop(pages.insert((shard, page), bytes.to_vec()))),
            0
        );
        for page in spill.drain_gone() {
            pages.remove(&(shard, page));
        }
        spill.stored();
        assert_eq!(spill.waiting_bytes(), 0);
    }
}

fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        (state >> 33) % below
    }
}

fn values(word: u64, length: u64) -> FieldValues {
    let mut values = FieldValues::default();
    let bytes: Vec<u8> = (0..length).flat_map(|i| (word + i).to_le_bytes()).collect();
    assert!(values.read_bytes(&bytes));
    values
}

#[test]
fn what_is_put_away_is_found_until_it_is_released() {
    let mut random = numbers(3);
    let pages = Arc::new(MemoryPages::default());
    let mut spill = Spill::new(5);
    spill.begin(pages.clone());
    let (mut known, mut read) = (Vec::new(), FieldValues::default());
    for round in 0..4_000u64 {
        if random(2) == 0 || known.len() < 20 {
            let put = values(round, random(5));
            known.push((spill.put(&put), put));
        } else {
            // Mostly the oldest.
            let at = random(10) * random(2);
            let (number, _) = known.remove(at as usize);
            spill.release(number);
        }
        let (number, expected) = &known[random(known.len() as u64) as usize];
        spill.read(*number, &mut read).unwrap();
        assert_eq!(&read, expected);
        if round % 100 == 99 {
            // Ahead of a checkpoint some are gathered, and stay in memory until it is in force.
            let (before, stored) = (spill.memory(), pages.pages.lock().len());
            spill.give(2, |page, bytes| drop(pages.pages.lock().insert((5, page), bytes.to_vec())));
            assert!(pages.pages.lock().len() <= stored + 2 && spill.memory() == before);
        }
        if round % 500 == 499 {
            pages.store(5, &mut spill);
            let state = spill.state();
            spill = Spill::new(5);
            spill.restore(state.clone(), true);
            spill.begin(pages.clone());
            assert_eq!(spill.state(), state);
        }
    }
    pages.store(5, &mut spill);
    let stored = pages.pages.lock().len();
    assert!(stored > 0 && stored <= known.len(), "{stored} pages for {}", known.len());
    for (number, _) in known {
        spill.release(number);
    }
    assert_eq!(spill.drain_gone().len(), stored, "a page goes when nobody needs it any more");
}

#[test]
fn a_page_that_nobody_needs_any_more_never_comes_to_the_store() {
    let pages = Arc::new(MemoryPages::default());
    let mut spill = Spill::new(0);
    spill.begin(pages.clone());
    let numbers: Vec<u64> = (0..20).map(|word| spill.put(&values(word, 3))).collect();
    assert!(spill.waiting_bytes() > 0);
    numbers[..8].iter().for_each(|number| spill.release(*number));
    pages.store(0, &mut spill);
    assert_eq!(pages.pages.lock().keys().collect::<Vec<_>>(), [&(0, 1)]);
}

#[test]
fn pages_of_impressions_that_are_dropped_go_with_the_next_checkpoint() {
    let pages = Arc::new(MemoryPages::default());
    let mut spill = Spill::new(0);
    spill.begin(pages.clone());
    for word in 0..20 {
        spill.put(&values(word, 3));
    }
    pages.store(0, &mut spill);
    let mut other = Spill::new(0);
    other.restore(spill.state(), false);
    other.begin(pages);
    assert_eq!(other.drain_gone(), [0, 1]);
    assert_eq!(other.put(&values(1, 1)) >> PLACE_BITS, 2);
}

#[test]
fn bytes_that_are_no_page_are_refused() {
    let mut page = Page::default();
    for word in 0..3 {
        page.push(&values(word, word));
    }
    let written = page.written();
    assert_eq!(Page::read(written.clone()), Some(page));
    assert_eq!(Page::read(written[written.len() - 9..].to_vec()), None);
    assert_eq!(Page::read(vec![1]), None);
}

/// Runs a stream with pages and packs that come to the store after so many records and with hardly any users in memory, and without, and
/// compares. Returns how many pages came.
fn compare(rules: &Rules, seed: u64, every: usize) -> usize {
    let bounds = rules.bounds.with(Share::State, 1_000);
    let rules = &Rules { bounds, ..rules.clone() };
    let records = stream(seed, 6_000, 2, rules);
    let mut most = 0;
    let mut run = |pages: Option<Arc<MemoryPages>>| {
        let (mut pipeline, mut batches) = (Pipeline::new(rules.clone(), 2), Vec::new());
        if let Some(pages) = &pages {
            pipeline.put_away_to(pages);
        }
        for part in records.chunks(every) {
            take(&mut pipeline, part, &mut batches);
            if let Some(pages) = &pages {
                for (number, shard) in (0..).zip(&mut pipeline.shards) {
                    pages.store(number, &mut shard.spill);
                    pages.store_users(number, &mut shard.sequences);
                }
                most = most.max(pages.pages.lock().len());
            }
        }
        pipeline.finish();
        settle(&mut pipeline, &mut batches);
        pipeline.check().unwrap();
        if pages.is_some() {
            let misses = |shard: &Shard| shard.sequences.counts().misses;
            assert!(every > 2_000 || pipeline.shards.iter().all(|shard| misses(shard) > 5));
        }
        (tally(&pipeline), batches)
    };
    let ((tally, batches), (plain, expected)) = (run(Some(Arc::default())), run(None));
    assert_eq!(tally, plain);
    assert_same(&batches, &expected);
    most
}

#[test]
fn what_is_learned_with_pages_is_what_is_learned_without() {
    for (seed, every) in [(1, 50), (2, 6_000), (3, 700)] {
        for labels in [LabelRule::Fnw, LabelRule::Wait] {
            assert!(compare(&rules(Entry::Impression, labels), seed, every) > 1);
        }
        compare(&rules(Entry::View { negatives: 2 }, LabelRule::Wait), seed, every);
    }
}

#[test]
fn a_page_that_is_gone_is_told_and_ends_the_run() {
    let rules = rules(Entry::Impression, LabelRule::Wait);
    let pages = Arc::new(MemoryPages::default());
    let (mut pipeline, mut batches) = (Pipeline::new(rules.clone(), 1), Vec::new());
    pipeline.put_away_to(&pages);
    let records = stream(4, 3_000, 1, &rules);
    take(&mut pipeline, &records[..2_000], &mut batches);
    pipeline.check().unwrap();
    pages.store(0, &mut pipeline.shards[0].spill);
    pages.pages.lock().clear();
    take(&mut pipeline, &records[2_000..], &mut batches);
    let trouble = pipeline.check().unwrap_err();
    assert!(trouble.is_damage() && trouble.to_string().contains("is not there"), "{trouble}");
}
