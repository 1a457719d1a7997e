//! `din`: Deep Interest Network's local activation unit (Zhou et al., KDD 2018).
//!
//! `w_j = MLP([t; e_j; t - e_j; t * e_j])`, two hidden layers of sigmoids, `pooled = Σ_j w_j e_j`; with `normalise = "softmax"` the `w_j` of one example
//! are first put through a softmax. Without it (the paper's choice) their sum keeps the intensity of an interest.
//!
//! What differs from the paper, on purpose: hidden units are sigmoids as in the authors' code, where the paper has PReLU or Dice; the unit reads the
//! difference of target and behaviour as that code does; an empty history gives 0, and whether there is one is an input of its own; no mini-batch-aware
//! L2 penalty; what stands behind is this model's sharing and towers, which read `pooled` without `pooled * t`.
//!
//! The first layer is never multiplied out: with `W₁ = [W_t; W_e; W_d; W_p]` its input is
//! `t (W_t + W_d) + [e_j; t * e_j] [W_e - W_d; W_p]`, so the target's part is one row for each example and the
//! pair's part has half the products. The gradients follow: with `dA` that of the layer's input,
//! `dW_t = Σ_i t_iᵀ Σ_j dA_j`, `dW_e = Σ_j e_jᵀ dA_j`, `dW_d = dW_t - dW_e`.
//!
//! Shapes: `t` `[n, I]`, `e` `[m, I]`, `W₁` `[4 I, h₁]`, `W₂` `[h₁, h₂]`, `W₃` `[h₂, 1]`.

use ndarray::{ArrayView2, ArrayViewMut2, Axis};
use serde::{Deserialize, Serialize};

use super::History;
use crate::kernels::{Activation, ActivationUnit, Real, activation_unit};
use crate::layers::{Dense, Grid, Sink, numbers, numbers_mut};
use crate::params::{Layout, Params};
use crate::work::product;

/// What is done to the weights of one history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalise {
    /// Nothing.
    #[default]
    None,
    /// They become positive with sum 1.
    Softmax,
}

/// The activation unit.
#[derive(Clone, Copy, Debug)]
pub struct Din {
    first: Dense,
    second: Dense,
    last: Dense,
    item: usize,
    normalise: Normalise,
}

/// What the backward pass reads, and scratch.
#[derive(Clone, Debug, Default)]
pub struct DinTape<R> {
    /// `[2 I, h₁]`: `[W_e - W_d; W_p]`
    pair_weight: Grid<R>,
    /// `[I, h₁]`: `W_t + W_d`
    target_weight: Grid<R>,
    /// `[m, 2 I]`: `[e; t * e]`
    pair: Grid<R>,
    /// `[n, h₁]`
    base: Grid<R>,
    hidden1: Grid<R>,
    hidden2: Grid<R>,
    /// `[m, 1]`: `w_j`
    weight: Grid<R>,
    dpair: Grid<R>,
    dbase: Grid<R>,
    dhidden1: Grid<R>,
    dhidden2: Grid<R>,
    dweight: Grid<R>,
    dpair_weight: Grid<R>,
    dtarget_weight: Grid<R>,
}

impl Din {
    /// Adds the blocks `NAME.1`, `NAME.2` and `NAME.3`.
    pub fn new(
        layout: &mut Layout,
        name: &str,
        item: usize,
        [h1, h2]: [usize; 2],
        normalise: Normalise,
    ) -> Self {
        let sigmoid = Activation::Sigmoid;
        Self {
            first: Dense::new(layout, &format!("{name}.1"), 4 * item, h1, sigmoid),
            second: Dense::new(layout, &format!("{name}.2"), h1, h2, sigmoid),
            last: Dense::new(layout, &format!("{name}.3"), h2, 1, Activation::None),
            item,
            normalise,
        }
    }

    /// `I`, the width of a behaviour and of the output.
    pub fn item(&self) -> usize {
        self.item
    }

    /// Operations of the unit and its pooling for so many behaviours.
    pub(crate) fn operations(&self, behaviours: usize) -> u64 {
        let layers = [self.first, self.second, self.last].map(|layer| layer.operations(behaviours));
        layers.iter().sum::<u64>() + product(behaviours, 1, self.item)
    }

    /// Writes `pooled` `[n, I]`.
    pub fn forward<R: Real>(
        &self,
        params: &Params<R>,
        target: ArrayView2<R>,
        history: &History<'_, R>,
        tape: &mut DinTape<R>,
        mut pooled: ArrayViewMut2<R>,
    ) {
        let (n, m, width) = (target.nrows(), history.behaviours.nrows(), self.item);
        let (h1, h2) = (self.first.outputs(), self.second.outputs());
        self.split(params, tape);
        tape.base.reshape(n, h1);
        let bias = Some(params.slice(self.first.bias));
        let base = tape.base.view_mut();
        R::matmul(target, tape.target_weight.view(), bias, Activation::None, base);

        tape.pair.reshape(m, 2 * width);
        tape.hidden1.reshape(m, h1);
        for (i, range) in history.ranges().enumerate() {
            let t = numbers(target.row(i));
            for j in range {
                let (same, product) = tape.pair.row_mut(j).split_at_mut(width);
                let e = numbers(history.behaviours.row(j));
                same.copy_from_slice(e);
                for ((product, &e), &t) in product.iter_mut().zip(e).zip(t) {
                    *product = t * e;
                }
                tape.hidden1.row_mut(j).copy_from_slice(tape.base.row(i));
            }
        }
        R::matmul_add(tape.pair.view(), tape.pair_weight.view(), tape.hidden1.view_mut());
        R::sigmoid_in_place(tape.hidden1.values_mut());
        tape.hidden2.reshape(m, h2);
        self.second.forward(params, tape.hidden1.view(), tape.hidden2.view_mut());
        tape.weight.reshape(m, 1);
        self.last.forward(params, tape.hidden2.view(), tape.weight.view_mut());
        if self.normalise == Normalise::Softmax {
            for range in history.ranges() {
                softmax(&mut tape.weight.values_mut()[range]);
            }
        }

        for (range, pooled) in history.ranges().zip(pooled.rows_mut()) {
            let pooled = numbers_mut(pooled);
            pooled.fill(R::zero());
            for j in range {
                R::axpy(tape.weight.row(j)[0], numbers(history.behaviours.row(j)), pooled);
            }
        }
    }

    /// Operations of [`Din::score`] for so many targets and behaviours.
    pub(super) fn shared_operations(&self, targets: usize, behaviours: usize) -> u64 {
        let (pairs, h1) = (targets * behaviours, self.first.outputs());
        let each = product(targets + behaviours, self.item, h1) + product(pairs, self.item, h1);
        let layers = [self.second, self.last].map(|layer| layer.operations(pairs));
        each + layers.iter().sum::<u64>() + product(pairs, 1, self.item)
    }

    /// Writes `pooled` `[n, I]` for targets that share one history `[m, I]`.
    pub(super) fn score(
        &self,
        params: &Params<f32>,
        target: ArrayView2<'_, f32>,
        behaviours: ArrayView2<'_, f32>,
        tape: &mut DinTape<f32>,
        pooled: ArrayViewMut2<'_, f32>,
    ) {
        self.split(params, tape);
        let (of_behaviour, of_pair) = tape.pair_weight.view().split_at(Axis(0), self.item);
        let unit = ActivationUnit {
            targets: target,
            behaviours,
            of_target: tape.target_weight.view(),
            of_behaviour,
            of_pair,
            first_bias: params.slice(self.first.bias),
            second: params.matrix(self.second.weight),
            second_bias: params.slice(self.second.bias),
            last: params.slice(self.last.weight),
            last_bias: params.slice(self.last.bias)[0],
            softmax: self.normalise == Normalise::Softmax,
        };
        activation_unit(&unit, pooled);
    }

    /// Given `dpooled`, overwrites the unit's `grads` and `dbehaviours` and adds to `dtarget`.
    pub fn backward<R: Real>(
        &self,
        params: &Params<R>,
        target: ArrayView2<R>,
        history: &History<'_, R>,
        tape: &mut DinTape<R>,
        dpooled: ArrayView2<R>,
        grads: &mut Params<R>,
        mut dtarget: ArrayViewMut2<R>,
        dbehaviours: &mut Grid<R>,
    ) {
        let (n, m, width) = (target.nrows(), history.behaviours.nrows(), self.item);
        tape.dweight.reshape(m, 1);
        for (i, range) in history.ranges().enumerate() {
            let (dpooled, start) = (numbers(dpooled.row(i)), range.start);
            for j in range.clone() {
                let e = numbers(history.behaviours.row(j));
                tape.dweight.row_mut(j)[0] = R::dot(dpooled, e);
            }
            if self.normalise == Normalise::Softmax {
                let end = start + range.len();
                let weight = &tape.weight.values()[start..end];
                softmax_slope(weight, &mut tape.dweight.values_mut()[start..end]);
            }
        }
        tape.dhidden2.reshape(m, self.second.outputs());
        let into = Sink::Overwrite(tape.dhidden2.view_mut());
        let (x, y) = (tape.hidden2.view(), tape.weight.view());
        self.last.backward(params, x, y, tape.dweight.view_mut(), grads, into);
        tape.dhidden1.reshape(m, self.first.outputs());
        let into = Sink::Overwrite(tape.dhidden1.view_mut());
        let (x, y) = (tape.hidden1.view(), tape.hidden2.view());
        self.second.backward(params, x, y, tape.dhidden2.view_mut(), grads, into);
        for (d, &h) in tape.dhidden1.values_mut().iter_mut().zip(tape.hidden1.values()) {
            *d *= h * (R::one() - h);
        }

        tape.dpair.reshape(m, 2 * width);
        let dpair = tape.dpair.view_mut();
        R::matmul_nt(tape.dhidden1.view(), tape.pair_weight.view(), false, dpair);
        tape.dbase.zero(n, self.first.outputs());
        dbehaviours.reshape(m, width);
        for (i, range) in history.ranges().enumerate() {
            let (t, dpooled) = (numbers(target.row(i)), numbers(dpooled.row(i)));
            let dt = numbers_mut(dtarget.row_mut(i));
            for j in range {
                R::axpy(R::one(), tape.dhidden1.row(j), tape.dbase.row_mut(i));
                let (dsame, dproduct) = tape.dpair.row(j).split_at(width);
                let weight = tape.weight.row(j)[0];
                let e = numbers(history.behaviours.row(j));
                let de = dbehaviours.row_mut(j).iter_mut().zip(dpooled.iter().zip(dsame));
                for ((de, (&dpooled, &dsame)), (&dproduct, &t)) in de.zip(dproduct.iter().zip(t)) {
                    *de = weight * dpooled + dsame + dproduct * t;
                }
                for ((dt, &dproduct), &e) in dt.iter_mut().zip(dproduct).zip(e) {
                    *dt += dproduct * e;
                }
            }
        }
        R::matmul_nt(tape.dbase.view(), tape.target_weight.view(), true, dtarget);
        self.first_gradient(target, tape, grads);
    }

    /// `[W_e - W_d; W_p]` and `W_t + W_d`.
    fn split<R: Real>(&self, params: &Params<R>, tape: &mut DinTape<R>) {
        let (size, h1) = (self.item * self.first.outputs(), self.first.outputs());
        let parts: Vec4<'_, R> = quarters(params.slice(self.first.weight), size);
        tape.target_weight.reshape(self.item, h1);
        tape.pair_weight.reshape(2 * self.item, h1);
        let (same, product) = tape.pair_weight.values_mut().split_at_mut(size);
        for (k, sum) in tape.target_weight.values_mut().iter_mut().enumerate() {
            *sum = parts[0][k] + parts[2][k];
            same[k] = parts[1][k] - parts[2][k];
        }
        product.copy_from_slice(parts[3]);
    }

    /// Writes the gradients of the first layer.
    fn first_gradient<R: Real>(
        &self,
        target: ArrayView2<R>,
        tape: &mut DinTape<R>,
        grads: &mut Params<R>,
    ) {
        let (width, h1) = (self.item, self.first.outputs());
        let size = width * h1;
        tape.dtarget_weight.reshape(width, h1);
        R::matmul_tn(target, tape.dbase.view(), false, tape.dtarget_weight.view_mut());
        tape.dpair_weight.reshape(2 * width, h1);
        let dpair = tape.dpair_weight.view_mut();
        R::matmul_tn(tape.pair.view(), tape.dhidden1.view(), false, dpair);
        R::column_sums_add(tape.dbase.view(), grads.zeroed(self.first.bias));
        let gradient = grads.slice_mut(self.first.weight);
        let (dtarget, dpair) = (tape.dtarget_weight.values(), tape.dpair_weight.values());
        let (dt, rest) = gradient.split_at_mut(size);
        let (de, rest) = rest.split_at_mut(size);
        let (difference, product) = rest.split_at_mut(size);
        dt.copy_from_slice(dtarget);
        de.copy_from_slice(&dpair[..size]);
        for ((d, &t), &e) in difference.iter_mut().zip(dtarget).zip(dpair) {
            *d = t - e;
        }
        product.copy_from_slice(&dpair[size..]);
    }
}

type Vec4<'a, R> = [&'a [R]; 4];

fn quarters<R>(values: &[R], size: usize) -> Vec4<'_, R> {
    std::array::from_fn(|k| &values[k * size..(k + 1) * size])
}

/// Replaces scores by their softmax; nothing stays nothing.
pub(crate) fn softmax<R: Real>(scores: &mut [R]) {
    let Some(&first) = scores.first() else { return };
    let top = scores.iter().fold(first, |top, &score| top.max(score));
    scores.iter_mut().for_each(|score| *score -= top);
    R::exp_in_place(scores);
    let total: R = scores.iter().copied().sum();
    let share = R::one() / total;
    scores.iter_mut().for_each(|score| *score *= share);
}

/// `ds = p (dp - <p, dp>)`, in the place of `dp`.
pub(crate) fn softmax_slope<R: Real>(p: &[R], dp: &mut [R]) {
    let along: R = p.iter().zip(&*dp).map(|(&p, &dp)| p * dp).sum();
    dp.iter_mut().zip(p).for_each(|(dp, &p)| *dp = p * (*dp - along));
}

#[cfg(test)]
mod tests;
