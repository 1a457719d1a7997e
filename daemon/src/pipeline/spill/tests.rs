//! Pages against a list; and what is learned with pages against what is learned without.

use std::collections::HashMap;

use parking_lot::Mutex;
use sluice_features::funnel::{Entry, LabelRule};

use super::*;
use crate::pipeline::{Pipeline, Rules};
use crate::testing::stream::{assert_same, rules, settle, stream, take, tally};

/// Pages in memory.
#[derive(Default)]
struct MemoryPages {
    pages: Mutex<HashMap<(u32, u64), Vec<u8>>>,
    full: Mutex<bool>,
    written: Mutex<u64>,
}

impl Pages for MemoryPages {
    fn put(&self, shard: u32, page: u64, bytes: &[u8]) -> Result<bool, SpillError> {
        if *self.full.lock() {
            return Ok(false);
        }
        *self.written.lock() += 1;
        self.pages.lock().insert((shard, page), bytes.to_vec());
        Ok(true)
    }

    fn get(&self, shard: u32, page: u64) -> Result<Option<Vec<u8>>, SpillError> {
        Ok(self.pages.lock().get(&(shard, page)).cloned())
    }

    fn remove(&self, shard: u32, page: u64) -> Result<(), SpillError> {
        self.pages.lock().remove(&(shard, page));
        Ok(())
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
    spill.begin(pages.clone()).unwrap();
    let (mut known, mut read) = (Vec::new(), FieldValues::default());
    for round in 0..4_000u64 {
        *pages.full.lock() = (1_000..1_200).contains(&round);
        if random(2) == 0 || known.len() < 20 {
            let put = values(round, random(5));
            known.push((spill.put(&put).unwrap(), put));
        } else {
            // Mostly the oldest.
            let at = random(10) * random(2);
            let (number, _) = known.remove(at as usize);
            spill.release(number);
        }
        let (number, expected) = &known[random(known.len() as u64) as usize];
        spill.read(*number, &mut read).unwrap();
        assert_eq!(&read, expected);
        if round % 500 == 499 {
            // What a checkpoint keeps, and pages that were written after it.
            for page in spill.drain_gone() {
                pages.remove(5, page).unwrap();
            }
            let state = spill.state();
            for ahead in 0..2 {
                pages.pages.lock().insert((5, state.next + ahead), b"ahead".to_vec());
            }
            spill = Spill::new(5);
            spill.restore(state.clone(), true);
            spill.begin(pages.clone()).unwrap();
            assert_eq!(spill.state(), state);
            assert!(!pages.pages.lock().contains_key(&(5, state.next + 1)));
        }
    }
    for page in spill.drain_gone() {
        pages.remove(5, page).unwrap();
    }
    let stored = pages.pages.lock().len();
    assert!(stored > 0 && stored <= known.len(), "{stored} pages for {}", known.len());
    for (number, _) in known {
        spill.release(number);
    }
    assert_eq!(spill.drain_gone().len(), stored, "a page goes when nobody needs it any more");
}

#[test]
fn pages_of_impressions_that_are_dropped_go_with_the_next_checkpoint() {
    let pages = Arc::new(MemoryPages::default());
    let mut spill = Spill::new(0);
    spill.begin(pages.clone()).unwrap();
    for word in 0..20 {
        spill.put(&values(word, 3)).unwrap();
    }
    let mut other = Spill::new(0);
    other.restore(spill.state(), false);
    other.begin(pages).unwrap();
    assert_eq!(other.drain_gone(), [0, 1]);
    assert_eq!(other.put(&values(1, 1)).unwrap() >> PLACE_BITS, 2);
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

/// Runs a stream with pages and without, and compares.
fn compare(rules: &Rules, seed: u64, pages: &Arc<MemoryPages>) {
    let records = stream(seed, 6_000, 2, rules);
    let run = |pages: Option<Arc<dyn Pages>>| {
        let (mut pipeline, mut batches) = (Pipeline::new(rules.clone(), 2), Vec::new());
        if let Some(pages) = pages {
            pipeline.spill_to(&pages).unwrap();
        }
        take(&mut pipeline, &records, &mut batches);
        pipeline.finish();
        settle(&mut pipeline, &mut batches);
        pipeline.check().unwrap();
        (tally(&pipeline), batches)
    };
    let ((tally, batches), (plain, expected)) = (run(Some(pages.clone())), run(None));
    assert_eq!(tally, plain);
    assert_same(&batches, &expected);
}

#[test]
fn what_is_learned_with_pages_is_what_is_learned_without() {
    for (seed, full) in [(1, false), (2, true), (3, false)] {
        for labels in [LabelRule::Fnw, LabelRule::Wait] {
            let pages = Arc::new(MemoryPages::default());
            *pages.full.lock() = full;
            compare(&rules(Entry::Impression, labels), seed, &pages);
            assert_eq!(*pages.written.lock() > 50, !full);
        }
        compare(&rules(Entry::View { negatives: 2 }, LabelRule::Wait), seed, &Arc::default());
    }
}

#[test]
fn a_page_that_is_gone_is_told_and_ends_the_run() {
    let rules = rules(Entry::Impression, LabelRule::Wait);
    let pages = Arc::new(MemoryPages::default());
    let (mut pipeline, mut batches) = (Pipeline::new(rules.clone(), 1), Vec::new());
    let dynamic: Arc<dyn Pages> = pages.clone();
    pipeline.spill_to(&dynamic).unwrap();
    let records = stream(4, 3_000, 1, &rules);
    take(&mut pipeline, &records[..2_000], &mut batches);
    pipeline.check().unwrap();
    pages.pages.lock().clear();
    take(&mut pipeline, &records[2_000..], &mut batches);
    let trouble = pipeline.check().unwrap_err();
    assert!(trouble.is_damage() && trouble.to_string().contains("is not there"), "{trouble}");
}
