//! The parameters of a checkpoint on disk: a whole file, and files of what has changed from one checkpoint to the next, which build on it.
//!
//! A checkpoint names all of its files in order. Each knows its number and the digest of the one that it builds on, and the digest of a file
//! covers its header and the checksums of all its blocks, so that no file is read behind one that is not its own.
//!
//! # When a whole file is written
//!
//! Changes are written as long as all of them, those of this checkpoint included, take no more bytes than the whole file that they build on,
//! they are fewer than all rows, and there are fewer than [`MOST`] such files. Else a whole file is. So
//! - no checkpoint writes more than a whole file, which each of them would be otherwise: in any hour fewer bytes are written, unless all
//!   rows change from one checkpoint to the next;
//! - a start reads twice a whole file at most (and as many bytes more as the changes of one checkpoint may exceed those of the one before
//!   it beside the rows).

use std::io::{self, Write};
use std::path::Path;

use sluice_models::table::Part;

use super::CheckpointError;
use super::files::{Checked, NumberedFiles, Written, number_of};

/// Most files of changes that build on one whole file.
pub(super) const MOST: usize = 120;

/// Parameters as they were at one instant, to be written while learning goes on.
pub trait ParameterImage {
    /// Returns about how many bytes a part takes, as far as the two differ.
    fn bytes(&self, part: Part) -> u64;

    /// Writes a part, once.
    ///
    /// # Errors
    /// Those of the writer, and [`super::NotSound`] inside one where the parameters may not be kept.
    fn write(&mut self, part: Part, to: &mut dyn Write) -> io::Result<()>;

    /// Says that what was written is in force: what changes counts from here on. Dropped without, an image leaves its changes to the next one.
    fn keep(self);
}

/// The parameter files of a folder.
#[derive(Debug)]
pub(super) struct ParameterFiles {
    wholes: NumberedFiles,
    changes: NumberedFiles,
    /// Of how many checkpoints the files are kept.
    keep: usize,
    /// Those of the checkpoint in force, on which the next one may build.
    chain: Chain,
}

/// The files of one checkpoint, in their order: a whole one, then changes.
pub(super) type Chain = Vec<Written>;

/// The parameters of a checkpoint, of which each file was checked: opens one after the other, the whole one first.
#[derive(Debug)]
pub struct Stored {
    files: std::vec::IntoIter<(NumberedFiles, Written)>,
    fingerprint: u64,
    /// The digest of the file before.
    base: u64,
}

impl ParameterFiles {
    /// Opens the folder, see [`NumberedFiles::open`]. The files of `keep` checkpoints will be kept.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub(super) fn open(folder: &Path, keep: usize) -> Result<Self, CheckpointError> {
        let wholes = NumberedFiles::open(folder, ".parameters")?;
        let changes = NumberedFiles::open(folder, ".changes")?;
        Ok(Self { wholes, changes, keep: keep.max(1), chain: Chain::new() })
    }

    /// Takes up the files of the checkpoint in force, after checking all of them and that each builds on the one before it.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] where one is not what was written, or not there; [`CheckpointError::Foreign`] for another fingerprint or format.
    pub(super) fn resume(
        &mut self,
        names: &[String],
        fingerprint: u64,
    ) -> Result<Stored, CheckpointError> {
        let (mut chain, mut base) = (Chain::new(), 0);
        for name in names {
            let written = self.of(chain.len()).check(name, fingerprint, base)?;
            base = written.digest;
            chain.push(written);
        }
        let files: Vec<_> =
            (0..).zip(&chain).map(|(i, it)| (self.of(i).clone(), it.clone())).collect();
        self.chain = chain;
        Ok(Stored { files: files.into_iter(), fingerprint, base: 0 })
    }

    /// Writes the file of the checkpoint `number`, whole or not. Returns all files that the checkpoint consists of. When this returns they
    /// are on the disk.
    ///
    /// # Errors
    /// When the disk fails or is full, or the image does. Files that were there before are untouched.
    pub(super) fn write(
        &self,
        number: u64,
        fingerprint: u64,
        image: &mut impl ParameterImage,
    ) -> Result<Chain, CheckpointError> {
        let part = self.part(image);
        let mut chain = match part {
            Part::Whole => Chain::new(),
            Part::Changes => self.chain.clone(),
        };
        let base = chain.last().map_or(0, |file| file.digest);
        let files = self.of(chain.len());
        let written = files.write(number, fingerprint, base, |to| image.write(part, to))?;
        chain.push(written);
        Ok(chain)
    }

    /// What is to be written next, see the module.
    fn part(&self, image: &impl ParameterImage) -> Part {
        let Some((whole, changes)) = self.chain.split_first() else { return Part::Whole };
        let expected = image.bytes(Part::Changes);
        // What beside the rows is written each time is known from the last time.
        let next = expected.max(changes.last().map_or(0, |file| file.bytes));
        let all = changes.iter().map(|file| file.bytes).sum::<u64>().saturating_add(next);
        let fits = all <= whole.bytes && changes.len() < MOST;
        if fits && expected < image.bytes(Part::Whole) { Part::Changes } else { Part::Whole }
    }

    /// Says that these are the files of the checkpoint in force.
    pub(super) fn in_force(&mut self, chain: Chain) {
        self.chain = chain;
    }

    /// Returns how many bytes the whole file has on which the checkpoint in force builds.
    pub(super) fn whole_bytes(&self) -> u64 {
        self.chain.first().map_or(0, |file| file.bytes)
    }

    /// Removes the files that no kept checkpoint needs: neither that in force, which has these files, nor the ones before it. Those of a
    /// later one are left, for its commit may not be known.
    ///
    /// Every checkpoint has a file of its number, and those that it builds on are the ones before it, down to a whole one.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(super) fn retain(&self, number: u64, in_force: &[String]) -> Result<(), CheckpointError> {
        let first = in_force.first().and_then(|name| number_of(name)).unwrap_or(number);
        let oldest = (number + 1).saturating_sub(self.keep as u64).max(1);
        let from = if first <= oldest {
            first
        } else {
            let wholes = self.wholes.numbers()?.into_iter();
            wholes.filter(|&whole| (1..=oldest).contains(&whole)).max().unwrap_or(1)
        };
        for files in [&self.wholes, &self.changes] {
            for its in files.numbers()? {
                let needed = if (first..=number).contains(&its) {
                    in_force.contains(&files.name(its))
                } else {
                    its >= from
                };
                if !needed {
                    files.remove(its)?;
                }
            }
        }
        Ok(())
    }

    /// Where the files of this place in a chain are.
    fn of(&self, place: usize) -> &NumberedFiles {
        if place == 0 { &self.wholes } else { &self.changes }
    }
}

impl Iterator for Stored {
    type Item = Result<Checked, CheckpointError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (files, file) = self.files.next()?;
        let base = std::mem::replace(&mut self.base, file.digest);
        Some(files.begin(&file.name, self.fingerprint, base))
    }
}
