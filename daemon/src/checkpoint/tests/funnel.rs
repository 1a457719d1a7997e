//! Another funnel under a checkpoint: what everybody did is kept under its name.

use std::collections::BTreeMap;

use sluice_features::funnel::{Funnel, Task};
use sluice_features::ids::UserId;
use sluice_features::time::Span;

use super::*;

/// The same rules with another funnel. A task stands below the one before it.
fn with_funnel(rules: &Rules, tasks: &[&str], extras: &[&str]) -> Rules {
    let task = |(i, name): (usize, &&str)| Task {
        name: (*name).into(),
        parent: i.checked_sub(1),
        window: Span::seconds(60),
        labels: LabelRule::Fnw,
    };
    let tasks: Vec<Task> = tasks.iter().enumerate().map(task).collect();
    let extras = extras.iter().map(|name| String::from(*name)).collect();
    let mut rules = rules.clone();
    rules.schema.tasks = tasks.len();
    rules.funnel = Funnel::build(Entry::Impression, "impression", tasks, extras).unwrap();
    rules.schema.read = vec![true; rules.funnel.behaviours()];
    rules
}

/// How many behaviours there are of whatever type, configured or not.
fn behaviours(pipeline: &Pipeline) -> usize {
    pipeline.shards().iter().map(|shard| shard.sequences.behaviours()).sum()
}

/// What is read of the configured types of behaviour, by name: user, item, time.
fn histories(pipeline: &Pipeline) -> BTreeMap<String, Vec<(u64, u32, EventTime)>> {
    let (shared, funnel) = (pipeline.shared(), &pipeline.rules().funnel);
    let of = |(kind, name): (usize, &str)| {
        let only: Vec<bool> = (0..=kind).map(|i| i == kind).collect();
        let (read, mut found) = (shared.kinds.among(&only), Vec::new());
        for user in (0..4).map(|user| UserId::of(&format!("u{user}"))) {
            let past = pipeline.past(user);
            past.sequence.newest(EventTime::MAX, usize::MAX, &read, |entry| {
                found.push((user.0, entry.item, entry.time));
            });
        }
        (name.to_owned(), found)
    };
    funnel.behaviour_names().enumerate().map(of).collect()
}

#[test]
fn sequences_are_kept_whatever_becomes_of_the_funnel() {
    let plain = rules(Entry::Impression, LabelRule::Fnw);
    let plain = Rules { max_length: 100_000, ..plain };
    let (folder, partitions) = (tempfile::tempdir().unwrap(), 2);
    let mut rules = with_funnel(&plain, &["click"], &["look"]);
    let records = stream(31, RECORDS, partitions as u32, &rules);
    let mut setup = setup(folder.path(), &rules, partitions);
    let store: Arc<dyn Store> = Arc::<MemoryStore>::default();
    let again = |setup: &Setup, rules: &Rules| {
        Checkpoint::open_over(Arc::clone(&store), setup.clone(), rules.clone())
    };
    let mut opening = again(&setup, &rules).unwrap();
    let mut known: BTreeMap<String, Vec<(u64, u32, EventTime)>> = BTreeMap::new();
    let changes: [(&str, &[&str], &[&str]); 9] = [
        ("as it was", &["click"], &["look"]),
        ("a task more before the further behaviours", &["click", "cart"], &["look"]),
        ("a behaviour more, in front", &["click", "cart"], &["share", "look"]),
        ("a behaviour less", &["click", "cart"], &["look"]),
        ("tasks in another order", &["cart", "click"], &["look"]),
        ("a task renamed", &["basket", "click"], &["look"]),
        ("a task less", &["click"], &["look"]),
        ("a behaviour that becomes a task", &["look", "click"], &[]),
        ("names that come back", &["click"], &["cart", "look", "basket"]),
    ];
    let portions = records.chunks(RECORDS.div_ceil(changes.len()));
    for ((what, tasks, extras), portion) in changes.into_iter().zip(portions) {
        let other = with_funnel(&plain, tasks, extras);
        if other.funnel != rules.funnel {
            let (before, open) =
                (behaviours(&opening.pipeline), opening.pipeline.open_impressions());
            setup.identity = Identity::new(&other, vec!["sharing ple".into()]);
            let stop = again(&setup, &other).err().unwrap();
            assert_eq!(stop.exit(), Exit::Data, "{what}");
            assert!(
                stop.to_string().contains("start with --new-model to keep the state"),
                "{stop}"
            );
            setup.new_model = true;
            opening = again(&setup, &other).unwrap();
            setup.new_model = false;
            assert_eq!(behaviours(&opening.pipeline), before, "{what}");
            assert!(open > 0 && opening.pipeline.open_impressions() == 0, "{what}");
            assert_eq!(opening.resumed.as_ref().unwrap().dropped, open, "{what}");
        }
        rules = other;
        for (name, history) in histories(&opening.pipeline) {
            assert_eq!(&history, known.get(&name).unwrap_or(&Vec::new()), "{what}: {name}");
        }
        let mut batches = Vec::new();
        take(&mut opening.pipeline, portion, &mut batches);
        settle(&mut opening.pipeline, &mut batches);
        known.extend(histories(&opening.pipeline));
        for name in rules.funnel.behaviour_names().filter(|n| !["share", "basket"].contains(n)) {
            assert!(known[name].len() > 50, "{what}: {name}");
        }
        let cut = Cut::take(&mut opening.pipeline, Changes::default()).unwrap();
        let committed = opening.checkpoint.commit(
            cut,
            &clock(),
            afresh(|to: &mut dyn Write| to.write_all(b"x")),
        );
        assert!(matches!(committed.unwrap(), Outcome::Done(_)));
        let before = (histories(&opening.pipeline), tally(&opening.pipeline));
        opening = again(&setup, &rules).unwrap();
        assert!(
            opening.resumed.as_ref().unwrap().difference.is_none() && opening.parameters.is_some()
        );
        assert_eq!((histories(&opening.pipeline), tally(&opening.pipeline)), before, "{what}");
    }
}

#[test]
fn counters_are_kept_for_tasks_of_the_same_name_only() {
    let plain = rules(Entry::Impression, LabelRule::Fnw);
    let folder = tempfile::tempdir().unwrap();
    let rules = with_funnel(&plain, &["click", "cart"], &["look"]);
    let mut setup = setup(folder.path(), &rules, 1);
    let store: Arc<MemoryStore> = Arc::default();
    let mut run = Run::new(rules.clone(), setup.clone(), Place::Memory(store.clone()));
    run.take(&stream(3, 2_000, 1, &rules));
    run.commit();
    let counted = run.opening.pipeline.shared().counters.len();
    assert!(counted > 0);
    setup.new_model = true;
    // Both counters are of the first task.
    for (tasks, extras, expected) in [
        (&["click", "cart", "buy"][..], &["look"][..], counted),
        (&["click", "look"], &[], counted),
        (&["cart", "click"], &["look"], 0),
        (&["tap", "cart"], &["look"], 0),
    ] {
        let other = with_funnel(&plain, tasks, extras);
        setup.identity = Identity::new(&other, Vec::new());
        let store: Arc<dyn Store> = store.clone();
        let opening = Checkpoint::open_over(store, setup.clone(), other).unwrap();
        assert_eq!(opening.pipeline.shared().counters.len(), expected, "{tasks:?}");
    }
}

#[test]
fn beyond_two_hundred_names_of_behaviours_a_new_one_is_refused_and_nothing_is_put_aside() {
    let plain = rules(Entry::Impression, LabelRule::Fnw);
    let parent = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..199).map(|i| format!("n{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let full = with_funnel(&plain, &["click"], &names);
    let mut setup = setup(&parent.path().join("state"), &full, 1);
    let mut run = Run::new(full.clone(), setup.clone(), Place::Disk);
    run.take(&stream(2, 500, 1, &full));
    run.commit();
    drop(run);
    setup.new_model = true;
    let other = with_funnel(&plain, &["click", "cart"], &["look"]);
    let foreign = Setup { identity: Identity::new(&other, Vec::new()), ..setup.clone() };
    let stop = open(&Place::Disk, foreign, other).err().unwrap();
    assert_eq!(stop.exit(), Exit::Config);
    let told = crate::error::chain(&stop);
    assert!(
        told.contains("found 200 and the new cart, look") && told.contains("checkpoint.path"),
        "{told}"
    );
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
    let fewer = with_funnel(&plain, &["n5", "click"], &[]);
    setup.identity = Identity::new(&fewer, Vec::new());
    assert!(open(&Place::Disk, setup, fewer).is_ok());
}
