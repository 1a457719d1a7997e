//! Slot 4: from each task's stream to its probability, over the tree of tasks. One file for each entry.
//!
//! ```text
//! stream_t ── tower_t ── (aitm: transfer from the parent's tower) ── head_t ──┬── logit_t ── p_t
//!                                                      crossing's logit_t ────┘
//! ```
//!
//! `p_t` is the probability of task `t` on *every* impression: `σ(logit_t)` for `independent` and `aitm`; for `esmm` the product of `σ(logit)`
//! along the path from the root. The loss of task `t` is the sum of its weighted log losses, over the number of examples of the batch that have a
//! label of any task: examples that are only predicted do not shrink the step ([`Targets`]).

mod aitm;
mod esmm;
mod evidence;
mod head;
mod targets;
mod tower;

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::kernels::Real;
use crate::layers::Grid;
use crate::params::{Layout, Params};
use crate::spec::FunnelSpec;
use aitm::{Transfer, TransferTape};
pub(crate) use evidence::Evidence;
use head::Head;
use targets::Example;
pub use targets::{Targets, labelled};
use tower::{Tower, TowerTape};

/// How the tasks hang together above their towers.
#[derive(Clone, Debug)]
enum Kind {
    Independent,
    Esmm,
    Aitm { transfer: Transfer, calibrator: f64 },
}

/// Towers and heads.
#[derive(Clone, Debug)]
pub struct Funnel {
    parents: Vec<Option<usize>>,
    kind: Kind,
    /// One for each task; none without a deep part.
    towers: Vec<Tower>,
    head: Head,
}

/// What the backward pass reads, and scratch.
#[derive(Clone, Debug, Default)]
pub struct FunnelTape<R> {
    towers: Vec<TowerTape<R>>,
    transfer: TransferTape<R>,
    /// `[n, T]`
    logits: Grid<R>,
    /// `[n, T]`
    p: Grid<R>,
    dlogits: Grid<R>,
}

impl<R> FunnelTape<R> {
    /// `[n, T]`: each task's probability on every impression.
    pub fn p(&self) -> &Grid<R> {
        &self.p
    }
}

impl Funnel {
    /// Adds the blocks. `inputs` is the width of every task's stream, or `None` without a deep part: the logit is then a bias and
    /// the crossing's. `priors` are the tasks' rates on all impressions: where the heads start.
    pub fn new(
        layout: &mut Layout,
        spec: &FunnelSpec,
        parents: &[Option<usize>],
        inputs: Option<usize>,
        priors: &[f64],
    ) -> Self {
        let tasks = parents.len();
        let towers: Vec<Tower> = match inputs {
            None => Vec::new(),
            Some(inputs) => (0..tasks)
                .map(|t| Tower::new(layout, &format!("funnel.{t}"), inputs, spec.tower()))
                .collect(),
        };
        let width = towers.first().map(Tower::outputs);
        let kind = match (spec, width) {
            (FunnelSpec::Aitm { calibrator, .. }, Some(width)) => {
                let transfer = Transfer::new(layout, parents, width);
                Kind::Aitm { transfer, calibrator: *calibrator }
            }
            (FunnelSpec::Esmm { .. }, _) => Kind::Esmm,
            _ => Kind::Independent,
        };
        let conditional = matches!(kind, Kind::Esmm);
        let start = |t: usize| match parents[t] {
            Some(parent) if conditional => priors[t] / priors[parent],
            _ => priors[t],
        };
        let priors: Vec<f64> = (0..tasks).map(start).collect();
        let head = Head::new(layout, width, &priors);
        Self { parents: parents.to_vec(), kind, towers, head }
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.parents.len()
    }

    /// Operations for so many examples, see [`crate::work`].
    pub(crate) fn operations(&self, examples: usize) -> u64 {
        let towers: u64 = self.towers.iter().map(|tower| tower.operations(examples)).sum();
        let transfer = match &self.kind {
            Kind::Aitm { transfer, .. } => transfer.operations(examples),
            _ => 0,
        };
        towers + transfer
    }

    /// Computes the probabilities of `n` examples: `streams` one `[n, inputs]` for each task, `extra` the crossing's logits `[n, T]`.
    pub fn forward<R: Real>(
        &self,
        params: &Params<R>,
        streams: &[Grid<R>],
        n: usize,
        extra: Option<ArrayView2<R>>,
        tape: &mut FunnelTape<R>,
    ) {
        let tasks = self.tasks();
        tape.towers.resize_with(self.towers.len(), TowerTape::default);
        for ((tower, stream), tape) in self.towers.iter().zip(streams).zip(&mut tape.towers) {
            tower.forward(params, stream.view(), tape);
        }
        if let Kind::Aitm { transfer, .. } = &self.kind {
            transfer.forward(params, &self.parents, &tape.towers, &mut tape.transfer);
        }
        tape.logits.zero(n, tasks);
        if let Some(extra) = extra {
            tape.logits.view_mut().assign(&extra);
        }
        for task in 0..tasks {
            let known = self.known(task, streams, &tape.towers, &tape.transfer);
            self.head.forward(params, task, known, tape.logits.view_mut());
        }
        tape.p.reshape(n, tasks);
        for i in 0..n {
            self.probabilities(tape.logits.row(i), tape.p.row_mut(i));
        }
    }

    fn probabilities<R: Real>(&self, logits: &[R], p: &mut [R]) {
        match self.kind {
            Kind::Esmm => esmm::probabilities(&self.parents, logits, p),
            _ => p.iter_mut().zip(logits).for_each(|(p, &logit)| *p = logit.sigmoid()),
        }
    }

    /// One example without streams: adds the biases to the crossing's `logits` `[T]` and makes `p` its probabilities.
    pub(crate) fn predict_one<R: Real>(&self, params: &Params<R>, logits: &mut [R], p: &mut [R]) {
        let biases = params.slice(self.head.bias());
        logits.iter_mut().zip(biases).for_each(|(logit, &bias)| *logit += bias);
        self.probabilities(logits, p);
    }

    /// One example without streams: adds each task's loss to `loss` and makes `dlogits` the slopes.
    pub(crate) fn judge_one<R: Real>(
        &self,
        targets: &Targets<'_>,
        logits: &[R],
        p: &[R],
        dlogits: &mut [R],
        loss: &mut [f64],
    ) {
        dlogits.fill(R::zero());
        self.slopes_of(&targets.example(0, self.tasks()), logits, p, dlogits, loss);
    }

    /// One example without streams: adds each head's loss to `loss` and writes what is learned of each.
    pub(crate) fn weigh_one(
        &self,
        targets: &Targets<'_>,
        logits: &[f32],
        loss: &mut [f64],
        out: &mut Vec<Option<Evidence>>,
    ) {
        let conditional = matches!(self.kind, Kind::Esmm);
        let example = targets.example(0, self.tasks());
        evidence::evidence(&self.parents, conditional, &example, logits, loss, out);
    }

    /// Moves the bias of a task.
    pub(crate) fn move_bias(&self, params: &mut Params<f32>, task: usize, by: f32) {
        params.slice_mut(self.head.bias())[task] += by;
    }

    /// One example without streams: adds to `grads`, given its slopes.
    pub(crate) fn differentiate_one<R: Real>(&self, dlogits: &[R], grads: &mut Params<R>) {
        let biases = grads.slice_mut(self.head.bias());
        biases.iter_mut().zip(dlogits).for_each(|(bias, &dlogit)| *bias += dlogit);
    }

    /// Adds each task's loss to `loss` (a calibrator's to the child's) and gradients to `dstreams`; overwrites its `grads` and `dextra`.
    pub fn backward<R: Real>(
        &self,
        params: &Params<R>,
        streams: &[Grid<R>],
        targets: &Targets<'_>,
        tape: &mut FunnelTape<R>,
        grads: &mut Params<R>,
        dstreams: &mut [Grid<R>],
        dextra: Option<ArrayViewMut2<R>>,
        loss: &mut [f64],
    ) {
        self.slopes(targets, tape, loss);
        if let Some(mut dextra) = dextra {
            dextra.assign(&tape.dlogits.view());
        }
        if self.towers.is_empty() {
            for task in 0..self.tasks() {
                self.head.backward_bias(task, tape.dlogits.view(), grads);
            }
            return;
        }
        for (tower, stream) in tape.towers.iter_mut().zip(streams) {
            tower.clear(stream);
        }
        tape.transfer.clear();
        if let Kind::Aitm { transfer, .. } = &self.kind {
            transfer.clear(grads);
        }
        for task in (0..self.tasks()).rev() {
            let dlogits = tape.dlogits.view();
            if let (Kind::Aitm { transfer, .. }, Some(parent)) = (&self.kind, self.parents[task]) {
                let (known, dknown) = tape.transfer.known(task);
                self.head.backward(params, task, known.view(), dlogits, grads, dknown.view_mut());
                let (towers, transfer_tape) = (&mut tape.towers, &mut tape.transfer);
                let roots = self.parents[parent].is_none();
                transfer.backward(params, task, parent, roots, towers, transfer_tape, grads);
            } else {
                let (known, dknown) = tape.towers[task].pair(&streams[task]);
                self.head.backward(params, task, known, dlogits, grads, dknown);
            }
            let (tower, dstream) = (&mut tape.towers[task], &mut dstreams[task]);
            self.towers[task].backward(params, streams[task].view(), tower, grads, dstream);
        }
    }

    /// What the head of a task reads.
    fn known<'a, R: Real>(
        &self,
        task: usize,
        streams: &'a [Grid<R>],
        towers: &'a [TowerTape<R>],
        transfer: &'a TransferTape<R>,
    ) -> Option<ArrayView2<'a, R>> {
        if self.towers.is_empty() {
            return None;
        }
        match (&self.kind, self.parents[task]) {
            (Kind::Aitm { .. }, Some(_)) => Some(transfer.output(task)),
            _ => Some(towers[task].output(&streams[task])),
        }
    }

    /// Loss and its gradient by the logits.
    fn slopes<R: Real>(&self, targets: &Targets<'_>, tape: &mut FunnelTape<R>, loss: &mut [f64]) {
        let (n, tasks) = (tape.logits.rows(), self.tasks());
        tape.dlogits.zero(n, tasks);
        for i in 0..n {
            let (logits, p) = (tape.logits.row(i), tape.p.row(i));
            let dlogits = tape.dlogits.row_mut(i);
            self.slopes_of(&targets.example(i, tasks), logits, p, dlogits, loss);
        }
    }

    fn slopes_of<R: Real>(
        &self,
        example: &Example<'_>,
        logits: &[R],
        p: &[R],
        dlogits: &mut [R],
        loss: &mut [f64],
    ) {
        match &self.kind {
            Kind::Independent => example.log_losses(logits, dlogits, loss),
            Kind::Esmm => esmm::log_losses(&self.parents, example, logits, p, dlogits, loss),
            Kind::Aitm { calibrator, .. } => {
                example.log_losses(logits, dlogits, loss);
                aitm::calibrate(&self.parents, example, *calibrator, p, dlogits, loss);
            }
        }
    }
}

#[cfg(test)]
mod tests;
