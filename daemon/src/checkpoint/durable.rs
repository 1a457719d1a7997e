//! Files that are whole or not there: write beside, fsync, rename, fsync the folder.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use super::CheckpointError;
use crate::store::sync_folder;

/// What the names of unfinished files end with.
pub(super) const UNFINISHED: &str = ".new";

const BUFFER: usize = 1 << 20;

/// Puts a file with the content that `write` writes in place of what is there. Returns its size.
///
/// # Errors
/// When anything fails; what was there before is still there then, and the unfinished file is removed.
pub(super) fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<u64, CheckpointError> {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    let unfinished = Path::new(&name);
    let written = finish(unfinished, write);
    let bytes = match written {
        Ok(bytes) => bytes,
        Err(error) => {
            // The error that matters is the first one; a file that is left is removed at the next start.
            drop(std::fs::remove_file(unfinished));
            return Err(error);
        }
    };
    std::fs::rename(unfinished, path).map_err(CheckpointError::io("rename to", path))?;
    let folder = path.parent().unwrap_or(path);
    sync_folder(folder).map_err(CheckpointError::io("sync the folder", folder))?;
    Ok(bytes)
}

fn finish(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<u64, CheckpointError> {
    let file = File::create(path).map_err(CheckpointError::io("make", path))?;
    let mut buffered = BufWriter::with_capacity(BUFFER, file);
    write(&mut buffered).map_err(CheckpointError::io("write", path))?;
    let file = buffered
        .into_inner()
        .map_err(|error| CheckpointError::io("write", path)(error.into_error()))?;
    file.sync_all().map_err(CheckpointError::io("sync", path))?;
    let meta = file.metadata().map_err(CheckpointError::io("read", path))?;
    Ok(meta.len())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(replace(&path, |file| file.write_all(b"one")).unwrap(), 3);
        let error = replace(&path, |file| {
            file.write_all(b"half")?;
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(error.is_full());
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
