//! Models without a deep part learn one example after the other: each is predicted, judged and learned before the next one is predicted. The
//! examples of a group ([`Batch::groups`]) are all predicted before the first of them is learned.
//!
//! With `a` the slopes of an example's loss by its logits, `g_j` the gradient of row `j` and `r_j` the rate that row-wise Adagrad has for it after
//! this example, the rows take a step with the slopes
//!
//! `u_t = a_t / (1 + h |a_t| (1 - |a_t|))`,  `h = Σ_j r_j |g_j|² / |a|²`.
//!
//! `h` is by how much the step moves a logit for each unit of slope, `|a| (1 - |a|) = p (1 - p)` the curvature of the log loss: this is the implicit
//! step, which reads the slope where it arrives, linearised (Kulis and Bartlett 2010; importance-aware updates by Karampatziakis and Langford 2011
//! answer the same). A young row may so have a high rate and does not overshoot. Dense parameters take a step of Adam with the plain gradient.
//!
//! The rows of a batch are found once and lent; the steps go over them where they lie side by side, and they are put back at the end. That is
//! the same, bit for bit, as batches of one example.
//!
//! Weights with variances take another step ([`bayes`]).

mod bayes;
mod side;

use std::ops::Range;
use std::sync::Arc;

use sluice_features::example::{Batch, LabelMode};

use super::Learner;
use crate::crossing::{Crossing, TermList};
use crate::funnel::{Evidence, Funnel, Targets};
use crate::kernels::{move_pairs, pair_squares, sum_pairs};
use crate::optimizers::{Adam, clip_factor, square_norm};
use crate::params::Params;
use crate::table::RowStore;
use side::{Side, terms};

/// Buffers, all kept.
#[derive(Debug, Default)]
pub(super) struct Each {
    /// Terms of key fields with lists, and of key fields alone.
    lists: [TermList; 2],
    /// Whether the two differ.
    apart: bool,
    linear: Side,
    /// Of one example's linear terms: the sum of squared shares.
    shares: f32,
    fm: Side,
    /// `[width]`: of the machine, the sum of the rows, that of all pairs, and the slopes by it.
    sum: Vec<f32>,
    pairs: Vec<f32>,
    slope: Vec<f32>,
    /// `[T]`
    logits: Vec<f32>,
    p: Vec<f32>,
    slopes: Vec<f32>,
    steps: Vec<f32>,
    loss: Vec<f64>,
    /// `[T]`, where weights have variances.
    evidence: Vec<Option<Evidence>>,
    /// An example's numbers with 1 behind them, and for each task their product with its covariance.
    inputs: Vec<f32>,
    products: Vec<f32>,
    /// `[terms, width]`: slopes of the machine by each of an example's rows.
    directions: Vec<f32>,
}

/// The parts of a learner that a step reads and writes.
struct Parts<'a> {
    crossing: &'a Crossing,
    funnel: &'a Funnel,
    params: &'a mut Params<f32>,
    gradients: &'a mut Params<f32>,
    adam: &'a mut Adam<f32>,
    clip: f64,
    linear: Option<&'a RowStore>,
    fm: Option<&'a RowStore>,
}

impl Learner {
    /// Predicts and learns the examples of a batch one after the other, by a model without a deep part.
    pub(super) fn each(&mut self, batch: &Batch) {
        let slice = 0..batch.size();
        let Some((crossing, funnel, variances, params)) = self.model.shallow() else { return };
        let mut stores = self.embeddings.stores().iter().map(Arc::as_ref);
        let fm = crossing.fm().and_then(|_| stores.next());
        let linear = crossing.linear().and_then(|_| stores.next());
        let mut parts = Parts {
            crossing,
            funnel,
            params,
            gradients: &mut self.gradients,
            adam: &mut self.adam,
            clip: self.spec.learning.clip,
            linear,
            fm,
        };
        let (each, report) = (&mut self.one_by_one, &mut self.report);
        each.lend(&parts, batch, &slice);
        let (mut learned, mut group) = (false, slice.start..slice.start);
        for (number, example) in slice.clone().enumerate() {
            if example == group.end {
                group = batch.group(example..slice.end);
                for (beside, example) in group.clone().enumerate() {
                    each.predict(&parts, batch, number + beside, example);
                    report.probabilities.extend_from_slice(&each.p);
                }
            }
            if group.len() > 1 {
                // The later ones learn from where the earlier ones have led.
                each.predict(&parts, batch, number, example);
            }
            let tasks = each.p.len();
            let modes = &batch.modes[example * tasks..(example + 1) * tasks];
            if modes.iter().all(|&mode| mode == LabelMode::Masked) {
                continue;
            }
            let norm = match variances {
                Some(variances) => each.filter(variances, &mut parts, batch, number, example),
                None => each.learn(&mut parts, batch, number, example),
            };
            match norm {
                Some(norm) => {
                    report.gradient_norm = report.gradient_norm.max(norm);
                    report.loss.iter_mut().zip(&each.loss).for_each(|(sum, loss)| *sum += loss);
                    learned = true;
                }
                None => {
                    report.refused = true;
                    self.refused += 1;
                }
            }
        }
        if learned {
            let [all, fields] = [0, usize::from(each.apart)].map(|list| &each.lists[list].uses);
            linear.iter().for_each(|store| store.take_back(all, &each.linear.loan));
            fm.iter().for_each(|store| store.take_back(fields, &each.fm.loan));
        }
        let labelled = report.labelled.max(1) as f64;
        report.loss.iter_mut().for_each(|loss| *loss /= labelled);
    }
}

impl Each {
    /// Takes out all rows of a slice of a batch.
    fn lend(&mut self, parts: &Parts<'_>, batch: &Batch, slice: &Range<usize>) {
        let [all, fields] = &mut self.lists;
        all.group(batch, slice.clone(), None, parts.linear.is_some());
        // A machine has no lists and no fields of width 0: where there are any and both models, their terms differ.
        let wide = parts.crossing.wide();
        let same = batch.lists.is_empty() && wide.is_none();
        self.apart = parts.linear.is_some() && parts.fm.is_some() && !same;
        if self.apart {
            fields.group(batch, slice.clone(), wide, false);
        }
        if let Some(store) = parts.linear {
            self.linear.lend(store, all, batch, slice);
        }
        if let Some(store) = parts.fm {
            let list = if self.apart { fields } else { all };
            self.fm.lend(store, list, batch, slice);
        }
        let tasks = parts.funnel.tasks();
        for buffer in [&mut self.logits, &mut self.p, &mut self.slopes, &mut self.steps] {
            buffer.resize(tasks, 0.0);
        }
        self.loss.resize(tasks, 0.0);
        let width = parts.fm.map_or(0, RowStore::width);
        for buffer in [&mut self.sum, &mut self.pairs, &mut self.slope] {
            buffer.resize(width, 0.0);
        }
    }

    /// Makes `logits` and `p` those of an example: the `number`-th of the slice, number `example` of the batch.
    fn predict(&mut self, parts: &Parts<'_>, batch: &Batch, number: usize, example: usize) {
        self.logits.fill(0.0);
        if let (Some(linear), Some(store)) = (parts.crossing.linear(), parts.linear) {
            // Behind the weights of a row may stand what was learned of them.
            self.logits.resize(store.width(), 0.0);
            self.shares = self.linear.add(&self.lists[0], number, &mut self.logits);
            self.logits.truncate(parts.funnel.tasks());
            linear.add_numbers(parts.params, batch, example, &mut self.logits);
        }
        if let (Some(fm), Some(store)) = (parts.crossing.fm(), parts.fm) {
            let list = &self.lists[usize::from(self.apart)];
            let terms = self.fm.terms(list, number);
            let rows = &self.fm.loan.rows;
            sum_pairs(rows, store.width(), terms, &mut self.sum, &mut self.pairs);
            fm.add_pairs(parts.params, &self.pairs, &mut self.logits);
        }
        parts.funnel.predict_one(parts.params, &mut self.logits, &mut self.p);
    }

    /// Learns the example that was just predicted. Returns the norm of its gradient before it was cut, or nothing where it is not finite: then
    /// nothing was learned.
    fn learn(
        &mut self,
        parts: &mut Parts<'_>,
        batch: &Batch,
        number: usize,
        example: usize,
    ) -> Option<f64> {
        self.loss.fill(0.0);
        let targets = Targets::slice(batch, example..example + 1, 1);
        parts.funnel.judge_one(&targets, &self.logits, &self.p, &mut self.slopes, &mut self.loss);
        let mut length = square_norm(&self.slopes);
        let norm = self.differentiate(parts, batch, number, example, length);
        if !norm.is_finite() || self.loss.iter().any(|loss| !loss.is_finite()) {
            return None;
        }
        let curvature = |slope: f32| (slope.abs() * (1.0 - slope.abs())).max(0.0);
        let steps = self.steps.iter_mut().zip(&self.slopes);
        steps.for_each(|(step, &slope)| *step = curvature(slope));
        let factor = clip_factor(norm, parts.clip) as f32;
        if factor < 1.0 {
            let gradients = parts.gradients.values_mut().iter_mut();
            gradients.chain(&mut self.slopes).for_each(|g| *g *= factor);
            length = square_norm(&self.slopes);
        }
        if length > 0.0 {
            let mut change = 0.0;
            if let Some(store) = parts.linear {
                change += self.linear.advance_added(&self.lists[0], number, store, length);
            }
            if let Some(store) = parts.fm {
                let list = &self.lists[usize::from(self.apart)];
                change += self.fm.advance(list, number, store, factor);
            }
            let h = change / length;
            for (step, &slope) in self.steps.iter_mut().zip(&self.slopes) {
                *step = slope / (1.0 + h * *step);
            }
            self.step(parts, number);
        }
        parts.adam.step(parts.params.values_mut(), parts.gradients.values());
        Some(norm)
    }

    /// Makes the gradients of dense parameters, and the squared norms of those of rows. `length` is that of the slopes. Returns the norm of the whole.
    fn differentiate(
        &mut self,
        parts: &mut Parts<'_>,
        batch: &Batch,
        number: usize,
        example: usize,
        length: f32,
    ) -> f64 {
        let gradients = &mut *parts.gradients;
        gradients.values_mut().fill(0.0);
        parts.funnel.differentiate_one(&self.slopes, gradients);
        let mut square = 0.0;
        if let Some(linear) = parts.crossing.linear() {
            linear.differentiate_numbers(batch, example, &self.slopes, gradients);
            square += f64::from(self.shares * length);
        }
        if let (Some(fm), Some(store)) = (parts.crossing.fm(), parts.fm) {
            fm.differentiate_pairs(&self.pairs, &self.slopes, gradients);
            fm.slope(parts.params, &self.slopes, &mut self.slope);
            let list = &self.lists[usize::from(self.apart)];
            let Side { loan, shares, squares, .. } = &mut self.fm;
            let terms = terms(list, shares, number);
            squares.resize(terms.rows.len(), 0.0);
            let (sum, slope, width) = (&self.sum, &self.slope, store.width());
            pair_squares(&loan.rows, width, terms, sum, slope, squares);
            square += f64::from(squares.iter().sum::<f32>());
        }
        (square + f64::from(square_norm(gradients.values()))).sqrt()
    }

    /// Moves the rows.
    fn step(&mut self, parts: &Parts<'_>, number: usize) {
        if parts.linear.is_some() {
            self.linear.move_added(&self.lists[0], number, &self.steps);
        }
        if let (Some(fm), Some(store)) = (parts.crossing.fm(), parts.fm) {
            fm.slope(parts.params, &self.steps, &mut self.slope);
            let list = &self.lists[usize::from(self.apart)];
            let Side { loan, shares, rates, .. } = &mut self.fm;
            let (terms, width) = (terms(list, shares, number), store.width());
            move_pairs(&mut loan.rows, width, terms, rates, &self.sum, &self.slope);
        }
    }
}

#[cfg(test)]
mod tests;
