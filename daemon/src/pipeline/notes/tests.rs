//! Records whose values and names are not what they should be, through the pipeline.

use serde_json::{Value, json};
use sluice_features::attributes::AttributeKey;
use sluice_features::catalogue::Found;
use sluice_features::funnel::{Entry, LabelRule};
use sluice_features::ids::ItemId;
use sluice_features::reject::Rejection;
use sluice_features::schema::{
    Counter, EventField, Field, Kind, Missing, Reading, Source, Subject,
};
use sluice_features::time::{EventTime, Span};
use sluice_features::wire::{MAX_MESSAGE, Topic};

use crate::pipeline::record::Record;
use crate::pipeline::{Pipeline, Rules};
use crate::testing::stream;

const NOW: i64 = 1_650_000_000_000;

/// Fields of every kind that needs a number, by their names.
fn rules() -> Rules {
    let mut rules = stream::rules(Entry::Impression, LabelRule::Wait);
    let key = AttributeKey::of;
    let (scale, shift, buckets) = (1.0, 0.0, 24);
    let kinds = [
        ("number", Source::Item(key("number")), Kind::Number { scale, shift }),
        ("log", Source::Item(key("log")), Kind::Log { scale, shift }),
        ("log-bucket", Source::Item(key("log-bucket")), Kind::LogBucket { scale, buckets }),
        ("steps", Source::User(key("steps")), Kind::Steps { scale, buckets }),
        ("hour", Source::Context(key("hour")), Kind::Hour),
        ("weekday", Source::Context(key("weekday")), Kind::Weekday),
        ("age", Source::User(key("age")), Kind::Age { unit: Span::seconds(1), most: 9 }),
        ("beside", Source::Counter(2), Kind::Number { scale, shift }),
        ("surface", Source::Event(EventField::Surface), Kind::Category),
    ];
    rules.schema.fields.retain(|field| matches!(field.source, Source::Event(_)));
    rules.schema.counters.push(Counter {
        task: 0,
        by: vec![Subject::Category],
        half_life: Span::seconds(60),
        smoothing: 1.0,
        read: Reading::Beside(key("price")),
    });
    for (name, source, kind) in kinds {
        let missing = if kind.is_number() { Missing::Value(0.0) } else { Missing::Own };
        let name = name.to_owned();
        rules.schema.fields.push(Field { name, source, kind, table: 0, missing });
    }
    rules
}

struct Stand {
    pipeline: Pipeline,
    offset: i64,
}

impl Stand {
    fn new() -> Self {
        Self { pipeline: Pipeline::new(rules(), 1), offset: 0 }
    }

    fn take(
        &mut self,
        topic: Topic,
        key: Option<&str>,
        value: Option<&str>,
    ) -> Result<(), Rejection> {
        self.offset += 1;
        let record = Record {
            topic,
            partition: 0,
            offset: self.offset,
            arrived: EventTime(NOW + 1000),
            key: key.map(str::as_bytes),
            value: value.map(str::as_bytes),
        };
        self.pipeline.take(&record)
    }

    fn item(&mut self, item: &str, time: i64, features: &Value) {
        let value = json!({"item": item, "ts": time, "features": features}).to_string();
        self.take(Topic::Items, None, Some(&value)).unwrap();
    }

    fn user(&mut self, features: &Value) {
        let value = json!({"user": "u", "ts": NOW, "features": features}).to_string();
        self.take(Topic::Users, None, Some(&value)).unwrap();
    }

    fn shown(&mut self, number: i64, more: &Value) {
        let mut value = json!({"type": "impression", "id": format!("e{number}"), "ts": NOW + number,
            "user": "u", "item": "a"});
        for (key, given) in more.as_object().unwrap() {
            value[key] = given.clone();
        }
        self.take(Topic::Events, None, Some(&value.to_string())).unwrap();
    }

    fn unusable(&self) -> Vec<(String, u64)> {
        let found = self.pipeline.notes().unusable().filter(|(_, found)| found.count > 0);
        found.map(|(name, found)| (name.to_owned(), found.count)).collect()
    }

    fn is_gone(&self, item: &str) -> bool {
        let features = &self.pipeline.shared().item_features;
        features.as_of(ItemId::of(item).0, EventTime(NOW + 5000), |found, _| found == Found::Gone)
    }
}

#[test]
fn what_a_field_cannot_use_is_counted_by_its_name_whatever_the_kind() {
    for (value, usable) in [
        (json!("12,50"), false),
        (json!("abc"), false),
        (json!([1]), false),
        (json!(true), false),
        (json!(""), false),
        (json!("12.50"), true),
        (json!(" 7 "), true),
        (json!(9_007_199_254_740_993u64), true),
        (json!(null), true),
    ] {
        let mut stand = Stand::new();
        let of = |names: &[&str]| {
            names.iter().map(|name| (String::from(*name), value.clone())).collect::<Value>()
        };
        stand.item("a", NOW, &of(&["number", "log", "log-bucket", "price"]));
        stand.user(&of(&["steps", "age"]));
        stand.shown(1, &json!({"context": of(&["hour", "weekday"])}));
        let all = ["number", "log", "log-bucket", "steps", "hour", "weekday", "age", "beside"];
        let expected: Vec<_> = all.iter().map(|name| (String::from(*name), 1)).collect();
        assert_eq!(stand.unusable(), if usable { vec![] } else { expected }, "{value}");
    }
}

#[test]
fn what_says_neither_yes_nor_no_of_an_item_is_counted() {
    let clear = [json!(false), json!("No"), json!("0"), json!(12), json!("true"), json!(null)];
    let unclear = [json!("out_of_stock"), json!([false]), json!(-1), json!("")];
    for (value, count) in
        clear.into_iter().map(|v| (v, 0)).chain(unclear.into_iter().map(|v| (v, 1)))
    {
        let mut stand = Stand::new();
        stand.item("a", NOW, &json!({ "available": value }));
        let counted: u64 = stand.unusable().iter().map(|(_, count)| count).sum();
        assert_eq!(counted, count, "{value}");
        assert!(stand.unusable().iter().all(|(name, _)| name == "items.available"));
    }
}

#[test]
fn a_field_that_is_always_missing_is_named_with_what_came_in_its_place() {
    let mut stand = Stand::new();
    stand.item("a", NOW, &json!({"catgory": "c", "number": 1, "avialable": true}));
    stand.user(&json!({"steps": 1}));
    for number in 0..2_000 {
        stand.shown(number, &json!({"sruface": "home", "context": {"hour": 1}}));
    }
    let notes = stand.pipeline.notes();
    let missing: Vec<&str> =
        notes.fields().filter(|(_, missing)| *missing).map(|(name, _)| name).collect();
    assert_eq!(missing, ["category", "log", "log-bucket", "weekday", "age", "surface"]);
    assert_eq!(notes.likely("category"), Some("catgory"));
    assert_eq!(notes.likely("surface"), Some("sruface"));
    assert_eq!(notes.likely("weekday"), None);
    assert_eq!(notes.misspelt_available(), Some("avialable"));

    stand.item("a", NOW + 2_000, &json!({"category": "c", "available": true}));
    for number in 2_001..2_100 {
        stand.shown(number, &json!({"surface": "home"}));
    }
    let missing = |name: &str| {
        stand.pipeline.notes().fields().any(|(field, missing)| field == name && missing)
    };
    assert!(!missing("category") && !missing("surface") && missing("age"));
    assert_eq!(stand.pipeline.notes().misspelt_available(), None);
}

#[test]
fn a_name_that_is_like_one_that_is_read_is_named_with_it() {
    let mut stand = Stand::new();
    stand.item("a", NOW, &json!({"catgory": "c", "is_available": true, "numbr": 1, "colour": 2}));
    stand.item("b", NOW, &json!({"category": "c", "avail": true, "price": 1}));
    stand.item("c", NOW, &json!({"category": "c", "avaliable": true, "prize": 1, "surface": "x"}));
    stand.user(&json!({"stps": 1, "age": 5}));
    stand.shown(
        1,
        &json!({"sruface": "home", "hour": 3, "campaign": "x", "context": {"wekday": 1}}),
    );
    let notes = stand.pipeline.notes();
    let mut misspelt: Vec<(String, String)> =
        notes.misspelt().map(|name| (name.found, name.likely)).collect();
    misspelt.sort();
    let expected = [
        ("context.wekday", "context.weekday"),
        ("features.avail", "features.available"),
        ("features.avaliable", "features.available"),
        ("features.catgory", "features.category"),
        ("features.is_available", "features.available"),
        ("features.numbr", "features.number"),
        // No field reads it by its name, but a counter does as price.
        ("features.prize", "features.price"),
        ("features.stps", "features.steps"),
        ("features.surface", "surface"),
        ("hour", "context.hour"),
        ("sruface", "surface"),
    ];
    let expected = expected.map(|(found, likely)| (found.to_owned(), likely.to_owned()));
    assert_eq!(misspelt, expected);
}

#[test]
fn names_of_a_refused_record_are_counted_once() {
    let mut stand = Stand::new();
    stand.item("a", NOW, &json!({}));
    let refused = json!({"item": "b", "ts": 5, "sruface": 1, "features": {"catgory": 1}});
    stand.take(Topic::Items, None, Some(&refused.to_string())).unwrap_err();
    for _ in 0..3 {
        // None of these has a name in it.
        stand.take(Topic::Items, Some("a"), None).unwrap();
        stand.take(Topic::Items, None, None).unwrap_err();
        stand.take(Topic::Events, None, None).unwrap_err();
        stand.take(Topic::Events, None, Some(&"x".repeat(MAX_MESSAGE + 1))).unwrap_err();
    }
    let names: Vec<(&str, u64)> = stand.pipeline.notes().names().collect();
    assert!(names.iter().all(|(_, count)| *count == 1), "{names:?}");
    assert!(names.contains(&("sruface", 1)), "{names:?}");
}

#[test]
fn names_are_bounded_and_those_that_come_often_stay() {
    let mut stand = Stand::new();
    for number in 0..1_000 {
        let mut fields = json!({"sruface": "home"});
        fields[format!("noise{number}")] = json!(1);
        stand.shown(number, &fields);
    }
    let notes = stand.pipeline.notes();
    assert_eq!(notes.names().count(), super::NAMES);
    assert!(notes.names().any(|(name, count)| name == "sruface" && count >= 1_000));
}

#[test]
fn the_end_of_an_item_is_read_from_a_key_in_json() {
    for (item, key) in [
        ("a", "a"),
        ("a", r#""a""#),
        ("a", r#"{"item":"a"}"#),
        ("a", r#"{"schema":{},"payload":"a"}"#),
        ("7", r#"{"item":7}"#),
        // Ids that are JSON themselves.
        (r#""a""#, r#""a""#),
    ] {
        let mut stand = Stand::new();
        stand.item(item, NOW, &json!({}));
        stand.take(Topic::Items, Some(key), None).unwrap();
        assert!(stand.is_gone(item), "{key}");
        assert_eq!(stand.pipeline.shared().item_features.len(), 1, "{key}");
        assert_eq!(stand.pipeline.counts().unknown_ends, 0, "{key}");
    }
    // Both exist: the key is the id.
    let mut stand = Stand::new();
    stand.item("a", NOW, &json!({}));
    stand.item(r#""a""#, NOW, &json!({}));
    stand.take(Topic::Items, Some(r#""a""#), None).unwrap();
    assert!(stand.is_gone(r#""a""#) && !stand.is_gone("a"));
}

#[test]
fn the_end_of_what_is_not_known_is_counted_and_nothing_else() {
    let mut stand = Stand::new();
    stand.item("a", NOW, &json!({}));
    stand.take(Topic::Items, Some(r#""b""#), None).unwrap();
    stand.take(Topic::Users, Some("nobody"), None).unwrap();
    let value = json!({"item": "c", "ts": NOW, "features": null}).to_string();
    stand.take(Topic::Items, None, Some(&value)).unwrap();
    let shared = stand.pipeline.shared();
    assert_eq!((shared.item_features.len(), shared.items.len(), shared.users.len()), (1, 1, 0));
    assert_eq!(stand.pipeline.counts().unknown_ends, 3);
    assert_eq!(stand.pipeline.notes().unknown_end(), Some("c"));
}

#[test]
fn many_updates_within_the_lateness_do_not_look_ahead() {
    let mut stand = Stand::new();
    for k in 0..40 {
        // What is read changes now and then, what is not read each time.
        stand.item("a", NOW + 100 * k, &json!({"number": k / 5, "stock": k}));
        // Time goes on, but an impression of any of these moments may yet come.
        stand.shown(100 * k, &json!({}));
    }
    let read = |time: i64| {
        stand.pipeline.shared().item_features.as_of(
            ItemId::of("a").0,
            EventTime(time),
            |_, item| item.and_then(|item| item.get(AttributeKey::of("number"))?.number()),
        )
    };
    for k in 0..40 {
        assert_eq!(read(NOW + 100 * k + 50), Some((k / 5) as f64), "{k}");
    }
    assert_eq!(stand.pipeline.counts().dropped_versions, 0);
}

#[test]
fn an_item_was_there_before_its_record_if_an_event_says_so() {
    let mut stand = Stand::new();
    stand.item("a", NOW + 900, &json!({}));
    stand.shown(10, &json!({}));
    assert_eq!(stand.pipeline.shared().first_seen, [EventTime(NOW + 10)]);
    // Later events, and those that are out of order by more than the lateness, say nothing.
    stand.shown(500, &json!({}));
    stand.shown(-60_000, &json!({}));
    assert_eq!(stand.pipeline.shared().first_seen, [EventTime(NOW + 10)]);
    let mut stand = Stand::new();
    stand.item("a", NOW - 900, &json!({}));
    stand.shown(10, &json!({}));
    assert_eq!(stand.pipeline.shared().first_seen, [EventTime(NOW - 900)]);
    // Nor does a first event that is out of order by more than that make an item old.
    stand.shown(-1_000_000, &json!({"item": "b"}));
    assert_eq!(stand.pipeline.shared().first_seen[1], stand.pipeline.horizon());
}
