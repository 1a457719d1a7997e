//! Runs it: all I/O, clocks, threads, logs and metrics.
