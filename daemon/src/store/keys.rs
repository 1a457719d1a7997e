//! The keys of the store: one byte for the room, then big-endian numbers, so that the order of keys is the order of numbers.
//!
//! | room | key behind the room's byte | value |
//! |---|---|---|
//! | segment | shard u32, user u64, place u64 | one packed segment of a user's sequence; the open tail has the last place |
//! | open impression | shard u32, deadline i64, impression u64 | an open impression with its features |
//! | user | shard u32, user u64 | what else is kept of a user (model slot, seen ids, ...) |
//! | shard | shard u32, part u8 | the rest of a shard's state |
//! | dictionary | kind u8, page u32 | the strings of neighbouring numbers |
//! | catalogue | kind u8, page u32 | the features of items or users with neighbouring numbers |
//! | counter | counter u32, subject u64 | a decayed count |
//! | evaluation | part u32 | the state of progressive validation |
//! | meta | a name | offsets, the parameter file's name, the format version |

/// The version of keys and values. Another version on disk is refused or migrated.
pub const FORMAT: u32 = 1;

/// The rooms, by the first byte of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Room {
    /// Segments of sequences.
    Segment = 1,
    /// Impressions that wait for labels.
    OpenImpression = 2,
    /// What else is kept of a user.
    User = 3,
    /// The rest of a shard's state.
    Shard = 4,
    /// Strings behind ids.
    Dictionary = 5,
    /// Features of items and users.
    Catalogue = 6,
    /// Decayed counts.
    Counter = 7,
    /// Progressive validation.
    Evaluation = 8,
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
    /// Categories.
    Category = 3,
}

/// What a checkpoint is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// The version of keys and values.
    Format,
    /// The checkpoint in force: offsets and the parameter file's name.
    Checkpoint,
    /// What the model was built from, to tell a changed one.
    Model,
}

impl Meta {
    /// Returns the key.
    pub fn key(self) -> Vec<u8> {
        let name: &[u8] = match self {
            Self::Format => b"format",
            Self::Checkpoint => b"checkpoint",
            Self::Model => b"model",
        };
        Key::of(Room::Meta).bytes(name).done()
    }
}

/// Returns the key of a segment of a user's sequence.
pub fn segment(shard: u32, user: u64, place: u64) -> Vec<u8> {
    Key::of(Room::Segment).u32(shard).u64(user).u64(place).done()
}

/// Returns what the keys of all segments of a user begin with.
pub fn segments_of(shard: u32, user: u64) -> Vec<u8> {
    Key::of(Room::Segment).u32(shard).u64(user).done()
}

/// Returns the key of an open impression: those that close first come first. `deadline` is in milliseconds since 1970.
pub fn open_impression(shard: u32, deadline: i64, impression: u64) -> Vec<u8> {
    Key::of(Room::OpenImpression).u32(shard).i64(deadline).u64(impression).done()
}

/// Returns the key of what else is kept of a user.
pub fn user(shard: u32, user: u64) -> Vec<u8> {
    Key::of(Room::User).u32(shard).u64(user).done()
}

/// Returns the key of a part of a shard's state.
pub fn shard_part(shard: u32, part: u8) -> Vec<u8> {
    Key::of(Room::Shard).u32(shard).bytes(&[part]).done()
}

/// Returns the key of a page of strings.
pub fn dictionary(kind: Kind, page: u32) -> Vec<u8> {
    Key::of(Room::Dictionary).bytes(&[kind as u8]).u32(page).done()
}

/// Returns the key of a page of features of items or users.
pub fn catalogue(kind: Kind, page: u32) -> Vec<u8> {
    Key::of(Room::Catalogue).bytes(&[kind as u8]).u32(page).done()
}

/// Returns the key of a decayed count.
pub fn counter(counter: u32, subject: u64) -> Vec<u8> {
    Key::of(Room::Counter).u32(counter).u64(subject).done()
}

/// Returns the key of a part of progressive validation.
pub fn evaluation(part: u32) -> Vec<u8> {
    Key::of(Room::Evaluation).u32(part).done()
}

/// Returns what all keys of a room begin with.
pub fn room(room: Room) -> Vec<u8> {
    Key::of(room).done()
}

/// Returns what all keys of a shard in a room begin with (segments, open impressions, users, shard parts).
pub fn room_of_shard(room: Room, shard: u32) -> Vec<u8> {
    Key::of(room).u32(shard).done()
}

/// Returns what all strings or features of a kind begin with (dictionary, catalogue).
pub fn room_of_kind(room: Room, kind: Kind) -> Vec<u8> {
    Key::of(room).bytes(&[kind as u8]).done()
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

    /// Takes a number with a sign.
    pub fn i64(&mut self) -> Option<i64> {
        self.u64().map(|bits| (bits ^ SIGN) as i64)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }
}

/// With the sign bit turned, negative numbers come before the others in the order of bytes.
const SIGN: u64 = 1 << 63;

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

    fn i64(self, number: i64) -> Self {
        self.u64(number as u64 ^ SIGN)
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
        let deadlines = [i64::MIN, -5, 0, 3, 256, i64::MAX];
        let keys: Vec<_> =
            deadlines.iter().map(|&deadline| open_impression(1, deadline, 9)).collect();
        assert!(keys.is_sorted());
        assert!(segment(1, 5, 255) < segment(1, 5, 256));
        assert!(segment(1, u64::MAX, 0) < segment(2, 0, 0));
        assert!(segment(3, 7, 1).starts_with(&segments_of(3, 7)));
        assert!(segment(3, 7, 1).starts_with(&room_of_shard(Room::Segment, 3)));
        assert!(catalogue(Kind::Item, 4).starts_with(&room_of_kind(Room::Catalogue, Kind::Item)));
    }

    #[test]
    fn a_key_is_read_back() {
        let key = open_impression(3, -77, 12);
        let mut parts = Parts::behind_room(&key);
        assert_eq!((parts.u32(), parts.i64(), parts.u64()), (Some(3), Some(-77), Some(12)));
        assert_eq!(parts.u8(), None);
    }

    #[test]
    fn no_two_rooms_share_a_key() {
        let keys = [
            segment(1, 1, 1),
            open_impression(1, 1, 1),
            user(1, 1),
            shard_part(1, 1),
            dictionary(Kind::Item, 1),
            catalogue(Kind::Item, 1),
            counter(1, 1),
            evaluation(1),
            Meta::Format.key(),
        ];
        let rooms: std::collections::BTreeSet<u8> = keys.iter().map(|key| key[0]).collect();
        assert_eq!(rooms.len(), keys.len());
        assert!(shard_part(1, 1).starts_with(&room_of_shard(Room::Shard, 1)));
        assert_eq!(room(Room::Counter), [7]);
    }
}
