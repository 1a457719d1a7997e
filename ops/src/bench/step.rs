//! Group `step`: training steps of the reference graph and of the default model on synthetic batches.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use sluice_features::example::Batch;
use sluice_models::learner::Learner;
use sluice_models::spec::ModelSpec;
use sluice_models::synthetic::Synthetic;

use super::limits::Limits;
use super::report::{Report, Row};

const GROUP: &str = "step";
/// Examples of a batch.
const SIZES: [usize; 4] = [16, 64, 256, 1024];
/// Batches that are learned in turn.
const BATCHES: usize = 16;
/// Length of one run.
const RUN: Duration = Duration::from_millis(300);
/// Runs of which the best counts.
const RUNS: usize = 5;

/// Measures the group.
///
/// # Errors
/// When a model cannot be built.
pub(super) fn measure(_limits: &Limits, report: &mut Report) -> Result<()> {
    for (model, spec) in [("reference", ModelSpec::reference()), ("default", ModelSpec::default())]
    {
        for size in SIZES {
            let (mut learner, batches) = prepare(&spec, size)?;
            let rate = examples_per_second(&mut learner, &batches);
            let name = format!("{model}, batch {size}, 1 thread");
            report.push(Row::new(GROUP, name, rate, "examples/s"));
        }
    }
    Ok(())
}

fn prepare(spec: &ModelSpec, size: usize) -> Result<(Learner, Vec<Batch>)> {
    let mut source = Synthetic::new(spec, 7);
    let learner = source.learner(spec, 1).map_err(|mistakes| anyhow!("{mistakes:?}"))?;
    Ok((learner, (0..BATCHES).map(|_| source.impressions(size)).collect()))
}

/// The best of several runs, after one that fills the caches and makes the rows.
fn examples_per_second(learner: &mut Learner, batches: &[Batch]) -> f64 {
    for batch in batches {
        learner.step(batch);
    }
    let mut batches = batches.iter().cycle();
    let mut run = || {
        let (begun, mut examples) = (Instant::now(), 0);
        while begun.elapsed() < RUN {
            let batch = batches.next();
            examples += batch.map_or(0, |batch| learner.step(batch).labelled);
        }
        examples as f64 / begun.elapsed().as_secs_f64()
    };
    (0..RUNS).map(|_| run()).fold(0.0, f64::max)
}
