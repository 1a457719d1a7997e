//! Power is lost at any moment ([`crate::testing::disk`] says what a disk may lose): every batch is there whole or not at all, and all
//! that were flushed are.

use super::*;
use crate::testing::disk::{Disk, Operation, Watched, child, tell};

type Twin = BTreeMap<Vec<u8>, Vec<u8>>;

/// The key that counts batches.
const NUMBER: [u8; 1] = [200];
const KEYS: u64 = 300;
/// Batches until the first child is killed, and in all.
const KILLED: u64 = 25;
const LAST: u64 = 50;

/// Returns batch `number`, and what it makes of a map: values from nothing to those that sled would put beside its log.
fn batch(number: u64, twin: &mut Twin) -> Batch {
    let mut state = number;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let mut batch = Batch::default();
    for _ in 0..40 {
        let key = random(KEYS).to_be_bytes().to_vec();
        if random(4) == 0 {
            batch.delete(key.clone());
            twin.remove(&key);
            continue;
        }
        let most =
            [10, 4_000, 4_000, 60_000, 400_000][random(4) as usize + usize::from(random(20) == 0)];
        let value: Vec<u8> = (0..random(most)).map(|i| (i ^ number) as u8).collect();
        batch.put(key.clone(), &value);
        twin.insert(key, value);
    }
    batch.put(NUMBER, number.to_le_bytes());
    batch
}

fn found(store: &SledStore) -> u64 {
    let number = store.get(&NUMBER).unwrap();
    number.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
}

fn work(until: &str, root: &std::path::Path) {
    let until: u64 = until.parse().unwrap();
    let store = SledStore::open(&root.join("state"), 1 << 20).unwrap();
    for number in found(&store) + 1..=until {
        store.apply(batch(number, &mut Twin::new())).unwrap();
        store.flush().unwrap();
        tell(root, number);
    }
    if until < LAST {
        std::process::abort();
    }
}

#[test]
fn a_power_loss_leaves_whole_batches_and_all_that_were_flushed() {
    if let Some((until, root)) = child() {
        return work(&until, &root);
    }
    let test = "store::tests::power::a_power_loss_leaves_whole_batches_and_all_that_were_flushed";
    let watched = Watched::new();
    assert!(!watched.run(test, &KILLED.to_string(), None).0);
    let (ended, said) = watched.run(test, &LAST.to_string(), None);
    assert!(ended, "{said}");
    let mut twins = vec![Twin::new()];
    for number in 1..=LAST {
        let mut twin = twins[number as usize - 1].clone();
        drop(batch(number, &mut twin));
        twins.push(twin);
    }
    let operations = watched.operations();
    assert!(operations.iter().any(|it| matches!(it, Operation::Told(LAST))));
    let mut state = 5u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let mut moments: Vec<usize> =
        (0..60).map(|_| random(operations.len() as u64 + 1) as usize).collect();
    // While a store is made a power loss leaves the strangest things.
    moments.extend(0..60);
    moments.sort_unstable();
    let (mut disk, mut done) = (Disk::default(), 0);
    for moment in moments {
        operations[done..moment].iter().for_each(|operation| disk.apply(operation));
        done = moment;
        let left = tempfile::tempdir().unwrap();
        disk.lose_power(&watched.root(), left.path(), &mut random);
        let path = left.path().join("state");
        for _ in 0..2 {
            let store = SledStore::open(&path, 1 << 20)
                .unwrap_or_else(|error| panic!("at {moment}, {} told: {error}", disk.told()));
            let number = found(&store);
            assert!((disk.told()..=disk.told() + 1).contains(&number), "{number} at {moment}");
            let mut all: Twin = all(&store, &[]).into_iter().collect();
            all.retain(|key, _| key.len() == 8);
            assert!(all == twins[number as usize], "not batch {number}, power lost at {moment}");
        }
    }
}
