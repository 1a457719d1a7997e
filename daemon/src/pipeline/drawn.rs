//! Tests of what stands beside a view as not viewed: only what could have been.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sluice_features::example::LabelMode;
use sluice_features::funnel::{Entry, LabelRule};
use sluice_features::ids::ItemId;
use sluice_features::time::EventTime;
use sluice_features::wire::Topic;

use super::Pipeline;
use super::record::Record;
use crate::testing::stream;

const START: i64 = 1_650_000_000_000;
const HOUR: i64 = 3_600_000;

/// A shop of two partitions whose views open the funnel.
struct Stand {
    pipeline: Pipeline,
    offset: i64,
    names: BTreeMap<u64, String>,
    /// Items of rows with a known label of the view, by label.
    known: [BTreeSet<String>; 2],
}

impl Stand {
    fn new() -> Self {
        let rules = stream::rules(Entry::View { negatives: 4 }, LabelRule::Wait);
        let (names, known) = Default::default();
        Self { pipeline: Pipeline::new(rules, 2), offset: 0, names, known }
    }

    fn take(&mut self, topic: Topic, partition: u32, message: &Value) {
        let name = message["item"].as_str().unwrap();
        self.names.insert(ItemId::of(name).0, name.to_owned());
        let (value, offset) = (message.to_string(), self.offset);
        self.offset += 1;
        let (arrived, value) = (EventTime(START + 1000 * HOUR), Some(value.as_bytes()));
        let record = Record { topic, partition, offset, arrived, key: None, value };
        self.pipeline.take(&record).unwrap();
    }

    fn item(&mut self, name: &str, features: &Value) {
        let update = json!({"item": name, "ts": START, "features": features});
        self.take(Topic::Items, 0, &update);
    }

    fn view(&mut self, partition: u32, name: &str, time: i64) {
        let id = format!("v{}", self.offset);
        let user = format!("u{partition}/{}", self.offset % 9);
        let view = json!({"type": "view", "id": id, "ts": time, "user": user, "item": name});
        self.take(Topic::Events, partition, &view);
    }

    /// Returns the items that were learned as viewed and as not viewed since the last call.
    fn learned(&mut self) -> [BTreeSet<String>; 2] {
        self.pipeline.cut();
        while let Some(work) = self.pipeline.next_batch() {
            let batch = &work.batch;
            let tasks = batch.modes.len() / batch.size();
            for (i, about) in batch.about.iter().enumerate() {
                if batch.modes[i * tasks] == LabelMode::Final {
                    let viewed = usize::from(batch.labels[i * tasks] > 0.5);
                    self.known[viewed].insert(self.names[&about.item.0].clone());
                }
            }
        }
        let [drawn, viewed] = std::mem::take(&mut self.known);
        [viewed, drawn]
    }
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn where_there_is_a_catalogue_only_what_can_be_had_is_drawn_or_learned_as_viewed() {
    let mut stand = Stand::new();
    for name in ["a", "b", "c", "gone", "sold out"] {
        stand.item(name, &json!({"available": true}));
    }
    stand.item("gone", &Value::Null);
    stand.item("sold out", &json!({"available": "false"}));
    let all = ["a", "b", "c", "gone", "sold out", "mistyped"];
    let mut time = START;
    let mut views = |stand: &mut Stand| {
        for name in all.into_iter().cycle().take(300) {
            time += 1000;
            stand.view(0, name, time);
        }
        stand.learned()
    };
    let offered = set(["a", "b", "c"]);
    assert_eq!(views(&mut stand), [offered.clone(), offered]);
    // What comes back is drawn again, what is sold out now no more.
    stand.item("c", &json!({"available": 0}));
    stand.item("sold out", &json!({"available": 3}));
    let offered = set(["a", "b", "sold out"]);
    assert_eq!(views(&mut stand), [offered.clone(), offered]);
}

#[test]
fn without_a_catalogue_an_item_is_learned_from_its_second_view_on() {
    let mut stand = Stand::new();
    stand.view(0, "a", START);
    stand.view(0, "b", START + 1000);
    assert_eq!(stand.learned(), [set([]), set([])], "the first view of each says nothing");
    stand.view(0, "a", START + 2000);
    assert_eq!(stand.learned(), [set(["a"]), set(["b"])]);
}

#[test]
fn what_another_partition_names_first_later_was_not_there_yet() {
    let mut stand = Stand::new();
    for k in 0..40 {
        stand.view(0, &format!("later{k}"), START + 2 * HOUR + k * 1000);
    }
    stand.learned();
    for k in 0..200 {
        stand.view(1, if k % 3 == 0 { "a" } else { "b" }, START + k * 1000);
    }
    assert_eq!(stand.learned(), [set(["a", "b"]), set(["a", "b"])]);
}

/// Whether a view stands first, last or between among its negatives must not say that it is the view: a model learns the rows of a step in
/// their order.
#[test]
fn a_view_stands_at_every_place_among_its_negatives_alike() {
    let mut stand = Stand::new();
    for number in 0..20 {
        stand.item(&format!("i{number}"), &json!({}));
    }
    let views = 3_000;
    for k in 0..views {
        stand.view(0, &format!("i{}", k * 7 % 20), START + k * 1000);
    }
    stand.pipeline.cut();
    let mut places = [0u32; 5];
    while let Some(work) = stand.pipeline.next_batch() {
        let batch = &work.batch;
        let tasks = batch.modes.len() / batch.size();
        let mut next = 0;
        while next < batch.size() {
            let group = batch.group(next..batch.size());
            next = group.end;
            // The first views of all have no negatives yet.
            if group.len() < 5 {
                continue;
            }
            let viewed = |&row: &usize| batch.labels[row * tasks] > 0.5;
            let [place] = group.clone().filter(viewed).collect::<Vec<_>>()[..] else {
                panic!("one view and its negatives: {group:?}")
            };
            places[place - group.start] += 1;
        }
    }
    let whole: u32 = places.iter().sum();
    assert!(i64::from(whole) > views - 10, "{places:?}");
    // Five standard errors.
    let (expected, error) = (f64::from(whole) / 5.0, (f64::from(whole) * 0.2 * 0.8).sqrt());
    assert!(places.iter().all(|&n| (f64::from(n) - expected).abs() < 5.0 * error), "{places:?}");
}
