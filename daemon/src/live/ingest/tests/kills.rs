//! A kill at any moment: the next start goes on from the checkpoint, repeats the journal, and is where the killed run was, to the bit.

use std::io;
use std::path::PathBuf;

use proptest::prelude::*;
use sluice_features::ids::UserId;
use sluice_features::sequence::{Entry as Behaved, SequencesState};

use super::*;
use crate::checkpoint::{NotSound, Outcome};

/// Something that happens in a run.
#[derive(Clone, Debug)]
enum Happening {
    /// So many events of users are sent, some of them refused.
    Events(u8),
    /// So many batches are taken, as they come.
    Taken(u8),
    /// The batch that fills has waited long enough.
    Cut,
    /// So many seconds pass, and silent partitions are looked for.
    Silence(u8),
    /// A checkpoint is made, or is not, as the parameters are not sound.
    Checkpoint { sound: bool },
    /// The process is killed.
    Kill,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (1u8..60).prop_map(Happening::Events),
        4 => (1u8..6).prop_map(Happening::Taken),
        2 => Just(Happening::Cut),
        1 => (1u8..40).prop_map(Happening::Silence),
        2 => any::<bool>().prop_map(|sound| Happening::Checkpoint { sound }),
        2 => Just(Happening::Kill),
    ]
}

/// A run and the folder of its state.
struct Run {
    stand: Stand,
    folder: PathBuf,
    config: Config,
    partitions: i32,
    by: Stranger,
    sent: u32,
}

impl Run {
    fn begin(partitions: i32, folder: PathBuf) -> Self {
        let text = format!("{}[learn]\nbatch = 8\nthreads = 1\n", small("10s"));
        let config = Config::build(&text, &[]).unwrap();
        let broker = EmbeddedBroker::start().unwrap();
        let topics = &config.kafka.topics;
        for topic in [&topics.events, &topics.items, &topics.users, &topics.dead_letter] {
            broker.create_topic(topic, partitions).unwrap();
        }
        let clock = Clock::manual(EventTime(NOW));
        let mut stand = Stand::over(Arc::new(broker), &config, partitions, &folder, clock);
        stand.begin();
        let by = Stranger::open(&stand.connection(), "murmur2_random");
        Self { stand, folder, config, partitions, by, sent: 0 }
    }

    fn happens(&mut self, happening: &Happening, place: usize) {
        match *happening {
            Happening::Events(count) => {
                (0..count).for_each(|_| self.send());
                self.by.flush();
            }
            Happening::Taken(batches) => (0..batches).for_each(|_| self.stand.take_one()),
            Happening::Cut => self.stand.decide(Decision::Cut),
            Happening::Silence(seconds) => self.stand.wait(u64::from(seconds)),
            Happening::Checkpoint { sound } => self.stand.make_checkpoint(sound),
            Happening::Kill => self.compare_with_the_next_start(place),
        }
        self.stand.learn();
    }

    fn send(&mut self) {
        let number = self.sent;
        self.sent += 1;
        let now = self.stand.clock.wall().0;
        let user = format!("u{}", number * 7 % 23);
        let event = match number % 5 {
            3 => {
                json!({"type": "click", "id": format!("c{number}"), "ts": now, "user": format!("u{}", (number - 2) * 7 % 23),
                "item": format!("i{}", (number - 2) % 11)})
            }
            4 if number.is_multiple_of(4) => json!({"type": "click", "user": user}),
            _ => {
                json!({"type": "impression", "id": format!("r{number}"), "ts": now, "user": user, "item": format!("i{}", number % 11)})
            }
        };
        let (topic, user) = (&self.config.kafka.topics.events, event["user"].as_str().unwrap());
        self.by.post(topic, user.as_bytes(), event.to_string().as_bytes(), Some(now));
    }

    /// Copies the folder as a kill would leave it, starts from that, and compares; this run goes on.
    fn compare_with_the_next_start(&mut self, place: usize) {
        // What is in no batch yet cannot be compared.
        self.stand.decide(Decision::Cut);
        self.stand.learn();
        let killed = self.folder.with_file_name(format!("killed-{place}"));
        copy(&self.folder, &killed);
        // A kill right behind a commit leaves what that would have removed.
        let stray = ["state", "parameters", "changes"]
            .map(|ending| killed.join(format!("{:012}.{ending}", 0)));
        stray.iter().for_each(|stray| std::fs::write(stray, b"old").unwrap());
        let (broker, clock) = (Arc::clone(&self.stand.broker), self.stand.clock.clone());
        let mut next = Stand::over(broker, &self.config, self.partitions, &killed, clock);
        assert!(!stray.iter().any(|stray| stray.exists()), "what nobody needs goes");
        if let Some(repeat) = next.ingest.repeat.take() {
            let again = std::thread::scope(|scope| {
                // The learner's side: the queue between the two is bounded.
                let (work, trainer) = (next.work.clone(), Arc::clone(&next.ingest.shared));
                let learner = std::thread::Builder::new().spawn_scoped(scope, move || {
                    while let Ok(work) = work.recv() {
                        learn(&trainer, work);
                    }
                });
                let ended = next.ingest.repeat(repeat, &mut next.state, &next.shutdown);
                let (nobody, _) = bounded(1);
                next.ingest.work = nobody;
                learner.unwrap().join().unwrap();
                ended
            });
            assert!(again.unwrap());
            assert!(next.picture() == self.stand.picture(), "the state at {place}");
            assert_eq!(next.checksum(), self.stand.checksum(), "the parameters at {place}");
            assert_eq!(
                next.ingest.shared.trainer.lock().covered(),
                self.stand.ingest.shared.trainer.lock().covered()
            );
        }
        drop(next);
        std::fs::remove_dir_all(killed).unwrap();
    }
}

impl Stand {
    /// Takes over where reading begins, and makes the first checkpoint of that.
    fn begin(&mut self) {
        let ConsumerEvent::Assigned(lanes) =
            self.ingest.consumer.events().recv_timeout(PATIENT).unwrap()
        else {
            panic!("expected the partitions first");
        };
        self.done.send(Ok(())).unwrap();
        self.ingest.assigned(&lanes, &mut self.state).unwrap();
        self.learn();
        assert_eq!(self.commit(true), Ok(()));
    }

    /// Takes the next batch, if one comes soon.
    fn take_one(&mut self) {
        let events = self.ingest.consumer.events().clone();
        while let Ok(event) = events.recv_timeout(Duration::from_millis(20)) {
            if let ConsumerEvent::Batch(batch) = event {
                return self.ingest.came(batch, &mut self.state, &self.shutdown).unwrap();
            }
        }
    }

    fn decide(&mut self, decision: Decision) {
        self.ingest.decide(decision, &mut self.state).unwrap();
    }

    fn learn(&self) {
        self.work.try_iter().for_each(|work| learn(&self.ingest.shared, work));
    }

    fn make_checkpoint(&mut self, sound: bool) {
        self.ingest.begin_checkpoint(&mut self.state).unwrap();
        self.learn();
        let written = self.commit(sound);
        assert_eq!(written.is_ok(), sound);
        self.done.send(written).unwrap();
        assert_eq!(self.ingest.finish_checkpoint(&mut self.state).unwrap().is_ok(), sound);
    }

    /// Writes the checkpoint that was begun.
    fn commit(&mut self, sound: bool) -> Written {
        let Job::Commit { cut, image } = self.jobs.recv().unwrap() else {
            panic!("expected a checkpoint, found changes ahead of it");
        };
        let outcome = self.checkpoint.commit(*cut, &self.clock, || {
            let image = image.recv().unwrap().map_err(io::Error::other)?;
            if sound { Ok(image) } else { Err(io::Error::other(NotSound("so".into()))) }
        });
        match outcome.unwrap() {
            Outcome::Done(_) => Ok(()),
            Outcome::NotNow(reason) => Err(reason),
        }
    }

    /// Returns the state, and everybody's behaviours wherever they are stored.
    fn picture(&self) -> (Vec<u8>, Vec<(u64, Vec<Behaved>)>) {
        let (mut bytes, pipeline) = (Vec::new(), self.ingest.shared.pipeline.read());
        let nowhere = vec![SequencesState::default(); pipeline.shards().len()];
        pipeline.picture_with(nowhere).write(&mut bytes).unwrap();
        let (shared, all) = (pipeline.shared(), pipeline.shared().kinds.configured());
        let behaviours = |user: u64| {
            let (past, mut found) = (pipeline.past(UserId(user)), Vec::new());
            past.sequence.newest(EventTime::MAX, usize::MAX, &all, |entry| found.push(entry));
            (user, found)
        };
        let users = (0..shared.users.len()).map(|number| shared.users.id(number as u32));
        let users = users.map(behaviours).collect();
        pipeline.check().unwrap();
        (bytes, users)
    }

    fn checksum(&self) -> u64 {
        self.ingest.shared.trainer.lock().checksum()
    }
}

fn learn(shared: &Live, work: Work) {
    let mut trainer = shared.trainer.lock();
    match work {
        Work::Learn(batch) => drop(trainer.work(&batch)),
        Work::Freeze(to) => to.send(Ok(trainer.image())).unwrap(),
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_start_after_a_kill_is_where_the_killed_run_was(
        several in any::<bool>(),
        happenings in prop::collection::vec(happening(), 10..40),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::begin(if several { 4 } else { 1 }, folder.path().join("state"));
        run.happens(&Happening::Events(60), 0);
        run.happens(&Happening::Taken(4), 0);
        run.happens(&Happening::Checkpoint { sound: true }, 0);
        for (place, happening) in happenings.iter().enumerate() {
            run.happens(happening, place);
        }
        run.happens(&Happening::Kill, happenings.len());
    }
}
