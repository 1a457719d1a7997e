//! What several tests of this crate stand on: records, and a shop that has learned some.

pub(crate) mod played;
pub(crate) mod shop;
pub(crate) mod stream;
