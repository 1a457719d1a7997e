//! Reading the journal: the files behind a checkpoint, one after the other, as far as they are sound.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sluice_features::wire::Topic;

use super::{ENDING, Step};
use crate::error::Stop;
use crate::journal::{JournalError, JournalReader};

/// One partition of one topic.
pub type Part = (Topic, u32);

/// What is to be repeated: the steps since a checkpoint. An iterator over them.
#[derive(Debug, Default)]
pub struct Chain {
    folder: PathBuf,
    first: u64,
    /// Steps of each file, `Next` left out; the files are sound so far.
    files: Vec<u64>,
    /// Bytes of all files but the last.
    before_last: u64,
    /// The last file has no beginning: nothing of it can be read.
    torn: bool,
    ends: BTreeMap<Part, i64>,
    reading: Option<(usize, JournalReader<Step>)>,
}

impl Chain {
    /// Finds the files from `first` on that follow each other, and what they say of partitions.
    pub(super) fn find(folder: &Path, first: u64) -> Result<Self, JournalError> {
        let mut found = Self { folder: folder.into(), first, ..Self::default() };
        let mut number = first;
        while file(folder, number).exists() {
            let path = file(folder, number);
            let mut steps = 0;
            let mut goes_on = false;
            let reader = match JournalReader::<Step>::open(&path) {
                Ok(reader) => reader,
                // A lost power leaves what it likes of a file that was new.
                Err(JournalError::Foreign { .. }) => {
                    found.files.push(0);
                    found.torn = true;
                    break;
                }
                Err(error) => return Err(error),
            };
            for step in reader {
                match step? {
                    Step::Took(turn) => {
                        if let Some(part) = turn.part() {
                            let end = found.ends.entry(part).or_insert(turn.next);
                            *end = turn.next.max(*end);
                        }
                        steps += 1;
                    }
                    Step::Decided(_) => steps += 1,
                    Step::Next => goes_on = true,
                }
            }
            found.files.push(steps);
            if !goes_on || !file(folder, number + 1).exists() {
                break;
            }
            found.before_last += std::fs::metadata(&path).map_or(0, |meta| meta.len());
            number += 1;
        }
        Ok(found)
    }

    /// Returns the number of the newest file; `None` without any.
    pub(super) fn newest(&self) -> Option<u64> {
        Some(self.first + (self.files.len() as u64).checked_sub(1)?)
    }

    /// Tells whether nothing of the newest file can be read.
    pub(super) fn is_torn(&self) -> bool {
        self.torn
    }

    pub(super) fn bytes_before_last(&self) -> u64 {
        self.before_last
    }

    /// Returns how many steps there are.
    pub fn len(&self) -> u64 {
        self.files.iter().sum()
    }

    /// Tells whether there is nothing to repeat.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns, of each partition that had a turn, the offset below which everything was taken.
    pub fn ends(&self) -> &BTreeMap<Part, i64> {
        &self.ends
    }

    fn read(&mut self) -> Result<Option<Step>, JournalError> {
        loop {
            let place = match &mut self.reading {
                None => 0,
                Some((place, reader)) => match reader.read()? {
                    Some(Step::Next) | None => *place + 1,
                    step => return Ok(step),
                },
            };
            if place >= self.files.len() - usize::from(self.torn) {
                return Ok(None);
            }
            let path = file(&self.folder, self.first + place as u64);
            self.reading = Some((place, JournalReader::open(&path)?));
        }
    }
}

impl Iterator for Chain {
    type Item = Result<Step, Stop>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().map_err(Stop::from).transpose()
    }
}

/// Returns the path of a file.
pub(super) fn file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:012}{ENDING}"))
}

/// Returns the numbers of the files that are there, in no order.
pub(super) fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(ENDING));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(found)
}
