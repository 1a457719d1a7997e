//! Events become examples.
//!
//! ```text
//! bytes -> wire -> event -> catalogue, sequence, counters      (remember)
//!                        -> attribute                          (which outcome belongs to which impression)
//!                        -> assemble -> example                (features as of the impression, labels, masks)
//! ```
//!
//! Pure: no I/O, no clock, no threads, no logging. Time comes from the records.

#![forbid(unsafe_code)]

pub mod assemble;
pub mod assortment;
pub mod attributes;
pub mod attribution;
pub mod candidates;
pub mod catalogue;
pub mod counters;
pub mod dictionary;
pub mod event;
pub mod example;
pub mod funnel;
pub mod ids;
pub mod maps;
pub mod numeral;
pub mod pack;
pub mod pages;
pub mod reject;
pub mod schema;
pub mod sequence;
pub mod time;
pub mod watermark;
pub mod wire;
pub mod words;
