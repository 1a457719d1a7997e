//! Checkpoints: the only commit point.
//!
//! ```text
//! 1  what of the state is written as a whole ─▶ NUMBER.state.new ─▶ fsync ─▶ NUMBER.state ─▶ fsync of the folder
//! 2  parameters ─▶ NUMBER.parameters, or what of them has changed ─▶ NUMBER.changes, in the same way (`parameters`)
//! 3  new pages, where they are many, in portions; all other changed pieces + offsets + the files' names ─▶ one atomic batch of the store ─▶ flush
//! 4  the number ─▶ the file `committed` beside them; files that nothing needs are removed
//! ```
//!
//! A kill or a power loss between any two steps leaves the previous or the new checkpoint, never a mixture: the batch of step 3 decides. Files
//! and their names are on the disk before it, the batch before step 4, and the word `committed` before offsets go to Kafka. The file of step 4
//! decides nothing. It tells, at the next start, that a store which opens without complaint has lost its newest commit: a disk
//! that forgets what it had promised to keep, or a copy of an older day. The batch of a commit is one of the store, and nothing that a
//! checkpoint has is written between commits (`ahead`), so such a store is as it was at the commit before; the files of that one are kept, and it is in force again.
//!
//! [`Checkpoint::open`] finds the checkpoint in force and gives back the pipeline, [`Checkpoint::commit`] makes the next one. A full disk is
//! noticed before the store is touched: the previous checkpoint stays in force.
//!
//! Writing takes seconds, and nobody waits for it. Its input is a [`Cut`] of the pipeline and a [`ParameterImage`], each taken in
//! some milliseconds: the pipeline's when everything before it is handed to the learner, the parameters' when the learner has learned
//! that and nothing more. What changes afterwards is copied before it changes, by pages of the state and rows of the tables.

mod ahead;
mod blocks;
mod commit;
mod cut;
mod difference;
mod durable;
mod files;
mod full;
mod identity;
mod open;
mod pages;
mod parameters;
mod pieces;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use commit::{Commit, Offset};
pub use cut::{Changes, Cut};
pub use files::Checked;
pub use full::write_full;
pub use identity::Identity;
pub use open::{Opening, Resumed};
pub use parameters::{ParameterImage, Stored};

use crate::clock::Clock;
use crate::error::Stop;
use crate::pipeline::state::Reach;
use crate::store::{Batch, FREE_BYTES, Store};

use files::NumberedFiles;
use parameters::ParameterFiles;

/// What the configuration says to checkpoints.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The folder of everything: the store and the files beside it.
    pub folder: PathBuf,
    /// Bytes that the store may cache.
    pub cache_bytes: u64,
    /// Of how many checkpoints the parameter files are kept, two at least.
    pub keep: usize,
    /// Partitions of the topics.
    pub partitions: usize,
    /// Names of the topics of events, items and users: offsets are theirs.
    pub topics: [String; 3],
    /// What state and parameters belong to.
    pub identity: Identity,
    /// Keeps the state of another model and starts with new parameters.
    pub new_model: bool,
}

/// Makes checkpoints of one pipeline.
pub struct Checkpoint {
    store: Arc<dyn Store>,
    setup: Setup,
    parameters: ParameterFiles,
    states: NumberedFiles,
    /// The number of the checkpoint in force, 0 for none.
    number: u64,
    /// What the last one has written: the next one needs about as much room.
    written: u64,
    /// Room that has to be left.
    room: u64,
    /// Changes of the state that no checkpoint has.
    waiting: Batch,
    /// How far the pages and packs of the checkpoint in force reach.
    reach: Reach,
    /// Bytes of changes beyond which new pages are written ahead, and of a portion of these.
    portion: usize,
}

/// What became of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It is in force.
    Done(CommitReport),
    /// The disk has no room, or the parameters are not sound: the previous one stays in force, nothing is lost, and a later try may work. Says why.
    NotNow(String),
}

/// What a checkpoint has cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitReport {
    /// Its number.
    pub number: u64,
    /// Bytes of the parameter file.
    pub parameter_bytes: u64,
    /// Whether that file is of all parameters; else it is of what has changed.
    pub whole: bool,
    /// Bytes of what of the state is written as a whole.
    pub state_bytes: u64,
    /// Bytes of the pieces that have changed.
    pub piece_bytes: u64,
    /// How many pieces have changed.
    pub pieces: u64,
    /// How long the parameters took to arrive and to be written.
    pub parameters_took: Duration,
    /// How long all of it took, while everything else went on.
    pub took: Duration,
    /// Where the next start goes on.
    pub offsets: Vec<Offset>,
}

impl CommitReport {
    /// Returns how many bytes were written.
    pub fn bytes(&self) -> u64 {
        self.parameter_bytes + self.state_bytes + self.piece_bytes
    }
}

impl Checkpoint {
    /// Returns the number of the checkpoint in force, 0 for none.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns what it was set up with.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Returns how many bytes the store takes on disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn store_bytes(&self) -> Result<u64, Stop> {
        Ok(self.store.bytes()?)
    }
}

/// Why parameters may not be kept now. A write of them that fails with this inside leaves the previous checkpoint in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the parameters are not sound: {0}")]
pub struct NotSound(pub String);

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk fails or is full.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// What is in the file is not what was written.
    #[error("the file {path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        what: String,
    },
    /// The file belongs to another model or another version.
    #[error("the file {path} has {what} {found}, expected {expected}: {remedy}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What the file has.
        found: u64,
        /// What is expected.
        expected: u64,
        /// What to do.
        remedy: &'static str,
    },
}

impl CheckpointError {
    /// Tells whether the disk is full: the previous checkpoint holds, and a later try may work.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull)
    }

    /// Tells whether the parameters were not sound: the previous checkpoint holds, and a later try may work.
    fn is_not_sound(&self) -> bool {
        let inside = |source: &std::io::Error| source.get_ref().is_some_and(|e| e.is::<NotSound>());
        matches!(self, Self::Io { source, .. } if inside(source))
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

impl From<CheckpointError> for Stop {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Io { .. } => Self::fault("a checkpoint failed").because(error),
            CheckpointError::Damaged { .. } | CheckpointError::Foreign { .. } => {
                Self::data("the checkpoint on disk cannot be used").because(error)
            }
        }
    }
}
