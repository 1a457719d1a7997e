//! Examples become parameters and scores. Pure arithmetic.

#![deny(unsafe_code)]

pub mod checkpoint;
pub mod crossing;
pub mod evaluate;
pub mod executor;
pub mod funnel;
#[cfg(test)]
mod gradcheck;
pub mod interest;
pub mod kernels;
pub mod layers;
pub mod learner;
pub mod losses;
pub mod model;
pub mod optimizers;
pub mod params;
#[cfg(test)]
mod parity;
pub mod retrieval;
pub mod sharing;
pub mod spec;
pub mod synthetic;
pub mod table;
pub mod work;
