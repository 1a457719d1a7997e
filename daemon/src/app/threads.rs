//! The parts that run in threads, and what they share, in the order in which they are started.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;
use parking_lot::RwLock;

use super::{Daemon, Options};
use crate::capture::Capture;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::Stop;
use crate::http::Wait;
use crate::kafka::{
    Connection, Consumer, ConsumerSettings, DeadLetters, Lane, Mark, NextOffset, Producer,
    ProducerSettings, Source, TopicRole,
};
use crate::learn::trainer::Trainer;
use crate::live::checkpointer::Checkpointer;
use crate::live::ingest::Ingest;
use crate::live::learn::{Learner, snapshot, tell};
use crate::live::outputs::Outputs;
use crate::live::poison::Poison;
use crate::live::repeat::Repeat;
use crate::live::rivals::Rivals;
use crate::live::watch::Watch;
use crate::live::{Live, Work};
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::publish::{self, KafkaOutlet, Publisher};
use crate::recovery::{Chain, Journal};
use crate::serve::{Serving, requests};

/// How long the ingest thread may take for its last checkpoint, and the learner for its last batches.
const LAST_DEADLINE: Duration = Duration::from_secs(60);
/// How long other parts may take to stop.
const DEADLINE: Duration = Duration::from_secs(5);
/// Micro-batches that wait for the learner, and used ones that wait to be filled again.
const WORK: usize = 16;

/// What writes to Kafka.
pub(super) struct Producers {
    /// Dead letters.
    letters: Arc<Producer>,
    /// Answers.
    replies: Arc<Producer>,
    /// Embeddings and top lists.
    outputs: Arc<Producer>,
}

/// What is kept on disk, and what is to be done with it.
pub(super) struct Kept {
    /// Makes checkpoints.
    pub(super) checkpoint: Checkpoint,
    /// What a start after a kill repeats.
    pub(super) journal: Journal,
    /// What this one repeats.
    pub(super) repeat: Option<Repeat>,
    /// The last record that was applied of each partition.
    pub(super) marks: BTreeMap<Lane, Mark>,
    /// What a replay repeats, if it is wanted.
    pub(super) capture: Option<Capture>,
}

impl Producers {
    /// Opens all of them.
    pub(super) fn open(connection: &Connection, metrics: &Arc<Metrics>) -> Result<Self, Stop> {
        let failed = |trouble| Stop::kafka("opening a producer", trouble);
        let open = || Producer::open(&ProducerSettings::new(connection.clone()));
        Ok(Self {
            letters: Arc::new(open().map_err(failed)?),
            replies: Arc::new(requests::producer(connection.clone(), metrics).map_err(failed)?),
            outputs: Arc::new(open().map_err(failed)?),
        })
    }
}

/// Returns what to read and how: the inputs, each from where a start without state begins.
pub(super) fn reading(config: &Config, connection: Connection) -> ConsumerSettings {
    let topics = &config.kafka.topics;
    let mut sources = vec![
        Source::new(TopicRole::Items, &topics.items),
        Source::new(TopicRole::Users, &topics.users),
        Source::new(TopicRole::Events, &topics.events),
    ];
    sources[2].start = config.kafka.start;
    ConsumerSettings::new(connection, &config.kafka.group, sources)
}

impl Daemon {
    /// Makes what threads share: the state with the parameters, and what answering reads of both.
    pub(super) fn share(
        &self,
        config: &Config,
        pipeline: Pipeline,
        trainer: Trainer,
    ) -> (Arc<Live>, Arc<Serving>) {
        let pipeline = Arc::new(RwLock::new(pipeline));
        let serving = Arc::new(Serving::new(
            Arc::clone(&pipeline),
            snapshot(&trainer),
            Arc::clone(trainer.learner().embeddings()),
            config.serve.clone(),
            config.model.spec.name(),
            self.clock.clone(),
        ));
        let shared = Arc::new(Live::new(
            pipeline,
            trainer,
            self.clock.clone(),
            Arc::clone(&self.metrics),
            Arc::clone(&self.readiness),
            config.kafka.topics.clone(),
        ));
        tell(&shared, &shared.trainer.lock());
        *self.status.write() = Some(Arc::clone(&shared));
        (shared, serving)
    }

    /// Returns what was taken behind the checkpoint, with the journal that it names, and where it ends.
    pub(super) fn repeat(
        &self,
        config: &Config,
        (journal, chain): (u64, Chain),
        from: &BTreeMap<Lane, NextOffset>,
    ) -> Repeat {
        let ConsumerSettings { connection, sources, .. } = reading(config, self.connection.clone());
        Repeat { chain, journal, connection, sources, from: from.clone() }
    }

    /// Starts to read items, users and events from where the state ends.
    pub(super) fn consumer(
        &self,
        config: &Config,
        options: &Options,
        offsets: BTreeMap<Lane, NextOffset>,
        marks: BTreeMap<Lane, Mark>,
    ) -> Result<Arc<Consumer>, Stop> {
        self.readiness.wait_for(Wait::Catalogue, "items and users are being read");
        self.readiness.wait_for(Wait::Lag, "events are being read");
        let mut settings = reading(config, self.connection.clone());
        (settings.offsets, settings.marks) = (offsets, marks);
        settings.accept_gaps = options.accept_gap;
        settings.clock = self.clock.clone();
        settings.name.clone_from(&self.name);
        let consumer = Consumer::start(settings);
        consumer.map(Arc::new).map_err(|t| Stop::kafka("starting the consumer", t))
    }

    /// Starts the learner, the checkpointer and, before both in the flow, the ingest thread.
    pub(super) fn learn(
        &mut self,
        config: &Config,
        shared: &Arc<Live>,
        serving: &Arc<Serving>,
        consumer: &Arc<Consumer>,
        producers: &Producers,
        kept: Kept,
    ) -> Result<(), Stop> {
        let Kept { checkpoint, journal, repeat, marks, capture } = kept;
        let (work_sender, work) = bounded::<Work>(WORK);
        let (used_sender, used) = bounded(2 * WORK);
        let learner = Learner {
            shared: Arc::clone(shared),
            serving: Arc::clone(serving),
            work,
            used: used_sender,
        };
        let dead_letter = config.kafka.topics.dead_letter.clone();
        let dead_letters = DeadLetters::new(Arc::clone(&producers.letters), dead_letter);
        let (jobs_sender, jobs) = bounded(2);
        let (done, checkpointed) = bounded(1);
        let checkpointer = Checkpointer {
            shared: Arc::clone(shared),
            checkpoint,
            letters: dead_letters.clone(),
            consumer: Arc::clone(consumer),
            jobs,
            done,
            wish: self.wish.clone(),
            rivals: Rivals::new(
                self.connection.clone(),
                &config.kafka.group,
                &config.kafka.topics.events,
                &self.name,
            ),
        };
        let ingest = Ingest {
            shared: Arc::clone(shared),
            consumer: Arc::clone(consumer),
            work: work_sender,
            used,
            dead_letters,
            checkpoints: jobs_sender,
            checkpointed,
            interval: config.checkpoint.interval,
            journal,
            poison: Poison::open(&config.checkpoint.path)?,
            repeat,
            marks,
            capture,
            max_age: config.learn.max_age,
            faults: self.supervisor.faults(),
        };
        let supervisor = &mut self.supervisor;
        supervisor.thread("learner", LAST_DEADLINE, |shutdown| learner.run(shutdown))?;
        supervisor.thread("checkpointer", LAST_DEADLINE, |_| checkpointer.run())?;
        supervisor.thread("ingest", LAST_DEADLINE, |shutdown| ingest.run(shutdown))
    }

    /// Starts to publish embeddings and top lists.
    pub(super) fn publish(
        &mut self,
        config: &Config,
        shared: &Arc<Live>,
        serving: &Arc<Serving>,
        producers: &Producers,
    ) -> Result<(), Stop> {
        let topics = &config.kafka.topics;
        let settings = publish::Settings {
            interval: config.publish_interval,
            refresh: config.retrieval.refresh,
            lists: config.scores,
        };
        let changes = Arc::clone(shared);
        let publisher = Publisher::new(
            Arc::clone(serving),
            Arc::clone(&self.metrics),
            Arc::clone(&self.readiness),
            KafkaOutlet::new(Arc::clone(&producers.outputs), &topics.embeddings, &topics.scores),
            Box::new(move || changes.trainer.lock().retriever_mut().touched()),
            settings,
        );
        self.supervisor.thread("publisher", DEADLINE, |shutdown| publisher.run(shutdown))
    }

    /// Starts to answer requests.
    pub(super) fn answer(
        &mut self,
        config: &Config,
        serving: &Arc<Serving>,
        producers: &Producers,
    ) -> Result<(), Stop> {
        let topics = &config.kafka.topics;
        let asked = requests::consumer(
            self.connection.clone(),
            self.clock.clone(),
            &config.kafka.group,
            &self.name,
            &topics.requests,
        )
        .map_err(|t| Stop::kafka("starting the consumer of requests", t))?;
        let (intake, scorers) = requests::build(
            serving,
            &self.metrics,
            &topics.responses,
            &config.kafka.reply_topics,
            asked,
            &producers.replies,
            &self.readiness,
        );
        for (i, scorer) in scorers.into_iter().enumerate() {
            let name = format!("scorer-{i}");
            self.supervisor.thread(&name, DEADLINE, |shutdown| scorer.run(shutdown))?;
        }
        self.supervisor.thread("requests", DEADLINE, |shutdown| intake.run(shutdown))
    }

    /// Starts to watch all of it.
    pub(super) fn watch(
        &mut self,
        shared: &Arc<Live>,
        consumer: &Arc<Consumer>,
        producers: Producers,
    ) -> Result<(), Stop> {
        let Producers { letters, replies, outputs } = producers;
        let gauges = Arc::clone(consumer);
        let watch = Watch {
            shared: Arc::clone(shared),
            consumer: Box::new(move || gauges.gauges()),
            producers: vec![letters, replies, outputs],
            outputs: Outputs::new(&shared.topics),
        };
        self.supervisor.thread("watch", DEADLINE, |shutdown| watch.run(shutdown))
    }
}
