//! A replayed run equals the live one; what is torn or cut off at the bound is a sound beginning.

use std::io::Write;

use sluice_features::funnel::{Entry as Opens, LabelRule};

use super::*;
use crate::checkpoint::{Checkpoint, Identity, Setup, write_full};
use crate::clock::Clock;
use crate::pipeline::Rules;
use crate::pipeline::work::LearnBatch;
use crate::testing::stream::{assert_same, fetch, rules, settle, stream, tally};

const BOUND: u64 = 64 << 20;

fn fnw() -> Rules {
    rules(Opens::Impression, LabelRule::Fnw)
}

fn start(resumed: bool) -> Start {
    let bounds = crate::testing::bounds();
    Start { partitions: 2, fingerprint: 5, seed: 11, threads: 1, bounds, resumed }
}

fn new(folder: &Path, bound: u64) -> Capture {
    Capture::create(folder, bound, start(false), |_| Ok(())).unwrap().expect("room")
}

/// Runs records live, with decisions that only a clock would make, and captures all of it.
fn live(
    pipeline: &mut Pipeline,
    seed: u64,
    from: usize,
    to: usize,
    mut capture: Option<&mut Capture>,
) -> Vec<LearnBatch> {
    let mut batches = Vec::new();
    for (i, owned) in stream(seed, to, 2, &fnw()).iter().enumerate().skip(from) {
        let record = owned.record();
        if let Some(capture) = &mut capture {
            capture.record(&record);
        }
        // The fate is in the counts.
        drop(pipeline.take(&record));
        let decision = match i % 50 {
            17 => Decision::Cut,
            31 => Decision::Quiet { partition: record.partition, time: record.arrived },
            _ => continue,
        };
        if let Some(capture) = &mut capture {
            capture.decision(decision);
        }
        decision.apply(pipeline);
        fetch(pipeline, &mut batches);
    }
    settle(pipeline, &mut batches);
    batches
}

/// Replays what was captured. Returns the batches, and whether the run had ended on request.
fn replay(captured: Captured, pipeline: &mut Pipeline) -> (Vec<LearnBatch>, bool) {
    let (mut batches, mut ended) = (Vec::new(), false);
    for entry in captured {
        assert!(!ended);
        match entry.unwrap() {
            Entry::Start(_) => panic!("a second beginning"),
            Entry::Record(recorded) => drop(pipeline.take(&recorded.record())),
            Entry::Decided(decision) => decision.apply(pipeline),
            Entry::End => ended = true,
        }
        fetch(pipeline, &mut batches);
    }
    settle(pipeline, &mut batches);
    (batches, ended)
}

#[test]
fn a_replayed_run_makes_the_same_batches() {
    let folder = tempfile::tempdir().unwrap();
    let mut capture = new(folder.path(), BOUND);
    let mut pipeline = Pipeline::new(fnw(), 2);
    let batches = live(&mut pipeline, 1, 0, 3_000, Some(&mut capture));
    capture.finish();

    let captured = Captured::open(folder.path()).unwrap();
    assert_eq!((captured.start(), captured.start_folder()), (&start(false), None));
    let mut again = Pipeline::new(fnw(), 2);
    let (replayed, ended) = replay(captured, &mut again);
    assert!(ended && batches.len() > 100);
    assert_same(&replayed, &batches);
    assert_eq!(tally(&again), tally(&pipeline));
}

#[test]
fn a_run_that_began_with_a_checkpoint_is_replayed_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut pipeline = Pipeline::new(fnw(), 2);
    live(&mut pipeline, 2, 0, 2_000, None);
    let setup = Setup {
        folder: PathBuf::new(),
        cache_bytes: 1 << 20,
        keep: 1,
        partitions: 2,
        topics: ["events".into(), "items".into(), "users".into()],
        identity: Identity::new(&fnw(), Vec::new()),
        new_model: false,
    };
    let write = |to: &mut dyn Write| to.write_all(b"parameters");
    let copy = |to: &Path| write_full(to, &setup, &pipeline, write).map(drop);
    let mut capture =
        Capture::create(folder.path(), BOUND, start(true), copy).unwrap().expect("room");
    let batches = live(&mut pipeline, 2, 2_000, 3_000, Some(&mut capture));
    capture.finish();

    let captured = Captured::open(folder.path()).unwrap();
    let setup = Setup { folder: captured.start_folder().unwrap(), ..setup };
    let mut opening = Checkpoint::open(setup, fnw(), &Clock::system()).unwrap();
    let (replayed, _) = replay(captured, &mut opening.pipeline);
    assert_same(&replayed, &batches);
    assert_eq!(tally(&opening.pipeline), tally(&pipeline));
}

#[test]
fn a_torn_end_leaves_a_sound_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let mut capture = new(folder.path(), BOUND);
    live(&mut Pipeline::new(fnw(), 2), 1, 0, 300, Some(&mut capture));
    capture.flush();
    let file = folder.path().join("000001").join(ENTRIES);
    let whole = std::fs::read(&file).unwrap();
    let all = Captured::open(folder.path()).unwrap().count();
    for cut in [whole.len() - 1, whole.len() / 2, whole.len() / 3 + 1] {
        std::fs::write(&file, &whole[..cut]).unwrap();
        let mut captured = Captured::open(folder.path()).unwrap();
        let sound = captured.by_ref().map(Result::unwrap).count();
        assert!(sound > 0 && sound < all && captured.torn() > 0, "{cut}");
    }
    std::fs::write(&file, &whole[..9]).unwrap();
    assert!(Captured::open(folder.path()).unwrap_err().to_string().contains("no beginning"));
}

#[test]
fn at_the_bound_capturing_ends_for_good_and_the_beginning_stays() {
    let folder = tempfile::tempdir().unwrap();
    let bound = 20_000;
    let mut capture = new(folder.path(), bound);
    live(&mut Pipeline::new(fnw(), 2), 1, 0, 1_000, Some(&mut capture));
    assert!(!capture.is_on());
    capture.decision(Decision::Cut);
    capture.finish();
    let file = folder.path().join("000001").join(ENTRIES);
    let length = std::fs::metadata(&file).unwrap().len();
    assert!(length <= bound && length > bound - 1_000);
    let entries: Vec<Entry> = Captured::open(folder.path()).unwrap().map(Result::unwrap).collect();
    assert!(entries.len() > 50 && !entries.contains(&Entry::End));

    // The next run has a folder of its own and the same bound: there is no room for its beginning.
    assert!(Capture::create(folder.path(), length, start(false), |_| Ok(())).unwrap().is_none());
    assert!(!folder.path().join("000002").exists());
    let next = new(folder.path(), length + 1);
    assert!(!next.is_on() && folder.path().join("000002").exists());
}

#[test]
fn the_bound_holds_for_the_copies_of_checkpoints_too() {
    let folder = tempfile::tempdir().unwrap();
    let bound = 10_000;
    let begin = |size: usize| {
        let copy = |to: &Path| {
            std::fs::create_dir_all(to.join("blobs")).unwrap();
            std::fs::write(to.join("db"), vec![0; size / 2]).unwrap();
            std::fs::write(to.join("blobs").join("1"), vec![0; size - size / 2]).unwrap();
            Ok(())
        };
        Capture::create(folder.path(), bound, start(true), copy).unwrap()
    };
    // A start copies 3,000 bytes: there is room for three beside their entries, however often it is tried.
    let begun: Vec<bool> = (0..10).map(|_| begin(3_000).is_some()).collect();
    assert_eq!(begun.iter().filter(|begun| **begun).count(), 3, "{begun:?}");
    assert!(bytes_of(folder.path()).unwrap() <= bound);
    assert_eq!(runs(folder.path()).unwrap().len(), 3, "nothing is left of the others");
    // A larger checkpoint than the bound.
    let folder_of_one = tempfile::tempdir().unwrap();
    let copy = |to: &Path| {
        std::fs::create_dir_all(to).unwrap();
        std::fs::write(to.join("db"), vec![0; 78_000]).unwrap();
        Ok(())
    };
    assert!(Capture::create(folder_of_one.path(), bound, start(true), copy).unwrap().is_none());
    assert_eq!(bytes_of(folder_of_one.path()).unwrap(), 0);
}

#[test]
fn a_folder_without_a_run_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Captured::open(folder.path()).unwrap_err();
    assert!(stop.to_string().contains("found none"), "{stop}");
}
