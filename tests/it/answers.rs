//! Questions over a real Kafka: answers, error answers, and what is published unasked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use sluice_daemon::kafka::{Header, Outgoing, OwnedRecord, Producer, Reader, Start};

use crate::Test;
use crate::expect_eq;
use crate::harness::process::Finished;
use crate::harness::real_kafka::shared;
use crate::harness::records::producer;
use crate::harness::shop::{self, SMALL};
use crate::harness::site::{Daemon, Site};
use crate::harness::{Outcome, PATIENCE, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("questions_are_answered_and_wrong_ones_refused_with_a_code", questions),
    ("the_tool_asks_and_prints", the_tool_asks_and_prints),
    ("a_flood_of_requests_waits_in_kafka_and_not_in_memory", a_flood_of_requests),
    ("restarts_leave_no_request_unanswered", restarts),
];

/// A daemon that has learned a small shop, and a user and items of it.
struct Shop {
    site: Site,
    daemon: Daemon,
    user: String,
    items: Vec<String>,
}

impl Shop {
    fn open(prefix: &str) -> anyhow::Result<Self> {
        let site = Site::new(&*shared()?, prefix, SMALL)?
            .with("PUBLISH__INTERVAL", "100ms")
            .with("SCORES__INTERVAL", "100ms");
        site.make_topics(2)?;
        let file = site.path("shop.jsonl");
        let lines = shop::simulate(&file, 6_000)?;
        site.produce(&file)?;
        let daemon = site.start(&[])?;
        daemon.wait_taken(lines.events)?;
        daemon.wait(|status| status["learned_until"].is_i64())?;
        daemon.wait_ready(None)?;
        let text = std::fs::read_to_string(&file)?;
        let impressions = text.lines().filter(|line| line.contains("\"type\":\"impression\""));
        let shown: Vec<Value> = impressions.map(serde_json::from_str).collect::<Result<_, _>>()?;
        let last = shown.last().context("no impression")?;
        let user = last["user"].as_str().context("user")?.to_owned();
        let mut items: Vec<String> =
            shown.iter().filter_map(|shown| Some(shown["item"].as_str()?.to_owned())).collect();
        items.sort();
        items.dedup();
        Ok(Self { site, daemon, user, items })
    }
}

/// Sends requests and reads their answers.
struct Asker {
    producer: Producer,
    answers: Reader,
    requests: String,
}

impl Asker {
    fn open(site: &Site) -> anyhow::Result<Self> {
        let connection = site.connection().clone();
        let answers = Reader::open(&connection, &site.topic("responses"), Start::End, PATIENCE)?;
        Ok(Self { producer: producer(connection)?, answers, requests: site.topic("requests") })
    }

    fn ask(
        &mut self,
        value: &[u8],
        headers: &[Header<'_>],
    ) -> anyhow::Result<(Value, OwnedRecord)> {
        let (topic, value) = (self.requests.as_str(), Some(value));
        self.producer.send(&Outgoing { topic, key: Some(b"u"), value, headers }, PATIENCE)?;
        self.producer.flush(PATIENCE)?;
        let record = self.answers.next(PATIENCE)?.context("no answer")?;
        let answer = serde_json::from_slice(record.value.as_deref().context("a tombstone")?)?;
        Ok((answer, record))
    }

    fn ask_json(&mut self, question: &Value) -> anyhow::Result<Value> {
        let (answer, record) = self.ask(&serde_json::to_vec(question)?, &[])?;
        expect_eq!(answer["id"], question["id"]);
        expect_eq!(record.key.as_deref(), question["id"].as_str().map(str::as_bytes));
        Ok(answer)
    }
}

fn questions() -> Outcome {
    let shop = Shop::open("asked")?;
    let (user, items) = (shop.user.as_str(), &shop.items);
    let mut asker = Asker::open(&shop.site)?;

    let some = &items[..50.min(items.len())];
    let answer =
        asker.ask_json(&json!({"id": "r1", "kind": "rank", "user": user, "items": some}))?;
    expect_eq!(listed(&answer, "item")?.len(), some.len());
    expect_eq!(answer["unknown_user"], Value::Null);
    anyhow::ensure!(answer["learned_until"].as_i64() > Some(1_704_067_200_000), "{answer}");
    anyhow::ensure!(answer["model"].is_string() && answer["took_us"].is_u64(), "{answer}");
    let scores: Vec<f64> = listed(&answer, "score")?.iter().filter_map(Value::as_f64).collect();
    anyhow::ensure!(scores.len() == some.len() && scores.is_sorted_by(|a, b| a >= b), "{answer}");
    for p in listed(&answer, "p")? {
        for task in ["click", "cart", "purchase"] {
            let p = p[task].as_f64().with_context(|| format!("{task}: {answer}"))?;
            anyhow::ensure!((0.0..=1.0).contains(&p), "{answer}");
        }
    }

    // Nothing is known of them: an answer all the same, marked.
    let strange =
        json!({"id": "r2", "kind": "rank", "user": "nobody", "items": ["no-item", items[0]]});
    let answer = asker.ask_json(&strange)?;
    expect_eq!(answer["unknown_user"], json!(true));
    let by_item: BTreeMap<String, Value> = listed(&answer, "item")?
        .iter()
        .map(|item| item.as_str().unwrap_or_default().to_owned())
        .zip(listed(&answer, "new")?)
        .collect();
    expect_eq!(by_item["no-item"], json!(true));
    expect_eq!(by_item[&items[0]], Value::Null);

    let exclude = &items[..5];
    let best = json!({"id": "r3", "kind": "recommend", "user": user, "k": 10, "exclude": exclude});
    let answer = asker.ask_json(&best)?;
    let found = listed(&answer, "item")?;
    expect_eq!(found.len(), 10);
    anyhow::ensure!(found.iter().all(|item| !exclude.iter().any(|out| item == out)), "{answer}");
    let answer =
        asker.ask_json(&json!({"id": "r4", "kind": "recommend", "user": "nobody", "k": 10}))?;
    expect_eq!((listed(&answer, "item")?.len(), &answer["unknown_user"]), (10, &json!(true)));

    let near = json!({"id": "r5", "kind": "similar", "items": [items[0]], "k": 5});
    let answer = asker.ask_json(&near)?;
    expect_eq!(listed(&answer, "item")?.len(), 5);
    anyhow::ensure!(listed(&answer, "item")?.iter().all(|item| *item != items[0]), "{answer}");
    let answer = asker.ask_json(&json!({"id": "r6", "kind": "similar", "items": ["no-item"]}))?;
    expect_eq!(answer["unknown_item"], json!(true));

    let many: Vec<String> = (0..1001).map(|number| format!("i{number}")).collect();
    for (question, code) in [
        (json!({"id": "w1", "kind": "guess", "user": user}), "unknown-kind"),
        (json!({"id": "w2", "kind": "explain", "user": user}), "unsupported"),
        (json!({"id": "w3", "kind": "rank", "user": user}), "missing-field"),
        (json!({"id": "w4", "kind": "rank", "user": user, "items": many}), "too-many"),
        (
            json!({"id": "w5", "kind": "rank", "user": user, "items": some, "deadline_ms": 0}),
            "deadline",
        ),
        (json!({"id": "w6", "kind": "recommend", "user": user, "k": 0}), "number-out-of-range"),
    ] {
        let answer = asker.ask_json(&question)?;
        expect_eq!((&question["id"], &answer["error"]["code"]), (&question["id"], &json!(code)));
        anyhow::ensure!(answer["error"]["message"].as_str().is_some_and(|text| text.len() > 10));
        expect_eq!(answer["items"], Value::Null);
    }
    let headers: &[Header<'_>] = &[("correlation-id", &[1, 0, 255])];
    let (answer, record) = asker.ask(b"{\"id\":", headers)?;
    expect_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!("invalid-json")));
    expect_eq!(echoed(&record), Some(&[1, 0, 255][..]));
    let question = serde_json::to_vec(&near)?;
    expect_eq!(echoed(&asker.ask(&question, headers)?.1), Some(&[1, 0, 255][..]));
    let elsewhere: &[Header<'_>] = &[("reply-topic", b"asked.events")];
    let (answer, _) = asker.ask(&question, elsewhere)?;
    expect_eq!(answer["error"]["code"], json!("reply-topic-refused"));

    shop.daemon.stop()?;
    published(&shop.site)
}

/// Embeddings of items and users and refreshed top lists are in their topics, each under its key.
fn published(site: &Site) -> Outcome {
    let mut kinds = BTreeMap::new();
    for record in site.read("embeddings")? {
        let key = String::from_utf8(record.key.unwrap_or_default())?;
        let (kind, id) = key.split_once(':').context("a key without kind")?;
        if let Some(value) = record.value {
            let value: Value = serde_json::from_slice(&value)?;
            expect_eq!(value["id"], json!(id));
            expect_eq!(value["vector"].as_array().map(Vec::len), Some(8));
            *kinds.entry(kind.to_owned()).or_insert(0) += 1;
        }
    }
    anyhow::ensure!(kinds.contains_key("item") && kinds.contains_key("user"), "{kinds:?}");
    let lists = site.read("scores")?;
    anyhow::ensure!(!lists.is_empty(), "no top lists");
    for record in lists {
        let value: Value = serde_json::from_slice(&record.value.unwrap_or_default())?;
        expect_eq!(value["user"].as_str().map(str::as_bytes), record.key.as_deref());
        anyhow::ensure!(!listed(&value, "item")?.is_empty(), "{value}");
    }
    Ok(())
}

fn the_tool_asks_and_prints() -> Outcome {
    let shop = Shop::open("toolask")?;
    let query = |arguments: &[&str]| -> anyhow::Result<Finished> {
        shop.site.with_config("sluice", &[&["query"], arguments].concat())?.wait()
    };
    let items = shop.items[..3].join(",");
    let asked = ["rank", "--user", &shop.user, "--items", &items, "--json"];
    let told = query(&asked)?.succeeded()?.stdout;
    expect_eq!(listed(&serde_json::from_str(&told)?, "item")?.len(), 3);
    for arguments in [
        &["rank", "--user", &shop.user, "--items", &items][..],
        &["recommend", "--user", &shop.user, "--k", "3"],
        &["similar", "--items", &shop.items[0], "--k", "3"],
    ] {
        let told = query(arguments)?.succeeded()?.stdout;
        let named = shop
            .items
            .iter()
            .filter(|item| told.split_whitespace().any(|word| word == item.as_str()));
        anyhow::ensure!(named.count() >= 3, "{arguments:?}: {told}");
    }
    let refused = query(&["recommend", "--user", &shop.user, "--k", "100000"])?;
    expect_eq!(refused.code, Some(1));
    anyhow::ensure!(refused.stderr.contains("number-out-of-range"), "{}", refused.stderr);
    let metric = "sluice_serve_requests_total{kind=\"recommend\",outcome=\"answered\"} 1\n";
    wait_for(metric, || Ok(shop.daemon.get("/metrics")?.1.contains(metric).then_some(())))?;
    shop.daemon.stop()?;
    Ok(())
}

/// 870 MB of requests lie in Kafka when the daemon comes to itself: they come as fast as it can fetch, many times faster than it can answer.
fn a_flood_of_requests() -> Outcome {
    const REQUESTS: usize = 30_000;
    const MOST: u64 = 300 << 20;
    let site = Site::new(&*shared()?, "flood", SMALL)?;
    site.make_topics(1)?;
    let daemon = site.start(&[])?;
    daemon.wait_ready(None)?;
    let mut asker = Asker::open(&site)?;
    let items: Vec<String> = (0..1_000).map(|item| format!("{item:026}")).collect();
    let request =
        json!({"id": "N", "kind": "rank", "user": "u", "items": items, "deadline_ms": 600_000})
            .to_string();
    daemon.signal("STOP")?;
    for number in 0..REQUESTS {
        let value = request.replace("\"N\"", &format!("\"{number}\""));
        let (topic, value) = (asker.requests.as_str(), Some(value.as_bytes()));
        let record = Outgoing { topic, key: Some(b"u"), value, headers: &[] };
        asker.producer.send(&record, PATIENCE)?;
    }
    asker.producer.flush(PATIENCE)?;
    daemon.signal("CONT")?;
    let (mut codes, mut most) = (BTreeMap::new(), 0);
    for number in 0..REQUESTS {
        let record = asker.answers.next(PATIENCE)?.context("no answer")?;
        let text = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
        let code = if text.contains("\"overloaded\"") { "overloaded" } else { "answered" };
        *codes.entry(code).or_insert(0) += 1;
        if number % 100 == 0 {
            most = most.max(daemon.memory()?);
        }
    }
    anyhow::ensure!(codes.len() == 2, "{codes:?}");
    anyhow::ensure!(most < MOST, "{most} bytes of memory, {codes:?}");
    Ok(())
}

/// Returns one field of all items of an answer.
fn listed(answer: &Value, field: &str) -> anyhow::Result<Vec<Value>> {
    let items = answer["items"].as_array().with_context(|| format!("no items: {answer}"))?;
    Ok(items.iter().map(|item| item[field].clone()).collect())
}

fn echoed(record: &OwnedRecord) -> Option<&[u8]> {
    let header = record.headers.iter().find(|(key, _)| key == "correlation-id")?;
    Some(&header.1)
}

/// A hundred requests in a second go on while the daemon is stopped, killed and started anew.
fn restarts() -> Outcome {
    let site = Site::new(&*shared()?, "again", SMALL)?;
    site.make_topics(1)?;
    let daemon = site.start(&[])?;
    daemon.wait_ready(None)?;
    let mut asker = Asker::open(&site)?;
    let (producer, topic) = (&asker.producer, asker.requests.as_str());
    let ends = AtomicBool::new(false);
    let ask = || -> anyhow::Result<usize> {
        let mut asked = 0;
        while !ends.load(Ordering::Relaxed) {
            let request = json!({"id": asked.to_string(), "kind": "rank", "user": "u", "items": ["i"], "deadline_ms": 30_000});
            let value = serde_json::to_vec(&request)?;
            let record = Outgoing { topic, key: Some(b"u"), value: Some(&value), headers: &[] };
            producer.send(&record, PATIENCE)?;
            asked += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        producer.flush(PATIENCE)?;
        Ok(asked)
    };
    let site = &site;
    let restart = move || -> anyhow::Result<Daemon> {
        let mut daemon = daemon;
        for gently in [true, false, true] {
            std::thread::sleep(Duration::from_millis(1_500));
            if gently {
                daemon.stop()?;
            } else {
                daemon.kill()?;
            }
            daemon = site.start(&[])?;
            daemon.wait_ready(None)?;
        }
        Ok(daemon)
    };
    let (asked, daemon) = std::thread::scope(|scope| {
        let asking = scope.spawn(ask);
        let restarted = restart();
        ends.store(true, Ordering::Relaxed);
        let asked = asking.join().map_err(|_| anyhow::anyhow!("asking panicked"))?;
        anyhow::Ok((asked?, restarted?))
    })?;
    let mut answers = BTreeSet::new();
    while answers.len() < asked {
        let record = asker.answers.next(PATIENCE)?;
        let record = record.with_context(|| format!("{} of {asked} answered", answers.len()))?;
        let answer: Value = serde_json::from_slice(&record.value.unwrap_or_default())?;
        anyhow::ensure!(answer["error"].is_null(), "{answer}");
        answers.insert(answer["id"].to_string());
    }
    daemon.stop()?;
    Ok(())
}
