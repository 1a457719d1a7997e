//! The learner's work without its thread: predict, judge, learn. Live run, replay and tests call the same function.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sluice_features::attribute::Labels;
use sluice_features::example::{About, LabelMode};
use sluice_features::funnel::{Funnel, MAX_TASKS};
use sluice_features::time::EventTime;
use sluice_models::evaluate::{Judgement, Progressive, Settings};
use sluice_models::learner::Learner;

use super::guard::{Breach, Guard};
use crate::pipeline::work::{LearnBatch, Role};

type Kept = HashMap<u64, [f32; MAX_TASKS], foldhash::fast::FixedState>;

/// What is known about the quality of the predictions, beside the parameters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judge {
    progressive: Progressive,
    guard: Guard,
    /// Predictions of impressions whose last window is open.
    kept: Kept,
    tasks: usize,
    covered: Option<EventTime>,
    /// Distinct impressions that were judged.
    judged: u64,
    /// Verdicts without a kept prediction: from before a new model.
    unjudged: u64,
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
            judged: 0,
            unjudged: 0,
        }
    }

    /// Returns the figures.
    pub fn progressive(&self) -> &Progressive {
        &self.progressive
    }

    /// Tells whether the guard lets anything be published.
    pub fn sound(&self) -> bool {
        self.guard.sound()
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
            let row = &p[i * tasks..(i + 1) * tasks];
            match role {
                Role::Judged | Role::Negative => {
                    self.judged += u64::from(*role == Role::Judged);
                    for task in 0..tasks {
                        if batch.modes[i * tasks + task] == LabelMode::Final {
                            let label = batch.labels[i * tasks + task] > 0.5;
                            self.judge(task, &batch.about[i], label, row[task], breaches);
                        }
                    }
                }
                Role::Arrival => {
                    let mut kept = [0.0; MAX_TASKS];
                    kept[..tasks].copy_from_slice(row);
                    self.kept.insert(batch.about[i].impression.0, kept);
                }
                Role::Update => {}
            }
        }
        for verdict in &work.verdicts {
            match self.kept.remove(&verdict.about.impression.0) {
                Some(kept) => self.verdict(&verdict.about, verdict.labels, &kept, breaches),
                None => self.unjudged += 1,
            }
        }
        self.covered = work.covered.max(self.covered);
    }

    fn verdict(&mut self, about: &About, labels: Labels, kept: &[f32], breaches: &mut Vec<Breach>) {
        self.judged += 1;
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

/// What one batch did.
#[derive(Clone, Debug, Default)]
pub struct WorkReport {
    /// Examples predicted or learned.
    pub examples: usize,
    /// The step was refused because a loss or a gradient was not finite.
    pub refused: bool,
    /// Windows that the guard found unsound.
    pub breaches: Vec<Breach>,
}

/// All that learning changes: one owner; the embedding rows alone are read by others meanwhile, under their locks.
pub struct Trainer {
    learner: Learner,
    judge: Judge,
}

impl Trainer {
    /// Creates a trainer of its parts, new or restored.
    pub fn new(learner: Learner, judge: Judge) -> Self {
        Self { learner, judge }
    }

    /// Predicts the examples of a batch, judges what is final, then learns.
    pub fn work(&mut self, work: &LearnBatch) -> WorkReport {
        let mut report = WorkReport { examples: work.roles.len(), ..WorkReport::default() };
        if work.batch.is_empty() {
            self.judge.take(work, &[], &mut report.breaches);
            return report;
        }
        let step = self.learner.step(&work.batch);
        report.refused = step.refused;
        self.judge.take(work, &step.probabilities, &mut report.breaches);
        report
    }

    /// Returns the learner.
    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// Returns what is known about the quality of the predictions.
    pub fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Returns a number that two trainers share when all that decides their predictions is equal.
    pub fn checksum(&self) -> u64 {
        self.learner.checksum()
    }

    /// Returns the event time up to which everything due has been learned.
    pub fn covered(&self) -> Option<EventTime> {
        self.judge.covered
    }
}
