//! Rights that are missing, topics that believe their producers, records that are gone: each is named, with what mends it.

use sluice_daemon::kafka::{Connection, Outgoing, Probe, Reader, Start, Trouble};

use crate::Test;
use crate::expect_eq;
use crate::harness::real_kafka::shared;
use crate::harness::records::{producer, send_numbers};
use crate::harness::shop::SMALL;
use crate::harness::site::{Site, field_of};
use crate::harness::wire::{On, To, delete_records, deny, lift};
use crate::harness::{Outcome, PATIENCE, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("a_topic_that_may_not_be_read_is_named_with_the_right", a_topic_that_may_not_be_read),
    ("without_a_right_on_the_group_reading_goes_on", without_a_right_on_the_group),
    ("a_topic_that_believes_its_producers_is_told_at_the_start", a_topic_that_believes),
    ("records_deleted_before_they_were_read_end_with_a_remedy", records_deleted_before),
    ("a_journal_whose_records_are_gone_is_dropped_knowingly", a_journal_whose_records_are_gone),
];

const NO_COMMITS: &str =
    "kafka takes no offsets of the group: reading goes on, lag tools see nothing";

fn a_topic_that_may_not_be_read() -> Outcome {
    let kafka = shared()?;
    let site = Site::new(&kafka, "unread", SMALL)?;
    site.make_topics(2)?;
    for name in ["users", "requests"] {
        let topic = site.topic(name);
        deny(&kafka.brokers(), To::Read, On::Topic(&topic))?;
        let daemon = site.start(&[])?;
        let ended = daemon.ended()?;
        expect_eq!(ended.code, Some(4));
        let right = format!("the right Read on topic {topic}: kafka-acls.sh");
        anyhow::ensure!(ended.stderr.contains(&right), "{}", ended.stderr);
        anyhow::ensure!(!ended.stderr.contains("on topic unread.items"), "{}", ended.stderr);
        // A tool says the same.
        match Reader::open(site.connection(), &topic, Start::Beginning, PATIENCE)?.next(PATIENCE) {
            Err(Trouble::Denied { right, .. }) => {
                expect_eq!(right.flags(), format!("--operation Read --topic {topic}"));
            }
            other => anyhow::bail!("{other:?}"),
        }
        lift(&kafka.brokers(), On::Topic(&topic))?;
    }
    let daemon = site.start(&[])?;
    daemon.wait_ready(None)?;
    daemon.stop().map(drop)
}

fn without_a_right_on_the_group() -> Outcome {
    let kafka = shared()?;
    deny(&kafka.brokers(), To::Describe, On::Group("sluice-reader"))?;
    // Who may not find the group's coordinator hears of it at once, who may not commit at the first commit.
    for (group, to) in [("unseen", To::Describe), ("uncommitted", To::Read)] {
        deny(&kafka.brokers(), to, On::Group(group))?;
        let site = Site::new(&kafka, group, SMALL)?.with("CHECKPOINT__INTERVAL", "1s");
        site.make_topics(2)?;
        let daemon = site.start(&[])?;
        daemon.wait_ready(None)?;
        send_event(site.connection(), &site.topic("events"))?;
        daemon.wait_taken(1)?;
        wait_for("a warning", || Ok(field_of(&daemon.stderr(), NO_COMMITS, "remedy")))?;
        if to == To::Read {
            let failed = "sluice_consume_commits_failed_total ";
            wait_for("commits that fail", || {
                let page = daemon.get("/metrics")?.1;
                let line = page.lines().find_map(|line| line.strip_prefix(failed));
                Ok(line.filter(|count| *count != "0").map(String::from))
            })?;
        }
        // A reader commits nothing, and needs no right either.
        let mut reader =
            Reader::open(site.connection(), &site.topic("events"), Start::Beginning, PATIENCE)?;
        expect_eq!(reader.read_to_end(PATIENCE)?.len(), 1);
        // A right that comes later is noticed.
        lift(&kafka.brokers(), On::Group(group))?;
        wait_for("a commit", || {
            let topic = site.topic("events");
            let committed = Probe::committed(site.connection(), group, &topic, PATIENCE)?;
            Ok(committed.iter().any(Option::is_some).then_some(()))
        })?;
        let ended = daemon.stop()?;
        let told: Vec<_> = ended.stderr.lines().filter(|line| line.contains(NO_COMMITS)).collect();
        expect_eq!(told.len(), 1);
        let flags = format!("--operation Read --group {group}");
        anyhow::ensure!(told[0].contains(&flags), "{}", told[0]);
    }
    lift(&kafka.brokers(), On::Group("sluice-reader"))
}

/// Sends one event that is refused: a record all the same.
fn send_event(connection: &Connection, topic: &str) -> Outcome {
    let producer = producer(connection.clone())?;
    let record = Outgoing { topic, key: Some(b"u"), value: Some(b"{}"), headers: &[] };
    producer.send(&record, PATIENCE)?;
    Ok(producer.flush(PATIENCE)?)
}

fn a_topic_that_believes() -> Outcome {
    const BELIEVES: &str = "records are dated by their producers' clocks (CreateTime): one that is up to an hour wrong dates event and record alike, so only \
                            events of other users show it; freshness is wrong by as much, and after a restart requests are as old as their askers say";
    let kafka = shared()?;
    let site = Site::new(&kafka, "believing", SMALL)?;
    kafka.create_topic("believing.events", 2, &[])?;
    site.make_topics(2)?;
    let daemon = site.start(&[])?;
    daemon.wait_ready(None)?;
    let ended = daemon.stop()?;
    let remedy = field_of(&ended.stderr, BELIEVES, "remedy").unwrap_or_default();
    let setting =
        "--entity-name believing.events --add-config message.timestamp.type=LogAppendTime";
    anyhow::ensure!(remedy.ends_with(setting) && !remedy.contains(".items"), "{remedy}");

    // As it is made by the tool nothing is to be told.
    let site = Site::new(&kafka, "dating", SMALL)?;
    site.make_topics(2)?;
    let daemon = site.start(&[])?;
    daemon.wait_ready(None)?;
    expect_eq!(daemon.stop()?.stderr.contains(BELIEVES), false);
    Ok(())
}

const GAP: &str = "records are missing and reading goes on (--accept-gap): outcomes in the gap are not learned, impressions before it whose \
                   outcomes lie in it are learned as without";

fn records_deleted_before() -> Outcome {
    let kafka = shared()?;
    let site = Site::new(&kafka, "passed", SMALL)?;
    site.make_topics(1)?;
    let topic = site.topic("events");
    let producer = producer(site.connection().clone())?;
    send_numbers(&producer, &topic, 0..10)?;
    let daemon = site.start(&[])?;
    daemon.wait_taken(10)?;
    daemon.stop()?;
    send_numbers(&producer, &topic, 10..60)?;
    delete_records(&kafka.brokers(), &topic, 0, 40)?;
    for _ in 0..2 {
        let ended = site.start(&[])?.ended()?;
        expect_eq!(ended.code, Some(4));
        for word in [
            "passed.events/0 holds offsets 40 to 60, expected to continue at 10",
            "30 records were deleted before they were read",
            "retention.ms",
            "checkpoint.path away",
            "--accept-gap",
        ] {
            anyhow::ensure!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
        }
    }
    // Taken knowingly: the gap is counted once, and the next start knows nothing of it.
    let daemon = site.start(&["--accept-gap"])?;
    daemon.wait_taken(30)?;
    let page = daemon.get("/metrics")?.1;
    for line in
        ["gaps_total{cause=\"deleted\"} 1\n", "missing_records_total{cause=\"deleted\"} 30\n"]
    {
        anyhow::ensure!(page.contains(&format!("sluice_consume_{line}")), "{line}");
    }
    let told = daemon.stop()?.stderr;
    expect_eq!(field_of(&told, GAP, "missing").as_deref(), Some("30"));
    send_numbers(&producer, &topic, 60..65)?;
    let daemon = site.start(&[])?;
    daemon.wait_taken(35)?;
    daemon.stop()?;
    // So does the other way that the message names.
    std::fs::rename(site.path("state"), site.path("before"))?;
    let daemon = site.start(&[])?;
    daemon.wait_ready(None)?;
    daemon.stop().map(drop)
}

fn a_journal_whose_records_are_gone() -> Outcome {
    const REPEATED: &str = "repeated what was taken since the checkpoint";
    let kafka = shared()?;
    let site = Site::new(&kafka, "unrepeatable", SMALL)?;
    site.make_topics(1)?;
    let topic = site.topic("events");
    let producer = producer(site.connection().clone())?;
    send_numbers(&producer, &topic, 0..10)?;
    let daemon = site.start(&[])?;
    daemon.wait_taken(10)?;
    daemon.stop()?;
    let daemon = site.start(&[])?;
    send_numbers(&producer, &topic, 10..20)?;
    daemon.wait_taken(20)?;
    daemon.kill()?;
    delete_records(&kafka.brokers(), &topic, 0, 15)?;
    let ended = site.start(&[])?.ended()?;
    expect_eq!(ended.code, Some(4));
    for word in ["unrepeatable.events/0", "10", "--accept-gap"] {
        anyhow::ensure!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
    // What is left of them is taken as it comes.
    let daemon = site.start(&["--accept-gap"])?;
    daemon.wait_taken(15)?;
    let told = daemon.stop()?.stderr;
    expect_eq!(field_of(&told, GAP, "missing").as_deref(), Some("5"));
    anyhow::ensure!(!told.contains(REPEATED), "{told}");
    Ok(())
}
