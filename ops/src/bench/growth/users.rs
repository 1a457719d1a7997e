//! What an event costs, and how much memory the state takes, with more and more users.
//!
//! The state is filled directly: names, sequences, counters, remembered ids. Events then come from all users alike. The work of an event is
//! the same; what grows is the time that memory takes, because caches and address translation cover less of it. That is measured too: by
//! a bare random read over as much memory that waits for the one before. An event touches [`PLACES`] places that belong to its user alone,
//! so beyond cache effects its cost may not exceed the cost with the fewest users and what these reads take more.

use std::fmt::Write;
use std::hint::black_box;

use anyhow::{Context, Result, ensure};
use sluice_daemon::config::Config;
use sluice_daemon::parts;
use sluice_daemon::pipeline::Pipeline;
use sluice_features::counters::Subjects;
use sluice_features::event::BehaviourType;
use sluice_features::ids::{CategoryId, EventId, ItemId, stable_hash};
use sluice_features::sequence::Entry;
use sluice_features::time::EventTime;
use sluice_features::wire::Topic;

use super::GROUP;
use crate::bench::report::{Report, Row, Target};
use crate::bench::stream::{Busy, Stream, play};

const USERS: [usize; 4] = [10_000, 100_000, 1_000_000, 10_000_000];
/// Places in memory that an event touches and that belong to its user alone: slot, pointer and text of the name; slot and tail of the
/// sequence; slot, ring and content of the remembered ids; a slot of the counters by user and one of those by user and category.
const PLACES: f64 = 10.0;
const ITEMS: usize = 2_000;
const CATEGORIES: usize = 40;
/// Behaviours of each user.
const BEHAVIOURS: usize = 8;
/// Remembered ids of each user.
const SEEN: u64 = 8;
/// Events of one run, and runs of which the best counts, after one that warms up.
const EVENTS: usize = 50_000;
const RUNS: usize = 4;
/// Milliseconds between events.
const STEP: i64 = 10;
const START: i64 = 1_700_000_000_000;
/// About what a user takes, to tell beforehand whether there is room.
const BYTES: usize = 900;
/// The most memory over which bare reads are made: far beyond what caches and their translations cover.
const LARGEST: usize = 2 << 30;
const READS: usize = 1_000_000;

/// Measures the group.
///
/// # Errors
/// When an event is refused or the system does not tell its memory.
pub(super) fn measure(report: &mut Report) -> Result<()> {
    let mut first: Option<(f64, f64)> = None;
    for users in USERS {
        let room = available()?;
        if room < users * BYTES + (1 << 30) {
            let note = format!("{} GB of memory are free: too little", room >> 30);
            let name = format!("{users} users");
            report.push(Row {
                group: GROUP,
                name,
                unit: "ns/event",
                note: Some(note),
                ..Row::default()
            });
            continue;
        }
        let point = Point::measure(users)?;
        let of = |what: &str| format!("{users} users, {what}");
        let (cost, read) = *first.get_or_insert((point.cost, point.read));
        let bound = cost + PLACES * (point.read - read).max(0.0);
        report.push(Row::new(GROUP, of("an event"), point.cost, "ns").limit(bound));
        report.push(Row::new(GROUP, of("bare read of as much memory"), point.read, "ns"));
        report.push(Row::new(GROUP, of("memory"), point.bytes, "bytes/user"));
        if users > USERS[0] {
            let row = Row::new(GROUP, of("beyond cache effects"), point.cost / bound, "times");
            report.push(row.target(Target::AtMost(1.2)));
            report.push(Row::new(GROUP, of("with cache effects"), point.cost / cost, "times"));
        }
    }
    Ok(())
}

/// The figures of one number of users.
struct Point {
    /// Nanoseconds of an event.
    cost: f64,
    /// Nanoseconds of a read that waits for the one before, over as much memory.
    read: f64,
    /// Bytes of memory a user.
    bytes: f64,
}

impl Point {
    fn measure(users: usize) -> Result<Self> {
        let mut events = Events::new(Config::build("", &[])?)?;
        let mut filled = Ok(());
        let used = allocation_counter::measure(|| filled = fill(&mut events.pipeline, users));
        filled?;
        let bytes = usize::try_from(used.bytes_current).unwrap_or(0);
        let cost = events.cost(users)?;
        drop(events);
        let read = bare_read(bytes.clamp(1 << 20, LARGEST));
        Ok(Self { cost, read, bytes: bytes as f64 / users as f64 })
    }
}

/// Fills in what is kept of users, as if each had done a few things.
fn fill(pipeline: &mut Pipeline, users: usize) -> Result<()> {
    let (mut text, mut state) = (String::new(), 1);
    for user in 0..users {
        name_user(&mut text, user)?;
        let (shared, shard) = pipeline.parts_mut(0);
        let id = shared.enter_user(&text)?;
        for i in 0..BEHAVIOURS {
            let item = random(&mut state) as usize % ITEMS;
            let category = CategoryId(stable_hash(category_of(item).to_string().as_bytes()));
            let time = EventTime(START - 1_000_000 + 1_000 * i as i64);
            let number = shared.category_number(Some(category));
            let kind = shared.kinds.number(BehaviourType(0));
            let entry = Entry { item: item as u32, category: number, kind, time };
            shard.sequences.append(id, entry, EventTime::MAX);
            if i == 0 {
                let (item, category) = (ItemId::of(&item.to_string()).0, Some(category.0));
                let subjects = Subjects { item, user: id.0, category, surface: None };
                shared.counters.impression(&subjects, None, time);
            }
        }
        for seen in 0..SEEN {
            shard.joiner.know(id, EventId(seen + 1), EventTime(START));
        }
    }
    Ok(())
}

/// A pipeline and the events that it takes.
struct Events {
    pipeline: Pipeline,
    stream: Stream,
    state: u64,
    /// Records so far.
    taken: usize,
    /// Events so far.
    made: i64,
}

impl Events {
    fn new(config: Config) -> Result<Self> {
        let pipeline = parts::pipeline(&config, 1);
        let mut new = Self { pipeline, stream: Stream::default(), state: 7, taken: 0, made: 0 };
        for item in 0..ITEMS {
            let category = category_of(item);
            let message = format!(
                r#"{{"item":"{item}","ts":{},"features":{{"category":"{category}"}}}}"#,
                START - 2_000_000
            );
            new.stream.push(Topic::Items, |text| text.push_str(&message));
        }
        new.take()?;
        Ok(new)
    }

    /// Returns the nanoseconds of an event of one of so many users.
    fn cost(&mut self, users: usize) -> Result<f64> {
        let mut best = f64::INFINITY;
        for run in 0..=RUNS {
            self.stream.clear();
            for _ in 0..EVENTS {
                self.event(users)?;
            }
            let time = self.take()?;
            if run > 0 {
                best = best.min(time / EVENTS as f64 * 1e9);
            }
        }
        Ok(best)
    }

    /// Adds an impression; every tenth event is a click on the one before.
    fn event(&mut self, users: usize) -> Result<()> {
        let click = self.made % 10 == 9;
        if !click {
            random(&mut self.state);
        }
        let user = self.state as usize / 64 % users;
        let item = (self.state >> 40) as usize % ITEMS;
        let ts = START + STEP * self.made;
        let mut id = String::new();
        write!(id, "r{}", if click { self.made - 1 } else { self.made })?;
        let mut name = String::new();
        name_user(&mut name, user)?;
        let message = if click {
            format!(
                r#"{{"type":"click","id":"{id}","ts":{ts},"user":"{name}","item":"{item}","impression":"{id}"}}"#
            )
        } else {
            let position = self.made % 10;
            format!(
                r#"{{"type":"impression","id":"{id}","ts":{ts},"user":"{name}","item":"{item}","request":"q{}","position":{position},"surface":"home"}}"#,
                self.made / 10
            )
        };
        self.stream.push(Topic::Events, |text| text.push_str(&message));
        self.made += 1;
        Ok(())
    }

    /// Takes what is in the stream. Returns the seconds.
    fn take(&mut self) -> Result<f64> {
        let records = self.stream.records(0..self.stream.len(), self.taken);
        let (time, refused) = play(&mut self.pipeline, records);
        ensure!(refused == 0, "expected valid records, found {refused} refused: a bug");
        self.taken += self.stream.len();
        Ok(time.as_secs_f64())
    }
}

fn category_of(item: usize) -> usize {
    item % CATEGORIES
}

fn name_user(text: &mut String, user: usize) -> Result<()> {
    text.clear();
    Ok(write!(text, "u{user}")?)
}

/// Knuth's 64-bit linear congruential generator: good enough for a load.
pub(super) fn random(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as u32
}

/// Nanoseconds of a read at a random place of so many bytes that depends on the read before.
fn bare_read(bytes: usize) -> f64 {
    let memory = vec![1_u64; bytes / 8];
    let (mut state, mut sum) = (1_u64, 0_u64);
    let clock = Busy::new();
    for _ in 0..READS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(sum | 1);
        sum = memory[(state >> 20) as usize % memory.len()];
    }
    black_box(sum);
    clock.elapsed().as_secs_f64() / READS as f64 * 1e9
}

/// Returns how many bytes of memory the system has to give.
fn available() -> Result<usize> {
    let file = "/proc/meminfo";
    let text = std::fs::read_to_string(file).context(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    let kilobytes =
        kilobytes.with_context(|| format!("expected a line MemAvailable in {file}, found none"))?;
    Ok(kilobytes * 1024)
}
