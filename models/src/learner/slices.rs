//! A step in pieces: slices of the batch side by side, each with gradients of its own; then parts of the parameters side by side.
//!
//! ```text
//! slice 0: forward, backward ─┐   ┌─ part 0: sum the slices' gradients, square them ─┐   ┌─ part 0: Adam, rows
//! slice 1: forward, backward ─┴───┴─ part 1: sum the slices' gradients, square them ─┴───┴─ part 1: Adam, rows
//! ```
//!
//! Where slices and parts begin, and the order of sums over slices, follow from the size of the batch and the number of pieces alone.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use sluice_features::example::Batch;

use super::StepReport;
use crate::executor::{Executor, MOST_PIECES};
use crate::kernels::Real;
use crate::layers::Grid;
use crate::model::{Embeddings, Model, Pass, Rows};
use crate::optimizers::{Adam, square_norm};
use crate::params::{Layout, Params};
use crate::work::{Probe, Stage};

/// A slice has no fewer examples, or the sum of its gradients would cost more than it saves.
const LEAST: usize = 8;
/// Numbers whose gradients are summed and squared while they are in the nearest cache.
const BLOCK: usize = 4096;
/// Parts begin at whole cache lines.
const LINE: usize = 16;

/// What a slice leaves behind.
#[derive(Clone, Debug)]
struct Slice {
    pass: Pass<f32>,
    gradients: Params<f32>,
    loss: Vec<f64>,
}

impl Slice {
    fn work<P: Probe>(
        &mut self,
        model: &Model<f32>,
        batch: &Batch,
        range: &Range<usize>,
        labelled: usize,
        rows: &Rows<f32>,
        probe: &mut P,
    ) {
        model.forward(batch, range, rows, &mut self.pass, probe);
        self.loss.clear();
        self.loss.resize(model.tasks(), 0.0);
        if labelled > 0 {
            let (pass, gradients, loss) = (&mut self.pass, &mut self.gradients, &mut self.loss);
            model.backward(batch, range, labelled, rows, pass, gradients, loss, probe);
        }
    }
}

/// The slices of a step: as many as were ever needed.
#[derive(Debug, Default)]
pub(super) struct Slices {
    all: Vec<Mutex<Slice>>,
    used: usize,
}

impl Slices {
    /// Predicts the batch and computes losses and, if any example has a label, gradients.
    pub(super) fn pass<E: Executor + ?Sized, P: Probe + Send>(
        &mut self,
        model: &Model<f32>,
        batch: &Batch,
        rows: &Rows<f32>,
        executor: &E,
        probe: &mut P,
        report: &mut StepReport,
    ) {
        let (size, labelled) = (batch.size(), report.labelled);
        let count = (size / LEAST).clamp(1, executor.threads().clamp(1, MOST_PIECES));
        self.reserve(count, model.params().layout());
        let (all, probe) = (&self.all, Mutex::new(probe));
        executor.run(count, &|k| {
            let range = k * size / count..(k + 1) * size / count;
            let slice = &mut *all[k].lock();
            if k == 0 {
                slice.work(model, batch, &range, labelled, rows, &mut **probe.lock());
            } else {
                slice.work(model, batch, &range, labelled, rows, &mut ());
            }
        });
        for slice in self.all.iter_mut().take(count).map(Mutex::get_mut) {
            report.probabilities.extend_from_slice(slice.pass.probabilities());
            report.loss.iter_mut().zip(&slice.loss).for_each(|(sum, loss)| *sum += loss);
        }
    }

    fn reserve(&mut self, count: usize, layout: &Arc<Layout>) {
        let new = || {
            let gradients = Params::zeros(layout.clone());
            Mutex::new(Slice { pass: Pass::default(), gradients, loss: Vec::new() })
        };
        if self.all.len() < count {
            self.all.resize_with(count, new);
        }
        self.used = count;
    }

    /// Sums the gradients of all slices, in as many parts, into those of the first; returns the square of their norm.
    pub(super) fn sum<E: Executor + ?Sized>(&mut self, executor: &E) -> f64 {
        let parts = self.used;
        let mut slices = self.all.iter_mut().take(parts).map(Mutex::get_mut);
        let Some(Slice { pass, gradients, .. }) = slices.next() else { return 0.0 };
        let mut others: [Option<&Slice>; MOST_PIECES] = [None; MOST_PIECES];
        for (place, slice) in others.iter_mut().zip(slices) {
            for (sum, drows) in pass.drows.iter_mut().zip(&slice.pass.drows) {
                f32::axpy(1.0, drows.values(), sum.values_mut());
            }
            *place = Some(slice);
        }
        let rows = pass.drows.iter().map(|drows| f64::from(square_norm(drows.values())));
        let rows: f64 = rows.sum();
        if parts == 1 {
            return f64::from(square_norm(gradients.values())) + rows;
        }
        let length = part(gradients.values().len(), parts);
        let mut chunks = gradients.values_mut().chunks_mut(length);
        let parts_of: [_; MOST_PIECES] =
            std::array::from_fn(|_| Mutex::new((chunks.next().unwrap_or_default(), 0.0)));
        executor.run(parts, &|k| {
            let (sum, square) = &mut *parts_of[k].lock();
            for (block, sum) in sum.chunks_mut(BLOCK).enumerate() {
                let start = k * length + block * BLOCK;
                for slice in others.iter().flatten() {
                    f32::axpy(1.0, &slice.gradients.values()[start..start + sum.len()], sum);
                }
                *square += f64::from(square_norm(sum));
            }
        });
        parts_of.into_iter().map(|part| part.into_inner().1).sum::<f64>() + rows
    }

    /// One step of both optimisers, in as many parts as there were slices, with the summed gradients times `factor`, of a batch that is `share`
    /// of a whole one.
    pub(super) fn apply<E: Executor + ?Sized, P: Probe + Send>(
        &mut self,
        factor: f32,
        share: f64,
        parameters: &mut [f32],
        adam: &mut Adam<f32>,
        embeddings: &Embeddings,
        rows: &Rows<f32>,
        executor: &E,
        probe: &mut P,
    ) {
        let parts = self.used;
        let Some(Slice { pass, gradients, .. }) = self.all.first_mut().map(Mutex::get_mut) else {
            return;
        };
        let of_rows = factor * share as f32;
        if of_rows < 1.0 {
            for values in pass.drows.iter_mut().map(Grid::values_mut) {
                values.iter_mut().for_each(|g| *g *= of_rows);
            }
        }
        let (drows, length) = (&pass.drows, part(parameters.len(), parts));
        let (mut step, mean, square) = adam.advance();
        step.rate *= share.sqrt() as f32;
        let mut chunks = parameters
            .chunks_mut(length)
            .zip(gradients.values_mut().chunks_mut(length))
            .zip(mean.chunks_mut(length).zip(square.chunks_mut(length)));
        let parts_of: [_; MOST_PIECES] = std::array::from_fn(|_| Mutex::new(chunks.next()));
        let probe = Mutex::new(probe);
        executor.run(parts, &|k| {
            if let Some(((parameters, gradient), (mean, square))) = &mut *parts_of[k].lock() {
                if factor < 1.0 {
                    gradient.iter_mut().for_each(|g| *g *= factor);
                }
                f32::adam(parameters, gradient, mean, square, &step);
            }
            if k == 0 {
                probe.lock().enter(Stage::Rows);
            }
            embeddings.apply(rows, drows, k, parts);
        });
    }
}

/// Length of one of so many parts.
fn part(length: usize, parts: usize) -> usize {
    length.div_ceil(parts).next_multiple_of(LINE).max(LINE)
}
