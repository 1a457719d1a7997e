//! The state on disk: sled behind one small trait. No type of sled leaves this folder.
//!
//! | what | how |
//! |---|---|
//! | keys | ordered bytes, made by [`keys`] only |
//! | values | bytes with a CRC-32 in front: damage is an error, never a wrong answer |
//! | writes | batches: all of one or nothing of it, in a power loss too |
//! | durability | only [`Store::flush`] promises it |
//!
//! What is damaged beyond reading is put aside ([`quarantine`]) and rebuilt from Kafka.

mod framing;
pub mod keys;
mod memory;
mod parts;
mod place;
mod sled_store;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

pub use memory::MemoryStore;
pub(crate) use place::sync_folder;
pub use place::{FREE_BYTES, quarantine};
pub use sled_store::SledStore;

/// What stores of keys and values do.
pub trait Store: Send + Sync {
    /// Returns the value of a key.
    ///
    /// # Errors
    /// When the disk fails or the value is damaged.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Shows all keys that begin with `prefix`, with their values, in the order of the keys, until `see` returns false.
    ///
    /// # Errors
    /// When the disk fails or a value is damaged; what was shown before is sound.
    fn scan_prefix(
        &self,
        prefix: &[u8],
        see: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;

    /// Makes all changes of a batch or none, in its order. They survive a crash from the next [`Store::flush`] on, or earlier.
    ///
    /// # Errors
    /// When the disk fails or is full.
    fn apply(&self, batch: Batch) -> Result<(), StoreError>;

    /// Returns when everything applied so far is on the disk. Blocks: not for the threads of tokio.
    ///
    /// # Errors
    /// When the disk fails or is full; what was applied since the last flush may be lost then.
    fn flush(&self) -> Result<(), StoreError>;

    /// Returns how many bytes the store takes on disk.
    ///
    /// # Errors
    /// When the disk fails.
    fn bytes(&self) -> Result<u64, StoreError>;
}

/// Changes that are made together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    bytes: usize,
}

impl Batch {
    /// Sets the value of a key.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl AsRef<[u8]>) {
        self.push(key.into(), Some(framing::frame(value.as_ref())));
    }

    /// Removes a key, if it is there.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.push(key.into(), None);
    }

    /// Returns how many changes there are.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Tells whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns how many bytes the keys and values have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the changes of another batch behind these.
    pub fn append(&mut self, mut other: Batch) {
        self.changes.append(&mut other.changes);
        self.bytes += other.bytes;
    }

    /// Takes out the changes of some keys, in their order.
    #[must_use]
    pub fn split_off(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Batch {
        let mut taken = Batch::default();
        for (key, value) in std::mem::take(self).changes {
            if wanted(&key) { taken.push(key, value) } else { self.push(key, value) }
        }
        taken
    }

    /// Returns the changes in portions of about so many bytes, in their order.
    pub fn portions(self, bytes: usize) -> impl Iterator<Item = Batch> {
        let mut changes = self.changes.into_iter();
        std::iter::from_fn(move || {
            let mut portion = Batch::default();
            while portion.bytes <= bytes
                && let Some((key, value)) = changes.next()
            {
                portion.push(key, value);
            }
            (!portion.is_empty()).then_some(portion)
        })
    }

    /// Leaves out what a later change of the same key makes void.
    pub fn keep_newest(&mut self) {
        // The sort is stable: of each key the newest change stands first.
        self.changes.reverse();
        self.changes.sort_by(|a, b| a.0.cmp(&b.0));
        self.changes.dedup_by(|later, first| later.0 == first.0);
        let size = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| {
            key.len() + value.as_ref().map_or(0, Vec::len)
        };
        self.bytes = self.changes.iter().map(size).sum();
    }

    fn push(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        self.changes.push((key, value));
    }
}

/// Why the store cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What is on disk is not what was written.
    #[error("the store in {path} is damaged: {what}")]
    Damaged {
        /// Its folder.
        path: PathBuf,
        /// Where.
        what: String,
    },
    /// Another process has the folder open.
    #[error(
        "the store in {path} is in use by another process: stop that one, or set checkpoint.path to another folder"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// Too little room.
    #[error("expected {needed} bytes free for the store in {path}, found {free}: make room")]
    Full {
        /// The folder.
        path: PathBuf,
        /// What is needed.
        needed: u64,
        /// What is there.
        free: u64,
    },
    /// This process may not use the folder, or it is none.
    #[error(
        "the store in {path} cannot {action}: expected a folder that this process may write to; {remedy}, or set checkpoint.path to another folder"
    )]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What to do.
        remedy: &'static str,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The disk fails.
    #[error("the store in {path} cannot {action}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Written by another version of this program.
    #[error("the store in {path} has format {found}, expected {expected}: {remedy}")]
    Format {
        /// The folder.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version of this program.
        expected: u32,
        /// What to do.
        remedy: &'static str,
    },
}

impl StoreError {
    /// Puts what the system says of a folder into words.
    fn of_folder(path: &Path, action: &'static str, source: io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::PermissionDenied => {
                "give it and what is in it to the user that runs this"
            }
            io::ErrorKind::ReadOnlyFilesystem => "mount it for writing",
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                "move away the file of this name"
            }
            _ => return Self::Io { path: path.into(), action, source },
        };
        Self::Unusable { path: path.into(), action, remedy, source }
    }

    fn of_format(path: &Path, found: u32) -> Self {
        let remedy = "start the version that wrote it, or set checkpoint.path to another folder";
        Self::Format { path: path.into(), found, expected: keys::FORMAT, remedy }
    }

    /// Tells whether the data on disk is at fault: only putting it aside helps.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}
