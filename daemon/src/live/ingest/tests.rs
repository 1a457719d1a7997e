//! What records of Kafka do to time and partitions, on the embedded broker and a clock that is turned by hand.

mod kills;

use std::path::Path;

use crossbeam_channel::bounded;
use parking_lot::RwLock;
use serde_json::{Value, json};
use sluice_features::time::EventTime;

use super::*;
use crate::app::labels;
use crate::checkpoint::{Checkpoint, Opening};
use crate::clock::Clock;
use crate::config::{Bounds, Config, Share};
use crate::http::Readiness;
use crate::kafka::{
    Connection, ConsumerSettings, EmbeddedBroker, Gap, GapCause, LaneStatus, NextOffset, Producer,
    ProducerSettings, Reader, Source, Start, Stranger, TopicRole,
};
use crate::live::checkpointer::lanes;
use crate::metrics::Metrics;
use crate::parts;
use crate::supervise::Supervisor;
use crate::testing::small;

const NOW: i64 = 1_796_033_294_000;
const PATIENT: Duration = Duration::from_secs(60);

/// An ingest thread's parts, moved by hand.
struct Stand {
    broker: Arc<EmbeddedBroker>,
    ingest: Ingest,
    state: State,
    clock: Clock,
    shutdown: Shutdown,
    taken: u64,
    checkpoint: Checkpoint,
    /// The other ends of its channels.
    work: Receiver<Work>,
    jobs: Receiver<Job>,
    done: Sender<Written>,
    _used: Sender<LearnBatch>,
}

impl Stand {
    fn open(partitions: i32) -> Self {
        Self::bounded(partitions, |bounds| bounds)
    }

    /// With other bounds than the usual ones.
    fn bounded(partitions: i32, change: impl Fn(Bounds) -> Bounds) -> Self {
        let config = Config::build(&small("10s"), &[]).unwrap();
        let bounds = change(config.memory.bounds);
        Self::configured(&config.bounded(bounds), partitions)
    }

    /// With a configuration.
    fn configured(config: &Config, partitions: i32) -> Self {
        let broker = EmbeddedBroker::start().unwrap();
        let topics = &config.kafka.topics;
        for topic in [&topics.events, &topics.items, &topics.users, &topics.dead_letter] {
            broker.create_topic(topic, partitions).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(EventTime(NOW));
        Self::over(Arc::new(broker), config, partitions, folder.path(), clock)
    }

    /// Begins with what is in a folder.
    fn over(
        broker: Arc<EmbeddedBroker>,
        config: &Config,
        partitions: i32,
        folder: &Path,
        clock: Clock,
    ) -> Self {
        let partitions = usize::try_from(partitions).unwrap();
        let setup = parts::setup(config, partitions, folder, false);
        let opening = Checkpoint::open(setup, parts::rules(config), &clock).unwrap();
        let Opening { checkpoint, pipeline, parameters, resumed } = opening;
        let mut trainer = parts::trainer(config).unwrap();
        parts::restore(config, &mut trainer, parameters).unwrap();
        let topics = config.kafka.topics.clone();
        let shared = Live::new(
            Arc::new(RwLock::new(pipeline)),
            trainer,
            clock.clone(),
            Arc::new(Metrics::new(&labels(config))),
            Arc::new(Readiness::default()),
            topics.clone(),
        );
        shared.set_caught_up(true);
        let sources = vec![
            Source::new(TopicRole::Items, &topics.items),
            Source::new(TopicRole::Users, &topics.users),
            Source::new(TopicRole::Events, &topics.events),
        ];
        let mut settings = ConsumerSettings::new(broker.connection(), "test", sources.clone());
        settings.clock = clock.clone();
        settings.ask_every = Duration::from_millis(1);
        let journals = resumed.as_ref().map(|resumed| resumed.journals);
        let (journal, chain) = Journal::open(folder, journals).unwrap();
        let repeat = resumed.map(|resumed| Repeat {
            chain,
            journal: resumed.journals[1],
            connection: broker.connection(),
            sources,
            from: lanes(&topics, &resumed.offsets).map(|(lane, next, _)| (lane, next)).collect(),
        });
        if let Some(repeat) = &repeat {
            settings.offsets = repeat.from.clone();
            settings.offsets.extend(repeat.ends());
        }
        let letters = Producer::open(&ProducerSettings::new(broker.connection())).unwrap();
        let (work_sender, work) = bounded(1024);
        let (reuse, used) = bounded(1);
        let (checkpoints, jobs) = bounded(2);
        let (done, checkpointed) = bounded(1);
        let shutdown = Shutdown::new();
        let ingest = Ingest {
            shared: Arc::new(shared),
            consumer: Arc::new(Consumer::start(settings).unwrap()),
            work: work_sender,
            used,
            dead_letters: DeadLetters::new(Arc::new(letters), &topics.dead_letter),
            checkpoints,
            checkpointed,
            interval: PATIENT,
            journal,
            poison: Poison::open(folder).unwrap(),
            repeat,
            marks: Default::default(),
            capture: None,
            max_age: PATIENT,
            faults: Supervisor::new(shutdown.clone(), clock.clone()).faults(),
        };
        let state = ingest.state();
        let (taken, _used) = (0, reuse);
        Self { broker, ingest, state, clock, shutdown, taken, checkpoint, work, jobs, done, _used }
    }

    fn connection(&self) -> Connection {
        self.broker.connection()
    }

    /// Sends a record and takes it.
    fn send(&mut self, by: &Stranger, topic: Topic, key: &str, value: &[u8], stamp: i64) {
        let name = self.ingest.shared.topic_name(topic).to_owned();
        by.send(&name, key.as_bytes(), value, Some(stamp));
        self.taken += 1;
        while self.ingest.shared.records() < self.taken {
            self.receive();
        }
    }

    /// Waits for the next batch, and takes it or holds it back.
    fn receive(&mut self) {
        loop {
            let event = self.ingest.consumer.events().recv_timeout(PATIENT).unwrap();
            if let ConsumerEvent::Batch(batch) = event {
                return self.ingest.came(batch, &mut self.state, &self.shutdown).unwrap();
            }
        }
    }

    fn event(&mut self, by: &Stranger, event: &Value, stamp: i64) {
        let key = event["user"].as_str().unwrap();
        self.send(by, Topic::Events, key, event.to_string().as_bytes(), stamp);
    }

    /// Lets so many seconds pass, one by one, and looks for silent partitions.
    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.turn(Duration::from_secs(1));
            self.look();
        }
    }

    /// Looks for silent partitions once the broker was asked at this moment where they end.
    fn look(&mut self) {
        let now = self.clock.steady();
        let events = |lane: &LaneStatus| lane.lane.role == TopicRole::Events;
        let asked = |lane: &LaneStatus| lane.end.is_some_and(|end| end.asked >= now);
        let all_asked =
            |lanes: Vec<LaneStatus>| lanes.iter().filter(|lane| events(lane)).all(asked);
        while !all_asked(self.ingest.consumer.gauges().lanes) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.ingest.look_for_silence(&mut self.state).unwrap();
    }

    /// Sends a record and leaves it in Kafka, or on the way.
    fn leave(&mut self, by: &Stranger, event: &Value) {
        self.taken += 1;
        let events = self.ingest.shared.topic_name(Topic::Events);
        let key = event["user"].as_str().unwrap();
        by.send(events, key.as_bytes(), event.to_string().as_bytes(), Some(NOW));
    }

    fn open_impressions(&self) -> u64 {
        self.ingest.shared.pipeline.read().open_impressions()
    }

    fn newest(&self) -> i64 {
        self.ingest.shared.pipeline.read().shards()[0].watermark.newest().0
    }
}

#[test]
fn a_record_that_ended_the_daemon_three_times_is_passed_to_the_dead_letters() {
    let broker = EmbeddedBroker::start().unwrap();
    let config = Config::build(&small("10s"), &[]).unwrap();
    let topics = &config.kafka.topics;
    for topic in [&topics.events, &topics.items, &topics.users, &topics.dead_letter] {
        broker.create_topic(topic, 1).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let noted =
        r#"[[{"topic":0,"partition":0,"offset":1},3],[{"topic":0,"partition":0,"offset":2},2]]"#;
    std::fs::write(folder.path().join("poison.json"), noted).unwrap();
    let clock = Clock::manual(EventTime(NOW));
    let mut stand = Stand::over(Arc::new(broker), &config, 1, folder.path(), clock);
    let by = Stranger::open(&stand.connection(), "murmur2_random");
    for id in ["r0", "r1", "r2"] {
        stand.event(&by, &impression(id, NOW - 1_000), NOW);
    }
    let counts = stand.ingest.shared.pipeline.read().counts().clone();
    assert_eq!((counts.events, counts.all_rejected(), stand.open_impressions()), (2, 1, 2));
    let mut letters =
        Reader::open(&stand.connection(), &topics.dead_letter, Start::Beginning, PATIENT).unwrap();
    let letter = letters.next(PATIENT).unwrap().unwrap();
    assert_eq!((letter.header("reason"), letter.header("offset")), (Some("poison"), Some("1")));
}

fn impression(id: &str, time: i64) -> Value {
    json!({"type": "impression", "id": id, "ts": time, "user": format!("u{id}"), "item": "i1"})
}

/// The disk is full when the daemon is asked to stop.
#[test]
fn an_end_without_a_last_checkpoint_is_told_and_is_no_good_end() {
    for full in [false, true] {
        let Stand { ingest, shutdown, work: _work, jobs, done, broker: _broker, _used, .. } =
            Stand::open(1);
        shutdown.request();
        let ended = std::thread::scope(|scope| {
            scope.spawn(move || {
                drop(jobs.recv());
                done.send(if full { Err("no room".into()) } else { Ok(()) }).unwrap();
            });
            ingest.run(&shutdown)
        });
        let Err(stop) = ended else {
            assert!(!full);
            continue;
        };
        assert!(full);
        assert_eq!(stop.exit(), crate::error::Exit::Fault);
        let said = crate::error::chain(&stop);
        assert!(said.contains("without a last checkpoint") && said.contains("no room"), "{said}");
    }
}

#[test]
fn only_events_that_move_the_watermark_keep_a_partition_awake() {
    let mut stand = Stand::open(1);
    let by = Stranger::open(&stand.connection(), "murmur2_random");
    let shown = impression("r1", NOW - 2_000);
    stand.event(&by, &shown, NOW);
    stand.wait(20);
    // An update, a refused record, a copy, an older event, one far ahead: none says how far event time has come.
    let update = json!({"item": "i1", "ts": NOW, "features": {"stock": 3}}).to_string();
    stand.send(&by, Topic::Items, "i1", update.as_bytes(), NOW);
    stand.send(&by, Topic::Events, "ur1", b"{", NOW);
    stand.event(&by, &shown, NOW);
    stand.event(&by, &impression("r0", NOW - 2_100), NOW);
    stand.event(&by, &impression("r2", NOW + 6 * 60_000 + 20_000), NOW + 20_000);
    assert_eq!((stand.open_impressions(), stand.newest()), (3, NOW - 2_000));
    stand.wait(9);
    assert_eq!(stand.open_impressions(), 3, "29 seconds are no silence");
    stand.wait(2);
    assert_eq!(stand.open_impressions(), 1, "only the one far ahead is open still");
    // The next event counts again.
    stand.event(&by, &impression("r3", NOW + 30_000), NOW + 31_000);
    stand.wait(29);
    assert_eq!(stand.open_impressions(), 2);
}

/// What was stopped, cut off or slow finds its records in Kafka: their windows wait for them, however late it is.
#[test]
fn no_window_closes_while_records_of_its_partition_wait() {
    let mut stand = Stand::open(1);
    let by = Stranger::open(&stand.connection(), "murmur2_random");
    stand.event(&by, &impression("r1", NOW - 2_000), NOW);
    stand.wait(10);
    // The process sleeps for two minutes, or Kafka is out of reach; meanwhile a record comes, and is fetched when it is back.
    let click = json!({"type": "click", "id": "c1", "ts": NOW + 3_000, "user": "ur1", "item": "i1",
        "impression": "r1"});
    stand.leave(&by, &click);
    stand.clock.turn(Duration::from_secs(120));
    stand.look();
    assert_eq!(stand.open_impressions(), 1, "right after it woke");
    stand.wait(60);
    assert_eq!(stand.open_impressions(), 1, "the record is on its way still");
    stand.receive();
    assert_eq!(stand.ingest.shared.pipeline.read().join_counts().kinds[0].attributed, 1);
    // Where nothing came while it slept, what others could not send meanwhile gets the time of a silence too.
    stand.wait(10);
    stand.clock.turn(Duration::from_secs(120));
    stand.event(&by, &impression("r2", NOW + 4_000), NOW + 320_000);
    stand.wait(10);
    stand.clock.turn(Duration::from_secs(120));
    stand.wait(30);
    assert_eq!(stand.open_impressions(), 2);
    stand.wait(1);
    assert_eq!(stand.open_impressions(), 0);
}

#[test]
fn silence_moves_the_watermark_no_further_than_an_event_of_that_moment() {
    let mut stand = Stand::open(1);
    let by = Stranger::open(&stand.connection(), "murmur2_random");
    // A clock four minutes ahead, which is plausible: event time has come there, and waits for ours.
    let ahead = NOW + 4 * 60_000;
    stand.event(&by, &impression("r1", ahead - 5_000), NOW);
    stand.event(&by, &impression("r2", ahead), NOW);
    stand.wait(31);
    assert_eq!(stand.open_impressions(), 2);
    stand.wait(4 * 60 - 31);
    assert_eq!(stand.open_impressions(), 2);
    // The window of the first ends 5 seconds after `ahead`, and is closed a second later.
    stand.wait(7);
    assert_eq!(stand.open_impressions(), 1);
}

#[test]
fn what_a_producer_says_of_the_time_is_believed_only_where_it_can_be_true() {
    let mut stand = Stand::open(1);
    let by = Stranger::open(&stand.connection(), "murmur2_random");
    for (i, stamp) in [NOW / 1000, 1, 0, -1, NOW * 1000, NOW * 1_000_000].into_iter().enumerate() {
        stand.event(&by, &impression(&format!("r{i}"), NOW - 1_000), stamp);
    }
    let counts = stand.ingest.shared.pipeline.read().counts().clone();
    assert_eq!((counts.events, counts.all_rejected(), counts.skewed), (6, 0, 0));
    // A host whose clock is 50 minutes ahead, and whose stamps are too.
    stand.event(&by, &impression("ahead", NOW + 50 * 60_000), NOW + 50 * 60_000);
    // One in microseconds, with a stamp to match.
    stand.event(&by, &impression("micros", NOW * 1000), NOW * 1000);
    let counts = stand.ingest.shared.pipeline.read().counts().clone();
    assert_eq!((counts.events, counts.all_rejected(), counts.skewed), (7, 1, 1));
    assert_eq!(stand.newest(), NOW - 1_000, "neither moves the watermark");
    // A backlog is old, and its stamps say when it was sent.
    stand.event(&by, &impression("old", NOW - 900_000_000), NOW - 899_000_000);
    assert_eq!(stand.ingest.shared.pipeline.read().counts().events, 8);
}

#[test]
fn where_users_and_items_take_all_their_memory_reading_of_everything_waits_and_says_so() {
    let mut stand = Stand::bounded(1, |bounds| bounds.with(Share::State, 5_000));
    let by = Stranger::open(&stand.connection(), "murmur2_random");
    let ready = |stand: &Stand| {
        let reasons = stand.ingest.shared.readiness.reasons();
        reasons.into_iter().find(|(wait, _)| *wait == Wait::Memory).map(|(_, text)| text)
    };
    let gauge = |stand: &Stand, line: &str| stand.ingest.shared.metrics.render().contains(line);
    let mut id = 0;
    while ready(&stand).is_none() {
        stand.event(&by, &impression(&format!("r{id}"), NOW - 2_000), NOW);
        id += 1;
        assert!(id < 2_000, "it never waits");
    }
    let told = ready(&stand).unwrap();
    for word in ["memory.limit", "names", "sequences", "start again with a larger"] {
        assert!(told.contains(word), "{told}");
    }
    assert!(gauge(&stand, "sluice_memory_paused{share=\"state\"} 1"));
    assert!(gauge(&stand, "sluice_memory_paused{share=\"open\"} 0"));
    assert!(!stand.ingest.shared.takes_everything());
    let status = stand.ingest.shared.status();
    let bytes: u64 = ["sequences", "names", "catalogue", "index"]
        .map(|part| status["memory"][part]["bytes"].as_u64().unwrap())
        .iter()
        .sum();
    assert!(bytes > 5_000 && status["memory"]["names"]["bound"] == 5_000, "{status}");
    // What comes now waits unread, whatever its topic, and time does not go on.
    let waiting = [
        (Topic::Events, impression("late", NOW - 1_000)),
        (Topic::Items, json!({"item": "i9", "ts": NOW, "features": {"stock": 3}})),
    ];
    for (topic, value) in waiting {
        let name = stand.ingest.shared.topic_name(topic).to_owned();
        by.send(&name, b"k", value.to_string().as_bytes(), Some(NOW));
        stand.receive();
    }
    let open = stand.open_impressions();
    stand.wait(40);
    stand.ingest.look_at_room(&mut stand.state);
    assert!(stand.state.room.next().is_none() && ready(&stand).is_some());
    assert_eq!((stand.ingest.shared.records(), stand.open_impressions()), (stand.taken, open));
    // With more memory it goes on where it was.
    stand.state.room.bounded(crate::testing::bounds());
    stand.ingest.look_at_room(&mut stand.state);
    assert_eq!(ready(&stand), None);
    while let Some(batch) = stand.state.room.next() {
        stand.ingest.batch(&batch, &mut stand.state, &stand.shutdown).unwrap();
    }
    assert_eq!(stand.ingest.shared.records(), stand.taken + 2);
    assert!(gauge(&stand, "sluice_memory_paused{share=\"state\"} 0"));
}

#[test]
fn where_open_impressions_take_all_their_memory_updates_are_taken_on() {
    let mut stand = Stand::bounded(1, |bounds| bounds.with(Share::Open, 20_000));
    let by = Stranger::open(&stand.connection(), "murmur2_random");
    let mut id = 0;
    while !stand.ingest.shared.readiness.waits_for(Wait::Open) {
        stand.event(&by, &impression(&format!("r{id}"), NOW - 2_000), NOW);
        id += 1;
        assert!(id < 2_000, "it never waits");
    }
    let update = json!({"item": "i9", "ts": NOW, "features": {"stock": 3}}).to_string();
    stand.send(&by, Topic::Items, "i9", update.as_bytes(), NOW);
    let events = stand.ingest.shared.topic_name(Topic::Events).to_owned();
    let late = impression("late", NOW - 1_000).to_string();
    by.send(&events, b"ulate", late.as_bytes(), Some(NOW));
    stand.receive();
    assert_eq!(stand.ingest.shared.records(), stand.taken, "the event waits");
    assert!(stand.state.room.next().is_none());
}

#[test]
fn a_checkpoint_is_made_early_where_much_of_the_open_impressions_waits_for_one() {
    const OPEN: u64 = 400_000;
    // Clicks are known after a second, what is bought after an hour.
    let buy = "[[funnel.tasks]]\nname = \"buy\"\nwindow = \"1h\"\nlabels = \"wait\"\n[model]\n";
    let text = small("1s").replace("[model]\n", buy);
    let config = Config::build(&text, &[]).unwrap();
    let mut stand =
        Stand::configured(&config.clone().bounded(config.memory.bounds.with(Share::Open, OPEN)), 1);
    let by = Stranger::open(&stand.connection(), "murmur2_random");
    let planned = stand.state.next_checkpoint;
    let waits = |stand: &Stand| stand.ingest.shared.pipeline.read().wants_checkpoint();
    let mut id = 0;
    while !waits(&stand) {
        stand.ingest.look_at_unstored(stand.clock.steady(), &mut stand.state);
        assert_eq!(stand.state.next_checkpoint, planned);
        let events = stand.ingest.shared.topic_name(Topic::Events).to_owned();
        for _ in 0..50 {
            let event = impression(&format!("r{id}"), NOW - 20_000 + 10 * id);
            let (key, value) = (event["user"].as_str().unwrap(), event.to_string());
            by.post(&events, key.as_bytes(), value.as_bytes(), Some(NOW));
            (id, stand.taken) = (id + 1, stand.taken + 1);
        }
        by.flush();
        while stand.ingest.shared.records() < stand.taken {
            stand.receive();
        }
        assert!(id < 2_000, "nothing ever waits for a checkpoint");
    }
    // Not right behind the one before, however much there is.
    let now = stand.state.begun + TRY_AGAIN;
    stand.ingest.look_at_unstored(now - Duration::from_millis(1), &mut stand.state);
    assert_eq!(stand.state.next_checkpoint, planned);
    stand.ingest.look_at_unstored(now, &mut stand.state);
    assert_eq!(stand.state.next_checkpoint, now);
}

#[test]
fn users_in_two_partitions_are_counted_and_the_partitioners_named() {
    let clicks_by = |partitioner: &str| {
        let mut stand = Stand::open(4);
        let views = Stranger::open(&stand.connection(), "murmur2_random");
        let clicks = Stranger::open(&stand.connection(), partitioner);
        for i in 0..40 {
            let (id, user) = (format!("r{i}"), format!("ur{i}"));
            stand.event(&views, &impression(&id, NOW - 5_000), NOW);
            let click = json!({"type": "click", "id": format!("c{i}"), "ts": NOW - 4_000,
                "user": user, "item": "i1", "impression": id});
            stand.event(&clicks, &click, NOW);
        }
        let joined = stand.ingest.shared.pipeline.read().join_counts();
        stand.ingest.look_at_partitioning(stand.clock.steady(), &mut stand.state.partitioning);
        let told = stand.ingest.shared.status()["split_users"].as_u64().unwrap();
        (joined.kinds[0].attributed, told)
    };
    assert_eq!(clicks_by("murmur2_random"), (40, 0));
    let (attributed, split) = clicks_by("consistent_random");
    assert!(split > 20 && attributed + split == 40, "{attributed} of 40, {split} split");
}

#[test]
fn where_partitions_begin_is_kept_before_a_record_is_taken_and_once() {
    let mut stand = Stand::open(2);
    let ConsumerEvent::Assigned(lanes) =
        stand.ingest.consumer.events().recv_timeout(PATIENT).unwrap()
    else {
        panic!("expected the partitions first");
    };
    stand.done.send(Ok(())).unwrap();
    stand.ingest.assigned(&lanes, &mut stand.state).unwrap();
    let waited = stand.state.writing.is_none();
    assert!(stand.jobs.try_recv().is_ok() && waited, "a checkpoint, waited for");
    stand.ingest.assigned(&lanes, &mut stand.state).unwrap();
    assert!(stand.jobs.try_recv().is_err(), "they are known");
    let pipeline = stand.ingest.shared.pipeline.read();
    let next = [Topic::Events, Topic::Items, Topic::Users].map(|t| pipeline.shards()[1].next(t));
    assert_eq!(next, [Some(0); 3]);
}

#[test]
fn a_gap_moves_the_position_and_never_over_records_that_wait() {
    let mut stand = Stand::open(1);
    let lane = Lane { role: TopicRole::Events, partition: 0 };
    let next = |stand: &Stand| stand.ingest.shared.pipeline.read().shards()[0].next(Topic::Events);
    let went_on = |stand: &mut Stand, cause, from, to| {
        let gap = Gap { lane, cause, from: NextOffset(from), to: NextOffset(to) };
        stand.ingest.went_on(&gap, &mut stand.state).unwrap();
    };
    stand.ingest.shared.pipeline.write().parts_mut(0).1.set_next(Topic::Events, 5);
    went_on(&mut stand, GapCause::Deleted, 10, 40);
    assert_eq!(next(&stand), Some(5), "5 to 9 wait");
    stand.ingest.shared.pipeline.write().parts_mut(0).1.set_next(Topic::Events, 10);
    went_on(&mut stand, GapCause::Unreadable, 10, 40);
    assert_eq!(next(&stand), Some(40));
    went_on(&mut stand, GapCause::MadeAnew, 40, 0);
    assert_eq!(next(&stand), Some(0), "a new topic is read from its beginning");
}
