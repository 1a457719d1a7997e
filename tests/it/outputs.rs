//! Answers, embeddings and top lists that Kafka refuses: counted by topic and cause, told with the remedy, and over when it takes them again.

use serde_json::json;
use sluice_daemon::kafka::{Admin, Outgoing, Probe, Producer, TopicSpec};

use crate::Test;
use crate::expect_eq;
use crate::harness::real_kafka::shared;
use crate::harness::records::producer;
use crate::harness::shop::{self, SMALL};
use crate::harness::site::{Daemon, Site, field_of};
use crate::harness::wire::{On, To, deny, lift};
use crate::harness::{Outcome, PATIENCE, wait_for, wait_long_for};

pub(crate) const TESTS: &[Test] = &[
    ("what_may_not_be_written_is_told_and_counted_and_can_be_mended", what_may_not_be_written),
    ("a_topic_deleted_meanwhile_is_told_and_taken_up_again", a_topic_deleted_meanwhile),
    ("an_answer_too_large_is_told_and_others_go_out", an_answer_too_large),
];

const REFUSES: &str = "kafka refuses what is written";

/// Returns a metric by its name and labels; 0 where it is not there.
fn metric(daemon: &Daemon, name: &str) -> anyhow::Result<u64> {
    let page = daemon.get("/metrics")?.1;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0))
}

fn wait_metric(daemon: &Daemon, name: &str, wanted: impl Fn(u64) -> bool) -> anyhow::Result<u64> {
    wait_for(name, || Ok(Some(metric(daemon, name)?).filter(|value| wanted(*value))))
}

fn requests(outcome: &str) -> String {
    format!("sluice_serve_requests_total{{kind=\"rank\",outcome=\"{outcome}\"}}")
}

fn undelivered(topic: &str, cause: &str) -> String {
    format!("sluice_publish_undelivered_total{{topic=\"{topic}\",cause=\"{cause}\"}}")
}

fn delivered(topic: &str) -> String {
    format!("sluice_publish_delivered_total{{topic=\"{topic}\"}}")
}

/// Asks for so many items to be ranked.
fn ask(site: &Site, producer: &Producer, id: &str, items: usize) -> Outcome {
    let items: Vec<_> = (0..items).map(|item| format!("{item:0100}")).collect();
    let message = json!({"id": id, "kind": "rank", "user": "1", "items": items}).to_string();
    let (topic, value) = (site.topic("requests"), Some(message.as_bytes()));
    producer.send(&Outgoing { topic: &topic, key: Some(b"1"), value, headers: &[] }, PATIENCE)?;
    Ok(producer.flush(PATIENCE)?)
}

/// Starts a daemon that has learned a small shop.
fn learned(site: &Site) -> anyhow::Result<Daemon> {
    let file = site.path("shop.jsonl");
    shop::simulate(&file, 500)?;
    site.produce(&file)?;
    let daemon = site.start(&[])?;
    daemon.wait(|status| status["caught_up"] == true && status["steps"].as_u64() > Some(0))?;
    Ok(daemon)
}

fn what_may_not_be_written() -> Outcome {
    let kafka = shared()?;
    let site = Site::new(&kafka, "mute", SMALL)?;
    site.make_topics(2)?;
    let outputs = ["responses", "embeddings", "scores"].map(|name| (name, site.topic(name)));
    for (_, topic) in &outputs {
        deny(&kafka.brokers(), To::Write, On::Topic(topic))?;
    }
    let daemon = learned(&site)?;
    let asker = producer(site.connection().clone())?;
    for i in 0..5 {
        ask(&site, &asker, &format!("q{i}"), 3)?;
    }
    let told = daemon.wait_ready(Some("output"))?;
    anyhow::ensure!(told.contains("Write on topic mute."), "{told}");
    wait_metric(&daemon, &requests("undelivered"), |count| count == 5)?;
    expect_eq!(metric(&daemon, &requests("answered"))?, 0);
    for (name, topic) in &outputs {
        wait_metric(&daemon, &undelivered(name, "no-right"), |count| count > 0)?;
        expect_eq!(metric(&daemon, &delivered(name))?, 0);
        let log = daemon.stderr();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(REFUSES)).collect();
        let of_topic: Vec<_> = lines.iter().filter(|line| line.contains(topic)).collect();
        expect_eq!((topic, of_topic.len()), (topic, 1));
        let flags = format!("--operation Write --topic {topic}");
        anyhow::ensure!(of_topic[0].contains(&flags), "{}", of_topic[0]);
        anyhow::ensure!(of_topic[0].contains("WARN"), "{}", of_topic[0]);
    }
    anyhow::ensure!(daemon.status()?["undelivered"].as_u64() >= Some(5));

    // What has no right yet gets it: the next record of each topic ends the trouble.
    for (_, topic) in &outputs {
        lift(&kafka.brokers(), On::Topic(topic))?;
    }
    wait_for("an answer", || {
        ask(&site, &asker, "again", 3)?;
        Ok((metric(&daemon, &requests("answered"))? > 0).then_some(()))
    })?;
    site.produce(&site.path("shop.jsonl"))?;
    anyhow::ensure!(!site.read("responses")?.is_empty());
    for name in ["embeddings", "scores"] {
        touch(&site, &asker, name, &daemon)?;
    }
    daemon.wait_ready(None)?;
    daemon.stop().map(drop)
}

/// Sends new events until something was written to a topic.
fn touch(site: &Site, producer: &Producer, name: &str, daemon: &Daemon) -> Outcome {
    let mut sent = 0;
    let topic = site.topic("events");
    wait_for(name, || {
        sent += 1;
        let ts = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
        for user in 0..20 {
            let (user, id) = (user.to_string(), format!("{name}{sent}/{user}"));
            let shown =
                json!({"type": "impression", "id": id, "ts": ts as u64, "user": user, "item": "1"});
            let click = json!({"type": "click", "id": format!("c{id}"), "ts": ts as u64 + 1, "user": user, "item": "1"});
            for event in [shown, click] {
                let value = event.to_string();
                let value = Some(value.as_bytes());
                let key = Some(user.as_bytes());
                producer.send(&Outgoing { topic: &topic, key, value, headers: &[] }, PATIENCE)?;
            }
        }
        producer.flush(PATIENCE)?;
        std::thread::sleep(std::time::Duration::from_millis(200));
        Ok((metric(daemon, &delivered(name))? > 0).then_some(()))
    })
}

fn a_topic_deleted_meanwhile() -> Outcome {
    let kafka = shared()?;
    let site = Site::new(&kafka, "vanished", SMALL)?;
    site.make_topics(1)?;
    let daemon = site.start(&[])?;
    daemon.wait_ready(None)?;
    let asker = producer(site.connection().clone())?;
    ask(&site, &asker, "before", 3)?;
    wait_metric(&daemon, &requests("answered"), |count| count == 1)?;
    let admin = Admin::open(site.connection(), PATIENCE)?;
    let topic = site.topic("responses");
    admin.delete(&[&topic])?;
    let probe = Probe::open(site.connection())?;
    wait_for("the topic to be gone", || {
        Ok(probe.partitions(&topic, PATIENCE)?.is_none().then_some(()))
    })?;
    let before = metric(&daemon, &requests("answered"))?;
    // The client allows half a minute for a topic to be known everywhere before it takes it as gone, and asks every ten seconds: until then
    // answers time out.
    let mut polls = 0;
    wait_long_for("an answer without a topic", 3 * PATIENCE, || {
        if polls % 200 == 0 {
            ask(&site, &asker, "meanwhile", 3)?;
        }
        polls += 1;
        Ok((metric(&daemon, &undelivered("responses", "no-topic"))? > 0).then_some(()))
    })?;
    anyhow::ensure!(metric(&daemon, &requests("undelivered"))? > 0, "counted nowhere");
    expect_eq!(metric(&daemon, &requests("answered"))?, before);
    let told = daemon.wait_ready(Some("output"))?;
    anyhow::ensure!(told.contains("sluice topics apply"), "{told}");
    let remedy = field_of(&daemon.stderr(), REFUSES, "remedy").unwrap_or_default();
    expect_eq!(remedy, format!("create {topic}: sluice topics apply"));
    site.make_topics(1)?;
    wait_for("an answer", || {
        ask(&site, &asker, "after", 3)?;
        Ok((metric(&daemon, &requests("answered"))? > 1).then_some(()))
    })?;
    daemon.wait_ready(None)?;
    daemon.stop().map(drop)
}

fn an_answer_too_large() -> Outcome {
    let kafka = shared()?;
    let site = Site::new(&kafka, "narrow", SMALL)?;
    let spec = TopicSpec {
        name: site.topic("responses"),
        partitions: 1,
        replication: 1,
        needed: vec![("max.message.bytes", "2000")],
        advised: Vec::new(),
        initial: Vec::new(),
    };
    Admin::open(site.connection(), PATIENCE)?.create(&[&spec])?;
    site.make_topics(1)?;
    let daemon = site.start(&[])?;
    daemon.wait_ready(None)?;
    let asker = producer(site.connection().clone())?;
    ask(&site, &asker, "small", 3)?;
    wait_metric(&daemon, &requests("answered"), |count| count == 1)?;
    // Texts of a hundred digits that no codec makes small enough.
    ask(&site, &asker, "large", 900)?;
    wait_metric(&daemon, &undelivered("responses", "too-large"), |count| count == 1)?;
    expect_eq!(metric(&daemon, &requests("undelivered"))?, 1);
    let remedy = wait_for("a warning", || Ok(field_of(&daemon.stderr(), REFUSES, "remedy")))?;
    anyhow::ensure!(remedy.contains("max.message.bytes of narrow.responses"), "{remedy}");
    ask(&site, &asker, "small again", 3)?;
    wait_metric(&daemon, &requests("answered"), |count| count == 2)?;
    daemon.wait_ready(None)?;
    daemon.stop().map(drop)
}
