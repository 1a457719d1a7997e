//! The keys of the store: one byte for the room, then big-endian numbers, so that the order of keys is the order of numbers.
//!
//! | room | key behind the room's byte | value |
//! |---|---|---|
//! | segment | shard u32, pack u64 | full segments of sequences, packed |
//! | users | shard u32, pack u64 | users, packed: open tails, and where their segments are |
//! | user index | page u32, shard u32 | in which packs the users of a range are |
//! | user log | log u64, shard u32 | users that were put into other packs |
//! | open impressions | shard u32, page u64 | features of impressions that wait longer than their first window |
//! | dictionary | kind u8, page u32 | the ids of neighbouring numbers, and when items were first seen |
//! | texts | kind u8, page u32 | the strings of neighbouring numbers |
//! | catalogue | kind u8, page u32 | the features of items or users with neighbouring numbers |
//! | parts | length of a key u8, the key, part u16 | a piece of a long value; only the store itself sees them |
//! | meta | a name | the checkpoint in force, the format version, whether pages came ahead of the first checkpoint |

use sluice_features::pack::PackKind;

/// The version of keys and values. Another version on disk is refused or migrated.
pub const FORMAT: u32 = 5;

/// The rooms, by the first byte of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Room {
    /// Segments of sequences.
    Segment = 1,
    /// Users.
    Users = 3,
    /// In which packs the users of a range are.
    UserIndex = 4,
    /// Users that were put into other packs.
    UserLog = 8,
    /// Features of impressions that wait for labels.
    OpenImpressions = 2,
    /// Ids by number.
    Dictionary = 5,
    /// Features of items and users.
    Catalogue = 6,
    /// Strings behind ids, by number.
    Texts = 7,
    /// Pieces of long values.
    Part = 254,
    /// What a checkpoint is made of.
    Meta = 255,
}

/// The kinds of a dictionary or a catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Items.
    Item = 1,
    /// Users.
    User = 2,
}

/// What a checkpoint is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// The version of keys and values.
    Format,
    /// The checkpoint in force: offsets and the names of its files.
    Checkpoint,
    /// Pages were written ahead of the first checkpoint.
    Ahead,
}

impl Meta {
    /// Returns the key.
    pub fn key(self) -> Vec<u8> {
        let name: &[u8] = match self {
            Self::Format => b"format",
            Self::Checkpoint => b"checkpoint",
            Self::Ahead => b"ahead",
        };
        Key::of(Room::Meta).bytes(name).done()
    }
}

/// Returns the key of a pack.
pub fn pack(kind: PackKind, shard: u32, number: u64) -> Vec<u8> {
    let room = match kind {
        PackKind::Users => Room::Users,
        PackKind::Segments => Room::Segment,
    };
    Key::of(room).u32(shard).u64(number).done()
}

/// Returns the key of a page of the index of users.
pub fn index_page(shard: u32, page: u32) -> Vec<u8> {
    Key::of(Room::UserIndex).u32(page).u32(shard).done()
}

/// Returns the key of a log of the index of users.
pub fn index_log(shard: u32, log: u64) -> Vec<u8> {
    Key::of(Room::UserLog).u64(log).u32(shard).done()
}

/// Returns the key of a page of open impressions.
pub fn open_impressions(shard: u32, page: u64) -> Vec<u8> {
    Key::of(Room::OpenImpressions).u32(shard).u64(page).done()
}

/// Returns the key of a page of strings.
pub fn texts(kind: Kind, page: u32) -> Vec<u8> {
    Key::of(Room::Texts).bytes(&[kind as u8]).u32(page).done()
}

/// Returns the key of a page of ids.
pub fn dictionary(kind: Kind, page: u32) -> Vec<u8> {
    Key::of(Room::Dictionary).bytes(&[kind as u8]).u32(page).done()
}

/// Returns the key of a page of features of items or users.
pub fn catalogue(kind: Kind, page: u32) -> Vec<u8> {
    Key::of(Room::Catalogue).bytes(&[kind as u8]).u32(page).done()
}

/// Returns the key of a piece of the value of another key.
pub(super) fn part(key: &[u8], number: u16) -> Vec<u8> {
    // Keys are far shorter than 256 bytes.
    let length = u8::try_from(key.len()).unwrap_or(u8::MAX);
    Key::of(Room::Part).bytes(&[length]).bytes(key).bytes(&number.to_be_bytes()).done()
}

/// Returns what all keys of a room begin with.
pub fn room(room: Room) -> Vec<u8> {
    Key::of(room).done()
}

/// A key read back, number by number.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// Begins behind the room's byte.
    pub fn behind_room(key: &'a [u8]) -> Self {
        Self(key.get(1..).unwrap_or_default())
    }

    /// Takes a byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    /// Takes a number of 4 bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// Takes a number of 8 bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }
}

struct Key(Vec<u8>);

impl Key {
    fn of(room: Room) -> Self {
        let mut bytes = Vec::with_capacity(24);
        bytes.push(room as u8);
        Self(bytes)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u32(self, number: u32) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    fn u64(self, number: u64) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    fn done(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_is_the_order_of_numbers() {
        let keys: Vec<_> = [0, 3, 255, 256, u64::MAX].map(|page| open_impressions(1, page)).into();
        assert!(keys.is_sorted());
        assert!(pack(PackKind::Users, 1, 255) < pack(PackKind::Users, 1, 256));
        assert!(index_log(2, 9) < index_log(1, 10));
        assert!(pack(PackKind::Segments, 3, 7).starts_with(&room(Room::Segment)));
    }

    #[test]
    fn a_key_is_read_back() {
        let key = open_impressions(3, 12);
        let mut parts = Parts::behind_room(&key);
        assert_eq!((parts.u32(), parts.u64(), parts.u8()), (Some(3), Some(12), None));
        let key = catalogue(Kind::User, 9);
        let mut parts = Parts::behind_room(&key);
        assert_eq!((parts.u8(), parts.u32()), (Some(2), Some(9)));
    }

    #[test]
    fn no_two_rooms_share_a_key() {
        let keys = [
            pack(PackKind::Segments, 1, 1),
            pack(PackKind::Users, 1, 1),
            index_page(1, 1),
            index_log(1, 1),
            open_impressions(1, 1),
            dictionary(Kind::Item, 1),
            texts(Kind::Item, 1),
            catalogue(Kind::Item, 1),
            part(&open_impressions(1, 1), 1),
            Meta::Format.key(),
        ];
        let rooms: std::collections::BTreeSet<u8> = keys.iter().map(|key| key[0]).collect();
        assert_eq!(rooms.len(), keys.len());
    }
}
