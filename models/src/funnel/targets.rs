//! What the loss reads of an example, and the log loss of one task.
//!
//! | mode | weight of the log loss |
//! |---|---|
//! | masked | 0 |
//! | final | 1 |
//! | FNW's negative | `(1 - p)(1 + p)` |
//! | FNW's positive | `1 + p` |
//!
//! with `p` the task's own probability on every impression as a constant: the mean over the stream of immediate negatives and later
//! positives then has its minimum at the true rate. Every weight is divided by the number of examples with a label.
//!
//! Where negatives are sampled, they are those of the view, which is task 0: `p` is its probability in the sample. All other tasks, with a parent or
//! without, are learned on the views alone: their `p` are those on a view.

use sluice_features::example::{Batch, LabelMode};

use crate::kernels::Real;

/// No weight is made of a probability nearer to 0 or 1.
const NEAREST: f64 = 1e-6;

/// Labels of some examples.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// `[n, T]`, 0 or 1.
    pub labels: &'a [f32],
    /// `[n, T]`
    pub modes: &'a [LabelMode],
    /// How many examples of the whole batch have a label of any task.
    pub labelled: usize,
}

impl<'a> Targets<'a> {
    /// Those of a slice of a batch, of which `labelled` examples have a label.
    pub fn slice(batch: &'a Batch, slice: std::ops::Range<usize>, labelled: usize) -> Self {
        let tasks = batch.labels.len() / batch.size().max(1);
        let wide = slice.start * tasks..slice.end * tasks;
        Self { labels: &batch.labels[wide.clone()], modes: &batch.modes[wide], labelled }
    }

    pub(super) fn example(&self, i: usize, tasks: usize) -> Example<'a> {
        Example {
            labels: &self.labels[i * tasks..(i + 1) * tasks],
            modes: &self.modes[i * tasks..(i + 1) * tasks],
            share: 1.0 / self.labelled.max(1) as f64,
        }
    }
}

/// How many examples of a batch have a label of any task.
pub fn labelled(batch: &Batch) -> usize {
    let tasks = batch.modes.len() / batch.size().max(1);
    let known = |modes: &&[LabelMode]| modes.iter().any(|&mode| mode != LabelMode::Masked);
    batch.modes.chunks_exact(tasks.max(1)).filter(known).count()
}

/// One example's labels.
pub(super) struct Example<'a> {
    pub(super) labels: &'a [f32],
    pub(super) modes: &'a [LabelMode],
    /// One over the number of examples with a label.
    pub(super) share: f64,
}

impl Example<'_> {
    /// The weight of a task's log loss, or `None` where nothing is known.
    pub(super) fn weight(&self, task: usize, p: f64) -> Option<f64> {
        let p = p.clamp(NEAREST, 1.0 - NEAREST);
        let weight = match self.modes[task] {
            LabelMode::Masked => return None,
            LabelMode::Final => 1.0,
            LabelMode::FnwNegative => (1.0 - p) * (1.0 + p),
            LabelMode::FnwPositive => 1.0 + p,
        };
        Some(weight * self.share)
    }

    /// `w (softplus(a) - y a)` for each task, `da = w (σ(a) - y)`.
    pub(super) fn log_losses<R: Real>(&self, logits: &[R], dlogits: &mut [R], loss: &mut [f64]) {
        for (task, &logit) in logits.iter().enumerate() {
            self.log_loss(task, logit, &mut dlogits[task], loss);
        }
    }

    /// The log loss of one task.
    pub(super) fn log_loss<R: Real>(&self, task: usize, a: R, dlogit: &mut R, loss: &mut [f64]) {
        let p = a.sigmoid();
        if let Some(weight) = self.weight(task, p.to_f64()) {
            let y = f64::from(self.labels[task]);
            loss[task] += weight * (a.softplus().to_f64() - y * a.to_f64());
            *dlogit += R::from_f64(weight) * (p - R::from_f64(y));
        }
    }
}
