//! Group `growth`: what stays as it is, and what does not, when the state grows. States are filled directly, not by events, where that is
//! possible.

mod away;
mod checkpoint;
mod items;
mod users;

use anyhow::Result;

use super::report::Report;

const GROUP: &str = "growth";

/// Measures the group.
///
/// # Errors
/// When the disk fails or has no room, or the system does not tell its memory.
pub(super) fn measure(report: &mut Report) -> Result<()> {
    items::measure(report)?;
    users::measure(report)?;
    away::measure(report)?;
    checkpoint::measure(report)
}
