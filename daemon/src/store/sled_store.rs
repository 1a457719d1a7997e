//! The store on disk: one sled tree in one folder.
//!
//! sled takes what it has handed to the system (`sync_file_range`) as lasting: it overwrites what that replaces, and notes in what it writes
//! next that the rest is there. A power loss may lose the one and keep the other, and then sled opens damaged, or without a word with a
//! mixture. So everything that was written is really synced before anything is written that may count on it:
//!
//! | what is written | counts on | so |
//! |---|---|---|
//! | a batch, whatever its length | nothing of itself before it is complete | [`SledStore::apply`] syncs before it and behind it |
//! | nodes that are split and merged when somebody next comes by, a reader too | each other, after 512 KiB | the one who applies comes by first, and syncs after every few |
//! | files beside the log | nothing, and the log on them | there are none ([`super::parts`]) |
//!
//! Files are synced one by one. `syncfs` would wait for all that others write to the same file system.
//!
//! A sync that has failed is not tried again: the system forgets what it could not write, and the next one would succeed. The store is
//! of no use from then on.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::framing::unframe;
use super::keys::{FORMAT, Meta};
use super::place::{
    FREE_BYTES, LOG, begin_anew, prepare, remove_snapshots, settle, sync_blobs, sync_files,
    sync_folder,
};
use super::{Batch, Store, StoreError, parts};

/// The file that says that the store was written to, and with which format.
const MARKER: &str = "written";
/// How long a folder in use is waited for: after its owner is gone, sled's own threads hold it for a moment.
const RELEASE: Duration = Duration::from_secs(1);
/// Between two looks whether it is free.
const LOOK: Duration = Duration::from_millis(10);
/// So many times nodes are split or merged between two syncs: far from 512 KiB, for a node has some 100 KiB at most.
const RESHAPED: u32 = 3;

/// sled in a folder. Dropping it releases the folder, unless the disk has failed.
#[derive(Debug)]
pub struct SledStore {
    path: PathBuf,
    database: sled::Db,
    /// sled's log, open since before anything was written: it hears of every write that fails.
    log: File,
    /// Which keys may have parts ([`parts::kind_of`]). Held, it keeps readers of a value in several keys from seeing it change.
    long: RwLock<BTreeSet<[u8; 2]>>,
    failed: AtomicBool,
}

impl SledStore {
    /// Opens the store in a folder, making it when it is missing, with so many bytes of cache (sled takes about twice that).
    ///
    /// # Errors
    /// [`StoreError::Full`] below [`FREE_BYTES`] of room, [`StoreError::InUse`] when another process has it for longer than a moment,
    /// [`StoreError::Unusable`] for a folder that this process may not write to, [`StoreError::Damaged`].
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        Self::open_with_room(path, cache_bytes, FREE_BYTES)
    }

    fn open_with_room(path: &Path, cache_bytes: u64, room: u64) -> Result<Self, StoreError> {
        prepare(path, room)?;
        check_marker(path)?;
        let first = open_when_free(path, cache_bytes);
        let database = match first {
            Err(error) if error.is_damage() && begins_anew(path) => open(path, cache_bytes)?,
            Err(error) if error.is_damage() && drops_snapshots(path) => open(path, cache_bytes)?,
            other => other?,
        };
        let failed = |source| StoreError::of_folder(path, "be opened", source);
        let log = File::open(path.join(LOG)).map_err(failed)?;
        // sled does not sync all that it makes and renames while it opens.
        sync_files(path).map_err(failed)?;
        let long = long(&database).map_err(|error| in_words(path, "be opened", error))?;
        let (long, failed) = (RwLock::new(long), AtomicBool::new(false));
        let store = Self { path: path.into(), database, log, long, failed };
        store.check_format()?;
        Ok(store)
    }

    /// Makes sure that what was opened is what was written: with its first blocks damaged, sled opens an empty store instead of none.
    /// A new store gets its format's version, and then a file beside it that says so.
    fn check_format(&self) -> Result<(), StoreError> {
        let marker = self.path.join(MARKER);
        let Some(found) = self.get(&Meta::Format.key())? else {
            if marker.exists() {
                let what = "it holds data, but nothing can be read back".into();
                return Err(StoreError::Damaged { path: self.path.clone(), what });
            }
            let mut batch = Batch::default();
            batch.put(Meta::Format.key(), FORMAT.to_le_bytes());
            self.apply(batch)?;
            self.flush()?;
            return self.mark(&marker);
        };
        let found = found.try_into().map_or(0, u32::from_le_bytes);
        if found != FORMAT {
            return Err(StoreError::of_format(&self.path, found));
        }
        // A power loss between the two.
        if marker.exists() { Ok(()) } else { self.mark(&marker) }
    }

    fn mark(&self, marker: &Path) -> Result<(), StoreError> {
        let unfinished = marker.with_extension("new");
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(FORMAT.to_string().as_bytes())?;
            file.sync_all()
        });
        let named = written.and_then(|()| std::fs::rename(&unfinished, marker));
        let lasting = named.and_then(|()| sync_folder(&self.path));
        lasting.map_err(|source| StoreError::of_folder(&self.path, "be marked", source))
    }

    fn failed(&self, action: &'static str) -> impl Fn(sled::Error) -> StoreError + '_ {
        move |error| in_words(&self.path, action, error)
    }

    /// Takes note that the disk has failed, where it has.
    fn noting<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        result
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) {
            let source = io::Error::other("it has failed before");
            return Err(StoreError::Io { path: self.path.clone(), action: "go on", source });
        }
        Ok(())
    }

    /// Syncs once sled has reshaped its tree some times. `reshaped` counts.
    fn keep_up(&self, reshaped: &mut u32) -> Result<(), StoreError> {
        if self.database.flush().map_err(self.failed("flush"))? > 0 {
            *reshaped += 1;
        }
        if *reshaped < RESHAPED {
            return Ok(());
        }
        *reshaped = 0;
        let failed = |source| StoreError::Io { path: self.path.clone(), action: "sync", source };
        self.log.sync_all().map_err(failed)
    }

    fn sync(&self) -> Result<(), StoreError> {
        let failed = |source| StoreError::Io { path: self.path.clone(), action: "sync", source };
        self.database.flush().map_err(self.failed("flush"))?;
        sync_blobs(&self.path).map_err(failed)?;
        self.log.sync_all().map_err(failed)?;
        sync_folder(&self.path).map_err(failed)
    }

    /// Returns the value of a key by what is stored under it.
    fn value(&self, key: &[u8], stored: &[u8]) -> Result<Vec<u8>, StoreError> {
        let unsound = |what: &str| StoreError::Damaged {
            path: self.path.clone(),
            what: format!("{what} at key {key:02x?}"),
        };
        let count = parts::count(stored);
        let mut whole = Vec::new();
        for part in parts::keys(key, count) {
            let part = self.database.get(part).map_err(self.failed("read"))?;
            whole.extend_from_slice(&part.ok_or_else(|| unsound("a part is missing"))?);
        }
        let framed = if count == 0 { stored } else { &whole };
        unframe(framed).map(<[u8]>::to_vec).ok_or_else(|| unsound("wrong checksum"))
    }

    /// Makes a batch last.
    fn make(&self, batch: Batch) -> Result<(), StoreError> {
        self.sync()?;
        let (keys, changes) = self.changes(batch)?;
        {
            let mut long = self.long.write();
            long.extend(keys.iter().filter_map(|key| parts::kind(key)));
            self.database.apply_batch(changes).map_err(self.failed("write"))?;
        }
        self.sync()?;
        let mut reshaped = 0;
        for key in keys {
            self.database.contains_key(key).map_err(self.failed("read"))?;
            self.keep_up(&mut reshaped)?;
        }
        Ok(())
    }

    /// Returns the changes as sled takes them, and the keys that they are about: long values in parts, without the parts of the values that go.
    fn changes(&self, mut batch: Batch) -> Result<(Vec<Vec<u8>>, sled::Batch), StoreError> {
        // Each key once: parts are told by what is stored before the batch.
        batch.keep_newest();
        let long = self.long.read();
        let (mut keys, mut changes) = (Vec::new(), sled::Batch::default());
        for (key, value) in batch.changes {
            let before = match parts::kind_of(&key).is_some_and(|kind| long.contains(&kind)) {
                true => self.database.get(&key).map_err(self.failed("read"))?,
                false => None,
            };
            let before = before.map_or(0, |stored| parts::count(&stored));
            let (head, pieces) = match value {
                Some(value) => {
                    let bytes = value.len();
                    let (head, pieces) = parts::cut(value).ok_or_else(|| {
                        let source = io::Error::other(format!("{bytes} bytes are too many"));
                        StoreError::Io { path: self.path.clone(), action: "take a value", source }
                    })?;
                    (Some(head), pieces)
                }
                None => (None, Vec::new()),
            };
            let gone = parts::keys(&key, before).skip(pieces.len()).map(|part| (part, None));
            let parts: Vec<_> = parts::keys(&key, pieces.len() as u16)
                .zip(pieces.into_iter().map(Some))
                .chain(gone)
                .collect();
            for (key, value) in parts.into_iter().chain([(key, head)]) {
                match value {
                    Some(value) => changes.insert(&*key, value),
                    None => changes.remove(&*key),
                }
                keys.push(key);
            }
        }
        Ok((keys, changes))
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        // sled's own end would sync once more, and panic or take it for success.
        if self.failed.load(Ordering::Acquire) {
            std::mem::forget(self.database.clone());
        }
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let _unchanged = self.long.read();
        let stored = self.database.get(key).map_err(self.failed("read"))?;
        stored.map(|stored| self.value(key, &stored)).transpose()
    }

    fn scan_prefix(
        &self,
        prefix: &[u8],
        see: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let _unchanged = self.long.read();
        let mut reshaped = 0;
        for entry in self.database.scan_prefix(prefix) {
            let (key, stored) = entry.map_err(self.failed("read"))?;
            self.noting(self.keep_up(&mut reshaped))?;
            if !parts::is_part(&key) && !see(&key, &self.value(&key, &stored)?) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.check()?;
        self.noting(self.make(batch))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.check()?;
        self.noting(self.sync())
    }

    fn bytes(&self) -> Result<u64, StoreError> {
        self.database.size_on_disk().map_err(self.failed("tell its size"))
    }
}

/// Makes sure that what is in the folder is of this format, before sled looks at it.
fn check_marker(path: &Path) -> Result<(), StoreError> {
    match std::fs::read_to_string(path.join(MARKER)) {
        // Up to format 3 it was empty.
        Ok(text) => match text.trim().parse().unwrap_or(3) {
            FORMAT => Ok(()),
            found => Err(StoreError::of_format(path, found)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StoreError::of_folder(path, "be opened", source)),
    }
}

/// Returns which keys have parts, by one look for each kind.
fn long(database: &sled::Db) -> sled::Result<BTreeSet<[u8; 2]>> {
    let mut long = BTreeSet::new();
    let mut from = parts::first();
    while let Some((key, _)) = database.range(from..).next().transpose()? {
        let Some(kind) = parts::kind(&key) else { break };
        long.insert(kind);
        from = parts::behind(kind);
    }
    Ok(long)
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
    settle(path)?;
    let config = sled::Config::new().path(path).cache_capacity(cache_bytes).flush_every_ms(None);
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(opened) => opened.map_err(|error| in_words(path, "be opened", error)),
        Err(_) => Err(StoreError::Damaged {
            path: path.into(),
            what: "sled panicked while opening it".into(),
        }),
    }
}

fn begins_anew(path: &Path) -> bool {
    begin_anew(path).unwrap_or(false)
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
        sled::Error::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            StoreError::Damaged { path, what: "a file ends too early".into() }
        }
        sled::Error::Io(source) if source.kind() == io::ErrorKind::NotFound => {
            StoreError::Damaged { path, what: "a file is missing".into() }
        }
        sled::Error::Io(source) => StoreError::of_folder(&path, action, source),
        sled::Error::ReportableBug(what) => StoreError::Damaged { path, what },
        other => StoreError::Io { path, action, source: io::Error::other(other.to_string()) },
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

    /// sled puts long values beside its log; a store that has such files and has lost one is damaged like any other.
    #[test]
    fn a_file_of_the_store_that_is_missing_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let config = sled::Config::new().path(folder.path()).flush_every_ms(None);
        let database = config.open().unwrap();
        let frame = super::super::framing::frame;
        database.insert(Meta::Format.key(), frame(&FORMAT.to_le_bytes())).unwrap();
        database.insert(b"long", frame(&vec![7; 300_000])).unwrap();
        drop(database);
        // Now a snapshot counts on the file.
        drop(open_when_free(folder.path(), 1 << 20).unwrap());
        let blobs: Vec<_> = std::fs::read_dir(folder.path().join("blobs")).unwrap().collect();
        assert!(!blobs.is_empty());
        blobs.into_iter().for_each(|blob| std::fs::remove_file(blob.unwrap().path()).unwrap());
        let error = SledStore::open_with_room(folder.path(), 1 << 20, 0)
            .and_then(|store| store.get(b"long"))
            .unwrap_err();
        assert!(error.is_damage() && error.to_string().contains("a file is missing"), "{error}");
    }

    #[test]
    fn a_store_of_an_older_version_is_refused_before_it_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(MARKER), b"").unwrap();
        let error = SledStore::open_with_room(folder.path(), 1 << 20, 0).unwrap_err();
        assert!(matches!(error, StoreError::Format { found: 3, .. }), "{error:?}");
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
            for ten in 0..50 {
                let mut batch = Batch::default();
                (10 * ten..10 * ten + 10).for_each(|i| batch.put(key(i), value(i)));
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
