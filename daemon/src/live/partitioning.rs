//! Users whose events lie in more than one partition: their outcomes do not find their impressions, and nothing else says why.
//!
//! All events of a user must lie in one partition, whichever. So the first partition of a user is remembered, and an event of the same user
//! in another one makes the user *split*. Where users are many, those whose hashed id ends in so many zero bits stand for all of them: a
//! sample that is doubled in thinness as often as it has filled its room. Of split users the partitions are compared with those that
//! the usual partitioners choose, and the record's key with the user, to name the likely cause. Nothing that is learned depends on it.

use std::collections::HashMap;
use std::time::Duration;

use sluice_features::ids::UserId;

use crate::kafka::Partitioner;
use crate::pipeline::Pipeline;
use crate::pipeline::record::Record;
use crate::telemetry::RateLimit;

/// The most users in the sample: about 2 MB.
const ROOM: usize = 1 << 16;
/// Of the places of split users, so many in a hundred must be explained by what is named as the cause.
const MOST: u64 = 95;

/// What is known of users and partitions since the start.
pub(super) struct Partitioning {
    partitions: u32,
    room: usize,
    /// The bits of a hashed id that are zero for users of the sample.
    mask: u64,
    users: HashMap<UserId, Place>,
    /// Users of the sample that are split.
    split: u64,
    /// Places of split users, by the set of partitioners that choose them.
    places: [u64; 1 << Partitioner::ALL.len()],
    /// Places of split users whose record had no key, or another than the user.
    unkeyed: u64,
    otherwise: u64,
    told: u64,
    warned: RateLimit,
}

/// Where a user was seen first.
#[derive(Clone, Copy)]
struct Place {
    partition: u32,
    key: Key,
    split: bool,
}

/// What a record's key was to its user.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Same,
    Other,
    Absent,
}

/// What is to be told of split users.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// How many there are, in all that were seen.
    pub(super) users: u64,
    /// Of how many.
    pub(super) seen: u64,
    /// What puts them apart, as far as can be seen.
    pub(super) cause: String,
    /// What ends it.
    pub(super) remedy: &'static str,
}

impl Partitioning {
    /// Creates what is known at the start of so many partitions: nothing.
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
            room: ROOM,
            mask: 0,
            users: HashMap::new(),
            split: 0,
            places: [0; 1 << Partitioner::ALL.len()],
            unkeyed: 0,
            otherwise: 0,
            told: 0,
            warned: RateLimit::default(),
        }
    }

    /// Takes note of a record that the pipeline has just taken.
    pub(super) fn note_latest(&mut self, pipeline: &Pipeline, record: &Record<'_>) {
        if let Some((user, name)) = pipeline.latest_user() {
            self.note(user, record.partition, record.key, name);
        }
    }

    /// Takes note of where an event of the user with this name lies.
    fn note(&mut self, user: UserId, partition: u32, key: Option<&[u8]>, name: &str) {
        if user.0 & self.mask != 0 {
            return;
        }
        match self.users.get_mut(&user) {
            Some(first) if first.split || first.partition == partition => {}
            Some(first) => {
                first.split = true;
                self.split += 1;
                let first = *first;
                self.place(first.partition, first.key, name);
                self.place(partition, Key::of(key, name), name);
            }
            None => {
                let key = Key::of(key, name);
                self.users.insert(user, Place { partition, key, split: false });
                if self.users.len() >= self.room {
                    self.thin();
                }
            }
        }
    }

    /// Returns about how many users are split.
    pub(super) fn split_users(&self) -> u64 {
        self.split * (self.mask + 1)
    }

    /// Returns what is to be told, if there is more of it than was told last.
    pub(super) fn look(&mut self, now: Duration) -> Option<Told> {
        if self.split_users() <= self.told || !self.warned.allows(now) {
            return None;
        }
        self.told = self.split_users();
        let (cause, remedy) = self.cause();
        let seen = self.users.len() as u64 * (self.mask + 1);
        Some(Told { users: self.told, seen, cause, remedy })
    }

    /// Counts one place of a split user.
    fn place(&mut self, partition: u32, key: Key, text: &str) {
        let mut set = 0;
        for (bit, partitioner) in Partitioner::ALL.iter().enumerate() {
            let chosen = partitioner.partition(text.as_bytes(), self.partitions) == partition;
            set |= usize::from(chosen) << bit;
        }
        self.places[set] += 1;
        self.unkeyed += u64::from(key == Key::Absent);
        self.otherwise += u64::from(key == Key::Other);
    }

    /// Leaves half of the users in the sample.
    fn thin(&mut self) {
        while self.users.len() >= self.room && self.mask < u64::MAX / 2 {
            self.mask = 2 * self.mask + 1;
            let mask = self.mask;
            self.users.retain(|user, _| user.0 & mask == 0);
        }
        self.split = self.users.values().filter(|place| place.split).count() as u64;
    }

    /// Names what most likely puts users apart, and what ends that.
    fn cause(&self) -> (String, &'static str) {
        let all: u64 = self.places.iter().sum();
        if 100 * self.unkeyed > (100 - MOST) * all {
            let remedy = "key every event by its user";
            return ("records without a key, which are spread at random".to_owned(), remedy);
        }
        if 100 * self.otherwise > (100 - MOST) * all {
            let remedy = "key every event by its user, by the same text as in the field user";
            return ("records keyed by something else than their user".to_owned(), remedy);
        }
        let explained = |set: usize| -> u64 {
            let sets = self.places.iter().enumerate();
            sets.filter(|(of, _)| of & set != 0).map(|(_, places)| places).sum()
        };
        // Pairs before all three; among equals the one named first.
        let sets = [0b011, 0b101, 0b110, 0b111];
        let best = sets[..3].iter().rev().copied().max_by_key(|set| explained(*set));
        let candidates = best.into_iter().chain([sets[3]]);
        let Some(set) = candidates.into_iter().find(|set| 100 * explained(*set) >= MOST * all)
        else {
            let remedy = "let every producer choose the partition by a hash of the key, the same everywhere, and by nothing else";
            return (
                "no usual partitioner explains it: round robin, or one of a producer's own"
                    .to_owned(),
                remedy,
            );
        };
        let named = Partitioner::ALL.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1);
        let names: Vec<_> = named.map(|(_, partitioner)| partitioner.name()).collect();
        let remedy = "let every producer use one partitioner: partitioner=murmur2_random in those on librdkafka, or any one throughout";
        (format!("producers that choose partitions differently: {}", names.join(" and ")), remedy)
    }
}

impl Key {
    fn of(key: Option<&[u8]>, user: &str) -> Self {
        match key {
            None => Self::Absent,
            Some(key) if key == user.as_bytes() => Self::Same,
            Some(_) => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use Partitioner::{Crc32, Fnv1a, Murmur2};

    use super::*;

    const NOW: Duration = Duration::ZERO;

    /// Sends an event of each user, keyed by the user, to where the function puts it.
    fn send(
        watched: &mut Partitioning,
        users: std::ops::Range<u32>,
        place: impl Fn(u32, &str) -> u32,
    ) {
        for user in users {
            let text = format!("u{user}");
            let partition = place(user, &text);
            watched.note(UserId::of(&text), partition, Some(text.as_bytes()), &text);
        }
    }

    fn by(partitioner: Partitioner, n: u32) -> impl Fn(u32, &str) -> u32 {
        move |_, text| partitioner.partition(text.as_bytes(), n)
    }

    #[test]
    fn one_partitioner_throughout_is_fine_whichever() {
        for n in [1, 2, 4, 16] {
            for partitioner in Partitioner::ALL {
                let mut watched = Partitioning::new(n as usize);
                (0..3).for_each(|_| send(&mut watched, 0..500, by(partitioner, n)));
                assert_eq!((watched.split_users(), watched.look(NOW)), (0, None));
            }
            let mut own = Partitioning::new(n as usize);
            (0..3).for_each(|_| send(&mut own, 0..500, |user, _| user * 7 / 3 % n));
            assert_eq!((own.split_users(), own.look(NOW)), (0, None));
        }
    }

    #[test]
    fn mixed_partitioners_are_named() {
        for (one, other) in [(Murmur2, Crc32), (Crc32, Murmur2), (Murmur2, Fnv1a), (Crc32, Fnv1a)] {
            for n in [2, 3, 4, 16, 64] {
                let mut watched = Partitioning::new(n as usize);
                send(&mut watched, 0..200, by(one, n));
                send(&mut watched, 0..200, by(other, n));
                let apart = |user: &u32| {
                    let text = format!("u{user}");
                    one.partition(text.as_bytes(), n) != other.partition(text.as_bytes(), n)
                };
                let split = (0..200).filter(apart).count() as u64;
                let told = watched.look(NOW).unwrap();
                assert_eq!((told.users, told.seen, watched.split_users()), (split, 200, split));
                for partitioner in Partitioner::ALL {
                    let expected = [one, other].contains(&partitioner);
                    let named = told.cause.contains(partitioner.name());
                    assert_eq!(named, expected, "{n}: {one:?}, {other:?}: {told:?}");
                }
                assert!(told.remedy.contains("murmur2_random"));
                assert_eq!(watched.look(NOW), None, "told once");
            }
        }
    }

    #[test]
    fn records_without_the_user_as_key_are_named() {
        let told = |key: fn(u32) -> Option<String>| {
            let mut watched = Partitioning::new(4);
            for event in 0..800 {
                let user = format!("u{}", event % 200);
                let key = key(event);
                let key = key.as_ref().map(String::as_bytes);
                watched.note(UserId::of(&user), event / 3 % 4, key, &user);
            }
            watched.look(NOW).unwrap().cause
        };
        assert!(told(|_| None).contains("without a key"));
        assert!(told(|event| Some(format!("c{event}"))).contains("something else than their user"));
        let spread = told(|event| Some(format!("u{}", event % 200)));
        assert!(spread.contains("no usual partitioner"), "{spread}");
    }

    #[test]
    fn many_users_are_estimated_in_bounded_room() {
        let mut watched = Partitioning::new(4);
        watched.room = 1 << 10;
        let (users, split) = (100_000, 20_000);
        send(&mut watched, 0..users, by(Murmur2, 4));
        send(&mut watched, 0..split, |_, text| (Murmur2.partition(text.as_bytes(), 4) + 1) % 4);
        assert!(watched.users.len() < 1 << 10);
        let told = watched.look(NOW).unwrap();
        let near = |found: u64, right: u32| (found as f64 / f64::from(right) - 1.0).abs() < 0.2;
        assert!(near(told.users, split) && near(told.seen, users), "{told:?}");
        // More of them are told of, but not at once.
        send(&mut watched, split..users, |_, text| (Murmur2.partition(text.as_bytes(), 4) + 1) % 4);
        assert_eq!(watched.look(Duration::from_secs(60)), None);
        assert!(
            watched.look(Duration::from_secs(3600)).is_some_and(|told| near(told.users, users))
        );
    }
}
