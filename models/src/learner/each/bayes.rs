//! The step of `learning.method = "bayes"`: an extended Kalman filter takes one more example. The equations stand in [`crate::crossing::Variances`],
//! what an example says of each head in [`Evidence`].
//!
//! The heads of one example are learned one after the other, all with the logits that were predicted. In the machine, which all heads share, the slope by
//! row `j` is `v_t x_j (Σ_f x_f e_f - e_j)`, taken where the example found the rows.

use sluice_features::example::Batch;

use super::side::{Side, terms};
use super::{Each, Parts};
use crate::crossing::{TermList, Variances};
use crate::funnel::{Evidence, Targets};
use crate::kernels::{Real, Terms};

impl Each {
    /// Learns the example that was just predicted. Returns the norm of its slopes, or nothing where something is not finite: then nothing was learned.
    pub(super) fn filter(
        &mut self,
        variances: &Variances,
        parts: &mut Parts<'_>,
        batch: &Batch,
        number: usize,
        example: usize,
    ) -> Option<f64> {
        self.loss.fill(0.0);
        let targets = Targets::slice(batch, example..example + 1, 1);
        parts.funnel.weigh_one(&targets, &self.logits, &mut self.loss, &mut self.evidence);
        self.inputs.clear();
        self.inputs.extend(
            parts.crossing.linear().into_iter().flat_map(|linear| linear.inputs(batch, example)),
        );
        self.inputs.push(1.0);
        let spreads = self.spread(variances, parts);
        if !spreads.is_finite() || self.loss.iter().any(|loss| !loss.is_finite()) {
            return None;
        }
        self.find_directions(parts, number);
        for task in 0..self.evidence.len() {
            if let Some(evidence) = self.evidence[task] {
                self.learn_head(variances, parts, number, task, evidence);
            }
        }
        parts.adam.count();
        let slopes = self.evidence.iter().flatten().map(|evidence| f64::from(evidence.slope));
        Some(slopes.map(|slope| slope * slope).sum::<f64>().sqrt())
    }

    /// Makes the products of the inputs with the covariances of the heads that learn. Returns the sum of the variances.
    fn spread(&mut self, variances: &Variances, parts: &Parts<'_>) -> f32 {
        let size = self.inputs.len();
        self.products.resize(self.evidence.len() * size, 0.0);
        let mut sum = 0.0;
        for (task, product) in self.products.chunks_exact_mut(size).enumerate() {
            if self.evidence[task].is_some() {
                sum += variances.spread(parts.params, task, &self.inputs, product);
            }
        }
        sum
    }

    /// Makes the machine's slopes by its rows for `v = 1`, and their squared norms.
    fn find_directions(&mut self, parts: &Parts<'_>, number: usize) {
        let Some(store) = parts.fm else { return };
        let Side { loan, shares, squares, .. } = &mut self.fm;
        let Terms { rows, shares } = terms(&self.lists[usize::from(self.apart)], shares, number);
        let width = store.width();
        self.directions.clear();
        squares.clear();
        for (&row, &share) in rows.iter().zip(shares) {
            let from = self.directions.len();
            let own = &loan.rows[row as usize * (width + 1)..][..width];
            self.directions.extend(self.sum.iter().zip(own).map(|(sum, e)| share * (sum - e)));
            let direction = &self.directions[from..];
            squares.push(f32::dot(direction, direction));
        }
    }

    /// Learns one head.
    fn learn_head(
        &mut self,
        variances: &Variances,
        parts: &mut Parts<'_>,
        number: usize,
        task: usize,
        evidence: Evidence,
    ) {
        let size = self.inputs.len();
        let product = &self.products[task * size..(task + 1) * size];
        let list = &self.lists[usize::from(self.apart)];
        let share = variances.share(task);

        let mut variance = f32::dot(product, &self.inputs);
        if let Some(store) = parts.linear {
            variance +=
                self.linear.variance(&self.lists[0], number, store.width(), task, variances);
        }
        if let Some(store) = parts.fm {
            let (rows, stride) = (&list.rows()[list.range(number)], store.width() + 1);
            for (&row, &square) in rows.iter().zip(&self.fm.squares) {
                let learned = self.fm.loan.rows[(row as usize + 1) * stride - 1];
                variance += share * share * square * variances.row_variance(learned);
            }
        }
        let step = -evidence.slope / (1.0 + evidence.damping * variance);

        if let Some(linear) = parts.crossing.linear() {
            linear.move_numbers(parts.params, task, step, product);
        }
        parts.funnel.move_bias(parts.params, task, step * product[size - 1]);
        let curvature = evidence.curvature;
        if curvature > 0.0 {
            variances.shrink(parts.params, task, product, curvature, variance);
        }
        if let Some(store) = parts.linear {
            let learned = Learned { step, variance, curvature };
            self.linear.learn(&self.lists[0], number, store.width(), task, variances, learned);
        }
        if let Some(store) = parts.fm {
            let (rows, width) = (&list.rows()[list.range(number)], store.width());
            let directions = self.directions.chunks_exact(width).zip(&self.fm.squares);
            // Ids without a row stay as they are.
            for (&row, (direction, &square)) in rows.iter().zip(directions) {
                if square == 0.0 {
                    continue;
                }
                let stride = width + 1;
                let row = &mut self.fm.loan.rows[row as usize * stride..][..stride];
                let (numbers, learned) = row.split_at_mut(width);
                let own = variances.row_variance(learned[0]);
                f32::axpy(share * step * own, direction, numbers);
                let mean = share * share * square / width as f32;
                let others = (variance - own * mean).max(0.0);
                learned[0] += mean * curvature / (1.0 + curvature * others);
            }
        }
    }
}

/// What a head makes of an example.
#[derive(Clone, Copy)]
struct Learned {
    /// By how much the logit's slope moves a weight of variance 1.
    step: f32,
    /// Of the logit.
    variance: f32,
    curvature: f32,
}

impl Side {
    /// The variance of what the linear weights of an example add to the logit of a task: rows of all weights and, behind them, what was learned of each.
    fn variance(
        &self,
        list: &TermList,
        number: usize,
        width: usize,
        task: usize,
        variances: &Variances,
    ) -> f32 {
        let Terms { rows, shares } = terms(list, &self.shares, number);
        let place = width / 2 + task;
        let learned = |row: u32| self.loan.rows[row as usize * (width + 1) + place];
        let own =
            |(&row, &share): (&u32, &f32)| share * share * variances.variance(task, learned(row));
        rows.iter().zip(shares).map(own).sum()
    }

    /// Moves the linear weights of an example for a task, and counts what was learned of them.
    fn learn(
        &mut self,
        list: &TermList,
        number: usize,
        width: usize,
        task: usize,
        variances: &Variances,
        Learned { step, variance, curvature }: Learned,
    ) {
        let Terms { rows, shares } = terms(list, &self.shares, number);
        for (&row, &share) in rows.iter().zip(shares).filter(|(_, share)| **share != 0.0) {
            let row = &mut self.loan.rows[row as usize * (width + 1)..][..width];
            let own = variances.variance(task, row[width / 2 + task]);
            let square = share * share;
            row[task] += step * share * own;
            let others = (variance - own * square).max(0.0);
            row[width / 2 + task] += square * curvature / (1.0 + curvature * others);
        }
    }
}

#[cfg(test)]
mod tests;
