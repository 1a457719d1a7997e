//! Topics that are not what they were: where reading begins is kept, a topic made anew is known, and what is missing is skipped only
//! knowingly.

use std::path::Path;

use sluice_daemon::kafka::{Admin, TopicSpec};

use crate::Test;
use crate::expect_eq;
use crate::harness::real_kafka::shared;
use crate::harness::records::{producer, send_numbers};
use crate::harness::shop::{self, SMALL};
use crate::harness::site::{Daemon, Site, count};
use crate::harness::{Outcome, PATIENCE, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("where_reading_began_is_kept_before_anything_is_read", where_reading_began),
    ("a_topic_made_anew_between_two_runs_is_told", a_topic_made_anew),
    ("a_topic_made_anew_during_a_run_ends_it", a_topic_made_anew_during_a_run),
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
    let status = daemon.wait_taken(lines.events)?;
    anyhow::ensure!(gaps(&daemon, "made-anew")?, "no gap is counted");
    anyhow::ensure!(
        daemon.stderr().contains("records are missing and reading goes on"),
        "not told"
    );
    // They are the same events once more: seen, and known to be doubled.
    expect_eq!(count(&status, "impressions"), count(&before, "impressions"));
    anyhow::ensure!(count(&status, "duplicates") >= lines.impressions, "{status}");
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
    anyhow::ensure!(ended.stderr.contains("record 9 is another one"), "{}", ended.stderr);
    Ok(())
}
