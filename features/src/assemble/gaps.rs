//! The time between a behaviour and the impression, in [`GAP_BUCKETS`] buckets.

use super::columns::{floor_log2, small_id};
use crate::schema::GAP_BUCKETS;
use crate::time::Span;

/// Returns the id of a gap's bucket: `min(floor(log2(1 + seconds)), GAP_BUCKETS - 1)`.
pub(super) fn gap_id(gap: Span) -> u64 {
    let seconds = gap.0.max(0) as f64 / 1000.0;
    small_id(i64::from(floor_log2(1.0 + seconds).min(GAP_BUCKETS - 1)))
}
