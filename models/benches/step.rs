//! A training step and scoring of the reference graph (34 fields x 16, DIN 50 + SIM 50, PLE, AITM) and of the default model, on synthetic
//! batches with the shapes of KuaiRand: examples per second on one thread. A step is Adam and row updates included.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sluice_features::example::Batch;
use sluice_features::time::Span;
use sluice_models::model::{Scoring, Workspace};
use sluice_models::spec::{CrossingSpec, EmbeddingSpec, FunnelSpec, ModelSpec, SharingSpec};
use sluice_models::synthetic::Synthetic;

fn steps(criterion: &mut Criterion) {
    for (name, spec) in [("reference", ModelSpec::reference()), ("default", ModelSpec::default())] {
        let mut group = criterion.benchmark_group(format!("step/{name}"));
        for size in [16, 64, 256, 1024] {
            let mut source = Synthetic::new(&spec, 7);
            let mut learner = source.learner(&spec, 1).expect("the benchmark's model is valid");
            let batches: Vec<Batch> = (0..16).map(|_| source.impressions(size)).collect();
            let mut next = batches.iter().cycle();
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| next.next().map(|batch| learner.step(batch).gradient_norm));
            });
        }
        group.finish();
    }
}

/// Steps of a model without a deep part while its table has room, and in the shapes that an attacker or a small table makes: full, full with rows that
/// may expire, and ids that must come more than once.
fn tables(criterion: &mut Criterion) {
    let expiry = Some(Span::seconds(3600));
    let room = EmbeddingSpec::default();
    let full = EmbeddingSpec { max_rows: 10_000, ..room.clone() };
    let shapes = [
        ("room", room.clone()),
        ("full", full.clone()),
        ("full, expiring", EmbeddingSpec { expiry, ..full }),
        ("admission", EmbeddingSpec { admission: 4, ..room }),
    ];
    let mut group = criterion.benchmark_group("step/table");
    for (name, embeddings) in shapes {
        let spec = ModelSpec {
            crossing: CrossingSpec::FmLinear {},
            sharing: SharingSpec::None {},
            funnel: FunnelSpec::Independent { tower: vec![] },
            embeddings,
            ..ModelSpec::default()
        };
        let mut source = Synthetic::new(&spec, 7);
        let mut learner = source.learner(&spec, 1).expect("the benchmark's model is valid");
        let batches: Vec<Batch> = (0..64).map(|_| source.impressions(256)).collect();
        for batch in &batches {
            learner.step(batch);
        }
        let mut next = batches.iter().cycle();
        group.throughput(Throughput::Elements(256));
        group.bench_function(name, |bencher| {
            bencher.iter(|| next.next().map(|batch| learner.step(batch).gradient_norm));
        });
    }
    group.finish();
}

/// 500 candidates of one user: with what they have in common computed once, and as 500 examples.
fn scores(criterion: &mut Criterion) {
    for (name, spec) in [("reference", ModelSpec::reference()), ("default", ModelSpec::default())] {
        let mut group = criterion.benchmark_group(format!("score/{name}"));
        let mut source = Synthetic::new(&spec, 7);
        let learner = source.learner(&spec, 1).expect("the benchmark's model is valid");
        let (model, rows) = (learner.model(), learner.embeddings());
        let candidates = source.request(500, 50, 50);
        let (mut scoring, mut out) = (Scoring::default(), vec![0.0; 1500]);
        group.throughput(Throughput::Elements(500));
        group.bench_function("500 candidates", |bencher| {
            bencher.iter(|| model.score_candidates(rows, &candidates, &mut scoring, &mut out));
        });
        let (mut batch, mut workspace) = (Batch::new(0, 2), Workspace::default());
        candidates.expand(source.schema(), &mut batch);
        group.bench_function("500 examples", |bencher| {
            bencher.iter(|| model.score(rows, &batch, &mut workspace, &mut out));
        });
        group.finish();
    }
}

criterion_group!(benches, steps, tables, scores);
criterion_main!(benches);
