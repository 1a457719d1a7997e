//! Features of open impressions outside the memory.
//!
//! An impression keeps its features until its last window closes, which may be days after the first one. What waits longer than the first
//! window goes into pages, in the order in which first windows close:
//!
//! ```text
//! first window closes ──> filling page ──full──> Pages (the store)     number = page * 256 + place in it
//! outcome or window that is learned ──> read, from the page that was read last or a new one
//! last window closes ──> one fewer is open in its page ──none left──> the page is removed with the next checkpoint
//! ```
//!
//! A page is written ahead of the checkpoint that will know of it: an addition. Its number stands for its input offset: a checkpoint
//! holds the number of the page that fills, and pages from that one on belong to no checkpoint. A restart forgets them, and they are
//! written anew under the same numbers. Removals wait for the commit. Where there is no room for a page it stays in memory.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_features::assemble::FieldValues;

/// Impressions of a page; few in tests, where few wait at a time.
const MOST: usize = if cfg!(test) { 8 } else { 256 };
const PLACE_BITS: u32 = MOST.ilog2();

/// Keeps pages.
pub trait Pages: Send + Sync {
    /// Writes a page in place of one of this number. It has to last from the next checkpoint on. Returns false when there is no room.
    ///
    /// # Errors
    /// When it cannot be written for another reason.
    fn put(&self, shard: u32, page: u64, bytes: &[u8]) -> Result<bool, SpillError>;

    /// Returns a page, `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&self, shard: u32, page: u64) -> Result<Option<Vec<u8>>, SpillError>;

    /// Removes a page that belongs to no checkpoint.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove(&self, shard: u32, page: u64) -> Result<(), SpillError>;
}

/// Why features of open impressions are not to be had: nothing that comes after it counts.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SpillError {
    /// The store failed.
    #[error("page {page} of open impressions of shard {shard} cannot be {action}")]
    Store {
        /// The shard.
        shard: u32,
        /// The page.
        page: u64,
        /// What was tried.
        action: &'static str,
        /// The store is damaged, not only out of reach.
        damaged: bool,
        /// What the store says.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The page is not what was written, or not there.
    #[error("page {page} of open impressions of shard {shard} {what}")]
    Page {
        /// The shard.
        shard: u32,
        /// The page.
        page: u64,
        /// What is wrong.
        what: &'static str,
    },
}

impl SpillError {
    /// Tells whether what is on disk is at fault.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Page { .. } | Self::Store { damaged: true, .. })
    }
}

/// Features one after the other, and where each ends: `[features ...][end u32 ...][how many u16]`, little-endian.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Page {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Page {
    fn push(&mut self, values: &FieldValues) {
        values.write_bytes(&mut self.bytes);
        self.ends.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
    }

    fn get(&self, place: usize) -> Option<&[u8]> {
        let end = *self.ends.get(place)? as usize;
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.bytes.get(start..end)
    }

    fn written(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes.len() + 4 * self.ends.len() + 2);
        bytes.extend_from_slice(&self.bytes);
        for end in &self.ends {
            bytes.extend_from_slice(&end.to_le_bytes());
        }
        let count = u16::try_from(self.ends.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes
    }

    fn read(mut bytes: Vec<u8>) -> Option<Self> {
        let (_, count) = bytes.split_last_chunk::<2>()?;
        let count = usize::from(u16::from_le_bytes(*count));
        let start = bytes.len().checked_sub(2 + 4 * count)?;
        let (ends, _) = bytes[start..bytes.len() - 2].as_chunks::<4>();
        let ends = ends.iter().map(|end| u32::from_le_bytes(*end)).collect();
        bytes.truncate(start);
        Some(Self { bytes, ends })
    }

    fn memory(&self) -> usize {
        self.bytes.capacity() + 4 * self.ends.capacity()
    }
}

/// What of a shard's pages a checkpoint keeps as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SpillState {
    /// The page that fills.
    next: u64,
    filling: Page,
    /// How many impressions of each page are open, pages ascending.
    open: Vec<(u64, u32)>,
    /// Pages for which there was no room.
    here: Vec<(u64, Page)>,
}

/// The features of a shard's impressions that wait longer than their first window.
pub(super) struct Spill {
    shard: u32,
    pages: Option<Arc<dyn Pages>>,
    on: bool,
    next: u64,
    filling: Page,
    open: BTreeMap<u64, u32>,
    /// Pages for which there was no room.
    here: BTreeMap<u64, Page>,
    /// Pages to be removed with the next checkpoint.
    gone: Vec<u64>,
    /// The page that was read last.
    recent: Option<(u64, Page)>,
}

impl Spill {
    /// Creates the spill of a shard that keeps everything with its impressions.
    pub(super) fn new(shard: u32) -> Self {
        Self {
            shard,
            pages: None,
            on: false,
            next: 0,
            filling: Page::default(),
            open: BTreeMap::new(),
            here: BTreeMap::new(),
            gone: Vec::new(),
            recent: None,
        }
    }

    /// Begins to use pages, and removes those that belong to no checkpoint.
    pub(super) fn begin(&mut self, pages: Arc<dyn Pages>) -> Result<(), SpillError> {
        let mut ahead = self.next;
        while pages.get(self.shard, ahead)?.is_some() {
            pages.remove(self.shard, ahead)?;
            ahead += 1;
        }
        (self.pages, self.on) = (Some(pages), true);
        Ok(())
    }

    /// Puts no more away; what is away can be read.
    pub(super) fn end(&mut self) {
        self.on = false;
    }

    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// Puts features away. Returns the number by which they are found.
    pub(super) fn put(&mut self, values: &FieldValues) -> Result<u64, SpillError> {
        let number = self.next << PLACE_BITS | self.filling.ends.len() as u64;
        self.filling.push(values);
        *self.open.entry(self.next).or_default() += 1;
        if self.filling.ends.len() >= MOST {
            self.turn()?;
        }
        Ok(number)
    }

    /// Reads features that were put away.
    pub(super) fn read(&mut self, number: u64, values: &mut FieldValues) -> Result<(), SpillError> {
        let (page, place) = (number >> PLACE_BITS, number as usize % MOST);
        let held = if page == self.next { Some(&self.filling) } else { self.here.get(&page) };
        let held = match held {
            Some(held) => held,
            None => self.fetch(page)?,
        };
        match held.get(place) {
            Some(bytes) if values.read_bytes(bytes) => Ok(()),
            _ => Err(self.wrong(page, "does not hold what was put there")),
        }
    }

    /// Forgets features that nobody needs any more.
    pub(super) fn release(&mut self, number: u64) {
        let page = number >> PLACE_BITS;
        let Some(open) = self.open.get_mut(&page) else { return };
        *open -= 1;
        if *open == 0 && page != self.next {
            self.remove(page);
        }
    }

    /// Returns about how many bytes of memory it takes.
    pub(super) fn memory(&self) -> usize {
        let pages = self.here.values().chain(self.recent.as_ref().map(|(_, page)| page));
        let pages = pages.chain([&self.filling]).map(Page::memory);
        pages.sum::<usize>() + 24 * self.open.len()
    }

    /// Returns the pages to be removed, each once, and takes them as removed.
    pub(super) fn drain_gone(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.gone)
    }

    /// Calls `see` with every page that is not in memory.
    pub(super) fn visit(&self, mut see: impl FnMut(u64, &[u8])) -> Result<(), SpillError> {
        let away = |page: &&u64| **page != self.next && !self.here.contains_key(page);
        for &page in self.open.keys().filter(away) {
            let bytes = self.stored(page)?;
            see(page, &bytes);
        }
        Ok(())
    }

    pub(super) fn state(&self) -> SpillState {
        SpillState {
            next: self.next,
            filling: self.filling.clone(),
            open: self.open.iter().map(|(page, open)| (*page, *open)).collect(),
            here: self.here.iter().map(|(page, held)| (*page, held.clone())).collect(),
        }
    }

    /// Goes back to a state; `keep` says whether its impressions are open still.
    pub(super) fn restore(&mut self, state: SpillState, keep: bool) {
        self.next = state.next;
        if keep {
            self.filling = state.filling;
            self.open = state.open.into_iter().collect();
            self.here = state.here.into_iter().collect();
        } else {
            let stored = state.open.iter().map(|(page, _)| *page);
            self.gone.extend(stored.filter(|page| *page != state.next));
        }
    }

    /// Ends the page that fills and begins the next.
    fn turn(&mut self) -> Result<(), SpillError> {
        let full = std::mem::take(&mut self.filling);
        if self.open.get(&self.next) == Some(&0) {
            // Nobody will ask for it: its number serves again.
            self.open.remove(&self.next);
            return Ok(());
        }
        self.here.insert(self.next, full);
        self.next += 1;
        let Some(pages) = &self.pages else { return Ok(()) };
        while let Some((&page, held)) = self.here.first_key_value() {
            if !pages.put(self.shard, page, &held.written())? {
                break;
            }
            self.here.remove(&page);
        }
        Ok(())
    }

    fn remove(&mut self, page: u64) {
        self.open.remove(&page);
        if self.here.remove(&page).is_none() {
            self.gone.push(page);
        }
    }

    fn fetch(&mut self, page: u64) -> Result<&Page, SpillError> {
        if self.recent.as_ref().is_none_or(|(recent, _)| *recent != page) {
            let read = Page::read(self.stored(page)?);
            let read = read.ok_or_else(|| self.wrong(page, "is no page"))?;
            self.recent = Some((page, read));
        }
        let recent = self.recent.as_ref().map(|(_, held)| held);
        recent.ok_or_else(|| self.wrong(page, "is not there"))
    }

    fn stored(&self, page: u64) -> Result<Vec<u8>, SpillError> {
        let found = self.pages.as_ref().map(|pages| pages.get(self.shard, page)).transpose()?;
        found.flatten().ok_or_else(|| self.wrong(page, "is not there"))
    }

    fn wrong(&self, page: u64, what: &'static str) -> SpillError {
        SpillError::Page { shard: self.shard, page, what }
    }
}

#[cfg(test)]
mod tests;
