//! Searches of the item index: the scan should run at the memory's bandwidth once codes leave the
//! caches.

#![allow(missing_docs, reason = "criterion's macro makes public functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluice_models::retrieval::{Index, Scratch};

const WIDTH: usize = 64;

fn vector(random: &mut ChaCha8Rng) -> [f32; WIDTH] {
    std::array::from_fn(|_| random.random_range(-1.0..1.0))
}

fn search(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("search");
    for items in [10_000u64, 1_000_000] {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut index = Index::new(WIDTH);
        for id in 0..items {
            index.upsert(id, &vector(&mut random)).expect("finite numbers of this width");
        }
        let query = vector(&mut random);
        let (mut scratch, mut hits) = (Scratch::default(), Vec::new());
        group.throughput(Throughput::Bytes(items * WIDTH as u64)).sample_size(20);
        for k in [20, 200] {
            group.bench_function(format!("{k} of {items}"), |bencher| {
                bencher.iter(|| {
                    let query = black_box(&query);
                    index
                        .search(query, k, |_| true, &mut scratch, &mut hits)
                        .expect("a query of this width");
                    hits.len()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, search);
criterion_main!(benches);
