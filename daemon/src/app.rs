//! Builds everything from the configuration, starts it in order, stops it in reverse: the only place that knows all parts.
//!
//! ```text
//! Daemon::start     HTTP, the embedded broker
//! Daemon::connect   topics ──> State::open ──> share ──> consumer, producers ──> learn, publish, answer, watch
//! Running::run      waits for the end, stops in reverse
//! ```

mod state;
mod threads;
mod topics;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use serde_json::json;
use sluice_features::event::BehaviourType;
use sluice_features::funnel::Entry;
use sluice_features::reject::Reason;

use crate::clock::Clock;
use crate::config::Config;
use crate::error::{Exit, Stop};
use crate::http::{Pages, Readiness, Server, Wait};
use crate::kafka::{Connection, Consumer, EmbeddedBroker, GapCause, Probe, TopicRole, Undelivered};
use crate::live::Live;
use crate::live::outputs::OUTPUTS;
use crate::live::repeat::Repeat;
use crate::live::rivals;
use crate::metrics::{LabelSets, Metrics};
use crate::parts;
use crate::pipeline::notes::Notes;
use crate::serve::Serving;
use crate::shutdown::Shutdown;
use crate::supervise::Supervisor;

use state::State;
use threads::{Kept, Producers};

/// What the command line adds to the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keeps the consumed records and the journal in this folder.
    pub capture: Option<PathBuf>,
    /// Keeps the state and starts with new parameters.
    pub new_model: bool,
    /// Goes on where records are missing that were to be read.
    pub accept_gap: bool,
}

/// How long HTTP may take to stop.
const HTTP_DEADLINE: Duration = Duration::from_secs(2);
/// How long the consumer may take to stop.
const CONSUMER_DEADLINE: Duration = Duration::from_secs(2);

/// Runs until SIGINT, SIGTERM, SIGHUP or a fault, and says how it ended.
///
/// # Errors
/// What kept it from starting.
pub fn run(config: &Config, options: &Options) -> Result<Exit, Stop> {
    crate::telemetry::start(&config.log)?;
    config.memory.tell();
    for risk in risks(config) {
        tracing::warn!(risk, "the connection to Kafka is less protected than it could be");
    }
    check(config)?;
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

/// Says what weakens the protection of the connection to Kafka, each with its remedy.
pub fn risks(config: &Config) -> Vec<String> {
    if config.kafka.embedded { Vec::new() } else { config.kafka.connection.risks() }
}

/// Opens what a run needs before any broker has answered: instruction set, options, passwords, certificates and keys.
///
/// # Errors
/// The first that will not do.
pub fn check(config: &Config) -> Result<(), Stop> {
    parts::choose_kernels()?;
    if config.kafka.embedded {
        return Ok(());
    }
    let connection = &config.kafka.connection;
    let refused = |trouble| Stop::kafka("connecting to Kafka", trouble);
    Probe::open(connection).map_err(refused)?;
    Producers::open(connection, &Arc::new(Metrics::new(&labels(config))))?;
    Consumer::check(threads::reading(config, connection.clone())).map_err(refused)
}

/// A daemon that answers HTTP and does not read yet.
pub struct Daemon {
    runtime: tokio::runtime::Runtime,
    supervisor: Supervisor,
    wish: Shutdown,
    clock: Clock,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    status: Arc<RwLock<Option<Arc<Live>>>>,
    embedded: Option<EmbeddedBroker>,
    connection: Connection,
    address: SocketAddr,
    /// What this run is called in its group.
    name: String,
}

/// A daemon whose parts all run.
pub struct Running {
    runtime: tokio::runtime::Runtime,
    supervisor: Supervisor,
    consumer: Arc<Consumer>,
    /// What its threads share.
    pub shared: Arc<Live>,
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
        tracing::info!(kernels, capture = ?options.capture, new_model = options.new_model, accept_gap = options.accept_gap, "starting");
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
        readiness.wait_for(Wait::Requests, "requests are not read yet");
        let mut supervisor = Supervisor::new(wish.clone(), clock.clone());
        let server = runtime.block_on(Server::bind(config.listen))?;
        let address = server.address();
        tracing::info!(%address, "listening");
        let status: Arc<RwLock<Option<Arc<Live>>>> = Arc::default();
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
        let (embedded, connection) = topics::connection(config)?;
        let (wish, name) = (wish.clone(), rivals::name(&clock));
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
            name,
        })
    }

    /// Returns the address of its HTTP pages.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets SIGINT, SIGTERM and SIGHUP make this wish, for as long as the daemon lives.
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
        let Some(partitions) = self.partitions(config)? else {
            return Err(Stop::fault("asked to stop before any broker answered"));
        };
        let State { pipeline, trainer, checkpoint, mut offsets, marks, journal, chain, capture } =
            State::open(config, options, partitions, &self.clock)?;
        let (shared, serving) = self.share(config, pipeline, trainer);
        let repeat = chain.map(|chain| self.repeat(config, chain, &offsets));
        offsets.extend(repeat.iter().flat_map(Repeat::ends));
        let consumer = self.consumer(config, options, offsets, marks.clone())?;
        let producers = Producers::open(&self.connection, &self.metrics)?;
        let kept = Kept { checkpoint, journal, repeat, marks, capture };
        self.learn(config, &shared, &serving, &consumer, &producers, kept)?;
        self.publish(config, &shared, &serving, &producers)?;
        self.answer(config, &serving, &producers)?;
        self.watch(&shared, &consumer, producers)?;
        let Self { runtime, supervisor, embedded, .. } = self;
        Ok(Running { runtime, supervisor, consumer, shared, serving, embedded })
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
            && let Err(trouble) = consumer.stop(CONSUMER_DEADLINE)
        {
            tracing::warn!(%trouble, "the poll thread still runs");
        }
        self.runtime.shutdown_timeout(HTTP_DEADLINE);
        Ok(exit)
    }
}

/// Returns the closed sets of metrics' labels that a configuration leads to.
pub(crate) fn labels(config: &Config) -> LabelSets {
    let funnel = &config.funnel;
    let entry = (funnel.entry() == Entry::Impression).then(|| funnel.entry_name().to_owned());
    let behaviours = (0u8..)
        .take(funnel.behaviours())
        .map(|kind| funnel.behaviour_name(BehaviourType(kind)).to_owned());
    let words = |words: &[&str]| words.iter().map(|word| String::from(*word)).collect();
    let notes = Notes::new(&parts::rules(config));
    LabelSets {
        topics: TopicRole::ALL.iter().map(|role| role.name().to_owned()).collect(),
        types: entry.into_iter().chain(behaviours).collect(),
        reasons: Reason::all().iter().map(|reason| reason.name().to_owned()).collect(),
        needs: notes.unusable().map(|(name, _)| name.to_owned()).collect(),
        fields: notes.fields().map(|(name, _)| name.to_owned()).collect(),
        tasks: funnel.tasks().iter().map(|task| task.name.clone()).collect(),
        kinds: words(&crate::serve::KINDS),
        outcomes: words(&crate::serve::OUTCOMES),
        outputs: words(&OUTPUTS),
        causes: words(&Undelivered::ALL.map(Undelivered::name)),
        gaps: words(&GapCause::ALL.map(GapCause::name)),
    }
}

#[cfg(test)]
mod tests;
