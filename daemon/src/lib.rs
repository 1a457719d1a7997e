//! Runs it: all I/O, clocks, threads, logs and metrics.

#![forbid(unsafe_code)]

pub mod kafka;
