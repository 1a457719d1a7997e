//! A small shop for tests: 40 items in 4 categories, 8 users, a few hundred impressions, a model that has learned them.

use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::{Value, json};
use sluice_features::attributes::AttributeKey;
use sluice_features::event::BehaviourType;
use sluice_features::funnel::{Entry, Funnel, LabelRule, Task};
use sluice_features::schema::{
    Counter, EventField, Field, Kind, Missing, Reading, Schema, Source, Subject, Table,
};
use sluice_features::time::{EventTime, Span};
use sluice_features::wire::{ArrivalTime, Request, Topic, decode_request};
use sluice_models::learner::{Learner, default_priors};
use sluice_models::retrieval::{Retriever, RetrieverSpec};
use sluice_models::spec::ModelSpec;

use crate::clock::Clock;
use crate::config;
use crate::pipeline::record::Record;
use crate::pipeline::{Pipeline, Rules};
use crate::serve::{Serving, Snapshot};

/// The time of the first impression.
pub(crate) const START: i64 = 1_700_000_000_000;
/// Items, and the categories that they take turns in.
pub(crate) const ITEMS: usize = 40;
pub(crate) const CATEGORIES: usize = 4;
/// Users.
pub(crate) const USERS: usize = 8;
/// For how long a row of the retrieval model lives without being used.
pub(crate) const EXPIRY: Span = Span::seconds(90 * 86_400);
/// After all events.
pub(crate) const AFTER: EventTime = EventTime(START + 10_000_000);

/// The shop and who learns from it.
pub(crate) struct Shop {
    pub(crate) serving: Arc<Serving>,
    pub(crate) clock: Clock,
    pub(crate) learner: Learner,
    pub(crate) retriever: Retriever,
    offset: i64,
}

pub(crate) fn funnel() -> Funnel {
    let task = |name: &str, parent| Task {
        name: name.into(),
        parent,
        window: Span::seconds(60),
        labels: LabelRule::Wait,
    };
    let tasks = vec![task("click", None), task("purchase", Some(0))];
    Funnel::build(Entry::Impression, "impression", tasks, vec!["remove".into()]).unwrap()
}

fn schema(spec: &ModelSpec, funnel: &Funnel) -> Schema {
    let field = |name: &str, source, kind, table| Field {
        name: name.into(),
        source,
        kind,
        table,
        missing: Missing::Own,
    };
    let price = Kind::Number { scale: 0.1, shift: 0.0 };
    let number = Kind::Number { scale: 1.0, shift: 0.0 };
    Schema {
        fields: vec![
            field("user", Source::Event(EventField::User), Kind::Category, 0),
            field("item", Source::Event(EventField::Item), Kind::Category, 1),
            field("category", Source::Event(EventField::Category), Kind::Category, 2),
            field("surface", Source::Event(EventField::Surface), Kind::Category, 3),
            field("device", Source::Context(AttributeKey::of("device")), Kind::Category, 3),
            field("hour", Source::Event(EventField::Time), Kind::Hour, 3),
            field("price", Source::Item(AttributeKey::of("price")), price, 0),
            field("ctr", Source::Counter(0), number, 0),
        ],
        tables: ["user", "item", "category", "other"]
            .map(|name| Table { name: name.into(), width: 8 })
            .to_vec(),
        counters: vec![Counter {
            task: 0,
            by: vec![Subject::Item],
            half_life: Span::seconds(86_400),
            smoothing: 5.0,
            read: Reading::LogOdds,
        }],
        lookups: spec.lookups(),
        read: vec![true; funnel.behaviours()],
        item_table: 1,
        category_table: 2,
        gap_table: 3,
        tasks: funnel.tasks().len(),
    }
}

impl Shop {
    /// Opens the shop: users like the items of one category each.
    pub(crate) fn open() -> Self {
        Self::open_with(Clock::manual(AFTER))
    }

    /// The same with another clock.
    pub(crate) fn open_with(clock: Clock) -> Self {
        let mut shop = Self::empty_with(clock);
        shop.fill();
        shop
    }

    /// Opens a shop in which nothing is and nothing has happened.
    pub(crate) fn empty() -> Self {
        Self::empty_with(Clock::manual(AFTER))
    }

    fn empty_with(clock: Clock) -> Self {
        let (funnel, spec) = (funnel(), ModelSpec::default());
        let schema = schema(&spec, &funnel);
        let priors = default_priors(&funnel.parents());
        let learner = Learner::new(&spec, &schema, &funnel.parents(), &priors, 3).unwrap();
        let retrieval = RetrieverSpec {
            batch: 32,
            width: 16,
            expiry: Some(EXPIRY),
            ..RetrieverSpec::default()
        };
        let retriever = Retriever::new(retrieval, &schema, 5);
        let rules = Rules {
            funnel,
            schema,
            lateness: Span::ZERO,
            bounds: super::bounds(),
            vector_bytes: 100,
            max_length: 1_000,
            category: AttributeKey::of("category"),
            available: AttributeKey::of("available"),
            new_for: Span::seconds(3600),
            batch: 64,
            share: 1.0,
            seed: 7,
        };
        let settings = config::Serve {
            score: config::Expression::parse("p.click + 20 * p.purchase", &rules.funnel).unwrap(),
            max_candidates: 30,
            candidates: 24,
            scorers: 1,
            queue: 4,
        };
        let snapshot = Snapshot {
            model: learner.model().clone(),
            towers: retriever.towers(),
            learned_until: None,
            version: 0,
            sound: true,
        };
        let pipeline = Arc::new(RwLock::new(Pipeline::new(rules, 2)));
        let embeddings = Arc::clone(learner.embeddings());
        let serving =
            Serving::new(pipeline, snapshot, embeddings, settings, "default", clock.clone());
        Self { serving: Arc::new(serving), clock, learner, retriever, offset: 0 }
    }

    fn fill(&mut self) {
        for item in 0..ITEMS {
            self.item(item, START - 1_000_000, json!({"available": true}));
        }
        for round in 0..30 {
            for user in 0..USERS {
                let liked = user % CATEGORIES;
                let item = (round * 7 + user * 3) % ITEMS;
                let time = START + (round * USERS + user) as i64 * 1_000;
                let id = format!("r{round}u{user}");
                self.impression(&id, user, item, time, json!({"device": "ios"}));
                if item % CATEGORIES == liked {
                    self.behaviour("click", &id, user, item, time + 100);
                }
            }
        }
        self.settle(START + 400_000);
    }

    /// Closes the windows of what was shown a minute before a time, and learns it.
    pub(crate) fn settle(&mut self, time: i64) {
        {
            let mut pipeline = self.serving.pipeline.write();
            pipeline.quiet(0, EventTime(time));
            pipeline.cut();
        }
        self.learn();
    }

    /// Learns all batches that are ready, and publishes a snapshot.
    pub(crate) fn learn(&mut self) {
        let mut covered = None;
        while let Some(work) = self.serving.pipeline.write().next_batch() {
            covered = work.covered.max(covered);
            self.learner.step(&work.batch);
            self.retriever.learn(&work.batch);
        }
        self.snapshot(true, covered);
    }

    /// Hands a snapshot of the parameters to the readers.
    pub(crate) fn snapshot(&self, sound: bool, learned_until: Option<EventTime>) {
        self.serving.snapshot.store(Arc::new(Snapshot {
            model: self.learner.model().clone(),
            towers: self.retriever.towers(),
            learned_until,
            version: self.learner.steps(),
            sound,
        }));
    }

    /// Sends an item's features; `more` are added to its category and price.
    pub(crate) fn item(&mut self, item: usize, time: i64, more: Value) {
        let mut features = json!({"category": format!("c{}", item % CATEGORIES), "price": item});
        for (key, value) in more.as_object().unwrap() {
            features[key] = value.clone();
        }
        let message = json!({"item": name(item), "ts": time, "features": features});
        self.take(Topic::Items, &name(item), Some(&message), time);
    }

    /// Says that an item is gone.
    pub(crate) fn remove(&mut self, item: usize, time: i64) {
        self.take(Topic::Items, &name(item), None, time);
    }

    pub(crate) fn impression(
        &mut self,
        id: &str,
        user: usize,
        item: usize,
        time: i64,
        context: Value,
    ) {
        let message = json!({"type": "impression", "id": id, "ts": time, "user": format!("u{user}"),
            "item": name(item), "surface": "home", "context": context});
        self.take(Topic::Events, &format!("u{user}"), Some(&message), time);
    }

    pub(crate) fn behaviour(
        &mut self,
        kind: &str,
        impression: &str,
        user: usize,
        item: usize,
        time: i64,
    ) {
        let message = json!({"type": kind, "id": format!("{kind}-{impression}"), "ts": time,
            "user": format!("u{user}"), "item": name(item), "impression": impression});
        self.take(Topic::Events, &format!("u{user}"), Some(&message), time);
    }

    fn take(&mut self, topic: Topic, key: &str, value: Option<&Value>, time: i64) {
        self.offset += 1;
        let bytes = value.map(|value| serde_json::to_vec(value).unwrap());
        let record = Record {
            topic,
            partition: 0,
            offset: self.offset,
            arrived: EventTime(time),
            key: Some(key.as_bytes()),
            value: bytes.as_deref(),
        };
        self.serving.pipeline.write().take(&record).unwrap();
    }
}

/// The name of an item.
pub(crate) fn name(item: usize) -> String {
    format!("i{item:02}")
}

/// A request from its JSON text.
pub(crate) fn request(message: &Value) -> Request {
    let bytes = serde_json::to_vec(message).unwrap();
    decode_request(&bytes, ArrivalTime(Some(AFTER))).unwrap()
}

/// The type of clicks.
pub(crate) const CLICK: BehaviourType = BehaviourType(0);
