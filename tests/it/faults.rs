//! Bad records, and a Kafka that is away: nothing is lost, the rest goes on, and the daemon says what is the matter.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluice_daemon::kafka::{Admin, Outgoing, OwnedRecord, VALUE_LIMIT};

use crate::Test;
use crate::expect_eq;
use crate::harness::real_kafka::{Door, RealKafka, shared};
use crate::harness::records::producer;
use crate::harness::shop::{self, SMALL};
use crate::harness::site::{Daemon, Site, count};
use crate::harness::{Outcome, PATIENCE};

pub(crate) const TESTS: &[Test] = &[
    ("bad_records_go_to_the_dead_letters_and_the_rest_goes_on", bad_records),
    ("a_broker_that_is_away_is_waited_for_and_nothing_is_lost", a_broker_that_is_away),
    ("windows_wait_for_records_while_nobody_can_read_them", windows_wait_for_records),
    ("a_checkpoint_waits_for_the_dead_letters_before_it", letters_of_a_broker_that_died),
    ("a_missing_topic_ends_the_start_with_a_remedy", a_missing_topic_ends_the_start),
    ("a_stop_without_kafka_is_quick_and_says_what_is_left", a_stop_without_kafka),
];

/// A bad record, and the reason and field that its dead letter must name.
type Bad = (Vec<u8>, &'static str, Option<&'static str>);

fn bad_records() -> Outcome {
    let site = Site::new(&*shared()?, "bad", SMALL)?;
    site.make_topics(1)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let bad = bad(now);
    let producer = producer(site.connection().clone())?;
    let topic = site.topic("events");
    let send = |value: &[u8]| {
        let (key, value) = (Some(&b"u1"[..]), Some(value));
        producer.send(&Outgoing { topic: &topic, key, value, headers: &[] }, PATIENCE)
    };
    let good = |number: usize| {
        format!(r#"{{"type":"impression","id":"good{number}","ts":{now},"user":"u1","item":"i1"}}"#)
    };
    for (number, (value, ..)) in bad.iter().enumerate() {
        send(good(number).as_bytes())?;
        send(value)?;
    }
    send(good(bad.len()).as_bytes())?;
    producer.flush(PATIENCE)?;

    let all = 2 * bad.len() as u64 + 1;
    let daemon = site.start(&[])?;
    let status = daemon.wait_taken(all)?;
    expect_eq!(count(&status, "rejected"), bad.len() as u64);
    expect_eq!(count(&status, "impressions"), bad.len() as u64 + 1);
    let mut by_reason = BTreeMap::new();
    for (_, reason, _) in &bad {
        *by_reason.entry(*reason).or_insert(0) += 1;
    }
    for (reason, expected) in by_reason {
        let line = format!("sluice_events_rejected_total{{reason=\"{reason}\"}} {expected}\n");
        crate::harness::wait_for(&line, || {
            Ok(daemon.get("/metrics")?.1.contains(&line).then_some(()))
        })?;
    }
    daemon.wait_ready(None)?;
    daemon.stop()?;

    let letters = site.read("dead-letter")?;
    expect_eq!(letters.len(), bad.len());
    for (offset, (value, reason, field)) in (1..).step_by(2).zip(&bad) {
        let at = |letter: &&OwnedRecord| letter.header("offset") == Some(&offset.to_string());
        let letter =
            letters.iter().find(at).ok_or_else(|| anyhow::anyhow!("{offset}: {reason}"))?;
        expect_eq!((offset, letter.header("reason")), (offset, Some(*reason)));
        expect_eq!((reason, letter.header("field")), (reason, *field));
        expect_eq!(letter.header("topic"), Some(topic.as_str()));
        expect_eq!(letter.header("partition"), Some("0"));
        expect_eq!(letter.key.as_deref(), Some(&b"u1"[..]));
        let kept = &value[..value.len().min(VALUE_LIMIT)];
        anyhow::ensure!(letter.value.as_deref() == Some(kept), "{reason}: other bytes");
        if value.len() > VALUE_LIMIT {
            expect_eq!(letter.header("value-length"), Some(value.len().to_string().as_str()));
        }
    }

    // The next start neither takes them again nor buries them again.
    let daemon = site.start(&[])?;
    send(good(bad.len() + 1).as_bytes())?;
    let status = daemon.wait_taken(all + 1)?;
    expect_eq!(count(&status, "rejected"), bad.len() as u64);
    expect_eq!(count(&status, "impressions"), bad.len() as u64 + 2);
    daemon.stop()?;
    expect_eq!(site.read("dead-letter")?.len(), bad.len());
    Ok(())
}

fn bad(now: u64) -> Vec<Bad> {
    let record = |fields: &str| {
        let ts = if fields.contains("\"ts\"") { String::new() } else { format!(",\"ts\":{now}") };
        format!("{{{fields}{ts}}}").into_bytes()
    };
    let rest = r#""user":"u1","item":"i1""#;
    let (long, ahead) = ("x".repeat(257), now + 25 * 3_600_000);
    let impression = |more: &str| record(&format!(r#""type":"impression",{more},{rest}"#));
    let mut no_text = impression(r#""id":"?""#);
    for byte in no_text.iter_mut().filter(|byte| **byte == b'?') {
        *byte = 0xff;
    }
    vec![
        (br#"{"type":"impression""#.to_vec(), "invalid-json", None),
        (b"[1,2]".to_vec(), "invalid-json", None),
        (record(&format!(r#""type":"teleport","id":"b1",{rest}"#)), "unknown-type", Some("type")),
        (record(r#""type":"impression","id":"b0","user":"u1""#), "missing-field", Some("item")),
        (record(r#""type":"impression","id":"b2","item":"i1""#), "missing-field", Some("user")),
        (impression(&format!(r#""id":"{long}""#)), "id-too-long", Some("id")),
        (no_text, "invalid-utf8", None),
        (impression(r#""id":"b3","ts":1650812"#), "time-too-old", Some("ts")),
        (impression(&format!(r#""id":"b4","ts":{ahead}"#)), "time-in-future", Some("ts")),
        (
            impression(r#""id":"b5","context":{"price":1e300}"#),
            "number-out-of-range",
            Some("context.price"),
        ),
        (impression(r#""id":"b6","user":"u2""#), "doubled-key", Some("user")),
        (impression(&format!(r#""id":"b7","note":"{}""#, "y".repeat(300_000))), "too-large", None),
    ]
}

fn letters_of_a_broker_that_died() -> Outcome {
    const LETTERS: usize = 1_000;
    let kafka = RealKafka::start(Door::Open)?;
    let site = Site::new(&kafka, "letters", SMALL)?.with("CHECKPOINT__INTERVAL", "1s");
    site.make_topics(1)?;
    let daemon = site.start(&[])?;
    daemon.wait_ready(None)?;
    let producer = producer(site.connection().clone())?;
    let topic = site.topic("events");
    // Bytes that no codec makes smaller: the letters are many batches, of which the broker dies in the midst.
    let mut state = 1_u64;
    let noise = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    let noise: Vec<u8> = (0..50_000).map(noise).collect();
    for number in 0..LETTERS {
        let value = [&number.to_le_bytes()[..], &noise[number..]].concat();
        let record = Outgoing { topic: &topic, key: None, value: Some(&value), headers: &[] };
        producer.send(&record, PATIENCE)?;
    }
    daemon.wait(|status| count(status, "rejected") > 0)?;
    kafka.kill();
    daemon.wait_ready(Some("output"))?;
    expect_eq!(daemon.get("/live")?.0, 200);
    kafka.up()?;
    producer.flush(PATIENCE)?;
    daemon.wait_taken(LETTERS as u64)?;
    daemon.wait_ready(None)?;
    daemon.stop()?;
    let letters = site.read("dead-letter")?;
    let offsets: BTreeSet<_> = letters.iter().map(|letter| letter.header("offset")).collect();
    expect_eq!((letters.len(), offsets.len()), (LETTERS, LETTERS));
    Ok(())
}

fn a_broker_that_is_away() -> Outcome {
    let kafka = RealKafka::start(Door::Open)?;
    let site = Site::new(&kafka, "away", SMALL)?;
    site.make_topics(2)?;
    kafka.down();
    let daemon = site.start(&[])?;
    expect_eq!(daemon.get("/live")?.0, 200);
    let told = daemon.wait_ready(Some("kafka"))?;
    anyhow::ensure!(told.contains("\"text\":\""), "{told}");
    anyhow::ensure!(told.contains("\"reason\":\"requests\""), "{told}");
    kafka.up()?;
    daemon.wait_ready(None)?;

    let file = site.path("shop.jsonl");
    let lines = shop::simulate(&file, 12_000)?;
    let producing = site.producing(&file, &["--rate", "5000"])?;
    daemon.wait(|status| count(status, "events") > lines.events / 4)?;
    kafka.down();
    daemon.wait_ready(Some("kafka"))?;
    expect_eq!(daemon.get("/live")?.0, 200);
    kafka.up()?;
    producing.wait()?.succeeded()?;
    let status = daemon.wait_taken(lines.events)?;
    expect_eq!(count(&status, "events"), lines.events);
    expect_eq!(count(&status, "rejected"), 0);
    let impressions = count(&status, "impressions") + count(&status, "duplicates");
    expect_eq!(impressions, lines.impressions);
    daemon.wait_ready(None)?;
    daemon.stop()?;
    Ok(())
}

/// A daemon that sleeps, and one whose network is dead, longer than a window and any silence: the clicks lie in Kafka meanwhile.
fn windows_wait_for_records() -> Outcome {
    const IMPRESSIONS: u64 = 200;
    let kafka = RealKafka::start(Door::Open)?;
    let config = format!(
        "{SMALL}[serve]\nscore = \"p.click\"\n[funnel]\nlateness = \"1s\"\n[[funnel.tasks]]\nname = \"click\"\nwindow = \"20s\"\nlabels = \"wait\"\n"
    );
    let near = Site::new(&kafka, "windows", &config)?;
    near.make_topics(2)?;
    let far = Site::new(&kafka, "windows", &config)?
        .with("KAFKA__GROUP", "far")
        .with("KAFKA__BROKERS", &kafka.far_brokers());
    let (sleeper, cut_off) = (near.start(&[])?, far.start(&[])?);
    let daemons = [&sleeper, &cut_off];
    let producer = producer(near.connection().clone())?;
    let topic = near.topic("events");
    let begun = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let send = |r#type: &str, more: &str, time: u64| -> Outcome {
        for number in 0..IMPRESSIONS {
            let value = format!(
                r#"{{"type":"{type}","id":"{type} {number}","ts":{time},"user":"u{number}","item":"i"{}}}"#,
                more.replace('N', &number.to_string())
            );
            let (key, value) = (format!("u{number}"), Some(value.as_bytes()));
            let key = Some(key.as_bytes());
            producer.send(&Outgoing { topic: &topic, key, value, headers: &[] }, PATIENCE)?;
        }
        Ok(producer.flush(PATIENCE)?)
    };
    send("impression", "", begun)?;
    daemons.iter().try_for_each(|daemon| daemon.wait_taken(IMPRESSIONS).map(drop))?;
    sleeper.signal("STOP")?;
    kafka.network().goes_dead();
    send("click", r#","impression":"impression N""#, begun + 8_000)?;
    // Longer than the silence after which a partition's time goes on by the clock.
    let asleep = std::time::Instant::now();
    cut_off.wait_ready(Some("kafka"))?;
    std::thread::sleep(Duration::from_secs(36).saturating_sub(asleep.elapsed()));
    expect_eq!(count(&cut_off.status()?, "open"), IMPRESSIONS);
    sleeper.signal("CONT")?;
    kafka.network().goes_on();
    for daemon in daemons {
        let status = daemon.wait_taken(2 * IMPRESSIONS)?;
        expect_eq!((count(&status, "late"), count(&status, "orphaned")), (0, 0));
        expect_eq!(count(&status, "open"), IMPRESSIONS);
        daemon.wait_ready(None)?;
    }
    Ok(())
}

fn a_stop_without_kafka() -> Outcome {
    const LONGEST: Duration = Duration::from_secs(15);
    let kafka = RealKafka::start(Door::Open)?;
    let start = |prefix: &str| -> anyhow::Result<(Site, Daemon)> {
        let site = Site::new(&kafka, prefix, SMALL)?.with("CHECKPOINT__INTERVAL", "1s");
        site.make_topics(1)?;
        let daemon = site.start(&[])?;
        daemon.wait_ready(None)?;
        Ok((site, daemon))
    };
    let (_site, idle) = start("idle")?;
    let (site, burdened) = start("burdened")?;
    let producer = producer(site.connection().clone())?;
    let topic = site.topic("events");
    // What lz4 makes no smaller: the letters are many batches, of which the broker dies in the midst.
    let noise: Vec<u8> = (0..50_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13 ^ i.wrapping_mul(40_503)) as u8)
        .collect();
    for number in 0..1_000_usize {
        let value = [&number.to_le_bytes()[..], &noise[number..]].concat();
        let record = Outgoing { topic: &topic, key: None, value: Some(&value), headers: &[] };
        producer.send(&record, PATIENCE)?;
    }
    burdened.wait(|status| count(status, "rejected") > 0)?;
    kafka.kill();
    burdened.wait_ready(Some("output"))?;
    for (daemon, code, told) in
        [(idle, 0, "everything taken is learned"), (burdened, 4, "Kafka took no dead letters")]
    {
        let asked = Instant::now();
        daemon.signal("TERM")?;
        let ended = daemon.ended()?;
        anyhow::ensure!(asked.elapsed() < LONGEST, "{:?}\n{}", asked.elapsed(), ended.stderr);
        anyhow::ensure!(ended.code == Some(code), "{:?}\n{}", ended.code, ended.stderr);
        anyhow::ensure!(ended.stderr.contains(told), "{}", ended.stderr);
    }
    Ok(())
}

fn a_missing_topic_ends_the_start() -> Outcome {
    let site = Site::new(&*shared()?, "nowhere", SMALL)?;
    let ended = site.with_config("sluiced", &["run"])?.wait()?;
    expect_eq!(ended.code, Some(2));
    for word in ["nowhere.events", "nowhere.scores", "sluice topics apply"] {
        anyhow::ensure!(ended.stderr.contains(word), "{}", ended.stderr);
    }
    // One output is missing: it alone is named.
    site.make_topics(1)?;
    Admin::open(site.connection(), PATIENCE)?.delete(&["nowhere.embeddings"])?;
    let ended = site.with_config("sluiced", &["run"])?.wait()?;
    expect_eq!(ended.code, Some(2));
    anyhow::ensure!(ended.stderr.contains("do not exist: nowhere.embeddings;"), "{}", ended.stderr);
    Ok(())
}
