//! Features of open impressions outside the memory.
//!
//! An impression keeps its features until its last window closes, which may be days after the first one. What waits longer than the first
//! window goes into pages, in the order in which first windows close:
//!
//! ```text
//! first window closes ──> filling page ──full──> waiting page ──checkpoint──> Pages (the store)     number = page * 256 + place in it
//! outcome or window that is learned ──> read, from memory, from the page that was read last, or a new one
//! last window closes ──> one fewer is open in its page ──none left──> the page is removed with the next checkpoint
//! ```
//!
//! A page is written once, with the checkpoint that knows of it first, and stays in memory until that one is in force. So no page is in
//! the store that the checkpoint in force does not know, and the store is written by nobody but the thread that makes checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_features::assemble::FieldValues;
use sluice_features::pack::OutOfReach;

/// Impressions of a page; few in tests, where few wait at a time.
const MOST: usize = if cfg!(test) { 8 } else { 256 };
const PLACE_BITS: u32 = MOST.ilog2();

/// What a page is called where it is out of reach.
pub(crate) const PAGE: &str = "the page of open impressions";

/// Keeps pages. They come there and go from there with checkpoints.
pub trait Pages: Send + Sync {
    /// Returns a page, `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&self, shard: u32, page: u64) -> Result<Option<Vec<u8>>, OutOfReach>;
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
}

/// The features of a shard's impressions that wait longer than their first window.
pub(super) struct Spill {
    shard: u32,
    pages: Option<Arc<dyn Pages>>,
    on: bool,
    next: u64,
    filling: Page,
    open: BTreeMap<u64, u32>,
    /// Pages that no checkpoint in force has.
    waiting: BTreeMap<u64, Page>,
    /// Bytes of memory that they take.
    waiting_bytes: usize,
    /// Pages below this one were given to a checkpoint.
    given: u64,
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
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            given: 0,
            gone: Vec::new(),
            recent: None,
        }
    }

    /// Begins to use pages.
    pub(super) fn begin(&mut self, pages: Arc<dyn Pages>) {
        (self.pages, self.on) = (Some(pages), true);
    }

    /// Puts no more away; what is away can be read.
    pub(super) fn end(&mut self) {
        self.on = false;
    }

    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// Puts features away. Returns the number by which they are found.
    pub(super) fn put(&mut self, values: &FieldValues) -> u64 {
        let number = self.next << PLACE_BITS | self.filling.ends.len() as u64;
        self.filling.push(values);
        *self.open.entry(self.next).or_default() += 1;
        if self.filling.ends.len() >= MOST {
            self.turn();
        }
        number
    }

    /// Reads features that were put away.
    pub(super) fn read(&mut self, number: u64, values: &mut FieldValues) -> Result<(), OutOfReach> {
        let (page, place) = (number >> PLACE_BITS, number as usize % MOST);
        let held = if page == self.next { Some(&self.filling) } else { self.waiting.get(&page) };
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
        let read = self.recent.as_ref().map_or(0, |(_, page)| page.memory());
        self.waiting_bytes + read + self.filling.memory() + 24 * self.open.len()
    }

    /// Returns how many bytes of memory wait for a checkpoint.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Shows at most so many pages that no checkpoint was given, and takes them as given. Returns how many are left.
    pub(super) fn give(&mut self, most: usize, mut see: impl FnMut(u64, &[u8])) -> usize {
        let mut pages = self.waiting.range(self.given..);
        for (page, held) in pages.by_ref().take(most) {
            see(*page, &held.written());
            self.given = page + 1;
        }
        pages.count()
    }

    /// Forgets pages that a checkpoint in force has: those that were given.
    pub(super) fn stored(&mut self) {
        let rest = self.waiting.split_off(&self.given);
        let stored = std::mem::replace(&mut self.waiting, rest);
        self.waiting_bytes -= stored.values().map(Page::memory).sum::<usize>();
    }

    /// Returns the pages to be removed, each once, and takes them as removed.
    pub(super) fn drain_gone(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.gone)
    }

    /// Calls `see` with every page but the one that fills.
    pub(super) fn visit(&self, mut see: impl FnMut(u64, &[u8])) -> Result<(), OutOfReach> {
        for &page in self.open.keys().filter(|page| **page != self.next) {
            let bytes = match self.waiting.get(&page) {
                Some(held) => held.written(),
                None => self.kept(page)?,
            };
            see(page, &bytes);
        }
        Ok(())
    }

    pub(super) fn state(&self) -> SpillState {
        SpillState {
            next: self.next,
            filling: self.filling.clone(),
            open: self.open.iter().map(|(page, open)| (*page, *open)).collect(),
        }
    }

    /// Goes back to a state; `keep` says whether its impressions are open still.
    pub(super) fn restore(&mut self, state: SpillState, keep: bool) {
        (self.next, self.given) = (state.next, state.next);
        if keep {
            self.filling = state.filling;
            self.open = state.open.into_iter().collect();
        } else {
            let stored = state.open.iter().map(|(page, _)| *page);
            self.gone.extend(stored.filter(|page| *page != state.next));
        }
    }

    /// Ends the page that fills and begins the next.
    fn turn(&mut self) {
        let full = std::mem::take(&mut self.filling);
        if self.open.get(&self.next) == Some(&0) {
            // Nobody will ask for it: its number serves again.
            self.open.remove(&self.next);
            return;
        }
        self.waiting_bytes += full.memory();
        self.waiting.insert(self.next, full);
        self.next += 1;
    }

    fn remove(&mut self, page: u64) {
        self.open.remove(&page);
        if let Some(held) = self.waiting.remove(&page) {
            self.waiting_bytes -= held.memory();
        }
        if page < self.given {
            self.gone.push(page);
        }
    }

    fn fetch(&mut self, page: u64) -> Result<&Page, OutOfReach> {
        if self.recent.as_ref().is_none_or(|(recent, _)| *recent != page) {
            let read = Page::read(self.kept(page)?);
            let read = read.ok_or_else(|| self.wrong(page, "is no page"))?;
            self.recent = Some((page, read));
        }
        let recent = self.recent.as_ref().map(|(_, held)| held);
        recent.ok_or_else(|| self.wrong(page, "is not there"))
    }

    fn kept(&self, page: u64) -> Result<Vec<u8>, OutOfReach> {
        let found = self.pages.as_ref().map(|pages| pages.get(self.shard, page)).transpose()?;
        found.flatten().ok_or_else(|| self.wrong(page, "is not there"))
    }

    fn wrong(&self, page: u64, wrong: &'static str) -> OutOfReach {
        OutOfReach::Wrong { what: PAGE, shard: self.shard, number: page, wrong }
    }
}

#[cfg(test)]
mod tests;
