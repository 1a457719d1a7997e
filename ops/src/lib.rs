//! What looks after a sluice: the subcommands of `sluice`, as a library, so that the demonstration
//! and the tests can call them too.

#![forbid(unsafe_code)]

pub mod cli;

pub mod files;
pub mod untaken;
pub mod wire;

pub mod import;
pub mod replay;
pub mod simulate;

pub mod connect;
pub mod produce;
pub mod query;
pub mod topics;

pub mod bench;
pub mod demo;
