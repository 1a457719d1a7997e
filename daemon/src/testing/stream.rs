//! A random stream of records for tests of the pipeline: few users and items, so that everything meets; late, doubled, early and refused
//! records; features that change; windows that close.

use sluice_features::attributes::AttributeKey;
use sluice_features::attribution::{JoinCounts, WAITING_BYTES};
use sluice_features::funnel::{Entry, Funnel, LabelRule, Task};
use sluice_features::schema::{
    Counter, EventField, Field, Kind, Lookup, Missing, Reading, Schema, Source, Subject, Table,
};
use sluice_features::time::{EventTime, Span};
use sluice_features::wire::Topic;

use super::bounds;
use crate::config::Share;
use crate::pipeline::counts::Counts;
use crate::pipeline::record::Record;
use crate::pipeline::shard::Shard;
use crate::pipeline::work::LearnBatch;
use crate::pipeline::{Pipeline, Rules};

/// A funnel `click`, then `cart` after it, and the extra behaviour `look`. `entry` opens it.
pub(crate) fn rules(entry: Entry, labels: LabelRule) -> Rules {
    let task = |name: &str, parent, seconds| Task {
        name: name.into(),
        parent,
        window: Span::seconds(seconds),
        labels,
    };
    let (name, tasks) = match entry {
        Entry::Impression => {
            ("impression", vec![task("click", None, 20), task("cart", Some(0), 60)])
        }
        Entry::View { .. } => ("view", vec![task("view", None, 20), task("click", None, 20)]),
    };
    let funnel = Funnel::build(entry, name, tasks, vec!["look".into()]).unwrap();
    let field = |name: &str, source, kind, table, missing| Field {
        name: name.into(),
        source,
        kind,
        table,
        missing,
    };
    let fields = vec![
        field("item", Source::Event(EventField::Item), Kind::Category, 1, Missing::Own),
        field("category", Source::Event(EventField::Category), Kind::Category, 2, Missing::Own),
        field("age", Source::User(AttributeKey::of("age")), Kind::Category, 0, Missing::Own),
        field("tags", Source::Item(AttributeKey::of("tags")), Kind::List, 0, Missing::Zero),
        field("rate", Source::Counter(0), Kind::Category, 0, Missing::Value(0.0)),
        field("mine", Source::Counter(1), Kind::Category, 0, Missing::Value(0.0)),
    ];
    let table = |name: &str| Table { name: name.into(), width: 4 };
    let counter = |by: &[Subject]| Counter {
        task: 0,
        by: by.to_vec(),
        half_life: Span::seconds(60),
        smoothing: 1.0,
        read: Reading::LogOdds,
    };
    let behaviours = funnel.behaviours();
    let schema = Schema {
        fields,
        tables: vec![table("a"), table("items"), table("categories"), table("gaps")],
        counters: vec![counter(&[Subject::Item]), counter(&[Subject::User, Subject::Category])],
        lookups: vec![Lookup::Newest { limit: 5 }, Lookup::Matching { limit: 3 }],
        read: vec![true; behaviours],
        item_table: 1,
        category_table: 2,
        gap_table: 3,
        tasks: 2,
    };
    Rules {
        funnel,
        schema,
        lateness: Span::seconds(5),
        bounds: bounds().with(Share::Waiting, 20 * WAITING_BYTES as u64).with(Share::Ids, 1 << 13),
        vector_bytes: 100,
        max_length: 300,
        category: AttributeKey::of("category"),
        available: AttributeKey::of("available"),
        new_for: Span::seconds(100),
        batch: 7,
        share: 0.5,
        seed: 11,
    }
}

/// A record by value.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    topic: Topic,
    partition: u32,
    offset: i64,
    arrived: EventTime,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl Owned {
    pub(crate) fn record(&self) -> Record<'_> {
        Record {
            topic: self.topic,
            partition: self.partition,
            offset: self.offset,
            arrived: self.arrived,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
        }
    }
}

/// Returns so many records of so many partitions; a user is always in the same one.
pub(crate) fn stream(seed: u64, records: usize, partitions: u32, rules: &Rules) -> Vec<Owned> {
    let mut state = seed;
    let mut random = move |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut next = vec![[0i64; 4]; partitions as usize];
    let entry = rules.funnel.entry_name().to_owned();
    let mut shown: Vec<(u64, u64, u64)> = Vec::new();
    (0..records as u64)
        .map(|i| {
            let now = 1_650_000_000_000 + 400 * i as i64;
            let time = now - random(6_000) as i64;
            let (mut user, mut item) = (random(4), random(25) + i / 100);
            let (topic, key, value) = match random(20) {
                0 => {
                    let (category, tag) = (random(4), random(6));
                    let value = format!(
                        r#"{{"item":"i{item}","ts":{time},"features":{{"category":"c{category}","tags":["t{tag}","all"]}}}}"#
                    );
                    (Topic::Items, Some(format!("i{item}")), Some(value))
                }
                1 => {
                    let age = random(5);
                    let value =
                        format!(r#"{{"user":"u{user}","ts":{time},"features":{{"age":"{age}"}}}}"#);
                    (Topic::Users, Some(format!("u{user}")), Some(value))
                }
                2 => (Topic::Events, None, Some("{\"type\":".to_owned())),
                3..=11 => {
                    // One in ten comes again.
                    let id = if random(10) == 0 { i.saturating_sub(random(30)) } else { i };
                    shown.push((id, user, item));
                    let value = format!(
                        r#"{{"type":"{entry}","id":"e{id}","ts":{time},"user":"u{user}","item":"i{item}","surface":"s{}"}}"#,
                        random(2)
                    );
                    (Topic::Events, Some(format!("u{user}")), Some(value))
                }
                _ => {
                    let kinds: [&str; 3] =
                        if entry == "view" { ["click", "click", "look"] } else { ["click", "cart", "look"] };
                    let kind = kinds[random(3) as usize];
                    let mut named = String::new();
                    if let Some(back) = shown.len().checked_sub(1 + random(25) as usize) {
                        let id;
                        (id, user, item) = shown[back];
                        if random(2) == 0 {
                            named = format!(r#","impression":"e{id}""#);
                        }
                    }
                    let value = format!(
                        r#"{{"type":"{kind}","id":"b{i}","ts":{},"user":"u{user}","item":"i{item}"{named}}}"#,
                        time + random(8_000) as i64
                    );
                    (Topic::Events, Some(format!("u{user}")), Some(value))
                }
            };
            let partition = (if topic == Topic::Items { item } else { user }) as u32 % partitions;
            let offset = &mut next[partition as usize][topic as usize];
            *offset += 1;
            Owned {
                topic,
                partition,
                offset: *offset - 1,
                arrived: EventTime(now),
                key: key.map(String::into_bytes),
                value: value.map(String::into_bytes),
            }
        })
        .collect()
}

/// Takes records, whatever their fate, and fetches what is ready. A partition falls silent now and then.
pub(crate) fn take(pipeline: &mut Pipeline, records: &[Owned], batches: &mut Vec<LearnBatch>) {
    for owned in records {
        let record = owned.record();
        // The fate is in the counts.
        drop(pipeline.take(&record));
        if record.offset % 41 == 40 {
            pipeline.quiet(record.partition, record.arrived - Span::seconds(3));
        }
        fetch(pipeline, batches);
    }
}

/// Fetches what is ready.
pub(crate) fn fetch(pipeline: &mut Pipeline, batches: &mut Vec<LearnBatch>) {
    while let Some(batch) = pipeline.next_batch() {
        batches.push(batch);
    }
}

/// Ends the batch that fills, and fetches it.
pub(crate) fn settle(pipeline: &mut Pipeline, batches: &mut Vec<LearnBatch>) {
    pipeline.cut();
    fetch(pipeline, batches);
}

/// All of a batch that a learner sees, to the bit (numbers are never NaN here).
pub(crate) fn assert_same(left: &[LearnBatch], right: &[LearnBatch]) {
    assert_eq!(left.len(), right.len());
    for (i, (l, r)) in left.iter().zip(right).enumerate() {
        assert_eq!(l.batch, r.batch, "batch {i}");
        assert_eq!(l.roles, r.roles, "batch {i}");
        assert_eq!(l.verdicts, r.verdicts, "batch {i}");
        assert_eq!((l.covered, l.oldest_record), (r.covered, r.oldest_record), "batch {i}");
        let bits = |batch: &LearnBatch| -> Vec<u32> {
            let numbers = batch.batch.numbers.iter();
            numbers.map(|number| number.to_bits()).collect()
        };
        assert_eq!(bits(l), bits(r), "batch {i}");
    }
}

/// What was counted, and where the topics stand.
pub(crate) fn tally(pipeline: &Pipeline) -> (Counts, JoinCounts, u64, Vec<[Option<i64>; 3]>) {
    let next = |topic| move |shard: &Shard| shard.next(topic);
    let offsets = pipeline
        .shards()
        .iter()
        .map(|shard| [Topic::Events, Topic::Items, Topic::Users].map(|topic| next(topic)(shard)));
    (
        pipeline.counts().clone(),
        pipeline.join_counts(),
        pipeline.open_impressions(),
        offsets.collect(),
    )
}
