//! The users that are in memory: a bounded cache over what is stored.
//!
//! Users come in at the back of `fresh`. Who is asked for again before the front is reached goes over to `kept`, whose members get another
//! round for each time they were asked for ([S3-FIFO](https://doi.org/10.1145/3600006.3613147)): a crowd that comes once pushes out nobody but
//! itself. Whoever has changed since the checkpoint in force stays, whatever the bound: no cache of a library keeps such, counts them, and lets
//! readers of other threads look without a lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};

use super::history::History;
use crate::ids::UserId;
use crate::maps::{self, Map};

/// The share of fresh users: a tenth.
const FRESH: usize = 10;
/// Rounds that a user can have before it.
const MOST_ROUNDS: u8 = 3;

/// A user in memory.
#[derive(Debug, Default)]
pub(super) struct Resident {
    pub(super) history: History,
    rounds: AtomicU8,
    /// It has changed and no checkpoint was given it.
    dirty: bool,
    /// The checkpoint that was given it last.
    given: u64,
    /// The bytes that it is counted with, and whether they have to stay.
    bytes: usize,
    held: bool,
    kept: bool,
}

/// The users in memory.
#[derive(Debug)]
pub(super) struct Residents {
    users: Map<UserId, Resident>,
    fresh: VecDeque<UserId>,
    kept: VecDeque<UserId>,
    bytes: usize,
    fresh_bytes: usize,
    /// Bytes of those that have to stay.
    held_bytes: usize,
    most: usize,
    /// The checkpoint that will be given what changes now.
    next: u64,
    /// The checkpoint in force.
    in_force: u64,
    evicted_bytes: u64,
}

impl Residents {
    /// Creates a cache of any size: a bound needs something that it can read from.
    pub(super) fn new() -> Self {
        Self {
            users: Map::default(),
            fresh: VecDeque::new(),
            kept: VecDeque::new(),
            bytes: 0,
            fresh_bytes: 0,
            held_bytes: 0,
            most: usize::MAX,
            next: 1,
            in_force: 0,
            evicted_bytes: 0,
        }
    }

    pub(super) fn bound(&mut self, most: usize) {
        self.most = most;
        self.make_room(None);
    }

    pub(super) fn get(&self, user: UserId) -> Option<&History> {
        let resident = self.users.get(&user)?;
        let rounds = resident.rounds.load(Ordering::Relaxed);
        if rounds < MOST_ROUNDS {
            resident.rounds.store(rounds + 1, Ordering::Relaxed);
        }
        Some(&resident.history)
    }

    pub(super) fn has(&self, user: UserId) -> bool {
        self.users.contains_key(&user)
    }

    /// Brings a user in. Somebody else may have to go.
    pub(super) fn insert(&mut self, user: UserId, history: History) {
        let bytes = weight(&history);
        self.users.insert(user, Resident { history, bytes, ..Resident::default() });
        self.fresh.push_back(user);
        self.bytes += bytes;
        self.fresh_bytes += bytes;
        self.make_room(Some(user));
    }

    /// Changes a user who is in memory. Returns what `change` does, and whether it is the first change since a checkpoint was given it.
    pub(super) fn change<R>(
        &mut self,
        user: UserId,
        change: impl FnOnce(&mut History) -> R,
    ) -> Option<(R, bool)> {
        let resident = self.users.get_mut(&user)?;
        let (held, before) = (std::mem::replace(&mut resident.held, true), resident.bytes);
        let changed = change(&mut resident.history);
        resident.rounds.store(
            (resident.rounds.load(Ordering::Relaxed) + 1).min(MOST_ROUNDS),
            Ordering::Relaxed,
        );
        let first = !std::mem::replace(&mut resident.dirty, true);
        resident.bytes = weight(&resident.history);
        self.held_bytes = self.held_bytes + resident.bytes - if held { before } else { 0 };
        self.bytes = self.bytes + resident.bytes - before;
        if !resident.kept {
            self.fresh_bytes = self.fresh_bytes + resident.bytes - before;
        }
        self.make_room(Some(user));
        Some((changed, first))
    }

    /// Gives a user to the checkpoint to come; it has to stay until that one is in force.
    pub(super) fn give<R>(
        &mut self,
        user: UserId,
        give: impl FnOnce(&mut History) -> R,
    ) -> Option<R> {
        let next = self.next;
        let resident = self.users.get_mut(&user)?;
        let (given, before) = (give(&mut resident.history), resident.bytes);
        (resident.dirty, resident.given) = (false, next);
        resident.bytes = weight(&resident.history);
        self.held_bytes = self.held_bytes + resident.bytes - before;
        self.bytes = self.bytes + resident.bytes - before;
        if !resident.kept {
            self.fresh_bytes = self.fresh_bytes + resident.bytes - before;
        }
        Some(given)
    }

    /// Begins a new checkpoint: what is given from now on belongs to the one behind it.
    pub(super) fn cut(&mut self) {
        self.next += 1;
    }

    /// Says that the checkpoint that was cut last is in force. `given` is whom it was given: whoever has not changed since may go.
    pub(super) fn stored(&mut self, given: impl Iterator<Item = UserId>) {
        self.in_force = self.next - 1;
        for user in given {
            let Some(resident) = self.users.get_mut(&user) else { continue };
            if resident.held && !resident.dirty && resident.given <= self.in_force {
                resident.held = false;
                self.held_bytes -= resident.bytes;
            }
        }
        self.make_room(None);
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (UserId, &History)> {
        self.users.iter().map(|(user, resident)| (*user, &resident.history))
    }

    /// Returns about how many bytes of memory it takes.
    pub(super) fn memory(&self) -> usize {
        let queues = (self.fresh.capacity() + self.kept.capacity()) * size_of::<UserId>();
        maps::bytes(self.users.capacity(), size_of::<(UserId, Resident)>()) + queues + self.bytes
            - self.users.len() * size_of::<Resident>()
    }

    /// Returns how many bytes have to stay until a checkpoint is in force.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(super) fn evicted_bytes(&self) -> u64 {
        self.evicted_bytes
    }

    /// Lets users go until the bound holds, or all that are left have to stay. The one who has just come stays.
    fn make_room(&mut self, newest: Option<UserId>) {
        let mut looks = self.users.len() * usize::from(MOST_ROUNDS + 1);
        while self.bytes > self.most && self.bytes > self.held_bytes && looks > 0 {
            looks -= 1;
            let from_fresh = self.fresh_bytes * FRESH > self.most || self.kept.is_empty();
            let queue = if from_fresh { &mut self.fresh } else { &mut self.kept };
            let Some(user) = queue.pop_front() else { continue };
            let Some(resident) = self.users.get_mut(&user) else { continue };
            let held = resident.held;
            if held || Some(user) == newest || *resident.rounds.get_mut() > 0 {
                let rounds = resident.rounds.get_mut();
                *rounds = rounds.saturating_sub(1);
                if !std::mem::replace(&mut resident.kept, true) {
                    self.fresh_bytes -= resident.bytes;
                }
                if !held {
                    // What is read of a long history is its end, most of the time.
                    resident.history.shed();
                    let bytes = weight(&resident.history);
                    let freed = std::mem::replace(&mut resident.bytes, bytes) - bytes;
                    self.bytes -= freed;
                    self.evicted_bytes += freed as u64;
                }
                self.kept.push_back(user);
                continue;
            }
            if !resident.kept {
                self.fresh_bytes -= resident.bytes;
            }
            self.bytes -= resident.bytes;
            self.evicted_bytes += resident.bytes as u64;
            self.users.remove(&user);
        }
    }
}

fn weight(history: &History) -> usize {
    size_of::<Resident>() + history.memory()
}

#[cfg(test)]
impl Residents {
    /// Compares what is counted with what is there.
    pub(super) fn check(&self) {
        let all = || self.users.values();
        assert!(all().all(|found| found.bytes == size_of::<Resident>() + found.history.weighed()));
        assert_eq!(self.bytes, all().map(|found| found.bytes).sum::<usize>());
        let fresh = all().filter(|found| !found.kept).map(|found| found.bytes);
        assert_eq!(self.fresh_bytes, fresh.sum::<usize>());
        let held = all().filter(|found| found.held).map(|found| found.bytes);
        assert!(all().all(|found| found.held || !found.dirty && found.given <= self.in_force));
        assert_eq!(self.held_bytes, held.sum::<usize>());
        assert_eq!(self.users.len(), self.fresh.len() + self.kept.len());
    }
}
