//! Runs it: all I/O, clocks, threads, logs and metrics.

#![forbid(unsafe_code)]

pub mod app;
pub mod capture;
pub mod checkpoint;
pub mod clock;
pub mod config;
pub mod error;
pub mod http;
pub mod journal;
pub mod kafka;
pub mod learn;
pub mod live;
pub mod metrics;
pub mod parts;
pub mod pipeline;
pub mod publish;
pub mod recovery;
pub mod replay;
pub mod say;
pub mod serve;
pub mod shutdown;
pub mod store;
pub mod supervise;
pub mod telemetry;
#[cfg(test)]
mod testing;
