//! Tests of one meaning: a row holds what was knowable when its impression happened, and no clock that nobody confirms moves anything. On random
//! items and random labels nothing can be learned.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use sluice_features::time::EventTime;

use super::Pipeline;
use super::record::Record;
use super::work::LearnBatch;
use crate::config::Config;
use crate::parts;
use crate::testing::played::{Played, Sent};

const START: i64 = 1_650_000_000_000;

/// A linear model that learns one example after the other: it finds whatever a counter tells. `more` declares counters and fields.
fn linear(entry: &str, labels: &str, more: &str) -> String {
    let (funnel, first) = match entry {
        "view" => ("entry = \"view\"\nnegatives = 4\n", "view"),
        _ => ("", "click"),
    };
    let (window, prior) = if entry == "view" { ("0s", 0.2) } else { ("30m", 0.3) };
    let rule = if entry == "view" { "wait" } else { labels };
    format!(
        r#"
[funnel]
lateness = "5m"
{funnel}
[[funnel.tasks]]
name = "{first}"
window = "{window}"
labels = "{rule}"
prior = {prior}

[[funnel.tasks]]
name = "cart"
{}
window = "1h"
labels = "{labels}"
prior = 0.1

[features]
standard = ["hour"]

[model.crossing]
name = "linear"
[model.sharing]
name = "none"
[model.funnel]
name = "independent"
[serve]
score = "p.{first}"
{more}
"#,
        if entry == "view" { "" } else { "parent = \"click\"" }
    )
}

/// Counters by everything, of both tasks, in every reading.
fn all_counters(first: &str) -> String {
    let mut all = String::new();
    for task in [first, "cart"] {
        for by in [
            "\"user\"",
            "\"item\"",
            "\"category\"",
            "\"surface\"",
            "\"user\", \"category\"",
            "\"item\", \"surface\"",
        ] {
            for read in ["log-odds", "count", "any"] {
                all += &format!(
                    "[[counters]]\ntask = \"{task}\"\nby = [{by}]\nread = \"{read}\"\nhalf_life = \"30m\"\n"
                );
            }
        }
    }
    all
}

/// How a log reaches the pipeline.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    /// In the order of time.
    InTime,
    /// Half of the users 4 minutes late: within the lateness.
    Late,
    /// From four partitions, one after the other ahead by an hour.
    Backlog,
}

/// A log of random users, items and labels. Items change their category at random.
fn noise(entry: &str, arrival: Arrival, seed: u64) -> Vec<Sent> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut log: Vec<(i64, Sent)> = Vec::new();
    let mut time = START;
    for item in 0..80 {
        let features = json!({"category": random.random_range(0..8).to_string()});
        log.push((
            START,
            Sent::item(json!({"item": format!("i{item}"), "ts": START, "features": features})),
        ));
    }
    for k in 0..6_000 {
        time += random.random_range(0..3_000);
        let (user, item) = (random.random_range(0..400), random.random_range(0..80));
        let partition = user % 4;
        let key = json!({"user": format!("u{user}"), "item": format!("i{item}")});
        let event = |kind: &str, id: String, ts: i64| {
            let mut message = key.clone();
            message["type"] = json!(kind);
            message["id"] = json!(id);
            message["ts"] = json!(ts);
            if kind == entry {
                message["surface"] = json!(format!("s{}", k % 3));
            } else {
                message["impression"] = json!(format!("r{k}"));
            }
            Sent { partition, ..Sent::event(message) }
        };
        log.push((time, event(entry, format!("r{k}"), time)));
        let click = time + random.random_range(1..600_000);
        let clicked = entry == "view" || random.random_bool(0.3);
        if clicked && entry != "view" {
            log.push((click, event("click", format!("c{k}"), click)));
        }
        if clicked && random.random_bool(0.4) {
            let cart = click + random.random_range(1..600_000);
            log.push((cart, event("cart", format!("k{k}"), cart)));
        }
        if k % 10 == 0 {
            let features = json!({"category": random.random_range(0..8).to_string()});
            log.push((
                time,
                Sent::item(json!({"item": format!("i{item}"), "ts": time, "features": features})),
            ));
        }
    }
    log.sort_by_key(|(time, sent)| match arrival {
        Arrival::InTime => *time,
        Arrival::Late => time + i64::from(sent.partition % 2) * 240_000,
        Arrival::Backlog => (time - START) / 3_600_000 * 4 + i64::from(sent.partition),
    });
    log.into_iter().map(|(_, sent)| sent).collect()
}

fn partitions(arrival: Arrival) -> usize {
    if matches!(arrival, Arrival::Backlog) { 4 } else { 1 }
}

/// A deep model that reads who, what and what was done before.
const DEEP: &str = r#"
[features]
standard = ["hour", "item", "category", "surface"]
[model]
width = 4
[model.interest]
name = "din"
limit = 10
[model.crossing]
name = "none"
[model.sharing]
name = "shared-bottom"
hidden = [8]
[model.funnel]
name = "esmm"
tower = [8]
[learn]
batch = 32
"#;

#[test]
fn on_noise_nothing_is_learned() {
    for arrival in [Arrival::InTime, Arrival::Late, Arrival::Backlog] {
        for (entry, first) in [("impression", "click"), ("view", "view")] {
            for labels in ["wait", "fnw"] {
                let config = linear(entry, labels, &all_counters(first));
                let played = Played::new(&config, partitions(arrival), &noise(entry, arrival, 1));
                for task in [first, "cart"] {
                    played.assert_noise(task, &format!("{entry} {labels} {arrival:?}"));
                }
            }
        }
    }
}

#[test]
fn on_noise_a_deep_model_with_histories_learns_nothing() {
    for arrival in [Arrival::InTime, Arrival::Late, Arrival::Backlog] {
        for (entry, first) in [("impression", "click"), ("view", "view")] {
            let config = linear(entry, "fnw", "");
            let (funnel, rest) = config.split_once("[features]").unwrap();
            let serve = &rest[rest.find("[serve]").unwrap()..];
            let config = format!("{funnel}{DEEP}{serve}{}", all_counters(first));
            let played = Played::new(&config, partitions(arrival), &noise(entry, arrival, 2));
            for task in [first, "cart"] {
                played.assert_noise(task, &format!("deep {entry} {arrival:?}"));
            }
        }
    }
}

/// What is learned of an impression when its windows close is the row of which its prediction was made, whatever was counted and done since.
#[test]
fn the_row_that_is_learned_is_the_row_that_was_predicted() {
    let config = linear("impression", "wait", "");
    let (funnel, rest) = config.split_once("[features]").unwrap();
    let serve = &rest[rest.find("[serve]").unwrap()..];
    let config = format!("{funnel}{DEEP}{serve}{}", all_counters("click"));
    let config = Config::build(&config, &[]).unwrap();
    let mut pipeline = parts::pipeline(&config, 1);
    let (mut rows, mut again, mut longest) = (HashMap::new(), 0, 0);
    let mut compare = |pipeline: &mut Pipeline| {
        while let Some(LearnBatch { batch, .. }) = pipeline.next_batch() {
            for (i, about) in batch.about.iter().enumerate() {
                let fields = batch.keys.len() / batch.size();
                let mut row = batch.keys[i * fields..(i + 1) * fields].to_vec();
                let numbers = batch.numbers.len() / batch.size();
                let of_row = &batch.numbers[i * numbers..(i + 1) * numbers];
                row.extend(of_row.iter().map(|number| u64::from(number.to_bits())));
                for history in &batch.histories {
                    let of_row = history.starts[i] as usize..history.starts[i + 1] as usize;
                    longest = longest.max(of_row.len());
                    row.extend(&history.items[of_row.clone()]);
                    row.extend(&history.categories[of_row]);
                }
                if let Some(before) = rows.get(&about.impression) {
                    assert_eq!(&row, before, "{:?}", about.impression);
                    again += 1;
                }
                rows.insert(about.impression, row);
            }
        }
    };
    for (offset, sent) in (0..).zip(noise("impression", Arrival::InTime, 3)) {
        let value = serde_json::to_vec(&sent.message).unwrap();
        let (topic, arrived, value) = (sent.topic, EventTime(sent.arrived), Some(&value[..]));
        pipeline.take(&Record { topic, partition: 0, offset, arrived, key: None, value }).unwrap();
        compare(&mut pipeline);
    }
    pipeline.finish();
    pipeline.cut();
    compare(&mut pipeline);
    assert!(again > 10_000 && longest == 10, "{again} rows came again, of up to {longest} items");
}

fn event(kind: &str, id: String, ts: i64, user: &str, item: &str, of: Option<&str>) -> Sent {
    let mut message =
        json!({"type": kind, "id": id, "ts": ts, "user": user, "item": item, "surface": "home"});
    if let Some(impression) = of {
        message.as_object_mut().unwrap().remove("surface");
        message["impression"] = json!(impression);
    }
    Sent::event(message)
}

const BY_USER: &str = "[[counters]]\nby = [\"user\"]\n";
const BY_ITEM: &str = "[[counters]]\nby = [\"item\"]\nhalf_life = \"1h\"\n";

/// Views of random items by users who view twice: the counter of views by user told the view, which was counted, from its negatives, which were not.
#[test]
fn a_view_is_not_told_from_its_negatives_by_being_counted() {
    let mut random = StdRng::seed_from_u64(1);
    let log: Vec<Sent> = (0..8_000)
        .map(|k| {
            let (user, item) = (random.random_range(0..4_000), random.random_range(0..300));
            let (user, item) = (format!("u{user}"), format!("i{item}"));
            event("view", format!("v{k}"), START + k * 1500, &user, &item, None)
        })
        .collect();
    for counters in [BY_USER, BY_ITEM, "[[counters]]\nby = [\"surface\"]\n"] {
        let played = Played::new(&linear("view", "wait", counters), 1, &log);
        played.assert_noise("view", counters);
        let view = played.figures("view").all;
        let calibration = view.calibration.unwrap();
        assert!((0.97..1.03).contains(&calibration), "the prior is the sample's: {calibration}");
    }
}

/// 20 of 400 items have most of the views: whatever counts views must tell.
#[test]
fn views_count_for_their_item() {
    let mut random = StdRng::seed_from_u64(6);
    let log: Vec<Sent> = (0..6_000)
        .map(|k| {
            let hit = random.random_bool(0.95);
            let item = if hit { random.random_range(0..20) } else { random.random_range(20..400) };
            let user = format!("u{}", random.random_range(0..800));
            event("view", format!("v{k}"), START + k * 1000, &user, &format!("i{item}"), None)
        })
        .collect();
    for read in ["count", "any", "log-odds"] {
        let counter =
            format!("[[counters]]\ntask = \"view\"\nby = [\"item\"]\nread = \"{read}\"\n");
        let played = Played::new(&linear("view", "wait", &counter), 1, &log);
        let auc = played.auc("view");
        assert!(auc > 0.9, "{read}: {auc}");
        let popular = played.pipeline.shared().popular.overall()[..20].to_vec();
        let items = &played.pipeline.shared().items;
        let hits: Vec<u32> = (0..20)
            .filter_map(|i| items.number(sluice_features::ids::ItemId::of(&format!("i{i}")).0))
            .collect();
        assert!(popular.iter().all(|item| hits.contains(item)), "{popular:?} {hits:?}");
    }
}

/// 40 items, half of which are clicked often, seen by 500 users. `more` adds events at the second given.
fn items_that_differ(seconds: i64, mut more: impl FnMut(i64, &mut Vec<Sent>)) -> Vec<Sent> {
    let mut random = StdRng::seed_from_u64(2);
    let mut log = Vec::new();
    for k in 0..seconds {
        let ts = START + k * 1000;
        let (item, user) = (random.random_range(0..40), random.random_range(0..500));
        let (item, user) = (item, format!("u{user}"));
        let shown = format!("r{k}");
        let name = format!("i{item}");
        log.push(event("impression", shown.clone(), ts, &user, &name, None));
        if random.random_bool(if item < 20 { 0.6 } else { 0.05 }) {
            log.push(event("click", format!("c{k}"), ts + 500, &user, &name, Some(&shown)));
        }
        more(k, &mut log);
    }
    log
}

/// One clock or forty, 20 hours or a year ahead, in a log of the past or live, at the start or in the middle: what is learned is what is learned
/// without them.
#[test]
fn a_wrong_clock_moves_nothing() {
    const HOURS: i64 = 3_600_000;
    let config = linear("impression", "wait", BY_ITEM);
    let good = items_that_differ(6_000, |_, _| {});
    let live = |mut log: Vec<Sent>| {
        let mut clock = 0;
        for sent in &mut log {
            let time = sent.message["ts"].as_i64().unwrap();
            clock = if time - clock > HOURS && clock > 0 { clock } else { time };
            sent.arrived = clock + 20;
        }
        log
    };
    let right = Played::new(&config, 1, &good);
    for (ahead, at, users, bad) in [
        (20 * HOURS, 3_000, 1, 40),
        (24 * 365 * HOURS, 300, 1, 1),
        (24 * 365 * HOURS, 0, 1, 1),
        (24 * 365 * HOURS, 300, 3, 3),
        (2 * HOURS, 2_000, 50, 1),
    ] {
        let log = items_that_differ(6_000, |k, log| {
            let wrong = (0..bad)
                .filter(|n| if users > 3 { k > at && k % 40 == 0 } else { k == at && *n < bad });
            for n in wrong {
                let (user, item) = (format!("bad{}", (k + n) % users), format!("i{n}"));
                let id = format!("bad{k}/{n}");
                let place = if at == 0 { 0 } else { log.len() };
                log.insert(
                    place,
                    event("impression", id, START + k * 1000 + ahead, &user, &item, None),
                );
            }
        });
        let log = if ahead == 20 * HOURS { live(log) } else { log };
        let played = Played::new(&config, 1, &log);
        let what = format!("{ahead} ms ahead at {at}");
        let (found, wanted) = (played.auc("click"), right.auc("click"));
        assert!((found - wanted).abs() < 0.01, "{what}: {found} instead of {wanted}");
        let counts = played.pipeline.join_counts();
        assert_eq!(counts.kinds[0].late, 0, "{what}");
        assert_eq!(counts.kinds[0].attributed, right.pipeline.join_counts().kinds[0].attributed);
        assert!(played.pipeline.counts().skewed + played.pipeline.counts().jumped > 0, "{what}");
        let newest = right.pipeline.shards()[0].watermark.newest();
        assert_eq!(played.pipeline.shards()[0].watermark.newest(), newest, "{what}");
        let windows = played.trainer.judge().progressive().windows();
        assert!(windows.iter().all(|window| window.start <= newest), "{what}");
    }
}

/// New items, each a hit or a miss by a coin, seen by group A at `t` and by B a minute later; clicks come two minutes after. A's impressions arrive four
/// minutes late, when B's clicks have been counted: nobody knew them.
#[test]
fn counters_do_not_look_ahead_of_a_late_impression() {
    let mut random = StdRng::seed_from_u64(4);
    let mut log: Vec<(i64, Sent)> = Vec::new();
    for item in 0..1_000_i64 {
        let hit = random.random_bool(0.5);
        for (group, wait) in [("A", 0), ("B", 60_000)] {
            for n in 0..6 {
                let time = START + item * 5_000 + wait + n;
                let (shown, user) =
                    (format!("{group}{item}/{n}"), format!("{group}{}", (item * 7 + n) % 400));
                let arrives = if group == "A" { 240_000 } else { 0 };
                let name = format!("i{item}");
                log.push((
                    time + arrives,
                    event("impression", shown.clone(), time, &user, &name, None),
                ));
                if hit {
                    let click = time + 120_000;
                    let sent =
                        event("click", format!("c{shown}"), click, &user, &name, Some(&shown));
                    log.push((click + arrives, sent));
                }
            }
        }
    }
    log.sort_by_key(|(arrives, _)| *arrives);
    let log: Vec<Sent> = log.into_iter().map(|(_, sent)| sent).collect();
    let played = Played::new(&linear("impression", "wait", BY_ITEM), 1, &log);
    played.assert_noise("click", "late by four minutes");
    assert_eq!(played.pipeline.counts().untold_counters, 0);
}

/// A receiver whose clock is half an hour slow: all that comes is too far ahead, and is counted all the same.
#[test]
fn counters_count_while_no_time_is_plausible_yet() {
    let mut log = items_that_differ(600, |_, _| {});
    for sent in &mut log {
        sent.arrived = sent.message["ts"].as_i64().unwrap() - 1_800_000;
    }
    let played = Played::new(&linear("impression", "fnw", BY_ITEM), 1, &log);
    assert_eq!(played.pipeline.counts().skewed, log.len() as u64);
    let item = sluice_features::ids::ItemId::of("i1").0;
    let subjects = sluice_features::counters::Subjects { item, ..Default::default() };
    let later = sluice_features::time::EventTime(START + 600_000);
    let read = played.pipeline.shared().counters.read(0, &subjects, None, later).unwrap();
    assert!(read > 0.3, "an item that is clicked often: {read}");
}
