//! Features of items and users as of a time.
//!
//! Every id keeps its newest few versions. A value as of a time is the newest version not later than it; where none is so old, the
//! oldest one, and the answer says so. Several threads read by key (scorers, the publisher) while one writes: hence `dashmap`.

use dashmap::DashMap;
use serde::{Deserialize, Serialize};

use crate::attributes::{AttributeKey, Attributes};
use crate::maps::Seeded;
use crate::time::EventTime;

/// What an id was from a time on. `None`: the item was gone, the user's features were forgotten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// From when on.
    pub time: EventTime,
    /// The features.
    pub features: Option<Attributes>,
}

/// How good an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The version of that time.
    AsOf,
    /// No version is so old: the oldest one.
    Later,
    /// The id is gone as of that time.
    Gone,
    /// Nothing is known of the id.
    Unknown,
}

/// What an update did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The id was not known before.
    pub new: bool,
    /// A version fell out because the id has more than are kept.
    pub dropped: bool,
}

/// Features of all items, or of all users, by 64-bit id.
#[derive(Debug)]
pub struct Catalogue {
    entries: DashMap<u64, Vec<Version>, Seeded>,
    keep: usize,
}

impl Catalogue {
    /// Creates an empty catalogue that keeps so many versions of an id (at least one).
    pub fn new(keep: usize) -> Self {
        Self { entries: DashMap::with_hasher(Seeded::default()), keep: keep.max(1) }
    }

    /// Enters a version. Versions may come in any order; one of the same time is replaced. Beyond the number kept the oldest goes.
    pub fn apply(&self, id: u64, time: EventTime, features: Option<Attributes>) -> Applied {
        let mut applied = Applied::default();
        let mut versions = self.entries.entry(id).or_insert_with(|| {
            applied.new = true;
            Vec::with_capacity(1)
        });
        // Newest first: updates come nearly in order, so the place is nearly always the first.
        let place = versions.iter().position(|kept| kept.time <= time).unwrap_or(versions.len());
        match versions.get_mut(place) {
            Some(kept) if kept.time == time => kept.features = features,
            _ => versions.insert(place, Version { time, features }),
        }
        applied.dropped = versions.len() > self.keep;
        versions.truncate(self.keep);
        applied
    }

    /// Calls `read` with the features of an id as of a time; with `None` where there are none.
    pub fn as_of<T>(
        &self,
        id: u64,
        time: EventTime,
        read: impl FnOnce(Found, Option<&Attributes>) -> T,
    ) -> T {
        let Some(versions) = self.entries.get(&id) else {
            return read(Found::Unknown, None);
        };
        let (found, version) = match versions.iter().find(|version| version.time <= time) {
            Some(version) => (Found::AsOf, Some(version)),
            None => (Found::Later, versions.last()),
        };
        match version.and_then(|version| version.features.as_ref()) {
            Some(features) => read(found, Some(features)),
            None => read(Found::Gone, None),
        }
    }

    /// Returns the category of an item as of a time: the id of the attribute `key`, if it has one.
    pub fn category_as_of(&self, id: u64, time: EventTime, key: AttributeKey) -> Option<u64> {
        self.as_of(id, time, |_, features| features?.get(key)?.category())
    }

    /// Tells whether anything was ever said about an id.
    pub fn knows(&self, id: u64) -> bool {
        self.entries.contains_key(&id)
    }

    /// Returns how many ids there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether the catalogue is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns a copy of all versions of an id, newest first.
    pub fn versions(&self, id: u64) -> Vec<Version> {
        self.entries.get(&id).map_or_else(Vec::new, |versions| versions.clone())
    }

    /// Returns all ids in ascending order, so that whatever follows is the same in every run.
    pub fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.entries.iter().map(|entry| *entry.key()).collect();
        ids.sort_unstable();
        ids
    }

    /// Puts back the versions of an id as [`Catalogue::versions`] gave them.
    pub fn restore(&self, id: u64, versions: Vec<Version>) {
        self.entries.insert(id, versions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::Value;

    fn price(number: f64) -> Option<Attributes> {
        let mut attributes = Attributes::default();
        attributes.insert(AttributeKey::of("price"), Value::Number(number));
        Some(attributes)
    }

    fn read(catalogue: &Catalogue, time: i64) -> (Found, Option<f64>) {
        catalogue.as_of(1, EventTime(time), |found, features| {
            (found, features.and_then(|f| f.get(AttributeKey::of("price"))?.number()))
        })
    }

    #[test]
    fn a_value_is_the_newest_not_later_than_its_time() {
        let catalogue = Catalogue::new(4);
        catalogue.apply(1, EventTime(20), price(2.0));
        assert!(!catalogue.apply(1, EventTime(10), price(1.0)).new);
        assert_eq!(read(&catalogue, 15), (Found::AsOf, Some(1.0)));
        assert_eq!(read(&catalogue, 20), (Found::AsOf, Some(2.0)));
        assert_eq!(read(&catalogue, 5), (Found::Later, Some(1.0)));
    }

    #[test]
    fn what_comes_later_does_not_change_what_was() {
        let catalogue = Catalogue::new(4);
        catalogue.apply(1, EventTime(10), price(1.0));
        let before = read(&catalogue, 15);
        catalogue.apply(1, EventTime(30), price(9.0));
        catalogue.apply(1, EventTime(40), None);
        assert_eq!(read(&catalogue, 15), before);
        assert_eq!(read(&catalogue, 50), (Found::Gone, None));
    }

    #[test]
    fn the_oldest_version_goes_first_and_the_same_time_replaces() {
        let catalogue = Catalogue::new(2);
        assert!(catalogue.apply(1, EventTime(10), price(1.0)).new);
        catalogue.apply(1, EventTime(10), price(1.5));
        catalogue.apply(1, EventTime(20), price(2.0));
        assert!(catalogue.apply(1, EventTime(30), price(3.0)).dropped);
        assert_eq!(read(&catalogue, 10), (Found::Later, Some(2.0)));
        assert_eq!(catalogue.versions(1).len(), 2);
    }

    #[test]
    fn an_unknown_id_says_so() {
        assert_eq!(read(&Catalogue::new(1), 5), (Found::Unknown, None));
    }
}
