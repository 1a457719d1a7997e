//! Group `peers`: the same work in other systems, in the same run, one after the other.
//!
//! A peer that is not installed leaves its rows without a ratio, and they say why.

mod click;
mod python;
mod torch;

use std::path::Path;

use anyhow::Result;

use super::limits::Limits;
use super::report::Report;

const GROUP: &str = "peers";

/// Measures the group; `kuairand` are the records of that data set.
///
/// # Errors
/// When a model cannot be built, or a peer fails.
pub(super) fn measure(kuairand: Option<&Path>, limits: &Limits, report: &mut Report) -> Result<()> {
    torch::measure(limits, report)?;
    click::measure(kuairand, report)
}
