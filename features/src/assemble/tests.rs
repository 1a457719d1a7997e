//! Each kind of field and each meaning of "missing" by hand; no look into the future; the same rows for learning and answering.

use proptest::prelude::*;

use super::columns::small_id;
use super::*;
use crate::attributes::{Reads, number_id};
use crate::attribution::Kept;
use crate::candidates::Candidates;
use crate::dictionary::Dictionary;
use crate::example::LabelMode;
use crate::funnel::{Entry, Funnel, LabelRule, Task};
use crate::ids::{Numbers, stable_hash};
use crate::schema::{Counter, Field, Kind, Missing, Reading, Subject, Table};
use crate::sequence::{self, KindNumber, NO_CATEGORY, Sequences};
use crate::time::Span;

/// A user's behaviours as a plain list.
#[derive(Clone, Debug, Default)]
struct Listed(Vec<(Past, KindNumber)>);

impl Listed {
    fn back(
        &self,
        before: EventTime,
        read: &Kinds,
        limit: usize,
        wanted: impl Fn(&Past) -> bool,
        visit: impl FnMut(Past),
    ) {
        let mut past: Vec<Past> = self
            .0
            .iter()
            .filter(|(past, kind)| past.time < before && read.has(*kind))
            .map(|(past, _)| *past)
            .filter(wanted)
            .collect();
        past.sort_by_key(|past| past.time);
        past.into_iter().rev().take(limit).for_each(visit);
    }
}

impl History for Listed {
    fn newest(&self, before: EventTime, limit: usize, read: &Kinds, visit: impl FnMut(Past)) {
        self.back(before, read, limit, |_| true, visit);
    }

    fn matching(
        &self,
        category: u64,
        before: EventTime,
        limit: usize,
        read: &Kinds,
        visit: impl FnMut(Past),
    ) {
        self.back(before, read, limit, |past| past.category == Some(category), visit);
    }
}

const CATEGORY: &str = "category";

fn key(name: &str) -> AttributeKey {
    AttributeKey::of(name)
}

fn text(text: &str) -> Value {
    Value::text(text)
}

fn attributes(values: &[(&str, Value)]) -> Attributes {
    let mut attributes = Attributes::default();
    for (name, value) in values {
        assert!(attributes.insert(key(name), value.clone()));
    }
    attributes
}

/// A schema with the table `a` for fields and three for histories.
fn schema(fields: &[(Source, Kind, Missing)]) -> Schema {
    let fields = fields
        .iter()
        .enumerate()
        .map(|(i, (source, kind, missing))| Field {
            name: format!("f{i}"),
            source: source.clone(),
            kind: *kind,
            table: 0,
            missing: *missing,
        })
        .collect();
    let table = |name: &str| Table { name: name.into(), width: 4 };
    Schema {
        fields,
        tables: vec![table("a"), table("items"), table("categories"), table("gaps")],
        counters: vec![Counter {
            task: 0,
            by: vec![Subject::Surface],
            half_life: Span::seconds(60),
            smoothing: 1.0,
            read: Reading::LogOdds,
        }],
        lookups: vec![Lookup::Newest { limit: 3 }, Lookup::Matching { limit: 2 }],
        read: vec![true, false, true],
        item_table: 1,
        category_table: 2,
        gap_table: 3,
        tasks: 2,
    }
}

/// The assembler of a schema, over histories with the behaviours 0 to 2.
fn assembler(schema: &Schema) -> Assembler {
    Assembler::new(schema, key(CATEGORY), &kinds())
}

fn kinds() -> KindNumbers {
    let tasks = ["a", "b", "c"].map(|name| Task {
        name: name.into(),
        parent: None,
        window: Span::ZERO,
        labels: LabelRule::Wait,
    });
    let funnel = Funnel::build(Entry::Impression, "impression", tasks.into(), vec![]).unwrap();
    KindNumbers::new(&funnel)
}

/// What the tests assemble from.
struct World {
    schema: Schema,
    items: Catalogue,
    users: Catalogue,
    counters: Counters,
    history: Listed,
}

const USER: UserId = UserId(70);
const ITEM: ItemId = ItemId(80);

impl World {
    fn new(fields: &[(Source, Kind, Missing)]) -> Self {
        let schema = schema(fields);
        let counters = Counters::new(&schema.counters, 100);
        let mut read = schema.item_attributes();
        read.push(key(CATEGORY));
        let (items, users) = (Catalogue::new(read), Catalogue::new(schema.user_attributes()));
        Self { schema, items, users, counters, history: Listed::default() }
    }

    fn snapshot(&self, shown: &Shown<'_>) -> (FieldValues, Looked) {
        let known = Known { items: &self.items, users: &self.users, counters: &self.counters };
        let mut values = FieldValues::default();
        let looked = assembler(&self.schema).snapshot(shown, &known, &mut values);
        (values, looked)
    }

    fn row(&self, shown: &Shown<'_>) -> Batch {
        let assembler = assembler(&self.schema);
        let mut batch = assembler.batch();
        let (values, _) = self.snapshot(shown);
        assembler.append(&labelled(&values, shown, Labels::default()), &self.history, &mut batch);
        batch
    }

    /// The only key column of a schema with one field.
    fn key_of(&self, shown: &Shown<'_>) -> u64 {
        self.row(shown).keys[0]
    }

    fn salted(&self, table: usize, id: u64) -> u64 {
        salted_key(self.schema.tables[table].salt(), id)
    }
}

fn labelled<'a>(values: &'a FieldValues, shown: &Shown<'_>, labels: Labels) -> Labelled<'a> {
    Labelled { values, impression: EventId(5), user: shown.user, item: shown.item, labels }
}

/// Saturday, 7 November 2026, 13:20:00.123 UTC.
const NOON: i64 = 1_794_057_600_123;

fn shown(context: &Attributes) -> Shown<'_> {
    Shown {
        user: USER,
        item: ITEM,
        time: EventTime(NOON),
        surface: None,
        position: None,
        context,
        new_item: false,
    }
}

fn context(value: Option<Value>) -> Attributes {
    value.map_or_else(Attributes::default, |value| attributes(&[("x", value)]))
}

fn field(kind: Kind, missing: Missing) -> World {
    World::new(&[(Source::Context(key("x")), kind, missing)])
}

/// The id behind the key of the context's attribute `x`; `None` for key 0.
fn assert_id(kind: Kind, missing: Missing, value: Option<Value>, id: Option<u64>) {
    let world = field(kind, missing);
    let expected = id.map_or(0, |id| world.salted(0, id));
    let found = world.key_of(&shown(&context(value.clone())));
    assert_eq!(found, expected, "{kind:?} {missing:?} {value:?}");
}

#[test]
fn categories_are_texts_numbers_and_flags() {
    for (value, id) in [
        (text("red"), stable_hash(b"red")),
        (Value::Number(12.5), stable_hash(b"12.5")),
        (Value::Flag(true), stable_hash(b"true")),
    ] {
        assert_id(Kind::Category, Missing::Own, Some(value), Some(id));
    }
}

#[test]
fn missing_is_a_row_of_its_own_nothing_or_a_number() {
    assert_id(Kind::Category, Missing::Own, None, Some(MISSING));
    assert_id(Kind::Category, Missing::Zero, None, None);
    assert_id(Kind::Category, Missing::Value(3.0), None, Some(stable_hash(b"3")));
    assert_id(Kind::Hour, Missing::Own, Some(text("noon")), Some(MISSING));
    let buckets = Kind::LogBucket { scale: 1.0, buckets: 8 };
    assert_id(buckets, Missing::Value(3.0), None, Some(small_id(2)));
}

#[test]
fn log_buckets_are_exact_at_powers_of_two_and_bounded() {
    let kind = Kind::LogBucket { scale: 0.5, buckets: 5 };
    let expected = [(-9.0, 0), (0.0, 0), (1.9, 0), (2.0, 1), (6.0, 2), (13.9, 2), (14.0, 3)];
    for (number, bucket) in expected.into_iter().chain([(30.0, 4), (1e30, 4)]) {
        assert_id(kind, Missing::Own, Some(Value::Number(number)), Some(small_id(bucket)));
    }
}

#[test]
fn hours_weekdays_and_ages_are_utc() {
    let at = |ms: i64| Some(Value::Number(ms as f64));
    assert_id(Kind::Hour, Missing::Own, at(NOON), Some(small_id(13)));
    assert_id(Kind::Weekday, Missing::Own, at(NOON), Some(small_id(5)));
    assert_id(Kind::Weekday, Missing::Own, at(0), Some(small_id(3)));
    assert_id(Kind::Hour, Missing::Own, at(-1), Some(small_id(23)));
    assert_id(Kind::Weekday, Missing::Own, at(-1), Some(small_id(2)));
    let age = Kind::Age { unit: Span::seconds(60), most: 9 };
    for (before, bucket) in [(0, 0), (59_999, 0), (60_000, 1), (3_600_000, 9), (-5, 0)] {
        assert_id(age, Missing::Own, at(NOON - before), Some(small_id(bucket)));
    }
}

#[test]
fn numbers_are_scaled_shifted_and_bounded() {
    let number = |missing, value: Option<Value>| {
        let world = field(Kind::Number { scale: 0.5, shift: 1.0 }, missing);
        let batch = world.row(&shown(&context(value)));
        assert!(batch.keys.is_empty());
        batch.numbers[0].to_bits()
    };
    assert_eq!(number(Missing::Zero, Some(Value::Number(4.0))), 3f32.to_bits());
    assert_eq!(number(Missing::Zero, Some(text("4.00"))), 3f32.to_bits());
    for unclear in [Value::Flag(true), text("4,00"), Value::List(Box::new([4]))] {
        assert_eq!(number(Missing::Value(4.0), Some(unclear)), 3f32.to_bits(), "as if missing");
    }
    assert_eq!(number(Missing::Zero, Some(Value::Number(-1e9))), (-16f32).to_bits());
    assert_eq!(number(Missing::Zero, Some(text("four"))), 0f32.to_bits());
    assert_eq!(number(Missing::Own, None), 0f32.to_bits());
    assert_eq!(number(Missing::Value(8.0), None), 5f32.to_bits());
}

#[test]
fn lists_stand_end_to_end_and_are_bounded() {
    let of = |name: &str| (Source::Context(key(name)), Kind::List, Missing::Own);
    let mut fields = vec![of("x"), of("y"), of("z")];
    fields[2].2 = Missing::Zero;
    let world = World::new(&fields);
    let many: Vec<u64> = (1..=600).collect();
    let given = attributes(&[("x", Value::List(many.into())), ("y", Value::List(Box::new([])))]);
    let batch = world.row(&shown(&given));
    assert_eq!(batch.lists[0].starts, [0, 512]);
    assert_eq!(batch.lists[0].keys[511], world.salted(0, 512));
    assert_eq!(batch.lists[1].keys, [world.salted(0, MISSING)]);
    assert_eq!(batch.lists[2].starts, [0, 0]);

    let batch = world.row(&shown(&attributes(&[("z", text("one"))])));
    assert_eq!(batch.lists[2].keys, [world.salted(0, stable_hash(b"one"))]);
}

#[test]
fn every_source_is_read() {
    let event = |field| (Source::Event(field), Kind::Category, Missing::Own);
    let counter = (Source::Counter(0), Kind::Number { scale: 2.0, shift: 0.0 }, Missing::Zero);
    let mut world = World::new(&[
        event(EventField::User),
        counter,
        event(EventField::Item),
        event(EventField::Category),
        event(EventField::Surface),
        event(EventField::Position),
        (Source::Event(EventField::Time), Kind::Hour, Missing::Own),
        (Source::Item(key("brand")), Kind::Category, Missing::Own),
        (Source::User(key("city")), Kind::Category, Missing::Own),
    ]);
    let item = attributes(&[(CATEGORY, text("39")), ("brand", text("acme"))]);
    world.items.apply(ITEM.0, EventTime(1), Some(item), EventTime::MIN);
    world.users.apply(
        USER.0,
        EventTime(1),
        Some(attributes(&[("city", text("Bern"))])),
        EventTime::MIN,
    );
    let subjects = Subjects { surface: Some(9), ..Subjects::default() };
    world.counters.impression(&subjects, None, EventTime(NOON - 1));
    world.counters.outcome(0, &subjects, EventTime(NOON - 1), EventTime(NOON - 1));

    let nothing = Attributes::default();
    let shown = Shown { surface: Some(9), position: Some(4), ..shown(&nothing) };
    let batch = world.row(&shown);
    let ids = [
        USER.0,
        ITEM.0,
        stable_hash(b"39"),
        9,
        number_id(4.0),
        small_id(13),
        stable_hash(b"acme"),
        stable_hash(b"Bern"),
    ];
    assert_eq!(batch.keys, ids.map(|id| world.salted(0, id)));
    let odds = world.counters.read(0, &subjects, None, EventTime(NOON)).unwrap();
    assert!(odds > 0.0);
    assert_eq!(
        batch.numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
        [(2.0 * odds).to_bits()]
    );
    let (values, looked) = world.snapshot(&shown);
    assert_eq!(looked, Looked { item: Found::AsOf, user: Found::AsOf, counters: true });
    let category = Some(stable_hash(b"39"));
    let counted = Subjects { item: ITEM.0, user: USER.0, category, surface: Some(9) };
    assert_eq!((values.category(), values.subjects(USER, ITEM)), (category, counted));

    let other = Shown { user: UserId(1), item: ItemId(1), ..self::shown(&nothing) };
    let batch = world.row(&other);
    assert_eq!(batch.keys[2], world.salted(0, MISSING));
    assert_eq!(batch.numbers[0].to_bits(), 0f32.to_bits(), "no surface, no counter");
}

fn past(item: u64, category: Option<u64>, time: i64, kind: u8) -> (Past, KindNumber) {
    (Past { item, category, time: EventTime(time) }, KindNumber(kind))
}

#[test]
fn histories_are_read_strictly_before_the_impression_newest_last() {
    let mut world = World::new(&[]);
    let category = stable_hash(b"39");
    world.items.apply(
        ITEM.0,
        EventTime(1),
        Some(attributes(&[(CATEGORY, text("39"))])),
        EventTime::MIN,
    );
    world.history.0 = vec![
        past(1, Some(category), NOON - 4_000_000_000, 0),
        past(2, None, NOON - 7_000, 2),
        past(3, Some(category), NOON - 1_000, 0),
        past(4, Some(category), NOON - 900, 1),
        past(5, Some(7), NOON - 1, 0),
        past(6, Some(category), NOON, 0),
        past(7, Some(category), NOON + 1, 0),
    ];
    let nothing = Attributes::default();
    let batch = world.row(&shown(&nothing));
    let [newest, matching] = &batch.histories[..] else { panic!("two lookups") };
    let keys = |table, ids: &[u64]| -> Vec<u64> {
        ids.iter().map(|&id| world.salted(table, id)).collect()
    };
    assert_eq!(newest.items, keys(1, &[2, 3, 5]), "type 1 is not read");
    assert_eq!(newest.categories, keys(2, &[MISSING, category, 7]));
    assert_eq!(newest.gaps, keys(3, &[small_id(3), small_id(1), small_id(0)]));
    assert_eq!((&newest.starts[..], &matching.starts[..]), (&[0, 3][..], &[0, 2][..]));
    assert_eq!(matching.items, keys(1, &[1, 3]));
    assert_eq!(matching.gaps[0], world.salted(3, small_id(21)), "4,000,001 seconds");

    world.items.apply(ITEM.0, EventTime(2), None, EventTime::MIN);
    let batch = world.row(&shown(&nothing));
    assert_eq!(batch.histories[1].starts, [0, 0], "without a category nothing matches");
}

#[test]
fn labels_modes_and_circumstances_follow_the_tasks() {
    let world = World::new(&[]);
    let assembler = assembler(&world.schema);
    let nothing = Attributes::default();
    let shown = Shown { new_item: true, ..shown(&nothing) };
    let (values, _) = world.snapshot(&shown);
    let mut batch = assembler.batch();
    let labels = Labels::fnw_positive([1].into_iter().collect());
    for labels in [labels, Labels::default()] {
        assembler.append(&labelled(&values, &shown, labels), &world.history, &mut batch);
    }
    assert_eq!(batch.size(), 2);
    assert_eq!(
        batch.labels.iter().map(|&x| x > 0.5).collect::<Vec<_>>(),
        [false, true, false, false]
    );
    let masked = LabelMode::Masked;
    assert_eq!(batch.modes, [masked, LabelMode::FnwPositive, masked, masked]);
    let about = batch.about[0];
    assert_eq!((about.impression, about.user, about.item), (EventId(5), USER, ITEM));
    assert!(about.new_item && about.time == EventTime(NOON));
}

/// A schema that reads from every place, and a world that holds something in each.
fn everything() -> World {
    let world = World::new(&[
        (Source::Event(EventField::Item), Kind::Category, Missing::Own),
        (Source::Event(EventField::Category), Kind::Category, Missing::Own),
        (Source::Item(key("price")), Kind::Number { scale: 1.0, shift: 0.0 }, Missing::Zero),
        (Source::Item(key("tags")), Kind::List, Missing::Own),
        (Source::User(key("city")), Kind::Category, Missing::Own),
        (Source::Event(EventField::Time), Kind::Weekday, Missing::Own),
        (Source::Counter(0), Kind::Number { scale: 1.0, shift: 0.0 }, Missing::Zero),
        (Source::Cross(vec![0, 4]), Kind::Category, Missing::Own),
        (Source::Cross(vec![5, 4]), Kind::Category, Missing::Own),
        (Source::Counter(0), Kind::Steps { scale: 4.0, buckets: 64 }, Missing::Own),
    ]);
    for item in [1, 2] {
        let features = attributes(&[
            (CATEGORY, text("39")),
            ("price", Value::Number(item as f64)),
            ("tags", Value::List(Box::new([item, 9]))),
        ]);
        world.items.apply(item, EventTime(5), Some(features), EventTime::MIN);
    }
    world.users.apply(
        USER.0,
        EventTime(5),
        Some(attributes(&[("city", text("Bern"))])),
        EventTime::MIN,
    );
    world
}

proptest! {
    #[test]
    fn what_happens_later_does_not_change_an_example(
        before in prop::collection::vec((1..9u64, 0..3u8, 1..100i64), 0..20),
        after in prop::collection::vec((1..9u64, 0..3u8, 100..200i64), 0..20),
        item in 1..3u64,
        position in any::<prop::sample::Index>(),
    ) {
        let mut world = everything();
        let behaviour = |&(item, kind, time): &(u64, u8, i64)| {
            past(item, Some(stable_hash(if item % 2 == 0 { b"39" } else { b"40" })), time, kind)
        };
        // Behaviours of one instant have no order of their own here.
        let mut before = before;
        before.sort_by_key(|b| b.2);
        before.dedup_by_key(|b| b.2);
        world.history.0 = before.iter().map(behaviour).collect();
        let nothing = Attributes::default();
        let asked = Shown { item: ItemId(item), time: EventTime(100), ..shown(&nothing) };
        let row = world.row(&asked);
        let (values, _) = world.snapshot(&asked);

        for (i, later) in after.iter().enumerate() {
            let place = position.index(world.history.0.len() + 1);
            world.history.0.insert(place, behaviour(later));
            let changed = attributes(&[(CATEGORY, text("7")), ("price", Value::Number(i as f64))]);
            world.items.apply(item, EventTime(later.2 + 1), (i % 2 == 0).then_some(changed), EventTime::MIN);
            world.users.apply(USER.0, EventTime(later.2 + 1), None, EventTime::MIN);
        }
        prop_assert_eq!(&world.row(&asked), &row);

        // Counters are read at arrival: what was kept is what is learned.
        let seen = Subjects { surface: Some(9), ..Subjects::default() };
        world.counters.impression(&seen, None, EventTime(300));
        let assembler = assembler(&world.schema);
        let mut batch = assembler.batch();
        assembler.append(&labelled(&values, &asked, Labels::default()), &world.history, &mut batch);
        prop_assert_eq!(batch, row);
    }
}

proptest! {
    #[test]
    fn packed_sequences_and_a_plain_list_give_the_same_rows(
        behaviours in prop::collection::vec((1..9u64, 0..3u8, 0..99_999i64), 0..60),
        item in 0..9u64,
        time in 0..100_000i64,
        together in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut world = everything();
        let category = |item: u64| (!item.is_multiple_of(4)).then(|| stable_hash(&[b'c', (item % 4) as u8]));
        let mut sequences = Sequences::new(0, 1000, &kinds());
        let (mut items, mut categories) = (Dictionary::default(), Numbers::default());
        for (i, &(item, kind, time)) in behaviours.iter().enumerate() {
            // Distinct times: behaviours of one instant have no order of their own here.
            let time = time / 100 * 100 + i as i64;
            world.history.0.push(past(item, category(item), time, kind));
            let number = items.enter(item, &item.to_string()).unwrap();
            let category = category(item).map_or(NO_CATEGORY, |id| categories.enter(id));
            let (kind, time) = (KindNumber(kind), EventTime(time));
            let entry = sequence::Entry { item: number, category, kind, time };
            sequences.append(USER, entry, EventTime::MIN);
            sequences.append(UserId(1), entry, EventTime::MIN);
        }
        // Half of them at the very moment of a behaviour, which is not before it.
        let at = together.filter(|_| !behaviours.is_empty()).map(|place| place.get(&world.history.0).0.time.0);
        let time = at.unwrap_or(time);
        if let Some(id) = category(item) {
            let mut features = Attributes::default();
            features.insert(key(CATEGORY), Value::Text { id, reads: Reads::Nothing });
            world.items.apply(item, EventTime(6), Some(features), EventTime::MIN);
        }
        let nothing = Attributes::default();
        let asked = Shown { item: ItemId(item), time: EventTime(time), ..shown(&nothing) };
        let (values, _) = world.snapshot(&asked);
        let assembler = assembler(&world.schema);
        let mut batch = assembler.batch();
        let history = UserHistory {
            sequence: sequences.of(USER),
            items: &items,
            categories: &categories,
        };
        assembler.append(&labelled(&values, &asked, Labels::default()), &history, &mut batch);
        prop_assert_eq!(batch, world.row(&asked));
    }
}

#[test]
fn an_impression_that_was_open_and_a_candidate_give_the_same_row() {
    let mut world = everything();
    world.history.0 = vec![past(1, Some(stable_hash(b"39")), 50, 0)];
    let assembler = assembler(&world.schema);
    let nothing = Attributes::default();
    let task = Task { name: "t".into(), parent: None, window: Span(9), labels: LabelRule::Wait };
    let funnel = Funnel::build(Entry::Impression, "impression", vec![task], vec![]).unwrap();
    let limits = crate::attribution::JoinLimits::default();
    let mut joiner = crate::attribution::Joiner::new(&funnel, limits);
    let mut effects = Vec::new();
    let mut pool = ValuePool::new(8);
    let known = Known { items: &world.items, users: &world.users, counters: &world.counters };
    let (mut learned, mut asked) = (assembler.batch(), assembler.batch());
    for item in [1, 2, 3] {
        let shown = Shown { item: ItemId(item), time: EventTime(100), ..shown(&nothing) };
        let opened = Opened {
            id: EventId(item),
            user: USER,
            item: shown.item,
            time: shown.time,
            number: item,
            new_item: false,
            payload: (),
        };
        let fill = || {
            let mut values = pool.get();
            assembler.snapshot(&shown, &known, &mut values);
            values
        };
        assert!(joiner.impression(opened, fill, &mut effects).is_some());
        let (values, _) = world.snapshot(&shown);
        assembler.append(&labelled(&values, &shown, Labels::default()), &world.history, &mut asked);
    }
    // Stored and restored while open.
    let text = serde_json::to_string(&joiner.picture()).unwrap();
    let state = serde_json::from_str(&text).unwrap();
    let mut joiner =
        crate::attribution::Joiner::<FieldValues>::restore(&funnel, limits, state).unwrap();
    joiner.advance(EventTime::MAX, &mut effects);
    for effect in effects {
        if let crate::attribution::Effect::Example { place, labels } = effect {
            let opened = joiner.get(place);
            let Kept::Here(values) = &opened.payload else { panic!("nothing was put away") };
            // As bytes and back.
            let (mut bytes, mut read) = (Vec::new(), pool.get());
            values.write_bytes(&mut bytes);
            assert!(read.read_bytes(&bytes) && read == *values);
            assert!(!read.clone().read_bytes(&bytes[1..]));
            let example = Labelled::of(opened, &read, labels);
            assembler.append(&example, &world.history, &mut learned);
        } else if let crate::attribution::Effect::Closed { place, .. } = effect
            && let Kept::Here(values) = joiner.take(place).payload
        {
            pool.put(values);
        }
    }
    assert_eq!((learned.size(), joiner.memory()), (3, 0));
    assert_eq!((learned.keys, learned.lists), (asked.keys, asked.lists));
    assert_eq!(learned.histories, asked.histories);
    let bits = |numbers: &[f32]| -> Vec<u32> { numbers.iter().map(|x| x.to_bits()).collect() };
    assert_eq!(bits(&learned.numbers), bits(&asked.numbers));
}

#[test]
fn candidates_of_one_request_are_the_same_rows_however_they_are_looked_up() {
    let mut world = everything();
    let categories = [b"39", b"40", b"39"].map(|name| Some(stable_hash(name)));
    world.history.0 = (0..3).map(|i| past(i as u64 + 1, categories[i], 50 + i as i64, 0)).collect();
    world.items.apply(4, EventTime(1), Some(attributes(&[(CATEGORY, text("40"))])), EventTime::MIN);
    let assembler = assembler(&world.schema);
    let nothing = Attributes::default();
    let (mut apart, mut alike) = (assembler.batch(), assembler.batch());
    for item in [1, 4, 3, 2] {
        let shown = Shown { item: ItemId(item), time: EventTime(100), ..shown(&nothing) };
        let (values, _) = world.snapshot(&shown);
        let example = labelled(&values, &shown, Labels::default());
        assembler.append(&example, &world.history, &mut apart);
        if alike.is_empty() {
            assembler.append(&example, &world.history, &mut alike);
        } else {
            assembler.append_alike(&example, &world.history, &mut alike);
        }
    }
    assert_eq!(alike.histories[0].starts, [0, 3, 6, 9, 12]);
    assert_eq!(alike.histories[1].starts, [0, 2, 3, 3, 5]);
    assert_eq!(alike, apart);
}

#[test]
fn candidates_hold_the_rows_of_a_batch_with_what_is_common_once() {
    let mut world = everything();
    let categories = [b"39", b"40", b"39"].map(|name| Some(stable_hash(name)));
    world.history.0 = (0..3).map(|i| past(i as u64 + 1, categories[i], 50 + i as i64, 0)).collect();
    world.items.apply(4, EventTime(1), Some(attributes(&[(CATEGORY, text("40"))])), EventTime::MIN);
    let by_category =
        Counter { by: vec![Subject::User, Subject::Category], ..world.schema.counters[0].clone() };
    world.schema.counters.push(by_category);
    let counted = world.schema.fields.iter().find(|f| f.source == Source::Counter(0)).cloned();
    let counted = counted.expect("a field that counts by surface");
    world.schema.fields.insert(1, Field { source: Source::Counter(1), ..counted });
    world.counters = Counters::new(&world.schema.counters, 100);
    let subjects = Subjects { user: USER.0, category: categories[0], ..Subjects::default() };
    world.counters.impression(&subjects, None, EventTime(60));
    let assembler = assembler(&world.schema);
    let known = Known { items: &world.items, users: &world.users, counters: &world.counters };
    let nothing = Attributes::default();
    let mut candidates = Candidates::new(&world.schema);
    for time in [100, 55] {
        let shown = Shown { time: EventTime(time), surface: Some(7), ..shown(&nothing) };
        let mut repeated = assembler.batch();
        assembler.start(&shown, &known, &world.history, &mut candidates);
        assert!(candidates.is_empty());
        // 999 is an item that nobody has heard of.
        for item in [1, 4, 999, 3, 2, 1] {
            let shown = Shown { item: ItemId(item), new_item: item == 999, ..shown };
            let mut values = FieldValues::default();
            assembler.snapshot(&shown, &known, &mut values);
            let example =
                Labelled { impression: EventId(0), ..labelled(&values, &shown, Labels::default()) };
            assembler.append(&example, &world.history, &mut repeated);
            assembler.add(&shown, &known, &world.history, &mut candidates);
        }
        let mut expanded = assembler.batch();
        candidates.expand(&world.schema, &mut expanded);
        assert_eq!(expanded, repeated);
        assert_eq!(candidates.histories[0].starts.len(), 2, "one list of the newest");
        let groups = candidates.groups.iter().max().map_or(0, |&most| most as usize + 1);
        assert_eq!(candidates.histories[1].starts.len(), groups + 1);
        assert!(groups < candidates.size(), "{:?}", candidates.groups);
        assert!(!candidates.common.keys.is_empty() && !candidates.own.keys.is_empty());
    }
}

#[test]
#[should_panic(expected = "append it by itself")]
fn another_time_is_not_alike() {
    let world = everything();
    let assembler = assembler(&world.schema);
    let nothing = Attributes::default();
    let mut batch = world.row(&shown(&nothing));
    let later = Shown { time: EventTime(NOON + 1), ..shown(&nothing) };
    let (values, _) = world.snapshot(&later);
    let example = labelled(&values, &later, Labels::default());
    assembler.append_alike(&example, &world.history, &mut batch);
}

#[test]
fn memory_of_closed_impressions_serves_again() {
    let world = everything();
    let assembler = assembler(&world.schema);
    let known = Known { items: &world.items, users: &world.users, counters: &world.counters };
    let nothing = Attributes::default();
    let mut pool = ValuePool::new(1);
    let mut first = pool.get();
    assembler.snapshot(&Shown { item: ItemId(1), ..shown(&nothing) }, &known, &mut first);
    let kept = first.clone();
    pool.put(first);
    pool.put(FieldValues::default());
    let mut second = pool.get();
    assert_eq!(second, kept);
    assembler.snapshot(&Shown { item: ItemId(2), ..shown(&nothing) }, &known, &mut second);
    let (fresh, _) = world.snapshot(&Shown { item: ItemId(2), ..shown(&nothing) });
    assert_eq!(second, fresh);
    assert_eq!(pool.get(), FieldValues::default());
}

#[test]
fn a_cross_has_a_key_for_each_combination() {
    let part = |key: &str, missing| (Source::Item(super::tests::key(key)), Kind::Category, missing);
    let world = World::new(&[
        (Source::Cross(vec![1, 2]), Kind::Category, Missing::Own),
        part("brand", Missing::Own),
        part("size", Missing::Zero),
    ]);
    let nothing = Attributes::default();
    let mut seen = std::collections::HashMap::new();
    let all =
        [(Some("a"), Some("b")), (Some("b"), Some("a")), (Some("a"), Some("a")), (None, Some("b"))];
    for (i, (brand, size)) in all.into_iter().enumerate() {
        let given = [("brand", brand), ("size", size)];
        let given: Vec<_> =
            given.iter().filter_map(|(name, value)| Some((*name, text((*value)?)))).collect();
        world.items.apply(
            ITEM.0,
            EventTime(i as i64 + 1),
            Some(attributes(&given)),
            EventTime::MIN,
        );
        let keys = world.row(&shown(&nothing)).keys;
        assert!(keys[0] != 0 && !keys[1..].contains(&keys[0]));
        assert_eq!(seen.insert(keys[0], i), None, "combinations are apart");
        assert_eq!(world.row(&shown(&nothing)).keys, keys);
    }
    world.items.apply(
        ITEM.0,
        EventTime(10),
        Some(attributes(&[("brand", text("a"))])),
        EventTime::MIN,
    );
    assert_eq!(world.row(&shown(&nothing)).keys[0], 0, "what misses a part that is nothing");
}

#[test]
fn a_logarithm_is_a_number() {
    let log = Kind::Log { scale: 0.5, shift: 1.0 };
    let world = World::new(&[(Source::Item(key("price")), log, Missing::Value(0.0))]);
    let nothing = Attributes::default();
    for (i, (price, wanted)) in
        [(6.0f64, 1.0 + 0.5 * 7.0f32.ln()), (-3.0, 1.0)].into_iter().enumerate()
    {
        let item = attributes(&[("price", Value::Number(price))]);
        world.items.apply(ITEM.0, EventTime(i as i64 + 1), Some(item), EventTime::MIN);
        let found = world.row(&shown(&nothing)).numbers[0];
        assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
    }
}

#[test]
fn steps_are_of_equal_size_around_nothing() {
    let steps = Kind::Steps { scale: 2.0, buckets: 5 };
    let world = World::new(&[(Source::Item(key("change")), steps, Missing::Own)]);
    let nothing = Attributes::default();
    let all = [
        (-9.0, 0),
        (-0.6, 0),
        (-0.5, 1),
        (-0.1, 1),
        (0.0, 2),
        (0.4, 2),
        (0.5, 3),
        (1.0, 4),
        (9.0, 4),
    ];
    for (i, (change, step)) in all.into_iter().enumerate() {
        let item = attributes(&[("change", Value::Number(change))]);
        world.items.apply(ITEM.0, EventTime(i as i64 + 1), Some(item), EventTime::MIN);
        assert_eq!(world.key_of(&shown(&nothing)), world.salted(0, small_id(step)), "{change}");
    }
}

#[test]
fn the_number_of_a_counter_is_a_key_in_steps() {
    let steps = Kind::Steps { scale: 4.0, buckets: 64 };
    let mut world = World::new(&[
        (Source::Counter(0), Kind::Number { scale: 1.0, shift: 0.0 }, Missing::Value(0.0)),
        (Source::Counter(0), steps, Missing::Own),
    ]);
    let subjects = Subjects { surface: Some(9), ..Subjects::default() };
    world.counters.impression(&subjects, None, EventTime(NOON - 1));
    world.counters.outcome(0, &subjects, EventTime(NOON - 1), EventTime(NOON - 1));
    let nothing = Attributes::default();
    let row = world.row(&Shown { surface: Some(9), ..shown(&nothing) });
    assert!(row.numbers[0] > 0.5, "{:?}", row.numbers);
    let step = (row.numbers[0] * 4.0).floor() as i64 + 32;
    assert_eq!(row.keys[0], world.salted(0, small_id(step)));
}
