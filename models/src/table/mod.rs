//! The collisionless embedding store: a row of numbers for each id that has been seen often enough.
//!
//! ```text
//! key ──hash──┬─ shard (64, each under its own lock)
//!             └─ slot { key, row, last used }      open addressing on the whole key, at a secret place (`seed`)
//!                        └─ row: width numbers | accumulator | count      slabs of huge pages
//! ```
//!
//! Key 0 is "no id": it has no row. An id gets its row at its n-th occurrence (`admit`), with first
//! numbers that depend on seed and key alone (`initial`), and loses it when it has not been used
//! for a span of event time: [`RowStore::sweep`] follows each step and looks through a part of the
//! keys. The learner writes, scorers read meanwhile: a call locks all shards in
//! one order, for at most a thousand keys at a time, so nobody waits long. All rows as of one instant
//! are read while the writer goes on (`frozen`), or those alone that have changed since the newest checkpoint
//! (`changes`). What two ids of one batch have in common is found by [`Grouping`], which also sums their gradients.

mod admit;
mod ahead;
mod changes;
mod frozen;
mod grouping;
mod image;
mod index;
mod initial;
mod loan;
mod seed;
mod shard;
mod slabs;
mod store;

pub use frozen::{FrozenRows, Part};
pub use grouping::Grouping;
pub use image::{ImageError, ShardImage};
pub use loan::{Loan, Use};
pub(crate) use seed::Seed;
pub(crate) use store::seconds;
pub use store::{RowStore, RowStoreConfig, RowStoreStats};

/// A key's hash: its upper bits choose the shard, and where it goes in it follows from it by the [`Seed`] of the shard.
/// Keys that follow a pattern are spread by the multiplication.
#[inline(always)]
pub(crate) fn hash(key: u64) -> u64 {
    let product = u128::from(key ^ 0x243f_6a88_85a3_08d3) * 0x9e37_79b9_7f4a_7c15;
    (product >> 64) as u64 ^ product as u64
}
