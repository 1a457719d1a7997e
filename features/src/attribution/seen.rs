//! The event ids that were seen: by them second copies are known.
//!
//! Impressions have a log of ids, and so has each type of behaviour: a rare type is not pushed out by a common one. An id is kept until the
//! watermark is a stated span beyond its event's time. All logs together are bounded in bytes; at the bound the longest one forgets its
//! oldest ids, and those whose span was not over are counted.
//!
//! A log is a queue of pages in the order of arrival, beside an index of places: about 20 bytes an id. Pages leave as a whole, at most one
//! with an id that comes, so an id costs O(1).

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use crate::ids::{EventId, UserId, pair_key};
use crate::maps::Seeded;
use crate::time::{EventTime, Span};

/// Ids of a page.
const PAGE: usize = 128;
const OFFSET_BITS: u32 = PAGE.ilog2();

/// Pages that leave while one fills, as far as their span is over: ids leave faster than they come.
const LEAVING: usize = 4;

/// Bytes of a full page: its keys, their count and capacity, the newest time, the counts of owners, its place in the queue.
const PAGE_BYTES: usize = PAGE * 8 + 80;

/// Most bytes that the index takes for an id, right after it has grown: four and one of control, at seven sixteenths of its places.
const INDEX_BYTES: usize = 12;

/// Ids that came one after the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Page {
    /// The newest time of their events.
    newest: EventTime,
    keys: Vec<u64>,
}

/// The ids of impressions, or of one type of behaviour.
#[derive(Clone, Debug)]
struct Log {
    pages: VecDeque<Arc<Page>>,
    /// The number of the first page, modulo 2^23.
    first: u32,
    /// Number of the page and offset in it, by key.
    index: HashTable<u32>,
    /// How long an id is kept at least.
    span: Span,
}

/// An id has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    /// 0 for an impression, 1 and up for behaviours by their type.
    pub(super) log: usize,
    pub(super) user: UserId,
    pub(super) id: EventId,
    pub(super) time: EventTime,
}

/// The ids that a shard has seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    logs: Vec<Log>,
    /// A page that was forgotten, for the next one that begins.
    spare: Option<Arc<Page>>,
    hashing: Seeded,
    max_bytes: usize,
    bytes: usize,
}

impl Seen {
    /// Creates empty logs that keep their ids so long, all together in so many bytes.
    pub(super) fn new(spans: impl IntoIterator<Item = Span>, max_bytes: usize) -> Self {
        let log = |span| Log { pages: VecDeque::new(), first: 0, index: HashTable::new(), span };
        let logs = spans.into_iter().map(log).collect();
        Self { logs, spare: None, hashing: Seeded::default(), max_bytes, bytes: 0 }
    }

    /// Enters an id. Returns false when it is there already. `early` is called with the log and the number of ids that are forgotten for
    /// want of room before their span is over.
    pub(super) fn admit(
        &mut self,
        arrived: Arrived,
        watermark: EventTime,
        mut early: impl FnMut(usize, u64),
    ) -> bool {
        let key = pair_key(arrived.user.0, arrived.id.0);
        let Self { logs, spare, hashing, bytes, .. } = self;
        let log = &mut logs[arrived.log];
        if log.has(key, hashing) {
            return false;
        }
        let before = log.bytes();
        let turn = log.pages.back().is_some_and(|page| page.keys.len() % (PAGE / LEAVING) == 0);
        if turn && log.pages.front().is_some_and(|page| page.newest + log.span < watermark) {
            *spare = log.forget(hashing);
        }
        log.push(key, arrived.time, hashing, spare);
        *bytes = *bytes + log.bytes() - before;
        while self.bytes > self.max_bytes
            && self.forget_oldest(Some(arrived.log), watermark, &mut early)
        {}
        true
    }

    /// Takes the first page out of the longest log, and calls `early` where its span was not over. Of the log `written` the page that was just
    /// written to stays. Returns false when there is no page to forget.
    pub(super) fn forget_oldest(
        &mut self,
        written: Option<usize>,
        watermark: EventTime,
        mut early: impl FnMut(usize, u64),
    ) -> bool {
        let Self { logs, spare, hashing, bytes, .. } = self;
        let others =
            |(i, log): &(usize, &mut Log)| log.pages.len() > usize::from(written == Some(*i));
        let fullest = logs.iter_mut().enumerate().filter(others).rev();
        let Some((i, log)) = fullest.max_by_key(|(_, log)| log.pages.len()) else { return false };
        let before = log.bytes();
        *spare = log.forget(hashing);
        if let Some(page) = spare.as_ref().filter(|page| page.newest + log.span >= watermark) {
            early(i, page.keys.len() as u64);
        }
        *bytes -= before - log.bytes();
        true
    }

    /// Returns how long the ids of a log are kept at least.
    pub(super) fn span(&self, log: usize) -> Span {
        self.logs[log].span
    }

    /// Returns about how many bytes the ids take.
    pub(super) fn memory(&self) -> usize {
        self.bytes
    }

    /// Returns the ids as they are now.
    pub(super) fn picture(&self) -> SeenPicture {
        SeenPicture(self.logs.iter().map(|log| log.pages.clone()).collect())
    }

    /// Puts back what a picture was serialised to.
    pub(super) fn restore(&mut self, state: Vec<Vec<Page>>) {
        for (log, pages) in self.logs.iter_mut().zip(state) {
            for page in pages {
                log.pages.push_back(Arc::new(Page::beginning(page.newest)));
                page.keys.iter().for_each(|&key| log.enter(key, &self.hashing));
            }
        }
        self.bytes = self.logs.iter().map(Log::bytes).sum();
    }
}

impl Page {
    /// Returns an empty page with room for all its keys.
    fn beginning(newest: EventTime) -> Self {
        Self { newest, keys: Vec::with_capacity(PAGE) }
    }

    /// Makes it an empty one.
    fn begin(&mut self, newest: EventTime) {
        self.newest = newest;
        self.keys.clear();
        self.keys.reserve_exact(PAGE);
    }
}

impl Log {
    fn has(&self, key: u64, hashing: &Seeded) -> bool {
        let is = |&place: &u32| self.key(place) == key;
        self.index.find(hashing.hash_one(key), is).is_some()
    }

    fn push(&mut self, key: u64, time: EventTime, hashing: &Seeded, spare: &mut Option<Arc<Page>>) {
        if self.pages.back().is_none_or(|page| page.keys.len() == PAGE) {
            let mut page = spare.take().unwrap_or_default();
            // One that a picture still holds is left to it.
            match Arc::get_mut(&mut page) {
                Some(page) => page.begin(time),
                None => page = Arc::new(Page::beginning(time)),
            }
            self.pages.push_back(page);
        }
        if let Some(page) = self.pages.back_mut() {
            let page = Arc::make_mut(page);
            page.newest = page.newest.max(time);
        }
        self.enter(key, hashing);
    }

    /// Adds a key to the last page and to the index.
    fn enter(&mut self, key: u64, hashing: &Seeded) {
        let number = self.first.wrapping_add(self.pages.len() as u32).wrapping_sub(1);
        let Some(page) = self.pages.back_mut() else { return };
        let page = Arc::make_mut(page);
        let place = number << OFFSET_BITS | page.keys.len() as u32;
        page.keys.push(key);
        let Self { pages, first, index, .. } = self;
        let hash = |&place: &u32| hashing.hash_one(key_at(pages, *first, place));
        index.insert_unique(hashing.hash_one(key), place, hash);
    }

    /// Takes the first page out.
    fn forget(&mut self, hashing: &Seeded) -> Option<Arc<Page>> {
        let page = self.pages.front().cloned()?;
        for (offset, &key) in (0u32..).zip(&page.keys) {
            let place = self.first << OFFSET_BITS | offset;
            if let Ok(entry) = self.index.find_entry(hashing.hash_one(key), |known| *known == place)
            {
                entry.remove();
            }
        }
        self.pages.pop_front();
        self.first = self.first.wrapping_add(1);
        if self.index.capacity() > 4 * self.index.len() + 4 * PAGE {
            let Self { pages, first, index, .. } = self;
            let hash = |&place: &u32| hashing.hash_one(key_at(pages, *first, place));
            index.shrink_to(2 * index.len(), hash);
        }
        Some(page)
    }

    fn key(&self, place: u32) -> u64 {
        key_at(&self.pages, self.first, place)
    }

    fn bytes(&self) -> usize {
        self.pages.len() * PAGE_BYTES + self.index.len() * INDEX_BYTES
    }
}

/// Page numbers turn over after 2^23 pages, of which never so many are there at a time.
fn key_at(pages: &VecDeque<Arc<Page>>, first: u32, place: u32) -> u64 {
    let page = (place >> OFFSET_BITS).wrapping_sub(first) & (u32::MAX >> OFFSET_BITS);
    pages[page as usize].keys[place as usize % PAGE]
}

/// The ids as they were; serialised as a list of pages for each log.
#[derive(Clone, Debug)]
pub(super) struct SeenPicture(Vec<VecDeque<Arc<Page>>>);

impl SeenPicture {
    /// Returns the pages of each log, the oldest first.
    pub(super) fn state(&self) -> Vec<Vec<Page>> {
        self.0.iter().map(|pages| pages.iter().map(|page| Page::clone(page)).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: usize = PAGE_BYTES + PAGE * INDEX_BYTES;

    fn arrived(log: usize, user: u64, id: u64, time: i64) -> Arrived {
        Arrived { log, user: UserId(user), id: EventId(id), time: EventTime(time) }
    }

    fn seen(spans: &[i64], max_bytes: usize) -> Seen {
        Seen::new(spans.iter().map(|&span| Span(span)), max_bytes)
    }

    /// Enters an id for which there is room.
    fn admit(seen: &mut Seen, arrived: Arrived, watermark: i64) -> bool {
        seen.admit(arrived, EventTime(watermark), |log, ids| panic!("{ids} of {log} forgotten"))
    }

    #[test]
    fn an_id_belongs_to_its_user_and_its_type() {
        let mut seen = seen(&[10, 10], 1 << 20);
        // Users and ids that are each other's, and equal ones.
        for of in [(0, 1, 2), (0, 2, 1), (1, 1, 2), (0, 1, 1), (0, 2, 2), (1, 1, 1)] {
            assert!(admit(&mut seen, arrived(of.0, of.1, of.2, 0), 0), "{of:?}");
        }
        assert!(!admit(&mut seen, arrived(0, 1, 2, 0), 0));
        assert!(!admit(&mut seen, arrived(1, 1, 1, 5), 0), "the id counts, not the time");
    }

    #[test]
    fn ids_are_kept_for_their_span_whatever_their_number() {
        let (span, many) = (100_000, 50_000);
        let mut seen = seen(&[span], 1 << 30);
        for time in 0..many {
            assert!(admit(&mut seen, arrived(0, 7, 1 + time as u64, time), time - 10));
        }
        for time in 0..many {
            assert!(!admit(&mut seen, arrived(0, 7, 1 + time as u64, time), many + 1));
        }
        // Once the span is over, ids leave faster than they come.
        let before = seen.memory();
        for time in 0..many {
            assert!(admit(&mut seen, arrived(0, 8, 1 + time as u64, time + span), span + many));
        }
        assert!(seen.memory() <= before + FULL, "{} bytes, {before} before", seen.memory());
        assert!(admit(&mut seen, arrived(0, 7, 1, 0), span + many), "its span was over");
    }

    #[test]
    fn at_the_bound_the_commonest_type_forgets_first_and_it_is_counted() {
        let mut seen = seen(&[1_000_000, 1_000_000], 10 * FULL);
        let mut forgotten = [0, 0];
        for id in 0..100 {
            assert!(admit(&mut seen, arrived(1, 1, 1 + id, 0), 0));
        }
        for id in 0..20 * PAGE as u64 {
            let count = |log: usize, ids| forgotten[log] += ids;
            assert!(seen.admit(arrived(0, 1, 1 + id, 0), EventTime(0), count));
            assert!(seen.memory() <= 10 * FULL);
        }
        for id in 0..100 {
            assert!(!admit(&mut seen, arrived(1, 1, 1 + id, 0), 0), "rare ids stay");
        }
        assert_eq!(forgotten[1], 0);
        assert_eq!(forgotten[0] as usize, 20 * PAGE - seen.logs[0].index.len());
        assert!(seen.logs[0].index.len() > 8 * PAGE);
    }

    #[test]
    fn it_does_what_a_map_does_and_goes_on_after_a_restore() {
        let spans = [40, 7, 300];
        let mut seen = seen(&spans, 1 << 20);
        let mut map = std::collections::HashMap::new();
        let mut state = 1u64;
        for round in 0..60_000i64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let watermark = round / 10;
            let (log, user, id) = ((state >> 60) as usize % 3, state >> 33 & 15, state >> 40 & 255);
            let time = watermark + (state >> 50 & 7) as i64;
            let known = !admit(&mut seen, arrived(log, user, id, time), watermark);
            match map.get(&(log, user, id)) {
                Some(&time) if time + spans[log] >= watermark => assert!(known),
                Some(_) => {}
                None => assert!(!known),
            }
            if !known {
                map.insert((log, user, id), time);
            }
            if round % 20_000 == 19_999 {
                let mut again = Seen::new(spans.map(Span), 1 << 20);
                again.restore(seen.picture().state());
                assert_eq!(again.memory(), seen.memory());
                seen = again;
            }
        }
        assert!(seen.memory() < 40 * FULL);
    }
}
