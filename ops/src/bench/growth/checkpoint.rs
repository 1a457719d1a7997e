//! How long a checkpoint holds up learning and answering with 10 million rows, and how learning goes on while it is written.
//!
//! The parts are the daemon's: ingest's turn is done here, the checkpoint is written by a thread of its own. The pause is the time for
//! which the pipeline is held to take the cut and the trainer to take the image; the rest of a checkpoint shows in the turns.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sluice_daemon::checkpoint::{Changes, Checkpoint, Cut, Opening, Outcome};
use sluice_daemon::clock::Clock;
use sluice_daemon::config::Config;
use sluice_daemon::learn::trainer::Trainer;
use sluice_daemon::parts;
use sluice_daemon::pipeline::Pipeline;
use sluice_daemon::pipeline::record::Record;
use sluice_features::time::EventTime;
use sluice_features::wire::Topic;

use super::super::report::{Report, Row, Target};
use super::GROUP;

/// Rows of the widest table.
const ROWS: usize = 10_000_000;
/// Open impressions, one figure each.
const OPEN: [usize; 2] = [100_000, 1_000_000];
/// Checkpoints of which the median and the longest pause are told.
const CHECKPOINTS: usize = 5;
/// Events of one turn, as the poll thread brings them.
const TURN: usize = 256;
/// Turns before a checkpoint, a minute of 2,000 events a second: what changes in them is to be written.
const BEFORE: usize = 60 * 2_000 / TURN;
/// Changed pieces that are gathered in a turn.
const PORTION: usize = 512;
/// Where event time begins.
const START: i64 = 1_650_000_000_000;
/// The targets: learning and answering wait for so long, milliseconds; all of it takes so long; and so many megabytes are written.
const PAUSE: f64 = 20.0;
const TOOK: f64 = 5_000.0;
const WRITTEN: f64 = 200.0;

/// Measures the pause and what is beside it.
pub(super) fn measure(report: &mut Report) -> Result<()> {
    let text = format!("[table]\nmax_rows = {}\n", ROWS + (1 << 20));
    let config = Config::build(&text, &[])?;
    let folder = tempfile::tempdir()?;
    let setup = parts::setup(&config, 1, folder.path(), false);
    let Opening { checkpoint, pipeline, .. } =
        Checkpoint::open(setup, parts::rules(&config), &Clock::system())?;
    let trainer = parts::trainer(&config)?;
    let mut run = Run { checkpoint, pipeline, trainer, events: 0, value: Vec::new() };
    for _ in 0..BEFORE {
        run.turn(true);
    }
    fill(&run.trainer);
    for open in OPEN {
        while run.pipeline.open_impressions() < open as u64 {
            run.turn(false);
        }
        // The first one writes what filling has changed, which is more than a daemon lets come together: all rows.
        let first = run.checkpoint()?;
        if first.whole {
            let what = "checkpoint, all rows as a whole";
            let mut push = |name: &str, value: f64, unit| {
                report.push(Row::new(GROUP, format!("{what}: {name}"), value, unit));
            };
            push("bytes of parameters", first.parameter_bytes as f64 / 1e6, "MB");
            push("all of it", ms(first.took), "ms");
            push("pause for the parameters", ms(first.image), "ms");
        }
        let mut figures = Vec::new();
        for _ in 0..CHECKPOINTS {
            figures.push(run.checkpoint()?);
        }
        tell(report, &run, open, &figures);
    }
    Ok(())
}

/// What one checkpoint has cost.
struct Figures {
    cut: Duration,
    image: Duration,
    /// All of it, while everything else went on.
    took: Duration,
    bytes: u64,
    parameter_bytes: u64,
    /// Whether all parameters were written, or what has changed.
    whole: bool,
    put_aside: usize,
    /// Turns before it and while it was written.
    before: Vec<Duration>,
    during: Vec<Duration>,
}

/// A daemon without threads and Kafka.
struct Run {
    checkpoint: Checkpoint,
    pipeline: Pipeline,
    trainer: Trainer,
    events: usize,
    value: Vec<u8>,
}

impl Run {
    /// Takes the next events, and learns from them or not. Returns how long it took.
    fn turn(&mut self, learns: bool) -> Duration {
        let begun = Instant::now();
        turn(&mut self.pipeline, &mut self.trainer, &mut self.events, &mut self.value, learns);
        begun.elapsed()
    }

    fn checkpoint(&mut self) -> Result<Figures> {
        let mut changes = Changes::default();
        let mut before = Vec::new();
        for _ in 0..BEFORE {
            before.push(self.turn(true));
            changes.gather(&mut self.pipeline, PORTION)?;
        }
        self.pipeline.cut();
        learn(&mut self.pipeline, &mut self.trainer, true);
        let begun = Instant::now();
        let cut = Cut::take(&mut self.pipeline, changes)?;
        let cut_took = begun.elapsed();
        let begun = Instant::now();
        let image = self.trainer.image();
        let image_took = begun.elapsed();

        let done = AtomicBool::new(false);
        let Self { checkpoint, pipeline, trainer, events, value } = self;
        let (mut put_aside, mut during) = (0, Vec::new());
        let outcome = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let outcome = checkpoint.commit(cut, &Clock::system(), || Ok(image));
                done.store(true, Ordering::Release);
                outcome
            });
            while !done.load(Ordering::Acquire) {
                let begun = Instant::now();
                turn(pipeline, trainer, events, value, true);
                during.push(begun.elapsed());
                put_aside = put_aside.max(trainer.put_aside());
            }
            writer.join()
        });
        let outcome = outcome.map_err(|_| anyhow::anyhow!("the writing thread panicked"))?;
        let (cut, image) = (cut_took, image_took);
        match outcome? {
            Outcome::Done(done) => {
                pipeline.stored();
                let (took, bytes) = (done.took, done.bytes());
                let (parameter_bytes, whole) = (done.parameter_bytes, done.whole);
                Ok(Figures {
                    cut,
                    image,
                    took,
                    bytes,
                    parameter_bytes,
                    whole,
                    put_aside,
                    before,
                    during,
                })
            }
            Outcome::NotNow(reason) => bail!("{reason}"),
        }
    }
}

fn turn(
    pipeline: &mut Pipeline,
    trainer: &mut Trainer,
    events: &mut usize,
    value: &mut Vec<u8>,
    learns: bool,
) {
    for _ in 0..TURN {
        let i = *events;
        *events += 1;
        let arrived = EventTime(START + i as i64);
        value.clear();
        // Writing to memory cannot fail.
        drop(write_event(value, i, arrived));
        let record = Record {
            topic: Topic::Events,
            partition: 0,
            offset: i as i64,
            arrived,
            key: None,
            value: Some(value),
        };
        drop(pipeline.take(&record));
    }
    learn(pipeline, trainer, learns);
}

/// One event in eight is a click on an impression shortly before.
fn write_event(to: &mut Vec<u8>, i: usize, time: EventTime) -> std::io::Result<()> {
    let shown = if i % 8 == 7 { i - 5 } else { i };
    let (user, item) = (shown.wrapping_mul(7_919) % 100_003, shown.wrapping_mul(104_729) % 50_021);
    let named = if i % 8 == 7 { format!(r#","impression":"e{shown}""#) } else { String::new() };
    let kind = if i % 8 == 7 { "click" } else { "impression" };
    let ts = time.0;
    write!(
        to,
        r#"{{"type":"{kind}","id":"e{i}","ts":{ts},"user":"u{user}","item":"i{item}"{named}}}"#
    )
}

fn learn(pipeline: &mut Pipeline, trainer: &mut Trainer, learns: bool) {
    while let Some(batch) = pipeline.next_batch() {
        if learns {
            trainer.work(&batch);
        }
        pipeline.recycle(batch);
    }
}

/// Fills the widest table up.
fn fill(trainer: &Trainer) {
    let stores = trainer.learner().embeddings().stores();
    let Some(store) = stores.iter().max_by_key(|store| store.width()).map(Arc::clone) else {
        return;
    };
    let mut numbers = vec![0.0; TURN * store.width()];
    let mut key = 0_u64;
    while store.len() < ROWS {
        let keys: Vec<u64> = (0..TURN as u64)
            .map(|i| (key + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
            .collect();
        key += TURN as u64;
        store.gather_or_insert(&keys, EventTime(START), &mut numbers);
    }
}

fn tell(report: &mut Report, run: &Run, open: usize, figures: &[Figures]) {
    let stats = run.trainer.learner().embeddings().stats();
    let rows = stats.rows as f64 / 1e6;
    let what = format!("checkpoint, {rows:.0} M rows, {} k open impressions", open / 1000);
    let pauses: Vec<Duration> = figures.iter().map(|of| of.cut + of.image).collect();
    let median = |of: fn(&Figures) -> Duration| middle(figures.iter().map(of).collect());
    let mut push = |name: &str, value: f64, unit| {
        report.push(Row::new(GROUP, format!("{what}: {name}"), value, unit));
    };
    push("pause for the pipeline, median", ms(median(|of| of.cut)), "ms");
    push("pause for the parameters, median", ms(median(|of| of.image)), "ms");
    let turns = |of: fn(&Figures) -> &Vec<Duration>| -> Vec<Duration> {
        figures.iter().flat_map(of).copied().collect()
    };
    let (before, during) = (turns(|of| &of.before), turns(|of| &of.during));
    push("256 events and their steps before it, median", ms(middle(before.clone())), "ms");
    push("256 events and their steps before it, longest", ms(longest(&before)), "ms");
    push("256 events and their steps meanwhile, median", ms(middle(during.clone())), "ms");
    push("256 events and their steps meanwhile, longest", ms(longest(&during)), "ms");
    let most = |of: fn(&Figures) -> u64| figures.iter().map(of).max().unwrap_or(0) as f64 / 1e6;
    push("bytes of parameters, most", most(|of| of.parameter_bytes), "MB");
    push("whole ones among them", figures.iter().filter(|of| of.whole).count() as f64, "of 5");
    let aside = figures.iter().map(|of| of.put_aside).max().unwrap_or(0);
    push("rows put aside meanwhile, most", aside as f64 / 1e6, "MB");
    let took =
        Row::new(GROUP, format!("{what}: all of it, median"), ms(median(|of| of.took)), "ms");
    report.push(took.target(Target::AtMost(TOOK)));
    let bytes = Row::new(GROUP, format!("{what}: bytes written, most"), most(|of| of.bytes), "MB");
    report.push(bytes.target(Target::AtMost(WRITTEN)));
    for (name, pause) in [("median", middle(pauses.clone())), ("longest", longest(&pauses))] {
        let row = Row::new(GROUP, format!("{what}: pause, {name}"), ms(pause), "ms");
        report.push(row.target(Target::AtMost(PAUSE)));
    }
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn longest(times: &[Duration]) -> Duration {
    times.iter().max().copied().unwrap_or_default()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
