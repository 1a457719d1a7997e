//! The folder of a store: who may use it, room enough before opening, what makes it last, and a place aside for what is damaged.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::StoreError;

/// Room that must be free before a store is opened: sled cannot even read one on a full disk.
pub const FREE_BYTES: u64 = 256 << 20;

/// What the name of a folder begins or goes on with that holds what was put aside.
const ASIDE: &str = "quarantine-";
/// sled's files and folder, beside those that begin with [`SNAPSHOT`].
pub(super) const LOG: &str = "db";
const SETTINGS: &str = "conf";
const BLOBS: &str = "blobs";
/// What a file system keeps in its root.
const LOST: &str = "lost+found";
const SNAPSHOT: &str = "snap.";
/// A snapshot that was not finished: sled would read it as if it were.
const UNFINISHED: &str = ".generating";

/// Makes the folder if it is missing, and checks that it can be used and that there is room in it.
pub(super) fn prepare(path: &Path, needed: u64) -> Result<(), StoreError> {
    make(path).map_err(|source| StoreError::of_folder(path, "make its folder", source))?;
    let free = fs2::available_space(path)
        .map_err(|source| StoreError::of_folder(path, "tell its free space", source))?;
    if free < needed {
        return Err(StoreError::Full { path: path.into(), needed, free });
    }
    Ok(())
}

/// Makes a folder with all above it, and the names of those that were missing last.
fn make(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    std::fs::create_dir_all(path)?;
    if !path.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    for made in missing {
        sync_folder(made.parent().unwrap_or(made))?;
    }
    Ok(())
}

/// Makes what was made, renamed and removed in a folder survive a power loss.
///
/// # Errors
/// When the folder cannot be opened or synced.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    // A path of one name has an empty parent.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// Makes last what is in the folder of a store that nobody has open. A process that was killed leaves things that only the system's memory has;
/// sled takes what it reads as lasting, and overwrites on the strength of it.
pub(super) fn settle(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::of_folder(path, "be synced", source);
    let log = match File::open(path.join(LOG)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed)?,
    };
    // As sled does: whoever has it open holds the lock.
    match log.try_lock() {
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.into() }),
        locked => locked.map_err(|error| failed(error.into()))?,
    }
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(SNAPSHOT) && name.ends_with(UNFINISHED) {
            std::fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    sync_files(path).map_err(failed)
}

/// Makes last what sled has made in a folder.
pub(super) fn sync_files(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == SETTINGS || name == LOG || name.starts_with(SNAPSHOT) {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_blobs(path)?;
    sync_folder(path)
}

/// Makes last what sled has put beside its log, which it does only with values longer than ours.
pub(super) fn sync_blobs(path: &Path) -> io::Result<()> {
    let blobs = path.join(BLOBS);
    if !blobs.exists() {
        return Ok(());
    }
    for blob in std::fs::read_dir(&blobs)? {
        File::open(blob?.path())?.sync_all()?;
    }
    sync_folder(&blobs)
}

/// Puts what is in the folder of a damaged store aside, and returns where it is now: `NAME.quarantine-TIMESTAMP` beside the folder, or
/// `quarantine-TIMESTAMP` in it where the folder itself cannot be renamed, because it is a mount point or the one above belongs to others.
///
/// `timestamp` is any text that tells one quarantine from another, such as the milliseconds of the clock.
///
/// # Errors
/// When nothing can be renamed.
pub fn quarantine(path: &Path, timestamp: &str) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!("{name}.{ASIDE}{timestamp}"));
    vacant(&aside)?;
    if std::fs::rename(path, &aside).is_ok() {
        return Ok(aside);
    }
    let aside = path.join(format!("{ASIDE}{timestamp}"));
    vacant(&aside)?;
    std::fs::create_dir(&aside)?;
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name();
        // What was put aside before stays.
        if !name.to_string_lossy().starts_with(ASIDE) && name != LOST {
            std::fs::rename(path.join(&name), aside.join(&name))?;
        }
    }
    Ok(aside)
}

fn vacant(aside: &Path) -> io::Result<()> {
    if aside.exists() {
        let message = format!("{} is there already: remove it", aside.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    Ok(())
}

/// Removes sled's files where there is nothing else: power was lost while the store was made, and nothing in it counts. Returns whether
/// that was so.
pub(super) fn begin_anew(path: &Path) -> io::Result<bool> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == LOG || name == SETTINGS || name.starts_with(SNAPSHOT) {
            files.push(entry.path());
        } else if name != BLOBS && name != LOST && !name.starts_with(ASIDE) {
            return Ok(false);
        }
    }
    files.iter().try_for_each(std::fs::remove_file)?;
    Ok(true)
}

/// Removes sled's snapshot files, which it can make anew from its log. Returns whether there were any.
pub(super) fn remove_snapshots(path: &Path) -> io::Result<bool> {
    let mut removed = false;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(SNAPSHOT) {
            std::fs::remove_file(entry.path())?;
            removed = true;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(folder: &Path) -> PathBuf {
        let path = folder.join("state");
        std::fs::create_dir_all(path.join(BLOBS)).unwrap();
        std::fs::create_dir(path.join("lost+found")).unwrap();
        std::fs::write(path.join(LOG), b"damaged").unwrap();
        path
    }

    #[test]
    fn a_folder_is_put_aside_beside_itself() {
        let parent = tempfile::tempdir().unwrap();
        let path = filled(parent.path());
        let aside = quarantine(&path, "7").unwrap();
        assert_eq!(aside, parent.path().join("state.quarantine-7"));
        assert!(!path.exists() && aside.join(LOG).exists());
    }

    /// A name that ends in a dot cannot be renamed, and a mount point neither: the system says the same.
    #[test]
    fn what_is_in_a_folder_that_cannot_be_renamed_is_put_aside_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = filled(parent.path());
        let mounted = path.join(".");
        for timestamp in ["7", "8"] {
            std::fs::write(path.join(LOG), b"damaged").unwrap();
            let aside = quarantine(&mounted, timestamp).unwrap();
            assert!(aside.join(LOG).exists() && !path.join(LOG).exists());
        }
        let mut left: Vec<_> =
            std::fs::read_dir(&path).unwrap().map(|it| it.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["lost+found", "quarantine-7", "quarantine-8"]);
        let error = quarantine(&mounted, "8").unwrap_err();
        assert!(error.to_string().contains("remove it"), "{error}");
    }

    #[test]
    fn a_folder_that_is_none_or_belongs_to_others_is_told_with_a_remedy() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, b"not a folder").unwrap();
        for path in [file.clone(), file.join("state")] {
            let error = prepare(&path, 0).unwrap_err();
            assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
            assert!(error.to_string().contains("move away the file of this name"), "{error}");
        }
        for (kind, remedy) in [
            (io::ErrorKind::PermissionDenied, "give it and what is in it to the user"),
            (io::ErrorKind::ReadOnlyFilesystem, "mount it for writing"),
        ] {
            let error = StoreError::of_folder(&file, "be opened", kind.into());
            assert!(error.to_string().contains(remedy), "{error}");
            assert_eq!(crate::error::Stop::from(error).exit(), crate::error::Exit::Config);
        }
    }

    #[test]
    fn a_snapshot_that_was_not_finished_goes_before_sled_sees_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = filled(parent.path());
        let [whole, half] =
            ["snap.00000001", "snap.00000002.generating"].map(|name| path.join(name));
        std::fs::write(&whole, b"whole").unwrap();
        std::fs::write(&half, b"half").unwrap();
        settle(&path).unwrap();
        assert!(whole.exists() && !half.exists());
    }
}
