//! Names across checkpoints, kills and damage: a start has all of them, and only the strings of pages that fill.

use sluice_features::dictionary::Whereabouts;
use sluice_features::ids::{ItemId, UserId};
use sluice_features::wire::Role;

use super::*;

/// Two full pages, and one that fills.
const NAMES: usize = 600;

fn name(whose: Role, number: usize) -> String {
    format!("{}-{number}", whose.field())
}

/// Enters so many names of each kind.
fn enter(pipeline: &mut Pipeline, names: std::ops::Range<usize>) {
    let (shared, _) = pipeline.parts_mut(0);
    for number in names {
        let (item, user) = (name(Role::Item, number), name(Role::User, number));
        shared.enter_user(&user).unwrap();
        let first = EventTime(1_700_000_000_000 + 60_000 * (number as i64 % 7));
        shared.enter_item(ItemId::of(&item), &item, None, first).unwrap();
    }
}

/// Tells of features of so many items, each of which may be new.
fn tell(pipeline: &mut Pipeline, items: std::ops::Range<usize>, offset: i64) {
    for (offset, number) in (offset..).zip(items) {
        let value = format!(
            r#"{{"item":"{}","ts":1700000000000,"features":{{"category":"c{number}"}}}}"#,
            name(Role::Item, number)
        );
        let (topic, arrived) = (Topic::Items, EventTime(1_700_000_000_000));
        let value = Some(value.as_bytes());
        pipeline.take(&Record { topic, partition: 0, offset, arrived, key: None, value }).unwrap();
    }
}

/// Returns how many items have features.
fn told(pipeline: &Pipeline) -> usize {
    pipeline.shared().item_features.len()
}

/// Returns all that is in a store.
fn content(store: &dyn Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    let seen = store.scan_prefix(&[], &mut |key, value| {
        all.push((key.to_vec(), value.to_vec()));
        true
    });
    seen.unwrap();
    all
}

/// Hands changes on before their checkpoint.
fn ahead(run: &mut Run) {
    let mut changes = Changes::default();
    changes.gather(&mut run.opening.pipeline, usize::MAX).unwrap();
    run.opening.checkpoint.ahead(changes).unwrap();
}

#[test]
fn what_is_written_ahead_is_what_one_batch_would_have_written() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let rules = rules(Entry::Impression, LabelRule::Wait);
    let stores = folders.each_ref().map(|folder| {
        let plain = folder.path() == folders[0].path();
        let store = Arc::new(MemoryStore::default());
        let setup = setup(folder.path(), &rules, 1);
        let mut run = Run::new(rules.clone(), setup, Place::Memory(store.clone()));
        let steps = [0..400, 400..900, 300..950, 950..960, 700..2_000];
        for (step, items) in (0..).zip(steps) {
            run.opening.checkpoint.portion = if plain { usize::MAX } else { 3_000 };
            tell(&mut run.opening.pipeline, items.clone(), 5_000 * step);
            let before = content(&*store).len();
            ahead(&mut run);
            assert!(plain || step == 3 || content(&*store).len() > before, "step {step}");
            assert!(!plain || content(&*store).len() == before);
            tell(&mut run.opening.pipeline, items, 5_000 * step + 2_500);
            run.commit();
            if step == 2 {
                run = run.restart();
            }
        }
        let run = run.restart();
        assert_eq!(told(&run.opening.pipeline), 2_000);
        content(&*store)
    });
    let [plain, ahead] = stores;
    assert!(plain == ahead);
}

#[test]
fn what_was_written_ahead_of_a_checkpoint_that_never_came_counts_for_nothing() {
    for first in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let rules = rules(Entry::Impression, LabelRule::Wait);
        let store = Arc::new(MemoryStore::default());
        let setup = setup(folder.path(), &rules, 1);
        let mut run = Run::new(rules.clone(), setup.clone(), Place::Memory(store.clone()));
        let known = if first { 0 } else { NAMES };
        if !first {
            enter(&mut run.opening.pipeline, 0..NAMES);
            run.commit();
        }
        run.opening.checkpoint.portion = 3_000;
        tell(&mut run.opening.pipeline, NAMES..3 * NAMES, 0);
        let before = content(&*store).len();
        ahead(&mut run);
        assert!(content(&*store).len() > before);
        drop(run);
        let dynamic: Arc<dyn Store> = store.clone();
        let mut opening = Checkpoint::open_over(dynamic, setup.clone(), rules.clone()).unwrap();
        assert_eq!((opening.resumed.is_some(), told(&opening.pipeline)), (!first, 0));
        // The same items come without features, or fewer of them.
        let names = known + 2 * NAMES;
        enter(&mut opening.pipeline, known..names);
        let mut run =
            Run { rules, setup, place: Place::Memory(store.clone()), opening, batches: Vec::new() };
        run.commit();
        let mut run = run.restart();
        assert_eq!(told(&run.opening.pipeline), 0, "features of a run that was killed");
        run.opening = check(run.opening, names);
        assert_eq!(store.get(&keys::Meta::Ahead.key()).unwrap(), None);
        // A store that has lost its commits is told from one that never had any.
        drop(run);
        let mut batch = Batch::default();
        batch.delete(keys::Meta::Checkpoint.key());
        store.apply(batch).unwrap();
        std::fs::remove_file(folder.path().join("committed")).unwrap();
        let setup =
            super::setup(folder.path(), &super::rules(Entry::Impression, LabelRule::Wait), 1);
        let rules = super::rules(Entry::Impression, LabelRule::Wait);
        assert_eq!(Checkpoint::open_over(store, setup, rules).err().unwrap().exit(), Exit::Data);
    }
}

/// Makes sure that so many names are there, each with its string, and that their strings are read from the store but for pages that fill.
fn check(opening: Opening, names: usize) -> Opening {
    let Opening { checkpoint, pipeline, parameters, resumed } = opening;
    let pipeline = parking_lot::RwLock::new(pipeline);
    let reader = pipeline.read().names();
    for whose in [Role::Item, Role::User] {
        let numbers: Vec<u32> = (0..names as u32).collect();
        {
            let pipeline = pipeline.read();
            let dictionary = pipeline.shared().dictionary(whose);
            assert_eq!(dictionary.len(), names);
            for &number in &numbers {
                let text = name(whose, number as usize);
                let id = match whose {
                    Role::Item => ItemId::of(&text).0,
                    Role::User => UserId::of(&text).0,
                };
                assert_eq!((dictionary.number(id), dictionary.id(number)), (Some(number), id));
                assert!(dictionary.knows(id, &text));
                let fills = number as usize / 256 == names / 256;
                let found = dictionary.whereabouts(number);
                assert_eq!(matches!(found, Some(Whereabouts::Here(_))), fills, "{number}");
            }
        }
        let mut found = vec![String::new(); names];
        reader.find(&pipeline, whose, &numbers, |place, text| found[place].push_str(text)).unwrap();
        assert!(found.iter().enumerate().all(|(number, text)| *text == name(whose, number)));
    }
    Opening { checkpoint, pipeline: pipeline.into_inner(), parameters, resumed }
}

#[test]
fn a_start_has_all_names_and_reads_the_strings_when_they_are_asked_for() {
    for disk in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let rules = rules(Entry::Impression, LabelRule::Wait);
        let place = if disk { Place::Disk } else { Place::Memory(Arc::default()) };
        let mut run = Run::new(rules.clone(), setup(folder.path(), &rules, 1), place);
        enter(&mut run.opening.pipeline, 0..NAMES);
        run.commit();
        run.opening = check(run.opening, NAMES);
        let mut run = run.restart();
        run.opening = check(run.opening, NAMES);
        let first = run.opening.pipeline.shared().first_seen.clone();
        assert_eq!(first[5].0 - first[0].0, 300_000);
        // What no checkpoint has is gone with a kill, and its numbers are given again; a page that filled goes on filling.
        enter(&mut run.opening.pipeline, NAMES..2 * NAMES);
        let mut run = run.restart();
        run.opening = check(run.opening, NAMES);
        enter(&mut run.opening.pipeline, NAMES..3 * 256);
        run.commit();
        let mut run = run.restart();
        run.opening = check(run.opening, 3 * 256);
        enter(&mut run.opening.pipeline, 3 * 256..2 * NAMES);
        run.commit();
        // First sights change without the strings being there.
        run.opening.pipeline.parts_mut(0).0.seen_before(3, EventTime(5));
        let report = run.commit();
        assert_eq!(report.pieces, 1);
        let mut run = run.restart();
        assert_eq!(run.opening.pipeline.shared().first_seen[3], EventTime(5));
        run.opening = check(run.opening, 2 * NAMES);
        // A copy has all strings, those on disk too.
        let copy = tempfile::tempdir().unwrap();
        let to = copy.path().join("copy");
        let written = write_full(&to, &setup(&to, &rules, 1), &run.opening.pipeline, |_| Ok(()));
        written.unwrap();
        drop(run);
        let copied = Checkpoint::open(setup(&to, &rules, 1), rules, &clock()).unwrap();
        drop(check(copied, 2 * NAMES));
    }
}

#[test]
fn a_start_without_the_strings_of_a_page_that_fills_or_with_those_of_another_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let rules = rules(Entry::Impression, LabelRule::Wait);
    let store = Arc::new(MemoryStore::default());
    let setup = setup(folder.path(), &rules, 1);
    let mut run = Run::new(rules.clone(), setup.clone(), Place::Memory(store.clone()));
    enter(&mut run.opening.pipeline, 0..NAMES);
    run.commit();
    drop(run);
    let key = |page| keys::texts(keys::Kind::User, page);
    let right = store.get(&key(2)).unwrap().unwrap();
    let other = store.get(&key(1)).unwrap().unwrap();
    for value in [None, Some(&other), Some(&right[..9].to_vec())] {
        let mut batch = Batch::default();
        match value {
            Some(value) => batch.put(key(2), value),
            None => batch.delete(key(2)),
        }
        store.apply(batch).unwrap();
        let store: Arc<dyn Store> = store.clone();
        let stop = Checkpoint::open_over(store, setup.clone(), rules.clone()).err().unwrap();
        assert_eq!(stop.exit(), Exit::Data);
        assert!(crate::error::chain(&stop).contains("page 2 of the names of users"), "{stop:?}");
    }
    let mut batch = Batch::default();
    batch.put(key(2), right);
    store.apply(batch).unwrap();
    let store: Arc<dyn Store> = store;
    drop(check(Checkpoint::open_over(store, setup, rules).unwrap(), NAMES));
}
