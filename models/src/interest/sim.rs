//! `sim`: Search-based Interest Model with hard search (Pi et al., CIKM 2020), beside `din` on the newest behaviours.
//!
//! ```text
//! newest ── din ───────┐
//! any newest? ─────────┤
//! same category ─ attention over [item; category; age] ─┼── out
//! any found? ──────────┘
//! ```
//!
//! What differs from the paper, on purpose: only hard search, by category; the newest behaviours go through `din`, where the paper has DIEN; ages are
//! embedded as buckets of the time between behaviour and impression; whether anything was found is an input of its own, and nothing found gives 0. The
//! exact unit is that of [`Attention`]: scores without a scale, and sums of the behaviours themselves, as the paper has both.

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::{Attention, AttentionTape, Din, DinTape, History};
use crate::kernels::Real;
use crate::layers::Grid;
use crate::params::Params;

/// The encoder.
#[derive(Clone, Debug)]
pub struct Sim {
    /// Over the newest.
    pub unit: Din,
    /// Over the found.
    pub attention: Attention,
}

/// What the backward pass reads, and scratch.
#[derive(Clone, Debug, Default)]
pub struct SimTape<R> {
    pub(super) din: DinTape<R>,
    attention: AttentionTape<R>,
}

impl Sim {
    /// The number of outputs.
    pub fn outputs(&self) -> usize {
        self.unit.item() + 1 + self.attention.outputs() + 1
    }

    pub(super) fn forward<R: Real>(
        &self,
        params: &Params<R>,
        target: ArrayView2<R>,
        histories: &[History<'_, R>],
        tape: &mut SimTape<R>,
        out: ArrayViewMut2<R>,
    ) {
        let (newest, found) = out.split_at(ndarray::Axis(1), self.unit.item() + 1);
        forward_din(&self.unit, params, target, &histories[0], &mut tape.din, newest);
        let (heads, any) = found.split_at(ndarray::Axis(1), self.attention.outputs());
        self.attention.forward(params, target, &histories[1], &mut tape.attention, heads);
        histories[1].flag(any);
    }

    pub(super) fn backward<R: Real>(
        &self,
        params: &Params<R>,
        target: ArrayView2<R>,
        histories: &[History<'_, R>],
        tape: &mut SimTape<R>,
        dout: ArrayView2<R>,
        grads: &mut Params<R>,
        mut dtarget: ArrayViewMut2<R>,
        dbehaviours: &mut [Grid<R>],
    ) {
        let item = self.unit.item();
        let dnewest = dout.slice(s![.., ..item]);
        let dfound = dout.slice(s![.., item + 1..item + 1 + self.attention.outputs()]);
        let (din, attention) = (&mut tape.din, &mut tape.attention);
        let (newest, found) = (&histories[0], &histories[1]);
        let dt = dtarget.view_mut();
        self.unit.backward(params, target, newest, din, dnewest, grads, dt, &mut dbehaviours[0]);
        let de = &mut dbehaviours[1];
        self.attention.backward(params, target, found, attention, dfound, grads, dtarget, de);
    }
}

/// Writes `[din; any?]`.
pub(super) fn forward_din<R: Real>(
    unit: &Din,
    params: &Params<R>,
    target: ArrayView2<R>,
    history: &History<'_, R>,
    tape: &mut DinTape<R>,
    out: ArrayViewMut2<R>,
) {
    let (pooled, any) = out.split_at(ndarray::Axis(1), unit.item());
    unit.forward(params, target, history, tape, pooled);
    history.flag(any);
}
