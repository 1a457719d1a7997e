//! Names of users and items outside the memory.
//!
//! Ids and second hashes of names are in memory ([`sluice_features::dictionary`]), their strings only until the page is full and a checkpoint
//! with it is in force. All others are read where an output needs them, by page, through a bounded cache:
//!
//! ```text
//! reader  pipeline's lock: what is in memory, and in which pages the rest is ──> without the lock: cache ──not there──> NamePages (the store)
//! ```
//!
//! Nobody reads the store with the pipeline's lock held, and nothing that is learned depends on a string. A page that is full never changes, so
//! what a reader was told of it holds whatever checkpoints come in between. A string that is read is compared with its second hash.

mod pieces;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use sluice_features::dictionary::{Away, Dictionary, PAGE, Texts, Whereabouts};
use sluice_features::maps::Seeded;
use sluice_features::wire::Role;

use super::Pipeline;

pub(super) use pieces::{read_names, read_texts, write_names, write_texts};

/// About what a page takes, by which the cache lays out its lists.
const USUAL: usize = 24 * PAGE;

/// Keeps pages of strings. They come there with checkpoints.
pub trait NamePages: Send + Sync {
    /// Returns a page, `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&self, whose: Role, page: u32) -> Result<Option<Vec<u8>>, NamesError>;
}

/// Why a name is not to be had: whoever needs it gets none.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NamesError {
    /// The store failed.
    #[error("page {page} of the names of {}s cannot be read", .whose.field())]
    Store {
        /// Whose names.
        whose: Role,
        /// The page.
        page: u32,
        /// The store is damaged, not only out of reach.
        damaged: bool,
        /// What the store says.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The page is not what was written, or not there.
    #[error("page {page} of the names of {}s {what}", .whose.field())]
    Page {
        /// Whose names.
        whose: Role,
        /// The page.
        page: u32,
        /// What is wrong.
        what: &'static str,
    },
}

impl NamesError {
    /// Tells whether what is on disk is at fault.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Page { .. } | Self::Store { damaged: true, .. })
    }
}

/// What the cache has done since the start, and what it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Pages that were found.
    pub hits: u64,
    /// Pages that were read from the store.
    pub misses: u64,
    /// Bytes of memory that the pages take.
    pub bytes: u64,
}

/// Finds the strings of names, for all threads.
pub struct Names {
    pages: Option<Arc<dyn NamePages>>,
    cache: Cache<u64, Arc<Texts>, Bytes, Seeded>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Pages weigh what they take.
#[derive(Clone, Copy)]
struct Bytes;

impl Weighter<u64, Arc<Texts>> for Bytes {
    fn weight(&self, _: &u64, page: &Arc<Texts>) -> u64 {
        page.memory() as u64
    }
}

impl Names {
    /// Creates the names of a pipeline that keeps all strings in memory.
    pub(super) fn in_memory() -> Self {
        Self::open(None, 0)
    }

    /// Creates the names of a pipeline whose strings are in pages, with so many bytes of memory for pages that were read.
    pub(super) fn over(pages: Arc<dyn NamePages>, cache_bytes: u64) -> Self {
        Self::open(Some(pages), cache_bytes)
    }

    fn open(pages: Option<Arc<dyn NamePages>>, cache_bytes: u64) -> Self {
        let usual = usize::try_from(cache_bytes).unwrap_or(usize::MAX) / USUAL;
        let mut options = OptionsBuilder::new();
        options.estimated_items_capacity(usual.max(1)).weight_capacity(cache_bytes);
        let lifecycle = DefaultLifecycle::default();
        // Both numbers are given.
        let cache = match options.build() {
            Ok(options) => Cache::with_options(options, Bytes, Seeded::default(), lifecycle),
            Err(_) => Cache::with(usual, cache_bytes, Bytes, Seeded::default(), lifecycle),
        };
        Self { pages, cache, hits: AtomicU64::default(), misses: AtomicU64::default() }
    }

    /// Tells whether strings can be kept elsewhere.
    pub(super) fn has_pages(&self) -> bool {
        self.pages.is_some()
    }

    /// Shows the strings of some numbers, each once with the place of its number, in any order. The pipeline is locked for reading while
    /// strings in memory are shown; others are read afterwards.
    ///
    /// # Errors
    /// When a string is out of reach or its number was never given out; others may have been shown.
    pub fn find(
        &self,
        pipeline: &RwLock<Pipeline>,
        whose: Role,
        numbers: &[u32],
        mut see: impl FnMut(usize, &str),
    ) -> Result<(), NamesError> {
        let mut away: Vec<(Away, usize)> = Vec::new();
        {
            let pipeline = pipeline.read();
            let dictionary = pipeline.shared().dictionary(whose);
            for (place, &number) in numbers.iter().enumerate() {
                match dictionary.whereabouts(number) {
                    Some(Whereabouts::Here(text)) => see(place, text),
                    Some(Whereabouts::Elsewhere(found)) => away.push((found, place)),
                    None => return Err(wrong(whose, number / PAGE as u32, "has no such name")),
                }
            }
        }
        away.sort_unstable();
        for same in away.chunk_by(|one, two| one.0.page == two.0.page) {
            let page = same[0].0.page;
            let texts = self.page(whose, page)?;
            for (away, place) in same {
                let text = texts.find(away);
                see(*place, text.ok_or_else(|| wrong(whose, page, "does not hold the name"))?);
            }
        }
        Ok(())
    }

    /// Returns the string of one number.
    ///
    /// # Errors
    /// As [`Names::find`].
    pub fn text(
        &self,
        pipeline: &RwLock<Pipeline>,
        whose: Role,
        number: u32,
    ) -> Result<String, NamesError> {
        let mut found = String::new();
        self.find(pipeline, whose, &[number], |_, text| found.push_str(text))?;
        Ok(found)
    }

    /// Returns what the cache has done and takes.
    pub fn counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes: self.cache.weight(),
        }
    }

    /// Returns about how many bytes of memory the cache takes.
    pub(super) fn memory(&self) -> usize {
        usize::try_from(self.cache.weight()).unwrap_or(usize::MAX)
    }

    /// Returns a page of the dictionary as a piece, from memory or as it is kept.
    pub(super) fn piece(
        &self,
        dictionary: &Dictionary,
        whose: Role,
        page: u32,
    ) -> Result<Vec<u8>, NamesError> {
        match dictionary.texts(page) {
            Some(texts) => Ok(write_texts(texts)),
            None => self.kept(whose, page),
        }
    }

    /// Returns a page from the cache, or reads it. Threads that want the same page at once read it once.
    fn page(&self, whose: Role, page: u32) -> Result<Arc<Texts>, NamesError> {
        let mut read = false;
        let found = self.cache.get_or_insert_with(&key(whose, page), || {
            read = true;
            let texts = read_texts(&self.kept(whose, page)?);
            texts.map(Arc::new).ok_or_else(|| wrong(whose, page, "is no page"))
        })?;
        let count = if read { &self.misses } else { &self.hits };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(found)
    }

    fn kept(&self, whose: Role, page: u32) -> Result<Vec<u8>, NamesError> {
        let found = self.pages.as_ref().map(|pages| pages.get(whose, page)).transpose()?;
        found.flatten().ok_or_else(|| wrong(whose, page, "is not there"))
    }
}

fn key(whose: Role, page: u32) -> u64 {
    (whose as u64) << 32 | u64::from(page)
}

pub(super) fn wrong(whose: Role, page: u32, what: &'static str) -> NamesError {
    NamesError::Page { whose, page, what }
}
