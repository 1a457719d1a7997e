//! What several tests of this crate stand on: records, and a shop that has learned some.

pub(crate) mod played;
pub(crate) mod shop;
pub(crate) mod stream;

use crate::config::{Bounds, Config};

/// The bounds of the default configuration on a machine with 16 GiB.
pub(crate) fn bounds() -> Bounds {
    Config::build("", &[]).expect("the default configuration").memory.bounds
}
