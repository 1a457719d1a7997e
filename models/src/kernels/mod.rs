//! Loops over slices: matrix products, activations, optimiser steps, scans.
//!
//! Matrices are row-major, weights are input-major: a layer of `k` inputs and `n` outputs has
//! `w` `[k, n]`, so that the inner loop adds whole rows of `w`. Layers are written against
//! [`Real`] and run in `f32`; `f64` exists for the gradient tests and stays plain.
//!
//! Each fast kernel is written once over a vector type (`lanes`), which is also the proof that the
//! processor has the instructions: scalar, AVX2 with FMA, AVX-512. The path is chosen once for the
//! process, see [`select`]. This is the only folder with `unsafe`.

#![allow(unsafe_code, reason = "vector instructions and pointers into matrices; nowhere else")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod lanes;
mod path;
mod scalar;

mod buffer;
mod bytes;
mod column;
mod exponential;
mod lookup;
mod matrix;
mod memory;
mod optimizer;
mod pack;
mod peak;
mod plain;
mod product;
mod real;
mod softmax;
mod terms;
mod tile;
mod turned;
mod unit;
mod vector;
mod weights;
mod zeros;

pub use bytes::byte_products;
pub use lookup::{Lookup, sum_lookups};
pub use memory::{HUGE_PAGE, prefer_huge_pages, prefetch, prefetch_all};
pub use optimizer::{AdagradStep, RowStep, RowSteps, adagrad_row, adagrad_rows};
pub use path::{Path, PathError, best, current, select};
pub use peak::{spin_multiply_adds, spin_multiply_adds_on};
pub use real::{Activation, AdamStep, Real};
pub use softmax::softmax_rows;
pub use terms::{Terms, advance_rows, move_pairs, move_rows, pair_squares, sum_pairs, sum_rows};
pub use unit::{ActivationUnit, activation_unit};
pub use weights::Weights;
pub use zeros::Zeros;
