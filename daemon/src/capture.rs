//! A captured run: all that it is a function of, so that a replay repeats it bit for bit.
//!
//! ```text
//! DIR/000001/start     the checkpoint that the run began with, whole; not there for a run that began with nothing
//! DIR/000001/entries   Start, then records and decisions in the order in which the pipeline took them, then End
//! DIR/000002/...       the next run
//! ```
//!
//! Whatever the clock decides, or the order in which threads meet, reaches the pipeline as a [`Decision`]. All runs of a folder together, with
//! their copies of checkpoints, are bounded in bytes. Where the copy leaves no room capturing does not begin. At the bound, or when the disk fails, capturing ends for good with a warning and the daemon goes
//! on: what was captured until then is a sound beginning. So is what a crash leaves.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sluice_features::time::EventTime;
use sluice_features::wire::Topic;

use crate::config::Bounds;
use crate::error::{Stop, chain};
use crate::journal::{Appended, JournalError, JournalReader, JournalWriter};
use crate::pipeline::Pipeline;
use crate::pipeline::record::Record;

const ENTRIES: &str = "entries";
const START: &str = "start";

/// What a run began with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Partitions of the topics.
    pub partitions: u32,
    /// What state and parameters belong to ([`crate::checkpoint::Identity::fingerprint`]).
    pub fingerprint: u64,
    /// The seed of everything random.
    pub seed: u64,
    /// Threads of a step: another number gives other bits.
    pub threads: u32,
    /// How much memory what grows may take: some of it decides what is learned.
    pub bounds: Bounds,
    /// The run began with a checkpoint: [`Captured::start_folder`] has it.
    pub resumed: bool,
}

/// One input of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Always the first.
    Start(Start),
    /// A record.
    Record(Recorded),
    /// A decision that is not a function of the records.
    Decided(Decision),
    /// The run ended on request; a run that crashed or outgrew its bound has none.
    End,
}

/// A record by value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Which topic, as its place in [`Topic::ALL`].
    topic: u8,
    partition: u32,
    offset: i64,
    arrived: EventTime,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

/// What the clock or the meeting of threads decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// The batch that fills ends here: it has waited long enough, or a checkpoint is due.
    Cut,
    /// A partition is caught up and silent: its watermark moves to `time`.
    Quiet {
        /// Which.
        partition: u32,
        /// Where to.
        time: EventTime,
    },
}

impl Decision {
    /// Carries out the decision.
    pub fn apply(self, pipeline: &mut Pipeline) {
        match self {
            Self::Cut => pipeline.cut(),
            Self::Quiet { partition, time } => pipeline.quiet(partition, time),
        }
    }
}

impl Recorded {
    /// Returns the record as the pipeline takes it.
    pub fn record(&self) -> Record<'_> {
        Record {
            topic: Topic::ALL.get(usize::from(self.topic)).copied().unwrap_or(Topic::Requests),
            partition: self.partition,
            offset: self.offset,
            arrived: self.arrived,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
        }
    }

    /// Takes over a record; memory is used again.
    fn set(&mut self, record: &Record<'_>) {
        fn copy(to: &mut Option<Vec<u8>>, from: Option<&[u8]>) {
            let Some(from) = from else {
                *to = None;
                return;
            };
            let to = to.get_or_insert_default();
            to.clear();
            to.extend_from_slice(from);
        }
        self.topic = record.topic as u8;
        self.partition = record.partition;
        self.offset = record.offset;
        self.arrived = record.arrived;
        copy(&mut self.key, record.key);
        copy(&mut self.value, record.value);
    }
}

/// Writes down a run. Nothing it does stops the daemon.
#[derive(Debug)]
pub struct Capture {
    folder: PathBuf,
    /// `None` when capturing has ended.
    journal: Option<JournalWriter<Entry>>,
    recorded: Recorded,
    /// Bytes of the copy of the checkpoint.
    copied: u64,
}

impl Capture {
    /// Begins a run in a new folder inside `folder`. All runs in there together take at most `bound` bytes. Returns `None`, and says so, where
    /// that leaves no room for another.
    ///
    /// `copy` writes the checkpoint that a run begins with into the folder that it is given ([`crate::checkpoint::write_full`]).
    ///
    /// # Errors
    /// When the folder or a file cannot be made.
    pub fn create(
        folder: &Path,
        bound: u64,
        start: Start,
        copy: impl FnOnce(&Path) -> Result<(), Stop>,
    ) -> Result<Option<Self>, Stop> {
        let failed = |error| {
            let shown = folder.display();
            Stop::config(format!("the run cannot be captured in {shown}")).because(error)
        };
        let runs = runs(folder).map_err(failed)?;
        let taken =
            runs.iter().map(|run| bytes_of(run)).sum::<std::io::Result<u64>>().map_err(failed)?;
        if taken >= bound {
            return Ok(no_room(folder, bound, taken, 0));
        }
        let number = runs.last().map_or(0, |run| number_of(run).unwrap_or(0)) + 1;
        let run = folder.join(format!("{number:06}"));
        std::fs::create_dir_all(&run).map_err(failed)?;
        let mut copied = 0;
        if start.resumed {
            copy(&run.join(START))?;
            copied = bytes_of(&run).map_err(failed)?;
            if taken + copied >= bound {
                std::fs::remove_dir_all(&run).map_err(failed)?;
                return Ok(no_room(folder, bound, taken, copied));
            }
        }
        let journal = JournalWriter::create(&run.join(ENTRIES), bound - taken - copied)?;
        let recorded = Recorded::default();
        let mut capture = Self { folder: run, journal: Some(journal), recorded, copied };
        capture.append(&Entry::Start(start));
        capture.flush();
        Ok(Some(capture))
    }

    /// Tells whether the run is still being captured.
    pub fn is_on(&self) -> bool {
        self.journal.is_some()
    }

    /// Returns how many bytes this run takes; 0 when capturing has ended.
    pub fn bytes(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| self.copied + journal.bytes())
    }

    /// Writes down a record before the pipeline takes it.
    pub fn record(&mut self, record: &Record<'_>) {
        if self.journal.is_none() {
            return;
        }
        let mut recorded = std::mem::take(&mut self.recorded);
        recorded.set(record);
        let entry = Entry::Record(recorded);
        self.append(&entry);
        if let Entry::Record(recorded) = entry {
            self.recorded = recorded;
        }
    }

    /// Writes down a decision before it is carried out.
    pub fn decision(&mut self, decision: Decision) {
        self.append(&Entry::Decided(decision));
    }

    /// Hands what was written to the system, so that it survives the end of the process. Called at checkpoints.
    pub fn flush(&mut self) {
        if let Some(journal) = &mut self.journal
            && let Err(error) = journal.flush()
        {
            self.give_up(&chain(&error));
        }
    }

    /// Ends the run on request.
    pub fn finish(mut self) {
        self.append(&Entry::End);
        if let Some(journal) = &mut self.journal
            && let Err(error) = journal.sync()
        {
            self.give_up(&chain(&error));
        }
    }

    fn append(&mut self, entry: &Entry) {
        let Some(journal) = &mut self.journal else { return };
        match journal.append(entry) {
            Ok(Appended::Written) => {}
            Ok(Appended::Full) => {
                self.flush();
                self.give_up("capture.max_bytes is reached");
            }
            Err(error) => self.give_up(&chain(&error)),
        }
    }

    fn give_up(&mut self, reason: &str) {
        let bytes = self.journal.take().map_or(0, |journal| journal.bytes());
        let folder = self.folder.display();
        tracing::warn!(%folder, bytes, reason, "capturing ended, the daemon goes on");
    }
}

/// Reads a captured run, entry by entry, up to where it is sound.
#[derive(Debug)]
pub struct Captured {
    folder: PathBuf,
    start: Start,
    entries: JournalReader<Entry>,
}

impl Captured {
    /// Opens the run in a folder, or the newest of the runs in it.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(folder: &Path) -> Result<Self, Stop> {
        let shown = folder.display();
        let unreadable = |error| Stop::data(format!("cannot read {shown}")).because(error);
        let run = if folder.join(ENTRIES).exists() {
            folder.to_path_buf()
        } else {
            let newest = runs(folder).map_err(unreadable)?.pop();
            newest.ok_or_else(|| {
                Stop::data(format!(
                    "expected a captured run in {shown}, found none: capture one with run --capture"
                ))
            })?
        };
        let mut entries = JournalReader::open(&run.join(ENTRIES))?;
        let Some(Entry::Start(start)) = entries.read()? else {
            let shown = run.display();
            return Err(Stop::data(format!("the captured run in {shown} has no beginning")));
        };
        Ok(Self { folder: run, start, entries })
    }

    /// Returns what the run began with.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// Returns the folder of the checkpoint that the run began with, if it did not begin with nothing.
    pub fn start_folder(&self) -> Option<PathBuf> {
        self.start.resumed.then(|| self.folder.join(START))
    }

    /// Returns, at the end, how many bytes behind the sound entries a crash has torn.
    pub fn torn(&self) -> u64 {
        self.entries.torn()
    }
}

impl Iterator for Captured {
    type Item = Result<Entry, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entries.next()
    }
}

/// Says why no run is captured.
fn no_room(folder: &Path, bound: u64, taken: u64, copied: u64) -> Option<Capture> {
    tracing::warn!(
        folder = %folder.display(),
        bound,
        taken,
        checkpoint = copied,
        "this run is not captured: capture.max_bytes leaves no room beside the runs that are there and a copy of the checkpoint; remove runs, or allow more"
    );
    None
}

/// Returns the bytes of all files in a folder and those below it.
fn bytes_of(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { bytes_of(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}

/// Returns the folders of the runs, oldest first.
fn runs(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut runs = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if number_of(&path).is_some() && path.is_dir() {
            runs.push(path);
        }
    }
    runs.sort_unstable_by_key(|run| number_of(run));
    Ok(runs)
}

fn number_of(run: &Path) -> Option<u64> {
    run.file_name()?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests;
