//! From micro-batches to steps: the only writer of a model.
//!
//! A step is: gather rows, forward, loss, backward, sum the gradients of each id, cut the global norm, one step of Adam on the dense parameters and one of
//! row-wise Adagrad on the rows. A batch whose loss or gradient is not finite is refused: nothing changes but a count (its ids have
//! been seen all the same). The same batches with the same seed and number of threads give the same bits. Passes and optimisers run in pieces
//! on the threads of an [`Executor`]; without one, on the caller's.
//!
//! A model without a deep part (`sharing = "none"`) has nothing to gain from batches: it takes a step with each example, predicted before it and after the
//! ones before it, and refuses single examples. Nor has it pieces: it stays on the calling thread.

mod each;
mod slices;

use std::sync::Arc;

use sluice_features::example::Batch;
use sluice_features::schema::Schema;
use sluice_features::time::EventTime;
use xxhash_rust::xxh3::Xxh3;

use crate::executor::{Alone, Executor};
use crate::funnel::labelled;
use crate::model::{Embeddings, Model, Rows, Workspace};
use crate::optimizers::{Adam, clip_factor};
use crate::params::Params;
use crate::spec::{ModelSpec, SpecError};
use crate::work::{Probe, Stage};
use each::Each;
use slices::Slices;

/// Where the heads start if nobody knows better: the rate of a task without a parent, and of a child given its parent.
const PRIOR: (f64, f64) = (0.1, 0.2);

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepReport {
    /// For each task, its part of the loss (the calibrator's in the child's).
    pub loss: Vec<f64>,
    /// Global norm of the gradient before it was cut: dense parameters and rows. The largest one, where each example is a step.
    pub gradient_norm: f64,
    /// Loss or gradient was not finite and nothing was learned, from one example at least where each is a step.
    pub refused: bool,
    /// How many examples had a label.
    pub labelled: usize,
    /// `[size, T]`: what the model predicted before the step, or before each example's own, as it is served.
    pub probabilities: Vec<f32>,
}

/// A model that learns.
#[derive(Debug)]
pub struct Learner {
    spec: ModelSpec,
    schema: Schema,
    parents: Vec<Option<usize>>,
    model: Model<f32>,
    embeddings: Arc<Embeddings>,
    adam: Adam<f32>,
    rows: Rows<f32>,
    slices: Slices,
    /// Of predictions.
    workspace: Workspace<f32>,
    one_by_one: Each,
    /// Of steps with single examples; no numbers where there are none.
    gradients: Params<f32>,
    report: StepReport,
    refused: u64,
    seed: u64,
}

impl Learner {
    /// Builds a model that has learned nothing. `parents[t]` is the parent of task `t`, an earlier one; `priors[t]` its expected rate on all impressions, see
    /// [`default_priors`].
    ///
    /// # Errors
    /// All mistakes of the configuration.
    pub fn new(
        spec: &ModelSpec,
        schema: &Schema,
        parents: &[Option<usize>],
        priors: &[f64],
        seed: u64,
    ) -> Result<Self, Vec<SpecError>> {
        let model = Model::build(spec, schema, parents, priors, seed)?;
        let layout = model.params().layout().clone();
        let length = layout.length();
        Ok(Self {
            embeddings: Arc::new(Embeddings::new(model.plan(), spec, seed)),
            adam: Adam::new(spec.learning.dense_rate, length),
            rows: Rows::default(),
            slices: Slices::default(),
            workspace: Workspace::default(),
            one_by_one: Each::default(),
            gradients: Params::zeros(if spec.is_deep() { Arc::default() } else { layout }),
            report: StepReport::default(),
            refused: 0,
            seed,
            spec: spec.clone(),
            schema: schema.clone(),
            parents: parents.to_vec(),
            model,
        })
    }

    /// Predicts a batch, then learns it. Examples without labels are only predicted. The report is kept until the next step.
    ///
    /// # Panics
    /// When the batch was made for another schema.
    pub fn step(&mut self, batch: &Batch) -> &StepReport {
        self.step_on(batch, batch.size(), &Alone, &mut ())
    }

    /// Like [`Self::step`], in as many pieces as the executor has threads; the probe hears how far the calling thread is.
    ///
    /// `whole` is the size of a batch that is not cut short. With `n` examples fewer than that, rows move by `n / whole` of the gradient, and dense
    /// parameters by the root of it of Adam's rate (Malladi, Lyu, Panigrahi and Arora 2022): an example counts about alike however the stream is cut.
    ///
    /// # Panics
    /// When the batch was made for another schema, or when the executor panics.
    pub fn step_on<E: Executor + ?Sized, P: Probe + Send>(
        &mut self,
        batch: &Batch,
        whole: usize,
        executor: &E,
        probe: &mut P,
    ) -> &StepReport {
        probe.enter(Stage::Gather);
        self.work(batch, whole, executor, probe);
        probe.enter(Stage::Outside);
        &self.report
    }

    fn work<E: Executor + ?Sized, P: Probe + Send>(
        &mut self,
        batch: &Batch,
        whole: usize,
        executor: &E,
        probe: &mut P,
    ) {
        let report = &mut self.report;
        report.loss.clear();
        report.loss.resize(self.model.tasks(), 0.0);
        report.probabilities.clear();
        report.labelled = labelled(batch);
        (report.gradient_norm, report.refused) = (0.0, false);
        if batch.is_empty() {
            return;
        }
        if !self.spec.is_deep() {
            self.each(batch);
            return;
        }
        let (rows, slices) = (&mut self.rows, &mut self.slices);
        rows.prepare(self.model.plan(), batch);
        self.embeddings.learn(rows, newest(batch));
        slices.pass(&self.model, batch, rows, executor, probe, report);
        if report.labelled == 0 {
            return;
        }

        probe.enter(Stage::Dense);
        let square = slices.sum(executor);
        report.gradient_norm = square.sqrt();
        report.refused = !square.is_finite() || report.loss.iter().any(|loss| !loss.is_finite());
        if report.refused {
            self.refused += 1;
            return;
        }
        let factor = clip_factor(report.gradient_norm, self.spec.learning.clip) as f32;
        let parameters = self.model.params_mut().values_mut();
        let (adam, embeddings) = (&mut self.adam, &self.embeddings);
        let share = (batch.size() as f64 / whole as f64).min(1.0);
        slices.apply(factor, share, parameters, adam, embeddings, rows, executor, probe);
    }

    /// Predicts a batch: `[size, T]`. Nothing is learned or counted. The answer is kept until the next call.
    ///
    /// # Panics
    /// When the batch was made for another schema.
    pub fn predict(&mut self, batch: &Batch) -> &[f32] {
        let predicted = &mut self.report.probabilities;
        predicted.clear();
        predicted.resize(batch.size() * self.model.tasks(), 0.0);
        self.model.score(&self.embeddings, batch, &mut self.workspace, predicted);
        predicted
    }

    /// The dense part: a clone of it is a snapshot to serve from.
    pub fn model(&self) -> &Model<f32> {
        &self.model
    }

    /// The dense part to write to, for parameters that come from elsewhere.
    pub fn model_mut(&mut self) -> &mut Model<f32> {
        &mut self.model
    }

    /// The rows, which scorers may read while a step goes on.
    pub fn embeddings(&self) -> &Arc<Embeddings> {
        &self.embeddings
    }

    /// The configuration.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// What the model reads.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The tree of tasks.
    pub fn parents(&self) -> &[Option<usize>] {
        &self.parents
    }

    /// How many steps were done.
    pub fn steps(&self) -> u64 {
        self.adam.steps()
    }

    /// How many batches were refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The seed of all first numbers.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Adam's decayed means of gradients and of their squares.
    pub(crate) fn moments(&self) -> (&[f32], &[f32]) {
        self.adam.moments()
    }

    /// Goes back to dense parameters and moments `[3, parameters]` and to these counts.
    pub(crate) fn restore(&mut self, dense: &[f32], steps: u64, refused: u64) {
        let values = self.model.params_mut().values_mut();
        let (own, moments) = dense.split_at(values.len());
        let (mean, square) = moments.split_at(values.len());
        values.copy_from_slice(own);
        self.adam.restore(steps, mean, square);
        self.refused = refused;
    }

    /// A number that two learners share when all that decides their future is equal: dense parameters, optimiser state, rows.
    pub fn checksum(&self) -> u64 {
        let mut hash = Xxh3::new();
        let (mean, square) = self.adam.moments();
        for values in [self.model.params().values(), mean, square] {
            hash.update(bytemuck::cast_slice(values));
        }
        hash.update(&self.adam.steps().to_le_bytes());
        hash.update(&self.embeddings.checksum().to_le_bytes());
        hash.digest()
    }
}

/// Rates of tasks on all impressions for a funnel of which nothing is known: a tenth for a root, a fifth of its parent's for a child.
pub fn default_priors(parents: &[Option<usize>]) -> Vec<f64> {
    let mut priors: Vec<f64> = Vec::with_capacity(parents.len());
    for parent in parents {
        priors.push(match parent.and_then(|parent| priors.get(parent)) {
            Some(above) => above * PRIOR.1,
            None => PRIOR.0,
        });
    }
    priors
}

/// The newest time of a batch: when its rows were last used.
fn newest(batch: &Batch) -> EventTime {
    batch.about.iter().map(|about| about.time).max().unwrap_or_default()
}

#[cfg(test)]
mod tests;
