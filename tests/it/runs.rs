//! Whole runs over a real Kafka: a replay is the live run, and a killed daemon ends where an uninterrupted one does.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::Test;
use crate::expect_eq;
use crate::harness::Outcome;
use crate::harness::process::Running;
use crate::harness::real_kafka::shared;
use crate::harness::shop::{self, SMALL};
use crate::harness::site::{Site, count, field_of};

pub(crate) const TESTS: &[Test] = &[
    ("a_replay_of_a_captured_run_has_its_checksum", a_replay_is_the_live_run),
    ("a_file_replayed_twice_gives_the_same_and_another_seed_another", a_file_replayed_twice),
    ("a_start_after_a_kill_learns_the_same_bits", a_start_after_a_kill),
    ("after_kills_everything_is_counted_exactly_once", kills_lose_and_double_nothing),
];

/// Rows come and go within the hour of a small shop.
const SHORT_LIVED: &str = "\n[table]\nexpiry = \"20m\"\n";

fn a_replay_is_the_live_run() -> Outcome {
    let site = Site::new(&*shared()?, "live", &format!("{SMALL}{SHORT_LIVED}"))?;
    site.make_topics(3)?;
    let (file, half) = (site.path("shop.jsonl"), site.path("half.jsonl"));
    let capture = site.path("capture").display().to_string();
    shop::simulate(&file, 6_000)?;
    let text = std::fs::read_to_string(&file)?;
    let lines: Vec<&str> = text.lines().collect();
    let mut taken = 0;
    // The second run begins with the first one's checkpoint: its capture has to carry that.
    for part in lines.chunks(lines.len().div_ceil(2)) {
        std::fs::write(&half, part.join("\n"))?;
        let daemon = site.start(&["--capture", &capture])?;
        site.produce(&half)?;
        taken += shop::count(&part.join("\n")).events;
        daemon.wait_taken(taken)?;
        let live = checksum(&daemon.stop()?.stderr)?;
        let replayed = replay(&site, &["--capture", &capture])?;
        expect_eq!(replayed["checksum"], live);
        expect_eq!(count(&replayed, "events"), taken);
    }
    Ok(())
}

fn a_file_replayed_twice() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (file, config) = (folder.path().join("shop.jsonl"), folder.path().join("sluice.toml"));
    std::fs::write(&config, format!("{SMALL}{SHORT_LIVED}"))?;
    let lines = shop::simulate(&file, 6_000)?;
    let config = config.display().to_string();
    let replay = |more: &[&str]| -> anyhow::Result<Value> {
        let file = file.display().to_string();
        let arguments = [&["replay", "--json", "--config", &config, &file][..], more].concat();
        let told = Running::start("sluice", &arguments)?.wait()?.succeeded()?;
        let mut report: Value = serde_json::from_str(&told.stdout)?;
        report.as_object_mut().and_then(|report| report.remove("seconds")).context("no seconds")?;
        Ok(report)
    };
    let first = replay(&[])?;
    expect_eq!(count(&first, "events"), lines.events);
    expect_eq!(count(&first, "examples") + count(&first, "duplicates"), lines.impressions);
    anyhow::ensure!(count(&first, "duplicates") > 0, "{first}");
    expect_eq!(replay(&[])?, first);
    let other = replay(&["--seed", "2"])?;
    anyhow::ensure!(other["checksum"] != first["checksum"], "the seed changes nothing: {other}");
    expect_eq!(other["examples"], first["examples"]);
    Ok(())
}

/// What a kill leaves is copied while the run has nothing to do; the run itself ends in order, uninterrupted.
fn a_start_after_a_kill() -> Outcome {
    for partitions in [1, 4] {
        let prefix = format!("repeated{partitions}");
        let site = Site::new(&*shared()?, &prefix, SMALL)?.with("CHECKPOINT__INTERVAL", "1h");
        site.make_topics(partitions)?;
        let (file, half) = (site.path("shop.jsonl"), site.path("half.jsonl"));
        shop::simulate(&file, 8_000)?;
        let text = std::fs::read_to_string(&file)?;
        let lines: Vec<&str> = text.lines().collect();
        let halves: Vec<String> =
            lines.chunks(lines.len().div_ceil(2)).map(|half| half.join("\n")).collect();
        std::fs::write(&half, &halves[0])?;
        let daemon = site.start(&[])?;
        site.produce(&half)?;
        daemon.wait_taken(shop::count(&halves[0]).events)?;
        daemon.stop()?;

        std::fs::write(&half, &halves[1])?;
        let daemon = site.start(&[])?;
        let producing = site.producing(&half, &["--rate", "8000"])?;
        producing.wait()?.succeeded()?;
        let events = shop::count(&text).events;
        daemon.wait_taken(events)?;
        // The oldest example has waited long enough: nothing waits for anything.
        std::thread::sleep(Duration::from_secs(1));
        let before = daemon.status()?;
        let (state, killed) = (site.path("state"), site.path("killed"));
        let copied = Command::new("cp").arg("-r").args([&state, &killed]).status()?;
        anyhow::ensure!(copied.success(), "the state is not copied");
        let uninterrupted = checksum(&daemon.stop()?.stderr)?;

        let site = site.with("CHECKPOINT__PATH", &killed.display().to_string());
        let daemon = site.start(&[])?;
        daemon.wait_taken(events)?;
        daemon.wait(|status| status["steps"] == before["steps"])?;
        let told = daemon.stop()?.stderr;
        let repeated = "repeated what was taken since the checkpoint";
        let records = field_of(&told, repeated, "records").context("nothing was repeated")?;
        anyhow::ensure!(records.parse::<usize>()? > lines.len() / 3, "{records} records");
        expect_eq!(checksum(&told)?, uninterrupted);
    }
    Ok(())
}

fn kills_lose_and_double_nothing() -> Outcome {
    let kafka = shared()?;
    let whole = Site::new(&kafka, "kills", SMALL)?;
    whole.make_topics(3)?;
    let file = whole.path("shop.jsonl");
    let lines = shop::simulate(&file, 20_000)?;
    // The same topics, another state.
    let killed = Site::new(&kafka, "kills", SMALL)?
        .with("KAFKA__GROUP", "killed")
        .with("CHECKPOINT__INTERVAL", "200ms");
    let producing = killed.producing(&file, &["--rate", "8000"])?;
    for part in [4, 2] {
        let daemon = killed.start(&[])?;
        daemon.wait(|status| {
            count(status, "events") > lines.events / part
                && field_of(&daemon.stderr(), "checkpoint", "number").is_some()
        })?;
        daemon.kill()?;
    }
    producing.wait()?.succeeded()?;
    let last = killed.start(&[])?;
    let after_kills = last.wait_taken(lines.events)?;
    anyhow::ensure!(
        field_of(&last.stderr(), "going on from a checkpoint", "number").is_some(),
        "it began anew: {}",
        last.stderr()
    );
    last.stop()?;

    let daemon = whole.start(&[])?;
    let uninterrupted = daemon.wait_taken(lines.events)?;
    daemon.stop()?;
    for name in [
        "events",
        "items",
        "users",
        "rejected",
        "impressions",
        "duplicates",
        "late",
        "orphaned",
        "open",
        "behaviours",
    ] {
        expect_eq!((name, count(&after_kills, name)), (name, count(&uninterrupted, name)));
    }
    expect_eq!(count(&after_kills, "events"), lines.events);
    let impressions = count(&after_kills, "impressions") + count(&after_kills, "duplicates");
    expect_eq!(impressions, lines.impressions);
    Ok(())
}

/// Returns the checksum that the daemon logs at its end.
fn checksum(log: &str) -> anyhow::Result<String> {
    let found = field_of(log, "everything taken is learned", "checksum");
    found.with_context(|| format!("no checksum in {log}"))
}

fn replay(site: &Site, more: &[&str]) -> anyhow::Result<Value> {
    let told = site.with_config("sluice", &[&["replay", "--json"], more].concat())?.wait()?;
    Ok(serde_json::from_str(&told.succeeded()?.stdout)?)
}
