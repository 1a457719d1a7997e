//! The store against a map, under all operations.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use sluice_features::time::{EventTime, Span};

use super::*;
use crate::kernels::{AdagradStep, adagrad_row};

const WIDTH: usize = 5;

fn config() -> RowStoreConfig {
    RowStoreConfig {
        width: WIDTH,
        seed: 11,
        initial_scale: 0.1,
        admission: 1,
        max_rows: 1_000_000,
        expiry: None,
        step: AdagradStep { rate: 0.05, eps: 1e-8 },
    }
}

fn at(seconds: i64) -> EventTime {
    EventTime(seconds * 1000)
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

#[derive(Clone, Debug)]
struct Entry {
    row: Vec<f32>,
    accumulator: f32,
    last_used: i64,
}

fn row(store: &RowStore, key: u64) -> Vec<f32> {
    let mut row = vec![f32::NAN; store.width()];
    store.gather(&[key], &mut row);
    row
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|x| x.to_bits()).collect()
}

/// Random operations on a store and on a map, which must agree after each.
fn compare(admission: u8, max_rows: usize, expiry: Option<i64>, seed: u64) -> RowStore {
    let span = expiry.map(Span::seconds);
    let config = RowStoreConfig { admission, max_rows, expiry: span, ..config() };
    let store = RowStore::new(config.clone());
    let (mut map, mut seen) = (BTreeMap::<u64, Entry>::new(), BTreeMap::<u64, u32>::new());
    let (mut dice, mut now, mut refused) = (Dice(seed), 1000, 0);
    for _ in 0..600 {
        now += dice.below(20) as i64;
        let keys: Vec<u64> = (0..dice.below(200)).map(|_| dice.below(400)).collect();
        let mut out = vec![f32::NAN; keys.len() * WIDTH];
        match dice.below(4) {
            0 | 1 => {
                // Sweeps for want of room are not modelled: expire first, so they find nothing.
                if let Some(span) = expiry {
                    let old: Vec<u64> = map
                        .iter()
                        .filter(|(_, entry)| now - entry.last_used > span)
                        .map(|(&key, _)| key)
                        .collect();
                    assert_eq!(store.expire(at(now)), old);
                    map.retain(|key, _| !old.contains(key));
                }
                store.gather_or_insert(&keys, at(now), &mut out);
                for (key, out) in keys.iter().zip(out.chunks(WIDTH)) {
                    if !map.contains_key(key) && *key != 0 {
                        let seen = seen.entry(*key).or_default();
                        *seen += 1;
                        if *seen >= admission.into() {
                            if map.len() < max_rows {
                                let entry =
                                    Entry { row: out.to_vec(), accumulator: 0.0, last_used: now };
                                assert!(out.iter().any(|x| x.abs() > 0.0));
                                map.insert(*key, entry);
                            } else {
                                refused += 1;
                            }
                        }
                    }
                    let expected = map.get_mut(key).map_or(vec![0.0; WIDTH], |entry| {
                        entry.last_used = now;
                        entry.row.clone()
                    });
                    assert_eq!(bits(out), bits(&expected), "key {key}");
                }
            }
            2 => {
                let mut keys = keys;
                keys.sort_unstable();
                keys.dedup();
                let gradients: Vec<f32> =
                    (0..keys.len() * WIDTH).map(|i| (i as f32 + now as f32).sin()).collect();
                store.apply(&keys, &gradients);
                for (key, gradient) in keys.iter().zip(gradients.chunks(WIDTH)) {
                    if let Some(entry) = map.get_mut(key) {
                        let state = &mut entry.accumulator;
                        adagrad_row(&mut entry.row, gradient, state, config.step);
                    }
                }
            }
            _ => {
                store.gather(&keys, &mut out);
                for (key, out) in keys.iter().zip(out.chunks(WIDTH)) {
                    let zeros = vec![0.0; WIDTH];
                    let expected = map.get(key).map_or(&zeros, |entry| &entry.row);
                    assert_eq!(bits(out), bits(expected), "key {key}");
                    assert_eq!(store.contains(*key), map.contains_key(key));
                }
            }
        }
        assert_eq!(store.len(), map.len());
    }
    let stats = store.stats();
    assert_eq!((stats.rows, stats.refused), (map.len(), refused));
    assert_eq!(stats.admitted - stats.expired, map.len() as u64);
    store
}

#[test]
fn agrees_with_a_map_when_rows_stay() {
    compare(1, 1_000_000, None, 1);
}

#[test]
fn agrees_with_a_map_under_admission() {
    compare(3, 1_000_000, None, 2);
}

#[test]
fn agrees_with_a_map_under_expiry_and_a_cap() {
    compare(1, 150, None, 3);
    compare(1, 1_000_000, Some(60), 4);
    compare(1, 120, Some(60), 5);
}

/// Each shard draws its own [`Seed`](crate::table::Seed), so two stores never have their keys in the same places.
#[test]
fn places_have_no_part_in_what_a_store_holds() {
    for (admission, max_rows, expiry) in [(1, 1_000_000, None), (2, 150, Some(40))] {
        let [one, other] = [(); 2].map(|()| compare(admission, max_rows, expiry, 9));
        assert_eq!(one.checksum(), other.checksum());
        for shard in 0..SHARDS {
            assert_eq!(one.export(shard), other.export(shard));
        }
        assert_eq!(one.stats(), other.stats());
    }
}

#[test]
fn rows_survive_growth_and_are_the_same_whenever_they_come() {
    let store = RowStore::new(config());
    let keys: Vec<u64> = (1..=50_000).collect();
    let mut first = vec![0.0; keys.len() * WIDTH];
    store.gather_or_insert(&keys, at(5), &mut first);
    assert_eq!(store.len(), keys.len());
    let mut again = vec![0.0; keys.len() * WIDTH];
    store.gather(&keys, &mut again);
    assert_eq!(bits(&first), bits(&again));

    let other = RowStore::new(config());
    for &key in keys.iter().rev().step_by(7) {
        let mut row = [0.0; WIDTH];
        other.gather_or_insert(&[key], at(900), &mut row);
        assert_eq!(bits(&row), bits(&first[(key as usize - 1) * WIDTH..][..WIDTH]));
    }
    assert!(store.stats().bytes > 50_000 * WIDTH * 4);
}

#[test]
fn one_gradient_per_id_moves_its_row_by_the_formula() {
    let store = RowStore::new(RowStoreConfig { width: 2, ..config() });
    let mut before = [0.0; 4];
    store.gather_or_insert(&[7, 8], at(1), &mut before);
    store.apply(&[7, 8, 9], &[3.0, 4.0, 0.0, 0.0, 1.0, 1.0]);
    let after = row(&store, 7);
    // mean(g²) = 12.5
    let size = 12.5_f32.sqrt() + 1e-8;
    assert!((after[0] - (before[0] - 0.05 * 3.0 / size)).abs() < 1e-6);
    assert!((after[1] - (before[1] - 0.05 * 4.0 / size)).abs() < 1e-6);
    assert_eq!(bits(&row(&store, 8)), bits(&before[2..]));
    assert_eq!(bits(&row(&store, 9)), bits(&[0.0; 2]));
}

#[test]
fn full_stores_make_room_from_rows_that_are_due() {
    let expiry = Some(Span::seconds(100));
    let store = RowStore::new(RowStoreConfig { max_rows: 500, expiry, ..config() });
    let old: Vec<u64> = (1..=500).collect();
    let mut out = vec![0.0; 500 * WIDTH];
    store.gather_or_insert(&old, at(1000), &mut out);
    let new: Vec<u64> = (1001..=1500).collect();
    store.gather_or_insert(&new, at(1050), &mut out);
    assert_eq!((store.stats().refused, store.stats().expired), (500, 0));
    store.gather_or_insert(&new, at(1101), &mut out);
    assert!(new.iter().all(|&key| store.contains(key)));
    assert!(store.len() <= 500);
    let expired = store.expire(at(1101));
    assert_eq!(expired, old, "each expired key is reported once");
    assert!(store.expire(at(1101)).is_empty());
    assert_eq!(store.len(), 500);
}

#[test]
fn a_store_that_may_have_fewer_rows_keeps_those_that_it_has_and_takes_no_new_ones() {
    for admission in [1, 2] {
        let whole = RowStore::new(RowStoreConfig { admission, ..config() });
        let keys: Vec<u64> = (1..=900).collect();
        let mut out = vec![0.0; keys.len() * WIDTH];
        (0..2).for_each(|_| whole.gather_or_insert(&keys, at(1000), &mut out));
        assert_eq!(whole.len(), keys.len());
        let fewer = RowStore::new(RowStoreConfig { admission, max_rows: 500, ..config() });
        for shard in 0..RowStore::SHARDS {
            fewer.import(shard, whole.export(shard)).unwrap();
        }
        assert_eq!(fewer.checksum(), whole.checksum());
        let mut again = out.clone();
        fewer.gather(&keys, &mut again);
        assert_eq!(again, out);
        let refused = fewer.stats().refused;
        (0..2).for_each(|_| fewer.gather_or_insert(&[2_000], at(1000), &mut out[..WIDTH]));
        assert!(fewer.stats().refused > refused && !fewer.contains(2_000));
        assert_eq!(fewer.len(), keys.len());
    }
}

#[test]
fn a_row_takes_no_more_than_is_said() {
    let store = RowStore::new(config());
    for keys in (1..200_000_u64).collect::<Vec<_>>().chunks(1_000) {
        store.gather_or_insert(keys, at(1000), &mut vec![0.0; keys.len() * WIDTH]);
        let most = store.len() * RowStore::row_bytes(WIDTH);
        // Small indexes are not in step with their rows.
        let small = RowStore::SHARDS * 16 * 16;
        assert!(store.stats().bytes <= most + small, "{} rows", store.len());
    }
}

#[test]
fn sweeps_in_turns_remove_what_one_look_at_all_removes() {
    let expiry = Some(Span::seconds(1600));
    let stores = [(), ()].map(|()| RowStore::new(RowStoreConfig { expiry, ..config() }));
    let [store, twin] = &stores;
    for key in 1..=2000_u64 {
        let mut out = [0.0; WIDTH];
        store.gather_or_insert(&[key], at(1000 + key as i64 % 500), &mut out);
        twin.gather_or_insert(&[key], at(1000 + key as i64 % 500), &mut out);
    }
    let sweep = |now| {
        let mut gone = Vec::new();
        store.sweep(at(now), |key| gone.push(key));
        gone
    };
    let first = row(store, 64);
    let mut gone = sweep(2700);
    assert!(gone.iter().all(|&key| shard_of(hash(key)) < 4), "a few shards at a time");
    gone.extend((1..RowStore::SHARDS).flat_map(|_| sweep(2700)));
    gone.sort_unstable();
    assert_eq!(gone, twin.expire(at(2700)));
    assert_eq!((gone.len(), store.len()), (400, 1600));
    assert!(gone.contains(&64) && !store.contains(64));
    // No shard's turn comes again within a sixteenth of the span.
    assert!((0..RowStore::SHARDS).all(|_| sweep(2800).is_empty()));
    assert!((0..RowStore::SHARDS).any(|_| !sweep(2801).is_empty()));
    let mut again = [0.0; WIDTH];
    store.gather_or_insert(&[64], at(2801), &mut again);
    assert_eq!(bits(&again), bits(&first), "its id begins anew");
    assert_eq!(store.stats().admitted, 2001);
}

/// The memory of an index follows from what was; when a row goes must not.
#[test]
fn a_restored_store_sweeps_at_the_pace_of_one_that_never_stopped() {
    let store = RowStore::new(RowStoreConfig { expiry: Some(Span::seconds(160)), ..config() });
    let learn = |keys: std::ops::Range<u64>, now| {
        let keys: Vec<u64> = keys.collect();
        store.gather_or_insert(&keys, at(now), &mut vec![0.0; keys.len() * WIDTH]);
    };
    learn(1..20_001, 1000);
    learn(1..301, 1100);
    assert_eq!(store.expire(at(1200)).len(), 19_700);
    let copy = copied(&store);
    for call in 0..2 * RowStore::SHARDS {
        let swept = |store: &RowStore| {
            let mut gone = Vec::new();
            store.sweep(at(1270), |key| gone.push(key));
            gone
        };
        assert_eq!(swept(&copy), swept(&store), "call {call}");
    }
    assert_eq!((copy.len(), store.len()), (0, 0));
}

#[test]
fn counted_occurrences_admit_at_once() {
    let store = RowStore::new(RowStoreConfig { admission: 5, ..config() });
    let mut out = [0.0; 2 * WIDTH];
    store.gather_or_insert_counted(&[3, 4], &[4, 5], at(1), &mut out);
    assert!(!store.contains(3) && store.contains(4));
    store.gather_or_insert_counted(&[3, 4], &[1, 1], at(1), &mut out);
    assert!(store.contains(3));
    let counts: Vec<u32> = (0..RowStore::SHARDS).flat_map(|s| store.export(s).counts).collect();
    assert_eq!(counts.iter().sum::<u32>(), 11);
}

#[test]
fn parameters_from_elsewhere_can_be_set() {
    let store = RowStore::new(RowStoreConfig { admission: 9, max_rows: 1, ..config() });
    assert!(store.set(5, &[1.0, 2.0, 3.0, 4.0, 5.0], at(1)));
    assert_eq!(row(&store, 5), vec![1.0, 2.0, 3.0, 4.0, 5.0]);
    assert!(store.set(5, &[0.5; WIDTH], at(1)));
    assert!(!store.set(6, &[1.0; WIDTH], at(1)), "there is no room");
    assert!(!store.set(0, &[1.0; WIDTH], at(1)), "0 is no id");
}

fn copied(store: &RowStore) -> RowStore {
    let copy = RowStore::new(store.config().clone());
    for shard in 0..RowStore::SHARDS {
        copy.import(shard, store.export(shard)).unwrap();
    }
    copy
}

#[test]
fn a_copy_goes_on_as_the_original_would() {
    for (admission, max_rows, expiry) in [(1, 1_000_000, None), (3, 150, Some(60))] {
        let store = compare(admission, max_rows, expiry, 6);
        let copy = copied(&store);
        assert_eq!((copy.checksum(), copy.len()), (store.checksum(), store.len()));
        let mut dice = Dice(9);
        for round in 0..50 {
            let keys: Vec<u64> = (0..300).map(|_| dice.below(600)).collect();
            let (mut a, mut b) = (vec![0.0; keys.len() * WIDTH], vec![0.0; keys.len() * WIDTH]);
            store.gather_or_insert(&keys, at(9000 + round * 13), &mut a);
            copy.gather_or_insert(&keys, at(9000 + round * 13), &mut b);
            assert_eq!(bits(&a), bits(&b));
            let mut unique = keys.clone();
            unique.sort_unstable();
            unique.dedup();
            store.apply(&unique, &a[..unique.len() * WIDTH]);
            copy.apply(&unique, &a[..unique.len() * WIDTH]);
        }
        assert_eq!(copy.checksum(), store.checksum());
        assert_eq!(copy.expire(at(20_000)), store.expire(at(20_000)));
        assert_eq!(copy.stats().refused, store.stats().refused);
    }
}

#[test]
fn the_checksum_sees_every_part() {
    let store = compare(3, 1_000_000, Some(1000), 7);
    let original = store.checksum();
    let number = (0..RowStore::SHARDS).find(|&s| !store.export(s).keys.is_empty()).unwrap();
    let changes: [fn(&mut ShardImage); 6] = [
        |image| image.rows[0] += 1.0,
        |image| image.accumulators[0] += 1.0,
        |image| image.counts[0] += 1,
        |image| image.last_used[0] += 1,
        |image| image.filter[77] ^= 1,
        |image| image.totals[1] += 1,
    ];
    for change in changes {
        let copy = copied(&store);
        let mut image = store.export(number);
        change(&mut image);
        copy.import(number, image).unwrap();
        assert_ne!(copy.checksum(), original);
    }
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let store = compare(1, 1_000_000, None, 8);
    let before = store.checksum();
    let number = (0..RowStore::SHARDS).find(|&s| store.export(s).keys.len() > 1).unwrap();
    let refused = |change: fn(&mut ShardImage)| {
        let mut image = store.export(number);
        change(&mut image);
        store.import(number, image).unwrap_err()
    };
    assert!(matches!(refused(|i| i.keys.swap(0, 1)), ImageError::Order(_)));
    assert!(matches!(refused(|i| i.keys[0] = 0), ImageError::Order(0)));
    assert!(matches!(refused(|i| i.filter.push(0)), ImageError::Length { column: "filter", .. }));
    let error = refused(|i| i.rows.truncate(1));
    assert!(error.to_string().ends_with("entries, found 1"), "{error}");
    let image = store.export(number);
    let error = store.import((number + 1) % RowStore::SHARDS, image).unwrap_err();
    assert!(matches!(error, ImageError::Shard { .. }));
    assert_eq!(store.checksum(), before);
}

#[test]
fn readers_never_see_half_a_row() {
    let store = RowStore::new(RowStoreConfig { width: 64, ..config() });
    let keys: Vec<u64> = (1..=300).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut out = vec![0.0; keys.len() * 64];
                while !done.load(Ordering::Relaxed) {
                    store.gather(&keys, &mut out);
                    for row in out.chunks(64) {
                        assert!(row.iter().all(|x| x.to_bits() == row[0].to_bits()));
                    }
                }
            });
        }
        for round in 1..60_u16 {
            for &key in &keys {
                store.set(key, &[f32::from(round); 64], at(1));
            }
            store.apply(&keys, &vec![1.0; keys.len() * 64]);
            let more: Vec<u64> = (0..200).map(|i| 1000 + u64::from(round) * 200 + i).collect();
            store.gather_or_insert(&more, at(1), &mut vec![0.0; more.len() * 64]);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(store.len(), 300 + 59 * 200);
}

#[test]
fn parts_side_by_side_do_what_one_call_does() {
    let keys: Vec<u64> = (0..3000).map(|k| k * 7).collect();
    let gradients: Vec<f32> = (0..keys.len() * WIDTH).map(|i| (i as f32).sin()).collect();
    let mut out = vec![0.0; keys.len() * WIDTH];
    let whole = RowStore::new(config());
    whole.gather_or_insert(&keys[..2900], EventTime(0), &mut out[..2900 * WIDTH]);
    whole.apply(&keys, &gradients);
    for parts in [2, 3, 64, 100] {
        let store = RowStore::new(config());
        store.gather_or_insert(&keys[..2900], EventTime(0), &mut out[..2900 * WIDTH]);
        std::thread::scope(|scope| {
            for part in 0..parts {
                let (store, keys, gradients) = (&store, &keys, &gradients);
                scope.spawn(move || store.apply_part(keys, gradients, part, parts));
            }
        });
        assert_eq!(store.checksum(), whole.checksum(), "{parts}");
    }
}
