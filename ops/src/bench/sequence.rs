//! Group `sequence`: one user's long history: appending, the newest 50, SIM's hard search, and bytes a behaviour in memory and in the store.
//!
//! The limit of a search is a plain scan of as many categories: what a search would cost that looks at every behaviour.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use sluice_daemon::config::Config;
use sluice_daemon::store::{Batch, SledStore, Store, keys};
use sluice_features::event::BehaviourType;
use sluice_features::ids::UserId;
use sluice_features::sequence::{Entry, IndexPart, KindNumbers, SequencePart, Sequences};
use sluice_features::time::EventTime;

use super::report::{Report, Row, Target};

const GROUP: &str = "sequence";
const LENGTHS: [usize; 2] = [10_000, 50_000];
const USER: UserId = UserId(1);
/// Categories that a user visits; half of the behaviours are in the first [`COMMON`].
const CATEGORIES: u32 = 400;
const COMMON: u32 = 16;
/// Beside the tasks click, cart and purchase.
const FUNNEL: &str = "[funnel]\nbehaviours = [\"look\"]\n";
/// What a search wants.
const WANTED: usize = 50;
/// Runs of an append; looks of a search, of which the median counts.
const RUNS: usize = 5;
const LOOKS: usize = 2_001;
/// Users in the store, so that what sled takes for itself does not count.
const STORED: u64 = 40;
const CACHE: u64 = 64 << 20;

/// Measures the group.
///
/// # Errors
/// When the store fails.
pub(super) fn measure(report: &mut Report) -> Result<()> {
    let mut rows = Vec::new();
    let config = Config::build(FUNNEL, &[])?;
    let kinds = KindNumbers::new(&config.funnel);
    let all = kinds.configured();
    for length in LENGTHS {
        let behaviours: Vec<Entry> = behaviours(&kinds).take(length).collect();
        let mut sequences = Sequences::new(0, length, &kinds);
        let mut best = Duration::MAX;
        for _ in 0..RUNS {
            sequences = Sequences::new(0, length, &kinds);
            let begun = Instant::now();
            for entry in &behaviours {
                black_box(sequences.append(USER, *entry, EventTime::MAX));
            }
            best = best.min(begun.elapsed());
        }
        let name = format!("appends to {length}");
        rows.push(Row::new(GROUP, name, length as f64 / best.as_secs_f64() / 1e6, "M/s"));
        let newest = median(|sum| {
            let sequence = sequences.of(USER);
            sequence.newest(EventTime::MAX, WANTED, &all, |e| *sum += u64::from(e.item));
        });
        rows.push(Row::new(GROUP, format!("newest {WANTED} of {length}"), newest, "us"));
        let scan = plain_scan(&behaviours);
        for (what, category) in [("common", 3), ("rare", CATEGORIES - 1), ("absent", CATEGORIES)] {
            let time = median(|sum| {
                let count = |entry: Entry| *sum += u64::from(entry.item);
                sequences.of(USER).matching(category, EventTime::MAX, WANTED, &all, count);
            });
            let name = format!("hard search of {length}, {what} category");
            let row = Row::new(GROUP, name, time, "us").limit(scan);
            rows.push(if length == 50_000 { row.target(Target::AtMost(20.0)) } else { row });
        }
        let bytes = (sequences.memory() - sequences.fixed_memory()) as f64 / length as f64;
        let row = Row::new(GROUP, format!("memory of {length}"), bytes, "bytes/behaviour");
        rows.push(row.target(Target::AtMost(12.5)));
    }
    let row = Row::new(GROUP, "on disk, 10000 a user", on_disk(&kinds)?, "bytes/behaviour");
    rows.push(row.target(Target::AtMost(40.0)));
    rows.into_iter().for_each(|row| report.push(row));
    Ok(())
}

/// Behaviours minutes apart, in the order of their times.
fn behaviours(kinds: &KindNumbers) -> impl Iterator<Item = Entry> {
    let kinds = [0, 1, 2, 3].map(|kind| kinds.number(BehaviourType(kind)));
    let (mut state, mut time) = (1_u64, 1_650_812_741_436);
    std::iter::repeat_with(move || {
        // Knuth's 64-bit linear congruential generator: good enough for a load.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let number = (state >> 33) as u32;
        time += i64::from(number % 300_000);
        let categories = if number & 1 == 0 { COMMON } else { CATEGORIES };
        Entry {
            item: number % 100_000,
            category: number / 2 % categories,
            kind: kinds[(number / 7) as usize % kinds.len()],
            time: EventTime(time),
        }
    })
}

/// Microseconds of counting a category in a bare column.
fn plain_scan(behaviours: &[Entry]) -> f64 {
    let column: Vec<u32> = behaviours.iter().map(|entry| entry.category).collect();
    median(|sum| {
        let wanted = black_box(3);
        *sum += black_box(&column).iter().filter(|category| **category == wanted).count() as u64;
    })
}

/// The median time of a look in microseconds, warm.
fn median(mut look: impl FnMut(&mut u64)) -> f64 {
    let mut times: Vec<Duration> = (0..LOOKS)
        .map(|_| {
            let (mut sum, begun) = (0, Instant::now());
            look(&mut sum);
            black_box(sum);
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[LOOKS / 2].as_secs_f64() * 1e6
}

/// Bytes that a behaviour takes in a store of users with 10,000 each, written as checkpoints do.
fn on_disk(kinds: &KindNumbers) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let store = SledStore::open(folder.path(), CACHE)?;
    let empty = store.bytes()?;
    let mut sequences = Sequences::new(0, LENGTHS[0], kinds);
    for (i, entry) in behaviours(kinds).take(LENGTHS[0]).enumerate() {
        for user in 1..=STORED {
            sequences.append(UserId(user), entry, EventTime::MAX);
        }
        if i % 1_000 == 999 {
            let mut batch = Batch::default();
            let mut add = |part, bytes: Option<&[u8]>| {
                let key = match part {
                    SequencePart::Pack(kind, number) => keys::pack(kind, 0, number),
                    SequencePart::Index(IndexPart::Page(page)) => keys::index_page(0, page),
                    SequencePart::Index(IndexPart::Log(log)) => keys::index_log(0, log),
                };
                match bytes {
                    Some(bytes) => batch.put(key, bytes),
                    None => batch.delete(key),
                }
            };
            sequences.drain_changes(STORED as usize, &mut add);
            sequences.cut(&mut add);
            store.apply(batch)?;
            store.flush()?;
            sequences.stored();
        }
    }
    let bytes = store.bytes()?.saturating_sub(empty);
    Ok(bytes as f64 / sequences.behaviours() as f64)
}
