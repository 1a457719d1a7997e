//! Searches of the item index: the scan should run at the memory's bandwidth once codes leave the caches. Besides vectors in all directions there
//! are hostile ones: tight clusters, in which codes cannot tell neighbours apart, and items that are all alike.

#![allow(missing_docs, reason = "criterion's macro makes public functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluice_features::ids::{ItemId, salted_key};
use sluice_models::retrieval::{Index, Retriever, RetrieverSpec, Scratch};
use sluice_models::spec::ModelSpec;
use sluice_models::synthetic::Synthetic;

const WIDTH: usize = 64;
/// Items of a tight cluster, and how far they are from its centre in each direction.
const CLUSTER: u64 = 2_000;
const NEAR: f32 = 0.01;

fn vector(random: &mut ChaCha8Rng) -> [f32; WIDTH] {
    std::array::from_fn(|_| random.random_range(-1.0..1.0))
}

fn near(random: &mut ChaCha8Rng, centre: &[f32; WIDTH]) -> [f32; WIDTH] {
    std::array::from_fn(|i| centre[i] + random.random_range(-NEAR..NEAR))
}

fn search(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("search");
    for (name, items) in
        [("", 10_000u64), ("", 1_000_000), (" in clusters", 1_000_000), (" all alike", 100_000)]
    {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut index = Index::new(WIDTH);
        let mut centre = vector(&mut random);
        let first = centre;
        for id in 0..items {
            let vector = match name {
                "" => vector(&mut random),
                " all alike" => centre,
                _ => {
                    if id % CLUSTER == 0 && id > 0 {
                        centre = vector(&mut random);
                    }
                    near(&mut random, &centre)
                }
            };
            index.upsert(id, &vector).expect("finite numbers of this width");
        }
        // In clusters the query lies in one.
        let query = if name.is_empty() { vector(&mut random) } else { near(&mut random, &first) };
        let (mut scratch, mut hits) = (Scratch::default(), Vec::new());
        group.throughput(Throughput::Bytes(items * WIDTH as u64)).sample_size(20);
        for k in [20, 200] {
            group.bench_function(format!("{k} of {items}{name}"), |bencher| {
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

/// What a checkpoint waits for: the image of a model that knows a million items.
fn image(criterion: &mut Criterion) {
    const ITEMS: u64 = 1_000_000;
    const BATCH: u64 = 250;
    let mut source = Synthetic::new(&ModelSpec::default(), 7);
    let spec = RetrieverSpec { width: 8, hidden: 8, row_width: 4, ..RetrieverSpec::default() };
    let mut retriever = Retriever::new(spec, source.schema(), 1);
    let mut batch = source.impressions(BATCH as usize);
    batch.labels.fill(1.0);
    let (fields, salt) = (batch.keys.len() / batch.size(), source.schema().tables[0].salt());
    for first in (1..=ITEMS).step_by(BATCH as usize) {
        for (i, id) in (first..first + BATCH).enumerate() {
            batch.about[i].item = ItemId(id);
            batch.keys[i * fields] = salted_key(salt, id);
        }
        retriever.learn(&batch);
    }
    let mut group = criterion.benchmark_group("retriever");
    group.sample_size(20);
    group.bench_function(format!("image with {ITEMS} items"), |bencher| {
        bencher.iter(|| retriever.image());
    });
    group.finish();
}

criterion_group!(benches, search, image);
criterion_main!(benches);
