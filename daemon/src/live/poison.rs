//! Records at which the daemon panics: a bug, but one that must not end every start. The place of the record in hand is noted as the thread
//! unwinds; after [`TRIES`] ends at the same record the next start sends it to the dead-letter topic, as `poison`, and goes on behind it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sluice_features::reject::{Reason, Rejection};

use crate::error::Stop;
use crate::pipeline::record::Record;

/// So many ends at a record are no accident.
pub const TRIES: u32 = 3;
/// Places that are kept; the file grows no further.
const MOST: usize = 64;
const FILE: &str = "poison.json";

/// What is known of such records, in a file beside the checkpoint.
#[derive(Debug)]
pub struct Poison {
    path: PathBuf,
    ends: BTreeMap<Place, u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Place {
    topic: u8,
    partition: u32,
    offset: i64,
}

impl Place {
    fn of(record: &Record<'_>) -> Self {
        Self { topic: record.topic as u8, partition: record.partition, offset: record.offset }
    }
}

/// The record in hand: a panic while this lives is noted against it.
pub(super) struct InHand<'a> {
    poison: &'a Poison,
    place: Place,
}

impl Poison {
    /// Reads the file in a folder, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(folder: &Path) -> Result<Self, Stop> {
        let path = folder.join(FILE);
        let unreadable = |why: String| {
            let shown = path.display();
            Stop::data(format!(
                "{shown} says at which records the daemon has ended, and cannot be read ({why}): remove it to try them again"
            ))
        };
        let ends: Vec<(Place, u32)> = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| unreadable(e.to_string()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        Ok(Self { path, ends: ends.into_iter().collect() })
    }

    /// Returns why a record is not to be taken, if it has ended the daemon too often.
    pub(super) fn refusal(&self, record: &Record<'_>) -> Option<Rejection> {
        if self.ends.is_empty() {
            return None;
        }
        let ends = *self.ends.get(&Place::of(record))?;
        (ends >= TRIES).then(|| Rejection::whole(Reason::Poison))
    }

    /// Takes note of the record that is being worked on.
    pub(super) fn in_hand(&self, record: &Record<'_>) -> InHand<'_> {
        InHand { poison: self, place: Place::of(record) }
    }

    fn note(&self, place: Place) -> std::io::Result<()> {
        let mut ends: Vec<(Place, u32)> = self.ends.iter().map(|(at, ends)| (*at, *ends)).collect();
        match ends.iter_mut().find(|(at, _)| *at == place) {
            Some((_, ends)) => *ends += 1,
            None => ends.push((place, 1)),
        }
        let begin = ends.len().saturating_sub(MOST);
        let unfinished = self.path.with_extension("new");
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec(&ends[begin..])?)?;
        file.sync_all()?;
        std::fs::rename(unfinished, &self.path)
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Place { partition, offset, .. } = self.place;
        match self.poison.note(self.place) {
            Ok(()) => tracing::error!(
                partition,
                offset,
                "the daemon panicked at this record: after three such ends it goes to the dead-letter topic as poison; please report the bug"
            ),
            Err(error) => {
                tracing::error!(partition, offset, %error, "the daemon panicked at this record, and that cannot be noted");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use sluice_features::time::EventTime;
    use sluice_features::wire::Topic;

    use super::*;

    fn record(partition: u32, offset: i64) -> Record<'static> {
        let (topic, arrived) = (Topic::Events, EventTime(1_700_000_000_000));
        Record { topic, partition, offset, arrived, key: None, value: None }
    }

    #[test]
    fn the_third_end_at_a_record_is_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let (bad, sound) = (record(1, 7), record(0, 7));
        for ends in 0..=TRIES {
            let poison = Poison::open(folder.path()).unwrap();
            drop(poison.in_hand(&sound));
            assert_eq!(poison.refusal(&sound), None);
            assert_eq!(poison.refusal(&bad).is_some(), ends == TRIES, "after {ends} ends");
            let end = catch_unwind(AssertUnwindSafe(|| {
                let _in_hand = poison.in_hand(&bad);
                panic!("at this record");
            }));
            assert!(end.is_err());
        }
        std::fs::write(folder.path().join(FILE), b"[[").unwrap();
        let error = Poison::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("remove it"), "{error}");
    }
}
