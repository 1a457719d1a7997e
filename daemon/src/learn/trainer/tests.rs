//! What is judged, and rows that come and go with event time.

use std::collections::BTreeSet;

use serde_json::json;
use sluice_features::attribution::TaskSet;
use sluice_features::ids::{EventId, ItemId, UserId, salted_key};
use sluice_features::schema::{EventField, Source};
use sluice_features::wire::Topic;

use super::*;
use crate::capture::{Capture, Decision, Start};
use crate::clock::Clock;
use crate::config::{Config, Share};
use crate::parts;
use crate::pipeline::record::Record;
use crate::pipeline::work::Verdict;

#[test]
fn the_first_impressions_are_left_out_of_the_figures() {
    let config = Config::build("", &[]).unwrap();
    let mut judge = Judge::new(&config.funnel, Settings::default()).after(2);
    let mut work = LearnBatch::new(0, 0);
    let tasks: TaskSet = (0..3).collect();
    for impression in 1..=5 {
        let about = About {
            impression: EventId(impression),
            user: UserId(1),
            item: ItemId(1),
            time: EventTime(1000),
            new_item: false,
            offered: true,
        };
        work.batch.about.push(about);
        work.batch.modes.extend([LabelMode::FnwNegative; 3]);
        work.batch.groups.push(work.batch.groups.len() as u32);
        work.batch.labels.extend([0.0; 3]);
        work.roles.push(Role::Arrival);
        let labels = Labels::known(tasks, TaskSet::EMPTY);
        work.verdicts.push(Verdict { about, labels, last: true });
    }
    judge.take(&work, &[0.5; 15], &mut Vec::new());
    assert_eq!((judge.judged(), judge.unjudged(), judge.waiting()), (3, 0, 0));
    assert_eq!(judge.progressive().whole(0).all.examples, 3);
}

/// A model of users: what is said of an impression shows whose it was taken for.
const OF_USERS: &str = r#"
[funnel]
lateness = "10s"
[[funnel.tasks]]
name = "click"
window = "1m"
labels = "wait"
prior = 0.3
[features]
standard = ["user"]
[model.crossing]
name = "linear"
[model.sharing]
name = "none"
[model.funnel]
name = "independent"
[serve]
score = "p.click"
"#;

/// The judge after users whose impressions are numbered by `id`. Those with even numbers always click, the others never.
fn judged(id: impl Fn(usize, usize) -> String) -> (Trainer, u64) {
    const USERS: usize = 60;
    const ROUNDS: usize = 50;
    let config = Config::build(OF_USERS, &[]).unwrap();
    let mut offset = 0;
    let outcome = crate::replay::files(&config, &Clock::system(), |feed| {
        for i in 0..USERS * ROUNDS {
            // Users take turns, each time in another order: ids that are alike meet while their impressions are open.
            let (round, user) = (i / USERS, (i * 7 + i / USERS * 11) % USERS);
            let (time, id) = (START + 100 * i as i64, id(user, round));
            let event = |kind: &str, id: &str, time: i64, of: Option<&str>| {
                json!({"type": kind, "id": id, "ts": time, "user": format!("u{user}"), "item": "i", "impression": of})
            };
            let shown = event("impression", &id, time, None);
            let clicked = event("click", &format!("c{id}"), time + 50, Some(&id));
            for event in [Some(shown), Some(clicked).filter(|_| user % 2 == 0)].into_iter().flatten() {
                let mut event = event;
                event.as_object_mut().unwrap().retain(|_, value| !value.is_null());
                let value = event.to_string().into_bytes();
                let (topic, arrived) = (Topic::Events, EventTime(time + 60));
                let record =
                    Record { topic, partition: 0, offset, arrived, key: None, value: Some(&value) };
                feed.take(&record).unwrap();
                offset += 1;
            }
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(outcome.trainer.judge().waiting(), 0);
    (outcome.trainer, (USERS * ROUNDS) as u64)
}

#[test]
fn an_impressions_id_belongs_to_its_user() {
    let (unique, all) = judged(|user, round| format!("{user}/{round}"));
    assert_eq!((unique.judge().judged(), unique.judge().unjudged()), (all, 0));
    let figures = unique.judge().progressive().whole(0);
    assert!(figures.all.auc.unwrap() > 0.95, "{figures:?}");
    // Numbers of a session, the same number for all, and every id that of another user's next one.
    let ids: [fn(usize, usize) -> String; 3] = [
        |_, round| round.to_string(),
        |user, round| (round + user % 3).to_string(),
        |user, round| format!("{}", user + round),
    ];
    for id in ids {
        let (shared, _) = judged(id);
        assert_eq!((shared.judge().judged(), shared.judge().unjudged()), (all, 0));
        assert_eq!(shared.judge().progressive().whole(0), figures);
        assert_eq!(shared.checksum(), unique.checksum());
    }
}

/// The micro-batches of the era's records, all of them.
pub(crate) fn batches(config: &Config) -> Vec<LearnBatch> {
    let mut pipeline = parts::pipeline(config, 1);
    let mut batches = Vec::new();
    for i in 0..RECORDS {
        let (arrived, value) = message(i);
        let (topic, offset, value) = (Topic::Events, i as i64, Some(&value[..]));
        pipeline.take(&Record { topic, partition: 0, offset, arrived, key: None, value }).unwrap();
        while let Some(batch) = pipeline.next_batch() {
            batches.push(batch);
        }
    }
    batches
}

#[test]
fn refused_batches_stop_publishing_then_keeping_then_learning() {
    let config = Config::build(SHORT_LIVED, &[]).unwrap();
    let (batches, mut trainer) = (batches(&config), parts::trainer(&config).unwrap());
    assert!(batches.len() > 200);
    let labelled: usize = batches[..30].iter().map(|batch| trainer.work(batch).labelled).sum();
    let judge = trainer.judge();
    assert!(judge.guard().sound() && judge.cause().is_none());
    assert_eq!((judge.guard().not_to_keep(), judge.learned()), (None, labelled as u64));
    trainer.write(&mut Vec::new()).unwrap();
    trainer.spoil();
    for (refused, batch) in (1..).zip(&batches[30..30 + TOO_MANY as usize]) {
        let report = trainer.work(batch);
        assert!(report.refused && report.labelled > 0, "{refused}");
        let wanted = match refused {
            11 => Refusals::Breach,
            TOO_MANY => Refusals::TooMany,
            _ => Refusals::Quiet,
        };
        assert_eq!((refused, report.refusals), (refused, wanted));
        let guard = trainer.judge().guard();
        assert_eq!(guard.sound(), refused < 11);
        assert!(guard.not_to_keep().is_some(), "{refused}");
        assert_eq!(report.end().is_some(), refused == TOO_MANY);
        if let Some(stop) = report.end() {
            assert_eq!(stop.exit(), crate::error::Exit::Fault);
            assert!(stop.to_string().contains("--new-model"), "{stop}");
        }
    }
    assert_eq!(trainer.judge().learned(), labelled as u64, "nothing was learned of refused ones");
    assert!(trainer.judge().cause().unwrap().contains("100 batches were refused"));
    // A parameter that is no number is never written.
    let error = trainer.write(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("dense parameters"), "{error}");
}

/// A small model whose rows live for an hour.
pub(crate) const SHORT_LIVED: &str = r#"
[model]
width = 4
[model.interest]
name = "base"
limit = 5
[model.sharing]
name = "shared-bottom"
hidden = [8]
[model.funnel]
name = "independent"
tower = [4]
[retrieval]
width = 4
[learn]
batch = 32
[table]
expiry = "1h"
"#;
const START: i64 = 1_650_000_000_000;
/// Records of an era of 50 minutes, in which five items are shown; after five eras they come again.
const ERA: usize = 600;
const RECORDS: usize = 12 * ERA;

fn message(i: usize) -> (EventTime, Vec<u8>) {
    let (shown, time) = (i - i % 2, START + 5_000 * i as i64);
    let (user, item) = (shown % 7, 5 * (i / ERA % 5) + shown / 2 % 5);
    let message = match i % 2 {
        0 => json!({"type": "impression", "id": format!("e{i}"), "ts": time,
            "user": format!("u{user}"), "item": format!("i{item}")}),
        _ => json!({"type": "click", "id": format!("c{i}"), "ts": time,
            "user": format!("u{user}"), "item": format!("i{item}"), "impression": format!("e{shown}")}),
    };
    (EventTime(time), message.to_string().into_bytes())
}

/// Lives through all records, with batches cut now and then as by a clock, and calls `after` after each record.
fn live(
    config: &Config,
    mut capture: Option<Capture>,
    mut after: impl FnMut(usize, &mut Trainer),
) -> Trainer {
    let (mut pipeline, mut trainer) = (parts::pipeline(config, 1), parts::trainer(config).unwrap());
    for i in 0..RECORDS {
        let (arrived, value) = message(i);
        let (topic, offset) = (Topic::Events, i as i64);
        let (key, value) = (None, Some(&value[..]));
        let record = Record { topic, partition: 0, offset, arrived, key, value };
        if let Some(capture) = &mut capture {
            capture.record(&record);
        }
        pipeline.take(&record).unwrap();
        if i % 50 == 17 || i + 1 == RECORDS {
            if let Some(capture) = &mut capture {
                capture.decision(Decision::Cut);
            }
            pipeline.cut();
        }
        while let Some(batch) = pipeline.next_batch() {
            trainer.work(&batch);
        }
        after(i, &mut trainer);
    }
    if let Some(capture) = capture {
        capture.finish();
    }
    trainer
}

#[test]
fn a_row_that_was_not_used_for_long_goes_and_its_id_is_admitted_anew() {
    let config = Config::build(SHORT_LIVED, &[]).unwrap();
    let own = |field: &&sluice_features::schema::Field| {
        field.source == Source::Event(EventField::Item) && !field.is_number()
    };
    let field = config.schema.fields.iter().find(own).unwrap();
    let salt = config.schema.tables[field.table].salt();
    let key = salted_key(salt, ItemId::of("i0").0);
    let mut known = BTreeSet::new();
    let trainer = live(&config, None, |i, trainer| {
        let stores = trainer.learner().embeddings().stores();
        if stores.iter().any(|store| store.contains(key)) {
            known.insert(i / ERA);
        }
    });
    // It is shown in the eras 0, 5 and 10, and its row lives for an hour and at most a sixteenth of it.
    assert_eq!(Vec::from_iter(known), [0, 1, 2, 5, 6, 7, 10, 11]);
    let stats = trainer.learner().embeddings().stats();
    assert!(stats.expired > 50, "{stats:?}");
    assert_eq!(stats.admitted - stats.expired, stats.rows as u64);
    assert!(trainer.retriever().stats().rows.expired > 20);
}

#[test]
fn rows_expire_alike_live_in_a_replay_of_the_capture_and_after_a_restart() {
    let config = Config::build(SHORT_LIVED, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fingerprint = parts::setup(&config, 1, folder.path(), false).identity.fingerprint();
    let (seed, bounds) = (config.learn.seed, config.memory.bounds);
    let start = Start { partitions: 1, fingerprint, seed, threads: 1, bounds, resumed: false };
    let capture = Capture::create(folder.path(), 64 << 20, start, |_| Ok(())).unwrap();
    let trainer = live(&config, capture, |_, _| {});
    let replay = || {
        let outcome = crate::replay::captured(&config, folder.path(), &Clock::system()).unwrap();
        outcome.trainer.checksum()
    };
    assert_eq!(replay(), trainer.checksum());
    assert_eq!(replay(), trainer.checksum());
    // On a machine with other memory too, where a run of its own would learn something else.
    let mut less = bounds.with(Share::Ids, 10_000).with(Share::Counters, 2_000);
    less.rows = 1_000;
    let elsewhere = config.clone().bounded(less);
    let outcome = crate::replay::captured(&elsewhere, folder.path(), &Clock::system()).unwrap();
    assert_eq!(outcome.trainer.checksum(), trainer.checksum());
    assert_ne!(live(&elsewhere, None, |_, _| {}).checksum(), trainer.checksum());
    let restarted = live(&config, None, |i, trainer| {
        if i % 1_000 == 999 {
            let mut written = Vec::new();
            trainer.write(&mut written).unwrap();
            *trainer = parts::trainer(&config).unwrap();
            trainer.restore(parts::retriever_spec(&config), &mut &written[..]).unwrap();
        }
    });
    assert_eq!(restarted.checksum(), trainer.checksum());
}
