//! A map from 64-bit keys, in pages.

use std::hash::BuildHasher;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::maps::{Map, Seeded};

/// Pages of a map: of a million entries a page has a thousand, which are soon copied.
const PAGES: usize = 1024;

type Page<V> = Map<u64, V>;

/// A map whose copy shares its pages, which are maps by a part of the key's hash. Serialised like a map, in ascending order of the keys.
#[derive(Clone, Debug)]
pub struct PagedMap<V> {
    pages: Vec<Arc<Page<V>>>,
    hashing: Seeded,
    length: usize,
}

impl<V: Clone> PagedMap<V> {
    /// Creates an empty map.
    pub fn new() -> Self {
        // All begin as one and the same empty page.
        Self { pages: vec![Arc::default(); PAGES], hashing: Seeded::default(), length: 0 }
    }

    /// Returns how many entries there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Tells whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the value of a key.
    pub fn get(&self, key: u64) -> Option<&V> {
        self.pages[self.page(key)].get(&key)
    }

    /// Returns the value of a key, to change it.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        let page = self.page(key);
        Arc::make_mut(&mut self.pages[page]).get_mut(&key)
    }

    /// Sets the value of a key and returns the one before.
    pub fn insert(&mut self, key: u64, value: V) -> Option<V> {
        let page = self.page(key);
        let before = Arc::make_mut(&mut self.pages[page]).insert(key, value);
        self.length += usize::from(before.is_none());
        before
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: u64) -> Option<V> {
        let page = self.page(key);
        let removed = Arc::make_mut(&mut self.pages[page]).remove(&key);
        self.length -= usize::from(removed.is_some());
        removed
    }

    /// Removes the entries that `wanted` refuses.
    pub fn retain(&mut self, mut wanted: impl FnMut(u64, &mut V) -> bool) {
        for page in &mut self.pages {
            if !page.is_empty() {
                Arc::make_mut(page).retain(|&key, value| wanted(key, value));
            }
        }
        self.length = self.pages.iter().map(|page| page.len()).sum();
    }

    /// Returns the entries in no meaningful order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.pages.iter().flat_map(|page| page.iter().map(|(&key, value)| (key, value)))
    }

    /// The page of a key.
    fn page(&self, key: u64) -> usize {
        (self.hashing.hash_one(key) >> (u64::BITS - PAGES.ilog2())) as usize
    }
}

impl<V: Clone> Default for PagedMap<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Clone> Extend<(u64, V)> for PagedMap<V> {
    fn extend<I: IntoIterator<Item = (u64, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<V: Clone + Serialize> Serialize for PagedMap<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.length))?;
        let mut entries: Vec<(u64, &V)> = self.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries.into_iter().try_for_each(|(key, value)| map.serialize_entry(&key, value))?;
        map.end()
    }
}

impl<'de, V: Clone + Deserialize<'de>> Deserialize<'de> for PagedMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut map = Self::new();
        map.extend(Page::deserialize(deserializer)?);
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_agrees_with_a_map_and_a_copy_stays_as_it_is() {
        let (mut paged, mut map) = (PagedMap::<u64>::new(), BTreeMap::new());
        let mut state = 3_u64;
        let mut copies = Vec::new();
        for round in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (state >> 33) % 3_000;
            match state >> 20 & 3 {
                0 => assert_eq!(paged.remove(key), map.remove(&key)),
                1 => {
                    assert_eq!(paged.get(key), map.get(&key));
                    assert_eq!(paged.get_mut(key), map.get_mut(&key));
                    paged.get_mut(key).into_iter().chain(map.get_mut(&key)).for_each(|v| *v += 1);
                }
                _ => assert_eq!(paged.insert(key, round), map.insert(key, round)),
            }
            if round % 7_000 == 6_999 {
                copies.push((paged.clone(), map.clone()));
                paged.retain(|key, _| key % 3 > 0);
                map.retain(|key, _| key % 3 > 0);
            }
        }
        copies.push((paged, map));
        for (paged, map) in copies {
            let text = serde_json::to_string(&paged).unwrap();
            assert_eq!(text, serde_json::to_string(&map).unwrap(), "whatever the seed");
            let back: PagedMap<u64> = serde_json::from_str(&text).unwrap();
            for paged in [paged, back] {
                let sorted: BTreeMap<u64, u64> = paged.iter().map(|(k, v)| (k, *v)).collect();
                assert_eq!(sorted, map);
                assert_eq!((paged.len(), paged.is_empty()), (map.len(), map.is_empty()));
            }
        }
    }
}
