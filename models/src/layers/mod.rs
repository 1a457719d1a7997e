//! Layers over batches with backward passes written by hand.
//!
//! Each layer keeps the blocks of its parameters ([`crate::params`]). `forward` reads parameters and inputs and writes outputs; `backward` takes
//! the gradient of the outputs and writes those of the parameters and of the inputs. Buffers belong to the caller.

mod dense;
mod grid;
mod layer_norm;
mod split;
#[cfg(test)]
pub(crate) mod testing;

pub use dense::{Dense, Sink};
pub use grid::Grid;
pub(crate) use grid::{numbers, numbers_mut};
pub use layer_norm::{LayerNorm, NormTape};
pub use split::{Narrow, SplitInput, SplitScratch};
