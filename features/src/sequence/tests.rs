//! Sequences against plain sorted lists.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::event::BehaviourType;
use crate::funnel::{self, Funnel, LabelRule, Task};
use crate::time::Span;

const KINDS: usize = 4;

/// A funnel of these tasks, with these further behaviours.
fn funnel(tasks: &[&str], extras: &[String]) -> Funnel {
    let task = |name: &&str| Task {
        name: (*name).into(),
        parent: None,
        window: Span::ZERO,
        labels: LabelRule::Wait,
    };
    let tasks = tasks.iter().map(task).collect();
    Funnel::build(funnel::Entry::Impression, "impression", tasks, extras.into()).unwrap()
}

fn kinds() -> KindNumbers {
    KindNumbers::new(&funnel(&["a", "b", "c", "d"], &[]))
}

/// The same by brute force: everything, sorted by time and then by arrival.
struct Plain {
    entries: Vec<Entry>,
    most: usize,
    horizon: EventTime,
}

impl Plain {
    fn new(most: usize) -> Self {
        Self { entries: Vec::new(), most, horizon: EventTime::MIN }
    }

    fn append(&mut self, entry: Entry, horizon: EventTime) -> bool {
        self.horizon = horizon;
        let place = self.entries.partition_point(|known| known.time <= entry.time);
        let settled = self.entries.partition_point(|known| known.time < horizon);
        if place < self.entries.len() && place + self.most <= settled {
            return false;
        }
        self.entries.insert(place, entry);
        true
    }

    fn length(&self) -> usize {
        self.entries.len().min(self.most)
    }

    fn newest(
        &self,
        category: Option<u32>,
        before: EventTime,
        limit: usize,
        read: &Kinds,
    ) -> Vec<Entry> {
        let of = |entry: &&Entry| {
            read.has(entry.kind) && category.is_none_or(|category| entry.category == category)
        };
        let before = self.entries.iter().rev().filter(|entry| entry.time < before);
        before.take(self.most).filter(of).take(limit).copied().collect()
    }
}

fn entry(random: &mut ChaCha8Rng, time: i64) -> Entry {
    let category = random.random_range(0..7);
    Entry {
        item: random.random_range(0..1000),
        category: if category == 6 { NO_CATEGORY } else { category },
        kind: KindNumber(random.random_range(0..KINDS as u8)),
        time: EventTime(time),
    }
}

fn compare(sequences: &Sequences, plain: &Plain, user: UserId, random: &mut ChaCha8Rng) {
    assert_eq!(sequences.length(user), plain.length());
    let walked: usize = sequences.users.values().map(History::weighed).sum();
    assert_eq!(sequences.bytes, walked);
    let (oldest, newest) = match (plain.entries.first(), plain.entries.last()) {
        (Some(oldest), Some(newest)) => (oldest.time.0, newest.time.0),
        _ => return,
    };
    for round in 0..20 {
        let before = match round {
            0 => EventTime::MAX,
            1 => plain.entries[random.random_range(0..plain.entries.len())].time,
            _ => EventTime(random.random_range(oldest - 2..newest + 3)),
        };
        // Nothing before the horizon is read.
        let before = before.max(plain.horizon);
        let limit = [0, 1, 5, 50, usize::MAX][random.random_range(0..5)];
        let read: Vec<bool> = (0..KINDS).map(|_| random.random_bool(0.7)).collect();
        let read = kinds().among(&read);
        let mut found = Vec::new();
        sequences.newest(user, before, limit, &read, |entry| found.push(entry));
        assert_eq!(found, plain.newest(None, before, limit, &read));
        let category = random.random_range(0..8);
        found.clear();
        sequences.matching(user, category, before, limit, &read, |entry| found.push(entry));
        assert_eq!(found, plain.newest(Some(category), before, limit, &read));

        let mut categories = Vec::new();
        sequences.recent_categories(user, before, 3, &read, &mut categories);
        let mut expected = Vec::new();
        for entry in plain.newest(None, before, RECENT, &read) {
            if entry.category != NO_CATEGORY && !expected.contains(&entry.category) {
                expected.push(entry.category);
            }
        }
        expected.truncate(3);
        assert_eq!(categories, expected);
    }
}

/// A store that does what it is told.
#[derive(Default)]
struct Store(BTreeMap<SegmentKey, Vec<u8>>);

impl Store {
    fn drain(&mut self, sequences: &mut Sequences) {
        sequences.drain_changes(usize::MAX, |key, change| match change {
            Change::Added(bytes) => assert_eq!(self.0.insert(key, bytes.to_vec()), None),
            Change::Changed(bytes) => {
                let known = self.0.insert(key, bytes.to_vec());
                assert!(known.is_some() || key.place == SegmentKey::TAIL);
            }
            Change::Removed => assert!(self.0.remove(&key).is_some()),
        });
        let mut all = BTreeMap::new();
        sequences.visit_all(|key, bytes| drop(all.insert(key, bytes.to_vec())));
        assert_eq!(self.0, all);
    }
}

#[test]
fn sequences_equal_sorted_lists_under_any_order_and_limit() {
    for seed in 0..24 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let most = [1, 3, 40, 255, 256, 300, 1000, 100_000][seed as usize % 8];
        let lateness = [0, 3, 200, 1_000_000][seed as usize / 8 % 4 + usize::from(seed % 2 == 0)];
        let mut sequences = Sequences::new(most);
        let (mut plain, mut store) = (BTreeMap::new(), Store::default());
        let mut now = 1_650_812_741_436;
        for step in 0..4000 {
            now += [0, 1, 60, 100_000_000][random.random_range(0..4)];
            let late = if random.random_bool(0.3) { random.random_range(0..=lateness) } else { 0 };
            let user = UserId(1 + random.random_range(0..2));
            let entry = entry(&mut random, now - late);
            let plain = plain.entry(user).or_insert_with(|| Plain::new(most));
            // Windows of no length, of some hours, of ages.
            let window = [0, 10_000_000, 3_000_000_000][seed as usize / 3 % 3];
            let horizon = EventTime(now - window);
            let appended = sequences.append(user, entry, horizon);
            assert_eq!(plain.append(entry, horizon), appended != Appended::TooOld, "step {step}");
            if step % 397 == 0 {
                compare(&sequences, plain, user, &mut random);
            }
            if random.random_bool(0.002) {
                store.drain(&mut sequences);
            }
        }
        store.drain(&mut sequences);
        let mut restored = Sequences::new(most);
        let mut stored: Vec<_> = store.0.iter().collect();
        stored.shuffle(&mut random);
        for (key, bytes) in stored {
            restored.restore(*key, bytes, &kinds()).unwrap();
        }
        let total: usize = plain.values().map(Plain::length).sum();
        for sequences in [&sequences, &restored] {
            assert_eq!((sequences.behaviours(), sequences.users()), (total, 2));
            for (user, plain) in &plain {
                compare(sequences, plain, *user, &mut random);
            }
        }
        restored.drain_changes(usize::MAX, |_, _| panic!("nothing has changed"));
    }
}

#[test]
fn a_wholly_reversed_stream_is_sorted_all_the_same() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let (user, mut sequences) = (UserId(1), Sequences::new(100_000));
    let mut plain = Plain::new(100_000);
    // Always the same place between two segments: the numbers between them run out and all are given anew.
    let (early, late) = (1_000, 2_000_000);
    for time in (0..600).map(|i| late + i).chain((0..300).map(|i| early + i)) {
        let entry = entry(&mut random, time);
        plain.append(entry, EventTime::MIN);
        sequences.append(user, entry, EventTime::MIN);
    }
    for time in (0..9_000).rev() {
        let entry = entry(&mut random, 10_000 + time);
        plain.append(entry, EventTime::MIN);
        assert_eq!(sequences.append(user, entry, EventTime::MIN), Appended::Late);
    }
    compare(&sequences, &plain, user, &mut random);
    let mut store = Store::default();
    store.drain(&mut sequences);
}

#[test]
fn an_as_of_read_does_not_see_what_comes_later() {
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let (user, mut sequences) = (UserId(1), Sequences::new(100_000));
    for time in 0..2000 {
        sequences.append(user, entry(&mut random, time), EventTime::MIN);
    }
    let read = kinds().configured();
    let look = |sequences: &Sequences| {
        let mut found = Vec::new();
        sequences.newest(user, EventTime(1500), 50, &read, |entry| found.push(entry));
        sequences.matching(user, 3, EventTime(1500), 50, &read, |entry| found.push(entry));
        found
    };
    let before = look(&sequences);
    assert!(before.iter().all(|entry| entry.time < EventTime(1500)));
    for time in (1500..4000).rev() {
        sequences.append(user, entry(&mut random, time), EventTime::MIN);
    }
    assert_eq!(look(&sequences), before);
}

#[test]
fn a_packed_behaviour_takes_at_most_twelve_bytes() {
    // A year of a busy user: sessions of about 20 behaviours, some minutes apart, in a few of many categories.
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let (user, mut sequences) = (UserId(1), Sequences::new(50_000));
    let mut time = 1_650_812_741_436;
    let mut category = 0;
    for _ in 0..50_000 {
        let new_session = random.random_bool(0.05);
        time += random.random_range(1_000..300_000);
        if new_session {
            time += random.random_range(0..2 * 24 * 3_600_000);
        }
        if random.random_bool(0.3) {
            category = random.random_range(0..10_000);
        }
        let entry = Entry { category, ..entry(&mut random, time) };
        sequences.append(user, entry, EventTime::MIN);
    }
    let (mut bytes, mut tail) = (0, 0);
    sequences.visit_all(|key, segment| {
        bytes += segment.len();
        tail += usize::from(key.place == SegmentKey::TAIL);
    });
    let (packed, memory) = (bytes as f64 / 50_000.0, sequences.memory() as f64 / 50_000.0);
    assert_eq!(tail, 1);
    assert!(packed <= 12.0, "{packed} bytes a behaviour");
    assert!(memory <= 12.5, "{memory} bytes of memory a behaviour");
}

#[test]
fn damaged_segments_are_refused_and_never_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(13);
    let mut sequences = Sequences::new(1000);
    for time in 0..100 {
        sequences.append(UserId(1), entry(&mut random, time * 1000), EventTime::MIN);
    }
    let mut bytes = Vec::new();
    sequences.visit_all(|_, segment| bytes = segment.to_vec());
    let key = SegmentKey { user: UserId(1), place: 0 };
    let restore = |bytes: &[u8]| {
        let mut restored = Sequences::new(1000);
        restored.restore(key, bytes, &kinds())?;
        let mut count = 0;
        restored.newest(UserId(1), EventTime::MAX, 1000, &kinds().configured(), |_| count += 1);
        assert_eq!(count, restored.length(UserId(1)));
        Ok(())
    };
    assert_eq!(restore(&bytes), Ok(()));
    for length in 0..bytes.len() {
        assert!(restore(&bytes[..length]).is_err());
    }
    for _ in 0..20_000 {
        let mut damaged = bytes.clone();
        for _ in 0..random.random_range(1..4) {
            let place = random.random_range(0..damaged.len());
            damaged[place] = random.random();
        }
        let _refused = restore(&damaged).is_err();
    }
    bytes[0] = 9;
    assert_eq!(restore(&bytes), Err(SegmentError::Version(9)));
    let mut restored = Sequences::new(10);
    bytes[0] = 1;
    assert_eq!(restored.restore(key, &bytes, &kinds()), Ok(()));
    assert_eq!(restored.restore(key, &bytes, &kinds()), Err(SegmentError::Doubled));
}

#[test]
fn an_open_impression_reads_what_it_saw_however_much_has_come_since() {
    let mut random = ChaCha8Rng::seed_from_u64(17);
    let (user, shown) = (UserId(1), EventTime(1_000));
    let read = kinds().configured();
    let mut sequences = Sequences::new(50);
    let look = |sequences: &Sequences| {
        let mut found = Vec::new();
        sequences.newest(user, shown, 50, &read, |entry| found.push(entry));
        found
    };
    for time in 0..1_000 {
        sequences.append(user, entry(&mut random, time), EventTime(time));
    }
    let before = look(&sequences);
    for time in 1_000..4_000 {
        sequences.append(user, entry(&mut random, time), shown);
        assert_eq!(look(&sequences), before, "{time}");
    }
    // A robot may do anything: the bound holds.
    for time in 4_000..40_000 {
        sequences.append(user, entry(&mut random, time), shown);
    }
    let mut kept = 0;
    sequences.visit_all(|key, _| kept += usize::from(key.place != SegmentKey::TAIL));
    assert!(kept <= (50 + 4096) / 224 + 1, "{kept} segments");
}

#[test]
fn with_fewer_to_be_kept_the_oldest_go_and_what_is_read_stays() {
    let mut random = ChaCha8Rng::seed_from_u64(19);
    let mut sequences = Sequences::new(10_000);
    for time in 0..20_000 {
        sequences.append(UserId(1 + time as u64 % 2), entry(&mut random, time), EventTime(time));
    }
    let mut store = Store::default();
    store.drain(&mut sequences);
    let mut fewer = Sequences::new(1_000);
    for (key, bytes) in &store.0 {
        fewer.restore(*key, bytes, &kinds()).unwrap();
    }
    let look = |sequences: &Sequences, user| {
        let mut found = Vec::new();
        let (read, before) = (kinds().configured(), EventTime(19_000));
        sequences.newest(user, before, 1_000, &read, |entry| found.push(entry));
        found
    };
    let users = [1, 2].map(UserId);
    let (bytes, before) = (fewer.memory(), users.map(|user| look(&fewer, user)));
    fewer.trim(EventTime(19_000));
    assert_eq!(users.map(|user| look(&fewer, user)), before);
    assert!(fewer.memory() < bytes / 4, "{} of {bytes} bytes", fewer.memory());
    assert_eq!(fewer.bytes, fewer.users.values().map(History::weighed).sum::<usize>());
    store.drain(&mut fewer);
    let trimmed = fewer.memory();
    fewer.trim(EventTime(19_000));
    assert_eq!(fewer.memory(), trimmed);
}

#[test]
fn a_segment_with_a_type_that_has_no_name_is_refused() {
    let mut sequences = Sequences::new(10);
    let entry = Entry { item: 1, category: 2, kind: KindNumber(3), time: EventTime(5) };
    sequences.append(UserId(1), entry, EventTime::MIN);
    let fewer = KindNumbers::new(&funnel(&["a", "b", "c"], &[]));
    sequences.visit_all(|key, bytes| {
        assert_eq!(Sequences::new(10).restore(key, bytes, &kinds()), Ok(()));
        let refused = Sequences::new(10).restore(key, bytes, &fewer);
        assert_eq!(refused, Err(SegmentError::Damaged("a type of behaviour that has no name")));
    });
}

/// Funnels come and go at random, and each writes some behaviours: what was written is read under its name and no other.
#[test]
fn a_name_keeps_its_number_whatever_is_configured() {
    for seed in 0..50 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let names: Vec<String> = (0..12).map(|i| format!("n{i}")).collect();
        let mut numbers: Option<KindNumbers> = None;
        let (user, mut sequences) = (UserId(1), Sequences::new(100_000));
        let mut written: Vec<&str> = Vec::new();
        for _ in 0..20 {
            let mut chosen: Vec<&str> = names.iter().map(String::as_str).collect();
            chosen.shuffle(&mut random);
            chosen.truncate(random.random_range(1..8));
            let (tasks, extras) = chosen.split_at(random.random_range(1..=chosen.len()));
            let extras: Vec<String> = extras.iter().map(|name| String::from(*name)).collect();
            let funnel = funnel(tasks, &extras);
            let now = match &numbers {
                None => KindNumbers::new(&funnel),
                Some(before) => before.configured_as(&funnel).unwrap(),
            };
            for _ in 0..random.random_range(0..30) {
                let name = chosen[random.random_range(0..chosen.len())];
                let kind = now.number(funnel.behaviour_type(name).unwrap());
                let time = EventTime(written.len() as i64);
                let entry = Entry { item: 0, category: 0, kind, time };
                sequences.append(user, entry, EventTime::MIN);
                written.push(name);
            }
            let places = |wanted: &dyn Fn(&str) -> bool| -> Vec<i64> {
                (0..written.len()).rev().filter(|&i| wanted(written[i])).map(|i| i as i64).collect()
            };
            let look = |read: &Kinds| {
                let mut found = Vec::new();
                let visit = |entry: Entry| found.push(entry.time.0);
                sequences.newest(user, EventTime::MAX, usize::MAX, read, visit);
                found
            };
            for (kind, name) in (0u8..).zip(funnel.behaviour_names()) {
                assert_eq!(now.name(BehaviourType(kind)), Some(name));
                let mut read = vec![false; usize::from(kind)];
                read.push(true);
                assert_eq!(look(&now.among(&read)), places(&|written| written == name));
            }
            assert_eq!(look(&now.configured()), places(&|written| chosen.contains(&written)));
            numbers = Some(now);
        }
    }
}

#[test]
fn beyond_two_hundred_names_a_new_one_is_refused() {
    let extras =
        |from: usize, to: usize| -> Vec<String> { (from..to).map(|i| format!("n{i}")).collect() };
    let mut numbers = KindNumbers::new(&funnel(&["click"], &extras(0, 150)));
    numbers = numbers.configured_as(&funnel(&["like"], &extras(150, 198))).unwrap();
    let known = funnel(&["click", "like"], &extras(0, 198));
    assert_eq!(known.behaviours(), 200);
    assert_eq!(numbers.configured_as(&known).unwrap().configured_as(&known).unwrap().given(), 200);
    let error = numbers.configured_as(&funnel(&["click", "share"], &[])).unwrap_err();
    assert_eq!(error, TooManyKinds { known: 200, new: vec!["share".into()] });
    let told = error.to_string();
    assert!(told.contains("at most 200") && told.contains("found 200 and the new share"), "{told}");
}
