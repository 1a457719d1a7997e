//! Names as pieces of a checkpoint: what a start puts back into memory apart from the strings, which it does not read.
//!
//! ```text
//! names    [how many u16][id u64, second hash u32 ...][first sights: differences, as postcard]    little-endian; without first sights for users
//! strings  [how many][length, bytes ...]    as postcard
//! ```

use sluice_features::dictionary::{Name, PAGE, Texts};
use sluice_features::time::EventTime;

const NAME: usize = size_of::<u64>() + size_of::<u32>();

/// Returns some names as a piece, with when each was first seen where that is kept.
pub(in crate::pipeline) fn write_names(
    names: impl ExactSizeIterator<Item = Name>,
    first: &[EventTime],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + NAME * names.len() + 4 * first.len());
    // A page has far fewer.
    bytes.extend_from_slice(&(names.len() as u16).to_le_bytes());
    for Name { id, check } in names {
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&check.to_le_bytes());
    }
    let mut before = 0;
    let differences: Vec<i64> = first
        .iter()
        .map(|time| time.0.wrapping_sub(std::mem::replace(&mut before, time.0)))
        .collect();
    // Writing numbers to memory cannot fail.
    postcard::to_extend(&differences, bytes).unwrap_or_default()
}

/// Returns the names of a piece and when each was first seen; `None` where it is no such piece.
pub(in crate::pipeline) fn read_names(
    bytes: &[u8],
) -> Option<(impl ExactSizeIterator<Item = Name> + '_, Vec<EventTime>)> {
    let (count, rest) = bytes.split_first_chunk::<2>()?;
    let count = usize::from(u16::from_le_bytes(*count));
    let (names, first) = rest.split_at_checked(NAME * count)?;
    let (names, _) = names.as_chunks::<NAME>();
    let names = names.iter().map(|name| {
        let (mut id, mut check) = ([0; 8], [0; 4]);
        id.copy_from_slice(&name[..8]);
        check.copy_from_slice(&name[8..]);
        Name { id: u64::from_le_bytes(id), check: u32::from_le_bytes(check) }
    });
    let differences: Vec<i64> = postcard::from_bytes(first).ok()?;
    let mut time = 0_i64;
    let first = differences.into_iter().map(|difference| {
        time = time.wrapping_add(difference);
        EventTime(time)
    });
    let first: Vec<EventTime> = first.collect();
    (count <= PAGE && (first.is_empty() || first.len() == count)).then_some((names, first))
}

/// Returns the strings of a page as a piece.
pub(in crate::pipeline) fn write_texts(texts: &Texts) -> Vec<u8> {
    let texts: Vec<&str> = texts.iter().collect();
    // Writing strings to memory cannot fail.
    postcard::to_allocvec(&texts).unwrap_or_default()
}

/// Returns the strings of a piece; `None` where it is no such piece.
pub(in crate::pipeline) fn read_texts(bytes: &[u8]) -> Option<Texts> {
    let texts: Vec<&str> = postcard::from_bytes(bytes).ok()?;
    (texts.len() <= PAGE).then(|| texts.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_as_they_were_written_and_nothing_else_is_one() {
        let names: Vec<Name> =
            (0..256).map(|n| Name { id: u64::MAX / (n + 1), check: n as u32 }).collect();
        let times = [0, 5, -7, i64::MAX, i64::MIN, 1_700_000_000_000];
        let first: Vec<EventTime> = (0..256).map(|n| EventTime(times[n % 6])).collect();
        for first in [&first[..], &[]] {
            let bytes = write_names(names.iter().copied(), first);
            let (read, times) = read_names(&bytes).unwrap();
            assert!(read.eq(names.iter().copied()) && times == first);
            for cut in 0..bytes.len() {
                assert!(read_names(&bytes[..cut]).is_none(), "{cut}");
            }
        }
        assert!(read_names(&write_names(names.iter().copied(), &first[..9])).is_none());
        let texts: Texts = ["", "é", "a name"].into_iter().collect();
        let bytes = write_texts(&texts);
        assert_eq!(read_texts(&bytes), Some(texts));
        assert!((0..bytes.len()).all(|cut| read_texts(&bytes[..cut]).is_none()));
    }

    #[test]
    fn a_page_of_names_goes_into_the_store_as_one_value() {
        let names = (0..PAGE as u64).map(|n| Name { id: u64::MAX - n, check: 7 });
        let first: Vec<EventTime> =
            (0..PAGE as i64).map(|n| EventTime(1_700_000_000_000 + 3_600_000 * (n % 2))).collect();
        let names: Vec<Name> = names.collect();
        assert!(write_names(names.into_iter(), &first).len() < 5_000);
    }
}
