//! The event ids of each user that were seen last: by them duplicates are known.
//!
//! Each user has a ring of at most 256 ids that grows as needed. All rings together are bounded in bytes: beyond that the user who was
//! quiet for longest is forgotten.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use crate::event::BehaviourType;
use crate::ids::{EventId, UserId, salted_key};
use crate::pages::PagedSlab;

const NONE: u32 = u32::MAX;

/// Users whose ids are copied together where a checkpoint is being written.
const PAGE: usize = 16;

/// The ids of one user, oldest first from `start` on, and the neighbours in the order of last use.
#[derive(Clone, Debug)]
struct Ring {
    user: UserId,
    ids: Vec<u64>,
    start: usize,
    older: u32,
    newer: u32,
}

/// The ids that all users of a shard have sent last.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    rings: PagedSlab<Ring, PAGE>,
    places: HashMap<UserId, u32, FixedState>,
    oldest: u32,
    newest: u32,
    capacity: usize,
    max_bytes: usize,
    bytes: usize,
}

/// Bytes of a user beside the ids: ring, place in the slab, entry of the map.
const RING_BYTES: usize = size_of::<Ring>() + 8 + 32;

impl Seen {
    pub(super) fn new(capacity: usize, max_bytes: usize) -> Self {
        Self {
            rings: PagedSlab::new(),
            places: HashMap::default(),
            oldest: NONE,
            newest: NONE,
            capacity: capacity.max(1),
            max_bytes,
            bytes: 0,
        }
    }

    /// Enters an id. Returns false when the user has it already.
    pub(super) fn admit(&mut self, user: UserId, id: u64) -> bool {
        let place = match self.places.get(&user) {
            Some(&place) => {
                if self.rings[place as usize].ids.contains(&id) {
                    return false;
                }
                self.unlink(place);
                place
            }
            None => self.add(user),
        };
        let ring = &mut self.rings[place as usize];
        if ring.ids.len() < self.capacity {
            let before = ring.ids.capacity();
            ring.ids.push(id);
            self.bytes += 8 * (ring.ids.capacity() - before);
        } else {
            ring.ids[ring.start] = id;
            ring.start = (ring.start + 1) % self.capacity;
        }
        self.link_newest(place);
        while self.bytes > self.max_bytes && self.oldest != self.newest {
            self.forget(self.oldest);
        }
        true
    }

    /// Returns about how many bytes the ids take.
    pub(super) fn memory(&self) -> usize {
        self.bytes
    }

    /// Returns the ids as they are now.
    pub(super) fn picture(&self) -> SeenPicture {
        SeenPicture { rings: self.rings.clone(), oldest: self.oldest }
    }

    fn add(&mut self, user: UserId) -> u32 {
        let ring = Ring { user, ids: Vec::new(), start: 0, older: NONE, newer: NONE };
        let place = u32::try_from(self.rings.insert(ring)).unwrap_or(NONE);
        self.places.insert(user, place);
        self.bytes += RING_BYTES;
        place
    }

    fn forget(&mut self, place: u32) {
        self.unlink(place);
        let ring = self.rings.remove(place as usize);
        self.places.remove(&ring.user);
        self.bytes -= RING_BYTES + 8 * ring.ids.capacity();
    }

    fn unlink(&mut self, place: u32) {
        let (older, newer) = {
            let ring = &self.rings[place as usize];
            (ring.older, ring.newer)
        };
        match older {
            NONE => self.oldest = newer,
            older => self.rings[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.rings[newer as usize].older = older,
        }
    }

    fn link_newest(&mut self, place: u32) {
        let older = self.newest;
        let ring = &mut self.rings[place as usize];
        (ring.older, ring.newer) = (older, NONE);
        match older {
            NONE => self.oldest = place,
            older => self.rings[older as usize].newer = place,
        }
        self.newest = place;
    }
}

/// The ids of all users as they were.
#[derive(Clone, Debug)]
pub(super) struct SeenPicture {
    rings: PagedSlab<Ring, PAGE>,
    oldest: u32,
}

impl SeenPicture {
    /// Returns the users with their ids, the one quiet for longest and the oldest id first.
    pub(super) fn state(&self) -> Vec<SeenState> {
        let mut state = Vec::with_capacity(self.rings.len());
        let mut place = self.oldest;
        while place != NONE {
            let ring = &self.rings[place as usize];
            let (newer, older) = ring.ids.split_at(ring.start);
            state.push(SeenState { user: ring.user, ids: [older, newer].concat() });
            place = ring.newer;
        }
        state
    }
}

/// Returns an id inside the space of its type: a click may have the id of its impression and is no duplicate of it.
pub(super) fn name(kind: Option<BehaviourType>, id: EventId) -> u64 {
    salted_key(kind.map_or(0, |kind| u64::from(kind.0) + 1) << 48, id.0)
}

/// The remembered ids of one user, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeenState {
    pub(super) user: UserId,
    pub(super) ids: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_until_the_ring_has_turned() {
        let mut seen = Seen::new(3, 1 << 20);
        for id in 1..=4 {
            assert!(seen.admit(UserId(1), id));
        }
        assert!(!seen.admit(UserId(1), 2));
        assert!(seen.admit(UserId(2), 2), "ids belong to their user");
        assert!(seen.admit(UserId(1), 1), "1 was the oldest of four");
        assert!(seen.admit(UserId(1), 2), "2 fell out when 1 came again");
    }

    #[test]
    fn the_user_quiet_for_longest_is_forgotten_first() {
        let mut seen = Seen::new(4, 3 * (RING_BYTES + 32));
        for user in [1, 2, 3, 1, 4] {
            assert!(seen.admit(UserId(user), 100 + user + seen.rings.len() as u64));
        }
        let users: Vec<u64> = seen.picture().state().iter().map(|state| state.user.0).collect();
        assert_eq!(users, [3, 1, 4]);
        assert!(seen.memory() <= 3 * (RING_BYTES + 32));
    }

    #[test]
    fn a_restored_memory_goes_on_as_before() {
        let mut seen = Seen::new(3, 1 << 20);
        for id in 1..=5 {
            seen.admit(UserId(1), id);
        }
        let mut again = Seen::new(3, 1 << 20);
        for state in seen.picture().state() {
            for id in state.ids {
                again.admit(state.user, id);
            }
        }
        assert_eq!(again.picture().state(), seen.picture().state());
        assert!(again.admit(UserId(1), 2) && again.admit(UserId(1), 3));
    }
}
