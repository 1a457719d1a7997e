//! Numbered files beside the store, one kind for the parameters and one for the state that is written as a whole: a header, then
//! checked blocks.
//!
//! ```text
//! [magic 8][format u32][fingerprint u64][crc u32 of these] [blocks ...]
//! ```

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use super::CheckpointError;
use super::blocks::{BlockReader, BlockWriter};
use super::durable::{UNFINISHED, replace};

const MAGIC: [u8; 8] = *b"SLUICEP\n";
const FORMAT: u32 = 6;
const HEADER: usize = 24;

/// The files of one kind, in one folder.
#[derive(Clone, Debug)]
pub(super) struct NumberedFiles {
    folder: PathBuf,
    ending: &'static str,
    keep: usize,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Its name, which a [`super::Commit`] holds.
    pub(super) name: String,
    /// Its size.
    pub(super) bytes: u64,
}

/// A file that is being read; every block is checked before its bytes are handed out.
#[derive(Debug)]
pub struct Checked {
    path: PathBuf,
    reader: BlockReader<BufReader<File>>,
}

impl NumberedFiles {
    /// Opens the folder, making it when it is missing, and removes what an interrupted write of a file with this ending has left.
    /// `keep` files will be kept, at least one.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub(super) fn open(
        folder: &Path,
        ending: &'static str,
        keep: usize,
    ) -> Result<Self, CheckpointError> {
        std::fs::create_dir_all(folder).map_err(CheckpointError::io("make the folder", folder))?;
        let files = Self { folder: folder.into(), ending, keep: keep.max(1) };
        for name in files.names()? {
            if name.ends_with(&format!("{ending}{UNFINISHED}")) {
                files.remove(&name)?;
            }
        }
        Ok(files)
    }

    /// Writes the file of the checkpoint `number`. When this returns the file is on the disk, whole.
    ///
    /// # Errors
    /// When the disk fails or is full. Files that were there before are untouched.
    pub(super) fn write(
        &self,
        number: u64,
        fingerprint: u64,
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<Written, CheckpointError> {
        let name = format!("{number:012}{}", self.ending);
        let bytes = replace(&self.folder.join(&name), |file| {
            file.write_all(&header(fingerprint))?;
            let mut blocks = BlockWriter::new(file);
            write(&mut blocks)?;
            blocks.finish()
        })?;
        Ok(Written { name, bytes })
    }

    /// Opens the file of this name, after checking all of it.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] anywhere in the file, [`CheckpointError::Foreign`] for another fingerprint or format.
    pub(super) fn read(&self, name: &str, fingerprint: u64) -> Result<Checked, CheckpointError> {
        let mut whole = self.begin(name, fingerprint)?;
        let mut buffer = vec![0; 1 << 16];
        while whole.read(&mut buffer).map_err(|error| whole.failed(error))? > 0 {}
        self.begin(name, fingerprint)
    }

    /// Removes the oldest files, so that `keep` are left, the one in force and those behind it among them.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(super) fn retain(&self, in_force: &str) -> Result<(), CheckpointError> {
        let mut names = self.names()?;
        names.retain(|name| name.ends_with(self.ending) && name.as_str() <= in_force);
        names.sort_unstable_by(|a, b| b.cmp(a));
        names.iter().skip(self.keep).try_for_each(|name| self.remove(name))
    }

    fn begin(&self, name: &str, fingerprint: u64) -> Result<Checked, CheckpointError> {
        let path = self.folder.join(name);
        let file = File::open(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => {
                CheckpointError::Damaged { path: path.clone(), what: "it is not there".into() }
            }
            _ => CheckpointError::Io { action: "open", path: path.clone(), source },
        })?;
        let mut file = BufReader::new(file);
        check_header(&mut file, &path, fingerprint)?;
        Ok(Checked { path, reader: BlockReader::new(file) })
    }

    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        let failed = || CheckpointError::io("read the folder", &self.folder);
        let entries = std::fs::read_dir(&self.folder).map_err(failed())?;
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry.map_err(failed())?.file_name().into_string());
        }
        Ok(names)
    }

    fn remove(&self, name: &str) -> Result<(), CheckpointError> {
        let path = self.folder.join(name);
        std::fs::remove_file(&path).map_err(CheckpointError::io("remove", &path))
    }
}

impl Checked {
    /// Puts an error that came from reading into words: damage, or a failing disk.
    pub fn failed(&self, error: std::io::Error) -> CheckpointError {
        match error.kind() {
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                CheckpointError::Damaged { path: self.path.clone(), what: error.to_string() }
            }
            _ => CheckpointError::Io { action: "read", path: self.path.clone(), source: error },
        }
    }
}

impl Read for Checked {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(out)
    }
}

fn header(fingerprint: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..20].copy_from_slice(&fingerprint.to_le_bytes());
    let crc = crc32fast::hash(&header[..20]);
    header[20..].copy_from_slice(&crc.to_le_bytes());
    header
}

fn check_header(
    file: &mut impl Read,
    path: &Path,
    fingerprint: u64,
) -> Result<(), CheckpointError> {
    let damaged =
        |what: &str| CheckpointError::Damaged { path: path.into(), what: what.to_owned() };
    let mut found = [0; HEADER];
    file.read_exact(&mut found).map_err(|_| damaged("its header is cut off"))?;
    let word = |from: usize| {
        u32::from_le_bytes([found[from], found[from + 1], found[from + 2], found[from + 3]])
    };
    if found[..8] != MAGIC || crc32fast::hash(&found[..20]) != word(20) {
        return Err(damaged("its header is not one of ours"));
    }
    let foreign = |what, found, expected, remedy| {
        Err(CheckpointError::Foreign { path: path.into(), what, found, expected, remedy })
    };
    if word(8) != FORMAT {
        let remedy = "start the version that wrote it";
        return foreign("format", u64::from(word(8)), u64::from(FORMAT), remedy);
    }
    let its = u64::from(word(12)) | u64::from(word(16)) << 32;
    if its != fingerprint {
        let remedy =
            "go back to the configuration it was made with, or start anew with --new-model";
        return foreign("fingerprint", its, fingerprint, remedy);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &NumberedFiles, number: u64) -> Written {
        files.write(number, 7, |file| file.write_all(&[number as u8; 300])).unwrap()
    }

    fn names(files: &NumberedFiles) -> Vec<String> {
        let mut names = files.names().unwrap();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_read_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let files = NumberedFiles::open(folder.path(), ".parameters", 2).unwrap();
        let written = write(&files, 5);
        assert_eq!(
            written,
            Written { name: "000000000005.parameters".into(), bytes: 24 + 8 + 300 + 8 }
        );
        let mut bytes = Vec::new();
        files.read(&written.name, 7).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [5; 300]);
        let error = files.read(&written.name, 8).unwrap_err();
        assert!(error.to_string().contains("--new-model"), "{error}");
        assert!(matches!(files.read("none", 7), Err(CheckpointError::Damaged { .. })));
    }

    #[test]
    fn damage_anywhere_is_found_before_anything_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let files = NumberedFiles::open(folder.path(), ".parameters", 2).unwrap();
        let path = folder.path().join(write(&files, 1).name);
        let sound = std::fs::read(&path).unwrap();
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert!(files.read("000000000001.parameters", 7).is_err(), "byte {at}");
            std::fs::write(&path, &sound[..at]).unwrap();
            assert!(files.read("000000000001.parameters", 7).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_file_in_force_and_those_behind_it_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let files = NumberedFiles::open(folder.path(), ".parameters", 2).unwrap();
        let written: Vec<String> = (1..=5).map(|number| write(&files, number).name).collect();
        files.retain(&written[3]).unwrap();
        // The fifth was written, but its commit is not known yet.
        assert_eq!(names(&files), written[2..]);
    }

    #[test]
    fn an_interrupted_write_is_swept_away() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("000000000009.parameters.new");
        std::fs::write(&left, b"half").unwrap();
        std::fs::write(folder.path().join("db"), b"not ours").unwrap();
        let files = NumberedFiles::open(folder.path(), ".parameters", 2).unwrap();
        assert_eq!(names(&files), ["db"]);
    }
}
