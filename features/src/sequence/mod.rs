//! What every user did, in event-time order and as far back as `max_length` behaviours as of any moment that may still be read: the example of
//! an impression that was open for days sees what it saw when it was shown.
//!
//! ```text
//! user -> | segment | segment | ... | open tail |      oldest first; the oldest behaviours go first
//! ```
//!
//! A segment is packed, about 10 bytes a behaviour, and does not change once it is full, unless a behaviour comes so late that it belongs
//! inside. Behaviours of the same time stay in the order of their arrival. Items, categories and types of behaviour are numbers of tables
//! ([`crate::dictionary::Dictionary`], [`crate::ids::Numbers`], [`KindNumbers`]) that the caller keeps beside the sequences; without them a segment says
//! nothing. A type of behaviour keeps its number whatever is configured later: one that is configured no more stays and is not read.
//!
//! Costs: an append is O(1) amortised; the newest N are one read; a search by category ([SIM](https://arxiv.org/abs/2006.05639)'s hard search) looks
//! at one short list a segment and scans a byte column where it is found.
//!
//! Users may be more than there is memory for. In it are those that were asked for lately (`residents`) and, of all, in which pack the rest of
//! them is (`index`):
//!
//! ```text
//! user ─> in memory ─────────────────────────────────────┐
//!    └──> index ─> pack of users ─> open tail, and of each segment a summary and where it is ─> pack of segments
//! ```
//!
//! Packs ([`crate::pack`]) are written by checkpoints and never changed. Who has changed since the checkpoint in force stays in memory. So what
//! is stored is that checkpoint, and a start reads the index and no user. What is read does not depend on who is in memory.

mod history;
mod index;
mod kinds;
mod reader;
mod residents;
mod search;
mod segment;
mod storing;
mod summary;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::ids::UserId;
use crate::pack::{OutOfReach, Packs};
use crate::time::EventTime;

use history::History;
use index::UserIndex;
use reader::Reader;
use residents::Residents;
use storing::Storing;

pub use index::IndexPart;
pub use kinds::{KindNumber, KindNumbers, Kinds, TooManyKinds};
pub use segment::SegmentError;
pub use storing::{SequencePart, SequencesState};

/// Category of a behaviour whose item has none.
pub const NO_CATEGORY: u32 = u32::MAX;

/// How far back [`Sequence::recent_categories`] looks.
const RECENT: usize = 1024;

/// A behaviour in a user's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number of the item.
    pub item: u32,
    /// The number of the item's category at that time, or [`NO_CATEGORY`].
    pub category: u32,
    /// What was done.
    pub kind: KindNumber,
    /// When.
    pub time: EventTime,
}

/// What became of a behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is the newest.
    InOrder,
    /// It was put among older ones.
    Late,
    /// It was not kept: the sequence is full of newer ones.
    TooOld,
}

/// What the cache of users has done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Users that were asked for and in memory.
    pub hits: u64,
    /// Users that were asked for and had to be read.
    pub misses: u64,
    /// Segments that were read.
    pub segments: u64,
    /// Bytes of users that made room for others.
    pub evicted_bytes: u64,
}

impl CacheCounts {
    /// Adds those of another cache.
    pub fn add(&mut self, more: Self) {
        self.hits += more.hits;
        self.misses += more.misses;
        self.segments += more.segments;
        self.evicted_bytes += more.evicted_bytes;
    }
}

/// The sequences of all users of a shard.
#[derive(Debug)]
pub struct Sequences {
    residents: Residents,
    index: UserIndex,
    reader: Reader,
    storing: Storing,
    max_length: usize,
    /// Users, wherever they are.
    users: usize,
    behaviours: usize,
    hits: u64,
    room: Vec<Entry>,
}

impl Sequences {
    /// Creates the empty sequences of a shard that keep at most `max_length` (at least 1) behaviours of a user. All users stay in memory until
    /// [`Self::read_from`] says where else they could be. `kinds` gave the numbers of types of behaviour.
    pub fn new(shard: u32, max_length: usize, kinds: &KindNumbers) -> Self {
        Self {
            residents: Residents::new(),
            index: UserIndex::new(),
            reader: Reader::new(shard, kinds.given()),
            storing: Storing::default(),
            max_length: max_length.max(1),
            users: 0,
            behaviours: 0,
            hits: 0,
            room: Vec::new(),
        }
    }

    /// Says where stored packs are read: with that, memory can be bounded.
    pub fn read_from(&mut self, packs: Arc<dyn Packs>) {
        self.reader.read_from(packs);
    }

    /// Sets how many bytes of memory users may take. Who has changed since the checkpoint in force stays all the same.
    pub fn bound(&mut self, most: usize) {
        self.residents.bound(most);
    }

    /// Adds a behaviour after all of this user that are not later. Before the `horizon` nobody will read any more: a read as of that time or later
    /// sees the newest `max_length` behaviours before it, unless there are more than twice as many (at least 4096 more) altogether.
    pub fn append(&mut self, user: UserId, entry: Entry, horizon: EventTime) -> Appended {
        if !self.bring(user) {
            self.users += 1;
            self.residents.insert(user, History::default());
        }
        let Self { residents, reader, storing, max_length, room, behaviours, .. } = self;
        let most = *max_length;
        let changed = residents.change(user, |history| {
            let before = history.length(most);
            let removed = &mut |spot| storing.remove(spot);
            history.trim(most, horizon, reader, removed);
            let appended = history.append(entry, (most, horizon), reader, room, removed);
            *behaviours = *behaviours + history.length(most) - before;
            appended
        });
        let Some((appended, first)) = changed else { return Appended::TooOld };
        if first {
            self.storing.changed(user);
        }
        appended
    }

    /// Brings a user into memory. Returns false for one who is not known.
    pub fn bring(&mut self, user: UserId) -> bool {
        if self.residents.has(user) {
            self.hits += 1;
            return true;
        }
        let Some(history) = self.away(user) else { return false };
        self.residents.insert(user, history);
        true
    }

    /// Looks at a user's behaviours.
    pub fn of(&self, user: UserId) -> Sequence<'_> {
        let history = match self.residents.get(user) {
            Some(history) => Whose::Resident(history),
            None => self.away(user).map_or(Whose::Nobody, |history| Whose::Away(Box::new(history))),
        };
        Sequence { history, reader: &self.reader, max_length: self.max_length }
    }

    /// Tells whether a user has any behaviours.
    pub fn knows(&self, user: UserId) -> bool {
        self.residents.has(user) || self.index.get(user).is_some()
    }

    /// Returns where packs are read, if anybody can be away.
    pub fn packs(&self) -> Option<&Arc<dyn Packs>> {
        self.reader.packs()
    }

    /// Returns the pack that a user is to be read from, `None` for one who is in memory or not known.
    pub fn pack_of(&self, user: UserId) -> Option<u64> {
        if self.residents.has(user) { None } else { self.index.get(user) }
    }

    /// Returns how many users there are.
    pub fn users(&self) -> usize {
        self.users
    }

    /// Returns how many behaviours there are of all users.
    pub fn behaviours(&self) -> usize {
        self.behaviours
    }

    /// Returns how many users are in memory.
    pub fn residents(&self) -> usize {
        self.residents.len()
    }

    /// Returns about how many bytes of memory the sequences take. O(1).
    pub fn memory(&self) -> usize {
        self.residents.memory() + self.fixed_memory()
    }

    /// Returns about how many bytes of it stay however small the bound: the index.
    pub fn fixed_memory(&self) -> usize {
        self.index.memory() + self.storing.memory()
    }

    /// Returns how many bytes of memory have to stay until the next checkpoint is in force.
    pub fn unstored_bytes(&self) -> usize {
        self.residents.held_bytes()
    }

    /// Returns what the cache has done.
    pub fn counts(&self) -> CacheCounts {
        let (misses, segments) = self.reader.reads();
        let evicted_bytes = self.residents.evicted_bytes();
        CacheCounts { hits: self.hits, misses, segments, evicted_bytes }
    }

    /// Makes sure that nothing was out of reach so far.
    ///
    /// # Errors
    /// Why it was.
    pub fn check(&self) -> Result<(), OutOfReach> {
        self.reader.trouble().map_or(Ok(()), |trouble| Err(trouble.clone()))
    }

    fn away(&self, user: UserId) -> Option<History> {
        self.reader.user(user, self.index.get(user)?)
    }
}

/// The behaviours of one user.
#[derive(Debug)]
pub struct Sequence<'a> {
    history: Whose<'a>,
    reader: &'a Reader,
    max_length: usize,
}

#[derive(Debug)]
enum Whose<'a> {
    Resident(&'a History),
    Away(Box<History>),
    Nobody,
}

impl Sequence<'_> {
    /// Calls `visit` with the newest behaviours strictly before a time, at most `limit`, newest first, of the types that `read` has.
    pub fn newest(&self, before: EventTime, limit: usize, read: &Kinds, visit: impl FnMut(Entry)) {
        if let Some(history) = self.history() {
            history.visit_back(before, self.max_length, self.reader, limited(limit, read, visit));
        }
    }

    /// Calls `visit` with the newest behaviours in a category strictly before a time, at most `limit`, newest first, of the types that
    /// `read` has.
    pub fn matching(
        &self,
        category: u32,
        before: EventTime,
        limit: usize,
        read: &Kinds,
        visit: impl FnMut(Entry),
    ) {
        if let Some(history) = self.history() {
            let visit = limited(limit, read, visit);
            history.visit_category_back(
                category,
                read,
                before,
                self.max_length,
                self.reader,
                visit,
            );
        }
    }

    /// Replaces `out` by the categories of the newest behaviours before a time, each once, newest first, at most `limit`. Looks at no more
    /// than the newest 1024 behaviours.
    pub fn recent_categories(
        &self,
        before: EventTime,
        limit: usize,
        read: &Kinds,
        out: &mut Vec<u32>,
    ) {
        out.clear();
        self.newest(before, RECENT, read, |entry| {
            if out.len() < limit && entry.category != NO_CATEGORY && !out.contains(&entry.category)
            {
                out.push(entry.category);
            }
        });
    }

    /// Returns how many behaviours are kept.
    pub fn length(&self) -> usize {
        self.history().map_or(0, |history| history.length(self.max_length))
    }

    fn history(&self) -> Option<&History> {
        match &self.history {
            Whose::Resident(history) => Some(history),
            Whose::Away(history) => Some(history),
            Whose::Nobody => None,
        }
    }
}

/// Passes on the behaviours of the types read until there are enough.
fn limited(limit: usize, read: &Kinds, mut visit: impl FnMut(Entry)) -> impl FnMut(Entry) -> bool {
    let mut left = limit;
    move |entry| {
        if left > 0 && read.has(entry.kind) {
            left -= 1;
            visit(entry);
        }
        left > 0
    }
}
