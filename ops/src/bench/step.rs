//! Group `step`: training steps of the reference graph and of the default model on synthetic batches.
//!
//! The dense part is what lies between the gather of rows and their scatter: interest, sharing and towers, forward and backward, without
//! Adam. Its operations are counted from the model's shapes ([`Work`]), its time is that of these stages. Stages are timed in runs of
//! their own, because looking at the clock costs time too. A second thread is judged by what it brings to the bare multiply-adds.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use sluice_daemon::learn::pool::Pool;
use sluice_features::example::Batch;
use sluice_models::executor::{Alone, Executor};
use sluice_models::learner::Learner;
use sluice_models::spec::ModelSpec;
use sluice_models::synthetic::Synthetic;
use sluice_models::work::{Probe, Stage, Work};

use super::clock;
use super::limits::Limits;
use super::report::{Report, Row, Target};

const GROUP: &str = "step";
/// Examples of a batch.
const SIZES: [usize; 4] = [16, 64, 256, 1024];
/// Batches of the reference graph whose dense part has a target, and that: its share of the peak in percent.
const JUDGED: [usize; 2] = [64, 256];
const DENSE_SHARE: f64 = 60.0;
/// The batch of the reference graph for which a second thread has a target, and that: its part of what it brings to bare multiply-adds.
const SECOND_AT: usize = 256;
const SECOND_GAIN: f64 = 0.85;
/// Batches that are learned in turn.
const BATCHES: usize = 16;
/// Stages of the dense part.
const DENSE: [Stage; 6] = [
    Stage::Interest,
    Stage::Sharing,
    Stage::Towers,
    Stage::TowersBack,
    Stage::SharingBack,
    Stage::InterestBack,
];

/// Measures the group.
///
/// # Errors
/// When a model cannot be built.
pub(super) fn measure(limits: &Limits, report: &mut Report) -> Result<()> {
    for (model, spec) in [("reference", ModelSpec::reference()), ("default", ModelSpec::default())]
    {
        for size in SIZES {
            let mut steps = Steps::prepare(&spec, size)?;
            let seconds = steps.seconds(&Alone);
            let stages = steps.stages();
            let both = steps.seconds(&Pool::new(2)?);
            let work = steps.work();
            let rows = Figures { model, size, work, seconds, stages, both, limits };
            rows.report(report);
        }
    }
    Ok(())
}

/// A learner that has seen its batches.
pub(super) struct Steps {
    learner: Learner,
    batches: Vec<Batch>,
}

impl Steps {
    /// Builds a learner and lets it see its batches twice, so that all rows and buffers are there.
    ///
    /// # Errors
    /// When the model cannot be built.
    pub(super) fn prepare(spec: &ModelSpec, size: usize) -> Result<Self> {
        let mut source = Synthetic::new(spec, 7);
        let mut learner = source.learner(spec, 1).map_err(|mistakes| anyhow!("{mistakes:?}"))?;
        let batches: Vec<Batch> = (0..BATCHES).map(|_| source.impressions(size)).collect();
        for batch in batches.iter().chain(&batches) {
            learner.step(batch);
        }
        Ok(Self { learner, batches })
    }

    /// The learner's batches.
    pub(super) fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// Dense parameters of the learner.
    pub(super) fn parameters(&self) -> usize {
        self.learner.model().params().layout().length()
    }

    /// Operations of one step.
    pub(super) fn operations(&self) -> f64 {
        self.work().operations
    }

    /// Seconds of one step on the threads of an executor.
    pub(super) fn seconds(&mut self, executor: &impl Executor) -> f64 {
        let Self { learner, batches } = self;
        let mut next = batches.iter().cycle();
        clock::seconds(|| {
            next.next()
                .map(|batch| learner.step_on(batch, batch.size(), executor, &mut ()).labelled);
        })
    }

    /// Seconds of each stage of one step, of the run that was shortest.
    fn stages(&mut self) -> [f64; Stage::ALL.len()] {
        let mut best = [f64::INFINITY; Stage::ALL.len()];
        let mut next = self.batches.iter().cycle();
        let begun = Instant::now();
        while begun.elapsed() < clock::ALL {
            let (run, mut timer, mut steps) = (Instant::now(), Timer::new(), 0);
            while run.elapsed() < clock::RUN {
                let learner = &mut self.learner;
                next.next()
                    .map(|batch| learner.step_on(batch, batch.size(), &Alone, &mut timer).labelled);
                steps += 1;
            }
            let stages = timer.sums.map(|sum| sum.as_secs_f64() / f64::from(steps));
            if stages.iter().sum::<f64>() < best.iter().sum::<f64>() {
                best = stages;
            }
        }
        best
    }

    /// The mean work of a step.
    fn work(&self) -> Mean {
        let works = self.batches.iter().map(|batch| Work::of(self.learner.model(), batch));
        let count = self.batches.len() as f64;
        let mut mean = Mean::default();
        for work in works {
            mean.operations += work.operations() as f64 / count;
            mean.rows += work.rows as f64 / count;
            mean.row_bytes += work.row_bytes as f64 / count;
        }
        mean
    }
}

/// Work of one step, over many.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    operations: f64,
    rows: f64,
    row_bytes: f64,
}

/// Adds up how long each stage lasts.
struct Timer {
    stage: Stage,
    since: Instant,
    sums: [Duration; Stage::ALL.len()],
}

impl Timer {
    fn new() -> Self {
        Self { stage: Stage::Outside, since: Instant::now(), sums: Default::default() }
    }
}

impl Probe for Timer {
    fn enter(&mut self, stage: Stage) {
        let now = Instant::now();
        if let Some(sum) = self.sums.get_mut(self.stage as usize) {
            *sum += now - self.since;
        }
        (self.stage, self.since) = (stage, now);
    }
}

/// What was measured of one model and batch.
struct Figures<'a> {
    model: &'static str,
    size: usize,
    work: Mean,
    seconds: f64,
    stages: [f64; Stage::ALL.len()],
    /// Seconds on two threads.
    both: f64,
    limits: &'a Limits,
}

impl Figures<'_> {
    fn report(&self, report: &mut Report) {
        let Self { model, size, work, seconds, stages, both, limits } = self;
        let [peak, peak_of_two] = limits.peak;
        let row = |what: &str, value: f64, unit: &'static str| {
            Row::new(GROUP, format!("{model}, batch {size}, 1 thread: {what}"), value, unit)
        };
        let examples = *size as f64;
        let bound = examples * peak * 1e9 / work.operations;
        report.push(row("examples", examples / seconds, "1/s").limit(bound));
        report.push(row("work", work.operations / examples / 1e6, "MFLOP/example"));
        let whole = work.operations / seconds / 1e9;
        report.push(row("whole step", whole, "GFLOP/s").limit(peak));

        let of = |wanted: &[Stage]| wanted.iter().map(|stage| stages[*stage as usize]).sum::<f64>();
        let dense = work.operations / of(&DENSE) / 1e9;
        report.push(row("dense part", dense, "GFLOP/s").limit(peak));
        let share = row("dense part, share of the peak", 100.0 * dense / peak, "%").limit(100.0);
        let judged = *model == "reference" && JUDGED.contains(size);
        report.push(if judged { share.target(Target::AtLeast(DENSE_SHARE)) } else { share });

        let sparse = of(&[Stage::Gather, Stage::Scatter, Stage::Rows]);
        let bytes = row("sparse part, bytes of rows", work.row_bytes / sparse / 1e9, "GB/s");
        report.push(bytes.limit(limits.copy));
        let updates = row("sparse part, row updates", work.rows / sparse / 1e6, "M/s");
        report.push(updates.limit(limits.rows_prefetched));
        for (stage, seconds) in Stage::ALL.iter().zip(stages) {
            report.push(row(&stage.to_string(), seconds / examples * 1e9, "ns/example"));
        }

        let row = |what: &str, value: f64, unit: &'static str| {
            Row::new(GROUP, format!("{model}, batch {size}, 2 threads: {what}"), value, unit)
        };
        let bound = examples * peak_of_two * 1e9 / work.operations;
        report.push(row("examples", examples / both, "1/s").limit(bound));
        let gain = row("times one thread", seconds / both, "").limit(peak_of_two / peak);
        let judged = *model == "reference" && *size == SECOND_AT;
        let least = Target::AtLeast(SECOND_GAIN * peak_of_two / peak);
        report.push(if judged { gain.target(least) } else { gain });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_told_apart_and_what_is_outside_is_not_counted() {
        let mut timer = Timer::new();
        let pause = Duration::from_millis(2);
        std::thread::sleep(pause);
        for stage in [Stage::Gather, Stage::Rows, Stage::Outside, Stage::Rows, Stage::Outside] {
            timer.enter(stage);
            std::thread::sleep(pause);
        }
        let lasted = Stage::ALL.map(|stage| timer.sums[stage as usize] >= pause);
        assert_eq!(lasted.iter().filter(|lasted| **lasted).count(), 2);
        assert!(timer.sums[Stage::Rows as usize] >= 2 * pause);
    }

    #[test]
    fn the_reference_graph_has_its_parameters_and_work() {
        let steps = Steps::prepare(&ModelSpec::reference(), 64).unwrap();
        assert_eq!(steps.parameters(), 519_519);
        let work = steps.work();
        let example = work.operations / 64.0 / 1e6;
        assert!((3.1..3.4).contains(&example), "{example}");
        assert!(work.rows > 300.0 && work.row_bytes > 200.0 * work.rows - 1.0);
    }
}
