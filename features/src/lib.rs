//! Events become examples. Pure: no I/O, no clock, no threads, no logging.
