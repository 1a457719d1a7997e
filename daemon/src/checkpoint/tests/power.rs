//! Power is lost at any moment ([`crate::testing::disk`] says what a disk may lose): the newest checkpoint of which the world was told is
//! there, or the one that was being made, whole; and the run goes on from it as one that was never stopped.

use super::*;
use crate::testing::disk::{Disk, Operation, Watched, child, tell};

/// Records from one checkpoint to the next: checkpoint N stands behind N times as many.
const STEP: usize = 400;
/// Checkpoints of a run, which is killed after so many and begun again.
const LAST: usize = 7;
const KILLED: usize = 4;
/// The seed of the records.
const SEED: u64 = 31;

fn power_rules() -> Rules {
    rules(Entry::Impression, LabelRule::Wait)
}

pub(super) fn records() -> Vec<Owned> {
    stream(SEED, STEP * (LAST + 2), 2, &power_rules())
}

/// A run that knows how many batches it has learned.
pub(super) struct Going {
    opening: Opening,
    /// Before this start, and up to the newest checkpoint.
    learned: u64,
    kept: u64,
    batches: Vec<LearnBatch>,
}

impl Going {
    pub(super) fn open(folder: &Path) -> Result<Self, Stop> {
        let rules = power_rules();
        let mut opening = Checkpoint::open(setup(folder, &rules, 2), rules, &clock())?;
        // Much of what changes goes to the store ahead of its checkpoint.
        opening.checkpoint.portion = 2_000;
        let learned = Count::read(opening.parameters.take());
        Ok(Self { opening, learned, kept: learned, batches: Vec::new() })
    }

    pub(super) fn number(&self) -> u64 {
        self.opening.checkpoint.number()
    }

    /// Makes the next checkpoint.
    fn step(&mut self, records: &[Owned]) {
        self.try_step(records).unwrap();
    }

    /// Makes the next checkpoint, if the disk does not fail.
    pub(super) fn try_step(&mut self, records: &[Owned]) -> Result<(), Stop> {
        let begin = self.number() as usize * STEP;
        let Self { opening, learned, kept, batches } = self;
        take(&mut opening.pipeline, &records[begin..begin + STEP], batches);
        settle(&mut opening.pipeline, batches);
        let count = *learned + batches.len() as u64;
        let cut = Cut::take(&mut opening.pipeline, Changes::default())?;
        let image = || Ok(Count::new(count, *kept));
        let Outcome::Done(report) = opening.checkpoint.commit(cut, &clock(), image)? else {
            panic!("the disk is not full");
        };
        // The first, and the one behind four of changes.
        assert_eq!(report.whole, [1, 6].contains(&report.number), "{}", report.number);
        *kept = count;
        opening.pipeline.stored();
        Ok(())
    }
}

/// The child: goes on until a checkpoint, and is killed there or ends.
fn work(until: &str, root: &Path) {
    let until: usize = until.parse().unwrap();
    let (records, mut run) = (records(), Going::open(&root.join("state")).unwrap());
    while (run.number() as usize) < until {
        run.step(&records);
        tell(root, run.number());
    }
    if until < LAST {
        std::process::abort();
    }
}

/// Returns what a child has done that was killed once, or `None` in the child.
fn played(test: &str) -> Option<(Watched, Vec<Operation>)> {
    if let Some((until, root)) = child() {
        work(&until, &root);
        return None;
    }
    let watched = Watched::new();
    let test = format!("checkpoint::tests::power::{test}");
    assert!(!watched.run(&test, &KILLED.to_string(), None).0);
    let (ended, said) = watched.run(&test, &LAST.to_string(), None);
    assert!(ended, "{said}");
    let operations = watched.operations();
    let told = operations.iter().filter(|it| matches!(it, Operation::Told(_))).count();
    assert_eq!(told, LAST);
    Some((watched, operations))
}

/// A checkpoint is in force when the file with its number is: by then everything of it is on the disk.
#[test]
fn everything_is_synced_before_a_checkpoint_is_told() {
    let Some((_watched, operations)) = played("everything_is_synced_before_a_checkpoint_is_told")
    else {
        return;
    };
    let (mut disk, mut told) = (Disk::default(), 0);
    for operation in &operations {
        let tells = match operation {
            Operation::Rename { to, .. } => to.ends_with("committed"),
            Operation::Told(_) => true,
            _ => false,
        };
        if tells {
            let unsure = disk.unsure();
            let of_it: Vec<&String> =
                unsure.iter().filter(|it| !it.contains("committed.new")).collect();
            assert!(of_it.is_empty(), "told before these were synced: {of_it:#?}");
            told += 1;
        }
        disk.apply(operation);
    }
    assert_eq!(told, 2 * LAST);
}

#[test]
fn a_power_loss_leaves_the_newest_checkpoint_or_the_next_one() {
    let Some((watched, operations)) =
        played("a_power_loss_leaves_the_newest_checkpoint_or_the_next_one")
    else {
        return;
    };
    let (records, mut twins) = (records(), Vec::new());
    let (mut plain, mut batches) = (Pipeline::new(power_rules(), 2), Vec::new());
    for part in records.chunks(STEP) {
        twins.push((tally(&plain), batches.len()));
        take(&mut plain, part, &mut batches);
        settle(&mut plain, &mut batches);
    }
    let mut random = numbers(77);
    let mut moments: Vec<usize> =
        (0..80).map(|_| random(operations.len() as u64 + 1) as usize).collect();
    moments.sort_unstable();
    let (mut disk, mut done, mut newer) = (Disk::default(), 0, 0);
    for moment in moments {
        operations[done..moment].iter().for_each(|operation| disk.apply(operation));
        done = moment;
        let left = tempfile::tempdir().unwrap();
        disk.lose_power(&watched.root(), left.path(), &mut random);
        let mut run = Going::open(&left.path().join("state")).unwrap_or_else(|stop| {
            panic!("power lost at {moment}, {} told: {}", disk.told(), crate::error::chain(&stop))
        });
        let number = run.number();
        assert!(number == disk.told() || number == disk.told() + 1, "{number} at {moment}");
        newer += number - disk.told();
        assert_eq!(run.opening.resumed.as_ref().and_then(|resumed| resumed.lost), None);
        let (state, learned) = &twins[number as usize];
        assert_eq!((&tally(&run.opening.pipeline), run.learned as usize), (state, *learned));
        if random(4) > 0 {
            continue;
        }
        // It goes on, with a checkpoint and a start between.
        run.step(&records);
        let learned = learned + run.batches.len();
        assert_same(&run.batches, &batches[twins[number as usize].1..learned]);
        drop(run);
        let mut run = Going::open(&left.path().join("state")).unwrap();
        assert_eq!(run.number(), number + 1);
        for part in records.chunks(STEP).skip(number as usize + 1) {
            take(&mut run.opening.pipeline, part, &mut run.batches);
            settle(&mut run.opening.pipeline, &mut run.batches);
        }
        assert_same(&run.batches, &batches[learned..]);
    }
    assert!(newer > 0, "a checkpoint that is whole but not told yet counts");
}
