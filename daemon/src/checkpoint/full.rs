//! A copy of everything in a folder of its own, so that something else can begin where the daemon is: a captured run.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use super::commit::{ANY_MODEL, Commit, commit};
use super::cut::{next, settled};
use super::files::NumberedFiles;
use super::pieces::key_of;
use super::{CommitReport, Setup};
use crate::error::Stop;
use crate::pipeline::Pipeline;
use crate::store::{Batch, SledStore, Store};

/// Bytes that are gathered before they go to the store.
const CHUNK: usize = 8 << 20;

/// Bytes that the copy's store may cache.
const CACHE: u64 = 16 << 20;

/// Writes a whole checkpoint of the pipeline, and of the parameters that `write` writes, into a folder that is empty or not there. It is
/// opened like any other ([`super::Checkpoint::open`] with this folder). The pipeline is as before: its next checkpoint misses nothing.
///
/// # Errors
/// When the folder has something in it, the disk fails or is full, or something waits in the pipeline.
pub fn write_full(
    folder: &Path,
    setup: &Setup,
    pipeline: &Pipeline,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<CommitReport, Stop> {
    settled(pipeline)?;
    if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        let shown = folder.display();
        return Err(Stop::config(format!("expected an empty folder {shown}: name another one")));
    }
    let failed = |error| Stop::fault("a copy of the state failed").because(error);
    let store = SledStore::open(folder, CACHE)?;
    let files = |ending| NumberedFiles::open(folder, ending);
    let fingerprint = setup.identity.fingerprint();
    let parameters = files(".parameters")?.write(1, fingerprint, 0, write)?;
    // In several batches: without the commit behind them they count for nothing.
    let (mut batch, mut pieces, mut piece_bytes) = (Batch::default(), 0, 0);
    let mut applied = Ok(());
    let copied = pipeline.copy(|piece, bytes| {
        batch.put(key_of(piece), bytes);
        pieces += 1;
        piece_bytes += bytes.len() as u64;
        if batch.bytes() >= CHUNK && applied.is_ok() {
            applied = store.apply(std::mem::take(&mut batch));
        }
    });
    let picture = copied.map_err(failed)?;
    applied?;
    let state = files(".state")?.write(1, ANY_MODEL, 0, |to| picture.write(to))?;
    // What is replayed from here comes from a capture, not from Kafka.
    let (next, marks) = (next(pipeline), BTreeMap::new());
    let files = (vec![parameters.name], state.name);
    let value = Commit::new(1, files, setup, (&next, &marks), [1; 2]);
    commit(&store, folder, batch, &value)?;
    Ok(CommitReport {
        number: 1,
        parameter_bytes: parameters.bytes,
        whole: true,
        state_bytes: state.bytes,
        piece_bytes,
        pieces,
        ..CommitReport::default()
    })
}
