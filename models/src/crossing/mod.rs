//! Slot 2: what is added to the logits beside the deep part. One file for each entry.
//!
//! With `sharing = "none"` the crossing is the whole model: logistic regression, or a factorisation machine. Then it learns one example
//! after the other ([`crate::learner`]).

mod fm;
mod linear;
mod terms;
mod variances;

use std::ops::Range;

pub use fm::Fm;
pub use linear::Linear;
use sluice_features::candidates::Candidates;
use sluice_features::example::Batch;
pub(crate) use terms::TermList;
pub use variances::Variances;
pub(crate) use variances::shares;

use crate::kernels::Real;
use crate::layers::Grid;
use crate::model::{CandidateRows, Plan, Rows, Split};
use crate::params::{Layout, Params};
use crate::spec::CrossingSpec;

/// The crossing of a model.
#[derive(Clone, Debug)]
pub struct Crossing {
    fm: Option<Fm>,
    linear: Option<Linear>,
    /// The key fields that the machine reads: `None` where it reads all.
    wide: Option<Vec<usize>>,
}

impl Crossing {
    /// `shares[t]` is what the machine is to task `t` at first.
    pub(crate) fn build(
        layout: &mut Layout,
        spec: &CrossingSpec,
        plan: &Plan,
        shares: &[f64],
    ) -> Option<Self> {
        let width = plan.keys.first().map_or(0, |column| column.width);
        let fm = spec.has_fm().then(|| Fm::new(layout, plan.keys.len(), width, shares));
        let store = plan.linear().filter(|_| spec.has_linear());
        let linear = store.map(|store| Linear::new(layout, plan, store, shares.len()));
        let wide = store.and_then(|store| plan.wide(plan.stores[store].columns));
        (fm.is_some() || linear.is_some()).then_some(Self { fm, linear, wide })
    }

    /// The key fields that the machine reads, by their number: `None` where it reads all.
    pub(crate) fn wide(&self) -> Option<&[usize]> {
        self.wide.as_deref()
    }

    /// Whether there is a factorisation machine.
    pub(crate) fn has_fm(&self) -> bool {
        self.fm.is_some()
    }

    /// Operations for so many examples, see [`crate::work`].
    pub(crate) fn operations(&self, examples: usize) -> u64 {
        let fm = self.fm.map_or(0, |fm| fm.operations(examples));
        fm + self.linear.map_or(0, |linear| linear.operations(examples))
    }

    /// The factorisation machine, if there is one.
    pub(crate) fn fm(&self) -> Option<&Fm> {
        self.fm.as_ref()
    }

    /// The linear model, if there is one.
    pub(crate) fn linear(&self) -> Option<&Linear> {
        self.linear.as_ref()
    }

    /// Writes `logits` `[n, T]` for a slice of the batch whose features are `x`.
    pub(crate) fn forward<R: Real>(
        &self,
        params: &Params<R>,
        batch: &Batch,
        slice: &Range<usize>,
        rows: &Rows<R>,
        x: &Grid<R>,
        logits: &mut Grid<R>,
    ) {
        logits.values_mut().fill(R::zero());
        if let Some(fm) = &self.fm {
            fm.forward(params, x.view(), logits.view_mut());
        }
        if let Some(linear) = &self.linear {
            linear.forward(params, batch, slice, rows, logits);
        }
    }

    /// Writes `logits` `[n, T]` of candidates, which stand in `order`; `common` and `own` are their features.
    pub(crate) fn score(
        &self,
        params: &Params<f32>,
        candidates: &Candidates,
        order: &[u32],
        split: &Split,
        rows: &CandidateRows,
        [common, own]: [&Grid<f32>; 2],
        logits: &mut Grid<f32>,
    ) {
        match &self.linear {
            Some(linear) => linear.score(params, candidates, order, split, rows, logits),
            None => logits.values_mut().fill(0.0),
        }
        if let Some(fm) = &self.fm {
            let fields = split.own.keys.len();
            fm.score(params, common.view(), own.view(), fields, logits.view_mut());
        }
    }

    /// Given `dlogits`, overwrites its `grads` and adds to `dx` and to the gradients of rows.
    pub(crate) fn backward<R: Real>(
        &self,
        params: &Params<R>,
        batch: &Batch,
        slice: &Range<usize>,
        rows: &Rows<R>,
        x: &Grid<R>,
        dlogits: &Grid<R>,
        grads: &mut Params<R>,
        dx: &mut Grid<R>,
        drows: &mut [Grid<R>],
    ) {
        if let Some(fm) = &self.fm {
            fm.backward(params, x.view(), dlogits.view(), grads, dx.view_mut());
        }
        if let Some(linear) = &self.linear {
            linear.backward(batch, slice, rows, dlogits, grads, drows);
        }
    }
}
