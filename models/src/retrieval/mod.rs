//! From millions of items to a few hundred: two towers and the index over their item vectors.

pub mod index;

pub use index::{Hit, Index, IndexError, Scratch};
