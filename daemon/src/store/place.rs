//! The folder of a store: room enough before opening, and a place aside for what is damaged.

use std::io;
use std::path::{Path, PathBuf};

use super::StoreError;

/// Room that must be free before a store is opened: a full one cannot even be read (crates.md, M-6 of reliability.md).
pub const FREE_BYTES: u64 = 256 << 20;

/// Makes the folder if it is missing, and checks that there is room in it.
pub(super) fn prepare(path: &Path, needed: u64) -> Result<(), StoreError> {
    let failed = |action| move |source| StoreError::Io { path: path.into(), action, source };
    std::fs::create_dir_all(path).map_err(failed("make its folder"))?;
    let free = fs2::available_space(path).map_err(failed("tell its free space"))?;
    if free < needed {
        return Err(StoreError::Full { path: path.into(), needed, free });
    }
    Ok(())
}

/// Puts the folder of a damaged store aside, as `NAME.quarantine-TIMESTAMP` beside it, and returns where it is now.
///
/// `timestamp` is any text that tells one quarantine from another, such as the milliseconds of the clock.
///
/// # Errors
/// When the folder cannot be renamed.
pub fn quarantine(path: &Path, timestamp: &str) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!("{name}.quarantine-{timestamp}"));
    if aside.exists() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} is there already: remove it", aside.display()),
        ));
    }
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

/// Removes sled's snapshot files, which it can make anew from its log (M-8 of reliability.md). Returns whether there were any.
pub(super) fn remove_snapshots(path: &Path) -> io::Result<bool> {
    let mut removed = false;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            std::fs::remove_file(entry.path())?;
            removed = true;
        }
    }
    Ok(removed)
}
