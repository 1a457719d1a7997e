//! Parameters that go to the disk as a whole and as what has changed: whatever became of the checkpoints between, a start goes on from what was
//! learned up to the one in force, to the bit.

use sluice_models::table::Part;

use super::*;
use crate::config::Config;
use crate::learn::trainer::TrainerImage;
use crate::learn::trainer::tests::{SHORT_LIVED, batches};
use crate::parts;

/// What becomes of a checkpoint.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Kept,
    /// The parameters may not be kept.
    NotSound,
    /// There is no room, before anything is written.
    NoRoom,
    /// The disk is full after so many bytes of parameters.
    Full(u64),
    /// The store fails: the daemon ends.
    Ends,
}

/// An image on a disk that becomes full.
struct Filling {
    image: TrainerImage,
    room: u64,
}

struct Bounded<'a> {
    to: &'a mut dyn Write,
    room: u64,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room = self.room.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::StorageFull)?;
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl ParameterImage for Filling {
    fn bytes(&self, part: Part) -> u64 {
        self.image.bytes(part)
    }

    fn write(&mut self, part: Part, to: &mut dyn Write) -> io::Result<()> {
        self.image.write(part, &mut Bounded { to, room: self.room })
    }

    fn keep(self) {
        self.image.keep();
    }
}

#[test]
fn parameters_are_those_of_a_run_that_never_stopped_whatever_becomes_of_checkpoints() {
    let config = Config::build(SHORT_LIVED, &[]).unwrap();
    let batches = batches(&config);
    let new = || parts::trainer(&config).unwrap();
    // Learned up to each batch, by one that is never frozen.
    let (mut twin, mut sums) = (new(), vec![new().checksum()]);
    for batch in &batches {
        twin.work(batch);
        sums.push(twin.checksum());
    }
    let (mut wholes, mut changes, mut longest) = (0, 0, 0);
    for seed in 0..12 {
        let mut random = numbers(seed);
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Failing::default());
        let setup = parts::setup(&config, 1, folder.path(), false);
        let start = || {
            let failing: Arc<dyn Store> = store.clone();
            let opening = Checkpoint::open_over(failing, setup.clone(), parts::rules(&config));
            let Opening { checkpoint, pipeline, parameters, .. } = opening.unwrap();
            let mut trainer = new();
            parts::restore(&config, &mut trainer, parameters).unwrap();
            (checkpoint, pipeline, trainer)
        };
        let (mut checkpoint, mut pipeline, mut trainer) = start();
        let (mut at, mut kept) = (0, 0);
        while at < batches.len() {
            let next = (at + 1 + random(12) as usize).min(batches.len());
            batches[at..next].iter().for_each(|batch| drop(trainer.work(batch)));
            at = next;
            assert_eq!(trainer.checksum(), sums[at], "seed {seed}, at {at}");
            let fate = match random(12) {
                0 => Fate::NotSound,
                1 => Fate::NoRoom,
                2 => Fate::Full(random(150_000)),
                3 => Fate::Ends,
                _ => Fate::Kept,
            };
            let cut = Cut::take(&mut pipeline, Changes::default()).unwrap();
            let (image, cut_at) = (trainer.image(), at);
            // Learned while it is written.
            let meanwhile = (at + random(4) as usize).min(batches.len());
            batches[at..meanwhile].iter().for_each(|batch| drop(trainer.work(batch)));
            at = meanwhile;
            let room = if let Fate::Full(room) = fate { room } else { u64::MAX };
            checkpoint.room = if matches!(fate, Fate::NoRoom) { u64::MAX } else { 0 };
            store.fails.store(matches!(fate, Fate::Ends), Ordering::Release);
            let outcome = checkpoint.commit(cut, &clock(), || match fate {
                Fate::NotSound => Err(io::Error::other(NotSound("of a test".into()))),
                _ => Ok(Filling { image, room }),
            });
            store.fails.store(false, Ordering::Release);
            let ended = outcome.is_err();
            assert_eq!(ended, matches!(fate, Fate::Ends), "{fate:?}");
            assert_eq!(trainer.put_aside(), 0);
            if let Ok(Outcome::Done(report)) = outcome {
                kept = cut_at;
                pipeline.stored();
                *if report.whole { &mut wholes } else { &mut changes } += 1;
            }
            if ended || random(8) == 0 {
                drop((checkpoint, pipeline, trainer));
                (checkpoint, pipeline, trainer) = start();
                longest = longest.max(std::fs::read_dir(folder.path()).unwrap().count());
                at = kept;
            }
        }
        drop((checkpoint, pipeline, trainer));
        let (_, _, restored) = start();
        assert_eq!(restored.checksum(), sums[kept], "seed {seed}");
        // All that there is: as of a trainer that knows whole images alone, and as of one that never stopped.
        let written = |trainer: &Trainer| {
            let mut bytes = Vec::new();
            trainer.write(&mut bytes).unwrap();
            bytes
        };
        let bytes = written(&restored);
        let mut again = new();
        again.restore(parts::retriever_spec(&config), &mut &bytes[..]).unwrap();
        let mut plain = new();
        batches[..kept].iter().for_each(|batch| drop(plain.work(batch)));
        assert!(bytes == written(&again) && bytes == written(&plain), "seed {seed}");
    }
    assert!(wholes > 20 && changes > 100, "{wholes} whole ones, {changes} of changes");
    assert!(longest > 5, "{longest} files");
}

/// A test's parameters: numbers whose sum is what was learned.
fn begun(folder: &Path) -> (Setup, Rules) {
    let rules = rules(Entry::Impression, LabelRule::Fnw);
    (setup(folder, &rules, 1), rules)
}

/// Makes so many checkpoints of a count that grows by one each time.
fn counted(opening: &mut Opening, checkpoints: u64) {
    for _ in 0..checkpoints {
        let learned = opening.checkpoint.number() + 1;
        let cut = Cut::take(&mut opening.pipeline, Changes::default()).unwrap();
        let outcome =
            opening.checkpoint.commit(cut, &clock(), || Ok(Count::new(learned, learned - 1)));
        assert!(matches!(outcome.unwrap(), Outcome::Done(_)));
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".parameters") || name.ends_with(".changes"))
        .map(|name| name.trim_start_matches('0').to_owned())
        .collect();
    names.sort_by_key(|name| name.split('.').next().unwrap().parse::<u64>().unwrap());
    names
}

#[test]
fn what_two_checkpoints_need_is_kept_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (mut setup, rules) = begun(folder.path());
    let again = |setup: &Setup| Checkpoint::open(setup.clone(), rules.clone(), &clock()).unwrap();
    let mut opening = again(&setup);
    // Four times what changes is not more than a whole file.
    let first = ["1.parameters", "2.changes", "3.changes", "4.changes", "5.changes"];
    for number in 1..=5 {
        counted(&mut opening, 1);
        assert_eq!(names(folder.path()), first[..number]);
    }
    counted(&mut opening, 1);
    assert_eq!(names(folder.path()), [&first[..], &["6.parameters"]].concat());
    counted(&mut opening, 1);
    assert_eq!(names(folder.path()), ["6.parameters", "7.changes"]);
    // Left by a kill: another kind of the newest, unfinished ones, and the next one, which may be of a commit that was lost.
    drop(opening);
    for stray in [
        "000000000007.parameters",
        "000000000005.changes",
        "000000000008.parameters",
        "000000000008.changes.new",
    ] {
        std::fs::write(folder.path().join(stray), b"stray").unwrap();
    }
    let mut opening = again(&setup);
    assert_eq!(names(folder.path()), ["6.parameters", "7.changes", "8.parameters"]);
    assert_eq!(Count::read(opening.parameters.take()), 7);
    counted(&mut opening, 1);
    assert_eq!(names(folder.path()), ["6.parameters", "7.changes", "8.changes"]);
    // More than two, on request.
    drop(opening);
    setup.keep = 4;
    let mut opening = again(&setup);
    counted(&mut opening, 5);
    assert_eq!(opening.checkpoint.number(), 13);
    let kept = [
        "6.parameters",
        "7.changes",
        "8.changes",
        "9.changes",
        "10.changes",
        "11.parameters",
        "12.changes",
        "13.changes",
    ];
    assert_eq!(names(folder.path()), kept);
    counted(&mut opening, 1);
    assert_eq!(names(folder.path()), [&kept[5..], &["14.changes"]].concat());
    // Another model builds on nothing.
    drop(opening);
    (setup.keep, setup.new_model) = (2, true);
    let mut opening = again(&setup);
    assert!(opening.parameters.is_none());
    counted(&mut opening, 1);
    assert_eq!(names(folder.path()), [&kept[5..], &["14.changes", "15.parameters"]].concat());
    counted(&mut opening, 1);
    assert_eq!(names(folder.path()), ["15.parameters", "16.changes"]);
}

#[test]
fn a_link_that_is_damaged_gone_or_not_its_own_is_told_as_damaged_parameters() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("state");
    let (mut setup, rules) = begun(&folder);
    counted(&mut Checkpoint::open(setup.clone(), rules.clone(), &clock()).unwrap(), 4);
    let file = |name: &str| folder.join(name);
    let links = [
        "000000000001.parameters",
        "000000000002.changes",
        "000000000003.changes",
        "000000000004.changes",
    ];
    let sound: Vec<Vec<u8>> = links.iter().map(|link| std::fs::read(file(link)).unwrap()).collect();
    // Of another run, with other numbers in it.
    let elsewhere = parent.path().join("elsewhere");
    let other = Setup { folder: elsewhere.clone(), ..setup.clone() };
    let mut opening = Checkpoint::open(other, rules.clone(), &clock()).unwrap();
    for learned in [100, 300, 600, 1000] {
        let cut = Cut::take(&mut opening.pipeline, Changes::default()).unwrap();
        let outcome =
            opening.checkpoint.commit(cut, &clock(), || Ok(Count::new(learned, learned / 2)));
        assert!(matches!(outcome.unwrap(), Outcome::Done(_)));
    }
    drop(opening);
    for (link, sound) in links.iter().zip(&sound) {
        let refused = |what: &str| {
            let stop = Checkpoint::open(setup.clone(), rules.clone(), &clock()).err().unwrap();
            assert_eq!(stop.exit(), Exit::Data, "{link} {what}");
            assert!(
                stop.to_string().contains("put the file back, or start with --new-model"),
                "{stop}"
            );
        };
        damage(&file(link));
        refused("damaged");
        std::fs::write(file(link), &sound[..sound.len() - 9]).unwrap();
        refused("cut off");
        std::fs::remove_file(file(link)).unwrap();
        refused("gone");
        std::fs::copy(elsewhere.join(link), file(link)).unwrap();
        refused("of another run");
        std::fs::write(file(link), sound).unwrap();
    }
    let mut opening = Checkpoint::open(setup.clone(), rules.clone(), &clock()).unwrap();
    assert_eq!(Count::read(opening.parameters.take()), 4);
    drop(opening);
    damage(&file(links[2]));
    setup.new_model = true;
    assert!(Checkpoint::open(setup, rules, &clock()).unwrap().parameters.is_none());
}
