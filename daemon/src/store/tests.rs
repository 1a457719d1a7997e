//! One suite, two stores: each does what a sorted map does.

use std::collections::BTreeMap;

use super::*;

mod power;

fn both() -> (tempfile::TempDir, Vec<Box<dyn Store>>) {
    let folder = tempfile::tempdir().unwrap();
    let disk = SledStore::open(folder.path(), 1 << 20).unwrap();
    let mut format = Batch::default();
    format.delete(keys::Meta::Format.key());
    disk.apply(format).unwrap();
    (folder, vec![Box::new(MemoryStore::default()), Box::new(disk)])
}

fn all(store: &dyn Store, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut seen = Vec::new();
    store
        .scan_prefix(prefix, &mut |key, value| {
            seen.push((key.to_vec(), value.to_vec()));
            true
        })
        .unwrap();
    seen
}

#[test]
fn a_store_is_a_sorted_map() {
    let (_folder, stores) = both();
    for store in &stores {
        let mut model = BTreeMap::new();
        let mut state = 12_345u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let mut batch = Batch::default();
            for _ in 0..random(8) {
                let key: Vec<u8> = (0..1 + random(3)).map(|_| random(4) as u8).collect();
                if random(3) == 0 {
                    batch.delete(key.clone());
                    model.remove(&key);
                } else {
                    let value: Vec<u8> = (0..random(20)).map(|_| random(256) as u8).collect();
                    batch.put(key.clone(), &value);
                    model.insert(key, value);
                }
            }
            store.apply(batch).unwrap();
        }
        store.flush().unwrap();
        assert_eq!(all(&**store, &[]), model.clone().into_iter().collect::<Vec<_>>());
        for prefix in [&[1u8][..], &[2, 3], &[3, 3, 3], &[9]] {
            let expected: Vec<_> =
                model.clone().into_iter().filter(|(key, _)| key.starts_with(prefix)).collect();
            assert_eq!(all(&**store, prefix), expected);
        }
        for (key, value) in &model {
            assert_eq!(store.get(key).unwrap().as_ref(), Some(value));
        }
        assert_eq!(store.get(&[7; 9]).unwrap(), None);
        assert!(store.bytes().unwrap() > 0);
    }
}

#[test]
fn the_later_change_of_a_batch_wins_and_a_scan_can_stop() {
    let (_folder, stores) = both();
    for store in &stores {
        let (mut batch, mut more) = (Batch::default(), Batch::default());
        batch.put([1], b"first");
        batch.delete([1]);
        batch.put([2], b"a");
        more.put([2], b"b");
        more.put([3], b"");
        batch.append(more);
        assert_eq!((batch.len(), batch.bytes()), (5, 5 + 4 * 5 + 7));
        store.apply(batch).unwrap();
        assert_eq!(all(&**store, &[]), [(vec![2], b"b".to_vec()), (vec![3], vec![])]);
        let mut seen = 0;
        store
            .scan_prefix(&[], &mut |_, _| {
                seen += 1;
                false
            })
            .unwrap();
        assert_eq!(seen, 1);
    }
}

#[test]
fn the_newest_change_of_a_key_is_kept() {
    let mut batch = Batch::default();
    for (key, value) in [(2, Some("a")), (1, Some("b")), (2, None), (1, Some("cc")), (3, None)] {
        match value {
            Some(value) => batch.put([key], value),
            None => batch.delete([key]),
        }
    }
    let twin = batch.clone();
    batch.keep_newest();
    assert_eq!((batch.len(), batch.bytes()), (3, 3 + 5 + 2));
    let stores = [batch, twin].map(|batch| {
        let store = MemoryStore::default();
        let mut before = Batch::default();
        (1..4).for_each(|key: u8| before.put([key], "before"));
        store.apply(before).unwrap();
        store.apply(batch).unwrap();
        [1, 2, 3].map(|key: u8| store.get(&[key]).unwrap())
    });
    assert_eq!(stores[0], stores[1]);
}
