//! Names outside the memory, in the small shop.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::error::{Exit, Stop};
use crate::pipeline::state::Piece;
use crate::serve::{Code, Scorer, Serving};
use crate::testing::shop::{AFTER, START, Shop, name, request};

/// So many items that two pages of them are full.
const MORE: usize = 600;

/// Pages by whose they are and their number.
type Kept = BTreeMap<(Role, u32), Vec<u8>>;

/// Pages in memory, as a store would have them; out of reach on request.
#[derive(Default)]
struct MemoryPages {
    pages: Mutex<Kept>,
    gone: Mutex<bool>,
}

impl NamePages for MemoryPages {
    fn get(&self, whose: Role, page: u32) -> Result<Option<Vec<u8>>, NamesError> {
        if *self.gone.lock() {
            let source = Arc::new(std::io::Error::other("the disk is gone"));
            return Err(NamesError::Store { whose, page, damaged: false, source });
        }
        Ok(self.pages.lock().get(&(whose, page)).cloned())
    }
}

impl MemoryPages {
    /// Does what a checkpoint does.
    fn store(&self, pipeline: &RwLock<Pipeline>) {
        let mut pages = self.pages.lock();
        let mut pipeline = pipeline.write();
        let drained = pipeline.drain_changes(usize::MAX, |piece, bytes| {
            if let Piece::Texts(whose, page) = piece {
                pages.insert((whose, page), bytes.unwrap().to_vec());
            }
        });
        assert_eq!(drained.unwrap(), 0);
        pipeline.stored();
    }
}

/// A shop with many items.
fn shop() -> Shop {
    let mut shop = Shop::open();
    (100..100 + MORE).for_each(|item| shop.item(item, START, json!({})));
    shop
}

/// The same for readers, with strings in pages and a cache of so many bytes.
fn away(shop: &Shop, pages: &Arc<MemoryPages>, cache: u64) -> Arc<Serving> {
    let Serving { pipeline, embeddings, settings, .. } = &*shop.serving;
    pipeline.write().names_in(pages.clone(), cache);
    pages.store(pipeline);
    let snapshot = (**shop.serving.snapshot.load()).clone();
    Arc::new(Serving::new(
        Arc::clone(pipeline),
        snapshot,
        Arc::clone(embeddings),
        settings.clone(),
        "default",
        shop.clock.clone(),
    ))
}

/// What a scorer says to requests of each kind, and a top list.
fn answers(serving: &Arc<Serving>) -> Vec<Value> {
    let mut scorer = Scorer::new(Arc::clone(serving));
    let said = |scorer: &Scorer| {
        let mut answer: Value = serde_json::from_slice(scorer.output()).unwrap();
        answer["took_us"] = Value::Null;
        answer
    };
    let items: Vec<String> = (0..5).chain(200..220).map(name).chain(["never".into()]).collect();
    let requests = [
        json!({"id": "a", "kind": "rank", "user": "u3", "items": items, "k": 30}),
        json!({"id": "b", "kind": "recommend", "user": "u2", "k": 20}),
        json!({"id": "c", "kind": "recommend", "user": "nobody", "k": 3}),
        json!({"id": "d", "kind": "similar", "items": ["never"], "k": 7}),
    ];
    let mut all: Vec<Value> = requests
        .iter()
        .map(|message| {
            scorer.answer(&request(message), AFTER, Duration::ZERO).unwrap();
            said(&scorer)
        })
        .collect();
    scorer.top_list("u1", AFTER, 9).unwrap();
    all.push(said(&scorer));
    scorer.check().unwrap();
    all
}

#[test]
fn answers_are_the_same_wherever_names_are_and_whatever_the_cache() {
    let shop = shop();
    let expected = answers(&shop.serving);
    let named = |answer: &Value| answer["items"].as_array().unwrap().len();
    assert_eq!(expected.iter().map(named).collect::<Vec<_>>(), [26, 20, 3, 7, 9]);
    let plain = shop.serving.pipeline.read().shared().names_memory();
    let pages = Arc::new(MemoryPages::default());
    let one = read_texts(&{
        away(&shop, &pages, 0);
        pages.pages.lock()[&(Role::Item, 1)].clone()
    });
    let one = one.unwrap().memory() as u64;
    for cache in [0, one, 1 << 20] {
        let serving = away(&shop, &pages, cache);
        assert_eq!(answers(&serving), expected, "a cache of {cache} bytes");
        assert!(serving.pipeline.read().shared().names_memory() < plain + cache as usize);
        let counts = serving.names.counts();
        assert!(counts.misses > 0 && counts.bytes <= cache, "{counts:?}");
        assert_eq!(answers(&serving), expected, "again");
        let again = serving.names.counts();
        // What fits is read once.
        assert_eq!(again.misses == counts.misses, cache == 1 << 20, "{counts:?}, {again:?}");
        assert!(cache < 1 << 20 || again.hits > counts.hits);
    }
}

#[test]
fn all_names_are_found_from_many_threads() {
    let shop = shop();
    let pages = Arc::new(MemoryPages::default());
    let serving = away(&shop, &pages, 20_000);
    let numbers: Vec<u32> = (0..serving.pipeline.read().shared().items.len() as u32).collect();
    assert!(numbers.len() > 2 * PAGE);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (serving, mut numbers) = (&serving, numbers.clone());
            numbers.rotate_left(150 * thread);
            scope.spawn(move || {
                for _ in 0..20 {
                    let mut found = vec![0; numbers.len()];
                    let find = serving.names.find(
                        &serving.pipeline,
                        Role::Item,
                        &numbers,
                        |place, name| {
                            found[place] += 1;
                            let id = sluice_features::ids::ItemId::of(name).0;
                            assert_eq!(
                                serving.pipeline.read().shared().items.number(id),
                                Some(numbers[place])
                            );
                        },
                    );
                    find.unwrap();
                    assert!(found.iter().all(|times| *times == 1));
                }
            });
        }
    });
    let user =
        serving.pipeline.read().shared().users.number(sluice_features::ids::UserId::of("u5").0);
    let text = serving.names.text(&serving.pipeline, Role::User, user.unwrap());
    assert_eq!(text.unwrap(), "u5", "in the page that fills");
}

/// Asks for names, and returns what is said.
fn refused(serving: &Arc<Serving>) -> Stop {
    let mut scorer = Scorer::new(Arc::clone(serving));
    let message = json!({"id": "b", "kind": "recommend", "user": "u2", "k": 20});
    let unanswered = scorer.answer(&request(&message), AFTER, Duration::ZERO).unwrap_err();
    assert_eq!(unanswered.code, Code::OutOfReach);
    assert!(!unanswered.message.contains("page"), "{}", unanswered.message);
    scorer.check().unwrap_err().into()
}

#[test]
fn names_that_are_lost_damaged_or_out_of_reach_are_told_and_nothing_is_said_in_their_place() {
    let shop = shop();
    let expected = answers(&shop.serving);
    let pages = Arc::new(MemoryPages::default());
    let serving = away(&shop, &pages, 0);
    let whole = pages.pages.lock().clone();
    let damaged = |change: &dyn Fn(&mut Kept)| {
        *pages.pages.lock() = whole.clone();
        change(&mut pages.pages.lock());
        let stop = refused(&serving);
        assert_eq!(stop.exit(), Exit::Data);
        crate::error::chain(&stop)
    };
    let first = (Role::Item, 0);
    assert!(damaged(&|pages| drop(pages.remove(&first))).contains("is not there"));
    assert!(damaged(&|pages| pages.get_mut(&first).unwrap().truncate(40)).contains("is no page"));
    let exchanged = |pages: &mut Kept| drop(pages.insert(first, pages[&(Role::Item, 1)].clone()));
    assert!(damaged(&exchanged).contains("does not hold the name"));
    let shifted = |pages: &mut Kept| {
        let page = pages.get_mut(&first).unwrap();
        let place = page.windows(3).position(|text| text == b"i03").unwrap();
        page[place + 2] = b'4';
    };
    assert!(damaged(&shifted).contains("does not hold the name"));
    // A disk that fails for a time is no damage.
    *pages.pages.lock() = whole.clone();
    *pages.gone.lock() = true;
    assert_eq!(refused(&serving).exit(), Exit::Fault);
    *pages.gone.lock() = false;
    assert_eq!(answers(&serving), expected);
}

#[test]
fn strings_stay_in_memory_until_the_checkpoint_that_was_given_them_is_in_force() {
    let shop = shop();
    let pages = Arc::new(MemoryPages::default());
    let pipeline = &shop.serving.pipeline;
    pipeline.write().names_in(pages.clone(), 0);
    let here = |number: u32| {
        let pipeline = pipeline.read();
        matches!(pipeline.shared().items.whereabouts(number), Some(Whereabouts::Here(_)))
    };
    let drain = |pages: &mut Vec<u32>| {
        let drained = pipeline.write().drain_changes(usize::MAX, |piece, _| {
            if let Piece::Texts(Role::Item, page) = piece {
                pages.push(page);
            }
        });
        assert_eq!(drained.unwrap(), 0);
    };
    let mut given = Vec::new();
    drain(&mut given);
    assert_eq!(given, [0, 1, 2]);
    assert!(here(0) && pipeline.read().shared().names_waiting() > 5_000);
    pipeline.write().stored();
    assert_eq!([0, 511, 512].map(here), [false, false, true], "the third page fills");
    assert!(pipeline.read().shared().names_waiting() < 5_000);
    given.clear();
    drain(&mut given);
    assert!(given.is_empty(), "what is stored is not written again");
}
