//! Group `peers`: the same work in other systems, in the same run, one after the other.
//!
//! A peer that is not installed leaves its rows without a ratio, and they say why.

mod python;
mod torch;

use anyhow::Result;

use super::limits::Limits;
use super::report::Report;

const GROUP: &str = "peers";

/// Measures the group.
///
/// # Errors
/// When a model cannot be built, or a peer fails.
pub(super) fn measure(limits: &Limits, report: &mut Report) -> Result<()> {
    torch::measure(limits, report)
}
