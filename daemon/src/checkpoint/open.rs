//! Finding the checkpoint in force and putting it back.

use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use sluice_features::pack::OutOfReach;

use super::ahead::PORTION;
use super::commit::{ANY_MODEL, Commit, KEPT, Offset, promised};
use super::files::NumberedFiles;
use super::pages::StorePages;
use super::parameters::{ParameterFiles, Stored};
use super::pieces::{ROOMS, key_of, piece_of};
use super::{Checkpoint, CheckpointError, Clock, FREE_BYTES, Setup};
use crate::error::Stop;
use crate::pipeline::restore::Restoring;
use crate::pipeline::state::{Reach, StateError};
use crate::pipeline::{Pipeline, Rules};
use crate::store::keys::{self, Meta, Room};
use crate::store::{Batch, SledStore, Store, StoreError, quarantine};

/// Pages of names that were read may take such a part of all memory.
const NAMES_CACHE: u64 = 128;

/// What a start begins with.
pub struct Opening {
    /// Makes the checkpoints to come.
    pub checkpoint: Checkpoint,
    /// The pipeline, as it was or new.
    pub pipeline: Pipeline,
    /// The parameters as they were written; `None` when they begin anew.
    pub parameters: Option<Stored>,
    /// What was found; `None` when nothing was stored.
    pub resumed: Option<Resumed>,
}

/// What is to be said of the checkpoint that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// Its number.
    pub number: u64,
    /// Where to go on.
    pub offsets: Vec<Offset>,
    /// The numbers of the journals that go on behind the checkpoint before and behind it.
    pub journals: [u64; 2],
    /// The number of a later one that the store has lost: it went back, which is sound but must be told.
    pub lost: Option<u64>,
    /// Open impressions that were dropped because they belong to another schema.
    pub dropped: u64,
    /// What differs from the configuration, in words; only ever there when new parameters were asked for.
    pub difference: Option<String>,
}

/// Why a checkpoint cannot be put back.
enum Trouble {
    /// What is on disk is not what was written.
    Damage(Box<dyn Error + Send + Sync>),
    Stop(Stop),
}

impl Checkpoint {
    /// Opens the folder: puts back the checkpoint in force, or begins with nothing. A damaged one is put aside.
    ///
    /// # Errors
    /// [`crate::error::Exit::Data`] for damage, or for another model without `new_model`, with the difference in words;
    /// [`crate::error::Exit::Config`] for other topics or another number of partitions.
    pub fn open(setup: Setup, rules: Rules, clock: &Clock) -> Result<Opening, Stop> {
        let folder = setup.folder.clone();
        let opened = SledStore::open(&folder, setup.cache_bytes).map_err(Trouble::from);
        let opened = opened.and_then(|store| begin(Arc::new(store), setup, rules));
        opened.map_err(|trouble| match trouble {
            Trouble::Stop(stop) => stop,
            Trouble::Damage(cause) => put_aside(&folder, clock, cause),
        })
    }

    /// The same with a store that is open already. Damage is told, and nothing is put aside.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_over(store: Arc<dyn Store>, setup: Setup, rules: Rules) -> Result<Opening, Stop> {
        begin(store, setup, rules).map_err(|trouble| match trouble {
            Trouble::Stop(stop) => stop,
            Trouble::Damage(cause) => Stop::data("the state is damaged").because(cause),
        })
    }
}

fn begin(store: Arc<dyn Store>, setup: Setup, rules: Rules) -> Result<Opening, Trouble> {
    let parameters = ParameterFiles::open(&setup.folder, setup.keep.max(KEPT))?;
    let states = NumberedFiles::open(&setup.folder, ".state")?;
    let found = find(&*store, &setup.folder)?;
    let mut checkpoint = Checkpoint {
        store,
        setup,
        parameters,
        states,
        number: 0,
        written: 0,
        room: FREE_BYTES,
        waiting: Batch::default(),
        reach: Reach::default(),
        portion: PORTION,
    };
    let Some((commit, lost)) = found else {
        checkpoint.remove_later(all_keys(&*checkpoint.store)?);
        let mut pipeline = Pipeline::new(rules, checkpoint.setup.partitions);
        checkpoint.lend(&mut pipeline);
        return Ok(Opening { checkpoint, pipeline, parameters: None, resumed: None });
    };
    let difference = fits(&commit, &checkpoint.setup)?;
    let keep_open = checkpoint.setup.identity.same_schema(&commit.identity);
    let (mut pipeline, dropped, beyond) = checkpoint.restore(&commit.state, rules, keep_open)?;
    checkpoint.remove_later(beyond);
    checkpoint.lend(&mut pipeline);
    let parameters = if checkpoint.setup.new_model {
        None
    } else {
        let fingerprint = commit.identity.fingerprint();
        let resumed = checkpoint.parameters.resume(&commit.parameters, fingerprint);
        Some(resumed.map_err(parameters_gone)?)
    };
    checkpoint.number = commit.number;
    // What kills have left: each came before its own checkpoint could remove it.
    checkpoint.parameters.retain(commit.number, &commit.parameters)?;
    checkpoint.states.retain(&commit.state, KEPT)?;
    let Commit { number, offsets, journals, .. } = commit;
    let resumed = Some(Resumed { number, offsets, journals, lost, dropped, difference });
    Ok(Opening { checkpoint, pipeline, parameters, resumed })
}

impl Checkpoint {
    /// Lets a pipeline put open impressions, users and names away in the store.
    fn lend(&self, pipeline: &mut Pipeline) {
        let pages = Arc::new(StorePages::new(Arc::clone(&self.store)));
        pipeline.put_away_to(&pages);
        let cache = pipeline.rules().bounds.limit / NAMES_CACHE;
        pipeline.names_in(pages, cache);
    }

    /// Returns the pipeline of a checkpoint, how many open impressions were dropped, and the keys of pages that it does not know.
    fn restore(
        &mut self,
        state: &str,
        rules: Rules,
        keep_open: bool,
    ) -> Result<(Pipeline, u64, Vec<Vec<u8>>), Trouble> {
        let mut file = self.states.read(state, ANY_MODEL)?;
        let mut whole = Vec::new();
        file.read_to_end(&mut whole).map_err(|error| file.failed(error))?;
        let mut restoring = Restoring::new(rules, &whole, keep_open)?;
        drop(whole);
        let mut beyond = Vec::new();
        for room in ROOMS {
            let mut failed = None;
            self.store.scan_prefix(&keys::room(room), &mut |key, bytes| {
                let restored = match piece_of(key) {
                    Some(piece) if restoring.is_beyond(piece) => {
                        beyond.push(key.to_vec());
                        Ok(())
                    }
                    Some(piece) => restoring.piece(piece, bytes).map_err(Trouble::from),
                    None => Err(Trouble::Damage(format!("a key of no meaning: {key:02x?}").into())),
                };
                failed = restored.err();
                failed.is_none()
            })?;
            if let Some(trouble) = failed {
                return Err(trouble);
            }
        }
        for piece in restoring.wanted() {
            // What is missing is told at the end.
            if let Some(bytes) = self.store.get(&key_of(piece))? {
                restoring.piece(piece, &bytes)?;
            }
        }
        self.reach = restoring.reach();
        let (pipeline, dropped) = restoring.finish()?;
        Ok((pipeline, dropped, beyond))
    }
}

/// Returns the checkpoint in force, and the number of a later one that was lost; `None` for a new store.
fn find(store: &dyn Store, folder: &Path) -> Result<Option<(Commit, Option<u64>)>, Trouble> {
    let promised = promised(folder);
    let Some(value) = store.get(&Meta::Checkpoint.key())? else {
        let ahead = store.get(&Meta::Ahead.key())?.is_some();
        let pieces = !ahead && !all_keys(store)?.is_empty();
        return match promised {
            Some(number) => Err(damage(format!("checkpoint {number} and all before it are gone"))),
            None if pieces => Err(damage("there is state without a checkpoint".to_owned())),
            None => Ok(None),
        };
    };
    let commit: Commit = postcard::from_bytes(&value).map_err(|error| {
        let message = "the checkpoint in the store cannot be read: it is of another version, start the one that wrote it";
        Trouble::Stop(Stop::data(message).because(error))
    })?;
    let lost = promised.filter(|&number| number > commit.number);
    Ok(Some((commit, lost)))
}

/// Returns the keys of all pieces that a start would put back, and those that lie beside them.
fn all_keys(store: &dyn Store) -> Result<Vec<Vec<u8>>, Trouble> {
    let mut all = Vec::new();
    for room in ROOMS.into_iter().chain([Room::Texts, Room::Users, Room::Segment]) {
        store.scan_prefix(&keys::room(room), &mut |key, _| {
            all.push(key.to_vec());
            true
        })?;
    }
    Ok(all)
}

/// Makes sure that a checkpoint belongs to what is configured. Returns the difference where new parameters were asked for.
fn fits(commit: &Commit, setup: &Setup) -> Result<Option<String>, Trouble> {
    let folder = setup.folder.display();
    let elsewhere = "or set checkpoint.path to another folder, to begin anew";
    if commit.partitions as usize != setup.partitions {
        return Err(Trouble::Stop(Stop::config(format!(
            "the checkpoint in {folder} has {} partitions, the topics have {}: users have moved to other partitions; go back to the topics it was made of, {elsewhere}",
            commit.partitions, setup.partitions
        ))));
    }
    for name in commit.offsets.iter().map(|offset| &offset.topic) {
        if !setup.topics.contains(name) {
            return Err(Trouble::Stop(Stop::config(format!(
                "the checkpoint in {folder} was made of the topic {name}, the configured ones are {}: go back to it, {elsewhere}",
                setup.topics.join(", ")
            ))));
        }
    }
    let (ours, theirs) = (&setup.identity, &commit.identity);
    if ours == theirs {
        return Ok(None);
    }
    let difference = ours.difference(theirs);
    if !setup.new_model {
        return Err(Trouble::Stop(Stop::data(format!(
            "the checkpoint in {folder} belongs to another model ({difference}): go back to that configuration, or start with --new-model to keep the state and learn new parameters"
        ))));
    }
    Ok(Some(difference))
}

/// Says what to do about a parameter file that cannot be read: the state is sound without it.
fn parameters_gone(error: CheckpointError) -> Trouble {
    Trouble::Stop(match error {
        CheckpointError::Damaged { .. } => Stop::data(
            "the parameters cannot be read: put the file back, or start with --new-model to keep the state and learn new ones",
        )
        .because(error),
        other => other.into(),
    })
}

fn put_aside(folder: &Path, clock: &Clock, cause: Box<dyn Error + Send + Sync>) -> Stop {
    let shown = folder.display();
    let message = match quarantine(folder, &clock.wall().0.to_string()) {
        Ok(aside) => format!(
            "the state in {shown} is damaged and was put aside as {}: start again to build it anew from Kafka, as far back as the topics reach",
            aside.display()
        ),
        Err(error) => format!(
            "the state in {shown} is damaged and cannot be put aside ({error}): move what is in the folder away and start again to build it anew from Kafka"
        ),
    };
    Stop::data(message).because(cause)
}

fn damage(what: String) -> Trouble {
    Trouble::Damage(what.into())
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        if error.is_damage() { Self::Damage(error.into()) } else { Self::Stop(error.into()) }
    }
}

impl From<StateError> for Trouble {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Kinds(_) => {
                let message = "the checkpoint cannot go on with this funnel: name its types of behaviour otherwise, or set checkpoint.path to another folder, to begin anew";
                Self::Stop(Stop::config(message).because(error))
            }
            other => Self::Damage(other.into()),
        }
    }
}

impl From<OutOfReach> for Trouble {
    fn from(error: OutOfReach) -> Self {
        if error.is_damage() { Self::Damage(error.into()) } else { Self::Stop(error.into()) }
    }
}

impl From<CheckpointError> for Trouble {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Damaged { .. } => Self::Damage(error.into()),
            other => Self::Stop(other.into()),
        }
    }
}
