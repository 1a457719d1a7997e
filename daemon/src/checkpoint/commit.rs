//! Making a checkpoint.

use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sluice_features::wire::Topic;

use super::cut::{Marks, Next};
use super::{
    Checkpoint, CheckpointError, Clock, CommitReport, Cut, Identity, Outcome, ParameterImage,
    Setup, durable,
};
use crate::error::Stop;
use crate::kafka::Mark;
use crate::store::keys::Meta;
use crate::store::{Batch, Store};

/// What a checkpoint consists of, beside the pieces in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Grows by one with each checkpoint, from 1 on.
    pub number: u64,
    /// The names of the parameter files: a whole one, then what has changed from one checkpoint to the next, up to this one.
    pub parameters: Vec<String>,
    /// The name of the file with what of the state is written as a whole.
    pub state: String,
    /// What state and parameters belong to.
    pub identity: Identity,
    /// Partitions of the topics.
    pub partitions: u32,
    /// Where to go on, for each topic and partition.
    pub offsets: Vec<Offset>,
    /// The numbers of the journals that go on behind the checkpoint before and behind it ([`crate::recovery`]).
    pub journals: [u64; 2],
}

/// The next record that is not part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offset {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset of the next record.
    pub next: i64,
    /// The last record that was applied, by which the partition is known again; none before the first.
    pub mark: Option<Mark>,
}

/// The topics with offsets, in the order of [`Setup::topics`].
pub(super) const TOPICS: [Topic; 3] = [Topic::Events, Topic::Items, Topic::Users];

/// Checkpoints whose files are kept: the one in force, and the one before, for a store that has lost its newest commit.
pub(super) const KEPT: usize = 2;

/// The state's files belong to any model.
pub(super) const ANY_MODEL: u64 = 0;

/// What to do where the disk fails. Until it is mounted anew the system may show what the disk has not kept.
const MEND: &str = "make room where it is full; where it fails, mend it and mount it anew first";

/// The file that holds the number of the newest commit.
const COMMITTED: &str = "committed";

impl Checkpoint {
    /// Makes a checkpoint of the pipeline as it was cut, and of the parameters whose image `image` returns: those that had learned everything up
    /// to the cut and nothing behind it. `image` is called when the state is written, and may wait for the parameters.
    ///
    /// When there is no room, or `image` or the image fails with [`super::NotSound`] inside, the changes of the cut are kept for the next call,
    /// and those of the parameters go back to where the image came from.
    ///
    /// # Errors
    /// When the disk fails. The previous checkpoint is in force then, or this one: restart to know.
    pub fn commit<I: ParameterImage>(
        &mut self,
        cut: Cut,
        clock: &Clock,
        image: impl FnOnce() -> io::Result<I>,
    ) -> Result<Outcome, Stop> {
        let Cut { picture, changes, next, marks, journals } = cut;
        self.waiting.append(changes);
        self.waiting.keep_newest();
        let start = clock.steady();
        if let Some(reason) = self.lacks_room()? {
            return Ok(Outcome::NotNow(reason));
        }
        let number = self.number + 1;
        let state = match self.states.write(number, ANY_MODEL, 0, |to| picture.write(to)) {
            Ok(written) => written,
            Err(error) => return not_now(number, error),
        };
        let reach = picture.reach();
        drop(picture);
        let begun = clock.steady();
        let fingerprint = self.setup.identity.fingerprint();
        let taken = image().map_err(CheckpointError::io("take parameters for", &self.setup.folder));
        let written = taken.and_then(|mut image| {
            let chain = self.parameters.write(number, fingerprint, &mut image)?;
            Ok((image, chain))
        });
        let (image, chain) = match written {
            Ok(written) => written,
            Err(error) => return not_now(number, error),
        };
        let parameters_took = clock.steady().saturating_sub(begun);

        self.write_new().map_err(|stop| {
            let message = format!(
                "checkpoint {number} cannot be written: the one before stays in force, and the next start reads again from there; {MEND}"
            );
            Stop::fault(message).because(stop)
        })?;
        let mut waiting = std::mem::take(&mut self.waiting);
        let (pieces, piece_bytes) = (waiting.len() as u64, waiting.bytes() as u64);
        let parameters = chain.iter().map(|file| file.name.clone()).collect();
        let files = (parameters, state.name);
        let value = Commit::new(number, files, &self.setup, (&next, &marks), journals);
        let offsets = value.offsets.clone();
        if self.number == 0 {
            waiting.delete(Meta::Ahead.key());
        }
        commit(&*self.store, &self.setup.folder, waiting, &value).map_err(|stop| {
            let message = format!(
                "checkpoint {number} failed at its last step: the next start finds it or the one before, whole, and reads again from there; {MEND}"
            );
            Stop::fault(message).because(stop)
        })?;
        (self.number, self.reach) = (number, reach);
        image.keep();
        let (parameter_bytes, whole) = (chain.last().map_or(0, |it| it.bytes), chain.len() == 1);
        self.parameters.in_force(chain);
        self.parameters.retain(number, &value.parameters)?;
        self.states.retain(&value.state, KEPT)?;

        let report = CommitReport {
            number,
            parameter_bytes,
            whole,
            state_bytes: state.bytes,
            piece_bytes,
            pieces,
            parameters_took,
            took: clock.steady().saturating_sub(start),
            offsets,
        };
        // The next one may have to write all parameters.
        self.written = report.bytes() - parameter_bytes + self.parameters.whole_bytes();
        Ok(Outcome::Done(report))
    }

    /// Says what room is missing: the store must not meet a full disk, for it cannot even be opened on one.
    pub(super) fn lacks_room(&self) -> Result<Option<String>, CheckpointError> {
        let folder = &self.setup.folder;
        let failed = CheckpointError::io("tell the free space of", folder);
        let free = fs2::available_space(folder).map_err(failed)?;
        // sled writes changed pages anew before it lets go of the old ones.
        let most = self.written.max(self.waiting.bytes() as u64);
        let needed = self.room.saturating_add(most.saturating_mul(2));
        Ok((free < needed).then(|| {
            let folder = folder.display();
            format!("expected {needed} bytes free in {folder}, found {free}: make room")
        }))
    }
}

impl Commit {
    /// Returns what is to be committed of a pipeline that stands at these offsets, with the last records applied ([`Cut`]), and with these files
    /// of parameters and state.
    pub(super) fn new(
        number: u64,
        (parameters, state): (Vec<String>, String),
        setup: &Setup,
        (next, marks): (&Next, &Marks),
        journals: [u64; 2],
    ) -> Self {
        let mut offsets = Vec::new();
        for (i, name) in setup.topics.iter().enumerate() {
            for (partition, next) in (0i32..).zip(next) {
                // Where it begins is not known before a broker has told.
                let Some(next) = next[i] else { continue };
                let mark = marks.get(&(name.clone(), partition)).copied();
                offsets.push(Offset { topic: name.clone(), partition, next, mark });
            }
        }
        Self {
            number,
            parameters,
            state,
            identity: setup.identity.clone(),
            partitions: next.len() as u32,
            offsets,
            journals,
        }
    }
}

/// Commits: the changes and the commit as one atomic batch, flushed; then the word that it is so. When this returns the checkpoint is in
/// force, and lasts.
///
/// # Errors
/// When the store or the folder fails. The previous checkpoint may be in force then, or this one: restart to know.
pub(super) fn commit(
    store: &dyn Store,
    folder: &Path,
    mut waiting: Batch,
    commit: &Commit,
) -> Result<(), Stop> {
    let value = postcard::to_allocvec(commit)
        .map_err(|error| Stop::fault("a checkpoint cannot be encoded").because(error))?;
    waiting.put(Meta::Checkpoint.key(), value);
    store.apply(waiting)?;
    store.flush()?;
    let promised = durable::replace(&folder.join(COMMITTED), |file| {
        file.write_all(commit.number.to_string().as_bytes())
    });
    match promised {
        Err(error) if error.is_full() => {
            tracing::warn!(%error, "the number of a checkpoint could not be noted; the checkpoint is in force");
            Ok(())
        }
        other => Ok(other.map(|_| ())?),
    }
}

/// Returns the number that the file beside the store promises.
pub(super) fn promised(folder: &Path) -> Option<u64> {
    std::fs::read_to_string(folder.join(COMMITTED)).ok()?.trim().parse().ok()
}

fn not_now(number: u64, error: CheckpointError) -> Result<Outcome, Stop> {
    if error.is_full() || error.is_not_sound() {
        return Ok(Outcome::NotNow(crate::error::chain(&error)));
    }
    let message = format!(
        "checkpoint {number} cannot be written: the one before stays in force, and the next start reads again from there; {MEND}"
    );
    Err(Stop::fault(message).because(error))
}
