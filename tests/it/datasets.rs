//! Public data through a real Kafka: every row accounted for. The data lie in `SLUICE_DATA`, or beside the repository in `shared/data`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;

use crate::Test;
use crate::expect_eq;
use crate::harness::process::Running;
use crate::harness::real_kafka::shared;
use crate::harness::shop::SMALL;
use crate::harness::site::{Site, count};
use crate::harness::{Outcome, repository, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("kuairand_every_row_is_trained_refused_or_a_duplicate", kuairand),
    ("taobao_every_event_is_counted_and_orphans_are_known", taobao),
];

/// Rows of the KuaiRand log, and the distinct ones among them.
const KUAIRAND: (usize, usize) = (94_784, 92_034);
/// Events of the Taobao log.
const TAOBAO: usize = 110_300;
/// So many rows of the log come after the restart.
const MORE: usize = 1_000;

/// Says why the data cannot be used, if so.
pub(crate) fn missing() -> Option<String> {
    let folder = data();
    let lacking = ["kuairand", "taobao"].map(|name| folder.join(name));
    let lacking = lacking.iter().find(|folder| !folder.is_dir())?;
    Some(format!("{} is not there; SLUICE_DATA names the folder above it", lacking.display()))
}

fn data() -> PathBuf {
    let given = std::env::var_os("SLUICE_DATA").map(PathBuf::from);
    given.unwrap_or_else(|| repository().join("../shared/data"))
}

/// Imports a data set and returns its lines.
fn import(name: &str, from: &str) -> anyhow::Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let (file, from) = (folder.path().join("records.jsonl"), data().join(from));
    let [file_text, from] = [file.display().to_string(), from.display().to_string()];
    Running::start("sluice", &["import", name, &from, "--output", &file_text])?
        .wait()?
        .succeeded()?;
    Ok(std::fs::read_to_string(&file)?.lines().map(str::to_owned).collect())
}

fn is_of(line: &str, kind: &str) -> bool {
    line.contains(&format!("\"type\":\"{kind}\""))
}

fn kuairand() -> Outcome {
    let lines = import("kuairand", "kuairand")?;
    let impressions = |lines: &[String]| -> (usize, usize) {
        let ids = lines.iter().filter(|line| is_of(line, "impression"));
        let distinct: HashSet<&str> = ids.clone().map(String::as_str).collect();
        (ids.count(), distinct.len())
    };
    expect_eq!(impressions(&lines), KUAIRAND);

    // Items, users and most of the log; the rest of it comes after a restart.
    let mut rows = (0..lines.len()).filter(|place| is_of(&lines[*place], "impression"));
    let end = rows.nth(KUAIRAND.0 - MORE).context("too few rows")?;
    let (first, more) = lines.split_at(end);
    let config =
        std::fs::read_to_string(repository().join("ops/datasets/kuairand-reference.toml"))?;
    let site = Site::new(&*shared()?, "kuairand", &config)?;
    site.make_topics(4)?;
    let file = site.path("part.jsonl");
    let produce = |part: &[String]| -> Outcome {
        std::fs::write(&file, part.join("\n"))?;
        site.produce(&file)
    };
    let events = |lines: &[String]| {
        lines.iter().filter(|line| line.contains("\"topic\":\"events\"")).count() as u64
    };
    produce(first)?;
    let daemon = site.start(&[])?;
    let status = daemon.wait_taken(events(first))?;
    let (rows, distinct) = impressions(first);
    expect_eq!(rows, KUAIRAND.0 - MORE);
    let accounted = |status: &Value| {
        count(status, "impressions") + count(status, "rejected") + count(status, "duplicates")
    };
    expect_eq!(accounted(&status), rows as u64);
    expect_eq!(count(&status, "duplicates"), (rows - distinct) as u64);
    expect_eq!(count(&status, "rejected"), 0);
    expect_eq!(count(&status, "events"), events(first));
    daemon.stop()?;

    // It goes on from its own offsets: nothing is taken again, nothing forgotten.
    let daemon = site.start(&[])?;
    let again = daemon.wait_taken(events(first))?;
    for name in ["events", "items", "users", "impressions", "duplicates", "behaviours", "open"] {
        expect_eq!((name, count(&again, name)), (name, count(&status, name)));
    }
    expect_eq!(count(&again, "replayed"), 0);
    // Every impression was learned and judged, but those whose partition has seen nothing later.
    expect_eq!(count(&again, "judged") + count(&again, "open"), distinct as u64);
    expect_eq!(count(&again, "examples"), count(&again, "judged"));
    produce(more)?;
    let status = daemon.wait_taken(events(&lines))?;
    expect_eq!(accounted(&status), KUAIRAND.0 as u64);
    expect_eq!(count(&status, "impressions"), KUAIRAND.1 as u64);
    expect_eq!(count(&status, "duplicates"), (KUAIRAND.0 - KUAIRAND.1) as u64);
    expect_eq!(count(&status, "rejected"), 0);
    daemon.stop()?;
    Ok(())
}

fn taobao() -> Outcome {
    let lines = import("taobao", "taobao/user_behavior_timeorder_110k.csv.gz")?;
    let events: Vec<Value> = lines
        .iter()
        .filter(|line| line.contains("\"topic\":\"events\""))
        .map(|line| serde_json::from_str(line))
        .collect::<Result<_, _>>()?;
    expect_eq!(events.len(), TAOBAO);
    let config = std::fs::read_to_string(repository().join("ops/datasets/taobao.toml"))?;
    let site = Site::new(&*shared()?, "taobao", &format!("{config}\n{SMALL}"))?;
    site.make_topics(4)?;
    let file = site.path("taobao.jsonl");
    std::fs::write(&file, lines.join("\n"))?;
    site.produce(&file)?;
    let daemon = site.start(&[])?;
    let status = daemon.wait_taken(TAOBAO as u64)?;
    expect_eq!(count(&status, "events"), TAOBAO as u64);
    expect_eq!(count(&status, "rejected"), 0);
    expect_eq!(count(&status, "late"), 0);
    // Those whose window reaches beyond the log wait for a view until the clock closes it.
    let all = orphans(&events)?;
    wait_for("each outcome without a view is an orphan or waits", || {
        let orphaned = count(&daemon.status()?, "orphaned");
        let waiting = all.checked_sub(orphaned).context("too many orphans")?;
        let line = format!("sluice_join_early_behaviours {waiting}\n");
        Ok(daemon.get("/metrics")?.1.contains(&line).then_some(()))
    })?;
    anyhow::ensure!(count(&status, "orphaned") > 0, "none is an orphan: {status}");
    let mut types: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &events {
        *types.entry(event["type"].as_str().context("type")?).or_default() += 1;
    }
    for (name, expected) in types {
        let line = format!("sluice_events_taken_total{{type=\"{name}\"}} {expected}\n");
        wait_for(&line, || Ok(daemon.get("/metrics")?.1.contains(&line).then_some(())))?;
    }
    daemon.stop()?;
    Ok(())
}

/// Counts the distinct outcomes without a view of the same item by the same user within the window before them.
fn orphans(events: &[Value]) -> anyhow::Result<u64> {
    let hour = 3_600_000;
    let windows = BTreeMap::from([("cart", hour), ("favourite", hour), ("purchase", 24 * hour)]);
    let mut views: BTreeMap<(&str, &str), Vec<i64>> = BTreeMap::new();
    let (mut seen, mut orphans) = (BTreeSet::new(), 0);
    for event in events.iter().filter(|event| event["type"] == "view") {
        views.entry(subject(event)?).or_default().push(event["ts"].as_i64().context("ts")?);
    }
    for event in events.iter().filter(|event| event["type"] != "view") {
        let ts = event["ts"].as_i64().context("ts")?;
        let window = windows[event["type"].as_str().context("type")?];
        let within = |view: &i64| (0..=window).contains(&(ts - view));
        let views = views.get(&subject(event)?);
        let has_view = views.is_some_and(|views| views.iter().any(within));
        let id = event["id"].as_str().context("id")?;
        orphans += u64::from(seen.insert(id) && !has_view);
    }
    Ok(orphans)
}

fn subject(event: &Value) -> anyhow::Result<(&str, &str)> {
    Ok((event["user"].as_str().context("user")?, event["item"].as_str().context("item")?))
}
