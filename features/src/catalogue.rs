//! Features of items and users as of a time.
//!
//! A value as of a time is the newest version not later than it; where none is so old, the oldest one, and the answer says so. An id keeps
//! what may still be asked for: all versions after a horizon, before which nothing is asked, and the newest one before it. Versions that
//! follow each other and that a model reads alike are one. Beyond [`MOST_VERSIONS`] those go that stood for the shortest time: what is read in
//! their place is older, never newer.
//!
//! Several threads read by key (scorers, the publisher) while one writes: hence `dashmap`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dashmap::DashMap;
use serde::{Deserialize, Serialize};

use crate::attributes::{AttributeKey, Attributes};
use crate::maps::{BLOCK, Seeded, most_bytes};
use crate::time::EventTime;

/// The most versions of an id.
pub const MOST_VERSIONS: usize = 16;

/// What an id takes beside its versions, at most.
const ENTRY: usize = most_bytes(size_of::<(u64, Vec<Version>)>()) + BLOCK;

/// What an id was from a time on. `None`: the item was gone, the user's features were forgotten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// From when on.
    pub time: EventTime,
    /// The newest update that said the same.
    pub last: EventTime,
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
    /// A version that may still be asked for fell out because the id has more than are kept.
    pub dropped: bool,
}

/// Features of all items, or of all users, by 64-bit id.
#[derive(Debug)]
pub struct Catalogue {
    entries: DashMap<u64, Vec<Version>, Seeded>,
    /// The attributes that are read.
    read: Vec<AttributeKey>,
    /// Something was ever said: ids stay.
    any: AtomicBool,
    /// What all of it takes.
    bytes: AtomicUsize,
}

impl Catalogue {
    /// Creates an empty catalogue of which these attributes are read.
    pub fn new(read: Vec<AttributeKey>) -> Self {
        let (any, bytes) = Default::default();
        Self { entries: DashMap::with_hasher(Seeded::default()), read, any, bytes }
    }

    /// Enters a version. Versions may come in any order; one of the same time is replaced. Nothing is asked of a time before `horizon` any more.
    pub fn apply(
        &self,
        id: u64,
        time: EventTime,
        features: Option<Attributes>,
        horizon: EventTime,
    ) -> Applied {
        let mut applied = Applied::default();
        self.any.store(true, Ordering::Relaxed);
        let mut versions = self.entries.entry(id).or_insert_with(|| {
            applied.new = true;
            Vec::with_capacity(1)
        });
        let versions = versions.value_mut();
        let before = if applied.new { 0 } else { weight(versions) };
        let place = self.enter(versions, Version { time, last: time, features });
        self.merge(versions, place);
        if let Some(newest_before) = versions.iter().position(|version| version.time <= horizon) {
            versions.truncate(newest_before + 1);
        }
        if versions.len() > MOST_VERSIONS {
            thin(versions);
            applied.dropped = true;
        }
        self.weigh(before, weight(versions));
        applied
    }

    /// Puts a version where it belongs, newest first. Returns its place.
    fn enter(&self, versions: &mut Vec<Version>, new: Version) -> usize {
        // Updates come nearly in order, so the place is nearly always the first.
        let place = versions.iter().position(|kept| kept.time <= new.time);
        let place = place.unwrap_or(versions.len());
        let Some(older) = versions.get_mut(place) else {
            versions.push(new);
            return place;
        };
        if older.last > new.time && !self.alike(&older.features, &new.features) {
            // It came between updates that say the same: the later ones hold again after it.
            let later = Version { time: older.last, ..older.clone() };
            older.last = older.time;
            versions.insert(place, later);
            return self.enter_at(versions, place + 1, new);
        }
        self.enter_at(versions, place, new)
    }

    fn enter_at(&self, versions: &mut Vec<Version>, place: usize, new: Version) -> usize {
        match &mut versions[place] {
            kept if kept.time == new.time => {
                kept.last = kept.last.max(new.last);
                kept.features = new.features;
            }
            _ => versions.insert(place, new),
        }
        place
    }

    /// Makes one version of that at a place and its neighbours, where they are read alike.
    fn merge(&self, versions: &mut Vec<Version>, place: usize) {
        for newer in [place, place.wrapping_sub(1)] {
            let Some([new, old]) = versions.get_mut(newer..).and_then(|at| at.first_chunk_mut())
            else {
                continue;
            };
            if self.alike(&new.features, &old.features) {
                if new.last >= old.last {
                    // What is not read may differ: the newest holds.
                    (old.last, old.features) = (new.last, new.features.take());
                }
                versions.remove(newer);
            }
        }
    }

    /// Tells whether features are the same to all that read them.
    fn alike(&self, one: &Option<Attributes>, two: &Option<Attributes>) -> bool {
        match (one, two) {
            (Some(one), Some(two)) => self.read.iter().all(|key| one.get(*key) == two.get(*key)),
            (None, None) => true,
            _ => false,
        }
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

    /// Tells whether an item that was found with these features ([`Catalogue::as_of`]) is offered: may be recommended, and stand as an item that
    /// was not taken. It is unless it is gone, its attribute `available` says no or neither yes nor no ([`crate::attributes::Value::flag`]), or it is unknown to a catalogue that has items: a name that
    /// one event has mistyped is no item.
    pub fn is_offered(
        &self,
        found: Found,
        features: Option<&Attributes>,
        available: AttributeKey,
    ) -> bool {
        match found {
            Found::Gone => false,
            Found::Unknown => self.is_empty(),
            Found::AsOf | Found::Later => {
                let said = features.and_then(|features| features.get(available));
                said.is_none_or(|said| said.flag() == Some(true))
            }
        }
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
        !self.any.load(Ordering::Relaxed)
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
        self.any.store(true, Ordering::Relaxed);
        let after = weight(&versions);
        let before = self.entries.insert(id, versions);
        self.weigh(before.as_ref().map_or(0, weight), after);
    }

    /// Returns about how many bytes of memory all versions take. O(1).
    pub fn memory(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes note of what an id takes. Only one thread writes.
    fn weigh(&self, before: usize, after: usize) {
        self.bytes.fetch_add(after, Ordering::Relaxed);
        self.bytes.fetch_sub(before, Ordering::Relaxed);
    }
}

/// Returns about how many bytes an id takes with these versions.
fn weight(versions: &Vec<Version>) -> usize {
    let features = versions.iter().filter_map(|version| version.features.as_ref());
    let features: usize = features.map(Attributes::memory).sum();
    ENTRY + versions.capacity() * size_of::<Version>() + features
}

/// Removes the version that stood for the shortest time, the newest and the oldest aside.
fn thin(versions: &mut Vec<Version>) {
    let stood = |i: &usize| versions[i - 1].time - versions[*i].time;
    if let Some(place) = (1..versions.len().saturating_sub(1)).min_by_key(stood) {
        versions.remove(place);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::attributes::Value;

    const NO_HORIZON: EventTime = EventTime::MIN;

    fn catalogue() -> Catalogue {
        Catalogue::new(vec![AttributeKey::of("price")])
    }

    fn price(number: f64) -> Option<Attributes> {
        let mut attributes = Attributes::default();
        attributes.insert(AttributeKey::of("price"), Value::Number(number));
        Some(attributes)
    }

    fn stocked(number: f64, stock: f64) -> Option<Attributes> {
        let mut attributes = price(number)?;
        attributes.insert(AttributeKey::of("stock"), Value::Number(stock));
        Some(attributes)
    }

    fn read(catalogue: &Catalogue, time: i64) -> (Found, Option<f64>) {
        catalogue.as_of(1, EventTime(time), |found, features| {
            (found, features.and_then(|f| f.get(AttributeKey::of("price"))?.number()))
        })
    }

    #[test]
    fn a_value_is_the_newest_not_later_than_its_time() {
        let catalogue = catalogue();
        catalogue.apply(1, EventTime(20), price(2.0), NO_HORIZON);
        assert!(!catalogue.apply(1, EventTime(10), price(1.0), NO_HORIZON).new);
        assert_eq!(read(&catalogue, 15), (Found::AsOf, Some(1.0)));
        assert_eq!(read(&catalogue, 20), (Found::AsOf, Some(2.0)));
        assert_eq!(read(&catalogue, 5), (Found::Later, Some(1.0)));
    }

    #[test]
    fn what_comes_later_does_not_change_what_was() {
        let catalogue = catalogue();
        catalogue.apply(1, EventTime(10), price(1.0), NO_HORIZON);
        let before = read(&catalogue, 15);
        catalogue.apply(1, EventTime(30), price(9.0), NO_HORIZON);
        catalogue.apply(1, EventTime(40), None, NO_HORIZON);
        assert_eq!(read(&catalogue, 15), before);
        assert_eq!(read(&catalogue, 50), (Found::Gone, None));
    }

    #[test]
    fn what_may_still_be_asked_for_is_kept_and_nothing_else() {
        let catalogue = catalogue();
        for k in 1..=9 {
            let applied = catalogue.apply(1, EventTime(10 * k), price(k as f64), EventTime(55));
            assert!(!applied.dropped);
        }
        // The one at 50 holds at the horizon.
        assert_eq!(catalogue.versions(1).len(), 5);
        assert_eq!(read(&catalogue, 55), (Found::AsOf, Some(5.0)));
        assert_eq!(read(&catalogue, 65), (Found::AsOf, Some(6.0)));
        assert_eq!(read(&catalogue, 45), (Found::Later, Some(5.0)));
    }

    #[test]
    fn versions_that_are_read_alike_are_one() {
        let catalogue = catalogue();
        for k in 0..50 {
            let features = stocked(if k < 25 { 1.0 } else { 2.0 }, f64::from(k));
            assert!(!catalogue.apply(1, EventTime(i64::from(k)), features, NO_HORIZON).dropped);
        }
        let versions = catalogue.versions(1);
        let times: Vec<_> =
            versions.iter().map(|version| (version.time.0, version.last.0)).collect();
        assert_eq!(times, [(25, 49), (0, 24)]);
        assert_eq!(versions[0].features, stocked(2.0, 49.0), "what nobody reads is the newest");
        // One that comes late splits what said the same before and after it.
        catalogue.apply(1, EventTime(30), price(7.0), NO_HORIZON);
        let at = [26, 31, 49].map(|time| read(&catalogue, time).1.unwrap_or_default().to_bits());
        assert_eq!(at, [2.0f64, 7.0, 2.0].map(f64::to_bits));
        // A correction of the first of them leaves the later one.
        catalogue.apply(1, EventTime(0), price(8.0), NO_HORIZON);
        assert_eq!((read(&catalogue, 0).1, read(&catalogue, 24).1), (Some(8.0), Some(1.0)));
        assert_eq!(read(&catalogue, 25).1, Some(2.0));
    }

    #[test]
    fn beyond_the_bound_what_is_read_is_older_and_never_newer() {
        let catalogue = catalogue();
        let mut dropped = 0;
        for k in 0..100 {
            let applied = catalogue.apply(1, EventTime(10 * k), price(k as f64), NO_HORIZON);
            dropped += usize::from(applied.dropped);
        }
        assert_eq!((catalogue.versions(1).len(), dropped), (MOST_VERSIONS, 100 - MOST_VERSIONS));
        for k in 0..100 {
            let (found, value) = read(&catalogue, 10 * k);
            assert_eq!(found, Found::AsOf);
            assert!(value.unwrap() <= k as f64, "{k}: {value:?}");
        }
        assert_eq!(read(&catalogue, 990).1, Some(99.0));
    }

    #[test]
    fn offered_is_what_the_catalogue_knows_and_can_be_had_or_everything_while_there_is_none() {
        let catalogue = Catalogue::new(vec![AttributeKey::of("available")]);
        let available = AttributeKey::of("available");
        let offered = |catalogue: &Catalogue, id: u64| {
            catalogue.as_of(id, EventTime(50), |f, features| {
                catalogue.is_offered(f, features, available)
            })
        };
        assert!(catalogue.is_empty() && offered(&catalogue, 1), "there is no catalogue");
        let as_value = |value: Value| {
            let mut attributes = Attributes::default();
            attributes.insert(available, value);
            Some(attributes)
        };
        let said = |number: f64| as_value(Value::Number(number));
        catalogue.apply(2, EventTime(10), said(0.0), NO_HORIZON);
        assert!(!catalogue.is_empty() && !offered(&catalogue, 1), "a mistyped name");
        assert!(!offered(&catalogue, 2), "sold out");
        catalogue.apply(2, EventTime(20), said(1.0), NO_HORIZON);
        catalogue.apply(3, EventTime(10), price(3.0), NO_HORIZON);
        catalogue.apply(4, EventTime(90), price(4.0), NO_HORIZON);
        assert!([2, 3, 4].iter().all(|id| offered(&catalogue, *id)));
        catalogue.apply(3, EventTime(30), None, NO_HORIZON);
        assert!(!offered(&catalogue, 3), "gone");
        // What says neither yes nor no is no promise.
        let list = Value::List(Box::new([Value::Flag(false).category().unwrap()]));
        let doubtful = [list, Value::Number(-1.0), Value::text("soon"), Value::text("")];
        for value in doubtful.into_iter().chain(["false", "0", "no"].map(Value::text)) {
            catalogue.apply(5, EventTime(10), as_value(value.clone()), NO_HORIZON);
            assert!(!offered(&catalogue, 5), "{value:?}");
        }
        catalogue.apply(5, EventTime(10), as_value(Value::text("true")), NO_HORIZON);
        assert!(offered(&catalogue, 5));
        let restored = Catalogue::new(vec![AttributeKey::of("available")]);
        restored.restore(2, catalogue.versions(2));
        assert!(!restored.is_empty() && offered(&restored, 2) && !offered(&restored, 1));
    }

    #[test]
    fn what_it_takes_is_what_a_walk_finds() {
        let catalogue = catalogue();
        let mut state = 3_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for step in 0..20_000_i64 {
            let (id, late) = (random(60), random(900).cast_signed());
            let mut features = stocked(random(5) as f64, 1.0).filter(|_| random(9) > 0);
            if let Some(features) = features.as_mut().filter(|_| random(3) == 0) {
                let ids = (0..random(7)).collect();
                features.insert(AttributeKey::of("tags"), Value::List(ids));
            }
            let (time, horizon) = (EventTime(step - late), EventTime(step - 2_000));
            if random(20) == 0 {
                catalogue.restore(id, vec![Version { time, last: time, features }]);
            } else {
                catalogue.apply(id, time, features, horizon);
            }
            if step % 500 == 0 {
                let walked: usize = catalogue.entries.iter().map(|entry| weight(&entry)).sum();
                assert_eq!(catalogue.memory(), walked);
            }
        }
        assert!(catalogue.memory() > 60 * ENTRY);
    }

    #[test]
    fn an_unknown_id_says_so() {
        assert_eq!(read(&catalogue(), 5), (Found::Unknown, None));
    }

    proptest! {
        /// Within the bound an answer is that of all updates kept, whatever their order, as long as each of a time says one thing.
        #[test]
        fn an_answer_is_that_of_everything_kept(
            mut updates in proptest::collection::vec((0i64..40, 0u8..4), 1..16), asked in 0i64..45,
        ) {
            let catalogue = catalogue();
            let mut kept = std::collections::BTreeMap::new();
            updates.sort_unstable_by_key(|(time, value)| (time * 7 % 40, *value));
            updates.dedup_by_key(|(time, _)| *time);
            for (time, value) in &updates {
                let features = if *value == 0 { None } else { price(f64::from(*value)) };
                catalogue.apply(1, EventTime(*time), features, NO_HORIZON);
                kept.insert(*time, *value);
            }
            let of = |value: &u8| Some(f64::from(*value)).filter(|value| *value > 0.0);
            let newest = kept.range(..=asked).next_back().or(kept.first_key_value());
            let answer = read(&catalogue, asked).1;
            // One that comes between updates that say the same may hold a little longer; nothing from later on is ever read.
            let before = kept.range(..=asked).any(|(_, value)| of(value) == answer);
            prop_assert!(before || newest.is_some_and(|(_, value)| of(value) == answer));
            let last = kept.last_key_value().and_then(|(_, value)| of(value));
            prop_assert_eq!(read(&catalogue, 45).1, last);
        }
    }
}
