//! What an operator changes between two runs or during one: the model, a bound, a topic's partitions.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::Context;

use crate::Test;
use crate::expect_eq;
use crate::harness::real_kafka::shared;
use crate::harness::shop::{self, SMALL};
use crate::harness::site::{Site, count};
use crate::harness::{Outcome, PATIENCE};

pub(crate) const TESTS: &[Test] = &[
    ("another_model_keeps_the_state_on_request_and_is_refused_without", another_model),
    ("a_task_added_before_further_behaviours_keeps_what_everybody_did", a_task_more),
    ("at_the_bound_of_open_impressions_reading_waits_and_answers_go_on", a_bound_that_is_reached),
    ("partitions_that_are_added_end_the_run_with_a_remedy", partitions_that_are_added),
];

fn another_model() -> Outcome {
    let site = Site::new(&*shared()?, "other", SMALL)?;
    site.make_topics(2)?;
    let (first, second) = (site.path("first.jsonl"), site.path("second.jsonl"));
    shop::simulate(&first, 6_000)?;
    let text = std::fs::read_to_string(&first)?;
    let (known, later) = text.split_at(text[..text.len() / 2].rfind('\n').context("no line")? + 1);
    std::fs::write(&first, known)?;
    std::fs::write(&second, later)?;
    site.produce(&first)?;
    let daemon = site.start(&[])?;
    let before = daemon.wait_taken(shop::count(known).events)?;
    daemon.stop()?;

    let site = site.with("MODEL__SHARING__HIDDEN", "[24, 8]");
    let refused = site.with_config("sluiced", &["run"])?.wait()?;
    expect_eq!(refused.code, Some(5));
    for word in ["another model", "--new-model"] {
        anyhow::ensure!(refused.stderr.contains(word), "{}", refused.stderr);
    }
    let daemon = site.start(&["--new-model"])?;
    let told = daemon.wait_ready(Some("model-cold"))?;
    anyhow::ensure!(told.contains("0 of 1000 examples are learned"), "{told}");
    let status = daemon.wait_taken(shop::count(known).events)?;
    for name in ["impressions", "open", "behaviours", "known_items", "late", "orphaned"] {
        expect_eq!((name, count(&status, name)), (name, count(&before, name)));
    }
    expect_eq!((count(&status, "rows"), count(&status, "steps")), (0, 0));
    site.produce(&second)?;
    let all = shop::count(&text).events;
    let status = daemon.wait_taken(all)?;
    expect_eq!(count(&status, "events"), all);
    anyhow::ensure!(count(&status, "steps") > 0 && count(&status, "rows") > 0, "{status}");
    daemon.stop()?;
    // From here on it is the model of the checkpoint.
    let daemon = site.start(&[])?;
    let steps = count(&daemon.wait_taken(all)?, "steps");
    anyhow::ensure!(steps >= count(&status, "steps"), "{steps} steps");
    daemon.stop().map(drop)
}

/// A funnel of `click`, of `like` after it where there is one, and the further behaviour `fav`.
fn funnel(like: bool) -> String {
    let task = |name: &str, more: &str| {
        format!(
            "[[funnel.tasks]]\nname = \"{name}\"\nwindow = \"30m\"\nlabels = \"wait\"\n{more}\n"
        )
    };
    let like = if like { task("like", "parent = \"click\"\nprior = 0.05") } else { String::new() };
    let click = task("click", "prior = 0.1");
    format!(
        "{SMALL}\n[funnel]\nbehaviours = [\"fav\"]\n{click}{like}[serve]\nscore = \"p.click\"\n"
    )
}

fn a_task_more() -> Outcome {
    let site = Site::new(&*shared()?, "tasks", &funnel(false))?;
    site.make_topics(2)?;
    // Everybody is shown four items, clicks at the first, and has another as a favourite.
    let users = 20;
    let mut lines = Vec::new();
    for user in 0..users {
        let mut line = |kind: &str, place: i64| {
            let (item, ts) = (user + place, 1_700_000_000_000 + 10_000 * user + 1_000 * place);
            lines.push(format!(
                "{{\"topic\":\"events\",\"type\":\"{kind}\",\"id\":\"{kind}{user}-{place}\",\"ts\":{ts},\"user\":\"u{user}\",\"item\":\"i{item}\"}}\n"
            ));
        };
        (0..4).for_each(|place| line("impression", place));
        line("click", 0);
        line("fav", 7);
    }
    let (file, events) = (site.path("events.jsonl"), lines.len() as u64);
    std::fs::write(&file, lines.concat())?;
    site.produce(&file)?;
    let daemon = site.start(&[])?;
    let before = daemon.wait_taken(events)?;
    expect_eq!(count(&before, "behaviours"), 2 * users as u64);
    daemon.stop()?;

    std::fs::write(site.path("sluice.toml"), funnel(true))?;
    let refused = site.with_config("sluiced", &["run"])?.wait()?;
    expect_eq!(refused.code, Some(5));
    for word in ["task like", "--new-model"] {
        anyhow::ensure!(refused.stderr.contains(word), "{}", refused.stderr);
    }
    let daemon = site.start(&["--new-model"])?;
    let status = daemon.wait_taken(events)?;
    expect_eq!(count(&status, "behaviours"), 2 * users as u64);
    daemon.wait_answering()?;
    // What was clicked and what is a favourite is not recommended: both are still known as what they were.
    let seen = |user: i64| [0, 7].map(|place| format!("\"i{}\"", user + place));
    for user in [0, 11] {
        let name = format!("u{user}");
        let query = ["query", "recommend", "--user", &name, "--k", "40", "--json"];
        let answer = site.with_config("sluice", &query)?.wait()?.succeeded()?.stdout;
        anyhow::ensure!(!seen(user).iter().any(|item| answer.contains(item)), "{answer}");
        anyhow::ensure!(answer.contains(&format!("\"i{}\"", user + 5)), "{answer}");
    }
    daemon.stop()?;
    // And back: the numbers are found again.
    std::fs::write(site.path("sluice.toml"), funnel(false))?;
    let daemon = site.start(&["--new-model"])?;
    expect_eq!(count(&daemon.wait_taken(events)?, "behaviours"), 2 * users as u64);
    daemon.stop().map(drop)
}

fn a_bound_that_is_reached() -> Outcome {
    let bound = "\n[open]\nmax_bytes = \"1MiB\"\n";
    let site = Site::new(&*shared()?, "bound", &format!("{SMALL}{bound}"))?;
    site.make_topics(2)?;
    let file = site.path("shop.jsonl");
    let lines = shop::simulate(&file, 20_000)?;
    site.produce(&file)?;
    let daemon = site.start(&[])?;
    let told = daemon.wait_ready(Some("open"))?;
    anyhow::ensure!(told.contains("open.max_bytes") && told.contains("larger bound"), "{told}");
    anyhow::ensure!(
        daemon.get("/metrics")?.1.contains("sluice_memory_paused{share=\"open\"} 1"),
        "not said"
    );
    let waiting = count(&daemon.status()?, "events");
    anyhow::ensure!(waiting > 0 && waiting < lines.events, "{waiting} of {}", lines.events);
    daemon.wait_answering()?;
    let query = ["query", "recommend", "--user", "u1", "--json"];
    site.with_config("sluice", &query)?.wait()?.succeeded()?;
    daemon.stop()?;

    let site = site.with("OPEN__MAX_BYTES", "64MiB");
    let daemon = site.start(&[])?;
    let status = daemon.wait_taken(lines.events)?;
    daemon.wait_ready(None)?;
    expect_eq!(count(&status, "events"), lines.events);
    let impressions = count(&status, "impressions") + count(&status, "duplicates");
    expect_eq!(impressions, lines.impressions);
    daemon.stop().map(drop)
}

fn partitions_that_are_added() -> Outcome {
    let kafka = shared()?;
    let site = Site::new(&kafka, "grown", SMALL)?;
    site.make_topics(2)?;
    let daemon = site.start(&[])?;
    daemon.wait_ready(None)?;
    add_partitions(&kafka.brokers(), &site.topic("events"), 3)?;
    let ended = daemon.ended()?;
    expect_eq!(ended.code, Some(2));
    for word in ["3 partitions, 2 at the start", "make new topics"] {
        anyhow::ensure!(ended.stderr.contains(word), "{}", ended.stderr);
    }
    Ok(())
}

/// Asks for more partitions of a topic: CreatePartitions (key 37) in version 0, by hand, for no tool of ours does that.
pub(crate) fn add_partitions(brokers: &str, topic: &str, count: i32) -> Outcome {
    let text = |text: &str| [&(text.len() as i16).to_be_bytes()[..], text.as_bytes()].concat();
    let request = [
        &37i16.to_be_bytes()[..],
        &0i16.to_be_bytes(),
        &1i32.to_be_bytes(),
        &text("test"),
        &1i32.to_be_bytes(),
        &text(topic),
        &count.to_be_bytes(),
        // No assignment, ten seconds, not only to validate.
        &(-1i32).to_be_bytes(),
        &10_000i32.to_be_bytes(),
        &[0],
    ]
    .concat();
    let mut stream = TcpStream::connect(brokers)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&(request.len() as i32).to_be_bytes())?;
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length))?];
    stream.read_exact(&mut answer)?;
    // Correlation, throttling, one topic with its name, then the error's code.
    let error = answer.get(14 + topic.len()..16 + topic.len()).context("too short")?;
    expect_eq!(error, [0, 0]);
    Ok(())
}
