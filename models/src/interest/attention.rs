//! Multi-head target attention over found behaviours, each with its age (the exact search unit of SIM, Pi et al., CIKM 2020).
//!
//! `z_j = [e_j; age_j]`, `score_hj = <z_j K_h, t Q_h>` without a scale, `a_h = softmax_j`, `out = [Σ_j a_1j z_j, ..]`, head-major.
//!
//! The keys are never projected: `<z K_h, q> = <z, q K_hᵀ>`, so the query of each head is carried back to the width of a
//! behaviour once for each example, and a behaviour costs one dot product a head instead of a row of `K`.
//!
//! Shapes: `t` `[n, I]`, `z` `[m, I + G]`, `K` `[I + G, H w]`, `Q` `[I, H w]`, `out` `[n, H (I + G)]`.

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::History;
use super::din::{softmax, softmax_slope};
use crate::kernels::{Activation, Real, softmax_rows};
use crate::layers::{Grid, numbers, numbers_mut};
use crate::params::{Block, Layout, Params, Start, view, view_mut};
use crate::work::product;

/// The attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    key: Block,
    query: Block,
    heads: usize,
    width: usize,
}

/// What the backward pass reads, and scratch.
#[derive(Clone, Debug, Default)]
pub struct AttentionTape<R> {
    /// `[n, H w]`
    query: Grid<R>,
    /// `[n, H (I + G)]`: queries carried to the width of a behaviour.
    carried: Grid<R>,
    /// `[H, m]`: attention.
    attention: Grid<R>,
    dquery: Grid<R>,
    dcarried: Grid<R>,
    dattention: Grid<R>,
}

/// Memory of [`Attention::score`], which serves again.
#[derive(Clone, Debug, Default)]
pub(super) struct AttentionScratch {
    /// `[I, H (I + G)]`: for each head `Q_h K_hᵀ`.
    joint: Grid<f32>,
    /// `[n, H (I + G)]`
    carried: Grid<f32>,
    /// `[candidates of a group * H, behaviours]`
    scores: Grid<f32>,
    /// `[n, H (I + G)]`
    heads: Grid<f32>,
}

impl Attention {
    /// Adds the blocks `NAME.key` and `NAME.query`, normal with variance one over their inputs.
    pub fn new(
        layout: &mut Layout,
        name: &str,
        item: usize,
        gap: usize,
        heads: usize,
        width: usize,
    ) -> Self {
        let start = |inputs: usize| Start::Normal((1.0 / inputs.max(1) as f64).sqrt());
        let behaviour = item + gap;
        Self {
            key: layout.add(format!("{name}.key"), behaviour, heads * width, start(behaviour)),
            query: layout.add(format!("{name}.query"), item, heads * width, start(item)),
            heads,
            width,
        }
    }

    /// `H (I + G)`
    pub fn outputs(&self) -> usize {
        self.heads * self.key.rows()
    }

    /// Operations of queries, keys, scores and sums.
    pub(crate) fn operations(&self, examples: usize, behaviours: usize) -> u64 {
        let (z, all) = (self.key.rows(), self.heads * self.width);
        let queries = product(examples, self.query.rows(), all);
        queries + product(behaviours, z, all) + product(behaviours, 1, all + self.heads * z)
    }

    /// Writes `out`.
    pub fn forward<R: Real>(
        &self,
        params: &Params<R>,
        target: ArrayView2<R>,
        history: &History<'_, R>,
        tape: &mut AttentionTape<R>,
        mut out: ArrayViewMut2<R>,
    ) {
        let (n, m, z) = (target.nrows(), history.behaviours.nrows(), self.key.rows());
        tape.query.reshape(n, self.heads * self.width);
        let query = tape.query.view_mut();
        R::matmul(target, params.matrix(self.query), None, Activation::None, query);
        tape.carried.reshape(n, self.outputs());
        for h in 0..self.heads {
            let (columns, wide) = (self.columns(h), h * z..(h + 1) * z);
            let key = params.matrix(self.key).slice_move(s![.., columns.clone()]);
            R::matmul_nt(tape.query.part(columns), key, false, tape.carried.part_mut(wide));
        }

        tape.attention.reshape(self.heads, m);
        for (i, range) in history.ranges().enumerate() {
            let out = numbers_mut(out.row_mut(i));
            out.fill(R::zero());
            for h in 0..self.heads {
                let carried = &tape.carried.row(i)[h * z..(h + 1) * z];
                let attention = &mut tape.attention.row_mut(h)[range.clone()];
                for (a, j) in attention.iter_mut().zip(range.clone()) {
                    *a = R::dot(carried, numbers(history.behaviours.row(j)));
                }
                softmax(attention);
                let head = &mut out[h * z..(h + 1) * z];
                for (&a, j) in attention.iter().zip(range.clone()) {
                    R::axpy(a, numbers(history.behaviours.row(j)), head);
                }
            }
        }
    }

    /// Operations of [`Attention::score`] for so many targets, which have so many behaviours altogether.
    pub(super) fn shared_operations(&self, targets: usize, pairs: usize) -> u64 {
        let (item, wide) = (self.query.rows(), self.outputs());
        let joint = product(item, self.width, wide) + product(targets, item, wide);
        joint + 2 * product(pairs, 1, wide)
    }

    /// Writes `out` for candidates that share the list of their group: those of group `g` are `groups[g]..groups[g + 1]`.
    pub(super) fn score(
        &self,
        params: &Params<f32>,
        target: ArrayView2<'_, f32>,
        lists: &History<'_, f32>,
        groups: &[usize],
        scratch: &mut AttentionScratch,
        mut out: ArrayViewMut2<'_, f32>,
    ) {
        let (n, z, wide) = (target.nrows(), self.key.rows(), self.outputs());
        let AttentionScratch { joint, carried, scores, heads } = scratch;
        joint.reshape(target.ncols(), wide);
        for h in 0..self.heads {
            let head = |block: Block| params.matrix(block).slice_move(s![.., self.columns(h)]);
            let to = joint.part_mut(h * z..(h + 1) * z);
            f32::matmul_nt(head(self.query), head(self.key), false, to);
        }
        carried.reshape(n, wide);
        f32::matmul(target, joint.view(), None, Activation::None, carried.view_mut());
        heads.reshape(n, wide);
        for (list, rows) in lists.ranges().zip(groups.windows(2)) {
            // A row of each head: [candidates H, I + G].
            let (numbers, rows) =
                (rows[0] * wide..rows[1] * wide, (rows[1] - rows[0]) * self.heads);
            let to = &mut heads.values_mut()[numbers.clone()];
            if list.is_empty() {
                to.fill(0.0);
                continue;
            }
            let list = lists.behaviours.slice(s![list, ..]);
            scores.reshape(rows, list.nrows());
            let carried = view(&carried.values()[numbers], rows, z);
            f32::matmul_nt(carried, list, false, scores.view_mut());
            softmax_rows(scores.view_mut());
            let to = view_mut(to, rows, z);
            f32::matmul(scores.view(), list, None, Activation::None, to);
        }
        out.assign(&heads.view());
    }

    /// Given `dout`, overwrites its `grads` and `dbehaviours` and adds to `dtarget`.
    pub fn backward<R: Real>(
        &self,
        params: &Params<R>,
        target: ArrayView2<R>,
        history: &History<'_, R>,
        tape: &mut AttentionTape<R>,
        dout: ArrayView2<R>,
        grads: &mut Params<R>,
        dtarget: ArrayViewMut2<R>,
        dbehaviours: &mut Grid<R>,
    ) {
        let (n, m, z) = (target.nrows(), history.behaviours.nrows(), self.key.rows());
        tape.dcarried.zero(n, self.outputs());
        tape.dattention.reshape(self.heads, m);
        dbehaviours.zero(m, z);
        for (i, range) in history.ranges().enumerate() {
            for h in 0..self.heads {
                let dout = &numbers(dout.row(i))[h * z..(h + 1) * z];
                let attention = &tape.attention.row(h)[range.clone()];
                let dattention = &mut tape.dattention.row_mut(h)[range.clone()];
                for (da, j) in dattention.iter_mut().zip(range.clone()) {
                    *da = R::dot(dout, numbers(history.behaviours.row(j)));
                }
                softmax_slope(attention, dattention);
                let carried = &tape.carried.row(i)[h * z..(h + 1) * z];
                let dcarried = &mut tape.dcarried.row_mut(i)[h * z..(h + 1) * z];
                for ((&a, &ds), j) in attention.iter().zip(&*dattention).zip(range.clone()) {
                    R::axpy(a, dout, dbehaviours.row_mut(j));
                    R::axpy(ds, carried, dbehaviours.row_mut(j));
                    R::axpy(ds, numbers(history.behaviours.row(j)), dcarried);
                }
            }
        }

        tape.dquery.reshape(n, self.heads * self.width);
        for h in 0..self.heads {
            let (columns, wide) = (self.columns(h), h * z..(h + 1) * z);
            let key = params.matrix(self.key).slice_move(s![.., columns.clone()]);
            let dcarried = tape.dcarried.part(wide);
            let dquery = tape.dquery.part_mut(columns.clone());
            R::matmul(dcarried, key, None, Activation::None, dquery);
            let dkey = grads.matrix_mut(self.key).slice_move(s![.., columns.clone()]);
            R::matmul_tn(dcarried, tape.query.part(columns), false, dkey);
        }
        R::matmul_tn(target, tape.dquery.view(), false, grads.matrix_mut(self.query));
        R::matmul_nt(tape.dquery.view(), params.matrix(self.query), true, dtarget);
    }

    /// The columns of one head in `K` and `Q`.
    fn columns(&self, head: usize) -> std::ops::Range<usize> {
        head * self.width..(head + 1) * self.width
    }
}

#[cfg(test)]
mod tests;
