//! Long values in several keys, so that sled never puts anything beside its log.
//!
//! sled writes a node of its tree that is longer than 128 KiB into a file of its own, which it does not sync. When such a file is lost, its
//! recovery goes on without it and answers with what the node held before. A leaf has some 20 values at most, so none of more than
//! [`PART`] bytes goes in as one:
//!
//! | key | value |
//! |---|---|
//! | the key | `[1][how many u16]`, or the value itself ([`super::framing`]) where it is short |
//! | `[room of parts][length of the key u8][the key][part u16]` | a piece of the framed value |

use super::keys::{Room, part};

/// The longest value that goes in as one.
pub(super) const PART: usize = 5 << 10;
const PARTED: u8 = 1;

/// Returns what a value is stored as: under its key, and its parts in their order, none where it is short; `None` when there would be too many.
pub(super) fn cut(framed: Vec<u8>) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    if framed.len() <= PART {
        return Some((framed, Vec::new()));
    }
    let count = u16::try_from(framed.len().div_ceil(PART)).ok()?;
    let mut head = vec![PARTED];
    head.extend_from_slice(&count.to_le_bytes());
    Some((head, framed.chunks(PART).map(<[u8]>::to_vec).collect()))
}

/// Returns how many parts there are of what is stored under a key.
pub(super) fn count(stored: &[u8]) -> u16 {
    match stored {
        &[PARTED, low, high] => u16::from_le_bytes([low, high]),
        _ => 0,
    }
}

/// Returns the keys of the parts of a key.
pub(super) fn keys(key: &[u8], count: u16) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(move |number| part(key, number))
}

/// Tells whether a key is one of a part.
pub(super) fn is_part(key: &[u8]) -> bool {
    key.first() == Some(&(Room::Part as u8))
}
