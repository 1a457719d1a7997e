//! The learner's work without its thread: predict, judge, learn. Live run, replay and tests call the same function.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use sluice_features::attribution::Labels;
use sluice_features::example::{About, LabelMode};
use sluice_features::funnel::{Funnel, MAX_TASKS};
use sluice_features::ids::stable_hash;
use sluice_features::pages::PagedMap;
use sluice_features::time::EventTime;
use sluice_models::checkpoint;
use sluice_models::evaluate::{Judgement, Progressive, Settings};
use sluice_models::learner::Learner;
use sluice_models::retrieval::{Retriever, RetrieverImage, RetrieverSpec};
use sluice_models::table::{Part, RowStoreStats};

use super::guard::{Breach, Guard, Refusals, TOO_MANY};
use super::pool::Pool;
use crate::checkpoint::ParameterImage;
use crate::error::Stop;
use crate::pipeline::work::{LearnBatch, Role};

/// Predictions by user and impression: ids of impressions belong to their user.
type Kept = PagedMap<[f32; MAX_TASKS]>;

/// Examples with a label that a model must have learned before it is said to know anything. By then the rate of an event that one impression in
/// ten leads to is known to a tenth of itself, and the commonest ids have been met some dozens of times; before, answers are little else than
/// the first random numbers.
pub const COLD: u64 = 1_000;

/// What is known about the quality of the predictions, beside the parameters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judge {
    progressive: Progressive,
    guard: Guard,
    /// Predictions of impressions whose last window is open.
    kept: Kept,
    tasks: usize,
    covered: Option<EventTime>,
    /// Predictions still to come that are left out of the figures.
    left_out: u64,
    /// Those left out whose verdict is still to come.
    left_open: u64,
    /// Distinct impressions that were judged for all their tasks.
    judged: u64,
    /// Verdicts without a kept prediction: from before a new model.
    unjudged: u64,
    /// Examples with a label that the parameters have learned.
    learned: u64,
}

impl Judge {
    /// Creates a judge of a funnel's tasks that has judged nothing.
    pub fn new(funnel: &Funnel, settings: Settings) -> Self {
        let names: Vec<&str> = funnel.tasks().iter().map(|task| task.name.as_str()).collect();
        Self {
            progressive: Progressive::new(&names, settings),
            guard: Guard::new(names.len()),
            kept: Kept::default(),
            tasks: names.len(),
            covered: None,
            left_out: 0,
            left_open: 0,
            judged: 0,
            unjudged: 0,
            learned: 0,
        }
    }

    /// Leaves the first `impressions`, in the order of their arrival, out of the figures. (Sampled negatives are left out meanwhile.)
    #[must_use]
    pub fn after(self, impressions: u64) -> Self {
        Self { left_out: impressions, ..self }
    }

    /// Returns the figures.
    pub fn progressive(&self) -> &Progressive {
        &self.progressive
    }

    /// Returns what watches over publishing and keeping.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Tells what is not sound; `None` when all is.
    pub fn cause(&self) -> Option<String> {
        let names: Vec<&str> = self.progressive.tasks().collect();
        self.guard.cause(&names)
    }

    /// Returns how many examples with a label the parameters have learned.
    pub fn learned(&self) -> u64 {
        self.learned
    }

    /// Returns how many distinct impressions were judged.
    pub fn judged(&self) -> u64 {
        self.judged
    }

    /// Returns how many verdicts found no prediction.
    pub fn unjudged(&self) -> u64 {
        self.unjudged
    }

    /// Returns how many predictions wait for their verdict.
    pub fn waiting(&self) -> usize {
        self.kept.len()
    }

    /// Takes the predictions `[size, tasks]` that a step made before it learned, and judges what can be judged.
    fn take(&mut self, work: &LearnBatch, p: &[f32], breaches: &mut Vec<Breach>) {
        let tasks = self.tasks;
        let batch = &work.batch;
        for (i, role) in work.roles.iter().enumerate() {
            if self.left_out > 0 && *role != Role::Update {
                self.left_out -= u64::from(*role != Role::Negative);
                self.left_open += u64::from(*role == Role::Arrival);
                continue;
            }
            if *role == Role::Update {
                continue;
            }
            let row = &p[i * tasks..(i + 1) * tasks];
            self.judged += u64::from(*role == Role::Judged);
            for (task, &p) in row.iter().enumerate() {
                if batch.modes[i * tasks + task] == LabelMode::Final {
                    let label = batch.labels[i * tasks + task] > 0.5;
                    self.judge(task, &batch.about[i], label, p, breaches);
                }
            }
            if *role == Role::Arrival {
                let mut kept = [0.0; MAX_TASKS];
                kept[..tasks].copy_from_slice(row);
                self.kept.insert(key(&batch.about[i]), kept);
            }
        }
        for verdict in &work.verdicts {
            let key = key(&verdict.about);
            let Some(&kept) = self.kept.get(key) else {
                match self.left_open.checked_sub(1) {
                    Some(left) if verdict.last => self.left_open = left,
                    Some(_) => {}
                    None => self.unjudged += u64::from(verdict.last),
                }
                continue;
            };
            self.verdict(&verdict.about, verdict.labels, &kept, breaches);
            if verdict.last {
                self.kept.remove(key);
                self.judged += 1;
            }
        }
        self.covered = work.covered.max(self.covered);
    }

    fn verdict(&mut self, about: &About, labels: Labels, kept: &[f32], breaches: &mut Vec<Breach>) {
        for (task, &p) in kept.iter().enumerate().take(self.tasks) {
            if labels.mode(task) == LabelMode::Final {
                self.judge(task, about, labels.label(task) > 0.5, p, breaches);
            }
        }
    }

    fn judge(
        &mut self,
        task: usize,
        about: &About,
        label: bool,
        p: f32,
        breaches: &mut Vec<Breach>,
    ) {
        let judgement = Judgement {
            label,
            probability: p,
            at: about.time,
            group: about.user.0,
            new_item: about.new_item,
        };
        self.progressive.record(task, &judgement);
        breaches.extend(self.guard.record(task, label, p));
    }
}

/// Returns the key of an impression's prediction.
fn key(about: &About) -> u64 {
    let ids = [about.user.0, about.impression.0].map(u64::to_le_bytes);
    stable_hash(ids.as_flattened())
}

/// What one batch did.
#[derive(Clone, Debug, Default)]
pub struct WorkReport {
    /// Examples predicted or learned.
    pub examples: usize,
    /// Those of them that had a label.
    pub labelled: usize,
    /// The step was refused because a loss or a gradient was not finite.
    pub refused: bool,
    /// What the refused batches so far mean.
    pub refusals: Refusals,
    /// Windows that the guard found unsound.
    pub breaches: Vec<Breach>,
}

impl WorkReport {
    /// Returns why learning ends, if it does. What was learned since the last checkpoint is lost with it, and read again.
    pub fn end(&self) -> Option<Stop> {
        (self.refusals == Refusals::TooMany).then(|| {
            Stop::fault(format!(
                "{TOO_MANY} batches were refused because their loss or a gradient was not finite: nothing since the last checkpoint is kept, and a start \
                 goes on from there; when learning ends like this again, start with lower rates or a lower clip in [learn] and --new-model, which \
                 keeps the state and learns new parameters"
            ))
        })
    }
}

/// All that learning changes: one owner; the embedding rows alone are read by others meanwhile, under their locks.
#[derive(Debug)]
pub struct Trainer {
    learner: Learner,
    retriever: Retriever,
    judge: Judge,
    pool: Pool,
    /// Examples of a batch that is not cut short.
    batch: usize,
}

impl Trainer {
    /// Creates a trainer of its parts, new or restored; the pool's threads make the steps, of so many examples where batches are not cut short.
    pub fn new(
        learner: Learner,
        retriever: Retriever,
        judge: Judge,
        pool: Pool,
        batch: usize,
    ) -> Self {
        Self { learner, retriever, judge, pool, batch }
    }

    /// Predicts the examples of a batch, judges what is final, then learns, and lets rows go that were not used for long.
    pub fn work(&mut self, work: &LearnBatch) -> WorkReport {
        let mut report = WorkReport { examples: work.roles.len(), ..WorkReport::default() };
        if work.batch.is_empty() {
            self.judge.take(work, &[], &mut report.breaches);
            return report;
        }
        let step = self.learner.step_on(&work.batch, self.batch, &self.pool, &mut ());
        (report.refused, report.labelled) = (step.refused, step.labelled);
        self.judge.take(work, &step.probabilities, &mut report.breaches);
        if report.labelled > 0 {
            report.refusals = self.judge.guard.batch(report.refused);
        }
        if !report.refused {
            self.judge.learned += report.labelled as u64;
        }
        self.retriever.learn(&work.batch);
        self.expire();
        report
    }

    /// Removes rows that were not used for the configured span of event time, a part of the tables after each step. Now is the time up to
    /// which everything due is learned: neither one event from the future nor the clock lets a row go.
    fn expire(&mut self) {
        if let Some(now) = self.judge.covered {
            self.learner.embeddings().sweep(now);
            self.retriever.sweep(now);
        }
    }

    /// Takes an image of everything that decides the future: what is small is copied, rows are frozen.
    ///
    /// # Panics
    /// When an earlier image is neither written nor dropped.
    pub fn image(&self) -> TrainerImage {
        TrainerImage {
            learner: checkpoint::image(&self.learner),
            retriever: self.retriever.image(),
            judge: self.judge.clone(),
        }
    }

    /// Writes everything that decides the future, at once. The next checkpoint misses nothing of it.
    ///
    /// # Errors
    /// When writing fails.
    ///
    /// # Panics
    /// When an image is neither written nor dropped.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.image().write(Part::Whole, out)
    }

    /// Returns how many bytes of rows are put aside for an image: those that were learned since it was taken and not yet written.
    pub fn put_aside(&self) -> usize {
        self.learner.embeddings().put_aside() + self.retriever.put_aside()
    }

    /// Puts back what [`Trainer::write`] wrote, into a trainer that was built from the same configuration.
    ///
    /// # Errors
    /// When the bytes are damaged or belong to another model, in words.
    pub fn restore(&mut self, spec: RetrieverSpec, input: &mut impl Read) -> io::Result<()> {
        let (model, schema) = (self.learner.spec().clone(), self.learner.schema().clone());
        let parents = self.learner.parents().to_vec();
        self.learner =
            checkpoint::read(input, &model, &schema, &parents).map_err(io::Error::other)?;
        self.retriever = Retriever::read(spec, &schema, &mut *input).map_err(io::Error::other)?;
        self.read_judge(input)
    }

    /// Goes on from what was put back to where its changes were written next.
    ///
    /// # Errors
    /// As [`Trainer::restore`]. The trainer is of no use then.
    pub fn advance(&mut self, input: &mut impl Read) -> io::Result<()> {
        checkpoint::advance(&mut self.learner, input).map_err(io::Error::other)?;
        self.retriever.advance(&mut *input).map_err(io::Error::other)?;
        self.read_judge(input)
    }

    fn read_judge(&mut self, input: &mut impl Read) -> io::Result<()> {
        let mut length = [0; 8];
        input.read_exact(&mut length)?;
        let mut judge = Vec::new();
        input.take(u64::from_le_bytes(length)).read_to_end(&mut judge)?;
        self.judge = postcard::from_bytes(&judge).map_err(io::Error::other)?;
        Ok(())
    }

    /// Returns the learner.
    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// Counts rows, bytes and what happened of all embedding tables: the ranking model's and the retrieval model's, with what the latter knows of
    /// the frequencies of items.
    pub fn tables(&self) -> RowStoreStats {
        self.learner.embeddings().stats() + self.retriever.stats().rows
    }

    /// Returns the retrieval model.
    pub fn retriever(&self) -> &Retriever {
        &self.retriever
    }

    /// Returns the retrieval model to drain what it has touched.
    pub fn retriever_mut(&mut self) -> &mut Retriever {
        &mut self.retriever
    }

    /// Returns what is known about the quality of the predictions.
    pub fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Returns a number that two trainers share when all that decides their predictions is equal.
    pub fn checksum(&self) -> u64 {
        let sums = [self.learner.checksum(), self.retriever.checksum()].map(u64::to_le_bytes);
        sluice_features::ids::stable_hash(sums.as_flattened())
    }

    /// Returns the event time up to which everything due has been learned.
    pub fn covered(&self) -> Option<EventTime> {
        self.judge.covered
    }

    /// Makes every dense parameter no number: every step is refused.
    #[cfg(test)]
    pub(crate) fn spoil(&mut self) {
        self.learner.model_mut().params_mut().values_mut().fill(f32::NAN);
    }
}

/// A trainer as it was at one instant, to be written while it goes on.
#[derive(Debug)]
pub struct TrainerImage {
    learner: checkpoint::Image,
    retriever: RetrieverImage,
    judge: Judge,
}

impl ParameterImage for TrainerImage {
    fn bytes(&self, part: Part) -> u64 {
        self.learner.bytes(part) + self.retriever.bytes(part)
    }

    fn write(&mut self, part: Part, mut to: &mut dyn Write) -> io::Result<()> {
        self.learner.write(part, &mut to)?;
        self.retriever.write(part, &mut to)?;
        let judge = postcard::to_allocvec(&self.judge).map_err(io::Error::other)?;
        to.write_all(&(judge.len() as u64).to_le_bytes())?;
        to.write_all(&judge)
    }

    fn keep(self) {
        self.learner.keep();
        self.retriever.keep();
    }
}

#[cfg(test)]
pub(crate) mod tests;
