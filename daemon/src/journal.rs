//! Journals: append-only files of small entries, as records of decisions and captures of input.
//!
//! ```text
//! [magic 8] ([length u32][crc u32][entry, postcard])*
//! ```
//!
//! A crash may tear the last entries: a reader takes the sound beginning, and a writer that goes on cuts the rest off. The size is
//! bounded: a full journal takes nothing more, and says so.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Stop;

const MAGIC: [u8; 8] = *b"SLUICEJ2";
const FRAME: u64 = 8;
/// No entry is longer: a record is at most a few MiB.
const MOST: usize = 64 << 20;

/// Why a journal cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk fails or is full.
    #[error("cannot {action} the journal {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file is no journal.
    #[error("{path} is no journal of this version")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// An entry does not read as what is expected.
    #[error("entry {number} of the journal {path} is not of the expected form")]
    Form {
        /// Which one, from 0.
        number: u64,
        /// The file.
        path: PathBuf,
    },
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Io { .. } => Self::fault("a journal failed").because(error),
            _ => Self::data("a journal cannot be read").because(error),
        }
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Appended {
    /// It is in the journal.
    Written,
    /// It would not fit: nothing was written, and nothing more will be.
    Full,
}

/// Appends entries of the type `T`.
#[derive(Debug)]
pub struct JournalWriter<T> {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    most: u64,
    full: bool,
    entry: Vec<u8>,
    entries: PhantomData<fn(&T)>,
}

impl<T: Serialize> JournalWriter<T> {
    /// Makes a new journal of at most so many bytes, in place of what is there.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path, most: u64) -> Result<Self, JournalError> {
        let file = File::create(path).map_err(failed("make", path))?;
        let mut writer = Self::over(path, file, most, 0);
        writer.file.write_all(&MAGIC).map_err(failed("write", path))?;
        writer.bytes = MAGIC.len() as u64;
        Ok(writer)
    }

    /// Goes on behind the sound entries of a journal, cutting off what a crash has torn. Makes it when it is missing.
    ///
    /// # Errors
    /// When the file cannot be opened, or is no journal of entries of this type.
    pub fn append_to(path: &Path, most: u64) -> Result<Self, JournalError>
    where
        T: DeserializeOwned,
    {
        if !path.exists() {
            return Self::create(path, most);
        }
        let mut reader = JournalReader::<T>::open(path)?;
        while reader.read()?.is_some() {}
        let sound = reader.bytes;
        if sound == 0 {
            return Self::create(path, most);
        }
        let opened = || OpenOptions::new().write(true).open(path);
        let mut file = opened().map_err(failed("open", path))?;
        file.set_len(sound).map_err(failed("cut", path))?;
        file.seek(SeekFrom::End(0)).map_err(failed("open", path))?;
        Ok(Self::over(path, file, most, sound))
    }

    fn over(path: &Path, file: File, most: u64, bytes: u64) -> Self {
        Self {
            path: path.into(),
            file: BufWriter::with_capacity(1 << 16, file),
            bytes,
            most,
            full: false,
            entry: Vec::new(),
            entries: PhantomData,
        }
    }

    /// Appends an entry, in memory until the next [`Self::flush`].
    ///
    /// # Errors
    /// When the disk fails, or the entry cannot be encoded.
    pub fn append(&mut self, entry: &T) -> Result<Appended, JournalError> {
        self.entry.clear();
        let encoded = postcard::to_extend(entry, std::mem::take(&mut self.entry))
            .map_err(|error| failed("encode an entry of", &self.path)(io::Error::other(error)))?;
        let length = FRAME + encoded.len() as u64;
        self.full |= self.bytes + length > self.most || encoded.len() > MOST;
        if self.full {
            self.entry = encoded;
            return Ok(Appended::Full);
        }
        let mut frame = [0; FRAME as usize];
        // At most MOST, so it fits.
        frame[..4].copy_from_slice(&(encoded.len() as u32).to_le_bytes());
        frame[4..].copy_from_slice(&crc32fast::hash(&encoded).to_le_bytes());
        let written = self.file.write_all(&frame).and_then(|()| self.file.write_all(&encoded));
        self.entry = encoded;
        written.map_err(failed("write", &self.path))?;
        self.bytes += length;
        Ok(Appended::Written)
    }

    /// Hands everything to the system: it survives the end of the process, not that of the machine.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        self.file.flush().map_err(failed("write", &self.path))
    }

    /// Puts everything on the disk.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.flush()?;
        self.file.get_ref().sync_data().map_err(failed("sync", &self.path))
    }

    /// Changes how many bytes the journal may have.
    pub fn bound(&mut self, most: u64) {
        self.most = most;
    }

    /// Returns how many bytes the journal has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Reads entries of the type `T`.
#[derive(Debug)]
pub struct JournalReader<T> {
    path: PathBuf,
    file: BufReader<File>,
    bytes: u64,
    length: u64,
    number: u64,
    entry: Vec<u8>,
    ended: bool,
    entries: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> JournalReader<T> {
    /// Opens a journal.
    ///
    /// # Errors
    /// When the file cannot be read, or is no journal.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let file = File::open(path).map_err(failed("open", path))?;
        let length = file.metadata().map_err(failed("open", path))?.len();
        let mut file = BufReader::with_capacity(1 << 16, file);
        let mut magic = [0; MAGIC.len()];
        match file.read_exact(&mut magic) {
            // A crash right after making the file leaves it empty: no entries.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && length == 0 => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(failed("read", path)(error));
            }
            Ok(()) if magic == MAGIC => {}
            _ => return Err(JournalError::Foreign { path: path.into() }),
        }
        Ok(Self {
            path: path.into(),
            file,
            bytes: length.min(MAGIC.len() as u64),
            length,
            number: 0,
            entry: Vec::new(),
            ended: false,
            entries: PhantomData,
        })
    }

    /// Returns the next entry; `None` at the end of what is sound.
    ///
    /// # Errors
    /// When the disk fails, or a sound entry is not of type `T`.
    pub fn read(&mut self) -> Result<Option<T>, JournalError> {
        if self.ended || !self.next_sound().map_err(failed("read", &self.path))? {
            self.ended = true;
            return Ok(None);
        }
        let entry = postcard::from_bytes(&self.entry)
            .map_err(|_| JournalError::Form { number: self.number, path: self.path.clone() })?;
        self.bytes += FRAME + self.entry.len() as u64;
        self.number += 1;
        Ok(Some(entry))
    }

    /// Returns, at the end, how many bytes behind the sound entries a crash has torn.
    pub fn torn(&self) -> u64 {
        if self.ended { self.length.saturating_sub(self.bytes) } else { 0 }
    }

    /// Reads the bytes of the next entry. Returns false when they are not all there, or not what their checksum says.
    fn next_sound(&mut self) -> io::Result<bool> {
        let mut frame = [0; FRAME as usize];
        if !fill(&mut self.file, &mut frame)? {
            return Ok(false);
        }
        let [l0, l1, l2, l3, c0, c1, c2, c3] = frame;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        // A lost power leaves zeros where bytes were to be: no entry is of none.
        if length == 0 || length > MOST || self.bytes + FRAME + length as u64 > self.length {
            return Ok(false);
        }
        self.entry.resize(length, 0);
        let whole = fill(&mut self.file, &mut self.entry)?;
        Ok(whole && crc32fast::hash(&self.entry) == u32::from_le_bytes([c0, c1, c2, c3]))
    }
}

impl<T: DeserializeOwned> Iterator for JournalReader<T> {
    type Item = Result<T, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read();
        self.ended |= read.is_err();
        read.transpose()
    }
}

/// Fills a buffer. Returns false when the file ends before.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_path_buf();
    move |source| JournalError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Entry {
        Cut { after: u64 },
        Record(Vec<u8>),
    }

    fn entries() -> Vec<Entry> {
        (0..20)
            .flat_map(|i| [Entry::Cut { after: i }, Entry::Record(vec![7; i as usize])])
            .collect()
    }

    fn read(path: &Path) -> Vec<Entry> {
        JournalReader::open(path).unwrap().map(Result::unwrap).collect()
    }

    fn written(path: &Path) {
        let mut writer = JournalWriter::create(path, 1 << 20).unwrap();
        for entry in entries() {
            assert_eq!(writer.append(&entry).unwrap(), Appended::Written);
        }
        writer.sync().unwrap();
        assert_eq!(writer.bytes(), std::fs::metadata(path).unwrap().len());
    }

    #[test]
    fn a_torn_end_is_left_out_and_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        written(&path);
        let whole = std::fs::read(&path).unwrap();
        for cut in MAGIC.len()..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let sound = read(&path);
            assert_eq!(sound, entries()[..sound.len()]);
            let mut reader = JournalReader::<Entry>::open(&path).unwrap();
            while reader.read().unwrap().is_some() {}
            assert_eq!(reader.bytes + reader.torn(), cut as u64);
            let mut writer = JournalWriter::append_to(&path, 1 << 20).unwrap();
            assert_eq!(writer.append(&Entry::Cut { after: 99 }).unwrap(), Appended::Written);
            drop(writer);
            let mut expected = sound.clone();
            expected.push(Entry::Cut { after: 99 });
            assert_eq!(read(&path), expected);
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(read(&path), entries());
    }

    #[test]
    fn zeros_that_a_lost_power_leaves_are_no_entries() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        written(&path);
        let whole = std::fs::read(&path).unwrap();
        for zeros in [1, FRAME as usize, 5000] {
            std::fs::write(&path, [&whole[..], &vec![0; zeros]].concat()).unwrap();
            assert_eq!(read(&path), entries());
        }
    }

    #[test]
    fn damage_ends_the_sound_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        written(&path);
        let whole = std::fs::read(&path).unwrap();
        for at in MAGIC.len()..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            let sound = read(&path);
            assert!(sound.len() < entries().len());
            assert_eq!(sound, entries()[..sound.len()]);
        }
    }

    #[test]
    fn a_full_journal_takes_nothing_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut writer = JournalWriter::create(&path, 100).unwrap();
        assert_eq!(writer.append(&Entry::Record(vec![1; 60])).unwrap(), Appended::Written);
        assert_eq!(writer.append(&Entry::Record(vec![1; 60])).unwrap(), Appended::Full);
        assert_eq!(writer.append(&Entry::Cut { after: 1 }).unwrap(), Appended::Full);
        writer.flush().unwrap();
        assert_eq!(read(&path).len(), 1);
    }

    #[test]
    fn another_file_is_refused_and_an_empty_one_has_no_entries() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        std::fs::write(&path, b"something else").unwrap();
        assert!(matches!(JournalReader::<Entry>::open(&path), Err(JournalError::Foreign { .. })));
        std::fs::write(&path, b"").unwrap();
        assert_eq!(read(&path), []);
        let mut writer = JournalWriter::append_to(&path, 100).unwrap();
        assert_eq!(writer.append(&Entry::Cut { after: 1 }).unwrap(), Appended::Written);
        drop(writer);
        assert_eq!(read(&path), [Entry::Cut { after: 1 }]);
    }
}
