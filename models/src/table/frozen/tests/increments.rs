//! A whole image and the changes that were written after it are what a whole image would be, whatever became of the images between.

use proptest::prelude::*;

use super::*;
use crate::table::{Loan, Use};

/// Ids, few enough to be met again.
const IDS: u64 = 3_000;

/// What happens to rows.
#[derive(Clone, Debug)]
enum Step {
    /// Occurrences of so many ids, and gradients for a part of them.
    Learn(u64, usize),
    /// A loan of so many ids, which is changed and taken back.
    Lend(u64, usize),
    /// Numbers that come from elsewhere.
    Set(u64),
    /// So many seconds pass, and rows that were not used for long go.
    Sweep(u16, usize),
    /// All of them do.
    Expire(u16),
}

/// What becomes of an image.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It is written and in force.
    Kept(Part),
    /// It is written, but not in force.
    Failed(Part),
    /// Its writing breaks off after so many shards.
    BrokenOff(Part, usize),
    /// Nobody writes it.
    Refused,
}

#[derive(Clone, Debug)]
enum Act {
    Step(Step),
    /// Steps while the image is written.
    Checkpoint(Fate, Vec<Step>),
    /// The store is lost.
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u64>(), 1..400_usize).prop_map(|(seed, ids)| Step::Learn(seed, ids)),
        3 => (any::<u64>(), 1..400_usize).prop_map(|(seed, ids)| Step::Lend(seed, ids)),
        1 => any::<u64>().prop_map(Step::Set),
        3 => (0..400_u16, 1..80_usize).prop_map(|(seconds, calls)| Step::Sweep(seconds, calls)),
        1 => (0..1000_u16).prop_map(Step::Expire),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let part = || prop_oneof![1 => Just(Part::Whole), 3 => Just(Part::Changes)];
    let fate = prop_oneof![
        6 => part().prop_map(Fate::Kept),
        2 => part().prop_map(Fate::Failed),
        2 => (part(), 0..RowStore::SHARDS).prop_map(|(part, shards)| Fate::BrokenOff(part, shards)),
        1 => Just(Fate::Refused),
    ];
    prop_oneof![
        6 => step().prop_map(Act::Step),
        4 => (fate, prop::collection::vec(step(), 0..4))
            .prop_map(|(fate, steps)| Act::Checkpoint(fate, steps)),
        1 => Just(Act::Restore),
    ]
}

/// A store and the seconds that have passed.
struct Run {
    store: Arc<RowStore>,
    now: i64,
}

impl Run {
    fn step(&mut self, step: &Step) {
        let store = &self.store;
        let now = EventTime(self.now * 1000);
        let ids = |seed: u64, count: usize| {
            let mut state = seed;
            let mut ids: Vec<u64> = (0..count)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Small ids come more often.
                    1 + (state >> 33) % (1 + (state >> 7) % IDS)
                })
                .collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        match *step {
            Step::Learn(seed, count) => {
                let ids = ids(seed, count);
                let mut out = vec![0.0; ids.len() * WIDTH];
                store.gather_or_insert(&ids, now, &mut out);
                let part = ids.len() / 2;
                store.apply(&ids[part..], &out[part * WIDTH..]);
            }
            Step::Lend(seed, count) => {
                let seconds = self.now as u32;
                let uses: Vec<Use> =
                    ids(seed, count).iter().map(|&key| Use { key, count: 2, seconds }).collect();
                let mut loan = Loan::default();
                store.lend(&uses, &mut loan);
                for (place, used) in uses.iter().enumerate() {
                    if loan.is_late(place) && seed % 3 > 0 {
                        store.occur_late(used.key, now, place, &mut loan);
                    }
                }
                loan.rows.iter_mut().for_each(|x| *x = *x * 0.5 + 0.25);
                store.take_back(&uses, &loan);
            }
            Step::Set(seed) => {
                store.set(1 + seed % IDS, &[0.5; WIDTH], now);
            }
            Step::Sweep(seconds, calls) => {
                self.now += i64::from(seconds);
                let now = EventTime(self.now * 1000);
                (0..calls).for_each(|_| store.sweep(now, |_| {}));
            }
            Step::Expire(seconds) => {
                self.now += i64::from(seconds);
                store.expire(EventTime(self.now * 1000));
            }
        }
    }
}

fn compare(acts: &[Act], new: impl Fn() -> Arc<RowStore>) {
    let restored = |images: &[Vec<ShardImage>]| {
        let store = new();
        for image in images {
            for (shard, image) in image.iter().enumerate() {
                store.import(shard, image.clone()).unwrap();
            }
        }
        store
    };
    // The twin is never frozen, and knows whole images alone.
    let mut run = Run { store: new(), now: 1_000 };
    let mut twin = Run { store: new(), now: 1_000 };
    let (mut chain, mut whole) = (Vec::new(), (all(&twin.store), 1_000));
    for act in acts {
        match act {
            Act::Step(step) => {
                run.step(step);
                twin.step(step);
            }
            Act::Restore if !chain.is_empty() => {
                run = Run { store: restored(&chain), now: whole.1 };
                assert!(all(&run.store) == whole.0, "restored");
                twin = Run { store: restored(std::slice::from_ref(&whole.0)), now: whole.1 };
            }
            Act::Restore => {}
            Act::Checkpoint(fate, steps) => {
                let (expected, now) = (all(&twin.store), twin.now);
                let mut frozen = run.store.freeze();
                let (part, shards) = match *fate {
                    Fate::Kept(part) | Fate::Failed(part) => (part, RowStore::SHARDS),
                    Fate::BrokenOff(part, shards) => (part, shards),
                    Fate::Refused => (Part::Whole, 0),
                };
                // Nothing has been written that changes could build on.
                let part = if chain.is_empty() { Part::Whole } else { part };
                let (said, mut images) = (frozen.bytes(part), Vec::new());
                let mut steps = steps.iter();
                for shard in 0..shards {
                    if shard % 20 == 5
                        && let Some(step) = steps.next()
                    {
                        run.step(step);
                        twin.step(step);
                    }
                    images.push(frozen.next_shard(part).unwrap());
                }
                for step in steps {
                    run.step(step);
                    twin.step(step);
                }
                let bytes: usize = images
                    .iter()
                    .map(|it| {
                        it.keys.len() * (20 + 4 * WIDTH) + it.removed.len() * 8 + it.filter.len()
                    })
                    .sum();
                assert!(bytes as u64 <= said, "{bytes} bytes, {said} were said");
                if let Fate::Kept(_) = fate {
                    frozen.keep();
                    if part == Part::Whole {
                        assert!(images == expected);
                        chain.clear();
                    }
                    chain.push(images);
                    whole = (expected, now);
                } else {
                    drop(frozen);
                }
                assert_eq!(run.store.put_aside(), 0);
            }
        }
        assert_eq!(run.store.checksum(), twin.store.checksum());
    }
    assert!(all(&run.store) == all(&twin.store));
    if !chain.is_empty() {
        let again = restored(&chain);
        assert!(all(&again) == whole.0);
        assert_eq!(again.len(), whole.0.iter().map(|image| image.keys.len()).sum::<usize>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_on_changes_are_what_a_whole_image_would_be(
        acts in prop::collection::vec(act(), 1..40),
        admission in 1..4_u8,
        expiry in prop_oneof![Just(None), (50..2000_i64).prop_map(Some)],
    ) {
        compare(&acts, || store(admission, expiry));
    }
}

/// What is written follows what has changed, not what there is.
#[test]
fn changes_alone_are_written() {
    let store = store(1, Some(100));
    let learn = |ids: std::ops::Range<u64>, now: i64| {
        let ids: Vec<u64> = ids.collect();
        store.gather_or_insert(&ids, EventTime(now * 1000), &mut vec![0.0; ids.len() * WIDTH]);
    };
    let written = |part, kept: bool| {
        let mut frozen = store.freeze();
        let images: Vec<_> = std::iter::from_fn(|| frozen.next_shard(part)).collect();
        if kept {
            frozen.keep();
        }
        let sum = |of: fn(&ShardImage) -> usize| images.iter().map(of).sum::<usize>();
        (images.iter().any(|it| it.whole), sum(|it| it.keys.len()), sum(|it| it.removed.len()))
    };
    learn(1..20_001, 1000);
    // Whoever asks for changes is given all of what no checkpoint has.
    assert_eq!(written(Part::Changes, false), (true, 20_000, 0));
    assert_eq!(written(Part::Changes, true), (true, 20_000, 0));
    assert_eq!(written(Part::Changes, true), (false, 0, 0));
    learn(1..301, 1050);
    learn(20_001..20_011, 1050);
    assert_eq!(written(Part::Changes, false), (false, 310, 0));
    learn(301..305, 1050);
    // What was not kept comes with what has changed since, once.
    assert_eq!(written(Part::Changes, false), (false, 314, 0));
    assert_eq!(written(Part::Changes, true), (false, 314, 0));
    // A whole image covers changes too.
    learn(1..11, 1060);
    assert_eq!(written(Part::Whole, true), (true, 20_010, 0));
    assert_eq!(written(Part::Changes, true), (false, 0, 0));
    // Of rows that came and went there is a key at most.
    learn(30_001..30_101, 1);
    store.sweep(EventTime(1_000_000), |_| {});
    (0..RowStore::SHARDS).for_each(|_| store.sweep(EventTime(1_000_000), |_| {}));
    let (whole, rows, removed) = written(Part::Changes, true);
    assert_eq!((whole, rows), (false, 0));
    assert!(removed <= 100);
    // Where most rows go, shards are as soon written whole.
    store.expire(EventTime(1_110_000));
    let (whole, rows, removed) = written(Part::Changes, true);
    assert!(whole && rows == store.len() && removed == 0, "{whole} {rows} {removed}");
}
