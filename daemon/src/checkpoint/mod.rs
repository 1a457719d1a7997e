//! Checkpoints: the only commit point.
//!
//! ```text
//! 1  parameters ─▶ NUMBER.parameters.new ─▶ fsync ─▶ NUMBER.parameters ─▶ fsync of the folder
//! 2  waiting changes + offsets + the file's name ─▶ one atomic batch of the store ─▶ flush
//! 3  the number ─▶ the file `committed` beside them; parameter files that nothing needs are removed
//! ```
//!
//! A kill between any two steps leaves the previous or the new checkpoint, never a mixture: the batch of step 2 decides. The file of step 3
//! decides nothing. It tells, at the next start, that a store which opens without complaint has lost its newest commits.

mod blocks;
mod durable;
mod parameters;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use parameters::{ParameterFiles, Parameters, Written};

use crate::error::Stop;
use crate::store::keys::Meta;
use crate::store::{Batch, Store};

/// What a checkpoint consists of, beside the state in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Grows by one with each checkpoint, from 1 on.
    pub number: u64,
    /// The parameter file's name.
    pub parameters: String,
    /// What the parameters belong to: schema and model.
    pub fingerprint: u64,
    /// Where to go on, for each partition.
    pub offsets: Vec<Offset>,
}

/// The next record that is not part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offset {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset of the next record.
    pub next: i64,
}

/// What a start finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The checkpoint in force.
    pub commit: Commit,
    /// The number of a later one that the store has lost: it went back, which is sound but must be told.
    pub lost: Option<u64>,
}

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
    #[error("the parameter file {path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        what: String,
    },
    /// The file belongs to another model or another version.
    #[error("the parameter file {path} has {what} {found}, expected {expected}: {remedy}")]
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

/// Commits: the waiting changes and the commit as one atomic batch, flushed. When this returns the checkpoint is in force.
///
/// # Errors
/// When the store or the folder fails. The previous checkpoint may be in force then, or this one: restart to know.
pub fn commit(
    store: &dyn Store,
    folder: &Path,
    mut waiting: Batch,
    commit: &Commit,
) -> Result<(), Stop> {
    let value = postcard::to_allocvec(commit)
        .map_err(|error| Stop::fault("a checkpoint cannot be encoded").because(error))?;
    waiting.put(Meta::Checkpoint.key(), value);
    store.apply(waiting)?;
    store.flush()?;
    durable::replace(&folder.join(COMMITTED), |file| {
        std::io::Write::write_all(file, commit.number.to_string().as_bytes())
    })?;
    Ok(())
}

/// Returns the checkpoint in force, or `None` for a new store.
///
/// # Errors
/// [`crate::error::Exit::Data`] when it cannot be read, or when all checkpoints are gone that were there.
pub fn find(store: &dyn Store, folder: &Path) -> Result<Option<Found>, Stop> {
    let promised = match std::fs::read_to_string(folder.join(COMMITTED)) {
        Ok(text) => text.trim().parse::<u64>().ok(),
        Err(_) => None,
    };
    let Some(value) = store.get(&Meta::Checkpoint.key())? else {
        return match promised {
            None => Ok(None),
            Some(number) => Err(Stop::data(format!(
                "the store in {} has lost checkpoint {number} and all before it: remove the folder to begin anew from Kafka",
                folder.display()
            ))),
        };
    };
    let commit: Commit = postcard::from_bytes(&value).map_err(|error| {
        Stop::data("the checkpoint in the store cannot be read: it is of another version")
            .because(error)
    })?;
    let lost = promised.filter(|&number| number > commit.number);
    Ok(Some(Found { commit, lost }))
}

/// The file that holds the number of the newest commit.
const COMMITTED: &str = "committed";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;
    use crate::store::MemoryStore;

    fn numbered(number: u64) -> Commit {
        let offset = Offset { topic: "sluice.events".into(), partition: 3, next: 17 };
        Commit {
            number,
            parameters: format!("{number}.parameters"),
            fingerprint: 9,
            offsets: vec![offset],
        }
    }

    #[test]
    fn state_and_commit_come_into_force_together() {
        let folder = tempfile::tempdir().unwrap();
        let store = MemoryStore::default();
        assert_eq!(find(&store, folder.path()).unwrap(), None);
        let mut waiting = Batch::default();
        waiting.put(*b"k", b"v");
        commit(&store, folder.path(), waiting, &numbered(1)).unwrap();
        let found = find(&store, folder.path()).unwrap().unwrap();
        assert_eq!(found, Found { commit: numbered(1), lost: None });
        assert_eq!(store.get(b"k").unwrap().as_deref(), Some(&b"v"[..]));
    }

    #[test]
    fn a_store_that_went_back_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (MemoryStore::default(), MemoryStore::default());
        commit(&old, folder.path(), Batch::default(), &numbered(1)).unwrap();
        commit(&new, folder.path(), Batch::default(), &numbered(2)).unwrap();
        assert_eq!(find(&old, folder.path()).unwrap().unwrap().lost, Some(2));
        let stop = find(&MemoryStore::default(), folder.path()).unwrap_err();
        assert_eq!(stop.exit(), Exit::Data);
    }
}
