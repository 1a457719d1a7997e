//! Encoders over the candidates of one request, which share their histories.
//!
//! All candidates have the same newest behaviours, and those of one category the same found ones. What does not depend on the
//! pair is computed once: for `din` see [`crate::kernels::activation_unit`]; in the attention `K_hᵀ` and `Q_h` are multiplied once for all, and the
//! scores of a group of candidates are one product with its list.
//!
//! Shapes: as in [`super`], save that a look has a list for each group (or one for all), not for each example. Candidates of
//! one group stand together: `groups[g]..groups[g + 1]` are those of group `g`.

use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};

use super::attention::AttentionScratch;
use super::din::DinTape;
use super::{Din, History, Interest, base};
use crate::params::Params;
use crate::work::product;

/// Memory of a pass, which serves again.
#[derive(Clone, Debug, Default)]
pub(crate) struct InterestScratch {
    din: DinTape<f32>,
    attention: AttentionScratch,
}

impl Interest {
    /// Operations of [`Interest::score`] for so many candidates with `newest` behaviours; their lists hold so many found ones altogether.
    pub(crate) fn shared_operations(&self, size: usize, newest: usize, found: usize) -> u64 {
        match self {
            Self::Base { item } => product(newest, 1, *item),
            Self::Din(unit) => unit.shared_operations(size, newest),
            Self::Sim(sim) => {
                let attention = sim.attention.shared_operations(size, found);
                sim.unit.shared_operations(size, newest) + attention
            }
        }
    }

    /// Writes `out` `[n, outputs]` for candidates with the targets `[n, I]`, of which there is at least one.
    pub(crate) fn score(
        &self,
        params: &Params<f32>,
        target: ArrayView2<'_, f32>,
        lists: &[History<'_, f32>],
        groups: &[usize],
        scratch: &mut InterestScratch,
        mut out: ArrayViewMut2<'_, f32>,
    ) {
        match self {
            Self::Base { .. } => {
                let (mut first, mut others) = out.split_at(Axis(0), 1);
                base::forward(&lists[0], first.view_mut());
                others.assign(&first);
            }
            Self::Din(unit) => score_newest(unit, params, target, &lists[0], scratch, out),
            Self::Sim(sim) => {
                let (newest, mut found) = out.view_mut().split_at(Axis(1), sim.unit.item() + 1);
                score_newest(&sim.unit, params, target, &lists[0], scratch, newest);
                let heads = sim.attention.outputs();
                let (attention, scratch) = (&sim.attention, &mut scratch.attention);
                let to = found.slice_mut(s![.., ..heads]);
                attention.score(params, target, &lists[1], groups, scratch, to);
                for (list, candidates) in lists[1].ranges().zip(groups.windows(2)) {
                    let flag = if list.is_empty() { 0.0 } else { 1.0 };
                    found.slice_mut(s![candidates[0]..candidates[1], heads]).fill(flag);
                }
            }
        }
    }
}

/// Writes `[din; any?]`.
fn score_newest(
    unit: &Din,
    params: &Params<f32>,
    target: ArrayView2<'_, f32>,
    list: &History<'_, f32>,
    scratch: &mut InterestScratch,
    out: ArrayViewMut2<'_, f32>,
) {
    let (pooled, mut any) = out.split_at(Axis(1), unit.item());
    unit.score(params, target, list.behaviours, &mut scratch.din, pooled);
    any.fill(if list.behaviours.is_empty() { 0.0 } else { 1.0 });
}
