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

mod history;
mod kinds;
mod search;
mod segment;

#[cfg(test)]
mod tests;

use crate::ids::UserId;
use crate::maps::{self, Map};
use crate::time::EventTime;

use history::{History, Stored};
use segment::Segment;

pub use kinds::{KindNumber, KindNumbers, Kinds, TooManyKinds};
pub use segment::SegmentError;

/// Category of a behaviour whose item has none.
pub const NO_CATEGORY: u32 = u32::MAX;

/// How far back [`Sequences::recent_categories`] looks.
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

/// The key of a segment in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentKey {
    /// Whose.
    pub user: UserId,
    /// The place in the order of the user's segments; [`SegmentKey::TAIL`] for the open tail.
    pub place: u64,
}

impl SegmentKey {
    /// The place of the open tail.
    pub const TAIL: u64 = u64::MAX;
}

/// What a store has to do for a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Write a segment that was never there: no earlier state depends on it.
    Added(&'a [u8]),
    /// Replace a segment or the tail.
    Changed(&'a [u8]),
    /// Delete it.
    Removed,
}

/// The sequences of all users.
#[derive(Clone, Debug)]
pub struct Sequences {
    users: Map<UserId, History>,
    max_length: usize,
    behaviours: usize,
    /// What all histories take together.
    bytes: usize,
    /// Users with changes, in the order of their first change.
    changed: Vec<UserId>,
    removed: Vec<SegmentKey>,
    room: Vec<Entry>,
}

impl Sequences {
    /// Creates empty sequences that keep at most `max_length` (at least 1) behaviours of a user.
    pub fn new(max_length: usize) -> Self {
        Self {
            users: Map::default(),
            max_length: max_length.max(1),
            behaviours: 0,
            bytes: 0,
            changed: Vec::new(),
            removed: Vec::new(),
            room: Vec::new(),
        }
    }

    /// Adds a behaviour after all of this user that are not later. Before the `horizon` nobody will read any more: a read as of that time or later
    /// sees the newest `max_length` behaviours before it, unless there are more than twice as many (at least 4096 more) altogether.
    pub fn append(&mut self, user: UserId, entry: Entry, horizon: EventTime) -> Appended {
        let history = self.users.entry(user).or_default();
        let (before, bytes) = (history.length(self.max_length), history.memory());
        let removed = &mut self.removed;
        let (most, room) = (self.max_length, &mut self.room);
        let appended = history.append(entry, most, horizon, room, &mut |place| {
            removed.push(SegmentKey { user, place });
        });
        self.behaviours += history.length(self.max_length) - before;
        self.bytes = self.bytes + history.memory() - bytes;
        if appended != Appended::TooOld && !history.listed {
            history.listed = true;
            self.changed.push(user);
        }
        appended
    }

    /// Calls `visit` with the newest behaviours strictly before a time, at most `limit`, newest first, of the types that `read` has.
    pub fn newest(
        &self,
        user: UserId,
        before: EventTime,
        limit: usize,
        read: &Kinds,
        visit: impl FnMut(Entry),
    ) {
        if let Some(history) = self.users.get(&user) {
            history.visit_back(before, self.max_length, limited(limit, read, visit));
        }
    }

    /// Calls `visit` with the newest behaviours in a category strictly before a time, at most `limit`, newest first, of the types that
    /// `read` has.
    pub fn matching(
        &self,
        user: UserId,
        category: u32,
        before: EventTime,
        limit: usize,
        read: &Kinds,
        visit: impl FnMut(Entry),
    ) {
        if let Some(history) = self.users.get(&user) {
            let visit = limited(limit, read, visit);
            history.visit_category_back(category, read, before, self.max_length, visit);
        }
    }

    /// Replaces `out` by the categories of the newest behaviours before a time, each once, newest first, at most `limit`. Looks at no more
    /// than the newest 1024 behaviours.
    pub fn recent_categories(
        &self,
        user: UserId,
        before: EventTime,
        limit: usize,
        read: &Kinds,
        out: &mut Vec<u32>,
    ) {
        out.clear();
        self.newest(user, before, RECENT, read, |entry| {
            if out.len() < limit && entry.category != NO_CATEGORY && !out.contains(&entry.category)
            {
                out.push(entry.category);
            }
        });
    }

    /// Returns how many behaviours are kept of a user.
    pub fn length(&self, user: UserId) -> usize {
        self.users.get(&user).map_or(0, |history| history.length(self.max_length))
    }

    /// Returns how many users there are.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Returns how many behaviours there are of all users.
    pub fn behaviours(&self) -> usize {
        self.behaviours
    }

    /// Returns about how many bytes of memory the sequences take. O(1).
    pub fn memory(&self) -> usize {
        maps::bytes(self.users.capacity(), size_of::<(UserId, History)>()) + self.bytes
    }

    /// Drops of every user what no read from the horizon on sees, as further behaviours would: where `max_length` was larger when these came.
    pub fn trim(&mut self, horizon: EventTime) {
        for (&user, history) in &mut self.users {
            let (bytes, removed) = (history.memory(), &mut self.removed);
            history.trim(self.max_length, horizon, &mut |place| {
                removed.push(SegmentKey { user, place });
            });
            self.bytes -= bytes - history.memory();
        }
    }

    /// Calls `visit` with what has changed of at most `most` users since the last time, and takes it as stored. Returns how many users
    /// with changes are left.
    pub fn drain_changes(
        &mut self,
        most: usize,
        mut visit: impl FnMut(SegmentKey, Change<'_>),
    ) -> usize {
        for key in self.removed.drain(..) {
            visit(key, Change::Removed);
        }
        for user in self.changed.drain(..most.min(self.changed.len())) {
            let Some(history) = self.users.get_mut(&user) else { continue };
            for slot in &mut history.slots {
                let key = SegmentKey { user, place: slot.place };
                match slot.stored {
                    Stored::Same => {}
                    Stored::New => visit(key, Change::Added(slot.segment.bytes())),
                    Stored::Changed => visit(key, Change::Changed(slot.segment.bytes())),
                }
                slot.stored = Stored::Same;
            }
            if history.open {
                let segment = Segment::pack(&history.tail);
                visit(
                    SegmentKey { user, place: SegmentKey::TAIL },
                    Change::Changed(segment.bytes()),
                );
            }
            (history.open, history.listed) = (false, false);
        }
        self.changed.len()
    }

    /// Calls `visit` with all segments and tails, in the order of their keys.
    pub fn visit_all(&self, mut visit: impl FnMut(SegmentKey, &[u8])) {
        let mut users: Vec<UserId> = self.users.keys().copied().collect();
        users.sort_unstable();
        for user in users {
            let history = &self.users[&user];
            for slot in &history.slots {
                visit(SegmentKey { user, place: slot.place }, slot.segment.bytes());
            }
            if !history.tail.is_empty() {
                let segment = Segment::pack(&history.tail);
                visit(SegmentKey { user, place: SegmentKey::TAIL }, segment.bytes());
            }
        }
    }

    /// Puts back a segment or a tail, in any order; nothing else may have been added before the last of them. `kinds` gave the numbers in it.
    ///
    /// # Errors
    /// [`SegmentError`], and nothing is changed.
    pub fn restore(
        &mut self,
        key: SegmentKey,
        bytes: &[u8],
        kinds: &KindNumbers,
    ) -> Result<(), SegmentError> {
        let segment = Segment::parse(bytes, kinds.given())?;
        let history = self.users.entry(key.user).or_default();
        let (before, bytes) = (history.length(self.max_length), history.memory());
        let free = if key.place == SegmentKey::TAIL {
            history.restore_tail(&segment)
        } else {
            history.restore(key.place, segment)
        };
        self.behaviours += history.length(self.max_length) - before;
        self.bytes = self.bytes + history.memory() - bytes;
        if free { Ok(()) } else { Err(SegmentError::Doubled) }
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
