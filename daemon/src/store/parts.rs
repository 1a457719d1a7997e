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

/// Returns of what kind a key is: its length and its room. Keys of most kinds never have parts, and need not be asked whether they do.
pub(super) fn kind_of(key: &[u8]) -> Option<[u8; 2]> {
    Some([u8::try_from(key.len()).ok()?, *key.first()?])
}

/// Returns of what kind the key is to which a part belongs; `None` for a key of no part.
pub(super) fn kind(part: &[u8]) -> Option<[u8; 2]> {
    match part {
        &[room, length, first, ..] if room == Room::Part as u8 => Some([length, first]),
        _ => None,
    }
}

/// Returns where the parts begin.
pub(super) fn first() -> Vec<u8> {
    vec![Room::Part as u8]
}

/// Returns where the parts of a kind end.
pub(super) fn behind([length, first]: [u8; 2]) -> Vec<u8> {
    match first.checked_add(1) {
        Some(next) => vec![Room::Part as u8, length, next],
        None => vec![Room::Part as u8, length.saturating_add(1)],
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::{Kind, catalogue, open_impressions};
    use super::*;

    #[test]
    fn a_value_is_put_together_from_its_parts() {
        for length in [0, 1, PART, PART + 1, 3 * PART, 100_000] {
            let value: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let (head, pieces) = cut(value.clone()).unwrap();
            assert_eq!(usize::from(count(&head)), pieces.len());
            assert!(pieces.iter().all(|piece| piece.len() <= PART));
            assert_eq!(if pieces.is_empty() { head } else { pieces.concat() }, value);
        }
        assert!(cut(vec![0; PART * (1 << 16)]).is_none());
    }

    #[test]
    fn a_part_tells_the_kind_of_its_key() {
        for key in [open_impressions(3, 1 << 60), catalogue(Kind::User, 7), vec![255; 9], vec![1]] {
            let parts: Vec<Vec<u8>> = keys(&key, 3).collect();
            let kind = kind_of(&key).unwrap();
            for part in &parts {
                assert!(is_part(part) && super::kind(part) == Some(kind));
                assert!(first() <= *part && *part < behind(kind));
            }
            assert!(parts.is_sorted() && !is_part(&key) && super::kind(&key).is_none());
        }
    }
}
