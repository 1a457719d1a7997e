//! Topics that are not what they were: where reading begins is kept, a topic made anew is known, and what is missing is skipped only
//! knowingly.

use std::path::Path;

use sluice_daemon::kafka::{Admin, Outgoing, TopicSpec};

use crate::Test;
use crate::changes::add_partitions;
use crate::expect_eq;
use crate::harness::real_kafka::shared;
use crate::harness::records::{producer, send_numbers};
use crate::harness::shop::{self, SMALL};
use crate::harness::site::{Daemon, Site, count, field_of};
use crate::harness::wire::{On, To, deny, lift};
use crate::harness::{Outcome, PATIENCE, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("where_reading_began_is_kept_before_anything_is_read", where_reading_began),
    ("a_topic_made_anew_between_two_runs_is_told", a_topic_made_anew),
    ("a_topic_made_anew_during_a_run_ends_it", a_topic_made_anew_during_a_run),
    ("a_damaged_batch_ends_the_run_or_is_passed_over_knowingly", a_damaged_batch),
    ("partitions_that_requests_get_are_answered_too", partitions_that_requests_get),
    ("a_reply_topic_that_is_missing_ends_the_start", a_reply_topic_that_is_missing),
    ("a_topic_that_may_not_be_seen_is_told", a_topic_that_may_not_be_seen),
];

fn where_reading_began() -> Outcome {
    let site = Site::new(&*shared()?, "ends", SMALL)?.with("KAFKA__START", "end");
    site.make_topics(2)?;
    let producer = producer(site.connection().clone())?;
    // Killed, and stopped in order: nothing was taken in either run.
    for (run, kill) in (0..).zip([true, false]) {
        send_numbers(&producer, &site.topic("events"), 0..10)?;
        let daemon = site.start(&[])?;
        if run == 0 {
            daemon.wait_ready(None)?;
            expect_eq!(count(&daemon.status()?, "records"), 0);
        } else {
            daemon.wait_taken(410)?;
        }
        if kill {
            daemon.kill()?;
        } else {
            daemon.stop()?;
        }
        send_numbers(&producer, &site.topic("events"), 0..400)?;
    }
    let daemon = site.start(&[])?;
    daemon.wait_taken(810)?;
    daemon.stop().map(drop)
}

/// Deletes topics and makes them anew.
fn make_anew(site: &Site, names: &[&str], partitions: i32) -> Outcome {
    let names: Vec<_> = names.iter().map(|name| site.topic(name)).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let admin = Admin::open(site.connection(), PATIENCE)?;
    admin.delete(&names)?;
    let specs = names.iter().map(|name| TopicSpec {
        name: (*name).to_owned(),
        partitions,
        replication: 1,
        needed: Vec::new(),
        advised: vec![("message.timestamp.type", "LogAppendTime")],
        initial: Vec::new(),
    });
    let specs: Vec<_> = specs.collect();
    // The old one may not be gone yet.
    wait_for("topics made anew", || {
        admin.create(&specs.iter().collect::<Vec<_>>())?;
        Ok(admin.partitions(names[0])?.map(drop))
    })
}

fn gaps(daemon: &Daemon, cause: &str) -> anyhow::Result<bool> {
    let line = format!("sluice_consume_gaps_total{{cause=\"{cause}\"}} 0\n");
    Ok(!daemon.get("/metrics")?.1.contains(&line))
}

fn a_topic_made_anew() -> Outcome {
    let site = Site::new(&*shared()?, "anew", SMALL)?;
    site.make_topics(2)?;
    let file = site.path("shop.jsonl");
    let lines = shop::simulate(&file, 500)?;
    site.produce(&file)?;
    let daemon = site.start(&[])?;
    let before = daemon.wait_taken(lines.events)?;
    daemon.wait_ready(None)?;
    daemon.stop()?;
    // As they were, nothing is to be told.
    let daemon = site.start(&[])?;
    daemon.wait_ready(None)?;
    daemon.stop()?;
    // One topic reaches as far as it did, one is empty.
    make_anew(&site, &["events", "users"], 2)?;
    let text = std::fs::read_to_string(&file)?;
    let events: String = text
        .lines()
        .filter(|line| line.contains("\"events\""))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&file, &events)?;
    site.produce(Path::new(&file))?;
    for _ in 0..2 {
        let ended = site.start(&[])?.ended()?;
        expect_eq!(ended.code, Some(4));
        for word in ["made anew", "--accept-gap", "checkpoint.path"] {
            anyhow::ensure!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
        }
    }
    let daemon = site.start(&["--accept-gap"])?;
    // They are the same events once more: seen, and known to be doubled.
    let status = daemon.wait(|status| count(status, "duplicates") >= lines.impressions)?;
    anyhow::ensure!(gaps(&daemon, "made-anew")?, "no gap is counted");
    anyhow::ensure!(
        daemon.stderr().contains("records are missing and reading goes on"),
        "not told"
    );
    expect_eq!(count(&status, "impressions"), count(&before, "impressions"));
    daemon.wait_ready(None)?;
    daemon.stop()?;
    // The gap is behind it.
    let daemon = site.start(&[])?;
    daemon.wait_ready(None)?;
    daemon.stop().map(drop)
}

fn a_topic_made_anew_during_a_run() -> Outcome {
    let site = Site::new(&*shared()?, "swapped", SMALL)?;
    site.make_topics(1)?;
    let producer = producer(site.connection().clone())?;
    send_numbers(&producer, &site.topic("events"), 0..10)?;
    let daemon = site.start(&[])?;
    daemon.wait_taken(10)?;
    daemon.stop()?;
    let daemon = site.start(&[])?;
    daemon.wait_taken(10)?;
    make_anew(&site, &["events"], 1)?;
    // More than the old one had: no offset is out of range.
    send_numbers(&producer, &site.topic("events"), 0..50)?;
    let ended = daemon.ended()?;
    anyhow::ensure!(
        ended.stderr.contains("made anew")
            || ended.stderr.contains("swapped.events does not exist"),
        "{}",
        ended.stderr
    );
    let ended = site.start(&[])?.ended()?;
    expect_eq!(ended.code, Some(4));
    anyhow::ensure!(
        ended.stderr.contains("swapped.events is not the one that was read before"),
        "{}",
        ended.stderr
    );
    Ok(())
}

/// Flips a bit in the last byte of the batch that holds an offset. Returns the offsets of its first record and behind its last.
fn damage(segment: &Path, offset: i64) -> anyhow::Result<(i64, i64)> {
    let mut bytes = std::fs::read(segment)?;
    let mut at = 0;
    while at + 61 <= bytes.len() {
        let number = |from: usize, to: usize| {
            bytes[at + from..at + to].iter().fold(0i64, |sum, byte| sum << 8 | i64::from(*byte))
        };
        let (base, length, last) = (number(0, 8), number(8, 12), number(23, 27));
        let end = at + 12 + usize::try_from(length)?;
        if (base..=base + last).contains(&offset) {
            bytes[end - 1] ^= 1;
            std::fs::write(segment, &bytes)?;
            return Ok((base, base + last + 1));
        }
        at = end;
    }
    anyhow::bail!("no batch holds {offset}")
}

fn a_damaged_batch() -> Outcome {
    let kafka = shared()?;
    let site = Site::new(&kafka, "damaged", SMALL)?;
    site.make_topics(1)?;
    let producer = producer(site.connection().clone())?;
    let topic = site.topic("events");
    for part in 0..4 {
        send_numbers(&producer, &topic, part * 10..part * 10 + 10)?;
    }
    // One with records behind it, and the last.
    let segment = kafka.segment(&topic, 0);
    let (inside, last) = (damage(&segment, 15)?, damage(&segment, 39)?);
    let missing = u64::try_from(inside.1 - inside.0 + last.1 - last.0)?;
    let ended = site.start(&[])?.ended()?;
    expect_eq!(ended.code, Some(4));
    let place = format!("damaged.events/0 cannot be read at offset {}", inside.0);
    let next = format!("the next sound record is at {}", inside.1);
    for word in [place.as_str(), &next, "--accept-gap"] {
        anyhow::ensure!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
    let daemon = site.start(&["--accept-gap"])?;
    daemon.wait_taken(40 - missing)?;
    let line = format!("sluice_consume_missing_records_total{{cause=\"unreadable\"}} {missing}\n");
    wait_for(&line, || Ok(daemon.get("/metrics")?.1.contains(&line).then_some(())))?;
    send_numbers(&producer, &topic, 40..45)?;
    daemon.wait_taken(45 - missing)?;
    daemon.stop()?;
    let daemon = site.start(&[])?;
    send_numbers(&producer, &topic, 45..50)?;
    daemon.wait_taken(50 - missing)?;
    daemon.stop().map(drop)
}

fn partitions_that_requests_get() -> Outcome {
    let kafka = shared()?;
    let mut site = Site::new(&kafka, "wider", SMALL)?;
    site.make_topics(1)?;
    // What else would take ten seconds to hear of them.
    site = site.with("KAFKA__EXTRA", "{ \"topic.metadata.refresh.interval.ms\" = 500 }");
    let daemon = site.start(&[])?;
    daemon.wait_ready(None)?;
    let topic = site.topic("requests");
    add_partitions(&kafka.brokers(), &topic, 4)?;
    // A producer that knows of them spreads what has no key, before or after the daemon does.
    let producer = producer(site.connection().clone())?;
    for id in 0..80 {
        let text =
            format!("{{\"id\":\"q{id}\",\"kind\":\"rank\",\"user\":\"1\",\"items\":[\"1\"]}}");
        let key = format!("q{id}");
        let (key, value) = (Some(key.as_bytes()), Some(text.as_bytes()));
        producer.send(&Outgoing { topic: &topic, key, value, headers: &[] }, PATIENCE)?;
    }
    producer.flush(PATIENCE)?;
    wait_for("80 answers", || Ok((site.read("responses")?.len() >= 80).then_some(())))?;
    expect_eq!(site.read("responses")?.len(), 80);
    daemon.stop().map(drop)
}

fn a_reply_topic_that_is_missing() -> Outcome {
    let site = Site::new(&*shared()?, "replies", SMALL)?
        .with("KAFKA__REPLY_TOPICS", "[\"nobody.replies\"]");
    site.make_topics(1)?;
    let ended = site.start(&[])?.ended()?;
    expect_eq!(ended.code, Some(2));
    for word in ["nobody.replies", "kafka.reply_topics"] {
        anyhow::ensure!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
    Ok(())
}

fn a_topic_that_may_not_be_seen() -> Outcome {
    const UNSEEN: &str =
        "it cannot be seen whether a topic that is written exists: what goes there may be lost";
    let kafka = shared()?;
    let site = Site::new(&kafka, "unseeable", SMALL)?;
    site.make_topics(1)?;
    let topic = site.topic("responses");
    deny(&kafka.brokers(), To::Describe, On::Topic(&topic))?;
    let daemon = site.start(&[])?;
    daemon.wait_ready(None)?;
    let remedy = field_of(&daemon.stop()?.stderr, UNSEEN, "remedy").unwrap_or_default();
    anyhow::ensure!(remedy.contains("Write on topic unseeable.responses"), "{remedy}");
    lift(&kafka.brokers(), On::Topic(&topic))
}
