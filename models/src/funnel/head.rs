//! The heads: `logit_t = <known_t, w_t> + b_t`. `w` starts small and `b_t` at the log-odds of the task's prior, or thousands of steps would go into finding
//! the base rate.

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::kernels::Real;
use crate::layers::{numbers, numbers_mut};
use crate::params::{Block, Layout, Params, Start};

/// No prior is nearer to 0 or 1.
const NEAREST: f64 = 1e-6;

#[derive(Clone, Debug)]
pub(super) struct Head {
    /// One `[1, width]` for each task; none without a deep part.
    weights: Vec<Block>,
    /// `[1, T]`
    bias: Block,
}

impl Head {
    pub(super) fn new(layout: &mut Layout, width: Option<usize>, priors: &[f64]) -> Self {
        let weight = |t: usize| {
            let start = Start::Normal(0.01);
            width.map(|width| layout.add(format!("funnel.{t}.head"), 1, width, start))
        };
        let weights = (0..priors.len()).filter_map(weight).collect();
        let odds = |&p: &f64| {
            let p = p.clamp(NEAREST, 1.0 - NEAREST);
            (p / (1.0 - p)).ln()
        };
        let start = Start::Values(priors.iter().map(odds).collect());
        Self { weights, bias: layout.add("funnel.bias", 1, priors.len(), start) }
    }

    /// `[1, T]`
    pub(super) fn bias(&self) -> Block {
        self.bias
    }

    /// Adds to the column of `task` in `logits`.
    pub(super) fn forward<R: Real>(
        &self,
        params: &Params<R>,
        task: usize,
        known: Option<ArrayView2<R>>,
        mut logits: ArrayViewMut2<R>,
    ) {
        let bias = params.slice(self.bias)[task];
        let mut column = logits.column_mut(task);
        column.iter_mut().for_each(|logit| *logit += bias);
        if let Some(known) = known {
            let weight = params.slice(self.weights[task]);
            for (logit, known) in column.iter_mut().zip(known.rows()) {
                *logit += R::dot(numbers(known), weight);
            }
        }
    }

    /// Overwrites its `grads` and adds to `dknown`.
    pub(super) fn backward<R: Real>(
        &self,
        params: &Params<R>,
        task: usize,
        known: ArrayView2<R>,
        dlogits: ArrayView2<R>,
        grads: &mut Params<R>,
        mut dknown: ArrayViewMut2<R>,
    ) {
        self.backward_bias(task, dlogits, grads);
        let weight = params.slice(self.weights[task]);
        let dweight = grads.zeroed(self.weights[task]);
        let rows = known.rows().into_iter().zip(dknown.rows_mut());
        for (&dlogit, (known, dknown)) in dlogits.column(task).iter().zip(rows) {
            R::axpy(dlogit, numbers(known), dweight);
            R::axpy(dlogit, weight, numbers_mut(dknown));
        }
    }

    pub(super) fn backward_bias<R: Real>(
        &self,
        task: usize,
        dlogits: ArrayView2<R>,
        grads: &mut Params<R>,
    ) {
        grads.slice_mut(self.bias)[task] = dlogits.column(task).iter().copied().sum();
    }
}
