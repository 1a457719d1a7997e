//! In which pack the newest value of each user is: 13 bytes of memory a user, the only thing that is kept there of users who are away.
//!
//! Users are spread over [`RANGES`] ranges by the high bits of their ids, which are hashes; in a range they are in order. It is stored so
//! that a checkpoint writes in proportion to what changed:
//!
//! ```text
//! log N     what changed with checkpoint N: (user, pack) ...
//! page R    all of range R as of log N; each checkpoint with a log writes the next few ranges in turn
//! ```
//!
//! A log that all pages have in them is removed. A start reads the pages, then of each log what its range's page has not got.

use serde::{Deserialize, Serialize};

use crate::ids::UserId;

/// Ranges; few in tests, so that turns come round.
pub(super) const RANGES: usize = if cfg!(test) { 16 } else { 4096 };
/// Logs with which every range is written once.
const ROUND: u64 = if cfg!(test) { 4 } else { 64 };

const ENTRY: usize = 13;
type Record = [u8; ENTRY];

fn record(user: UserId, pack: u64) -> Record {
    let mut record = [0; ENTRY];
    record[..8].copy_from_slice(&user.0.to_be_bytes());
    record[8..].copy_from_slice(&pack.to_be_bytes()[3..]);
    record
}

fn user_of(record: &Record) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&record[..8]);
    u64::from_be_bytes(bytes)
}

fn pack_of(record: &Record) -> u64 {
    let mut bytes = [0; 8];
    bytes[3..].copy_from_slice(&record[8..]);
    u64::from_be_bytes(bytes)
}

/// A part of the index that is stored under a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IndexPart {
    /// A range.
    Page(u32),
    /// What changed with a checkpoint.
    Log(u64),
}

#[derive(Clone, Debug, Default)]
struct Range {
    records: Vec<Record>,
    /// The log up to which its page has everything.
    stored: u64,
    /// It has changed since its page was written.
    changed: bool,
}

/// What is kept of the index as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IndexState {
    /// The number of the log that fills.
    log: u64,
    /// The oldest log that is stored.
    first: u64,
}

/// The pack of each user.
#[derive(Clone, Debug)]
pub(super) struct UserIndex {
    ranges: Vec<Range>,
    capacity: usize,
    state: IndexState,
    filling: Vec<Record>,
}

impl UserIndex {
    pub(super) fn new() -> Self {
        let state = IndexState { log: 1, first: 1 };
        let ranges = vec![Range::default(); RANGES];
        Self { ranges, capacity: 0, state, filling: Vec::new() }
    }

    /// Returns a user's pack.
    pub(super) fn get(&self, user: UserId) -> Option<u64> {
        let records = &self.ranges[range(user)].records;
        let place = find(records, user).ok()?;
        Some(pack_of(&records[place]))
    }

    /// Says that a user is in another pack now. Returns the one before.
    pub(super) fn set(&mut self, user: UserId, pack: u64) -> Option<u64> {
        self.filling.push(record(user, pack));
        self.ranges[range(user)].changed = true;
        self.put(user, pack)
    }

    /// Returns all users with their packs.
    pub(super) fn iter(&self) -> impl Iterator<Item = (UserId, u64)> {
        let records = self.ranges.iter().flat_map(|range| &range.records);
        records.map(|record| (UserId(user_of(record)), pack_of(record)))
    }

    /// Returns about how many bytes of memory it takes.
    pub(super) fn memory(&self) -> usize {
        self.capacity * ENTRY + self.filling.capacity() * ENTRY + RANGES * size_of::<Range>()
    }

    /// Shows what a checkpoint writes of it, `None` for what it removes, and takes it as stored.
    pub(super) fn give(&mut self, mut see: impl FnMut(IndexPart, Option<&[u8]>)) {
        if self.filling.is_empty() {
            return;
        }
        let number = self.state.log;
        see(IndexPart::Log(number), Some(self.filling.as_flattened()));
        self.filling.clear();
        self.state.log += 1;
        let turn = (number % ROUND) as usize;
        for (place, range) in self.ranges.iter_mut().enumerate().skip(turn).step_by(ROUND as usize)
        {
            range.stored = number;
            if range.changed {
                see(IndexPart::Page(place as u32), Some(&page(range)));
                range.changed = false;
            }
        }
        // All ranges had their turn since.
        while self.state.first + ROUND <= number {
            see(IndexPart::Log(self.state.first), None);
            self.state.first += 1;
        }
    }

    /// Shows the pages of an index of its own that has these users, and returns what is to be kept of it as a whole.
    pub(super) fn copy(
        users: impl Iterator<Item = (UserId, u64)>,
        mut see: impl FnMut(IndexPart, &[u8]),
    ) -> IndexState {
        let mut copy = Self::new();
        for (user, pack) in users {
            copy.put(user, pack);
        }
        for (place, range) in copy.ranges.iter().enumerate() {
            if !range.records.is_empty() {
                see(IndexPart::Page(place as u32), &page(range));
            }
        }
        copy.state
    }

    pub(super) fn state(&self) -> IndexState {
        self.state
    }

    pub(super) fn begin(&mut self, state: IndexState) {
        self.state = state;
    }

    /// Puts back a part: the pages first, then the logs in their order. Returns false where the bytes are none.
    pub(super) fn restore(&mut self, part: IndexPart, bytes: &[u8]) -> bool {
        match part {
            IndexPart::Page(place) => {
                let Some(range) = self.ranges.get_mut(place as usize) else { return false };
                let Some((stored, records)) = bytes.split_first_chunk::<8>() else { return false };
                let (records, rest) = records.as_chunks::<ENTRY>();
                range.records = records.to_vec();
                range.stored = u64::from_le_bytes(*stored);
                self.capacity += records.len();
                rest.is_empty() && records.is_sorted_by(|a, b| user_of(a) < user_of(b))
            }
            IndexPart::Log(number) => {
                let (records, rest) = bytes.as_chunks::<ENTRY>();
                for record in records {
                    let user = UserId(user_of(record));
                    if number > self.ranges[range(user)].stored {
                        self.put(user, pack_of(record));
                        self.ranges[range(user)].changed = true;
                    }
                }
                rest.is_empty()
            }
        }
    }

    fn put(&mut self, user: UserId, pack: u64) -> Option<u64> {
        let records = &mut self.ranges[range(user)].records;
        let new = record(user, pack);
        match find(records, user) {
            Ok(place) => Some(pack_of(&std::mem::replace(&mut records[place], new))),
            Err(place) => {
                let before = records.capacity();
                if records.len() == before {
                    // A quarter more: twice as much would be half empty.
                    records.reserve_exact((before / 4).max(4));
                }
                records.insert(place, new);
                self.capacity += records.capacity() - before;
                None
            }
        }
    }
}

fn range(user: UserId) -> usize {
    (user.0 >> (u64::BITS - RANGES.ilog2())) as usize
}

fn find(records: &[Record], user: UserId) -> Result<usize, usize> {
    records.binary_search_by_key(&user.0, user_of)
}

fn page(range: &Range) -> Vec<u8> {
    [&range.stored.to_le_bytes(), range.records.as_flattened()].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn restored(parts: &BTreeMap<IndexPart, Vec<u8>>, state: IndexState) -> UserIndex {
        let mut index = UserIndex::new();
        index.begin(state);
        for (part, bytes) in parts {
            assert!(index.restore(*part, bytes), "{part:?}");
        }
        index
    }

    proptest! {
        /// Users of one range, neighbours and equal ones; a start after any checkpoint.
        #[test]
        fn an_index_is_a_map_before_and_after_a_restore(
            changes in prop::collection::vec((0u64..40, any::<bool>(), 0u64..1 << 40), 0..300),
            every in 1usize..20,
        ) {
            let (mut index, mut map, mut parts) = (UserIndex::new(), BTreeMap::new(), BTreeMap::new());
            for (number, (user, near, pack)) in changes.into_iter().enumerate() {
                let user = if near { user } else { user.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
                prop_assert_eq!(index.set(UserId(user), pack), map.insert(user, pack));
                if number % every == 0 {
                    index.give(|part, bytes| match bytes {
                        Some(bytes) => drop(parts.insert(part, bytes.to_vec())),
                        None => drop(parts.remove(&part)),
                    });
                    let logs = parts.keys().filter(|part| matches!(part, IndexPart::Log(_)));
                    prop_assert!(logs.count() <= ROUND as usize);
                    let again = restored(&parts, index.state());
                    prop_assert!(again.iter().eq(index.iter()));
                    if number % 2 == 0 {
                        index = again;
                    }
                }
            }
            for (user, pack) in &map {
                prop_assert_eq!(index.get(UserId(*user)), Some(*pack));
            }
            prop_assert_eq!((index.iter().count(), index.get(UserId(77))), (map.len(), None));
            let mut copied = BTreeMap::new();
            let state = UserIndex::copy(index.iter(), |part, bytes| drop(copied.insert(part, bytes.to_vec())));
            prop_assert!(restored(&copied, state).iter().eq(index.iter()));
        }
    }

    #[test]
    fn a_user_takes_little_more_than_thirteen_bytes() {
        let mut index = UserIndex::new();
        for user in 0..1_000_000u64 {
            index.put(UserId(user.wrapping_mul(0x9e37_79b9_7f4a_7c15)), user);
        }
        let each = index.memory() as f64 / 1e6;
        assert!(each < 17.0, "{each} bytes");
    }
}
