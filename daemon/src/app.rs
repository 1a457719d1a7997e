//! Builds everything from the configuration, starts it in order, stops it in reverse: the only file that knows all parts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sluice_features::reject::Reason;

use crate::clock::Clock;
use crate::config::Config;
use crate::error::{Exit, Stop};
use crate::http::{Pages, Readiness, Server};
use crate::kafka::TopicRole;
use crate::metrics::{LabelSets, Metrics};
use crate::shutdown::Shutdown;
use crate::supervise::Supervisor;
use crate::telemetry;

/// What the command line adds to the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keeps the consumed records and the journal in this folder.
    pub capture: Option<PathBuf>,
    /// Keeps the state and starts with new parameters.
    pub new_model: bool,
}

/// How long HTTP may take to stop.
const HTTP_DEADLINE: Duration = Duration::from_secs(2);

/// Runs until SIGINT, SIGTERM or a fault, and says how it ended.
///
/// # Errors
/// What kept it from starting.
pub fn run(config: &Config, options: &Options) -> Result<Exit, Stop> {
    telemetry::start(&config.log)?;
    tracing::info!(capture = ?options.capture, new_model = options.new_model, "starting");
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
    let wish = Shutdown::new();
    let mut supervisor = Supervisor::new(wish.clone(), clock);

    let server = runtime.block_on(Server::bind(config.listen))?;
    tracing::info!(address = %server.address(), "listening");
    let pages = Pages { metrics, readiness, status: Arc::new(|| json!({})) };
    supervisor
        .task(runtime.handle(), "http", HTTP_DEADLINE, |shutdown| server.serve(pages, shutdown))?;
    runtime.spawn(async move {
        match wish.on_signal().await {
            Ok(signal) => tracing::info!(signal, "asked to stop"),
            Err(error) => tracing::error!(%error, "signals cannot be watched"),
        }
    });
    let exit = supervisor.run();
    runtime.shutdown_timeout(HTTP_DEADLINE);
    Ok(exit)
}

fn labels(config: &Config) -> LabelSets {
    let funnel = &config.funnel;
    let tasks: Vec<String> = funnel.tasks().iter().map(|task| task.name.clone()).collect();
    let entry = matches!(funnel.entry(), sluice_features::funnel::Entry::Impression)
        .then(|| funnel.entry_name().to_owned());
    let behaviours = (0u8..)
        .take(funnel.behaviours())
        .map(|kind| funnel.behaviour_name(sluice_features::event::BehaviourType(kind)).to_owned());
    let words = |words: &[&str]| words.iter().map(|word| String::from(*word)).collect();
    LabelSets {
        topics: TopicRole::ALL.iter().map(|role| role.name().to_owned()).collect(),
        types: entry.into_iter().chain(behaviours).collect(),
        reasons: Reason::all().iter().map(|reason| reason.name().to_owned()).collect(),
        tasks,
        kinds: words(&["rank", "recommend", "similar", "other"]),
        outcomes: words(&["answered", "refused", "late", "overloaded", "failed"]),
    }
}
