use std::path::Path;

use super::chain::file;
use super::*;

fn turn(next: i64) -> Turn {
    Turn::new(Topic::Events, (next % 3) as u32, next, EventTime(1_700_000_000_000 + next))
}

/// Writes so many turns, each tenth with a cut before it.
fn write(journal: &mut Journal, turns: std::ops::Range<i64>) {
    for next in turns {
        if next % 10 == 0 {
            journal.decided(Decision::Cut);
        }
        journal.took(turn(next));
    }
}

fn steps(turns: std::ops::Range<i64>) -> Vec<Step> {
    let step = |next| {
        let cut = (next % 10 == 0).then_some(Step::Decided(Decision::Cut));
        cut.into_iter().chain([Step::Took(turn(next))])
    };
    turns.flat_map(step).collect()
}

fn found(folder: &Path, number: u64) -> Vec<Step> {
    Journal::open(folder, Some([1, number])).unwrap().1.map(Result::unwrap).collect()
}

#[test]
fn a_start_finds_the_steps_behind_its_checkpoint_over_several_files() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, chain) = Journal::open(folder.path(), None).unwrap();
    assert!(chain.is_empty());
    write(&mut journal, 1..20);
    let first = journal.turn_over();
    write(&mut journal, 20..30);
    // A checkpoint that did not come into force.
    let second = journal.turn_over();
    write(&mut journal, 30..40);
    drop(journal);
    assert_eq!(found(folder.path(), first), steps(20..40));
    assert_eq!(found(folder.path(), second), steps(30..40));
    let (mut journal, chain) = Journal::open(folder.path(), Some([first; 2])).unwrap();
    let ends: Vec<_> = chain.ends().values().copied().collect();
    assert_eq!((ends, chain.len()), (vec![39, 37, 38], steps(20..40).len() as u64));
    // The run that goes on writes behind what it repeats.
    write(&mut journal, 40..45);
    drop(journal);
    assert_eq!(found(folder.path(), first), steps(20..45));
    // Without a checkpoint nothing of it counts.
    let (_, chain) = Journal::open(folder.path(), None).unwrap();
    assert!(chain.is_empty() && found(folder.path(), first).is_empty());
}

#[test]
fn a_turn_takes_about_twenty_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path(), None).unwrap();
    let before = journal.bytes().unwrap();
    write(&mut journal, 4_000_000_000..4_000_001_000);
    let each = (journal.bytes().unwrap() - before) as f64 / 1000.0;
    assert!((18.0..=24.0).contains(&each), "{each} bytes, as the README says");
}

#[test]
fn what_is_torn_ends_what_is_repeated_whatever_follows() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path(), Some([7; 2])).unwrap();
    write(&mut journal, 1..15);
    let next = journal.turn_over();
    write(&mut journal, 15..20);
    drop(journal);
    let (first, second) = (file(folder.path(), 7), file(folder.path(), next));
    let [whole, behind] = [&first, &second].map(|path| std::fs::read(path).unwrap());
    for cut in 0..whole.len() {
        std::fs::write(&first, &whole[..cut]).unwrap();
        std::fs::write(&second, &behind).unwrap();
        let sound = found(folder.path(), 7);
        assert!(sound.len() < 16 && sound == steps(1..20)[..sound.len()], "{cut}: {sound:?}");
        assert!(!second.exists(), "{cut}: it would be taken for what goes on");
        let (mut journal, _) = Journal::open(folder.path(), Some([7; 2])).unwrap();
        journal.took(turn(99));
        drop(journal);
        assert_eq!(found(folder.path(), 7), [&sound[..], &[Step::Took(turn(99))]].concat());
    }
    // Nor does whatever stands in its place.
    for bytes in [&[0; 4096][..], b"something else", b"SLUICEJ"] {
        std::fs::write(&first, bytes).unwrap();
        assert!(found(folder.path(), 7).is_empty());
        let (mut journal, _) = Journal::open(folder.path(), Some([7; 2])).unwrap();
        journal.took(turn(99));
        drop(journal);
        assert_eq!(found(folder.path(), 7), [Step::Took(turn(99))]);
    }
    // Without the first nothing can be repeated.
    std::fs::write(&second, &behind).unwrap();
    std::fs::remove_file(&first).unwrap();
    assert!(found(folder.path(), 7).is_empty());
}

#[test]
fn what_is_in_its_way_is_told_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(file(folder.path(), 7)).unwrap();
    for numbers in [[7, 7], [3, 3], [8, 9]] {
        let stop = Journal::open(folder.path(), Some(numbers)).unwrap_err();
        assert_eq!(stop.exit(), crate::error::Exit::Config, "{stop}");
        assert!(stop.to_string().contains("remove it"), "{stop}");
    }
}

#[test]
fn it_is_bounded_and_goes_on_with_the_next_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let most = 2_000;
    let (mut journal, _) = Journal::open_within(folder.path(), Some([1; 2]), most).unwrap();
    write(&mut journal, 1..500);
    assert_eq!(journal.bytes(), None);
    let taken = found(folder.path(), 1).len();
    assert!(taken > 20 && taken < 200, "{taken}");
    // The checkpoint that was begun is not in force: there is no room yet.
    let (before, now) = (1, journal.turn_over());
    write(&mut journal, 500..501);
    assert_eq!((journal.bytes(), found(folder.path(), 1).len()), (None, taken));
    let now = journal.turn_over().max(now);
    journal.retain(before, now);
    let again = journal.turn_over();
    journal.retain(now, again);
    write(&mut journal, 501..510);
    assert!(journal.bytes().is_some_and(|bytes| bytes < most));
    drop(journal);
    assert_eq!(found(folder.path(), again), steps(501..510));
    let kept: u64 = std::fs::read_dir(folder.path()).unwrap().count() as u64;
    assert!(kept <= again - now + 1, "{kept} files");
}
