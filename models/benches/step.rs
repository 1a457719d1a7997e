//! A training step and scoring of the reference graph (34 fields x 16, DIN 50 + SIM 50, PLE, AITM) and of the default model, on synthetic
//! batches with the shapes of KuaiRand: examples per second on one thread. A step is Adam and row updates included.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluice_features::example::{About, Batch, LabelMode};
use sluice_features::ids::{EventId, ItemId, UserId, salted_key};
use sluice_features::schema::{EventField, Field, Kind, Missing, Schema, Source, Table};
use sluice_features::time::EventTime;
use sluice_models::learner::Learner;
use sluice_models::model::Workspace;
use sluice_models::spec::ModelSpec;

const FIELDS: usize = 34;
const PARENTS: [Option<usize>; 3] = [None, Some(0), Some(0)];

fn schema(spec: &ModelSpec) -> Schema {
    let field = |k: usize| Field {
        name: format!("field {k}"),
        source: Source::Event(match k {
            0 => EventField::Item,
            1 => EventField::Category,
            _ => EventField::User,
        }),
        kind: Kind::Category,
        table: k,
        missing: Missing::Own,
    };
    Schema {
        fields: (0..FIELDS).map(field).collect(),
        tables: (0..=FIELDS).map(|k| Table { name: format!("table {k}"), width: 16 }).collect(),
        counters: vec![],
        lookups: spec.lookups(),
        read: vec![true],
        item_table: 0,
        category_table: 1,
        gap_table: FIELDS,
        tasks: PARENTS.len(),
    }
}

/// As KuaiRand's impressions: 16,000 users, 5,564 videos, 39 tags, 1.54 newest and 0.21 matching behaviours on average (half have none, few have
/// ten); candidates of a request have 50 and 50.
fn batch(schema: &Schema, size: usize, candidates: bool, random: &mut ChaCha8Rng) -> Batch {
    let salts: Vec<u64> = schema.tables.iter().map(|table| table.salt()).collect();
    let mut batch = Batch::new(0, 2);
    let mut lengths = [50, 50];
    let user = random.random_range(0..16_000);
    for _ in 0..size {
        let item = random.random_range(0..5564);
        let user = if candidates { user } else { random.random_range(0..16_000) };
        let id = |k: usize| match k {
            0 => item,
            1 => item % 39,
            2 => user,
            k => (user * 31 + item * (k as u64 % 5) / 100 + k as u64) % (20 * k as u64),
        };
        batch.keys.extend((0..FIELDS).map(|k| salted_key(salts[k], id(k))));
        if !candidates {
            lengths = [0.606, 0.176]
                .map(|more| (0..30).take_while(|_| random.random_bool(more)).count() as u64);
        }
        for (history, length) in batch.histories.iter_mut().zip(lengths) {
            for j in 0..length {
                let past = if candidates { user + j * 7 } else { random.random_range(0..5564) };
                history.items.push(salted_key(salts[0], past));
                history.categories.push(salted_key(salts[1], past % 39));
                history.gaps.push(salted_key(salts[FIELDS], j % 24));
            }
            history.starts.push(history.items.len() as u32);
        }
        let click = f32::from(u8::from(random.random_bool(0.4)));
        batch.labels.extend([click, click * f32::from(u8::from(random.random_bool(0.6))), 0.0]);
        batch.modes.extend([LabelMode::Final; 3]);
        batch.offsets.push(0.0);
        batch.about.push(About {
            impression: EventId(0),
            user: UserId(user),
            item: ItemId(item),
            time: EventTime(0),
            new_item: false,
        });
    }
    batch
}

fn learner(spec: &ModelSpec) -> Learner {
    Learner::new(spec, &schema(spec), &PARENTS, &[0.4, 0.3, 0.02], 1)
        .expect("the benchmark's model is valid")
}

fn steps(criterion: &mut Criterion) {
    for (name, spec) in [("reference", ModelSpec::reference()), ("default", ModelSpec::default())] {
        let mut group = criterion.benchmark_group(format!("step/{name}"));
        for size in [16, 64, 256, 1024] {
            let mut learner = learner(&spec);
            let mut random = ChaCha8Rng::seed_from_u64(7);
            let batches: Vec<Batch> =
                (0..16).map(|_| batch(learner.schema(), size, false, &mut random)).collect();
            let mut next = batches.iter().cycle();
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| next.next().map(|batch| learner.step(batch).gradient_norm));
            });
        }
        group.finish();
    }
}

fn scores(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("score/reference");
    let learner = learner(&ModelSpec::reference());
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let request = batch(learner.schema(), 500, true, &mut random);
    let (mut workspace, mut out) = (Workspace::default(), vec![0.0; 1500]);
    group.throughput(Throughput::Elements(500));
    group.bench_function("500 candidates", |bencher| {
        bencher.iter(|| {
            learner.model().score(learner.embeddings(), &request, &mut workspace, &mut out);
        });
    });
    group.finish();
}

criterion_group!(benches, steps, scores);
criterion_main!(benches);
