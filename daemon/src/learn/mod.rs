//! Learning: what one batch does ([`trainer`]), and when its results may be published ([`guard`]).

pub mod guard;
pub mod trainer;
