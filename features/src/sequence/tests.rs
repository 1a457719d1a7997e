//! Sequences against plain sorted lists.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::event::BehaviourType;
use crate::funnel::{self, Funnel, LabelRule, Task};
use crate::pack::PackKind;
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
    let sequence = sequences.of(user);
    assert_eq!(sequence.length(), plain.length());
    sequences.residents.check();
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
        sequence.newest(before, limit, &read, |entry| found.push(entry));
        assert_eq!(found, plain.newest(None, before, limit, &read));
        let category = random.random_range(0..8);
        found.clear();
        sequence.matching(category, before, limit, &read, |entry| found.push(entry));
        assert_eq!(found, plain.newest(Some(category), before, limit, &read));

        let mut categories = Vec::new();
        sequence.recent_categories(before, 3, &read, &mut categories);
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

/// A store that does what checkpoints tell it.
#[derive(Clone, Debug, Default)]
struct Store {
    parts: Arc<Mutex<BTreeMap<SequencePart, Vec<u8>>>>,
    waiting: BTreeMap<SequencePart, Option<Vec<u8>>>,
}

impl Packs for Store {
    fn get(&self, kind: PackKind, _: u32, number: u64) -> Result<Option<Arc<[u8]>>, OutOfReach> {
        let parts = self.parts.lock().unwrap();
        Ok(parts.get(&SequencePart::Pack(kind, number)).map(|bytes| bytes.as_slice().into()))
    }
}

impl Store {
    /// Drains some changes ahead of a checkpoint.
    fn ahead(&mut self, sequences: &mut Sequences, most: usize) {
        sequences.drain_changes(most, |part, bytes| {
            self.waiting.insert(part, bytes.map(<[u8]>::to_vec));
        });
    }

    fn cut(&mut self, sequences: &mut Sequences) -> SequencesState {
        sequences.cut(|part, bytes| {
            self.waiting.insert(part, bytes.map(<[u8]>::to_vec));
        });
        sequences.state()
    }

    fn commit(&mut self, sequences: &mut Sequences) {
        let mut parts = self.parts.lock().unwrap();
        for (part, bytes) in std::mem::take(&mut self.waiting) {
            match bytes {
                Some(bytes) => drop(parts.insert(part, bytes)),
                None => drop(parts.remove(&part)),
            }
        }
        drop(parts);
        sequences.stored();
    }

    fn checkpoint(&mut self, sequences: &mut Sequences) -> SequencesState {
        let state = self.cut(sequences);
        self.commit(sequences);
        state
    }

    fn packs(&self, kind: PackKind) -> usize {
        let parts = self.parts.lock().unwrap();
        let of_kind =
            |part: &&SequencePart| matches!(part, SequencePart::Pack(of, _) if *of == kind);
        parts.keys().filter(of_kind).count()
    }

    /// Puts back what a checkpoint left.
    fn restored(&self, state: &SequencesState, most: usize, memory: usize) -> Sequences {
        let mut sequences = Sequences::new(0, most, &kinds());
        sequences.begin(state.clone());
        for (part, bytes) in &*self.parts.lock().unwrap() {
            if let SequencePart::Index(part) = part {
                assert!(sequences.restore(*part, bytes));
            }
        }
        assert!(sequences.is_whole());
        sequences.read_from(Arc::new(self.clone()));
        sequences.bound(memory);
        sequences
    }
}

/// Whatever the cache, the order and the limit; with checkpoints that come into force at once, late or never, and starts from them.
#[test]
fn sequences_equal_sorted_lists_under_any_order_limit_and_cache() {
    let (mut misses, mut segments) = (0, 0);
    for seed in 0..48 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let most = [1, 3, 40, 255, 256, 300, 1000, 100_000][seed as usize % 8];
        let lateness = [0, 3, 200, 1_000_000][seed as usize / 8 % 4];
        let users = [2, 40][seed as usize % 2];
        let memory = [0, 3_000, 100_000][random.random_range(0..3)];
        let mut sequences = Sequences::new(0, most, &kinds());
        let mut store = Store::default();
        sequences.read_from(Arc::new(store.clone()));
        sequences.bound(memory);
        let mut plain = BTreeMap::new();
        let mut now = 1_650_812_741_436;
        for step in 0..4000 {
            now += [0, 1, 60, 100_000_000][random.random_range(0..4)];
            let late = if random.random_bool(0.3) { random.random_range(0..=lateness) } else { 0 };
            let user = UserId(random.random_range(0..users) << 59);
            let entry = entry(&mut random, now - late);
            let plain = plain.entry(user).or_insert_with(|| Plain::new(most));
            // Windows of no length, of some hours, of ages.
            let window = [0, 10_000_000, 3_000_000_000][seed as usize / 3 % 3];
            let horizon = EventTime(now - window);
            let appended = sequences.append(user, entry, horizon);
            assert_eq!(plain.append(entry, horizon), appended != Appended::TooOld, "step {step}");
            if step % 97 == 0 {
                compare(&sequences, plain, user, &mut random);
            }
            if random.random_bool(0.01) {
                store.ahead(&mut sequences, 70);
            }
            if random.random_bool(0.01) {
                store.cut(&mut sequences);
            }
            if random.random_bool(0.01) {
                let state = store.checkpoint(&mut sequences);
                if random.random_bool(0.2) {
                    let counts = sequences.counts();
                    (misses, segments) = (misses + counts.misses, segments + counts.segments);
                    sequences = store.restored(&state, most, memory);
                }
            }
        }
        let state = store.checkpoint(&mut sequences);
        let mut copied = Store::default();
        let copied_state = sequences.copy(|part, bytes| {
            assert_eq!(copied.parts.lock().unwrap().insert(part, bytes.to_vec()), None);
        });
        copied.waiting.clear();
        let total: usize = plain.values().map(Plain::length).sum();
        let again =
            [store.restored(&state, most, memory), copied.restored(&copied_state, most, memory)];
        for sequences in again.iter().chain([&sequences]) {
            assert_eq!((sequences.behaviours(), sequences.users()), (total, plain.len()));
            for (user, plain) in &plain {
                compare(sequences, plain, *user, &mut random);
            }
            assert!(sequences.check().is_ok());
        }
    }
    assert!(misses > 1_000 && segments > 1_000, "{misses} users and {segments} segments were read");
}

#[test]
fn packs_are_tidied_up_and_removed() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let (mut sequences, mut store) = (Sequences::new(0, 300, &kinds()), Store::default());
    sequences.read_from(Arc::new(store.clone()));
    sequences.bound(10_000);
    let mut time = 0;
    for round in 0..120 {
        // Everybody at first, then some, who are others each time.
        for user in 0..60 {
            if round < 20 || random.random_bool(0.1) {
                for _ in 0..20 {
                    time += 1;
                    let entry = entry(&mut random, time);
                    sequences.append(UserId(user << 58), entry, EventTime(time));
                }
            }
        }
        store.ahead(&mut sequences, 1_000);
        store.checkpoint(&mut sequences);
    }
    let dense = Store::default();
    sequences.copy(|part, bytes| drop(dense.parts.lock().unwrap().insert(part, bytes.to_vec())));
    for kind in [PackKind::Users, PackKind::Segments] {
        let (packs, least) = (store.packs(kind), dense.packs(kind));
        assert!(least > 9 && packs <= 2 * least, "{packs} packs of {kind:?}, {least} would do");
    }
    assert!(sequences.memory() < 100_000, "{} bytes", sequences.memory());
}

#[test]
fn a_wholly_reversed_stream_is_sorted_all_the_same() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let (user, mut sequences) = (UserId(1), Sequences::new(0, 100_000, &kinds()));
    let mut plain = Plain::new(100_000);
    // Always the same place between two segments.
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
}

#[test]
fn an_as_of_read_does_not_see_what_comes_later() {
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let (user, mut sequences) = (UserId(1), Sequences::new(0, 100_000, &kinds()));
    for time in 0..2000 {
        sequences.append(user, entry(&mut random, time), EventTime::MIN);
    }
    let read = kinds().configured();
    let look = |sequences: &Sequences| {
        let mut found = Vec::new();
        let sequence = sequences.of(user);
        sequence.newest(EventTime(1500), 50, &read, |entry| found.push(entry));
        sequence.matching(3, EventTime(1500), 50, &read, |entry| found.push(entry));
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
    let (user, mut sequences) = (UserId(1), Sequences::new(0, 50_000, &kinds()));
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
    let in_memory = sequences.memory() - sequences.fixed_memory();
    let mut packed = 0;
    sequences.cut(|_, bytes| packed += bytes.map_or(0, <[u8]>::len));
    let (packed, memory) = (packed as f64 / 50_000.0, in_memory as f64 / 50_000.0);
    assert!(packed <= 12.5, "{packed} bytes a behaviour");
    assert!(memory <= 13.0, "{memory} bytes of memory a behaviour");
}

#[test]
fn damaged_packs_are_refused_and_never_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(13);
    let (mut sequences, mut store) = (Sequences::new(0, 1000, &kinds()), Store::default());
    let user = UserId(1);
    for time in 0..700 {
        sequences.append(user, entry(&mut random, time * 1000), EventTime::MIN);
    }
    let state = store.checkpoint(&mut sequences);
    let look = |store: &Store| {
        let sequences = store.restored(&state, 1000, 0);
        let (sequence, mut count) = (sequences.of(user), 0);
        sequence.newest(EventTime::MAX, 1000, &kinds().configured(), |_| count += 1);
        (count, sequences.check().map_err(|trouble| trouble.is_damage()))
    };
    assert_eq!(look(&store), (700, Ok(())));
    let sound = store.parts.lock().unwrap().clone();
    for (part, bytes) in &sound {
        if matches!(part, SequencePart::Index(_)) {
            continue;
        }
        for length in 0..bytes.len() {
            let torn = bytes[..length].to_vec();
            store.parts.lock().unwrap().insert(*part, torn);
            assert_eq!(look(&store).1, Err(true), "{part:?} of {length} bytes");
        }
        for _ in 0..5_000 {
            let mut damaged = bytes.clone();
            for _ in 0..random.random_range(1..4) {
                let place = random.random_range(0..damaged.len());
                damaged[place] = random.random();
            }
            store.parts.lock().unwrap().insert(*part, damaged);
            let _whatever = look(&store);
        }
        store.parts.lock().unwrap().remove(part);
        assert_eq!(look(&store).1, Err(true));
        store.parts.lock().unwrap().insert(*part, bytes.clone());
    }
}

#[test]
fn an_open_impression_reads_what_it_saw_however_much_has_come_since() {
    let mut random = ChaCha8Rng::seed_from_u64(17);
    let (user, shown) = (UserId(1), EventTime(1_000));
    let read = kinds().configured();
    let mut sequences = Sequences::new(0, 50, &kinds());
    let look = |sequences: &Sequences| {
        let mut found = Vec::new();
        sequences.of(user).newest(shown, 50, &read, |entry| found.push(entry));
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
    let count = |_| kept += 1;
    sequences.of(user).newest(EventTime::MAX, usize::MAX, &read, count);
    let bytes = sequences.memory() - sequences.fixed_memory();
    assert!(kept == 50 && bytes < 16 * (50 + 4096 + 256), "{kept} are read, {bytes} bytes");
}

#[test]
fn with_fewer_to_be_kept_the_oldest_go_and_what_is_read_stays() {
    let mut random = ChaCha8Rng::seed_from_u64(19);
    let (mut sequences, mut store) = (Sequences::new(0, 10_000, &kinds()), Store::default());
    for time in 0..20_000 {
        sequences.append(UserId(1 + time as u64 % 2), entry(&mut random, time), EventTime(time));
    }
    let state = store.checkpoint(&mut sequences);
    let packs = store.packs(PackKind::Segments);
    let mut fewer = store.restored(&state, 1_000, usize::MAX);
    let look = |sequences: &Sequences, user| {
        let mut found = Vec::new();
        let (read, before) = (kinds().configured(), EventTime(19_000));
        sequences.of(user).newest(before, 1_000, &read, |entry| found.push(entry));
        found
    };
    let users = [1, 2].map(UserId);
    let before = users.map(|user| look(&fewer, user));
    for user in users {
        fewer.append(user, entry(&mut random, 20_000), EventTime(19_000));
    }
    assert_eq!(users.map(|user| look(&fewer, user)), before);
    store.checkpoint(&mut fewer);
    let left = store.packs(PackKind::Segments);
    assert!(left < packs / 3, "{left} packs of {packs}");
}

#[test]
fn a_user_with_a_type_that_has_no_name_is_refused() {
    let (mut sequences, mut store) = (Sequences::new(0, 10, &kinds()), Store::default());
    let entry = Entry { item: 1, category: 2, kind: KindNumber(3), time: EventTime(5) };
    sequences.append(UserId(1), entry, EventTime::MIN);
    let state = store.checkpoint(&mut sequences);
    let restored = store.restored(&state, 10, 0);
    assert_eq!((restored.of(UserId(1)).length(), restored.check().is_ok()), (1, true));
    let fewer = KindNumbers::new(&funnel(&["a", "b", "c"], &[]));
    let mut restored = Sequences::new(0, 10, &fewer);
    restored.begin(state);
    for (part, bytes) in &*store.parts.lock().unwrap() {
        if let SequencePart::Index(part) = part {
            assert!(restored.restore(*part, bytes));
        }
    }
    restored.read_from(Arc::new(store.clone()));
    restored.bound(0);
    assert_eq!((restored.of(UserId(1)).length(), restored.check().is_err()), (0, true));
}

/// Funnels come and go at random, and each writes some behaviours: what was written is read under its name and no other.
#[test]
fn a_name_keeps_its_number_whatever_is_configured() {
    for seed in 0..50 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let names: Vec<String> = (0..12).map(|i| format!("n{i}")).collect();
        let mut numbers: Option<KindNumbers> = None;
        let (user, mut sequences) = (UserId(1), Sequences::new(0, 100_000, &kinds()));
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
                sequences.of(user).newest(EventTime::MAX, usize::MAX, read, visit);
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
