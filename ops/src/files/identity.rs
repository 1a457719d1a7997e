//! What tells a file from all others.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// What tells a file from all others, by whatever name it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// Whether it can be read again. Pipes and terminals cannot.
    is_regular: bool,
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let (device, inode) = (metadata.dev(), metadata.ino());
        Self { device, inode, is_regular: metadata.is_file() }
    }

    pub(super) fn is_regular(self) -> bool {
        self.is_regular
    }
}
