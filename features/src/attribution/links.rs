//! Places of open impressions by what they are looked up by: 8 bytes each, because the impression itself holds the rest.
//!
//! A link keeps 32 bits of its key's hash. They decide nearly always without a look at the impression; when they agree, that look
//! decides, so two keys are never taken for one. Taking a link out looks at no impression at all. The hash has a seed ([`crate::maps`]):
//! nobody can choose ids whose halves agree.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::maps::Seeded;

/// A place, and half of its key's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    tag: u32,
    place: u32,
}

/// Places by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    table: HashTable<Link>,
    hashing: Seeded,
}

impl Links {
    /// About how many bytes a link takes.
    pub(super) const BYTES: usize = 16;

    /// Returns the place of this key that `is` accepts.
    pub(super) fn find(&self, key: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = self.tag(key);
        let found = self.table.find(spread(tag), |link| link.tag == tag && is(link.place));
        found.map(|link| link.place)
    }

    /// Adds a place under a key that has none.
    pub(super) fn insert(&mut self, key: u64, place: u32) {
        let tag = self.tag(key);
        self.table.insert_unique(spread(tag), Link { tag, place }, |link| spread(link.tag));
    }

    /// Puts a place where another one was under this key.
    pub(super) fn replace(&mut self, key: u64, place: u32, by: u32) {
        let link = Link { tag: self.tag(key), place };
        if let Some(known) = self.table.find_mut(spread(link.tag), |known| *known == link) {
            known.place = by;
        }
    }

    /// Takes a place out from under its key.
    pub(super) fn remove(&mut self, key: u64, place: u32) {
        let link = Link { tag: self.tag(key), place };
        if let Ok(known) = self.table.find_entry(spread(link.tag), |known| *known == link) {
            known.remove();
        }
    }

    fn tag(&self, key: u64) -> u32 {
        (self.hashing.hash_one(key) >> 32) as u32
    }
}

/// Returns the hash by which the table is ordered: a multiplication by the golden ratio, since a table reads low and high bits.
fn spread(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::ids::pair_key;

    #[test]
    fn links_do_what_a_map_does() {
        let (mut links, mut map) = (Links::default(), HashMap::new());
        let mut keys: HashMap<u32, u64> = HashMap::new();
        let mut state = 1u64;
        for place in 0..20_000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = state >> 33 & 0x3ff;
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

    #[test]
    fn equal_ids_and_turned_ones_are_found_by_one_look() {
        let (mut links, looks) = (Links::default(), std::cell::Cell::new(0));
        let key = |place: u32| match place % 3 {
            0 => pair_key(place.into(), place.into()),
            1 => pair_key(place.into(), u64::from(place) + 1),
            _ => pair_key(place.into(), u64::from(place) - 1),
        };
        let places = 0..30_000;
        let look = |found: u32, place: u32| {
            looks.set(looks.get() + 1);
            found == place
        };
        for place in places.clone() {
            assert_eq!(links.find(key(place), |found| look(found, place)), None);
            links.insert(key(place), place);
        }
        for place in places.clone() {
            assert_eq!(links.find(key(place), |found| look(found, place)), Some(place));
        }
        // The seed differs from run to run: in one of ten a pair of them has equal tags.
        assert!((places.len()..places.len() + 20).contains(&looks.get()), "{}", looks.get());
    }

    #[test]
    fn keys_with_equal_tags_are_told_apart_by_what_they_lead_to() {
        let mut links = Links::default();
        // Of so many keys some thirty pairs have equal tags.
        let keys = 0..500_000u32;
        keys.clone().for_each(|key| links.insert(key.into(), key));
        for key in keys {
            assert_eq!(links.find(key.into(), |place| place == key), Some(key));
        }
    }
}
