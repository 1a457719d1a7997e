//! From the configuration to the parts that need neither clock nor I/O: what live run and replay have in common.

use std::path::Path;

use sluice_features::time::Span;
use sluice_models::evaluate::Settings;
use sluice_models::kernels;
use sluice_models::learner::Learner;
use sluice_models::retrieval::{Index, Retriever, RetrieverSpec};

use crate::checkpoint::{Identity, Setup, Stored};
use crate::config::Config;
use crate::error::Stop;
use crate::learn::pool::Pool;
use crate::learn::trainer::{Judge, Trainer};
use crate::pipeline::{Pipeline, Rules};

/// The variable that forces an instruction set: `scalar`, `avx2` or `avx512`.
pub const KERNELS: &str = "SLUICE_KERNELS";

/// Bytes that the store may cache.
const STORE_CACHE: u64 = 64 << 20;

/// Chooses the kernels once, as the environment says or else the best that the processor has. Returns the path's name.
///
/// # Errors
/// When the environment names a path that does not exist or that this processor lacks.
pub fn choose_kernels() -> Result<String, Stop> {
    if let Some(name) = std::env::var_os(KERNELS) {
        let name = name.to_string_lossy();
        let path = name
            .parse::<kernels::Path>()
            .map_err(|error| Stop::config(format!("{KERNELS}: {error}")))?;
        kernels::select(path).map_err(|error| Stop::config(format!("{KERNELS}: {error}")))?;
    }
    Ok(kernels::current().to_string())
}

/// Returns what the configuration says to the pipeline.
pub fn rules(config: &Config) -> Rules {
    Rules {
        funnel: config.funnel.clone(),
        schema: config.schema.clone(),
        lateness: config.joining.lateness,
        bounds: config.memory.bounds,
        vector_bytes: Index::row_bytes(config.retrieval.width),
        max_length: config.sequence_length,
        category: config.items.category,
        available: config.items.available,
        new_for: config.items.new_for,
        batch: config.learn.batch,
        share: config.evaluate.share,
        seed: config.learn.seed,
    }
}

/// Returns an empty pipeline for so many partitions.
pub fn pipeline(config: &Config, partitions: usize) -> Pipeline {
    Pipeline::new(rules(config), partitions)
}

/// Returns a trainer that has learned nothing.
///
/// # Errors
/// When the model cannot be built (the configuration has been checked, so that is a bug), or when the system gives no threads.
pub fn trainer(config: &Config) -> Result<Trainer, Stop> {
    let priors: Vec<f64> = config.model.priors.iter().map(|prior| f64::from(*prior)).collect();
    let parents = config.funnel.parents();
    let learner =
        Learner::new(&config.model.spec, &config.schema, &parents, &priors, config.learn.seed)
            .map_err(|mistakes| {
                let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                Stop::config(mistakes.join("; "))
            })?;
    let retriever = Retriever::new(retriever_spec(config), &config.schema, config.learn.seed);
    let pool = Pool::new(config.learn.threads)?;
    Ok(Trainer::new(learner, retriever, judge(config), pool, config.learn.batch))
}

/// Returns a judge that has judged nothing.
pub fn judge(config: &Config) -> Judge {
    Judge::new(&config.funnel, settings(config)).after(config.evaluate.from_impression)
}

/// Returns the shape and the rates of the retrieval model.
pub fn retriever_spec(config: &Config) -> RetrieverSpec {
    let embeddings = &config.model.spec.embeddings;
    RetrieverSpec {
        width: config.retrieval.width,
        temperature: f64::from(config.retrieval.temperature),
        task: config.retrieval.task,
        max_rows: embeddings.max_rows,
        expiry: embeddings.expiry,
        ..RetrieverSpec::default()
    }
}

/// Returns what the configuration says to checkpoints in a folder.
pub fn setup(config: &Config, partitions: usize, folder: &Path, new_model: bool) -> Setup {
    let topics = &config.kafka.topics;
    let model = [
        ("model", serde_json::to_string(&config.model.spec)),
        ("retrieval", serde_json::to_string(&retriever_spec(config))),
    ];
    let model =
        model.into_iter().map(|(name, text)| format!("{name} {}", text.unwrap_or_default()));
    Setup {
        folder: folder.to_path_buf(),
        cache_bytes: STORE_CACHE,
        keep: config.checkpoint.keep,
        partitions,
        topics: [topics.events.clone(), topics.items.clone(), topics.users.clone()],
        identity: Identity::new(&rules(config), model.collect()),
        new_model,
    }
}

/// Puts the parameters of a checkpoint back, if there are any.
///
/// # Errors
/// When they are damaged or belong to another model.
pub fn restore(
    config: &Config,
    trainer: &mut Trainer,
    parameters: Option<Stored>,
) -> Result<(), Stop> {
    for (place, file) in parameters.into_iter().flatten().enumerate() {
        let mut file = file?;
        let read = match place {
            0 => trainer.restore(retriever_spec(config), &mut file),
            _ => trainer.advance(&mut file),
        };
        read.map_err(|error| {
            Stop::data("the parameters cannot be put back").because(file.failed(error))
        })?;
    }
    Ok(())
}

/// Returns how long and how fine the figures are kept: windows stay open as long as the longest attribution takes.
fn settings(config: &Config) -> Settings {
    let window = Span(config.evaluate.window.0.max(1));
    let wait = config.funnel.longest_window().0 + config.joining.lateness.0;
    let open = usize::try_from(wait / window.0).unwrap_or(0) + 2;
    Settings { window, open_windows: open, sliding: Span(window.0.max(8)), ..Settings::default() }
}
