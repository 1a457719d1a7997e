//! The store on disk: one sled tree in one folder.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::framing::unframe;
use super::keys::{FORMAT, Meta};
use super::place::{FREE_BYTES, prepare, remove_snapshots};
use super::{Batch, Store, StoreError};

/// The file that says that the store was written to.
const MARKER: &str = "written";
/// How long a folder in use is waited for: after its owner is gone, sled's own threads hold it for a moment.
const RELEASE: Duration = Duration::from_secs(1);
/// Between two looks whether it is free.
const LOOK: Duration = Duration::from_millis(10);

/// sled in a folder. Dropping it releases the folder.
#[derive(Debug)]
pub struct SledStore {
    path: PathBuf,
    database: sled::Db,
}

impl SledStore {
    /// Opens the store in a folder, making it when it is missing, with so many bytes of cache (sled takes about twice that).
    ///
    /// # Errors
    /// [`StoreError::Full`] below [`FREE_BYTES`] of room, [`StoreError::InUse`] when another process has it for longer than a moment,
    /// [`StoreError::Damaged`].
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        Self::open_with_room(path, cache_bytes, FREE_BYTES)
    }

    fn open_with_room(path: &Path, cache_bytes: u64, room: u64) -> Result<Self, StoreError> {
        prepare(path, room)?;
        let first = open_when_free(path, cache_bytes);
        let database = match first {
            Err(error) if error.is_damage() && drops_snapshots(path) => open(path, cache_bytes)?,
            other => other?,
        };
        let store = Self { path: path.into(), database };
        store.check_format()?;
        Ok(store)
    }

    /// Makes sure that what was opened is what was written: with its first blocks damaged, sled opens an empty store instead of none.
    /// A new store gets its format's version, and then a file beside it that says so.
    fn check_format(&self) -> Result<(), StoreError> {
        let marker = self.path.join(MARKER);
        let failed =
            |source| StoreError::Io { path: self.path.clone(), action: "be marked", source };
        let Some(found) = self.get(&Meta::Format.key())? else {
            if marker.exists() {
                let what = "it holds data, but nothing can be read back".into();
                return Err(StoreError::Damaged { path: self.path.clone(), what });
            }
            let mut batch = Batch::default();
            batch.put(Meta::Format.key(), FORMAT.to_le_bytes());
            self.apply(batch)?;
            self.flush()?;
            return File::create(marker).and_then(|file| file.sync_all()).map_err(failed);
        };
        let found = found.try_into().map_or(0, u32::from_le_bytes);
        if found != FORMAT {
            let remedy =
                "start the version that wrote it, or set checkpoint.path to another folder";
            return Err(StoreError::Format {
                path: self.path.clone(),
                found,
                expected: FORMAT,
                remedy,
            });
        }
        if !marker.exists() {
            File::create(marker).and_then(|file| file.sync_all()).map_err(failed)?;
        }
        Ok(())
    }

    fn failed(&self, action: &'static str) -> impl Fn(sled::Error) -> StoreError + '_ {
        move |error| in_words(&self.path, action, error)
    }

    fn sound<'a>(&self, key: &[u8], framed: &'a [u8]) -> Result<&'a [u8], StoreError> {
        unframe(framed).ok_or_else(|| StoreError::Damaged {
            path: self.path.clone(),
            what: format!("wrong checksum at key {key:02x?}"),
        })
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let framed = self.database.get(key).map_err(self.failed("read"))?;
        framed.map(|framed| self.sound(key, &framed).map(<[u8]>::to_vec)).transpose()
    }

    fn scan_prefix(
        &self,
        prefix: &[u8],
        see: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        for entry in self.database.scan_prefix(prefix) {
            let (key, framed) = entry.map_err(self.failed("read"))?;
            if !see(&key, self.sound(&key, &framed)?) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch.changes {
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        self.database.apply_batch(changes).map_err(self.failed("write"))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.database.flush().map(|_| ()).map_err(self.failed("flush"))
    }

    fn bytes(&self) -> Result<u64, StoreError> {
        self.database.size_on_disk().map_err(self.failed("tell its size"))
    }
}

fn open_when_free(path: &Path, cache_bytes: u64) -> Result<sled::Db, StoreError> {
    let begun = Instant::now();
    loop {
        match open(path, cache_bytes) {
            Err(StoreError::InUse { .. }) if begun.elapsed() < RELEASE => sleep(LOOK),
            opened => return opened,
        }
    }
}

/// Opens sled. It panics on some damage where it should return an error: both are the same to us.
fn open(path: &Path, cache_bytes: u64) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new().path(path).cache_capacity(cache_bytes).flush_every_ms(None);
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(opened) => opened.map_err(|error| in_words(path, "be opened", error)),
        Err(_) => Err(StoreError::Damaged {
            path: path.into(),
            what: "sled panicked while opening it".into(),
        }),
    }
}

fn drops_snapshots(path: &Path) -> bool {
    remove_snapshots(path).unwrap_or(false)
}

fn in_words(path: &Path, action: &'static str, error: sled::Error) -> StoreError {
    let path = path.to_path_buf();
    match error {
        sled::Error::Corruption { at, .. } => {
            let place = at.map(|at| format!(" at {at:?}")).unwrap_or_default();
            StoreError::Damaged { path, what: format!("sled reports corruption{place}") }
        }
        // sled tells a held lock by an error of kind Other with these words.
        sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => {
            StoreError::InUse { path }
        }
        sled::Error::Io(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
            StoreError::Damaged { path, what: "a file ends too early".into() }
        }
        sled::Error::Io(source) => StoreError::Io { path, action, source },
        sled::Error::ReportableBug(what) => StoreError::Damaged { path, what },
        other => StoreError::Io { path, action, source: std::io::Error::other(other.to_string()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opening_and_a_full_disk_are_told_clearly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let store = SledStore::open_with_room(&path, 1 << 20, 0).unwrap();
        let error = SledStore::open_with_room(&path, 1 << 20, 0).unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
        drop(store);
        let error = SledStore::open_with_room(&path, 1 << 20, u64::MAX).unwrap_err();
        assert!(error.to_string().contains("make room"), "{error}");
    }

    #[test]
    fn what_was_flushed_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open_with_room(folder.path(), 1 << 20, 0).unwrap();
        let mut batch = Batch::default();
        batch.put(*b"key", b"value");
        store.apply(batch).unwrap();
        store.flush().unwrap();
        assert!(store.bytes().unwrap() > 0);
        drop(store);
        let store = SledStore::open_with_room(folder.path(), 1 << 20, 0).unwrap();
        assert_eq!(store.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    }

    #[test]
    fn another_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open_with_room(folder.path(), 1 << 20, 0).unwrap();
        let mut batch = Batch::default();
        batch.put(Meta::Format.key(), 99u32.to_le_bytes());
        store.apply(batch).unwrap();
        store.flush().unwrap();
        drop(store);
        let error = SledStore::open_with_room(folder.path(), 1 << 20, 0).unwrap_err();
        assert!(matches!(error, StoreError::Format { found: 99, .. }), "{error:?}");
    }

    #[test]
    fn damage_is_told_or_an_earlier_state_but_never_a_mixture() {
        let mut noticed = 0;
        for seed in 0u64..12 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state");
            let store = SledStore::open_with_room(&path, 1 << 20, 0).unwrap();
            let key = |i: u32| i.to_be_bytes();
            let value = |i: u32| vec![i as u8; 100 + i as usize % 50];
            for i in 0..500 {
                let mut batch = Batch::default();
                batch.put(key(i), value(i));
                store.apply(batch).unwrap();
            }
            store.flush().unwrap();
            drop(store);
            let file = path.join("db");
            let mut bytes = std::fs::read(&file).unwrap();
            let at = seed as usize * 8192;
            bytes[at..at + 8192].iter_mut().step_by(97).for_each(|byte| *byte ^= 0xff);
            std::fs::write(&file, bytes).unwrap();
            let Ok(store) = SledStore::open_with_room(&path, 1 << 20, 0) else {
                noticed += 1;
                assert!(super::super::quarantine(&path, &seed.to_string()).unwrap().exists());
                assert!(SledStore::open_with_room(&path, 1 << 20, 0).is_ok());
                continue;
            };
            let mut gone = false;
            for i in 0..500 {
                match store.get(&key(i)) {
                    // Damage in the last part of the log looks like a torn end: sled goes back to before it.
                    Ok(Some(found)) => assert!(!gone && found == value(i), "block {seed}, key {i}"),
                    Ok(None) => gone = true,
                    Err(error) => {
                        noticed += 1;
                        assert!(error.is_damage(), "{error:?}");
                        break;
                    }
                }
            }
        }
        assert!(noticed > 0);
    }
}
