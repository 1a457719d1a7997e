//! Places of open impressions by what they are looked up by: 8 bytes each, because the impression itself holds the rest.
//!
//! A link keeps 32 bits of its key's hash. They decide nearly always without a look at the impression; when they agree, that look
//! decides, so two keys are never taken for one. Taking a link out looks at no impression at all.

use hashbrown::HashTable;

/// A place, and half of its key's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    tag: u32,
    place: u32,
}

/// Places by key. Keys are well mixed 64-bit numbers ([`crate::ids::salted_key`]).
#[derive(Clone, Debug, Default)]
pub(super) struct Links(HashTable<Link>);

impl Links {
    /// About how many bytes a link takes.
    pub(super) const BYTES: usize = 16;

    /// Returns the place of this key that `is` accepts.
    pub(super) fn find(&self, key: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = tag(key);
        let found = self.0.find(spread(tag), |link| link.tag == tag && is(link.place));
        found.map(|link| link.place)
    }

    /// Adds a place under a key that has none.
    pub(super) fn insert(&mut self, key: u64, place: u32) {
        let tag = tag(key);
        self.0.insert_unique(spread(tag), Link { tag, place }, |link| spread(link.tag));
    }

    /// Puts a place where another one was under this key.
    pub(super) fn replace(&mut self, key: u64, place: u32, by: u32) {
        let link = Link { tag: tag(key), place };
        if let Some(known) = self.0.find_mut(spread(link.tag), |known| *known == link) {
            known.place = by;
        }
    }

    /// Takes a place out from under its key.
    pub(super) fn remove(&mut self, key: u64, place: u32) {
        let link = Link { tag: tag(key), place };
        if let Ok(known) = self.0.find_entry(spread(link.tag), |known| *known == link) {
            known.remove();
        }
    }
}

fn tag(key: u64) -> u32 {
    (key >> 32) as u32
}

/// Returns the hash by which the table is ordered: a multiplication by the golden ratio, since a table reads low and high bits.
fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::ids::salted_key;

    #[test]
    fn links_do_what_a_map_does() {
        let (mut links, mut map) = (Links::default(), HashMap::new());
        // Keys with equal tags are told apart by what they lead to.
        let key = |i: u64| salted_key(i % 7, i / 7) & !0xffff_ffff | i;
        let mut keys: HashMap<u32, u64> = HashMap::new();
        let mut state = 1u64;
        for place in 0..20_000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = key(state >> 33 & 0x3ff);
            let found = links.find(key, |place| keys[&place] == key);
            assert_eq!(found, map.get(&key).copied());
            match found {
                None => {
                    links.insert(key, place);
                    map.insert(key, place);
                    keys.insert(place, key);
                }
                Some(old) if state >> 62 == 0 => {
                    links.remove(key, old);
                    map.remove(&key);
                }
                Some(old) => {
                    links.replace(key, old, place);
                    map.insert(key, place);
                    keys.insert(place, key);
                }
            }
        }
        assert!(map.len() > 100);
    }
}
