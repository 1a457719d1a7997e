//! Slot 1: what a user's history says about the candidate. One file for each encoder.
//!
//! Shapes: `target` `[n, I]` is the candidate as `[item; category]`; behaviours of all examples stand end to end as `[m, I]`, or `[m, I + G]`
//! with the embedding of their age; `starts[i]..starts[i + 1]` are those of example `i`. An empty history gives zeros.

mod attention;
mod base;
mod candidates;
mod din;
mod sim;

pub use attention::{Attention, AttentionTape};
pub(crate) use candidates::InterestScratch;
pub use din::{Din, DinTape, Normalise};
pub(crate) use din::{softmax, softmax_slope};
use ndarray::{ArrayView2, ArrayViewMut2};
pub use sim::{Sim, SimTape};

use crate::kernels::Real;
use crate::layers::Grid;
use crate::params::{Layout, Params};
use crate::spec::InterestSpec;
use crate::work::product;

/// The behaviours of some examples.
#[derive(Clone, Copy, Debug)]
pub struct History<'a, R> {
    /// `[n + 1]`, ascending; the first need not be 0.
    pub starts: &'a [u32],
    /// `[m, width]`, row 0 is behaviour `starts[0]`.
    pub behaviours: ArrayView2<'a, R>,
}

impl<R> History<'_, R> {
    /// Example by example, the rows of its behaviours.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let first = self.starts[0] as usize;
        self.starts.windows(2).map(move |pair| pair[0] as usize - first..pair[1] as usize - first)
    }

    /// Writes 1 where an example has behaviours, else 0.
    pub(crate) fn flag(&self, mut out: ArrayViewMut2<R>)
    where
        R: Real,
    {
        for (range, mut out) in self.ranges().zip(out.rows_mut()) {
            out[0] = if range.is_empty() { R::zero() } else { R::one() };
        }
    }
}

/// An interest encoder.
#[derive(Clone, Debug)]
pub enum Interest {
    /// Mean of the newest behaviours.
    Base {
        /// `I`
        item: usize,
    },
    /// Activation unit over the newest behaviours, and whether there are any.
    Din(Din),
    /// [`Interest::Din`], and multi-head attention over the behaviours of the candidate's category.
    Sim(Sim),
}

/// What a backward pass reads, and its own scratch.
#[derive(Clone, Debug, Default)]
pub struct InterestTape<R> {
    sim: SimTape<R>,
}

impl Interest {
    /// Adds the encoder's blocks. `item` is the width of `[item; category]`, `gap` that of an age.
    pub fn build(layout: &mut Layout, spec: &InterestSpec, item: usize, gap: usize) -> Self {
        let name = "interest.din";
        match spec {
            InterestSpec::Base { .. } => Self::Base { item },
            InterestSpec::Din { hidden, normalise, .. } => {
                Self::Din(Din::new(layout, name, item, *hidden, *normalise))
            }
            InterestSpec::Sim { hidden, normalise, heads, width, .. } => Self::Sim(Sim {
                unit: Din::new(layout, name, item, *hidden, *normalise),
                attention: Attention::new(layout, "interest.sim", item, gap, *heads, *width),
            }),
        }
    }

    /// The number of outputs.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Base { item } => *item,
            Self::Din(unit) => unit.item() + 1,
            Self::Sim(sim) => sim.outputs(),
        }
    }

    /// Operations for so many examples, whose looks find so many behaviours altogether, see [`crate::work`].
    pub(crate) fn operations(&self, examples: usize, behaviours: &[usize]) -> u64 {
        match self {
            Self::Base { item } => product(behaviours[0], 1, *item),
            Self::Din(unit) => unit.operations(behaviours[0]),
            Self::Sim(sim) => {
                let attention = sim.attention.operations(examples, behaviours[1]);
                sim.unit.operations(behaviours[0]) + attention
            }
        }
    }

    /// Writes `out` `[n, outputs]`.
    pub fn forward<R: Real>(
        &self,
        params: &Params<R>,
        target: ArrayView2<R>,
        histories: &[History<'_, R>],
        tape: &mut InterestTape<R>,
        out: ArrayViewMut2<R>,
    ) {
        match self {
            Self::Base { .. } => base::forward(&histories[0], out),
            Self::Din(unit) => {
                sim::forward_din(unit, params, target, &histories[0], &mut tape.sim.din, out);
            }
            Self::Sim(sim) => sim.forward(params, target, histories, &mut tape.sim, out),
        }
    }

    /// Given `dout`, overwrites its `grads` and the gradients of the behaviours of each look, and adds to `dtarget`.
    pub fn backward<R: Real>(
        &self,
        params: &Params<R>,
        target: ArrayView2<R>,
        histories: &[History<'_, R>],
        tape: &mut InterestTape<R>,
        dout: ArrayView2<R>,
        grads: &mut Params<R>,
        dtarget: ArrayViewMut2<R>,
        dbehaviours: &mut [Grid<R>],
    ) {
        match self {
            Self::Base { .. } => base::backward(&histories[0], dout, &mut dbehaviours[0]),
            Self::Din(unit) => {
                let tape = &mut tape.sim.din;
                let dout = dout.slice_move(ndarray::s![.., ..unit.item()]);
                let history = &histories[0];
                unit.backward(
                    params,
                    target,
                    history,
                    tape,
                    dout,
                    grads,
                    dtarget,
                    &mut dbehaviours[0],
                );
            }
            Self::Sim(sim) => {
                let tape = &mut tape.sim;
                sim.backward(params, target, histories, tape, dout, grads, dtarget, dbehaviours);
            }
        }
    }
}
