//! Numbered files beside the store, each kind with an ending of its own, for the parameters and for the state that is written as a whole: a
//! header, then checked blocks.
//!
//! ```text
//! [magic 8][format u32][fingerprint u64][crc u32 of these][number u64][base u64][crc u32 of all these] [blocks ...]
//! ```
//!
//! `base` is the digest of the file that this one builds on, 0 for none.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use sluice_features::ids::salted_hash;

use super::CheckpointError;
use super::blocks::{BlockReader, BlockWriter};
use super::durable::{UNFINISHED, replace};

const MAGIC: [u8; 8] = *b"SLUICEP\n";
const FORMAT: u32 = 7;
const HEADER: usize = 44;
/// Digits of a number in a name.
const DIGITS: usize = 12;

/// The files of one kind, in one folder.
#[derive(Clone, Debug)]
pub(super) struct NumberedFiles {
    folder: PathBuf,
    ending: &'static str,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Its name, which a [`super::Commit`] holds.
    pub(super) name: String,
    /// Its size.
    pub(super) bytes: u64,
    /// A number that it has in common with no other file, but for chance.
    pub(super) digest: u64,
}

/// A file that is being read; every block is checked before its bytes are handed out.
#[derive(Debug)]
pub struct Checked {
    path: PathBuf,
    header: [u8; HEADER],
    reader: BlockReader<BufReader<File>>,
}

impl NumberedFiles {
    /// Opens the folder, making it when it is missing, and removes what an interrupted write of a file with this ending has left.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub(super) fn open(folder: &Path, ending: &'static str) -> Result<Self, CheckpointError> {
        std::fs::create_dir_all(folder).map_err(CheckpointError::io("make the folder", folder))?;
        let files = Self { folder: folder.into(), ending };
        for name in files.names()? {
            if name.ends_with(&format!("{ending}{UNFINISHED}")) {
                files.remove_named(&name)?;
            }
        }
        Ok(files)
    }

    /// Returns the name of the file with this number.
    pub(super) fn name(&self, number: u64) -> String {
        format!("{number:0DIGITS$}{}", self.ending)
    }

    /// Writes the file of the checkpoint `number`, which builds on the one with the digest `base`. When this returns the file is on the disk, whole.
    ///
    /// # Errors
    /// When the disk fails or is full. Files that were there before are untouched.
    pub(super) fn write(
        &self,
        number: u64,
        fingerprint: u64,
        base: u64,
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<Written, CheckpointError> {
        let (name, header) = (self.name(number), header(fingerprint, number, base));
        let mut blocks_digest = 0;
        let bytes = replace(&self.folder.join(&name), |file| {
            file.write_all(&header)?;
            let mut blocks = BlockWriter::new(file);
            write(&mut blocks)?;
            blocks_digest = blocks.finish()?;
            Ok(())
        })?;
        Ok(Written { name, bytes, digest: digest(&header, blocks_digest) })
    }

    /// Checks all of the file of this name, and that it builds on the one with the digest `base`.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] anywhere in the file, [`CheckpointError::Foreign`] for another fingerprint or format.
    pub(super) fn check(
        &self,
        name: &str,
        fingerprint: u64,
        base: u64,
    ) -> Result<Written, CheckpointError> {
        let mut whole = self.begin(name, fingerprint, base)?;
        let mut buffer = vec![0; 1 << 16];
        while whole.read(&mut buffer).map_err(|error| whole.failed(error))? > 0 {}
        let meta = std::fs::metadata(&whole.path);
        let bytes = meta.map_err(CheckpointError::io("read", &whole.path))?.len();
        let digest = digest(&whole.header, whole.reader.digest());
        Ok(Written { name: name.to_owned(), bytes, digest })
    }

    /// Opens the file of this name, after checking all of it.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(super) fn read(&self, name: &str, fingerprint: u64) -> Result<Checked, CheckpointError> {
        self.check(name, fingerprint, 0)?;
        self.begin(name, fingerprint, 0)
    }

    /// Removes the oldest files, so that `keep` are left, the one in force and those behind it among them.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(super) fn retain(&self, in_force: &str, keep: usize) -> Result<(), CheckpointError> {
        let mut numbers = self.numbers()?;
        numbers.retain(|&number| self.name(number).as_str() <= in_force);
        numbers.iter().rev().skip(keep).try_for_each(|&number| self.remove(number))
    }

    /// Opens the file of this name, whose header is checked. Blocks are as they are read.
    ///
    /// # Errors
    /// As [`Self::check`], for the header.
    pub(super) fn begin(
        &self,
        name: &str,
        fingerprint: u64,
        base: u64,
    ) -> Result<Checked, CheckpointError> {
        let path = self.folder.join(name);
        let file = File::open(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => {
                CheckpointError::Damaged { path: path.clone(), what: "it is not there".into() }
            }
            _ => CheckpointError::Io { action: "open", path: path.clone(), source },
        })?;
        let mut file = BufReader::new(file);
        let header = check_header(&mut file, &path, fingerprint, base)?;
        Ok(Checked { path, header, reader: BlockReader::new(file) })
    }

    /// Returns the numbers of all files of this kind, ascending.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn numbers(&self) -> Result<Vec<u64>, CheckpointError> {
        let mut names = self.names()?;
        names.retain(|name| name.ends_with(self.ending));
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes the file with this number.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(super) fn remove(&self, number: u64) -> Result<(), CheckpointError> {
        self.remove_named(&self.name(number))
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

    fn remove_named(&self, name: &str) -> Result<(), CheckpointError> {
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

/// The number in a name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.get(..DIGITS)?.parse().ok()
}

fn header(fingerprint: u64, number: u64, base: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..20].copy_from_slice(&fingerprint.to_le_bytes());
    let crc = crc32fast::hash(&header[..20]);
    header[20..24].copy_from_slice(&crc.to_le_bytes());
    header[24..32].copy_from_slice(&number.to_le_bytes());
    header[32..40].copy_from_slice(&base.to_le_bytes());
    let crc = crc32fast::hash(&header[..40]);
    header[40..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// The digest of a file with this header and blocks of this digest.
fn digest(header: &[u8; HEADER], blocks: u32) -> u64 {
    salted_hash(u64::from(blocks), header)
}

fn check_header(
    file: &mut impl Read,
    path: &Path,
    fingerprint: u64,
    base: u64,
) -> Result<[u8; HEADER], CheckpointError> {
    let damaged = |what: String| CheckpointError::Damaged { path: path.into(), what };
    let mut found = [0; HEADER];
    file.read_exact(&mut found).map_err(|_| damaged("its header is cut off".into()))?;
    let word = |from: usize| {
        u32::from_le_bytes([found[from], found[from + 1], found[from + 2], found[from + 3]])
    };
    let long = |from: usize| u64::from(word(from)) | u64::from(word(from + 4)) << 32;
    // The first part is the same in all formats.
    if found[..8] != MAGIC || crc32fast::hash(&found[..20]) != word(20) {
        return Err(damaged("its header is not one of ours".into()));
    }
    let foreign = |what, found, expected, remedy| {
        Err(CheckpointError::Foreign { path: path.into(), what, found, expected, remedy })
    };
    if word(8) != FORMAT {
        let remedy = "start the version that wrote it";
        return foreign("format", u64::from(word(8)), u64::from(FORMAT), remedy);
    }
    if crc32fast::hash(&found[..40]) != word(40) {
        return Err(damaged("its header has a wrong checksum".into()));
    }
    if long(12) != fingerprint {
        let remedy =
            "go back to the configuration it was made with, or start anew with --new-model";
        return foreign("fingerprint", long(12), fingerprint, remedy);
    }
    let name = path.file_name().and_then(|name| name.to_str()).and_then(number_of);
    if name != Some(long(24)) {
        return Err(damaged(format!("it was written as number {}", long(24))));
    }
    if long(32) != base {
        return Err(damaged(format!(
            "it builds on the file with the digest {:016x}, the one before it has {base:016x}",
            long(32)
        )));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &NumberedFiles, number: u64) -> Written {
        files.write(number, 7, 0, |file| file.write_all(&[number as u8; 300])).unwrap()
    }

    fn names(files: &NumberedFiles) -> Vec<String> {
        let mut names = files.names().unwrap();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_read_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let files = NumberedFiles::open(folder.path(), ".parameters").unwrap();
        let written = write(&files, 5);
        assert_eq!(written.name, "000000000005.parameters");
        assert_eq!(written.bytes, HEADER as u64 + 8 + 300 + 8);
        assert_eq!(files.check(&written.name, 7, 0).unwrap(), written);
        let mut bytes = Vec::new();
        files.read(&written.name, 7).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [5; 300]);
        let error = files.read(&written.name, 8).unwrap_err();
        assert!(error.to_string().contains("--new-model"), "{error}");
        assert!(matches!(files.read("none", 7), Err(CheckpointError::Damaged { .. })));
    }

    #[test]
    fn a_file_under_another_name_or_behind_another_file_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let files = NumberedFiles::open(folder.path(), ".changes").unwrap();
        let first = write(&files, 1);
        let behind = |number: u64, base: u64| {
            files.write(number, 7, base, |file| file.write_all(b"changes")).unwrap()
        };
        let second = behind(2, first.digest);
        assert_eq!(files.check(&second.name, 7, first.digest).unwrap(), second);
        assert_ne!(behind(2, first.digest + 1).digest, second.digest);
        assert_ne!(behind(3, first.digest).digest, second.digest);
        let told = |name: &str, base: u64| match files.check(name, 7, base) {
            Err(CheckpointError::Damaged { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert!(told(&files.name(3), second.digest).contains("it builds on"));
        assert!(told(&files.name(3), 0).contains("it builds on"));
        std::fs::copy(folder.path().join(files.name(3)), folder.path().join(files.name(4)))
            .unwrap();
        assert_eq!(told(&files.name(4), first.digest), "it was written as number 3");
    }

    #[test]
    fn damage_anywhere_is_found_before_anything_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let files = NumberedFiles::open(folder.path(), ".parameters").unwrap();
        let path = folder.path().join(write(&files, 1).name);
        let sound = std::fs::read(&path).unwrap();
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            let error = files.read("000000000001.parameters", 7).unwrap_err();
            assert!(matches!(error, CheckpointError::Damaged { .. }), "byte {at}");
            std::fs::write(&path, &sound[..at]).unwrap();
            assert!(files.read("000000000001.parameters", 7).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_file_in_force_and_those_behind_it_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let files = NumberedFiles::open(folder.path(), ".state").unwrap();
        let written: Vec<String> = (1..=5).map(|number| write(&files, number).name).collect();
        files.retain(&written[3], 2).unwrap();
        // The fifth was written, but its commit is not known yet.
        assert_eq!(names(&files), written[2..]);
    }

    #[test]
    fn an_interrupted_write_is_swept_away() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("000000000009.parameters.new");
        std::fs::write(&left, b"half").unwrap();
        std::fs::write(folder.path().join("db"), b"not ours").unwrap();
        let files = NumberedFiles::open(folder.path(), ".parameters").unwrap();
        assert_eq!(names(&files), ["db"]);
    }
}
