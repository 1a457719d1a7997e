use std::sync::Arc;

use super::*;
use crate::kernels::AdagradStep;
use crate::table::{Part, RowStoreConfig};

const WIDTH: usize = 3;

fn store(admission: u8, max_rows: usize) -> Arc<RowStore> {
    Arc::new(RowStore::new(RowStoreConfig {
        width: WIDTH,
        seed: 4,
        initial_scale: 0.1,
        admission,
        max_rows,
        expiry: None,
        step: AdagradStep { rate: 0.05, eps: 1e-10 },
    }))
}

fn uses(keys: &[u64]) -> Vec<Use> {
    keys.iter().map(|&key| Use { key, count: 2, seconds: 5 }).collect()
}

fn all(store: &RowStore) -> Vec<crate::table::ShardImage> {
    (0..RowStore::SHARDS).map(|shard| store.export(shard)).collect()
}

#[test]
fn what_is_lent_comes_back_and_nothing_else_changes() {
    let (store, other) = (store(1, 10_000), store(1, 10_000));
    let keys: Vec<u64> = (1..=3000).collect();
    let mut loan = Loan::default();
    store.lend(&uses(&keys), &mut loan);
    assert!(loan.is_whole());
    let mut read = vec![0.0; 3000 * WIDTH];
    other.gather_or_insert_counted(&keys, &[2; 3000], EventTime(5000), &mut read);
    let lent = loan.rows.chunks_exact(WIDTH + 1);
    assert!(lent.zip(read.chunks_exact(WIDTH)).all(|(lent, read)| lent[..WIDTH] == *read));
    store.take_back(&uses(&keys), &loan);
    assert_eq!(store.checksum(), other.checksum());

    let before = all(&store);
    let mut frozen = store.freeze();
    store.lend(&uses(&keys[..1500]), &mut loan);
    loan.rows.iter_mut().for_each(|x| *x += 1.0);
    store.gather(&keys[..1500], &mut read[..1500 * WIDTH]);
    assert_eq!(other.len(), 3000);
    assert!(read.iter().all(|x| *x < 0.9), "readers see the rows as they were");
    store.take_back(&uses(&keys[..1500]), &loan);
    let image: Vec<_> = std::iter::from_fn(|| frozen.next_shard(Part::Whole)).collect();
    assert_eq!(image, before, "a frozen image is of before the loan");
    store.gather(&keys, &mut read);
    assert!(read[..1500 * WIDTH].iter().all(|x| *x > 0.4));
    assert!(read[1500 * WIDTH..].iter().all(|x| *x < 0.9));
}

#[test]
fn late_keys_get_a_row_at_the_occurrence_that_is_due() {
    let store = store(3, 1);
    let mut loan = Loan::default();
    store.lend(&uses(&[8, 9]), &mut loan);
    assert!(loan.is_late(0) && loan.is_late(1));
    let occur =
        |key: u64, loan: &mut Loan| store.occur_late(key, EventTime(9000), key as usize - 8, loan);
    let found = [9, 9, 8, 9, 9, 8, 8].map(|key| occur(key, &mut loan));
    // The third of 9 is the first row, and there is no room for 8.
    assert_eq!(found, [false, false, false, true, true, false, false]);
    assert!(loan.rows[..=WIDTH].iter().all(|x| x.abs() < f32::MIN_POSITIVE));
    assert!(loan.rows[WIDTH + 1..].iter().any(|x| x.abs() > 0.0));
    store.take_back(&uses(&[8, 9]), &loan);
    assert_eq!((store.len(), store.stats().refused), (1, 1));
}

#[test]
fn a_full_store_refuses_new_keys_at_once() {
    let store = store(1, 2);
    let mut loan = Loan::default();
    store.lend(&uses(&[8, 9]), &mut loan);
    store.take_back(&uses(&[8, 9]), &loan);
    let mut asked = uses(&[10, 9]);
    asked[0].count = 3;
    store.lend(&asked, &mut loan);
    assert!(!loan.is_late(0) && !loan.has_row(0) && loan.has_row(1) && !loan.is_whole());
    assert!(loan.rows[..=WIDTH].iter().all(|x| x.abs() < f32::MIN_POSITIVE));
    store.take_back(&asked, &loan);
    assert_eq!((store.len(), store.stats().refused), (2, 3));
}

#[test]
#[should_panic(expected = "rows were removed during a loan")]
fn rows_stay_during_a_loan() {
    let store = store(1, 100);
    let mut loan = Loan::default();
    store.lend(&uses(&[1]), &mut loan);
    store.expire(EventTime(9_000_000));
    store.take_back(&uses(&[1]), &loan);
}
