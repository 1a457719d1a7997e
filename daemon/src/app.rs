//! Builds everything from the configuration, starts it in order, stops it in reverse: the only file that knows all parts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;
use parking_lot::RwLock;
use serde_json::json;
use sluice_features::event::BehaviourType;
use sluice_features::funnel::Entry;
use sluice_features::reject::Reason;

use crate::capture::{Capture, Start};
use crate::checkpoint::{Checkpoint, Opening, Resumed};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::{Exit, Stop};
use crate::http::{Pages, Readiness, Server, Wait};
use crate::kafka::{
    Connection, Consumer, ConsumerSettings, DeadLetters, EmbeddedBroker, Probe, Producer,
    ProducerSettings, Source, TopicRole,
};
use crate::live::checkpointer::{Checkpointer, lanes};
use crate::live::ingest::Ingest;
use crate::live::learn::{Learner, snapshot};
use crate::live::watch::Watch;
use crate::live::{Shared, Work};
use crate::metrics::{LabelSets, Metrics};
use crate::parts;
use crate::publish::{self, KafkaOutlet, Publisher};
use crate::serve::{Serving, requests};
use crate::shutdown::Shutdown;
use crate::supervise::Supervisor;

/// What the command line adds to the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keeps the consumed records and the journal in this folder.
    pub capture: Option<PathBuf>,
    /// Keeps the state and starts with new parameters.
    pub new_model: bool,
}

/// Partitions of the embedded broker's topics.
const EMBEDDED_PARTITIONS: i32 = 16;
/// How long a broker may take to answer one question at the start, before it is asked again.
const ASK: Duration = Duration::from_secs(5);
/// How long HTTP may take to stop.
const HTTP_DEADLINE: Duration = Duration::from_secs(2);
/// How long the ingest thread may take for its last checkpoint, and the learner for its last batches.
const LAST_DEADLINE: Duration = Duration::from_secs(60);
/// How long other parts may take to stop.
const DEADLINE: Duration = Duration::from_secs(5);
/// Micro-batches that wait for the learner, and used ones that wait to be filled again.
const WORK: usize = 16;

/// Runs until SIGINT, SIGTERM or a fault, and says how it ended.
///
/// # Errors
/// What kept it from starting.
pub fn run(config: &Config, options: &Options) -> Result<Exit, Stop> {
    crate::telemetry::start(&config.log)?;
    let wish = Shutdown::new();
    let daemon = Daemon::start(config, options, &wish)?;
    daemon.watch_signals(&wish);
    match daemon.connect(config, options) {
        Ok(running) => running.run(),
        // Whatever was being waited for is not wanted any more.
        Err(stop) if wish.is_requested() => {
            tracing::info!(reason = %stop, "stopped before everything ran");
            Ok(Exit::Well)
        }
        Err(stop) => Err(stop),
    }
}

/// A daemon that answers HTTP and does not read yet.
pub struct Daemon {
    runtime: tokio::runtime::Runtime,
    supervisor: Supervisor,
    wish: Shutdown,
    clock: Clock,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    status: Arc<RwLock<Option<Arc<Shared>>>>,
    embedded: Option<EmbeddedBroker>,
    connection: Connection,
    address: SocketAddr,
}

/// A daemon whose parts all run.
pub struct Running {
    runtime: tokio::runtime::Runtime,
    supervisor: Supervisor,
    consumer: Arc<Consumer>,
    /// What its threads share.
    pub shared: Arc<Shared>,
    /// What answering reads.
    pub serving: Arc<Serving>,
    /// The embedded broker, if there is one: it ends with the daemon.
    pub embedded: Option<EmbeddedBroker>,
}

impl Daemon {
    /// Starts HTTP, so that probes are answered from the beginning, and the embedded broker if one is wanted.
    ///
    /// # Errors
    /// When the address is taken or the embedded broker cannot start.
    pub fn start(config: &Config, options: &Options, wish: &Shutdown) -> Result<Self, Stop> {
        let kernels = parts::choose_kernels()?;
        tracing::info!(kernels, capture = ?options.capture, new_model = options.new_model, "starting");
        let clock = Clock::system();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("tokio")
            .enable_all()
            .build()
            .map_err(|error| Stop::fault("cannot start tokio").because(error))?;
        let metrics = Arc::new(Metrics::new(&labels(config)));
        metrics.daemon.start_time_seconds.set(clock.wall().0 as f64 / 1000.0);
        let readiness = Arc::new(Readiness::default());
        readiness.wait_for(Wait::Starting, "the parts are being started");
        readiness.wait_for(Wait::Kafka, "no broker has answered yet");
        let mut supervisor = Supervisor::new(wish.clone(), clock.clone());
        let server = runtime.block_on(Server::bind(config.listen))?;
        let address = server.address();
        tracing::info!(%address, "listening");
        let status: Arc<RwLock<Option<Arc<Shared>>>> = Arc::default();
        let seen = Arc::clone(&status);
        let pages = Pages {
            metrics: Arc::clone(&metrics),
            readiness: Arc::clone(&readiness),
            status: Arc::new(move || {
                seen.read().as_ref().map_or(json!({}), |shared| shared.status())
            }),
        };
        supervisor.task(runtime.handle(), "http", HTTP_DEADLINE, |shutdown| {
            server.serve(pages, shutdown)
        })?;
        let (embedded, connection) = if config.kafka.embedded {
            let broker = EmbeddedBroker::start()
                .map_err(|t| Stop::kafka("starting the embedded broker", t))?;
            let topics = &config.kafka.topics;
            for topic in [
                &topics.events,
                &topics.items,
                &topics.users,
                &topics.requests,
                &topics.responses,
                &topics.embeddings,
                &topics.scores,
                &topics.dead_letter,
            ] {
                broker
                    .create_topic(topic, EMBEDDED_PARTITIONS)
                    .map_err(|t| Stop::kafka("making a topic of the embedded broker", t))?;
            }
            tracing::warn!(
                brokers = broker.brokers(),
                "the broker is inside this process: nothing in it survives"
            );
            let connection = broker.connection();
            (Some(broker), connection)
        } else {
            (None, config.kafka.connection.clone())
        };
        let wish = wish.clone();
        Ok(Self {
            runtime,
            supervisor,
            wish,
            clock,
            metrics,
            readiness,
            status,
            embedded,
            connection,
            address,
        })
    }

    /// Returns the address of its HTTP pages.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets SIGINT and SIGTERM make this wish, for as long as the daemon lives.
    pub fn watch_signals(&self, wish: &Shutdown) {
        let signals = wish.clone();
        self.runtime.spawn(async move {
            match signals.on_signal().await {
                Ok(signal) => tracing::info!(signal, "asked to stop"),
                Err(error) => tracing::error!(%error, "signals cannot be watched"),
            }
        });
    }

    /// Waits for Kafka, puts the state back, and starts all other parts.
    ///
    /// # Errors
    /// When a topic is missing, the state on disk cannot be used, or a part cannot start.
    pub fn connect(mut self, config: &Config, options: &Options) -> Result<Running, Stop> {
        let topics = &config.kafka.topics;
        let Some(partitions) = self.partitions(config)? else {
            return Err(Stop::fault("asked to stop before any broker answered"));
        };
        let setup = parts::setup(config, partitions, &config.checkpoint.path, options.new_model);
        let Opening { checkpoint, pipeline, parameters, resumed } =
            Checkpoint::open(setup, parts::rules(config), &self.clock)?;
        let mut trainer = parts::trainer(config)?;
        parts::restore(config, &mut trainer, parameters)?;
        let capture = match &options.capture {
            Some(folder) => Some(self.capture(
                config,
                folder,
                &checkpoint,
                resumed.is_some(),
                &pipeline,
                &trainer,
            )?),
            None => None,
        };
        let offsets = resumed
            .as_ref()
            .map_or_else(Default::default, |resumed| lanes(topics, &resumed.offsets).collect());
        if let Some(resumed) = &resumed {
            tell(resumed);
        }
        let pipeline = Arc::new(RwLock::new(pipeline));
        let first = snapshot(&trainer);
        let embeddings = Arc::clone(trainer.learner().embeddings());
        let name = config.model.spec.name();
        let serving = Arc::new(Serving::new(
            Arc::clone(&pipeline),
            first,
            embeddings,
            config.serve.clone(),
            name,
            self.clock.clone(),
        ));
        let shared = Arc::new(Shared::new(
            pipeline,
            trainer,
            self.clock.clone(),
            Arc::clone(&self.metrics),
            Arc::clone(&self.readiness),
            topics.clone(),
        ));
        *self.status.write() = Some(Arc::clone(&shared));
        self.readiness.wait_for(Wait::Catalogue, "items and users are being read");
        self.readiness.wait_for(Wait::Lag, "events are being read");

        let letters = Producer::open(&ProducerSettings::new(self.connection.clone()));
        let letters = Arc::new(letters.map_err(|t| Stop::kafka("opening a producer", t))?);
        let mut sources = vec![
            Source::new(TopicRole::Items, &topics.items),
            Source::new(TopicRole::Users, &topics.users),
            Source::new(TopicRole::Events, &topics.events),
        ];
        sources[2].start = config.kafka.start;
        let mut settings =
            ConsumerSettings::new(self.connection.clone(), &config.kafka.group, sources);
        settings.offsets = offsets;
        let consumer =
            Consumer::start(settings).map_err(|t| Stop::kafka("starting the consumer", t))?;
        let consumer = Arc::new(consumer);

        let (work_sender, work) = bounded::<Work>(WORK);
        let (used_sender, used) = bounded(2 * WORK);
        let learner = Learner {
            shared: Arc::clone(&shared),
            serving: Arc::clone(&serving),
            work,
            used: used_sender,
        };
        let (jobs_sender, jobs) = bounded(1);
        let (done, checkpointed) = bounded(1);
        let checkpointer = Checkpointer {
            shared: Arc::clone(&shared),
            checkpoint,
            letters: Arc::clone(&letters),
            consumer: Arc::clone(&consumer),
            jobs,
            done,
        };
        let ingest = Ingest {
            shared: Arc::clone(&shared),
            consumer: Arc::clone(&consumer),
            work: work_sender,
            used,
            dead_letters: DeadLetters::new(Arc::clone(&letters), topics.dead_letter.clone()),
            checkpoints: jobs_sender,
            checkpointed,
            interval: config.checkpoint.interval,
            capture,
            max_age: config.learn.max_age,
            open_bytes: config.open_bytes,
            faults: self.supervisor.faults(),
        };
        let gauges = Arc::clone(&consumer);
        let replies = Producer::open(&ProducerSettings::for_responses(self.connection.clone()));
        let replies = Arc::new(replies.map_err(|t| Stop::kafka("opening a producer", t))?);
        let outputs = Producer::open(&ProducerSettings::new(self.connection.clone()));
        let outputs = Arc::new(outputs.map_err(|t| Stop::kafka("opening a producer", t))?);
        let watch = Watch {
            shared: Arc::clone(&shared),
            consumer: Box::new(move || gauges.gauges()),
            producers: vec![letters, Arc::clone(&replies), Arc::clone(&outputs)],
        };
        let asked =
            requests::consumer(self.connection.clone(), &config.kafka.group, &topics.requests)
                .map_err(|t| Stop::kafka("starting the consumer of requests", t))?;
        let (intake, answering) = requests::build(
            &serving,
            &self.metrics,
            &topics.responses,
            &config.kafka.reply_topics,
            asked,
            &replies,
        );
        let publishing = publish::Settings {
            interval: config.publish_interval,
            refresh: config.retrieval.refresh,
            lists: config.scores,
        };
        let changes = Arc::clone(&shared);
        let publisher = Publisher::new(
            Arc::clone(&serving),
            Arc::clone(&self.metrics),
            KafkaOutlet::new(outputs, &topics.embeddings, &topics.scores),
            Box::new(move || changes.trainer.lock().retriever_mut().touched()),
            publishing,
        );
        let supervisor = &mut self.supervisor;
        supervisor.thread("learner", LAST_DEADLINE, |shutdown| learner.run(shutdown))?;
        supervisor.thread("checkpointer", LAST_DEADLINE, |end| checkpointer.run(end))?;
        supervisor.thread("ingest", LAST_DEADLINE, |shutdown| ingest.run(shutdown))?;
        supervisor.thread("publisher", DEADLINE, |shutdown| publisher.run(shutdown))?;
        for (i, scorer) in answering.into_iter().enumerate() {
            supervisor.thread(&format!("scorer-{i}"), DEADLINE, |shutdown| scorer.run(shutdown))?;
        }
        supervisor.thread("requests", DEADLINE, |shutdown| intake.run(shutdown))?;
        supervisor.thread("watch", DEADLINE, |shutdown| watch.run(shutdown))?;
        Ok(Running {
            runtime: self.runtime,
            supervisor: self.supervisor,
            consumer,
            shared,
            serving,
            embedded: self.embedded,
        })
    }

    /// Asks for the partitions of the input topics until a broker answers; `None` when asked to stop before.
    fn partitions(&self, config: &Config) -> Result<Option<usize>, Stop> {
        let topics = &config.kafka.topics;
        let mut said = false;
        while !self.wish.is_requested() {
            let probe = Probe::open(&self.connection)
                .map_err(|t| Stop::kafka("opening a connection", t))?;
            let count = |topic: &str| probe.partitions(topic, ASK);
            let found = count(&topics.events)
                .and_then(|events| Ok((events, count(&topics.items)?, count(&topics.users)?)));
            match found {
                Ok((Some(events), Some(items), Some(users)))
                    if events == items && events == users =>
                {
                    return Ok(Some(events));
                }
                Ok((Some(events), Some(items), Some(users))) => {
                    return Err(Stop::config(format!(
                        "the topics of events, items and users must have equally many partitions, found {events}, {items} and {users}"
                    )));
                }
                Ok(_) => {
                    return Err(Stop::config(format!(
                        "a topic is missing among {}, {} and {}: sluice topics apply makes them",
                        topics.events, topics.items, topics.users
                    )));
                }
                Err(trouble) if trouble.is_retriable() => {
                    if !said {
                        tracing::warn!(%trouble, "Kafka does not answer: waiting");
                        said = true;
                    }
                    self.readiness.wait_for(Wait::Kafka, trouble.to_string());
                    self.wish.wait(Duration::from_secs(1));
                }
                Err(trouble) => return Err(Stop::kafka("asking for the topics", trouble)),
            }
        }
        Ok(None)
    }

    fn capture(
        &self,
        config: &Config,
        folder: &std::path::Path,
        checkpoint: &Checkpoint,
        resumed: bool,
        pipeline: &crate::pipeline::Pipeline,
        trainer: &crate::learn::trainer::Trainer,
    ) -> Result<Capture, Stop> {
        let setup = checkpoint.setup();
        let start = Start {
            partitions: u32::try_from(setup.partitions).unwrap_or(u32::MAX),
            fingerprint: setup.identity.fingerprint(),
            seed: config.learn.seed,
            resumed,
        };
        let capture = Capture::create(folder, config.capture_bytes, start)?;
        if resumed {
            let copy = capture.start_folder();
            crate::checkpoint::write_full(&copy, setup, pipeline, |mut to| trainer.write(&mut to))?;
        }
        Ok(capture)
    }
}

impl Running {
    /// Runs until asked to stop or until a part ends, and stops everything.
    ///
    /// # Errors
    /// None: how it ended is the answer.
    pub fn run(self) -> Result<Exit, Stop> {
        let exit = self.supervisor.run();
        if let Ok(consumer) = Arc::try_unwrap(self.consumer)
            && let Err(trouble) = consumer.stop(DEADLINE)
        {
            tracing::warn!(%trouble, "the poll thread still runs");
        }
        self.runtime.shutdown_timeout(HTTP_DEADLINE);
        Ok(exit)
    }
}

fn tell(resumed: &Resumed) {
    tracing::info!(number = resumed.number, "going on from a checkpoint");
    if let Some(lost) = resumed.lost {
        tracing::warn!(
            lost,
            resumed.number,
            "the store has lost a newer checkpoint: records since the older one are read again"
        );
    }
    if resumed.dropped > 0 {
        tracing::warn!(
            dropped = resumed.dropped,
            "open impressions of another schema were dropped"
        );
    }
    if let Some(difference) = &resumed.difference {
        tracing::warn!(difference, "new parameters for another model, the state is kept");
    }
}

fn labels(config: &Config) -> LabelSets {
    let funnel = &config.funnel;
    let entry = (funnel.entry() == Entry::Impression).then(|| funnel.entry_name().to_owned());
    let behaviours = (0u8..)
        .take(funnel.behaviours())
        .map(|kind| funnel.behaviour_name(BehaviourType(kind)).to_owned());
    let words = |words: &[&str]| words.iter().map(|word| String::from(*word)).collect();
    LabelSets {
        topics: TopicRole::ALL.iter().map(|role| role.name().to_owned()).collect(),
        types: entry.into_iter().chain(behaviours).collect(),
        reasons: Reason::all().iter().map(|reason| reason.name().to_owned()).collect(),
        tasks: funnel.tasks().iter().map(|task| task.name.clone()).collect(),
        kinds: words(&crate::serve::KINDS),
        outcomes: words(&crate::serve::OUTCOMES),
    }
}
