//! Group `table`: a store of 10 million rows of 16 numbers, read and updated in batches.
//!
//! The store is filled directly. Keys are drawn evenly or with the skew of a shop, where few ids have most of the traffic; a batch's update has each of its
//! ids once, as a step's has. A figure is that of the fastest of many short batches, none of which reads rows that were read shortly before.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluice_features::ids::salted_key;
use sluice_features::time::EventTime;
use sluice_models::kernels::AdagradStep;
use sluice_models::table::{Grouping, RowStore, RowStoreConfig};

use super::limits::Limits;
use super::report::{Report, Row, Target};

const GROUP: &str = "table";
/// Rows of the store; tests look at what is reported, not at times.
const ROWS: u64 = if cfg!(test) { 50_000 } else { 10_000_000 };
const WIDTH: usize = 16;
/// Keys of a batch, and batches of a figure.
const BATCH: usize = 16_384;
const BATCHES: usize = if cfg!(test) { 2 } else { 96 };
/// Rows that are filled at a time.
const FILL: u64 = 65_536;
/// Million row updates a second that one core should reach.
const UPDATES: f64 = 15.0;

/// Measures the group.
///
/// # Errors
/// When the store has not as many rows as it was given.
pub(super) fn measure(limits: &Limits, report: &mut Report) -> Result<()> {
    let store = filled()?;
    let key = |id: u64| salted_key(0x7461_626c, id);
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let (mut out, gradients) = (vec![0.0; BATCH * WIDTH], vec![0.01; BATCH * WIDTH]);
    for (name, skewed) in [("uniform", false), ("skewed", true)] {
        let mut draw = || {
            let even = random.random::<f64>();
            let place = if skewed { even.powi(4) } else { even };
            key((place * ROWS as f64) as u64 % ROWS)
        };
        let drawn: Vec<Vec<u64>> =
            (0..BATCHES).map(|_| (0..BATCH).map(|_| draw()).collect()).collect();
        let mut grouping = Grouping::default();
        let distinct: Vec<Vec<u64>> = drawn
            .iter()
            .map(|keys| {
                grouping.group(keys);
                grouping.keys().to_vec()
            })
            .collect();
        let lookups = fastest(&drawn, |keys| store.gather(keys, &mut out));
        let updates =
            fastest(&distinct, |keys| store.apply(keys, &gradients[..keys.len() * WIDTH]));
        let limit = limits.rows_prefetched;
        report.push(Row::new(GROUP, format!("lookups, {name}"), lookups, "M/s").limit(limit));
        let row = Row::new(GROUP, format!("updates, {name}"), updates, "M/s").limit(limit);
        report.push(if skewed { row } else { row.target(Target::AtLeast(UPDATES)) });
        if !skewed {
            let single = fastest(&distinct, |keys| {
                for key in keys {
                    store.apply(&[*key], &gradients[..WIDTH]);
                }
            });
            report.push(Row::new(GROUP, "updates, uniform, one row a call", single, "M/s"));
        }
    }
    black_box(out);
    let stats = store.stats();
    let bytes = stats.bytes as f64 / stats.rows as f64;
    report.push(Row::new(GROUP, "memory of a row", bytes, "bytes"));
    Ok(())
}

/// Million keys a second in the fastest batch.
fn fastest(batches: &[Vec<u64>], mut call: impl FnMut(&[u64])) -> f64 {
    let rate = |keys: &Vec<u64>| {
        let begun = Instant::now();
        call(keys);
        keys.len() as f64 / begun.elapsed().as_secs_f64() / 1e6
    };
    batches.iter().map(rate).fold(0.0, f64::max)
}

fn filled() -> Result<RowStore> {
    let store = RowStore::new(RowStoreConfig {
        width: WIDTH,
        seed: 1,
        initial_scale: 0.01,
        admission: 1,
        max_rows: ROWS as usize,
        expiry: None,
        step: AdagradStep { rate: 0.05, eps: 1e-10 },
    });
    let mut out = vec![0.0; FILL as usize * WIDTH];
    let mut keys = Vec::new();
    for start in (0..ROWS).step_by(FILL as usize) {
        keys.clear();
        keys.extend((start..ROWS.min(start + FILL)).map(|id| salted_key(0x7461_626c, id)));
        store.gather_or_insert(&keys, EventTime(1000), &mut out[..keys.len() * WIDTH]);
    }
    ensure!(store.len() as u64 == ROWS, "expected {ROWS} rows, found {}", store.len());
    Ok(store)
}
