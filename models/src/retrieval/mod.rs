//! From millions of items to a few hundred: two towers and the index over their item vectors.

pub mod history;
pub mod index;
mod log_q;
pub mod retriever;
mod tower;
pub mod two_tower;

pub use index::{Hit, Index, IndexError, Scratch};
pub use log_q::LogQ;
pub use retriever::{Retriever, RetrieverImage, RetrieverSpec, Touched, Towers, VectorWork};
pub use tower::{Pass, Tower};
pub use two_tower::{Pairs, Shape, TwoTower, Workspace};
