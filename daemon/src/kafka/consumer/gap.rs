//! Gaps: places where records are missing that were to be read. The daemon stops there, or goes on knowingly.

use super::{Lane, NextOffset};

/// Why records are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// They were deleted before they were read.
    Deleted,
    /// The topic was deleted and made anew: what was in it and not read is gone.
    MadeAnew,
    /// The topic has lost its end, which was read already.
    EndLost,
    /// They are damaged and cannot be read.
    Unreadable,
}

impl GapCause {
    /// All causes, in order.
    pub const ALL: [Self; 4] = [Self::Deleted, Self::MadeAnew, Self::EndLost, Self::Unreadable];

    /// Returns the name in metrics and log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::MadeAnew => "made-anew",
            Self::EndLost => "end-lost",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A gap over which reading went on knowingly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The partition.
    pub lane: Lane,
    /// Why.
    pub cause: GapCause,
    /// The next offset to read before it.
    pub from: NextOffset,
    /// The next offset to read behind it, which is below `from` in a topic that was made anew.
    pub to: NextOffset,
}

impl Gap {
    /// Returns how many offsets are missing; none where nobody knows.
    pub fn missing(&self) -> Option<u64> {
        let known = matches!(self.cause, GapCause::Deleted | GapCause::Unreadable);
        known.then(|| u64::try_from(self.to.0 - self.from.0).unwrap_or(0))
    }
}
