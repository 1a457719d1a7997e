//! A run that is stopped and begun again at any points learns the same as one that is not, bit for bit; trouble leaves the old checkpoint.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sluice_features::funnel::{Entry, LabelRule};
use sluice_features::time::EventTime;
use sluice_features::wire::Topic;
use sluice_models::table::Part;

use super::*;
use crate::error::Exit;
use crate::learn::trainer::Trainer;
use crate::pipeline::record::Record;
use crate::pipeline::work::LearnBatch;
use crate::pipeline::{Pipeline, Rules};
use crate::store::keys::{self, Room};
use crate::store::{Batch, MemoryStore, SledStore, StoreError};
use crate::testing::stream::{Owned, assert_same, rules, settle, stream, take, tally};

mod faulty;
mod funnel;
mod names;
mod parameters;
mod power;

const RECORDS: usize = 5_000;

fn setup(folder: &Path, rules: &Rules, partitions: usize) -> Setup {
    Setup {
        folder: folder.into(),
        cache_bytes: 1 << 20,
        keep: 2,
        partitions,
        topics: ["events".into(), "items".into(), "users".into()],
        identity: Identity::new(rules, vec!["sharing ple".into()]),
        new_model: false,
    }
}

fn clock() -> Clock {
    Clock::manual(EventTime(1_650_000_000_000))
}

fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        (state >> 33) % below
    }
}

/// Parameters that are written as a whole each time.
struct Plain<F>(Option<F>);

impl<F: FnOnce(&mut dyn Write) -> io::Result<()>> ParameterImage for Plain<F> {
    fn bytes(&self, _: Part) -> u64 {
        0
    }

    fn write(&mut self, part: Part, to: &mut dyn Write) -> io::Result<()> {
        assert_eq!(part, Part::Whole);
        self.0.take().unwrap()(to)
    }

    fn keep(self) {}
}

fn afresh<F>(write: F) -> impl FnOnce() -> io::Result<Plain<F>> {
    || Ok(Plain(Some(write)))
}

/// How much was learned, and before: as a whole many times the one, as changes fewer times the difference.
struct Count([u64; 2]);

impl Count {
    /// How often it stands in a whole file, which so is larger than a block of the disk, and in one of changes: four of these fit into the other.
    const TIMES: [usize; 2] = [3_000, 700];

    fn new(learned: u64, before: u64) -> Self {
        Self([learned, learned - before])
    }

    /// Reads it back; 0 where there is none.
    fn read(parameters: Option<Stored>) -> u64 {
        let files = parameters.into_iter().flatten().enumerate();
        let counts = files.map(|(place, file)| {
            let mut bytes = Vec::new();
            file.unwrap().read_to_end(&mut bytes).unwrap();
            let numbers: Vec<&[u8]> = bytes.chunks(8).collect();
            assert_eq!(numbers.len(), Self::TIMES[place.min(1)]);
            assert!(numbers.iter().all(|it| *it == numbers[0]));
            u64::from_le_bytes(numbers[0].try_into().unwrap())
        });
        counts.sum()
    }
}

impl ParameterImage for Count {
    fn bytes(&self, part: Part) -> u64 {
        Self::TIMES[part as usize] as u64 * 8
    }

    fn write(&mut self, part: Part, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.0[part as usize].to_le_bytes().repeat(Self::TIMES[part as usize]))
    }

    fn keep(self) {}
}

/// The parameters where one file holds all of them.
fn alone(opening: &mut Opening) -> files::Checked {
    let mut parameters = opening.parameters.take().unwrap();
    let file = parameters.next().unwrap().unwrap();
    assert!(parameters.next().is_none());
    file
}

/// Where a run keeps its state.
enum Place {
    Memory(Arc<MemoryStore>),
    Disk,
}

/// A run that knows what it has learned.
struct Run {
    rules: Rules,
    setup: Setup,
    place: Place,
    opening: Opening,
    batches: Vec<LearnBatch>,
}

impl Run {
    fn new(rules: Rules, setup: Setup, place: Place) -> Self {
        let opening = open(&place, setup.clone(), rules.clone()).unwrap();
        assert!(opening.resumed.is_none() && opening.parameters.is_none());
        Self { rules, setup, place, opening, batches: Vec::new() }
    }

    fn take(&mut self, records: &[Owned]) {
        take(&mut self.opening.pipeline, records, &mut self.batches);
    }

    fn commit_with(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Outcome, Stop> {
        let cut = self.cut(Changes::default());
        self.opening.checkpoint.commit(cut, &clock(), afresh(write))
    }

    fn cut(&mut self, changes: Changes) -> Cut {
        settle(&mut self.opening.pipeline, &mut self.batches);
        Cut::take(&mut self.opening.pipeline, changes).unwrap()
    }

    fn commit(&mut self) -> CommitReport {
        settle(&mut self.opening.pipeline, &mut self.batches);
        let learned = self.batches.len() as u64;
        match self.commit_with(|to| to.write_all(&learned.to_le_bytes())).unwrap() {
            Outcome::Done(report) => {
                self.opening.pipeline.stored();
                report
            }
            Outcome::NotNow(reason) => panic!("{reason}"),
        }
    }

    /// Forgets the pipeline and begins again with the checkpoint, which must be the newest.
    fn restart(self) -> Self {
        let Self { rules, setup, place, opening, batches } = self;
        let number = opening.checkpoint.number();
        drop(opening);
        let mut opening = open(&place, setup.clone(), rules.clone()).unwrap();
        assert_eq!(opening.resumed.as_ref().unwrap().number, number);
        let mut learned = [0; 8];
        alone(&mut opening).read_exact(&mut learned).unwrap();
        assert_eq!(u64::from_le_bytes(learned), batches.len() as u64);
        Self { rules, setup, place, opening, batches }
    }
}

fn open(place: &Place, setup: Setup, rules: Rules) -> Result<Opening, Stop> {
    match place {
        Place::Memory(store) => {
            let store: Arc<dyn Store> = store.clone();
            Checkpoint::open_over(store, setup, rules)
        }
        Place::Disk => Checkpoint::open(setup, rules, &clock()),
    }
}

/// Runs a stream without a stop, and with checkpoints at some points, each followed by a restart or not.
fn compare(rules: &Rules, partitions: usize, seed: u64, points: &[(usize, bool)], disk: bool) {
    let records = stream(seed, RECORDS, partitions as u32, rules);
    let folder = tempfile::tempdir().unwrap();
    let place = if disk { Place::Disk } else { Place::Memory(Arc::default()) };
    let mut run = Run::new(rules.clone(), setup(folder.path(), rules, partitions), place);
    let (mut plain, mut batches) = (Pipeline::new(rules.clone(), partitions), Vec::new());
    let mut at = 0;
    for &(point, restart) in points {
        take(&mut plain, &records[at..point], &mut batches);
        settle(&mut plain, &mut batches);
        run.take(&records[at..point]);
        run.commit();
        if restart {
            run = run.restart();
        }
        assert_eq!(tally(&run.opening.pipeline), tally(&plain), "restored at {point}");
        at = point;
    }
    take(&mut plain, &records[at..], &mut batches);
    run.take(&records[at..]);
    for (pipeline, batches) in
        [(&mut plain, &mut batches), (&mut run.opening.pipeline, &mut run.batches)]
    {
        pipeline.finish();
        settle(pipeline, batches);
    }
    assert_same(&run.batches, &batches);
    assert_eq!(tally(&run.opening.pipeline), tally(&plain));
    assert!(plain.counts().examples > 1_000 && plain.counts().all_rejected() > 50);
    let joins = plain.join_counts();
    assert!(joins.kinds.iter().any(|kind| kind.duplicate > 0) || joins.duplicate_impressions > 0);
}

#[test]
fn a_restored_run_learns_the_same_to_the_bit() {
    let mut random = numbers(5);
    for entry in [Entry::Impression, Entry::View { negatives: 2 }] {
        for labels in [LabelRule::Fnw, LabelRule::Wait] {
            let rules = rules(entry, labels);
            for partitions in [1, 3] {
                for disk in [false, true] {
                    let point = 1 + random(RECORDS as u64 - 1) as usize;
                    compare(&rules, partitions, random(1 << 30), &[(point, true)], disk);
                }
            }
        }
    }
}

#[test]
fn checkpoints_in_a_row_write_changes_only_and_add_up() {
    let mut random = numbers(8);
    for disk in [false, true] {
        let mut points: Vec<(usize, bool)> =
            (0..12).map(|_| (random(RECORDS as u64) as usize, random(2) == 0)).collect();
        points.sort_unstable();
        // Twice at the same place, without and with a restart between.
        points.extend([points[11], (points[11].0, true), (points[11].0, true)]);
        compare(&rules(Entry::Impression, LabelRule::Fnw), 2, random(1 << 30), &points, disk);
        compare(&rules(Entry::View { negatives: 1 }, LabelRule::Wait), 1, 4, &points, disk);
    }
}

#[test]
fn a_checkpoint_right_after_another_writes_no_piece() {
    let folder = tempfile::tempdir().unwrap();
    let rules = rules(Entry::Impression, LabelRule::Fnw);
    let memory = || Place::Memory(Arc::default());
    let mut run = Run::new(rules.clone(), setup(folder.path(), &rules, 1), memory());
    run.take(&stream(1, RECORDS, 1, &rules));
    let first = run.commit();
    assert!(first.pieces > 10 && first.piece_bytes > 1_000 && first.bytes() > first.piece_bytes);
    let second = run.commit();
    assert_eq!((second.number, second.pieces, second.piece_bytes), (2, 0, 0));
    run.commit();
    let mut names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let kept = [
        "000000000002.parameters",
        "000000000002.state",
        "000000000003.parameters",
        "000000000003.state",
        "committed",
    ];
    assert_eq!(names, kept);
}

#[test]
fn open_impressions_in_the_store_come_and_go_with_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let rules = rules(Entry::Impression, LabelRule::Wait);
    let records = stream(7, RECORDS, 1, &rules);
    let store: Arc<MemoryStore> = Arc::default();
    let pages = || {
        let mut pages = Vec::new();
        let prefix = keys::room(Room::OpenImpressions);
        let seen = store.scan_prefix(&prefix, &mut |key, _| {
            pages.push(key.to_vec());
            true
        });
        seen.map(|()| pages).unwrap()
    };
    let setup = setup(folder.path(), &rules, 1);
    let mut run = Run::new(rules.clone(), setup, Place::Memory(store.clone()));
    run.take(&records[..2_000]);
    run.commit();
    let (committed, learned) = (pages(), run.batches.len());
    assert!(committed.len() > 2, "{committed:?}");
    run.take(&records[2_000..3_000]);
    assert_eq!(pages(), committed, "nothing comes to the store ahead of a checkpoint");

    // A crash: pages that waited for a checkpoint are put together anew.
    run.batches.truncate(learned);
    let mut run = run.restart();
    assert_eq!(pages(), committed);
    run.take(&records[2_000..]);
    run.opening.pipeline.finish();
    run.commit();
    assert_eq!(pages(), Vec::<Vec<u8>>::new(), "all windows have closed");
    let (mut plain, mut batches) = (Pipeline::new(rules, 1), Vec::new());
    take(&mut plain, &records[..2_000], &mut batches);
    settle(&mut plain, &mut batches);
    take(&mut plain, &records[2_000..], &mut batches);
    plain.finish();
    settle(&mut plain, &mut batches);
    assert_same(&run.batches, &batches);
}

/// A store that fails on request.
#[derive(Default)]
struct Failing {
    inner: Arc<MemoryStore>,
    fails: AtomicBool,
    fails_to_flush: AtomicBool,
}

impl Failing {
    fn check(&self, fails: &AtomicBool) -> Result<(), StoreError> {
        if fails.load(Ordering::Acquire) {
            let source = io::Error::other("the disk is gone");
            return Err(StoreError::Io { path: "test".into(), action: "write", source });
        }
        Ok(())
    }
}

impl Store for Failing {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(key)
    }

    fn scan_prefix(
        &self,
        prefix: &[u8],
        see: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.inner.scan_prefix(prefix, see)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.check(&self.fails)?;
        self.inner.apply(batch)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.check(&self.fails_to_flush)?;
        self.inner.flush()
    }

    fn bytes(&self) -> Result<u64, StoreError> {
        self.inner.bytes()
    }
}

#[test]
fn a_crash_between_the_files_and_the_commit_leaves_the_old_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let rules = rules(Entry::Impression, LabelRule::Fnw);
    let records = stream(3, RECORDS, 2, &rules);
    let store = Arc::new(Failing::default());
    let setup = setup(folder.path(), &rules, 2);
    let mut run = Run::new(rules.clone(), setup.clone(), Place::Memory(store.inner.clone()));
    let failing: Arc<dyn Store> = store.clone();
    run.opening = Checkpoint::open_over(failing, setup, rules).unwrap();
    run.take(&records[..2_000]);
    run.commit();
    let (before, learned) = (tally(&run.opening.pipeline), run.batches.len());

    run.take(&records[2_000..3_000]);
    store.fails.store(true, Ordering::Release);
    let stop = run.commit_with(|to| to.write_all(b"two")).unwrap_err();
    assert_eq!(stop.exit(), Exit::Fault);
    assert!(folder.path().join("000000000002.parameters").exists());

    run.batches.truncate(learned);
    let mut run = run.restart();
    assert_eq!(tally(&run.opening.pipeline), before);
    run.take(&records[2_000..]);
    assert_eq!(run.commit().number, 2);
    let (mut plain, mut batches) = (Pipeline::new(run.rules.clone(), 2), Vec::new());
    take(&mut plain, &records[..2_000], &mut batches);
    settle(&mut plain, &mut batches);
    take(&mut plain, &records[2_000..], &mut batches);
    settle(&mut plain, &mut batches);
    assert_same(&run.batches, &batches);
}

#[test]
fn parameters_that_are_not_sound_leave_the_checkpoint_before_in_force() {
    let (rules, folder) = (rules(Entry::Impression, LabelRule::Wait), tempfile::tempdir().unwrap());
    let records = stream(7, RECORDS, 1, &rules);
    let mut run = Run::new(rules.clone(), setup(folder.path(), &rules, 1), Place::Disk);
    run.take(&records[..RECORDS / 3]);
    let kept = run.commit();
    run.take(&records[RECORDS / 3..RECORDS / 2]);
    let learned = run.batches.len();
    for _ in 0..3 {
        let not_sound = |_: &mut dyn Write| Err(io::Error::other(NotSound("of a test".into())));
        match run.commit_with(not_sound).unwrap() {
            Outcome::NotNow(reason) => assert!(reason.contains("not sound: of a test"), "{reason}"),
            Outcome::Done(_) => panic!("parameters were kept that are not sound"),
        }
        assert_eq!(run.opening.checkpoint.number(), kept.number);
    }
    // Any other failure ends the run, and what was in force stays so.
    let broken = |_: &mut dyn Write| Err(io::Error::other("a learner that is gone"));
    assert!(run.commit_with(broken).is_err());
    let Run { rules, setup, place, opening, .. } = run;
    drop(opening);
    let mut again = open(&place, setup, rules).unwrap();
    assert_eq!(again.resumed.as_ref().unwrap().offsets, kept.offsets);
    let mut parameters = [0; 8];
    alone(&mut again).read_exact(&mut parameters).unwrap();
    assert!(u64::from_le_bytes(parameters) < learned as u64);
}

#[test]
fn a_full_disk_puts_a_checkpoint_off_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let rules = rules(Entry::Impression, LabelRule::Fnw);
    let records = stream(6, RECORDS, 1, &rules);
    let mut run = Run::new(rules.clone(), setup(folder.path(), &rules, 1), Place::Disk);
    run.take(&records[..2_000]);
    run.opening.checkpoint.room = u64::MAX;
    let outcome = run.commit_with(|_| Ok(())).unwrap();
    assert!(matches!(&outcome, Outcome::NotNow(reason) if reason.contains("make room")));
    run.opening.checkpoint.room = 0;
    let full = |_: &mut dyn Write| Err(io::Error::from(io::ErrorKind::StorageFull));
    assert!(matches!(run.commit_with(full).unwrap(), Outcome::NotNow(_)));
    assert_eq!(run.opening.checkpoint.number(), 0);
    run.commit();
    let before = tally(&run.opening.pipeline);
    run = run.restart();
    assert_eq!(tally(&run.opening.pipeline), before);
    let failing = |_: &mut dyn Write| Err(io::Error::other("broken"));
    assert_eq!(run.commit_with(failing).unwrap_err().exit(), Exit::Fault);
}

fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn damaged_parameters_are_refused_and_the_state_can_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let rules = rules(Entry::Impression, LabelRule::Fnw);
    let mut setup = setup(folder.path(), &rules, 1);
    let mut run = Run::new(rules.clone(), setup.clone(), Place::Disk);
    run.take(&stream(2, 1_000, 1, &rules));
    run.commit();
    let before = tally(&run.opening.pipeline);
    drop(run);
    damage(&folder.path().join("000000000001.parameters"));
    let stop = Checkpoint::open(setup.clone(), rules.clone(), &clock()).err().unwrap();
    assert_eq!(stop.exit(), Exit::Data);
    assert!(stop.to_string().contains("--new-model"), "{stop}");
    setup.new_model = true;
    let opening = Checkpoint::open(setup, rules, &clock()).unwrap();
    assert!(opening.parameters.is_none());
    assert_eq!(tally(&opening.pipeline), before);
}

#[test]
fn a_damaged_state_is_put_aside() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("state");
    let rules = rules(Entry::Impression, LabelRule::Fnw);
    let setup = setup(&folder, &rules, 1);
    let mut run = Run::new(rules.clone(), setup.clone(), Place::Disk);
    run.take(&stream(2, 1_000, 1, &rules));
    run.commit();
    drop(run);
    damage(&folder.join("000000000001.state"));
    let stop = Checkpoint::open(setup.clone(), rules.clone(), &clock()).err().unwrap();
    assert_eq!(stop.exit(), Exit::Data);
    assert!(stop.to_string().contains("state.quarantine-1650000000000: start again"), "{stop}");
    assert!(parent.path().join("state.quarantine-1650000000000/000000000001.parameters").exists());
    assert!(Checkpoint::open(setup, rules, &clock()).unwrap().resumed.is_none());
}

#[test]
fn pieces_without_a_checkpoint_and_lost_checkpoints_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let rules = rules(Entry::Impression, LabelRule::Fnw);
    let setup = setup(folder.path(), &rules, 1);
    let store: Arc<MemoryStore> = Arc::default();
    let mut run = Run::new(rules.clone(), setup.clone(), Place::Memory(store.clone()));
    run.take(&stream(2, 1_000, 1, &rules));
    run.commit();
    std::fs::write(folder.path().join("committed"), "5").unwrap();
    let again = |store: &Arc<MemoryStore>| {
        let store: Arc<dyn Store> = store.clone();
        Checkpoint::open_over(store, setup.clone(), rules.clone())
    };
    assert_eq!(again(&store).unwrap().resumed.unwrap().lost, Some(5));
    let mut cut = Batch::default();
    cut.delete(crate::store::keys::Meta::Checkpoint.key());
    store.apply(cut).unwrap();
    assert_eq!(again(&store).err().unwrap().exit(), Exit::Data);
    std::fs::remove_file(folder.path().join("committed")).unwrap();
    assert_eq!(again(&store).err().unwrap().exit(), Exit::Data);
    assert!(again(&Arc::default()).unwrap().resumed.is_none());
}

/// A disk that forgets what it had promised, or a copy of an older day: the store opens without complaint, and is as it was at the commit before.
#[test]
fn a_store_that_has_lost_its_newest_commit_goes_back_to_the_one_before() {
    let parent = tempfile::tempdir().unwrap();
    let (folder, copy) = (parent.path().join("state"), parent.path().join("copy"));
    let rules = rules(Entry::Impression, LabelRule::Wait);
    let records = stream(17, RECORDS, 2, &rules);
    let is_store = |name: &str| ["db", "conf"].contains(&name) || name.starts_with("snap.");
    let files = |of: &Path| -> Vec<String> {
        let names = std::fs::read_dir(of).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| is_store(name)).collect()
    };
    let mut run = Run::new(rules.clone(), setup(&folder, &rules, 2), Place::Disk);
    run.take(&records[..1_000]);
    run.commit();
    let mut run = run.restart();
    run.take(&records[1_000..2_500]);
    run.commit();
    let (before, learned) = (tally(&run.opening.pipeline), run.batches.len());
    let Run { rules, setup, place, opening, batches } = run;
    drop(opening);
    std::fs::create_dir(&copy).unwrap();
    for name in files(&folder) {
        std::fs::copy(folder.join(&name), copy.join(&name)).unwrap();
    }
    let opening = open(&place, setup.clone(), rules.clone()).unwrap();
    let mut run = Run { rules, setup, place, opening, batches };
    run.take(&records[2_500..4_000]);
    run.commit();
    let Run { rules, setup, place, opening, mut batches } = run;
    drop(opening);
    for name in files(&folder) {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    for name in files(&copy) {
        std::fs::copy(copy.join(&name), folder.join(&name)).unwrap();
    }

    let mut opening = open(&place, setup.clone(), rules.clone()).unwrap();
    let resumed = opening.resumed.as_ref().unwrap();
    assert_eq!((resumed.number, resumed.lost), (2, Some(3)));
    assert_eq!(tally(&opening.pipeline), before);
    let mut count = [0; 8];
    alone(&mut opening).read_exact(&mut count).unwrap();
    assert_eq!(u64::from_le_bytes(count), learned as u64);
    batches.truncate(learned);
    let mut run = Run { rules, setup, place, opening, batches };
    run.take(&records[2_500..]);
    assert_eq!(run.commit().number, 3);
    let mut run = run.restart();
    run.opening.pipeline.finish();
    settle(&mut run.opening.pipeline, &mut run.batches);
    let (mut plain, mut batches) = (Pipeline::new(run.rules.clone(), 2), Vec::new());
    for part in [&records[..1_000], &records[1_000..2_500], &records[2_500..]] {
        take(&mut plain, part, &mut batches);
        settle(&mut plain, &mut batches);
    }
    plain.finish();
    settle(&mut plain, &mut batches);
    assert_same(&run.batches, &batches);
}

#[test]
fn another_model_is_refused_in_words_and_taken_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let rules = rules(Entry::Impression, LabelRule::Fnw);
    let mut setup = setup(folder.path(), &rules, 2);
    let store: Arc<MemoryStore> = Arc::default();
    let mut run = Run::new(rules.clone(), setup.clone(), Place::Memory(store.clone()));
    run.take(&stream(2, 3_000, 2, &rules));
    run.commit();
    let before = tally(&run.opening.pipeline);
    let behaviours = |pipeline: &Pipeline| -> usize {
        pipeline.shards().iter().map(|shard| shard.sequences.behaviours()).sum()
    };
    let remembered = behaviours(&run.opening.pipeline);
    let again = |setup: &Setup, rules: &Rules| {
        let store: Arc<dyn Store> = store.clone();
        Checkpoint::open_over(store, setup.clone(), rules.clone())
    };

    let mut other = rules.clone();
    other.schema.fields.pop();
    other.schema.counters.pop();
    setup.identity = Identity::new(&other, vec!["sharing mmoe".into()]);
    let stop = again(&setup, &other).err().unwrap();
    assert_eq!(stop.exit(), Exit::Data);
    let told = stop.to_string();
    for words in ["model sharing ple", "model sharing mmoe", "field mine", "--new-model"] {
        assert!(told.contains(words), "{told}");
    }

    // Another schema: open impressions hold columns that nobody reads any more.
    setup.new_model = true;
    let opening = again(&setup, &other).unwrap();
    let resumed = opening.resumed.unwrap();
    assert!(before.2 > 0);
    assert_eq!(resumed.dropped, before.2);
    assert!(resumed.difference.is_some() && opening.parameters.is_none());
    assert_eq!(behaviours(&opening.pipeline), remembered);
    assert_eq!(opening.pipeline.open_impressions(), 0);
    assert_eq!(tally(&opening.pipeline).3, before.3);

    // Another model on the same schema: they stay.
    setup.identity = Identity::new(&rules, vec!["sharing mmoe".into()]);
    let opening = again(&setup, &rules).unwrap();
    assert_eq!(tally(&opening.pipeline), before);

    setup.partitions = 3;
    let stop = again(&setup, &rules).err().unwrap();
    assert!(stop.to_string().contains("has 2 partitions, the topics have 3"), "{stop}");
    setup.partitions = 2;
    setup.topics[0] = "elsewhere".into();
    assert_eq!(again(&setup, &rules).err().unwrap().exit(), Exit::Config);
    setup.topics[0] = "events".into();
    let renamed = crate::testing::stream::rules(Entry::View { negatives: 1 }, LabelRule::Fnw);
    setup.identity = Identity::new(&renamed, Vec::new());
    let opening = again(&setup, &renamed).unwrap();
    assert_eq!(behaviours(&opening.pipeline), remembered);
    assert!(opening.pipeline.shared().counters.is_empty(), "clicks are no views");
}

#[test]
fn a_full_copy_is_a_checkpoint_of_its_own_and_costs_the_original_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let rules = rules(Entry::Impression, LabelRule::Fnw);
    let records = stream(9, RECORDS, 2, &rules);
    let home = setup(&folder.path().join("home"), &rules, 2);
    let mut run = Run::new(rules.clone(), home.clone(), Place::Disk);
    run.take(&records[..3_000]);
    settle(&mut run.opening.pipeline, &mut run.batches);
    let copy = folder.path().join("copy");
    let write = |to: &mut dyn Write| to.write_all(b"here");
    let report = write_full(&copy, &home, &run.opening.pipeline, write).unwrap();
    assert!(report.pieces > 10);
    let occupied = write_full(&copy, &home, &run.opening.pipeline, write).unwrap_err();
    assert!(occupied.to_string().contains("expected an empty folder"), "{occupied}");

    let mut opening = Checkpoint::open(Setup { folder: copy, ..home }, rules, &clock()).unwrap();
    let mut parameters = String::new();
    alone(&mut opening).read_to_string(&mut parameters).unwrap();
    assert_eq!(parameters, "here");
    let learned = run.batches.len();
    run.commit();
    let mut run = run.restart();
    run.take(&records[3_000..]);
    settle(&mut run.opening.pipeline, &mut run.batches);
    let mut batches = Vec::new();
    take(&mut opening.pipeline, &records[3_000..], &mut batches);
    settle(&mut opening.pipeline, &mut batches);
    assert_same(&run.batches[learned..], &batches);
    assert_eq!(tally(&run.opening.pipeline), tally(&opening.pipeline));
}

#[test]
fn a_checkpoint_with_examples_that_wait_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let rules = rules(Entry::Impression, LabelRule::Fnw);
    let store: Arc<dyn Store> = Arc::<MemoryStore>::default();
    let opening = Checkpoint::open_over(store, setup(folder.path(), &rules, 1), rules.clone());
    let mut pipeline = opening.unwrap().pipeline;
    for owned in &stream(1, 200, 1, &rules) {
        drop(pipeline.take(&owned.record()));
    }
    let stop = Cut::take(&mut pipeline, Changes::default()).err().unwrap();
    assert_eq!(stop.exit(), Exit::Fault);
}

/// Changes are gathered in portions, the pipeline is cut, goes on, and only then is the cut written; the run is killed and begun again.
#[test]
fn what_comes_while_a_checkpoint_is_written_is_not_in_it() {
    for (entry, disk) in [(Entry::Impression, true), (Entry::View { negatives: 1 }, false)] {
        let rules = rules(entry, LabelRule::Fnw);
        let records = stream(12, RECORDS, 2, &rules);
        let folder = tempfile::tempdir().unwrap();
        let place = if disk { Place::Disk } else { Place::Memory(Arc::default()) };
        let mut run = Run::new(rules.clone(), setup(folder.path(), &rules, 2), place);
        let (mut plain, mut batches) = (Pipeline::new(rules.clone(), 2), Vec::new());
        let mut at = 0;
        for point in [900, 1_700, 1_701, 3_300] {
            let mut changes = Changes::default();
            let mut left = 0;
            for portion in records[at..point].chunks(60) {
                run.take(portion);
                left = changes.gather(&mut run.opening.pipeline, 1).unwrap();
            }
            assert!(left > 0 || point - at < 60);
            let cut = run.cut(changes);
            let learned = run.batches.len();
            run.take(&records[point..point + 700]);
            let count = (learned as u64).to_le_bytes();
            let write = |to: &mut dyn Write| to.write_all(&count);
            let outcome = run.opening.checkpoint.commit(cut, &clock(), afresh(write));
            assert!(matches!(outcome.unwrap(), Outcome::Done(_)));
            run.batches.truncate(learned);
            run = run.restart();
            take(&mut plain, &records[at..point], &mut batches);
            settle(&mut plain, &mut batches);
            assert_eq!(tally(&run.opening.pipeline), tally(&plain), "restored at {point}");
            at = point;
        }
        take(&mut plain, &records[at..], &mut batches);
        settle(&mut plain, &mut batches);
        run.take(&records[at..]);
        settle(&mut run.opening.pipeline, &mut run.batches);
        assert_same(&run.batches, &batches);
    }
}

/// The same with parameters: a thread writes while another learns, at full speed, what does not belong to the checkpoint.
#[test]
fn a_run_that_learns_while_its_checkpoint_is_written_is_restored_to_the_bit() {
    let config = crate::config::Config::build("", &[]).unwrap();
    let new = || crate::parts::trainer(&config).unwrap();
    let rules = Rules { batch: 32, ..crate::parts::rules(&config) };
    let record = |i: usize| {
        let (user, item, ts) = (i * 7 % 23, i * 13 % 61, 1_650_000_000_000 + 1_000 * i);
        let named = i - i % 3;
        let of = format!(r#""ts":{ts},"user":"u{user}","item":"i{item}""#);
        match i % 3 {
            0 => format!(r#"{{"type":"impression","id":"e{i}",{of}}}"#),
            _ => {
                let (user, item) = (named * 7 % 23, named * 13 % 61);
                let of = format!(r#""ts":{ts},"user":"u{user}","item":"i{item}""#);
                format!(r#"{{"type":"click","id":"e{i}","impression":"e{named}",{of}}}"#)
            }
        }
    };
    let go_on = |pipeline: &mut Pipeline, trainer: &mut Trainer, part: std::ops::Range<usize>| {
        for i in part {
            let value = record(i);
            let record = Record {
                topic: Topic::Events,
                partition: 0,
                offset: i as i64,
                arrived: EventTime(1_650_000_000_000 + 1_000 * i as i64),
                key: None,
                value: Some(value.as_bytes()),
            };
            pipeline.take(&record).unwrap();
            while let Some(batch) = pipeline.next_batch() {
                trainer.work(&batch);
            }
        }
    };
    let settle = |pipeline: &mut Pipeline, trainer: &mut Trainer| {
        pipeline.cut();
        while let Some(batch) = pipeline.next_batch() {
            trainer.work(&batch);
        }
    };

    let (mut plain, mut twin) = (Pipeline::new(rules.clone(), 1), new());
    let folder = tempfile::tempdir().unwrap();
    let setup = setup(folder.path(), &rules, 1);
    let (mut trainer, mut at) = (new(), 0);
    for point in [600, 1_500] {
        let opening = Checkpoint::open(setup.clone(), rules.clone(), &clock()).unwrap();
        let Opening { mut checkpoint, mut pipeline, parameters, .. } = opening;
        if parameters.is_some() {
            trainer = new();
            crate::parts::restore(&config, &mut trainer, parameters).unwrap();
        }
        assert_eq!(trainer.checksum(), twin.checksum());
        go_on(&mut pipeline, &mut trainer, at..point);
        settle(&mut pipeline, &mut trainer);
        go_on(&mut plain, &mut twin, at..point);
        settle(&mut plain, &mut twin);
        let (cut, image) = (Cut::take(&mut pipeline, Changes::default()).unwrap(), trainer.image());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let outcome = checkpoint.commit(cut, &clock(), || Ok(image));
                assert!(matches!(outcome.unwrap(), Outcome::Done(_)));
            });
            go_on(&mut pipeline, &mut trainer, point..point + 400);
        });
        assert_eq!(trainer.put_aside(), 0);
        assert_ne!(trainer.checksum(), twin.checksum());
        at = point;
    }
    let opening = Checkpoint::open(setup, rules, &clock()).unwrap();
    let mut restored = new();
    crate::parts::restore(&config, &mut restored, opening.parameters).unwrap();
    let mut pipeline = opening.pipeline;
    for (pipeline, trainer) in [(&mut pipeline, &mut restored), (&mut plain, &mut twin)] {
        go_on(pipeline, trainer, at..2_400);
        settle(pipeline, trainer);
    }
    assert_eq!(restored.checksum(), twin.checksum());
    assert_eq!(tally(&pipeline), tally(&plain));
    assert!(restored.learner().steps() > 30 && restored.retriever().stats().steps > 0);
}

/// A kill at each step of a checkpoint, while the run has gone on.
#[test]
fn a_kill_at_any_step_leaves_the_old_checkpoint_or_the_new_one() {
    let rules = rules(Entry::Impression, LabelRule::Fnw);
    let records = stream(21, RECORDS, 1, &rules);
    for step in ["parameters", "apply", "flush", "none"] {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Failing::default());
        let setup = setup(folder.path(), &rules, 1);
        let mut run = Run::new(rules.clone(), setup.clone(), Place::Memory(store.inner.clone()));
        let failing: Arc<dyn Store> = store.clone();
        run.opening = Checkpoint::open_over(failing, setup.clone(), rules.clone()).unwrap();
        run.take(&records[..1_000]);
        run.commit();
        let old = (1, tally(&run.opening.pipeline));
        run.take(&records[1_000..2_000]);
        let cut = run.cut(Changes::default());
        let new = (2, tally(&run.opening.pipeline));
        run.take(&records[2_000..2_500]);
        store.fails.store(step == "apply", Ordering::Release);
        store.fails_to_flush.store(step == "flush", Ordering::Release);
        let write = |to: &mut dyn Write| match step {
            "parameters" => Err(io::Error::other("the disk is gone")),
            _ => to.write_all(b"parameters"),
        };
        let outcome = run.opening.checkpoint.commit(cut, &clock(), afresh(write));
        assert_eq!(outcome.is_ok(), step == "none");
        drop(run);
        let again: Arc<dyn Store> = store.inner.clone();
        let opening = Checkpoint::open_over(again, setup, rules.clone()).unwrap();
        let found = (opening.resumed.unwrap().number, tally(&opening.pipeline));
        let expected = if ["parameters", "apply"].contains(&step) { old } else { new };
        assert!(found == expected, "killed at {step}");
    }
}

#[test]
fn an_interrupted_copy_is_no_new_store() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("copy");
    let rules = rules(Entry::Impression, LabelRule::Fnw);
    let store = SledStore::open(&folder, 1 << 20).unwrap();
    let mut batch = Batch::default();
    batch.put(super::pieces::key_of(crate::pipeline::state::Piece::Users(0)), b"x");
    store.apply(batch).unwrap();
    store.flush().unwrap();
    drop(store);
    let stop = Checkpoint::open(setup(&folder, &rules, 1), rules, &clock()).err().unwrap();
    assert_eq!(stop.exit(), Exit::Data);
}
