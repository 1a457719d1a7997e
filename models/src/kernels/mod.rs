//! Loops over slices: matrix products, activations, optimiser steps.
//!
//! Matrices are row-major, weights are input-major: a layer of `k` inputs and `n` outputs has
//! `w` `[k, n]`, so that the inner loop adds whole rows of `w`. Layers are written against
//! [`Real`] and run in `f32`; `f64` exists for the gradient tests.

mod plain;
mod real;

pub use real::{Activation, AdamStep, Real};
