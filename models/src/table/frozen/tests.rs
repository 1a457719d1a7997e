//! A frozen image is what an image at once would have been, whatever happens before it is read.

use std::sync::atomic::AtomicBool;

use sluice_features::time::{EventTime, Span};

use super::*;
use crate::kernels::AdagradStep;
use crate::table::RowStoreConfig;

mod increments;

const WIDTH: usize = 3;

fn store(admission: u8, expiry: Option<i64>) -> Arc<RowStore> {
    Arc::new(RowStore::new(RowStoreConfig {
        width: WIDTH,
        seed: 5,
        initial_scale: 0.1,
        admission,
        max_rows: 40_000,
        expiry: expiry.map(Span::seconds),
        step: AdagradStep { rate: 0.05, eps: 1e-8 },
    }))
}

fn all(store: &RowStore) -> Vec<ShardImage> {
    (0..RowStore::SHARDS).map(|shard| store.export(shard)).collect()
}

/// Uses, changes, makes and removes rows, the same for the same `seed`.
fn go_on(store: &RowStore, seed: u64, rounds: u64) {
    let mut state = seed;
    let mut below = |end: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % end
    };
    for round in 0..rounds {
        let now = EventTime((1000 + (seed * 100 + round) as i64 * 20) * 1000);
        let mut keys: Vec<u64> = (0..400).map(|_| below(30_000)).collect();
        let mut out = vec![0.0; keys.len() * WIDTH];
        store.gather_or_insert(&keys, now, &mut out);
        keys.truncate(200);
        keys.extend((0..50).map(|_| below(30_000)));
        keys.sort_unstable();
        keys.dedup();
        let gradients = &out[..keys.len() * WIDTH];
        if round % 2 == 0 {
            store.apply(&keys, gradients);
        } else {
            (0..3).for_each(|part| store.apply_part(&keys, gradients, part, 3));
        }
        store.set(1 + below(30_000), &[1.0; WIDTH], now);
        if below(4) == 0 {
            store.expire(now);
        }
    }
}

#[test]
fn it_is_an_image_at_once_whatever_happens_meanwhile() {
    for (admission, expiry) in [(1, None), (1, Some(120)), (3, Some(300))] {
        let store = store(admission, expiry);
        let mut seed = 1;
        go_on(&store, seed, 60);
        for between in [0, 1, 4] {
            let expected = all(&store);
            let mut frozen = store.freeze();
            let mut found = Vec::new();
            loop {
                seed += 1;
                go_on(&store, seed, between);
                let Some(image) = frozen.next_shard(Part::Whole) else { break };
                found.push(image);
            }
            assert!(found == expected, "admission {admission}, {between} rounds between");
            drop(frozen);
            assert_eq!(store.put_aside(), 0);
            assert!(between == 0 || all(&store) != expected);
        }
    }
}

#[test]
fn it_is_the_same_while_another_thread_writes_and_writing_is_the_same() {
    let (store, twin) = (store(2, Some(200)), store(2, Some(200)));
    for store in [&store, &twin] {
        go_on(store, 3, 200);
    }
    let (expected, mut frozen, done) = (all(&store), store.freeze(), AtomicBool::new(false));
    let found = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seed = 4;
            while !done.load(Ordering::Relaxed) {
                go_on(&store, seed, 1);
                go_on(&twin, seed, 1);
                seed += 1;
            }
        });
        let found = std::iter::from_fn(|| frozen.next_shard(Part::Whole)).collect::<Vec<_>>();
        done.store(true, Ordering::Relaxed);
        found
    });
    assert!(found == expected);
    assert_eq!(store.checksum(), twin.checksum());
}

#[test]
fn rows_are_put_aside_once_and_no_more_than_there_are() {
    let store = store(1, None);
    let keys: Vec<u64> = (1..=20_000).collect();
    let mut out = vec![0.0; keys.len() * WIDTH];
    store.gather_or_insert(&keys, EventTime(1000), &mut out);
    let mut frozen = store.freeze();
    assert_eq!(store.put_aside(), 0);
    let each = Shard::stride(WIDTH) * 4 + size_of::<Slot>();
    for time in 2..5 {
        store.gather_or_insert(&keys[..5000], EventTime(time * 1000), &mut out[..5000 * WIDTH]);
        assert_eq!(store.put_aside(), 5000 * each);
    }
    let more: Vec<u64> = (30_001..=40_000).collect();
    store.gather_or_insert(&more, EventTime(6000), &mut out[..more.len() * WIDTH]);
    store.apply(&keys, &out);
    assert_eq!(store.put_aside(), 20_000 * each);
    frozen.next_shard(Part::Whole);
    assert!(store.put_aside() < 20_000 * each);
    drop(frozen);
    assert_eq!(store.put_aside(), 0);
    drop(store.freeze());
}

#[test]
#[should_panic(expected = "one frozen image")]
fn two_images_at_a_time_are_refused() {
    let store = store(1, None);
    let _first = store.freeze();
    drop(store.freeze());
}
