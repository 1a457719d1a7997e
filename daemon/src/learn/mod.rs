//! Learning: what one batch does ([`trainer`]), on which threads ([`pool`]), and when its results may be published ([`guard`]).

pub mod guard;
pub mod pool;
pub mod trainer;
