//! Users beyond what memory holds: what their sequences take of it and of the disk, what a behaviour costs of somebody who is away, how long a
//! start takes, and a look at a long history that nobody has asked for since.
//!
//! Names, open impressions and remembered ids are no part of it: they are in memory still.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, bail};
use sluice_daemon::checkpoint::{Changes, Checkpoint, Cut, Opening, Outcome};
use sluice_daemon::clock::Clock;
use sluice_daemon::config::Config;
use sluice_daemon::learn::trainer::Trainer;
use sluice_daemon::parts;
use sluice_daemon::pipeline::Pipeline;
use sluice_features::event::BehaviourType;
use sluice_features::ids::UserId;
use sluice_features::sequence::Entry;
use sluice_features::time::EventTime;

use super::GROUP;
use super::items::resident;
use super::users::random;
use crate::bench::report::{Report, Row, Target};

const USERS: [u64; 2] = [1_000_000, 10_000_000];
/// Behaviours of each user.
const BEHAVIOURS: u64 = 10;
/// Behaviours of the one with the long history.
const LONG: u64 = 50_000;
const CATEGORIES: u32 = 400;
/// Users between two checkpoints.
const PORTION: u64 = 200_000;
/// Changes of so many bytes go to the store ahead of their checkpoint.
const MUCH: usize = 8 << 20;
/// Users who are in memory, and events of a run.
const HOT: u64 = 10_000;
const EVENTS: u64 = 100_000;
/// Categories that a request looks for, and behaviours of each.
const LOOKED: u32 = 20;
const WANTED: usize = 20;
const START: i64 = 1_700_000_000_000;

/// Measures it.
pub(super) fn measure(report: &mut Report) -> Result<()> {
    USERS.into_iter().try_for_each(|users| of(report, users))
}

fn of(report: &mut Report, users: u64) -> Result<()> {
    let config = Config::build("[memory]\nlimit = \"1GiB\"\n", &[])?;
    let folder = tempfile::tempdir()?;
    let open = || {
        let setup = parts::setup(&config, 1, folder.path(), false);
        Checkpoint::open(setup, parts::rules(&config), &Clock::system())
    };
    let (before, begun) = (resident()?, Instant::now());
    let mut run = Run::of(open()?, &config)?;
    for from in (0..users).step_by(PORTION as usize) {
        for user in from..users.min(from + PORTION) {
            (0..BEHAVIOURS).for_each(|i| run.append(id(user), i));
        }
        let portions = users.div_ceil(PORTION);
        (0..LONG / portions).for_each(|i| run.append(id(users), from + i));
        run.checkpoint()?;
    }
    let mut push = |what: &str, value: f64, unit, target: Option<f64>| {
        let row = Row::new(GROUP, format!("{users} users away, {what}"), value, unit);
        report.push(match target {
            Some(most) => row.target(Target::AtMost(most)),
            None => row,
        });
    };
    push("filling", begun.elapsed().as_secs_f64(), "s", None);
    push("memory of the process", resident()? - before, "MB", Some(1024.0));
    let behaviours = (users * BEHAVIOURS + LONG) as f64;
    let disk = run.checkpoint.store_bytes()? as f64 / behaviours;
    push("on disk", disk, "bytes/behaviour", Some(40.0));
    let hot = run.cost(|state| u64::from(random(state)) % HOT)?;
    let cold = run.cost(|state| u64::from(random(state)) % users)?;
    push("a behaviour of somebody in memory", hot, "ns", None);
    push("a behaviour of anybody", cold, "ns", None);
    run.checkpoint()?;
    drop(run);
    let begun = Instant::now();
    let run = Run::of(open()?, &config)?;
    push("a start", begun.elapsed().as_secs_f64(), "s", Some(5.0));
    let (away, warm) = (run.look(id(users)), run.look(id(users)));
    push("a first look at a history of 50000", away, "ms", None);
    push("more than the next look", away - warm, "ms", Some(10.0));
    Ok(())
}

fn id(user: u64) -> UserId {
    let mut state = user + 1;
    UserId(u64::from(random(&mut state)) << 33 ^ u64::from(random(&mut state)))
}

struct Run {
    checkpoint: Checkpoint,
    pipeline: Pipeline,
    /// It has learned nothing.
    trainer: Trainer,
}

impl Run {
    fn of(opening: Opening, config: &Config) -> Result<Self> {
        let Opening { checkpoint, pipeline, .. } = opening;
        Ok(Self { checkpoint, pipeline, trainer: parts::trainer(config)? })
    }

    fn append(&mut self, user: UserId, i: u64) {
        let (shared, shard) = self.pipeline.parts_mut(0);
        let kind = shared.kinds.number(BehaviourType((i % 3) as u8));
        let mut state = user.0 ^ i;
        let item = random(&mut state) % 100_000;
        let time = EventTime(START + 60_000 * i as i64 + i64::from(item));
        let entry = Entry { item, category: item % CATEGORIES, kind, time };
        shard.sequences.append(user, entry, EventTime::MIN);
    }

    fn checkpoint(&mut self) -> Result<()> {
        let mut changes = Changes::default();
        while changes.gather(&mut self.pipeline, 4_096)? > 0 {
            if changes.bytes() >= MUCH {
                self.checkpoint.ahead(std::mem::take(&mut changes))?;
            }
        }
        let cut = Cut::take(&mut self.pipeline, changes)?;
        let image = self.trainer.image();
        match self.checkpoint.commit(cut, &Clock::system(), || Ok(image))? {
            Outcome::Done(_) => self.pipeline.stored(),
            Outcome::NotNow(reason) => bail!("{reason}"),
        }
        Ok(())
    }

    /// Nanoseconds of a behaviour of users that `choose` names, once they have come by.
    fn cost(&mut self, choose: impl Fn(&mut u64) -> u64) -> Result<f64> {
        let mut state = 7;
        let mut best = f64::INFINITY;
        for run in 0..3 {
            let begun = Instant::now();
            for i in 0..EVENTS {
                self.append(id(choose(&mut state)), 1_000 + run * EVENTS + i);
            }
            best = best.min(begun.elapsed().as_secs_f64() * 1e9 / EVENTS as f64);
            self.checkpoint()?;
        }
        Ok(best)
    }

    /// Milliseconds in which a request reads what it needs of a user's history.
    fn look(&self, user: UserId) -> f64 {
        let (begun, read) = (Instant::now(), self.pipeline.shared().kinds.configured());
        let past = self.pipeline.past(user);
        let mut sum = 0;
        past.sequence.newest(EventTime::MAX, 50, &read, |entry| sum += entry.item);
        for category in 0..LOOKED {
            let count = |entry: Entry| sum += entry.item;
            past.sequence.matching(category, EventTime::MAX, WANTED, &read, count);
        }
        black_box(sum);
        begun.elapsed().as_secs_f64() * 1e3
    }
}
