//! Values of many owners packed into one, because a store costs by the number of keys that are written to it, and where packs are kept.
//!
//! ```text
//! values ... | owners, count x u64 | ends, count x u32 | count u16          little-endian
//! ```

use std::error::Error;
use std::sync::Arc;

/// The most values of a pack.
pub const MOST: usize = 4096;

const FOOT: usize = 12;

/// A pack that fills.
#[derive(Clone, Debug, Default)]
pub struct Packing {
    bytes: Vec<u8>,
    owners: Vec<u64>,
    ends: Vec<u32>,
}

impl Packing {
    /// Adds a value that `write` appends. Returns its place.
    pub fn push(&mut self, owner: u64, write: impl FnOnce(&mut Vec<u8>)) -> u16 {
        write(&mut self.bytes);
        self.owners.push(owner);
        self.ends.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
        u16::try_from(self.ends.len() - 1).unwrap_or(u16::MAX)
    }

    /// Returns how many values there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns how many bytes it would have.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + FOOT * self.ends.len() + 2
    }

    /// Ends the pack and begins an empty one.
    pub fn end(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.reserve_exact(FOOT * self.ends.len() + 2);
        self.owners.drain(..).for_each(|owner| bytes.extend_from_slice(&owner.to_le_bytes()));
        let count = u16::try_from(self.ends.len()).unwrap_or(u16::MAX);
        self.ends.drain(..).for_each(|end| bytes.extend_from_slice(&end.to_le_bytes()));
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes
    }
}

/// A pack that is read.
#[derive(Clone, Copy, Debug)]
pub struct Pack<'a> {
    values: &'a [u8],
    owners: &'a [[u8; 8]],
    ends: &'a [[u8; 4]],
}

impl<'a> Pack<'a> {
    /// Takes bytes as a pack; `None` when they are none.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (rest, count) = bytes.split_last_chunk::<2>()?;
        let count = usize::from(u16::from_le_bytes(*count));
        let (rest, ends) = rest.split_at_checked(rest.len().checked_sub(4 * count)?)?;
        let (values, owners) = rest.split_at_checked(rest.len().checked_sub(8 * count)?)?;
        let (owners, ends) = (owners.as_chunks().0, ends.as_chunks().0);
        let last = ends.last().map_or(0, |end| u32::from_le_bytes(*end) as usize);
        (last == values.len()).then_some(Self { values, owners, ends })
    }

    /// Returns how many values there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the owner of a value, `None` when there is no such value.
    pub fn owner(&self, place: usize) -> Option<u64> {
        self.owners.get(place).map(|owner| u64::from_le_bytes(*owner))
    }

    /// Returns a value.
    pub fn get(&self, place: usize) -> Option<&'a [u8]> {
        let end = u32::from_le_bytes(*self.ends.get(place)?) as usize;
        let before = place.checked_sub(1).map(|before| u32::from_le_bytes(self.ends[before]));
        self.values.get(before.unwrap_or(0) as usize..end)
    }

    /// Returns the newest value of an owner.
    pub fn of(&self, owner: u64) -> Option<&'a [u8]> {
        let owner = owner.to_le_bytes();
        self.get(self.owners.iter().rposition(|found| *found == owner)?)
    }
}

/// What a pack has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PackKind {
    /// What is known of users, of each the newest part and the list of the others.
    Users = 1,
    /// Full segments of sequences.
    Segments = 2,
}

impl PackKind {
    /// Returns what a pack is called where it is out of reach.
    pub fn name(self) -> &'static str {
        match self {
            Self::Users => "the pack of users",
            Self::Segments => "the pack of segments",
        }
    }
}

/// Keeps packs outside the memory. They come there and go from there with checkpoints.
pub trait Packs: Send + Sync {
    /// Returns a pack, `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&self, kind: PackKind, shard: u32, number: u64)
    -> Result<Option<Arc<[u8]>>, OutOfReach>;
}

/// Why something that was put away is not to be had: nothing that comes after it counts.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OutOfReach {
    /// The store failed.
    #[error("{what} {number} of shard {shard} cannot be read")]
    Store {
        /// What it is.
        what: &'static str,
        /// The shard.
        shard: u32,
        /// Its number.
        number: u64,
        /// The store is damaged, not only out of reach.
        damaged: bool,
        /// What the store says.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// It is not what was written, or not there.
    #[error("{what} {number} of shard {shard} {wrong}")]
    Wrong {
        /// What it is.
        what: &'static str,
        /// The shard.
        shard: u32,
        /// Its number.
        number: u64,
        /// What is wrong.
        wrong: &'static str,
    },
}

impl OutOfReach {
    /// Tells whether what is on disk is at fault.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Wrong { .. } | Self::Store { damaged: true, .. })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pack_gives_back_what_was_put_there(
            values in prop::collection::vec((0u64..5, prop::collection::vec(any::<u8>(), 0..9)), 0..40),
        ) {
            let mut packing = Packing::default();
            for (place, (owner, value)) in values.iter().enumerate() {
                let given = packing.push(*owner, |bytes| bytes.extend_from_slice(value));
                prop_assert_eq!(usize::from(given), place);
            }
            let length = packing.bytes();
            let bytes = packing.end();
            prop_assert_eq!((bytes.len(), packing.len()), (length, 0));
            let pack = Pack::parse(&bytes).unwrap();
            prop_assert_eq!(pack.len(), values.len());
            for (place, (owner, value)) in values.iter().enumerate() {
                prop_assert_eq!(pack.get(place), Some(value.as_slice()));
                prop_assert_eq!(pack.owner(place), Some(*owner));
            }
            for owner in 0..5 {
                let newest = values.iter().rev().find(|(of, _)| *of == owner);
                prop_assert_eq!(pack.of(owner), newest.map(|(_, value)| value.as_slice()));
            }
            for length in 0..bytes.len() {
                // Whatever is read of a torn one, it does not panic.
                if let Some(pack) = Pack::parse(&bytes[..length]) {
                    let read = (0..pack.len()).filter_map(|place| pack.get(place));
                    prop_assert!(read.count() <= pack.len());
                }
            }
        }
    }
}
