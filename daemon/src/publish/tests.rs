//! The publisher over the small shop, without Kafka.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::metrics::LabelSets;
use crate::testing::shop::{AFTER, EXPIRY, ITEMS, START, Shop, USERS, name};

const LISTS: config::Scores =
    config::Scores { budget: 1.0, k: 5, interval: Duration::from_secs(10) };

type Message = (Output, String, Option<Value>);

/// Keeps what is sent.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Message>>>);

impl Outlet for Kept {
    fn send(
        &mut self,
        output: Output,
        key: &str,
        value: Option<&[u8]>,
        _shutdown: &Shutdown,
    ) -> Result<bool, Stop> {
        let value = value.map(|bytes| serde_json::from_slice(bytes).unwrap());
        self.0.lock().push((output, key.to_owned(), value));
        Ok(true)
    }

    fn finish(&mut self) {}
}

impl Kept {
    /// Returns and forgets what was sent to a topic, by key.
    fn take(&self, output: Output) -> BTreeMap<String, Option<Value>> {
        let mut kept = self.0.lock();
        let (mine, rest): (Vec<_>, Vec<_>) = kept.drain(..).partition(|sent| sent.0 == output);
        *kept = rest;
        let count = mine.len();
        let mine: BTreeMap<_, _> = mine.into_iter().map(|(_, key, value)| (key, value)).collect();
        assert_eq!(mine.len(), count, "each key once in a round");
        mine
    }
}

struct Stand {
    shop: Shop,
    publisher: Publisher<Kept>,
    kept: Kept,
    touched: Arc<Mutex<Touched>>,
    readiness: Arc<Readiness>,
    shutdown: Shutdown,
}

fn stand(refresh: u64) -> Stand {
    stand_of(Shop::open(), refresh)
}

fn stand_of(shop: Shop, refresh: u64) -> Stand {
    let (kept, touched) = (Kept::default(), Arc::new(Mutex::new(Touched::default())));
    let words = |word: &str| vec![word.to_owned()];
    let metrics = Metrics::new(&LabelSets {
        topics: words("events"),
        types: words("impression"),
        reasons: words("invalid-json"),
        tasks: words("click"),
        kinds: words("rank"),
        outcomes: words("answered"),
        outputs: words("scores"),
        causes: words("no-right"),
        ..LabelSets::default()
    });
    let (drained, readiness) = (Arc::clone(&touched), Arc::new(Readiness::default()));
    let publisher = Publisher::new(
        Arc::clone(&shop.serving),
        Arc::new(metrics),
        Arc::clone(&readiness),
        kept.clone(),
        Box::new(move || std::mem::take(&mut *drained.lock())),
        Settings { interval: Duration::from_millis(1), refresh, lists: LISTS },
    );
    Stand { shop, publisher, kept, touched, readiness, shutdown: Shutdown::new() }
}

impl Stand {
    fn round(&mut self) -> BTreeMap<String, Option<Value>> {
        self.publisher.round(&self.shutdown).unwrap();
        self.kept.take(Output::Embeddings)
    }

    fn indexed(&self, item: usize) -> Option<Vec<f32>> {
        let guard = self.shop.serving.index.read();
        let index = &guard.as_ref().unwrap().index;
        index.vector(ItemId::of(&name(item)).0).map(<[f32]>::to_vec)
    }
}

fn vector(message: &Option<Value>) -> Vec<f32> {
    let numbers = message.as_ref().unwrap()["vector"].as_array().unwrap();
    numbers.iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

#[test]
fn the_first_round_indexes_and_publishes_everything_once() {
    let mut stand = stand(1_000);
    let sent = stand.round();
    let items = sent.keys().filter(|key| key.starts_with("item:")).count();
    let users = sent.keys().filter(|key| key.starts_with("user:")).count();
    assert_eq!((items, users), (ITEMS, USERS));
    let one = &sent["item:i07"];
    assert_eq!(vector(one), stand.indexed(7).unwrap());
    assert_eq!(one.as_ref().unwrap()["id"], json!("i07"));
    let version = stand.shop.retriever.towers().version();
    assert_eq!(one.as_ref().unwrap()["version"], json!(version));
    assert!(one.as_ref().unwrap()["ts"].as_i64().unwrap() > START);
    assert_eq!(stand.round(), BTreeMap::new(), "nothing has changed since");
}

#[test]
fn what_is_touched_is_published_once_and_new_items_are_found() {
    let mut stand = stand(1_000);
    stand.round();
    *stand.touched.lock() = Touched {
        items: vec![ItemId::of("i03")],
        users: vec![UserId::of("u2")],
        ..Touched::default()
    };
    stand.shop.item(3, AFTER.0, json!({"price": 9}));
    stand.shop.item(ITEMS + 2, AFTER.0, json!({}));
    stand.shop.impression("late", 2, 4, AFTER.0 + 1, json!({}));
    let sent: BTreeSet<String> = stand.round().into_keys().collect();
    assert_eq!(sent, ["item:i03", "item:i42", "user:u2"].map(String::from).into());
    assert!(stand.indexed(ITEMS + 2).is_some());
    stand.touched.lock().all_users = true;
    assert_eq!(stand.round().len(), USERS);
}

#[test]
fn what_is_gone_leaves_the_index_with_a_tombstone_and_what_is_sold_out_without() {
    let mut stand = stand(1_000);
    stand.round();
    stand.shop.remove(5, AFTER.0);
    stand.shop.item(6, AFTER.0, json!({"available": false}));
    let sent = stand.round();
    assert_eq!((sent.len(), &sent["item:i05"]), (2, &None));
    assert!(sent["item:i06"].is_some());
    assert!(stand.indexed(5).is_none() && stand.indexed(6).is_none());
    stand.shop.item(6, AFTER.0 + 1, json!({"available": true}));
    stand.round();
    assert!(stand.indexed(6).is_some());
}

#[test]
fn a_vector_whose_row_has_expired_is_taken_back_until_it_is_learned_again() {
    let mut stand = stand(1);
    stand.round();
    // Enough clicks of a user on an item for a step of the retrieval model, then a look through its rows.
    let learn = |stand: &mut Stand, user: usize, item: usize, begun: i64| {
        for i in 0..32 {
            let (id, time) = (format!("{begun}-{i}"), begun + i * 100);
            stand.shop.impression(&id, user, item, time, json!({}));
            stand.shop.behaviour("click", &id, user, item, time);
        }
        stand.shop.settle(begun + 100_000);
        for _ in 0..sluice_models::table::RowStore::SHARDS {
            stand.shop.retriever.sweep(EventTime(begun));
        }
        *stand.touched.lock() = stand.shop.retriever.touched();
        stand.round()
    };
    // What was positive before and waits for a step is learned with what comes after it.
    learn(&mut stand, 1, 3, START + EXPIRY.0 / 2);
    let later = START + 3 * EXPIRY.0;
    let sent = learn(&mut stand, 1, 3, later);
    assert!(sent["item:i03"].is_some() && sent["user:u1"].is_some());
    assert!(sent["item:i02"].is_none() && sent["user:u2"].is_none());
    assert!(stand.indexed(2).is_some(), "it can be recommended all the same");
    let sent = learn(&mut stand, 1, 3, later + 1_000_000);
    assert!(sent["item:i03"].is_some() && !sent.contains_key("item:i02"), "said once");
    let sent = learn(&mut stand, 2, 2, later + 2_000_000);
    assert!(sent["item:i02"].is_some() && sent["user:u2"].is_some());
}

#[test]
fn towers_stay_frozen_until_the_refresh_and_change_as_one_version() {
    let mut stand = stand(5);
    stand.round();
    let version = |stand: &Stand| {
        let guard = stand.shop.serving.index.read();
        guard.as_ref().unwrap().towers.version()
    };
    let before = version(&stand);
    let mut rounds = 0;
    while stand.shop.retriever.stats().steps < before + 5 {
        assert_eq!((stand.round().len(), version(&stand)), (0, before), "frozen");
        rounds += 1;
        let begun = AFTER.0 + rounds * 1_000_000;
        for i in 0..64i64 {
            let id = format!("more{rounds}-{i}");
            let (user, item) = (i as usize % USERS, i as usize % ITEMS);
            let time = begun + i * 100;
            stand.shop.impression(&id, user, item, time, json!({}));
            stand.shop.behaviour("click", &id, user, item, time);
        }
        stand.shop.settle(begun + 100_000);
        stand.shop.serving.pipeline.write().take_changed();
    }
    let sent = stand.round();
    assert_eq!(sent.len(), ITEMS, "all items anew");
    assert_eq!(version(&stand), stand.shop.retriever.towers().version());
    assert_eq!(vector(&sent["item:i09"]), stand.indexed(9).unwrap());
}

#[test]
fn nothing_is_published_while_the_guard_is_not_sound_and_all_of_it_afterwards() {
    let mut stand = stand(1_000);
    stand.shop.snapshot(false, None);
    assert_eq!(stand.round().len(), 0);
    assert!(stand.indexed(1).is_some(), "answers have their index");
    stand.shop.item(1, AFTER.0, json!({}));
    assert_eq!(stand.round().len(), 0);
    stand.shop.snapshot(true, None);
    let sent = stand.round();
    assert!(sent.contains_key("item:i01") && sent.contains_key("user:u3"), "{sent:?}");
}

#[test]
fn users_with_new_behaviour_get_a_list_an_interval_within_the_budget() {
    let mut stand = stand(1_000);
    stand.round();
    assert!(stand.kept.take(Output::Scores).is_empty(), "the budget has earned nothing yet");
    stand.shop.clock.turn(Duration::from_secs(1));
    stand.round();
    let lists = stand.kept.take(Output::Scores);
    assert_eq!(lists.len(), USERS, "who was put off comes later");
    let list = lists["u1"].as_ref().unwrap();
    assert_eq!((&list["user"], list["items"].as_array().unwrap().len()), (&json!("u1"), 5));
    assert!(list["items"][0]["p"]["click"].as_f64().unwrap() > 0.0);

    let behave = |stand: &mut Stand, id: &str| {
        stand.shop.impression(id, 3, 7, AFTER.0, json!({}));
        stand.shop.behaviour("click", id, 3, 7, AFTER.0);
    };
    behave(&mut stand, "b1");
    stand.shop.clock.turn(Duration::from_secs(5));
    stand.round();
    assert!(stand.kept.take(Output::Scores).is_empty(), "one list in ten seconds");
    stand.shop.clock.turn(Duration::from_secs(5));
    stand.round();
    let lists = stand.kept.take(Output::Scores);
    assert_eq!(lists.keys().collect::<Vec<_>>(), ["u3"]);
    let items = lists["u3"].as_ref().unwrap()["items"].to_string();
    assert!(!items.contains("i07"), "the newest behaviour is known: {items}");
}

#[test]
fn refreshes_come_at_powers_of_two_until_the_interval_takes_over() {
    let all = |interval: u64, count: usize| -> Vec<u64> {
        let next = |version: &u64| Some(next_refresh(*version, interval));
        std::iter::successors(Some(0), next).skip(1).take(count).collect()
    };
    assert_eq!(all(100, 6), [16, 32, 64, 128, 228, 328]);
    assert_eq!(all(5, 4), [5, 10, 15, 20]);
    // A round sees steps when it comes; the marks stay where they are.
    assert_eq!([15, 16, 19, 33, 1999].map(|v| next_refresh(v, 2000)), [16, 32, 32, 64, 2048]);
    assert_eq!(next_refresh(u64::MAX - 1, 7), u64::MAX);
}

#[test]
fn the_daemon_waits_until_everything_that_the_catalogue_has_named_is_in_the_index() {
    let mut stand = stand(1_000);
    let waits = |stand: &Stand| stand.readiness.waits_for(Wait::Index);
    stand.readiness.wait_for(Wait::Catalogue, "items are being read");
    stand.round();
    assert!(waits(&stand), "more items may come");
    stand.shop.item(ITEMS + 1, AFTER.0, json!({}));
    stand.readiness.clear(Wait::Catalogue);
    assert!(waits(&stand));
    stand.round();
    assert!(!waits(&stand) && stand.indexed(ITEMS + 1).is_some());
    // A reason that was taken down stays down, whatever comes later.
    stand.shop.item(ITEMS + 2, AFTER.0, json!({}));
    stand.round();
    assert!(!waits(&stand));
}

#[test]
fn a_daemon_without_items_does_not_wait_for_its_index() {
    let mut stand = stand_of(Shop::empty(), 1_000);
    assert!(stand.readiness.waits_for(Wait::Index));
    assert_eq!(stand.round().len(), 0);
    assert!(!stand.readiness.waits_for(Wait::Index));
    assert!(stand.shop.serving.index.read().is_none());
    stand.shop.item(1, AFTER.0, json!({}));
    stand.round();
    assert!(stand.indexed(1).is_some());
}

#[test]
fn a_guard_that_is_not_sound_does_not_hold_up_the_first_index() {
    let mut stand = stand(1_000);
    stand.shop.snapshot(false, None);
    stand.round();
    assert!(!stand.readiness.waits_for(Wait::Index));
}

#[test]
fn a_name_that_the_catalogue_does_not_know_is_neither_indexed_nor_published() {
    let mut stand = stand(1_000);
    stand.round();
    stand.shop.impression("typo", 2, 7_777, AFTER.0, json!({}));
    stand.shop.behaviour("click", "typo", 2, 7_777, AFTER.0 + 1);
    let unknown = format!("item:{}", name(7_777));
    let sent = stand.round();
    assert!(sent.get(&unknown).is_none_or(Option::is_none), "{sent:?}");
    assert!(stand.indexed(7_777).is_none());
    stand.shop.item(7_777, AFTER.0 + 2, json!({}));
    let sent = stand.round();
    assert!(sent[&unknown].is_some() && stand.indexed(7_777).is_some(), "it was named too early");
}

#[test]
fn ids_from_both_sides_are_merged() {
    assert_eq!(merged(vec![3, 1, 2], vec![2, 5, 1]), [1, 2, 3, 5]);
}
