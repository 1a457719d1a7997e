//! Writing the journal.

use std::path::{Path, PathBuf};

use super::chain::{Chain, file, numbers};
use super::{Step, Turn};
use crate::capture::Decision;
use crate::error::{Stop, chain};
use crate::journal::{Appended, JournalError, JournalWriter};

/// Bytes that the files since a checkpoint may have together: some millions of turns.
const MOST: u64 = 64 << 20;

/// The journal of a run. Nothing it does stops the daemon: where it cannot write it says so, and goes on with the next checkpoint.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    number: u64,
    /// `None` after it has given up, until the next file.
    writer: Option<JournalWriter<Step>>,
    /// Bytes of the files before, since the checkpoint in force.
    before: u64,
    most: u64,
}

impl Journal {
    /// Opens the journal of a folder whose checkpoint goes on with the second of these files, and the one before it with the first; with none, from
    /// nothing. Returns it, behind what is sound, and what is to be repeated. Files that belong to none are removed.
    ///
    /// # Errors
    /// When a file cannot be read, removed or made.
    pub fn open(folder: &Path, numbers: Option<[u64; 2]>) -> Result<(Self, Chain), Stop> {
        Self::open_within(folder, numbers, MOST).map_err(|error| match error {
            JournalError::Io { ref path, ref source, .. } if is_in_the_way(source) => {
                let shown = path.display();
                Stop::config(format!(
                    "expected of the journal {shown} that it is a file that this process may write to: make it so, or remove it (no record is lost by that, they are \
                     only taken in other steps)"
                ))
                .because(error)
            }
            other => other.into(),
        })
    }

    pub(super) fn open_within(
        folder: &Path,
        known: Option<[u64; 2]>,
        most: u64,
    ) -> Result<(Self, Chain), JournalError> {
        let (first, number) = (known.map(|[first, _]| first), known.map(|[_, number]| number));
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        let chain = match number {
            Some(number) => Chain::find(folder, number)?,
            None => Chain::default(),
        };
        // A checkpoint before the one in force may still be gone back to: what it needs stays.
        let last = chain.newest().or(number).unwrap_or(1);
        for stray in numbers(folder).map_err(failed(folder))? {
            if stray > last || first.is_none_or(|first| stray < first) {
                let path = file(folder, stray);
                std::fs::remove_file(&path).map_err(failed(&path))?;
            }
        }
        let before = chain.bytes_before_last();
        let left = most.saturating_sub(before);
        let path = file(folder, last);
        let writer = if chain.is_torn() {
            tracing::warn!(
                path = %path.display(),
                "nothing of this journal can be read: its records are taken anew, not in the same steps"
            );
            JournalWriter::create(&path, left)?
        } else {
            JournalWriter::append_to(&path, left)?
        };
        let writer = Some(writer);
        Ok((Self { folder: folder.into(), number: last, writer, before, most }, chain))
    }

    /// Drops what is to be repeated, knowingly: the journal goes on behind nothing.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin_anew(&mut self, number: u64) -> Result<(), Stop> {
        let above = |stray: &u64| *stray > number;
        for stray in numbers(&self.folder).map_err(failed(&self.folder))?.into_iter().filter(above)
        {
            let path = file(&self.folder, stray);
            std::fs::remove_file(&path).map_err(failed(&path))?;
        }
        (self.number, self.before) = (number, 0);
        self.writer = Some(JournalWriter::create(&file(&self.folder, number), self.most)?);
        Ok(())
    }

    /// Writes down a turn before its records are taken.
    pub fn took(&mut self, turn: Turn) {
        self.write(Step::Took(turn));
    }

    /// Writes down a decision before it is carried out.
    pub fn decided(&mut self, decision: Decision) {
        self.write(Step::Decided(decision));
    }

    /// Returns the number of the file that is being written.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns how many bytes it has since the checkpoint in force; `None` after it has given up: only the next checkpoint begins a new file.
    pub fn bytes(&self) -> Option<u64> {
        Some(self.before + self.writer.as_ref()?.bytes())
    }

    /// Ends the file at the cut of a checkpoint. Returns the number of the one that goes on, which the checkpoint is to name.
    pub fn turn_over(&mut self) -> u64 {
        self.write(Step::Next);
        self.before += self.writer.take().map_or(0, |writer| writer.bytes());
        self.number += 1;
        let path = file(&self.folder, self.number);
        match JournalWriter::create(&path, self.most.saturating_sub(self.before)) {
            Ok(writer) => self.writer = Some(writer),
            Err(error) => self.give_up(&chain(&error)),
        }
        self.number
    }

    /// Removes the files before `first`, which no checkpoint needs any more. `since` is the one that the checkpoint in force names.
    pub fn retain(&mut self, first: u64, since: u64) {
        let kept = match numbers(&self.folder) {
            Ok(kept) => kept,
            Err(error) => return tracing::warn!(%error, "old journals cannot be found"),
        };
        let path = |number| file(&self.folder, number);
        for old in kept.iter().copied().filter(|number| *number < first) {
            if let Err(error) = std::fs::remove_file(path(old)) {
                tracing::warn!(%error, old, "an old journal cannot be removed");
            }
        }
        let size = |number| std::fs::metadata(path(number)).map_or(0, |meta| meta.len());
        let before = kept.into_iter().filter(|number| (since..self.number).contains(number));
        self.before = before.map(size).sum();
        if let Some(writer) = &mut self.writer {
            writer.bound(self.most.saturating_sub(self.before));
        }
    }

    fn write(&mut self, step: Step) {
        let Some(writer) = &mut self.writer else { return };
        // Handed to the system before the step is made: it survives a kill.
        match writer.append(&step).and_then(|appended| writer.flush().map(|()| appended)) {
            Ok(Appended::Written) => {}
            Ok(Appended::Full) => self.give_up("it has grown too long since the last checkpoint"),
            Err(error) => self.give_up(&chain(&error)),
        }
    }

    fn give_up(&mut self, reason: &str) {
        self.before += self.writer.take().map_or(0, |writer| writer.bytes());
        let folder = self.folder.display();
        tracing::warn!(
            %folder,
            reason,
            "the journal cannot go on until the next checkpoint: a start before that takes every record, but not in the same steps"
        );
    }
}

/// Says whether it is not the disk that fails, but what someone has done to a file.
fn is_in_the_way(source: &std::io::Error) -> bool {
    use std::io::ErrorKind::{IsADirectory, PermissionDenied, ReadOnlyFilesystem};
    matches!(source.kind(), PermissionDenied | IsADirectory | ReadOnlyFilesystem)
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> JournalError {
    let path = path.to_path_buf();
    move |source| JournalError::Io { action: "open", path: path.clone(), source }
}
