use ndarray::{Array2, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluice_features::attributes::AttributeKey;
use sluice_features::example::About;
use sluice_features::ids::{EventId, salted_key};
use sluice_features::schema::{
    Counter, EventField, Field, Kind, Lookup, Missing, Reading, Source, Subject, Table,
};
use sluice_features::time::Span;

use super::columns::{Entries, SideColumns};
use super::*;
use crate::checkpoint::NotFinite;
use crate::retrieval::{Index, Scratch};
use crate::table::Part;

const GROUPS: u64 = 10;
const ITEMS: u64 = 400;
const NEWEST: usize = 30;

/// Columns of a batch: keys `user surface item category device band age`, lists `tags moods`,
/// numbers `price pace ctr`.
fn schema() -> Schema {
    let attribute = AttributeKey::of;
    let number = Kind::Number { scale: 1.0, shift: 0.0 };
    let age = Kind::Age { unit: Span::seconds(3600), most: 9 };
    let field = |name: &str, source, kind, table| Field {
        name: name.into(),
        source,
        kind,
        table,
        missing: Missing::Own,
    };
    Schema {
        fields: vec![
            field("user", Source::Event(EventField::User), Kind::Category, 0),
            field("price", Source::Item(attribute("price")), number, 0),
            field("surface", Source::Event(EventField::Surface), Kind::Category, 3),
            field("tags", Source::Item(attribute("tags")), Kind::List, 3),
            field("item", Source::Event(EventField::Item), Kind::Category, 1),
            field("category", Source::Event(EventField::Category), Kind::Category, 2),
            field("device", Source::Context(attribute("device")), Kind::Category, 3),
            field("pace", Source::User(attribute("pace")), number, 0),
            field("band", Source::User(attribute("band")), Kind::Category, 3),
            field("moods", Source::User(attribute("moods")), Kind::List, 3),
            field("age", Source::Item(attribute("made")), age, 3),
            field("ctr", Source::Counter(0), number, 0),
        ],
        tables: ["user", "item", "category", "other"]
            .map(|name| Table { name: name.into(), width: 8 })
            .to_vec(),
        counters: vec![Counter {
            task: 0,
            by: vec![Subject::Item],
            half_life: Span::seconds(60),
            smoothing: 1.0,
            read: Reading::LogOdds,
        }],
        lookups: vec![Lookup::Matching { limit: 5 }, Lookup::Newest { limit: NEWEST }],
        read: vec![true],
        item_table: 1,
        category_table: 2,
        gap_table: 3,
        tasks: 2,
    }
}

fn spec() -> RetrieverSpec {
    RetrieverSpec { width: 16, hidden: 32, row_width: 8, batch: 64, ..RetrieverSpec::default() }
}

/// A shop whose users and items have a group each; users take items of their own.
struct Shop {
    schema: Schema,
    random: ChaCha8Rng,
    time: i64,
}

impl Shop {
    fn new(seed: u64) -> Self {
        Self { schema: schema(), random: ChaCha8Rng::seed_from_u64(seed), time: 1_000_000 }
    }

    fn batch(&self) -> Batch {
        Batch::new(2, 2)
    }

    fn key(&self, table: usize, id: u64) -> u64 {
        salted_key(self.schema.tables[table].salt(), id)
    }

    fn item_of(&mut self, group: u64) -> u64 {
        self.random.random_range(0..ITEMS / GROUPS) * GROUPS + group
    }

    /// Adds an example; `history` are items, oldest first.
    fn add(&mut self, batch: &mut Batch, user: u64, item: u64, history: &[u64], label: f32) {
        self.time += 1000;
        let (user_key, item_key) = (self.key(0, 1 + user), self.key(1, 1 + item));
        let category = self.key(2, 1 + item % GROUPS);
        let circumstances: [u64; 4] = std::array::from_fn(|i| {
            let value = self.random.random_range(0..3);
            self.key(3, 10 * i as u64 + value)
        });
        let [surface, device, band, age] = circumstances;
        batch.keys.extend([user_key, surface, item_key, category, device, band, age]);
        for (list, (of, entries)) in
            batch.lists.iter_mut().zip([(item, item % 3), (user, user % 4)])
        {
            let salt = self.schema.tables[3].salt();
            list.keys.extend((0..entries).map(|entry| salted_key(salt, 100 + of % 7 + entry)));
            list.starts.push(list.keys.len() as u32);
        }
        batch.numbers.extend([(item % 5) as f32 / 5.0, (user % 3) as f32 / 3.0, 7.0]);
        for histories in &mut batch.histories {
            for &item in history {
                histories.items.push(salted_key(self.schema.tables[1].salt(), 1 + item));
                histories
                    .categories
                    .push(salted_key(self.schema.tables[2].salt(), 1 + item % GROUPS));
                histories.gaps.push(1);
            }
            histories.starts.push(histories.items.len() as u32);
        }
        batch.labels.extend([label, 0.0]);
        batch.modes.extend([LabelMode::Final, LabelMode::Masked]);
        batch.about.push(About {
            impression: EventId(self.time as u64),
            user: UserId(1 + user),
            item: ItemId(1 + item),
            time: EventTime(self.time),
            new_item: false,
            offered: true,
        });
    }

    /// `examples` impressions, half of them positive; 200 users with up to 40 behaviours.
    fn examples(&mut self, examples: usize) -> Batch {
        let mut batch = self.batch();
        for _ in 0..examples {
            let user = self.random.random_range(0..200);
            let history: Vec<u64> =
                (0..self.random.random_range(0..40)).map(|_| self.item_of(user % GROUPS)).collect();
            if self.random.random_bool(0.5) {
                let item = self.item_of(user % GROUPS);
                self.add(&mut batch, user, item, &history, 1.0);
            } else {
                let item = self.random.random_range(0..ITEMS);
                self.add(&mut batch, user, item, &history, 0.0);
            }
        }
        batch
    }

    fn positives(&mut self, count: usize) -> Batch {
        let mut batch = self.batch();
        for user in 0..count as u64 {
            let history: Vec<u64> = (0..user % 40).map(|_| self.item_of(user % GROUPS)).collect();
            let item = self.item_of(user % GROUPS);
            self.add(&mut batch, user, item, &history, 1.0);
        }
        batch
    }
}

fn trained(shop: &mut Shop, batches: usize) -> Retriever {
    let mut retriever = Retriever::new(spec(), &shop.schema, 3);
    for _ in 0..batches {
        let batch = shop.examples(256);
        retriever.learn(&batch);
    }
    retriever
}

#[test]
fn vectors_read_ids_features_and_newest_behaviours_and_no_circumstances() {
    let mut shop = Shop::new(1);
    let columns = Columns::new(&shop.schema, 20);
    let mut batch = shop.batch();
    let history: Vec<u64> = (0..25).collect();
    shop.add(&mut batch, 3, 7, &[], 1.0);
    shop.add(&mut batch, 3, 8, &history, 1.0);
    let (mut user, mut item) = (Facts::new(&columns.user), Facts::new(&columns.item));
    user.push(&columns.user, &batch, 1);
    item.push(&columns.item, &batch, 1);

    let second = &batch.keys[7..];
    assert_eq!(user.keys, [second[0], second[5]], "user and band");
    assert_eq!(item.keys, [second[2], second[3]], "item and category");
    assert_eq!((&user.numbers[..], &item.numbers[..]), (&[0.0][..], &[0.6][..]), "pace, price");
    let entries = |keys: &[u64]| Entries { starts: vec![0, keys.len() as u32], keys: keys.into() };
    let newest = |key: &dyn Fn(u64) -> u64| entries(&(5..25).map(key).collect::<Vec<_>>());
    let expected = [
        entries(&batch.lists[1].keys[3..]),
        newest(&|item| shop.key(1, 1 + item)),
        newest(&|item| shop.key(2, 1 + item % GROUPS)),
    ];
    assert_eq!(user.lists, expected, "moods, items and categories of the newest 20");
    assert_eq!(item.lists, [entries(&batch.lists[0].keys[1..])], "tags");
}

#[test]
fn what_users_take_is_found_also_for_users_and_items_never_learned() {
    let mut shop = Shop::new(2);
    let mut retriever = trained(&mut shop, 200);
    let stats = retriever.stats();
    assert!(stats.steps > 350 && stats.refused == 0, "{stats:?}");

    // The items, and 50 new ones of which only category and features are known.
    let (towers, mut index) = (retriever.towers(), Index::new(16));
    let (mut work, mut vectors) = (towers.work(), Vec::new());
    let mut items = shop.batch();
    (0..ITEMS + 50).for_each(|item| shop.add(&mut items, 0, item, &[], 0.0));
    towers.items(&items, &mut work, &mut vectors);
    for (about, vector) in items.about.iter().zip(vectors.chunks_exact(16)) {
        index.upsert(about.item.0 - 1, vector).unwrap();
    }

    let right =
        |shop: &mut Shop, work: &mut VectorWork, first: u64, history: usize, fresh: bool| {
            let mut users = shop.batch();
            for user in first..first + 200 {
                let taken: Vec<u64> = (0..history).map(|_| shop.item_of(user % GROUPS)).collect();
                shop.add(&mut users, user, 0, &taken, 0.0);
            }
            let mut vectors = Vec::new();
            towers.users(&users, work, &mut vectors);
            let (mut scratch, mut hits, mut right, mut all) =
                (Scratch::default(), Vec::new(), 0, 0);
            for (user, vector) in (first..).zip(vectors.chunks_exact(16)) {
                let (k, wanted) = if fresh { (5, ITEMS) } else { (20, 0) };
                let filter = |item| item >= wanted;
                index.search(vector, k, filter, &mut scratch, &mut hits).unwrap();
                right += hits.iter().filter(|hit| hit.id % GROUPS == user % GROUPS).count();
                all += k;
            }
            right as f64 / all as f64
        };
    // Chance is 0.1.
    let known = right(&mut shop, &mut work, 0, 10, false);
    let new = right(&mut shop, &mut work, 10_000, 10, false);
    let fresh = right(&mut shop, &mut work, 0, 10, true);
    let silent = right(&mut shop, &mut work, 0, 0, false);
    assert!(known > 0.95, "known users with ten behaviours: {known} of the hits are right");
    assert!(new > 0.95, "new users with ten behaviours: {new} of the hits are right");
    assert!(fresh > 0.95, "new items, by category and features: {fresh} of the hits are right");
    // All but one in forty examples had behaviours to go by.
    assert!(silent > 0.8, "known users without behaviours: {silent} of the hits are right");
    assert!(!retriever.touched().users.is_empty());
}

#[test]
fn steps_do_not_depend_on_how_batches_are_cut() {
    let mut shop = Shop::new(3);
    let (mut whole, mut single) =
        (Retriever::new(spec(), &shop.schema, 5), Retriever::new(spec(), &shop.schema, 5));
    let batch = shop.examples(700);
    let loss = whole.learn(&batch).unwrap();
    let mut losses = Vec::new();
    let mut again = Shop { random: ChaCha8Rng::seed_from_u64(3), ..Shop::new(3) };
    let same = again.examples(700);
    assert_eq!(batch, same);
    // The same examples one at a time, each as a batch of its own.
    for example in 0..same.size() {
        losses.extend(single.learn(&cut(&same, example)));
    }
    assert!(losses.len() > 4, "{losses:?}");
    assert!((losses.iter().sum::<f64>() / losses.len() as f64 - loss).abs() < 1e-12);
    assert_eq!(whole.checksum(), single.checksum());
    let mut other = Retriever::new(spec(), &shop.schema, 6);
    other.learn(&batch);
    assert_ne!(whole.checksum(), other.checksum(), "another seed");
}

/// One example of a batch.
fn cut(batch: &Batch, example: usize) -> Batch {
    let range = |starts: &[u32]| starts[example] as usize..starts[example + 1] as usize;
    let mut one = Batch::new(batch.lists.len(), batch.histories.len());
    one.keys.extend_from_slice(&batch.keys[example * 7..][..7]);
    one.numbers.extend_from_slice(&batch.numbers[example * 3..][..3]);
    for (one, list) in one.lists.iter_mut().zip(&batch.lists) {
        one.keys.extend_from_slice(&list.keys[range(&list.starts)]);
        one.starts.push(one.keys.len() as u32);
    }
    for (one, history) in one.histories.iter_mut().zip(&batch.histories) {
        one.items.extend_from_slice(&history.items[range(&history.starts)]);
        one.categories.extend_from_slice(&history.categories[range(&history.starts)]);
        one.starts.push(one.items.len() as u32);
    }
    one.labels.extend_from_slice(&batch.labels[example * 2..][..2]);
    one.modes.extend_from_slice(&batch.modes[example * 2..][..2]);
    one.about.push(batch.about[example]);
    one
}

#[test]
fn only_known_positives_of_the_task_count() {
    let mut shop = Shop::new(4);
    let mut retriever = Retriever::new(RetrieverSpec { uniform: 0, ..spec() }, &shop.schema, 1);
    let mut batch = shop.positives(6);
    batch.modes[2] = LabelMode::FnwPositive; // example 1
    batch.modes[4] = LabelMode::FnwNegative; // example 2
    batch.modes[6] = LabelMode::Masked; // example 3
    batch.labels[8] = 0.0; // example 4 is positive in the other task
    (batch.labels[9], batch.modes[9]) = (1.0, LabelMode::Final);
    assert_eq!(retriever.learn(&batch), None);
    let learned: Vec<u64> = retriever.pending.pairs.iter().map(|pair| pair.0.0 - 1).collect();
    assert_eq!(learned, [0, 1, 5]);
    // Behaviour of any kind changes a user; items change with the step.
    let touched = retriever.touched();
    assert_eq!(touched.users, [1, 2, 5, 6].map(UserId));
    assert!(touched.items.is_empty());

    let rest = shop.positives(61);
    assert!(retriever.learn(&rest).is_some());
    let touched = retriever.touched();
    let mut items: Vec<ItemId> = rest.about.iter().map(|about| about.item).collect();
    items.extend([0, 1, 5].map(|example| batch.about[example].item));
    items.sort_unstable();
    items.dedup();
    assert_eq!(touched.items, items);
    assert_eq!(touched.users.len(), 61);
    assert_eq!(retriever.touched(), Touched::default());
}

#[test]
fn a_step_that_is_not_finite_is_refused_and_changes_nothing_learned() {
    let mut shop = Shop::new(5);
    let mut retriever = trained(&mut shop, 4);
    let rest = 64 - retriever.stats().pending;
    retriever.learn(&shop.positives(rest));
    let (parameters, before) = (retriever.parameters.clone(), retriever.stats());
    assert_eq!(before.pending, 0);
    assert_eq!((retriever.towers().version(), before.refused), (before.steps, 0));
    let mut bad = shop.positives(64);
    let mut rows = vec![0.0; bad.keys.len() * 8];
    retriever.rows.gather(&bad.keys, &mut rows);
    retriever.touched();
    bad.numbers[0] = f32::NAN;
    assert_eq!(retriever.learn(&bad), None);
    let after = retriever.stats();
    assert_eq!((after.steps, after.refused, after.pending), (before.steps, 1, 0));
    assert_eq!(parameters, retriever.parameters);
    let mut rows_after = vec![0.0; bad.keys.len() * 8];
    retriever.rows.gather(&bad.keys, &mut rows_after);
    let known = rows.chunks(8).zip(rows_after.chunks(8)).filter(|(row, _)| row[0].abs() > 0.0);
    assert!(known.clone().count() > 100);
    known.for_each(|(before, after)| assert_eq!(before, after));
    assert!(retriever.touched().items.is_empty());
    assert_eq!(retriever.towers().version(), before.steps, "readers would encode all items anew");
    assert!(retriever.learn(&shop.positives(64)).is_some_and(f64::is_finite));
    let after = retriever.stats();
    assert_eq!((after.steps, after.refused), (before.steps + 1, 1));
    assert_eq!(retriever.towers().version(), after.steps);
}

#[test]
fn towers_give_the_vectors_that_the_step_saw() {
    let mut shop = Shop::new(6);
    let mut retriever = trained(&mut shop, 4);
    retriever.pending.clear();
    let batch = shop.positives(63);
    assert_eq!(retriever.learn(&batch), None);
    retriever.gradients();
    let (model, mut pass) = (retriever.model.clone(), retriever.model.workspace());
    let (mut users, mut items) = (Array2::zeros((63, 16)), Array2::zeros((63, 16)));
    model.users(retriever.work.users.view(), &mut pass, users.view_mut());
    // Behind the items of the pairs are those that were drawn.
    let pairs = retriever.work.items.view();
    assert_eq!(pairs.nrows(), 63 + spec().uniform);
    model.items(pairs.slice(s![..63, ..]), &mut pass, items.view_mut());

    let towers = retriever.towers();
    let (mut work, mut found) = (towers.work(), vec![9.0; 5]);
    // The memory may have been used for more.
    towers.users(&shop.positives(100), &mut work, &mut found);
    towers.users(&batch, &mut work, &mut found);
    assert_eq!(found, users.as_slice().unwrap());
    for vector in found.chunks_exact(16) {
        assert!((vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
    towers.items(&batch, &mut work, &mut found);
    assert_eq!(found, items.as_slice().unwrap());
    // And one by one they are the same, to rounding.
    let mut one = Vec::new();
    for example in 0..63 {
        towers.items(&cut(&batch, example), &mut work, &mut one);
        let same = one.iter().zip(&found[example * 16..]).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(same, "example {example}");
    }

    // The snapshot's towers stay when the step is done.
    let (version, before) = (towers.version(), towers.model.clone());
    retriever.learn(&shop.positives(1)).unwrap();
    assert_eq!(before, towers.model);
    assert_ne!(retriever.model, towers.model);
    assert_eq!(retriever.towers().version(), version + 1);
}

/// Inputs are linear in the rows: `<dx, X rows> = <Xᵀ dx, rows>`. The inputs themselves are written
/// out plainly.
#[test]
fn gradients_of_rows_are_those_of_the_inputs_turned_round() {
    let mut shop = Shop::new(7);
    let mut retriever = trained(&mut shop, 2);
    retriever.pending.clear();
    let batch = shop.positives(50);
    retriever.learn(&batch);
    let Retriever { work, pending, columns, rows, .. } = &mut retriever;
    let (users, items) = (&pending.users, &pending.items);
    let [user_rows, item_rows] = work.inputs.learn(rows, EventTime(9), [users, items]);
    let mut product = 0.0;
    work.inputs.start_gradients();
    let sides = [
        (&columns.user, users, user_rows, &mut work.users),
        (&columns.item, items, item_rows, &mut work.items),
    ];
    for (columns, facts, range, x) in sides {
        work.inputs.write(columns, facts, range.clone(), x);
        assert_eq!(x.values(), plainly(columns, facts, rows));
        let mut dx = Grid::default();
        dx.reshape(x.rows(), x.columns());
        for (i, d) in dx.values_mut().iter_mut().enumerate() {
            *d = (i as f32 * 0.7).sin();
        }
        work.inputs.take(columns, facts, range, &dx);
        let numbers = x.columns() - columns.numbers();
        for row in 0..x.rows() {
            let pairs = x.row(row)[..numbers].iter().zip(dx.row(row));
            product += pairs.map(|(&x, &d)| f64::from(x) * f64::from(d)).sum::<f64>();
        }
    }
    let gradient = work.inputs.sum().to_vec();
    let turned: f64 = distinct(users, items)
        .iter()
        .zip(gradient.chunks_exact(8))
        .map(|(&key, gradient)| {
            let mut row = [0.0; 8];
            rows.gather(&[key], &mut row);
            row.iter().zip(gradient).map(|(&r, &g)| f64::from(r) * f64::from(g)).sum::<f64>()
        })
        .sum();
    assert!((product - turned).abs() < 1e-4, "{product} {turned}");
    assert!(product.abs() > 0.1, "{product}");
}

/// The distinct keys in the order of their first occurrence.
fn distinct(users: &Facts, items: &Facts) -> Vec<u64> {
    let mut keys = Vec::new();
    for facts in [users, items] {
        let lists = facts.lists.iter().flat_map(|list| &list.keys);
        for &key in facts.keys.iter().chain(lists) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    keys
}

fn plainly(columns: &SideColumns, facts: &Facts, rows: &RowStore) -> Vec<f32> {
    let read = |key: u64| {
        let mut row = [0.0; 8];
        rows.gather(&[key], &mut row);
        row
    };
    let mut x = Vec::new();
    for i in 0..facts.size() {
        let keys = &facts.keys[i * columns.keys()..][..columns.keys()];
        x.extend(keys.iter().flat_map(|&key| read(key)));
        for list in &facts.lists {
            let keys = &list.keys[list.starts[i] as usize..list.starts[i + 1] as usize];
            let mut mean = [0.0; 8];
            for &key in keys {
                mean.iter_mut().zip(read(key)).for_each(|(mean, x)| *mean += x);
            }
            x.extend(mean.map(|sum| sum / keys.len().max(1) as f32));
        }
        x.extend(&facts.numbers[i * columns.numbers()..][..columns.numbers()]);
    }
    x
}

#[test]
fn what_was_read_back_goes_on_to_the_bit() {
    let mut shop = Shop::new(8);
    let spec =
        RetrieverSpec { admission: 2, max_rows: 1000, expiry: Some(Span::seconds(1500)), ..spec() };
    let mut retriever = Retriever::new(spec.clone(), &shop.schema, 4);
    for _ in 0..6 {
        retriever.learn(&shop.examples(200));
    }
    assert!(retriever.stats().pending > 0);
    let mut bytes = Vec::new();
    retriever.write(&mut bytes).unwrap();
    bytes.extend(b"what follows");
    let mut from = &bytes[..];
    let mut read = Retriever::read(spec, &shop.schema, &mut from).unwrap();
    assert_eq!(from, b"what follows");
    assert_eq!(read.checksum(), retriever.checksum());
    let mut again = Vec::new();
    read.write(&mut again).unwrap();
    assert_eq!(again, bytes[..bytes.len() - 12]);
    assert_eq!(read.touched(), retriever.touched());
    for _ in 0..6 {
        let batch = shop.examples(200);
        assert_eq!(read.learn(&batch), retriever.learn(&batch));
        let now = EventTime(shop.time);
        for _ in 0..RowStore::SHARDS {
            read.sweep(now);
            retriever.sweep(now);
        }
    }
    assert_eq!(read.stats().refused, retriever.stats().refused);
    assert_eq!(read.touched(), retriever.touched());
    assert!(retriever.stats().rows.expired > 0);
    assert_eq!(read.checksum(), retriever.checksum());
}

#[test]
fn changes_take_it_on_to_where_one_is_that_never_stopped() {
    let mut shop = Shop::new(8);
    let spec =
        RetrieverSpec { admission: 2, max_rows: 1000, expiry: Some(Span::seconds(300)), ..spec() };
    let mut retriever = Retriever::new(spec.clone(), &shop.schema, 4);
    let mut restored: Option<Retriever> = None;
    for kept in [true, true, false, true, false, true] {
        retriever.learn(&shop.examples(400));
        (0..RowStore::SHARDS).for_each(|_| retriever.sweep(EventTime(shop.time)));
        let part = restored.as_ref().map_or(Part::Whole, |_| Part::Changes);
        let (mut image, mut bytes) = (retriever.image(), Vec::new());
        image.write(part, &mut bytes).unwrap();
        if !kept {
            continue;
        }
        image.keep();
        bytes.extend(b"what follows");
        let mut from = &bytes[..];
        match &mut restored {
            None => restored = Retriever::read(spec.clone(), &shop.schema, &mut from).ok(),
            Some(restored) => {
                assert!(Retriever::read(spec.clone(), &shop.schema, from).is_err());
                restored.advance(&mut from).unwrap();
            }
        }
        assert_eq!(from, b"what follows");
        let restored = restored.as_mut().unwrap();
        assert_eq!(restored.checksum(), retriever.checksum());
        let marks = (restored.marks.clone().drain(), retriever.marks.clone().drain());
        assert_eq!(marks.0, marks.1);
        let mut written = [Vec::new(), Vec::new()];
        restored.write(&mut written[0]).unwrap();
        retriever.write(&mut written[1]).unwrap();
        assert_eq!(written[0], written[1]);
    }
    assert!(retriever.stats().rows.expired > 0);
    let mut image = Retriever::new(spec, &shop.schema, 5).image();
    let mut bytes = Vec::new();
    image.write(Part::Changes, &mut bytes).unwrap();
    assert!(restored.unwrap().advance(&bytes[..]).is_err(), "the model of another seed");
}

#[test]
fn a_machine_with_other_memory_reads_it_too() {
    let mut shop = Shop::new(8);
    for admission in [1, 2] {
        let spec = RetrieverSpec { admission, max_rows: 100_000, ..spec() };
        let mut retriever = Retriever::new(spec.clone(), &shop.schema, 4);
        for _ in 0..6 {
            retriever.learn(&shop.examples(200));
        }
        let rows = retriever.stats().rows.rows;
        let mut bytes = Vec::new();
        retriever.write(&mut bytes).unwrap();
        for max_rows in [1_000_000_000, rows / 2] {
            let other = RetrieverSpec { max_rows, ..spec.clone() };
            let read = Retriever::read(other, &shop.schema, &bytes[..]).unwrap();
            assert_eq!((read.stats().rows.rows, read.checksum()), (rows, retriever.checksum()));
        }
        let other = RetrieverSpec { width: 3, ..spec };
        assert!(Retriever::read(other, &shop.schema, &bytes[..]).is_err());
    }
}

#[test]
fn an_image_is_of_its_instant_while_learning_goes_on() {
    let mut shop = Shop::new(12);
    let mut retriever = trained(&mut shop, 6);
    let (mut at_once, mut later) = (Vec::new(), Vec::new());
    retriever.write(&mut at_once).unwrap();
    let mut image = retriever.image();
    for _ in 0..6 {
        retriever.learn(&shop.examples(256));
        retriever.sweep(EventTime(shop.time));
    }
    image.write(Part::Whole, &mut later).unwrap();
    image.keep();
    assert!(at_once == later, "what is learned since changes the image");
    let mut now = Vec::new();
    retriever.write(&mut now).unwrap();
    assert!(now != later);
}

/// Words of the items that a tower reads are what it reads of the examples themselves.
#[test]
fn numbers_that_are_not_finite_are_never_written() {
    for found in [f32::NAN, f32::INFINITY] {
        let refused = |retriever: &Retriever| {
            let error = retriever.write(&mut Vec::new()).unwrap_err();
            let inside = error.get_ref().and_then(|error| error.downcast_ref::<NotFinite>());
            inside.map(|error| error.what)
        };
        let mut retriever = trained(&mut Shop::new(1), 2);
        let shard = (0..RowStore::SHARDS).find_map(|number| {
            let shard = retriever.rows.export(number);
            (!shard.keys.is_empty()).then_some((number, shard))
        });
        let (number, mut shard) = shard.unwrap();
        shard.rows[0] = found;
        retriever.rows.import(number, shard).unwrap();
        assert_eq!(refused(&retriever), Some("rows of the retrieval model"));
        retriever.parameters[3] = found;
        assert_eq!(refused(&retriever), Some("parameters of the retrieval model"));
    }
}

#[test]
fn a_packed_item_is_read_like_its_example() {
    let mut shop = Shop::new(13);
    let columns = Columns::new(&shop.schema, 20);
    let batch = shop.examples(40);
    let (mut plain, mut packed) = (Facts::new(&columns.item), Facts::new(&columns.item));
    let mut words = Vec::new();
    for example in 0..40 {
        plain.push(&columns.item, &batch, example);
        assert!(columns.item.pack(&batch, example, &mut words));
        assert!(Facts::fits_packed(&columns.item, &words));
        packed.push_packed(&columns.item, &words);
        for wrong in [&words[..words.len() - 1], &[&words[..], &[0]].concat(), &[u64::MAX; 9]] {
            assert!(!Facts::fits_packed(&columns.item, wrong), "{wrong:?}");
        }
    }
    assert_eq!(packed, plain);
    packed.push(&columns.item, &batch, 3);
    packed.copy_from(&plain);
    assert_eq!(packed, plain);
}

/// A shop where the last quarter of each group's items is shown as often as all others and never taken. Returns by how much a user's own items
/// that are taken score higher than those that are not.
fn preferred(uniform: usize) -> f32 {
    let mut shop = Shop::new(14);
    let taken = |item: u64| item < ITEMS * 3 / 4;
    let mut retriever = Retriever::new(RetrieverSpec { uniform, ..spec() }, &shop.schema, 3);
    for _ in 0..60 {
        let mut batch = shop.batch();
        for _ in 0..256 {
            let user = shop.random.random_range(0..200);
            let item = shop.item_of(user % GROUPS);
            shop.add(&mut batch, user, item, &[], f32::from(u8::from(taken(item))));
        }
        retriever.learn(&batch);
    }
    let towers = retriever.towers();
    let (mut work, mut users, mut items) = (towers.work(), Vec::new(), Vec::new());
    let (mut all, mut of) = (shop.batch(), shop.batch());
    (0..ITEMS).for_each(|item| shop.add(&mut all, 0, item, &[], 0.0));
    (0..200).for_each(|user| shop.add(&mut of, user, 0, &[], 0.0));
    towers.items(&all, &mut work, &mut items);
    towers.users(&of, &mut work, &mut users);
    let (mut sums, mut counts) = ([0.0; 2], [0.0; 2]);
    for (user, u) in (0..).zip(users.chunks_exact(16)) {
        for (item, v) in (0..).zip(items.chunks_exact(16)) {
            if item % GROUPS == user % GROUPS {
                sums[usize::from(taken(item))] += u.iter().zip(v).map(|(u, v)| u * v).sum::<f32>();
                counts[usize::from(taken(item))] += 1.0;
            }
        }
    }
    sums[1] / counts[1] - sums[0] / counts[0]
}

#[test]
fn items_that_nobody_takes_are_pushed_away_from_their_users() {
    let (with, without) = (preferred(64), preferred(0));
    assert!(without < 0.05, "in-batch negatives tell them apart by {without}");
    assert!(with > 0.2 && with > 4.0 * without, "even ones by {with}, in-batch ones by {without}");
}

/// 4 of 40 offered items are taken, each as often: of 64 positives 16, and of 32 drawn ones each item one 40th.
#[test]
fn an_item_is_corrected_by_how_often_it_is_taken_and_drawn() {
    let mut shop = Shop::new(16);
    let spec = RetrieverSpec { uniform: 32, ..spec() };
    let mut retriever = Retriever::new(spec, &shop.schema, 1);
    let mut shown = shop.batch();
    (0..40).for_each(|item| shop.add(&mut shown, 1, item, &[], 0.0));
    // One that is taken but not offered is drawn by nobody.
    shown.about[3].offered = false;
    retriever.learn(&shown);
    for _ in 0..200 {
        let mut positives = shop.batch();
        (0..64).for_each(|user| shop.add(&mut positives, user, user % 4, &[], 1.0));
        positives.about.iter_mut().for_each(|about| about.offered = about.item.0 != 4);
        retriever.learn(&positives);
    }
    assert_eq!(retriever.stats().steps, 200);
    let drawn = 32.0 / 39.0;
    let (ids, counts) = (&retriever.work.ids, &retriever.work.counts);
    assert_eq!((ids.len(), counts.len()), (96, 96));
    for (id, count) in ids.iter().zip(counts) {
        let wanted: f32 = match id - 1 {
            3 => 16.0,
            0..3 => 16.0 + drawn,
            _ => drawn,
        };
        assert!((count.exp() / wanted - 1.0).abs() < 0.02, "{id}: {}, not {wanted}", count.exp());
    }
    assert!(ids[64..].iter().any(|id| *id > 4), "drawn ones are among them");
}

#[test]
fn items_that_are_drawn_are_touched_and_what_is_not_offered_is_not_drawn() {
    let mut shop = Shop::new(15);
    let mut retriever = Retriever::new(spec(), &shop.schema, 1);
    let mut shown = shop.batch();
    (0..40).for_each(|item| shop.add(&mut shown, 1, 100 + item, &[], 0.0));
    for example in 0..20 {
        shown.about[example].offered = false;
    }
    shown.numbers[30 * 3] = f32::NAN; // the price of item 130
    retriever.learn(&shown);
    assert_eq!(retriever.stats().offered, 19);
    let mut positives = shop.batch();
    (0..64).for_each(|user| shop.add(&mut positives, user, user % 4, &[], 1.0));
    assert!(retriever.learn(&positives).is_some_and(f64::is_finite));
    let touched: Vec<u64> = retriever.touched().items.iter().map(|item| item.0 - 1).collect();
    assert!(touched.iter().all(|item| *item < 4 || (120..140).contains(item) && *item != 130));
    assert!(touched.len() > 15, "{touched:?}");
    // What is sold out, or was not seen for long, is drawn no more.
    shown.about.iter_mut().for_each(|about| about.offered = false);
    retriever.learn(&shown);
    assert_eq!(retriever.stats().offered, 4);
}

#[test]
fn what_cannot_be_read_is_refused_in_words() {
    let mut shop = Shop::new(9);
    let retriever = trained(&mut shop, 2);
    let mut bytes = Vec::new();
    retriever.write(&mut bytes).unwrap();
    let read = |spec: RetrieverSpec, bytes: &[u8]| {
        Retriever::read(spec, &schema(), bytes).map(drop).map_err(|error| error.to_string())
    };
    let says = |result: Result<(), String>, words: &str| {
        let error = result.unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    assert!(read(spec(), &bytes).is_ok());
    says(read(RetrieverSpec { hidden: 33, ..spec() }, &bytes), "configuration and schema");
    says(read(spec(), b"something that is no model at all"), "found other bytes");
    let mut newer = bytes.clone();
    newer[8] = 5;
    says(read(spec(), &newer), "found 5");
    // Every cut and every changed byte is noticed, never a panic.
    for length in (0..bytes.len()).step_by(211) {
        assert!(read(spec(), &bytes[..length]).is_err(), "cut at {length}");
    }
    for place in (20..bytes.len()).step_by(499) {
        let mut changed = bytes.clone();
        changed[place] ^= 16;
        assert!(read(spec(), &changed).is_err(), "changed at {place}");
    }
}

#[test]
fn a_schema_that_says_nothing_of_users_still_works() {
    let mut shop = Shop::new(10);
    shop.schema.lookups.clear();
    let user =
        |field: &Field| matches!(field.source, Source::User(_) | Source::Event(EventField::User));
    let mut batch = shop.positives(64);
    // Made for the whole schema: the columns that go are key 0 and 5, list 1 and number 1.
    shop.schema.fields.retain(|field| !user(field));
    batch.keys = batch
        .keys
        .chunks_exact(7)
        .flat_map(|keys| [keys[1], keys[2], keys[3], keys[4], keys[6]])
        .collect();
    batch.lists.truncate(1);
    batch.numbers =
        batch.numbers.chunks_exact(3).flat_map(|numbers| [numbers[0], numbers[2]]).collect();
    batch.histories.clear();
    let mut retriever = Retriever::new(spec(), &shop.schema, 1);
    assert!(retriever.learn(&batch).is_some_and(f64::is_finite));
}
