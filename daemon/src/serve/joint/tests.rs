use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sluice_features::funnel::{Funnel, LabelRule, MAX_TASKS, Task};
use sluice_features::time::{EventTime, Span};

use super::*;
use crate::clock::Clock;
use crate::config::{Config, Expression};
use crate::serve::{Scorer, Serving, Snapshot};
use crate::testing::played::{PLAYED, Played, Sent};
use crate::testing::shop::request;

#[test]
fn a_view_has_its_odds_among_all_items() {
    // One of 101 items, 4 of the 100 others drawn: odds of 1 to 4 in the sample are 1 to 100 among all.
    let joint = Joint { rate: Some(sampling_rate(4, 101)) };
    let mut p = [0.2, 0.5, 0.0, 1.0, 0.25, 1.0];
    joint.apply(&mut p, 3);
    for (found, wanted) in p.iter().zip([1.0 / 101.0, 0.5 / 101.0, 0.0, 1.0, 0.25, 1.0]) {
        assert!((found - wanted).abs() < 1e-7, "{p:?}");
    }
}

/// Logits far beyond what a sigmoid can tell from 0 and 1 among them.
fn probability(random: &mut StdRng) -> f32 {
    let wide: f32 = if random.random_bool(0.2) { 120.0 } else { 6.0 };
    let logit: f32 = random.random_range(-wide..=wide);
    1.0 / (1.0 + (-logit).exp())
}

fn view(random: &mut StdRng) -> Joint {
    let items = 10usize.pow(random.random_range(0..=8)) - random.random_range(0..=1);
    Joint { rate: Some(sampling_rate(random.random_range(1..=100), items)) }
}

#[test]
fn a_probability_stays_one_and_keeps_its_order() {
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..10_000 {
        let own: [f32; 6] = std::array::from_fn(|_| probability(&mut random));
        let mut p = own;
        view(&mut random).apply(&mut p, 3);
        for p in p.chunks(3) {
            assert!(p.iter().all(|p| (0.0..=1.0).contains(p)), "{own:?} {p:?}");
            assert!(p[1] <= p[0] && p[2] <= p[0], "{own:?} {p:?}");
        }
        assert!((p[0] <= p[3]) == (own[0] <= own[3]) || p[0].total_cmp(&p[3]).is_eq());
    }
}

/// A random tree of up to 16 tasks, below impressions or beside a view.
fn funnel(random: &mut StdRng) -> Funnel {
    let entry = match random.random_bool(0.5) {
        true => Entry::View { negatives: 4 },
        false => Entry::Impression,
    };
    let first = usize::from(entry != Entry::Impression);
    let tasks = (0..random.random_range(1..=MAX_TASKS)).map(|task| Task {
        name: format!("t{task}"),
        parent: (task > first && random.random_bool(0.7)).then(|| random.random_range(first..task)),
        window: Span::ZERO,
        labels: LabelRule::Wait,
    });
    let tasks = tasks.collect();
    let name = if first == 1 { "t0" } else { "impression" };
    Funnel::build(entry, name, tasks, vec![]).unwrap()
}

/// What a model says of a candidate whose heads agree with the tree: each task's probability at most its parent's.
fn agreeing(funnel: &Funnel, random: &mut StdRng) -> Vec<f32> {
    let mut p: Vec<f32> = Vec::new();
    for parent in funnel.parents() {
        let own = random.random_range(0.01..=1.0);
        p.push(parent.map_or(own, |parent| p[parent] * own));
    }
    p
}

#[test]
fn the_probability_on_a_candidate_is_the_product_of_those_along_its_path() {
    let mut random = StdRng::seed_from_u64(2);
    for _ in 0..2_000 {
        let funnel = funnel(&mut random);
        let mut p = agreeing(&funnel, &mut random);
        if funnel.entry() != Entry::Impression {
            view(&mut random).apply(&mut p, funnel.tasks().len());
        }
        let value = |text: &str| Expression::parse(text, &funnel).unwrap().value(&p).unwrap();
        for task in 0..funnel.tasks().len() {
            let mut product = format!("1 * p.t{task}");
            let mut step = task;
            loop {
                let before = match (funnel.tasks()[step].parent, funnel.entry()) {
                    (Some(parent), _) => parent,
                    (None, Entry::View { .. }) if step > 0 => 0,
                    _ => break,
                };
                product += &format!("|t{before} * p.t{before}");
                step = before;
            }
            let (whole, product) = (value(&format!("p.t{task}")), value(&product));
            assert!((whole - product).abs() <= 1e-5 * whole, "{funnel:?} {p:?} {task}");
        }
    }
}

const SCORE: &str = "p.view + 5 * p.cart + 20 * p.purchase";
const FACTORED: &str = "p.view * (1 + 5 * p.cart|view + 20 * p.purchase | view)";

/// Tasks of a model on a view must not drown the view: a sum of probabilities on the candidate is the view times what it is worth.
#[test]
fn a_sum_of_probabilities_has_the_order_of_what_a_view_is_worth() {
    let config = Config::build(&toy("independent"), &[]).unwrap();
    let mut random = StdRng::seed_from_u64(3);
    for _ in 0..2_000 {
        let mut p = agreeing(&config.funnel, &mut random);
        let [view, cart, purchase] = [p[0], p[1], p[2]].map(f64::from);
        Joint { rate: Some(sampling_rate(4, 10_000)) }.apply(&mut p, 3);
        let odds = view / (1.0 - view) * 4.0 / 9999.0;
        let wanted = odds / (1.0 + odds) * (1.0 + 5.0 * cart + 20.0 * purchase);
        for text in [SCORE, FACTORED] {
            let value =
                f64::from(Expression::parse(text, &config.funnel).unwrap().value(&p).unwrap());
            assert!((value - wanted).abs() <= 1e-5 * wanted, "{text}: {value} {wanted}");
        }
    }
}

/// A shop of views whose model reads the item alone.
fn toy(heads: &str) -> String {
    format!(
        r#"
[funnel]
entry = "view"
negatives = 4
[[funnel.tasks]]
name = "view"
window = "0s"
[[funnel.tasks]]
name = "cart"
window = "1h"
prior = 0.2
[[funnel.tasks]]
name = "purchase"
parent = "cart"
window = "1h"
prior = 0.1
[features]
standard = ["item"]
[model.crossing]
name = "linear"
[model.sharing]
name = "none"
[model.funnel]
name = "{heads}"
[learn]
method = "bayes"
[learn.prior]
weights = 2.0
least = 0.0
[serve]
score = "{SCORE}"
"#
    )
}

const ITEMS: usize = 20;
const START: i64 = 1_650_000_000_000;

/// The share of an item in all views.
fn share(item: usize) -> f64 {
    let whole: f64 = (1..=ITEMS).map(|rank| 1.0 / rank as f64).sum();
    1.0 / (item + 1) as f64 / whole
}

/// How often a view of an item leads to its cart: items seldom viewed are often put there.
fn carted(item: usize) -> f64 {
    0.1 + 0.7 * item as f64 / ITEMS as f64
}

fn views(count: i64) -> Vec<Sent> {
    let mut random = StdRng::seed_from_u64(4);
    let (mut log, mut time) = (Vec::new(), START);
    for k in 0..count {
        let mut left = random.random_range(0.0..1.0);
        let item = (0..ITEMS).find(|&item| {
            left -= share(item);
            left < 0.0
        });
        let item = item.unwrap_or(ITEMS - 1);
        time += 10_000;
        let mut event = |kind: &str, of: Option<String>| {
            time += 1;
            let mut message = json!({"type": kind, "id": format!("{kind}{k}"), "ts": time,
                "user": format!("u{}", k % 200), "item": format!("i{item}")});
            if let Some(of) = of {
                message["impression"] = json!(of);
            }
            log.push(Sent::event(message));
        };
        event("view", None);
        if random.random_bool(carted(item)) {
            event("cart", Some(format!("view{k}")));
            if random.random_bool(0.5) {
                event("purchase", Some(format!("view{k}")));
            }
        }
    }
    log
}

fn serving(config: &Config, played: Played) -> Arc<Serving> {
    let Played { pipeline, trainer } = played;
    let snapshot = Snapshot {
        model: trainer.learner().model().clone(),
        towers: trainer.retriever().towers(),
        learned_until: trainer.covered(),
        version: 1,
        sound: true,
    };
    let embeddings = Arc::clone(trainer.learner().embeddings());
    let pipeline = Arc::new(RwLock::new(pipeline));
    let clock = Clock::manual(EventTime(PLAYED));
    let settings = config.serve.clone();
    Arc::new(Serving::new(pipeline, snapshot, embeddings, settings, "toy", clock))
}

/// Reads the probabilities and the score of each item of a message.
fn answered(output: &[u8]) -> BTreeMap<String, Value> {
    let answer: Value = serde_json::from_slice(output).unwrap();
    let items = answer["items"].as_array().unwrap().iter();
    items.map(|item| (item["item"].as_str().unwrap().to_owned(), item.clone())).collect()
}

#[test]
fn what_is_served_of_a_view_is_its_probability_among_all_items() {
    let log = views(8_000);
    for heads in ["independent", "esmm"] {
        let config = Config::build(&toy(heads), &[]).unwrap();
        let serving = serving(&config, Played::new(&toy(heads), 1, &log));
        let mut scorer = Scorer::new(serving);
        let names: Vec<String> = (0..ITEMS).map(|item| format!("i{item}")).collect();
        let message = json!({"id": "q", "kind": "rank", "user": "u1", "items": names, "k": ITEMS});
        scorer.answer(&request(&message), EventTime(PLAYED), Duration::ZERO).unwrap();
        let ranked = answered(scorer.output());
        let p = |item: usize, task: &str| ranked[&names[item]]["p"][task].as_f64().unwrap();

        let sum: f64 = (0..ITEMS).map(|item| p(item, "view")).sum();
        assert!((0.8..1.2).contains(&sum), "{heads}: {sum}");
        for item in 0..ITEMS {
            let (view, cart) = (p(item, "view"), p(item, "cart"));
            assert!((0.6..1.6).contains(&(view / share(item))), "{heads} {item}: {view}");
            let on_view = cart / view;
            assert!((on_view - carted(item)).abs() < 0.15, "{heads} {item}: {on_view}");
            let on_cart = p(item, "purchase") / cart;
            assert!((on_cart - 0.5).abs() < 0.2, "{heads} {item}: {on_cart}");
            let score = ranked[&names[item]]["score"].as_f64().unwrap();
            let wanted = view + 5.0 * cart + 20.0 * p(item, "purchase");
            assert!((score - wanted).abs() < 1e-5 * wanted, "{heads} {item}: {score} {wanted}");
        }

        // A refreshed top list says the same of the same items.
        scorer.top_list("u999", EventTime(PLAYED), 5).unwrap();
        let listed = answered(scorer.output());
        assert_eq!(listed.len(), 5);
        for (name, item) in &listed {
            assert_eq!((&item["p"], &item["score"]), (&ranked[name]["p"], &ranked[name]["score"]));
        }
    }
}
