//! Examples become parameters and scores. Pure arithmetic.

#![deny(unsafe_code)]

pub mod evaluate;
#[cfg(test)]
mod gradcheck;
pub mod kernels;
pub mod losses;
pub mod layers;
pub mod params;
pub mod retrieval;
pub mod table;
