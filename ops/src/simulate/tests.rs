use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::*;
use crate::wire::{decode, funnel};
use sluice_features::funnel::Entry;
use sluice_features::wire::Topic;

fn config(impressions: u64) -> ShopConfig {
    ShopConfig { impressions, ..ShopConfig::default() }
}

fn records(config: ShopConfig, seed: u64) -> Vec<Record> {
    Shop::new(config, seed).unwrap().collect()
}

fn message(record: &Record) -> Value {
    serde_json::from_str(&record.message).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_records_and_another_seed_others() {
    let first = records(config(5_000), 7);
    assert!(first == records(config(5_000), 7));
    assert!(first != records(config(5_000), 8));
}

#[test]
fn items_and_users_come_first_and_everything_in_the_order_of_time() {
    let all = records(config(20_000), 1);
    assert!(all.is_sorted_by_key(|record| record.ts));
    assert!(all[..2_000].iter().all(|record| record.topic == Topic::Items));
    assert!(all[2_000..4_000].iter().all(|record| record.topic == Topic::Users));
    assert!(all[4_000..].iter().all(|record| record.topic != Topic::Users));
    let keys: HashSet<_> = all[..4_000].iter().map(|record| &record.key).collect();
    assert_eq!(keys.len(), 4_000);
}

#[test]
fn a_request_shows_ten_different_items_on_offer() {
    let mut on_offer = HashSet::new();
    let mut requests: HashMap<String, HashSet<String>> = HashMap::new();
    for record in records(config(20_000), 1) {
        let said = message(&record);
        if record.topic == Topic::Items {
            if said["features"]["available"] == true {
                on_offer.insert(record.key.clone());
            } else {
                assert!(on_offer.remove(&record.key), "{} was not there", record.key);
            }
        }
        if said["type"] == "impression" {
            let item = said["item"].as_str().unwrap().to_owned();
            assert!(on_offer.contains(&item));
            let request = requests.entry(said["request"].as_str().unwrap().to_owned()).or_default();
            assert!(request.insert(item), "an item twice in {}", said["request"]);
            assert_eq!(said["position"], request.len());
        }
    }
    assert_eq!(on_offer.len(), 2_000);
    assert_eq!(requests.len(), 2_000);
    assert!(requests.values().all(|items| items.len() == 10));
}

#[test]
fn outcomes_happen_as_drawn_and_within_their_windows() {
    let mut shown: HashMap<String, (i64, String, Value, [bool; 3])> = HashMap::new();
    let mut happened = 0;
    let mut ids = HashSet::new();
    for record in records(config(60_000), 2) {
        let said = message(&record);
        if record.topic == Topic::Events {
            assert!(ids.insert(said["id"].as_str().unwrap().to_owned()), "{}", said["id"]);
        }
        if let Some(truth) = &record.truth {
            let Truth { ts, outcomes, .. } = *truth;
            assert_eq!((&said["id"], &said["ts"]), (&truth.impression.clone().into(), &ts.into()));
            shown
                .insert(truth.impression.clone(), (ts, record.key, said["item"].clone(), outcomes));
        } else if let Some((number, task)) = record.outcome {
            let impression = said["impression"].as_str().unwrap();
            let (ts, user, item, outcomes) = &shown[impression];
            assert_eq!(said["type"], TASKS[task]);
            assert_eq!((&record.key, &said["item"]), (user, item));
            assert_eq!(*item, format!("i{number}"));
            assert!(outcomes[task]);
            let window = [1_800_000, 86_400_000, 259_200_000][task];
            assert!((1..window).contains(&(record.ts - ts)), "{}", said["type"]);
            happened += 1;
        }
    }
    let drawn: usize =
        shown.values().map(|(.., outcomes)| outcomes.iter().filter(|hit| **hit).count()).sum();
    assert_eq!(drawn, happened);
    assert!(shown.values().all(|(.., [click, cart, purchase])| click >= cart && cart >= purchase));
}

/// The default shop's first 400,000 impressions.
#[test]
fn rates_are_those_of_a_shop_and_the_truth_is_calibrated() {
    let (mut shown, mut positives, mut expected, mut variance) =
        (0.0, [0.0; 3], [0.0; 3], [0.0; 3]);
    let mut judge = Judge::new(200_000);
    for record in Shop::new(config(400_000), 1).unwrap() {
        judge.take(&record);
        let Some(truth) = record.truth else { continue };
        shown += 1.0;
        for (task, p) in truth.p.in_order().into_iter().enumerate() {
            assert!(p > 0.0 && p < 1.0);
            positives[task] += f64::from(u8::from(truth.outcomes[task]));
            expected[task] += p;
            variance[task] += p * (1.0 - p);
        }
    }
    assert!((0.08..0.12).contains(&(positives[0] / shown)), "click {}", positives[0] / shown);
    assert!(positives[1] / shown > 0.01, "cart {}", positives[1] / shown);
    assert!(positives[2] / shown > 0.005, "purchase {}", positives[2] / shown);
    for task in 0..3 {
        let off = (positives[task] - expected[task]) / variance[task].sqrt();
        assert!(off.abs() < 4.0, "{}: {off} standard errors", TASKS[task]);
    }
    for figures in &judge.tasks {
        let (truth, popularity) = (figures.truth.value(), figures.popularity.value());
        assert!(popularity > 0.58 && truth > popularity + 0.1, "{judge}");
    }
}

#[test]
fn time_passes_at_the_pace_that_was_asked_for() {
    let all = records(config(300_000), 1);
    let (first, last) = all
        .iter()
        .filter(|record| record.truth.is_some())
        .fold((i64::MAX, i64::MIN), |(first, last), record| {
            (first.min(record.ts), last.max(record.ts))
        });
    let days = (last - first) as f64 / 86_400_000.0;
    assert!((days / 2.1 - 1.0).abs() < 0.1, "{days}");
    let start = ShopConfig::default().start;
    let new = all.iter().filter(|record| {
        let said = message(record);
        record.ts > start && said["features"]["created_ts"] == record.ts
    });
    let new = new.count() as f64;
    let expected = days * 40.0;
    assert!((new - expected).abs() < 4.0 * expected.sqrt(), "{new} new items in {days} days");
}

#[test]
fn mishaps_are_added_to_the_same_shop() {
    let clean = records(config(10_000), 3);
    let mishaps = ShopConfig { duplicates: 0.05, malformed: 0.02, ..config(10_000) };
    let (mut duplicates, mut malformed, mut rest) = (0.0, 0.0, Vec::new());
    for record in records(mishaps, 3) {
        let same = |last: &Record| last.message == record.message;
        if record.topic == Topic::Events && record.truth.is_none() && record.outcome.is_none() {
            if rest.last().is_some_and(same) { duplicates += 1.0 } else { malformed += 1.0 }
        } else {
            rest.push(record);
        }
    }
    assert!(rest == clean);
    let events = clean.iter().filter(|record| record.topic == Topic::Events).count() as f64;
    assert!((duplicates / events - 0.05).abs() < 0.01, "{duplicates} of {events}");
    assert!((malformed / events - 0.02).abs() < 0.006, "{malformed} of {events}");
}

#[test]
fn the_daemon_takes_every_record_but_the_malformed() {
    let tasks = [("click", None), ("cart", Some(0)), ("purchase", Some(1))];
    let funnel = funnel(Entry::Impression, "impression", &tasks, &[]);
    let mishaps = ShopConfig { malformed: 0.05, bots: 0.1, ..config(20_000) };
    let mut refused = 0;
    for record in records(mishaps, 3) {
        let mut line = Vec::new();
        record.write(&mut line).unwrap();
        let line = String::from_utf8(line).unwrap();
        let malformed =
            record.topic == Topic::Events && record.truth.is_none() && record.outcome.is_none();
        assert_eq!(decode(&line, &funnel).is_err(), malformed, "{line}");
        refused += u32::from(malformed);
    }
    assert!(refused > 100);
}

#[test]
fn bots_click_on_nearly_everything() {
    let (mut shown, mut clicks, mut all) = (0.0, 0.0, 0.0);
    for record in records(ShopConfig { bots: 0.2, ..config(50_000) }, 3) {
        let Some(truth) = record.truth else { continue };
        all += 1.0;
        if record.key.starts_with("bot") {
            shown += 1.0;
            clicks += f64::from(u8::from(truth.outcomes[0]));
        }
    }
    assert!((shown / all - 0.2_f64).abs() < 0.04, "{shown} of {all}");
    assert!((clicks / shown - 0.9_f64).abs() < 0.02, "{clicks} of {shown}");
}

#[test]
fn the_files_hold_the_records_and_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let (output, truth) =
        (folder.path().join("events.jsonl.zst"), folder.path().join("truth.jsonl"));
    run(&Arguments {
        seed: 5,
        shop: config(1_000),
        output: Some(output.clone()),
        truth: Some(truth.clone()),
        rate: Some(1e9),
    })
    .unwrap();
    let mut text = String::new();
    crate::files::for_each_line(&output, &Shutdown::new(), |_, _, line| {
        let crate::files::Line::Whole(line) = line else { unreachable!() };
        text.push_str(std::str::from_utf8(line)?);
        text.push('\n');
        Ok(())
    })
    .unwrap();
    let all = records(config(1_000), 5);
    assert_eq!(text.lines().count(), all.len());
    for (line, record) in text.lines().zip(&all) {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let topic = line.as_object_mut().unwrap().remove("topic").unwrap();
        assert_eq!(topic, record.topic.name());
        assert_eq!(line, message(record));
    }
    let text = std::fs::read_to_string(truth).unwrap();
    assert_eq!(text.lines().count(), 1_000);
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let known = all.iter().find_map(|record| record.truth.as_ref()).unwrap();
    assert_eq!(line["impression"], known.impression);
    assert_eq!(line["p"]["cart"].as_f64(), Some(known.p.cart));
    assert_eq!(line.as_object().unwrap().len(), 3);
}
