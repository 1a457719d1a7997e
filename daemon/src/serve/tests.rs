//! Answers of the small shop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_features::assemble::FieldValues;
use sluice_features::attributes::{AttributeKey, Attributes, Value as Attribute};
use sluice_features::candidates::Candidates;
use sluice_features::ids::{ItemId, UserId, stable_hash};
use sluice_features::time::EventTime;
use sluice_models::model::{Scoring, Workspace};
use sluice_models::retrieval::Index;

use super::gather::{add, start};
use super::{Asker, Code, ItemIndex, Scorer, append};
use crate::config::Expression;
use crate::testing::shop::{AFTER, CATEGORIES, CLICK, ITEMS, START, Shop, name, request};

/// Asks and returns the answer as JSON.
fn ask(scorer: &mut Scorer, message: &Value) -> Value {
    scorer.answer(&request(message), AFTER, Duration::ZERO).unwrap();
    serde_json::from_slice(scorer.output()).unwrap()
}

fn names(answer: &Value) -> Vec<String> {
    let items = answer["items"].as_array().unwrap();
    items.iter().map(|item| item["item"].as_str().unwrap().to_owned()).collect()
}

fn category(name: &str) -> usize {
    name[1..].parse::<usize>().unwrap() % CATEGORIES
}

/// Gives the shop an index over all its items, as the publisher makes it.
fn index(shop: &Shop) {
    let towers = shop.retriever.towers();
    let pipeline = shop.serving.pipeline.read();
    let (mut batch, context) = (pipeline.assembler().batch(), Attributes::default());
    let asker = Asker { user: UserId(0), time: EventTime::MAX, surface: None, context: &context };
    let ids: Vec<ItemId> = (0..ITEMS).map(|item| ItemId::of(&name(item))).collect();
    for &id in &ids {
        append(&pipeline, &asker, id, &mut FieldValues::default(), &mut batch);
    }
    let mut vectors = Vec::new();
    towers.items(&batch, &mut towers.work(), &mut vectors);
    let mut index = Index::new(towers.width());
    for (id, vector) in ids.iter().zip(vectors.chunks_exact(towers.width())) {
        index.upsert(id.0, vector).unwrap();
    }
    drop(pipeline);
    *shop.serving.index.write() = Some(ItemIndex { towers, index });
}

#[test]
fn a_rank_gives_all_items_sorted_and_marks_those_never_heard_of() {
    let shop = Shop::open();
    let mut scorer = Scorer::new(shop.serving.clone());
    let items: Vec<String> =
        (0..10).map(name).chain(["never".to_owned(), "zzz".to_owned()]).collect();
    let message = json!({"id": "q", "kind": "rank", "user": "u3", "items": items, "k": 50});
    let answer = ask(&mut scorer, &message);
    assert_eq!(
        names(&answer).into_iter().collect::<BTreeSet<_>>(),
        items.iter().cloned().collect::<BTreeSet<_>>()
    );
    let rows = answer["items"].as_array().unwrap();
    let scores: Vec<f64> = rows.iter().map(|row| row["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    for row in rows {
        let unknown = ["never", "zzz"].contains(&row["item"].as_str().unwrap());
        assert_eq!(row["new"] == json!(true), unknown, "{row}");
        let p = |task: &str| row["p"][task].as_f64().unwrap();
        let expected = p("click") + 20.0 * p("purchase");
        assert!((row["score"].as_f64().unwrap() - expected).abs() < 1e-5 * expected, "{row}");
    }
    // The two that are unknown are alike: the smaller name comes first.
    let place = |name: &str| names(&answer).iter().position(|n| n == name);
    assert!(place("never") < place("zzz"));
    assert_eq!((&answer["id"], &answer["unknown_user"]), (&json!("q"), &Value::Null));
    assert_eq!(answer["model"], json!(format!("default/{}", shop.learner.steps())));
    assert!(answer["learned_until"].as_i64().unwrap() > START);
}

#[test]
fn an_answer_is_cut_to_its_limit_and_an_unknown_user_is_marked() {
    let shop = Shop::open();
    let mut scorer = Scorer::new(shop.serving.clone());
    let items: Vec<String> = (0..10).map(name).collect();
    let all = json!({"id": "a", "kind": "rank", "user": "nobody", "items": items, "k": 10});
    let best = json!({"id": "b", "kind": "rank", "user": "nobody", "items": items, "k": 3});
    let (all, best) = (ask(&mut scorer, &all), ask(&mut scorer, &best));
    assert_eq!(names(&best), names(&all)[..3]);
    assert_eq!(best["unknown_user"], json!(true));
    let excluded = json!({"id": "c", "kind": "rank", "user": "u1", "items": items,
        "exclude": ["i02"], "filter": {"category": ["c2", "c3"]}});
    let answer = ask(&mut scorer, &excluded);
    let expected = ["i03", "i06", "i07"].map(String::from);
    assert_eq!(names(&answer).into_iter().collect::<BTreeSet<_>>(), expected.into());
}

#[test]
fn the_rows_of_a_request_are_those_of_an_impression_at_its_time() {
    let mut shop = Shop::open();
    let (user, item, time) = (3, 7, AFTER.0);
    let message = json!({"id": "q", "kind": "rank", "user": "u3", "items": [name(item)],
        "surface": "home", "context": {"device": "android"}});
    let asked = request(&message);
    let asker = Asker {
        user: UserId::of("u3"),
        time: EventTime(time),
        surface: asked.surface.as_ref().map(|text| stable_hash(text.as_bytes())),
        context: &asked.context,
    };
    let serving = shop.serving.clone();
    let mut served = serving.pipeline.read().assembler().batch();
    let mut examples = Candidates::new(&serving.rules.schema);
    start(&serving.pipeline.read(), &asker, &mut examples);
    add(&serving.pipeline.read(), &asker, ItemId::of(&name(item)), &mut examples);
    examples.expand(&serving.rules.schema, &mut served);
    let (mut batch, mut values) =
        (serving.pipeline.read().assembler().batch(), FieldValues::default());
    append(&serving.pipeline.read(), &asker, ItemId::of(&name(item)), &mut values, &mut batch);
    assert_eq!(batch, served);
    shop.impression("parity", user, item, time, json!({"device": "android"}));
    shop.serving.pipeline.write().finish();
    let work = shop.serving.pipeline.write().next_batch().unwrap();
    let learned = &work.batch;
    assert_eq!(learned.about[0].time, EventTime(time));
    let width = served.keys.len();
    assert_eq!(served.keys, learned.keys[..width]);
    let bits = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&served.numbers), bits(&learned.numbers[..served.numbers.len()]));
    for (mine, theirs) in served.histories.iter().zip(&learned.histories) {
        assert!(!mine.items.is_empty());
        assert_eq!(mine.items, theirs.items[..mine.items.len()]);
        assert_eq!(mine.categories, theirs.categories[..mine.items.len()]);
        assert_eq!(mine.gaps, theirs.gaps[..mine.items.len()]);
    }
    let snapshot = shop.serving.snapshot.load_full();
    let tasks = snapshot.model.tasks();
    let (mut one, mut two) = (vec![0.0; tasks], vec![0.0; learned.size() * tasks]);
    let mut workspace = Workspace::default();
    let rows = &serving.embeddings;
    snapshot.model.score_candidates(rows, &examples, &mut Scoring::default(), &mut one);
    snapshot.model.score(&serving.embeddings, learned, &mut workspace, &mut two);
    for (one, two) in one.iter().zip(&two) {
        assert!((one - two).abs() < 1e-6);
    }
}

#[test]
fn a_recommendation_keeps_to_exclusion_category_availability_and_what_was_seen() {
    let mut shop = Shop::open();
    // i08 and i12 are gone, and so are all that say no in words or nothing that is clear.
    shop.item(8, AFTER.0 - 5_000, json!({"available": false}));
    let unclear =
        [json!("false"), json!("No"), json!("0"), json!(0), json!([false]), json!("out_of_stock")];
    for (item, available) in (20..).zip(unclear) {
        shop.item(item, AFTER.0 - 5_000, json!({ "available": available }));
    }
    shop.remove(12, AFTER.0 - 5_000);
    for user in 0..2 {
        let id = format!("seen{user}");
        shop.impression(&id, user, 16, AFTER.0 - 4_000, json!({}));
        shop.behaviour("click", &id, user, 16, AFTER.0 - 3_000);
    }
    let mut scorer = Scorer::new(shop.serving.clone());
    for with_index in [false, true] {
        if with_index {
            index(&shop);
        }
        let plain = json!({"id": "q", "kind": "recommend", "user": "u0", "k": 40});
        let found = names(&ask(&mut scorer, &plain));
        assert!(found.len() > 20, "{found:?}");
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "each once");
        for gone in ["i08", "i12", "i16", "i20", "i21", "i22", "i23", "i24", "i25"] {
            assert!(!found.contains(&gone.to_owned()), "{gone} in {found:?}");
        }
        let again = json!({"id": "q", "kind": "recommend", "user": "u0", "k": 40,
            "filter": {"seen": true, "category": "c0"}, "exclude": ["i04"]});
        let again = names(&ask(&mut scorer, &again));
        assert!(again.contains(&"i16".to_owned()), "{again:?}");
        assert!(!again.contains(&"i04".to_owned()));
        assert!(again.iter().all(|name| category(name) == 0), "{again:?}");
    }
    let stranger = json!({"id": "q", "kind": "recommend", "user": "stranger", "k": 5});
    let stranger = ask(&mut scorer, &stranger);
    assert_eq!((names(&stranger).len(), &stranger["unknown_user"]), (5, &json!(true)));
}

#[test]
fn a_mistyped_item_is_no_candidate_for_anybody() {
    let mut shop = Shop::open();
    for (i, user) in (0..8).enumerate() {
        let id = format!("typo{i}");
        shop.impression(&id, user, 7_777, AFTER.0 - 4_000, json!({}));
        shop.behaviour("click", &id, user, 7_777, AFTER.0 - 3_000);
    }
    index(&shop);
    let mut scorer = Scorer::new(shop.serving.clone());
    for message in [
        json!({"id": "q", "kind": "recommend", "user": "u11", "k": 40}),
        json!({"id": "q", "kind": "similar", "items": ["never"], "k": 40}),
        json!({"id": "q", "kind": "similar", "items": ["i05"], "k": 40}),
    ] {
        let found = names(&ask(&mut scorer, &message));
        assert!(!found.is_empty() && !found.contains(&name(7_777)), "{found:?}");
    }
}

#[test]
fn a_user_is_recommended_what_the_index_holds_nearest() {
    let shop = Shop::open();
    index(&shop);
    let mut scorer = Scorer::new(shop.serving.clone());
    // Nothing is popular or new by name here: the ranking is not refreshed, the index alone knows all items.
    let message = json!({"id": "q", "kind": "recommend", "user": "u9", "k": ITEMS});
    assert_eq!(names(&ask(&mut scorer, &message)).len(), ITEMS);
}

#[test]
fn similar_items_are_the_nearest_vectors_and_an_unknown_item_gets_what_is_popular() {
    let shop = Shop::open();
    index(&shop);
    let mut scorer = Scorer::new(shop.serving.clone());
    let message = json!({"id": "q", "kind": "similar", "items": ["i05"], "k": 6});
    let answer = ask(&mut scorer, &message);
    let guard = shop.serving.index.read();
    let index = &guard.as_ref().unwrap().index;
    let query = index.vector(ItemId::of("i05").0).unwrap();
    let mut products: Vec<(f32, String)> = (0..ITEMS)
        .filter(|item| *item != 5)
        .map(|item| {
            let vector = index.vector(ItemId::of(&name(item)).0).unwrap();
            (vector.iter().zip(query).map(|(a, b)| a * b).sum::<f32>(), name(item))
        })
        .collect();
    products.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let scores = |answer: &Value| -> Vec<f64> {
        let rows = answer["items"].as_array().unwrap().iter();
        rows.map(|row| row["score"].as_f64().unwrap()).collect()
    };
    for (score, (product, _)) in scores(&answer).iter().zip(&products) {
        assert!((score - f64::from(*product)).abs() < 1e-5, "{answer} {products:?}");
    }
    assert_eq!((names(&answer).len(), &answer["items"][0]["p"]), (6, &Value::Null));

    let message = json!({"id": "q", "kind": "similar", "items": ["never"], "k": 6});
    let answer = ask(&mut scorer, &message);
    assert_eq!((names(&answer).len(), &answer["unknown_item"]), (6, &json!(true)));
    assert!(scores(&answer).is_sorted_by(|a, b| a > b));
}

#[test]
fn a_deadline_that_has_passed_is_said_and_not_computed() {
    let shop = Shop::open();
    let mut scorer = Scorer::new(shop.serving.clone());
    let items: Vec<String> = (0..10).map(name).collect();
    let message =
        json!({"id": "q", "kind": "rank", "user": "u3", "items": items, "deadline_ms": 50});
    let asked = request(&message);
    let arrived = shop.clock.steady();
    assert_eq!(scorer.answer(&asked, AFTER, arrived), Ok(()));
    let old = EventTime(AFTER.0 - 50);
    let error = scorer.answer(&asked, old, arrived).unwrap_err();
    assert_eq!(error.code, Code::Deadline, "it has lain in Kafka");
    shop.clock.turn(Duration::from_millis(50));
    let error = scorer.answer(&asked, shop.clock.wall(), arrived).unwrap_err();
    assert_eq!(error.code, Code::Deadline, "it has waited here");
    scorer.refuse(Some(&asked.id), &error);
    let answer: Value = serde_json::from_slice(scorer.output()).unwrap();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("q"), &json!("deadline")));
}

#[test]
fn too_many_candidates_are_refused() {
    let shop = Shop::open();
    let mut scorer = Scorer::new(shop.serving.clone());
    let items: Vec<String> = (0..31).map(name).collect();
    let message = json!({"id": "q", "kind": "rank", "user": "u3", "items": items});
    let error = scorer.answer(&request(&message), AFTER, Duration::ZERO).unwrap_err();
    assert_eq!(error.code.name(), "too-many");
    assert!(error.message.contains("at most 30"), "{}", error.message);
}

#[test]
fn numbers_that_are_not_finite_never_leave() {
    let mut shop = Shop::open();
    shop.learner.model_mut().params_mut().values_mut().fill(f32::NAN);
    shop.snapshot(true, None);
    let mut scorer = Scorer::new(shop.serving.clone());
    let message = json!({"id": "q", "kind": "rank", "user": "u3", "items": ["i01"]});
    let error = scorer.answer(&request(&message), AFTER, Duration::ZERO).unwrap_err();
    assert_eq!(error.code, Code::NotFinite);
}

#[test]
fn a_candidate_without_a_finite_score_stands_last_and_is_counted() {
    let mut shop = Shop::open();
    let items: Vec<String> = (0..10).map(name).collect();
    let message = json!({"id": "q", "kind": "rank", "user": "u3", "items": items, "k": 10});
    let best = {
        let mut scorer = Scorer::new(shop.serving.clone());
        let answer = ask(&mut scorer, &message);
        assert_eq!(scorer.without_score(), 0);
        answer["items"][0].clone()
    };
    // Of this item it divides by 0, of no other one.
    let p = best["p"]["click"].as_f64().unwrap() as f32;
    let text = format!("p.click / ((p.click - {p}) * (p.click - {p}))");
    let score = Expression::parse(&text, &shop.serving.rules.funnel).unwrap();
    Arc::get_mut(&mut shop.serving).unwrap().settings.score = score;
    let mut scorer = Scorer::new(shop.serving.clone());
    let answer = ask(&mut scorer, &message);
    assert_eq!(scorer.without_score(), 1);
    let rows = answer["items"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[9]["item"]), (10, &best["item"]));
    let scores: Vec<f64> = rows.iter().map(|row| row["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores[9] < -3e38, "{scores:?}");

    // An answer in which nothing has a score has no order.
    let alone = json!({"id": "q", "kind": "rank", "user": "u3", "items": [best["item"]]});
    let error = scorer.answer(&request(&alone), AFTER, Duration::ZERO).unwrap_err();
    assert_eq!(error.code, Code::NotFinite);
    assert!(error.message.starts_with("serve.score is finite for no candidate"), "{error:?}");
    // What is refused before has none either.
    let late =
        json!({"id": "q", "kind": "rank", "user": "u3", "items": [best["item"]], "deadline_ms": 1});
    scorer.answer(&request(&late), EventTime(START), Duration::ZERO).unwrap_err();
    assert_eq!(scorer.without_score(), 0);
}

#[test]
fn a_time_in_the_request_is_the_time_of_its_features() {
    let shop = Shop::open();
    let mut past = Attributes::default();
    past.insert(AttributeKey::of("device"), Attribute::text("ios"));
    let asker =
        Asker { user: UserId::of("u0"), time: EventTime(START), surface: None, context: &past };
    let pipeline = shop.serving.pipeline.read();
    let mut batch = pipeline.assembler().batch();
    append(&pipeline, &asker, ItemId::of("i00"), &mut FieldValues::default(), &mut batch);
    assert!(batch.histories.iter().all(|history| history.items.is_empty()), "nothing had happened");
    assert!(pipeline.rules().schema.read[usize::from(CLICK.0)]);
}
