//! Marks: what is kept of the last record that was applied of a partition, to know the partition again.
//!
//! An offset says where to go on and not in what. A topic that was deleted and made anew has the same offsets with other records below
//! them: who trusts the number alone skips what was never read. So the record of the mark is read again and compared.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// How far the clocks of two brokers that dated records of one partition may lie apart, in milliseconds.
const CLOCKS: i64 = 60_000;

/// What is kept of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its offset.
    pub offset: i64,
    /// Its stamp in milliseconds since 1970.
    pub stamp: Option<i64>,
    /// A hash of its key and value.
    pub hash: u64,
}

impl Mark {
    /// Describes a record.
    pub fn of(offset: i64, stamp: Option<i64>, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let mut hash = Xxh3::new();
        for part in [key, value] {
            // The length tells nothing from an empty part, and where the key ends.
            hash.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            hash.update(&xxh3_64(part.unwrap_or_default()).to_le_bytes());
        }
        Self { offset, stamp, hash: hash.digest() }
    }
}

/// A record that was read to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// What it is.
    pub(super) mark: Mark,
    /// Whether its stamp is the broker's: those of a partition grow.
    pub(super) appended: bool,
}

/// What records say of a partition: whether it is the one that was read before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// It is, as far as it reaches.
    Same,
    /// Nothing is known: the record of the mark is gone, as compaction and retention remove records.
    Unknown,
    /// It is another one. Says why.
    Other(String),
}

/// Compares the mark of a partition with the first record at or behind its offset, and with the oldest record of the partition.
pub(super) fn compare(mark: &Mark, at: Option<&Found>, oldest: Option<&Found>) -> Proof {
    if let Some(at) = at.filter(|at| at.mark.offset == mark.offset) {
        return match (at.mark.hash == mark.hash, at.mark.stamp == mark.stamp) {
            (true, true) => Proof::Same,
            (false, _) => Proof::Other(format!("record {} is another one", mark.offset)),
            (true, false) => {
                let shown = |stamp: Option<i64>| stamp.map_or("none".into(), |at| at.to_string());
                let (found, known) = (shown(at.mark.stamp), shown(mark.stamp));
                let offset = mark.offset;
                Proof::Other(format!(
                    "record {offset} has the stamp {found}, {known} when it was read"
                ))
            }
        };
    }
    // The record is gone. Where the broker dates records, none below it can be younger.
    let Some(oldest) = oldest.filter(|oldest| oldest.appended && oldest.mark.offset < mark.offset)
    else {
        return Proof::Unknown;
    };
    match (oldest.mark.stamp, mark.stamp) {
        (Some(found), Some(known)) if found > known.saturating_add(CLOCKS) => {
            Proof::Other(format!(
                "record {} was appended at {found}, after record {} at {known}",
                oldest.mark.offset, mark.offset
            ))
        }
        (Some(_), Some(_)) => Proof::Same,
        _ => Proof::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(offset: i64, stamp: i64, value: &str) -> Found {
        Found { mark: Mark::of(offset, Some(stamp), None, Some(value.as_bytes())), appended: true }
    }

    #[test]
    fn a_mark_tells_key_value_and_nothing_apart() {
        let of = |key: Option<&str>, value: Option<&str>| {
            Mark::of(1, None, key.map(str::as_bytes), value.map(str::as_bytes)).hash
        };
        let all = [
            of(None, None),
            of(Some(""), None),
            of(None, Some("")),
            of(Some("ab"), Some("c")),
            of(Some("a"), Some("bc")),
            of(Some("c"), Some("ab")),
            of(None, Some("abc")),
        ];
        for (i, hash) in all.iter().enumerate() {
            assert!(!all[..i].contains(hash), "{i}");
        }
        assert_eq!(of(Some("k"), Some("v")), of(Some("k"), Some("v")));
    }

    #[test]
    fn the_record_of_the_mark_decides_where_it_is_there() {
        let kept = found(9, 5_000, "v").mark;
        assert_eq!(compare(&kept, Some(&found(9, 5_000, "v")), None), Proof::Same);
        for other in [found(9, 5_000, "w"), found(9, 5_001, "v")] {
            // Whatever the oldest one says.
            let proof = compare(&kept, Some(&other), Some(&found(0, 1, "o")));
            assert!(matches!(proof, Proof::Other(_)), "{proof:?}");
        }
    }

    #[test]
    fn a_record_that_compaction_removed_is_no_difference_by_itself() {
        let kept = found(9, 5_000, "v").mark;
        assert_eq!(compare(&kept, None, None), Proof::Unknown);
        assert_eq!(compare(&kept, Some(&found(11, 6_000, "w")), None), Proof::Unknown);
        // A record below the mark that is as old as it should be, one that is younger, one that its producer has dated.
        let proof = |oldest: Found| compare(&kept, Some(&found(11, 6_000, "w")), Some(&oldest));
        assert_eq!(proof(found(3, 4_000, "o")), Proof::Same);
        assert_eq!(proof(found(3, 5_000 + CLOCKS, "o")), Proof::Same, "clocks differ a little");
        assert!(matches!(proof(found(3, 5_001 + CLOCKS, "o")), Proof::Other(_)));
        let claimed = Found { appended: false, ..found(3, 9_000_000, "o") };
        assert_eq!(proof(claimed), Proof::Unknown);
        assert_eq!(proof(found(11, 9_000_000, "o")), Proof::Unknown, "it is behind the mark");
    }
}
