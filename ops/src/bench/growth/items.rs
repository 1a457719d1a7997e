//! How much memory a million items take, with their features, their vectors and the index of them, and how much more while checkpoints are written.
//!
//! The parts are the daemon's, without threads and Kafka: updates of items go through the pipeline, the publisher encodes all of them
//! into its index, some events are learned, so that the publisher makes the index anew beside the one in use, and checkpoints are written. What
//! is told is the resident memory of the process, so this is measured before the other figures of the group.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use parking_lot::RwLock;
use sluice_daemon::checkpoint::{Changes, Checkpoint, Cut, Opening, Outcome};
use sluice_daemon::clock::Clock;
use sluice_daemon::config::{Config, Part};
use sluice_daemon::error::Stop;
use sluice_daemon::http::Readiness;
use sluice_daemon::learn::trainer::Trainer;
use sluice_daemon::live::learn::snapshot;
use sluice_daemon::metrics::{LabelSets, Metrics};
use sluice_daemon::parts;
use sluice_daemon::pipeline::record::Record;
use sluice_daemon::publish::{Outlet, Output, Publisher, Settings};
use sluice_daemon::serve::Serving;
use sluice_daemon::shutdown::Shutdown;
use sluice_features::time::EventTime;
use sluice_features::wire::Topic;
use sluice_models::retrieval::Touched;

use super::GROUP;
use crate::bench::report::{Report, Row, Target};

const ITEMS: usize = 1_000_000;
const CATEGORIES: usize = 500;
const BRANDS: usize = 5_000;
/// Items that are told anew before each checkpoint but the first.
const CHANGED: usize = 20_000;
/// Events that are learned before the index is made anew.
const EVENTS: usize = 40_000;
const CHECKPOINTS: usize = 2;
/// Changed pieces that are gathered at a time.
const PORTION: usize = 512;
/// Changes of so many bytes are handed on before their checkpoint, as the daemon does.
const MUCH: usize = 8 << 20;
const START: i64 = 1_700_000_000_000;
const LIMIT: &str = "1GiB";
/// The targets: all of it in megabytes, and what a checkpoint may add in percent.
const MOST: f64 = 600.0;
const MORE: f64 = 20.0;
/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(2);

/// Measures the memory.
pub(super) fn measure(report: &mut Report) -> Result<()> {
    let before = resident()?;
    let text = format!("[memory]\nlimit = \"{LIMIT}\"\n[learn]\nbatch = 64\n");
    let config = Config::build(&text, &[])?;
    let folder = tempfile::tempdir()?;
    let mut tell = |what: &str, value: f64, unit| {
        report.push(Row::new(GROUP, format!("1 M items: {what}"), value, unit));
    };
    let mut shop = Shop::open(&config, folder.path())?;
    tell("memory before", before, "MB");
    for item in 0..ITEMS {
        shop.item(item, 0)?;
    }
    tell("names and features, nothing stored", resident()?, "MB");
    let mut publisher = shop.publisher();
    let shutdown = Shutdown::new();
    publisher.round(&shutdown)?;
    tell("with an index of their vectors", resident()?, "MB");
    for _ in 0..EVENTS {
        shop.event()?;
    }
    shop.learn();
    shop.serving.snapshot.store(Arc::new(snapshot(&shop.trainer)));
    let steps = shop.serving.index.read().as_ref().map(|index| index.towers.version());
    let (made, most) = peak(|| publisher.round(&shutdown));
    made?;
    let newer = shop.serving.index.read().as_ref().map(|index| index.towers.version());
    ensure!(newer > steps, "the index was not made anew");
    tell("while the index is made anew, at most", most?, "MB");

    let mut more = 0.0_f64;
    for number in 1..=CHECKPOINTS {
        if number > 1 {
            for item in 0..CHANGED {
                shop.item(item * 37 % ITEMS, number)?;
            }
        }
        let before = resident()?;
        let (took, most) = peak(|| shop.checkpoint());
        let (most, took) = (most?, took?);
        let name = |what: &str| format!("checkpoint {number}: {what}");
        tell(&name("memory before"), before, "MB");
        tell(&name("memory while it is written, at most"), most, "MB");
        tell(&name("memory after"), resident()?, "MB");
        tell(&name("all of it"), took.as_secs_f64() * 1e3, "ms");
        more = more.max((most / before - 1.0) * 100.0);
    }
    let all = resident()?;
    for (part, bytes) in Part::ALL.into_iter().zip(shop.serving.pipeline.read().memory()) {
        if bytes > 1 << 20 {
            tell(&format!("of it {}", part.name()), bytes as f64 / 1e6, "MB");
        }
    }
    tell("of it tables", shop.trainer.tables().bytes as f64 / 1e6, "MB");
    drop((publisher, shop));
    let begun = Instant::now();
    let again = Shop::open(&config, folder.path())?;
    ensure!(again.serving.pipeline.read().shared().items.len() == ITEMS, "items are missing");
    tell("a start with them", begun.elapsed().as_secs_f64() * 1e3, "ms");
    let row = Row::new(GROUP, "1 M items: memory", all, "MB");
    report.push(row.target(Target::AtMost(MOST)));
    let row = Row::new(GROUP, "1 M items: more while a checkpoint is written", more, "%");
    report.push(row.target(Target::AtMost(MORE)));
    Ok(())
}

/// A daemon without threads and Kafka.
struct Shop {
    checkpoint: Checkpoint,
    trainer: Trainer,
    serving: Arc<Serving>,
    offset: i64,
    value: String,
}

/// Takes all and keeps nothing.
struct Nowhere;

impl Outlet for Nowhere {
    fn send(&mut self, _: Output, _: &str, _: Option<&[u8]>, _: &Shutdown) -> Result<bool, Stop> {
        Ok(true)
    }

    fn finish(&mut self) {}
}

impl Shop {
    fn open(config: &Config, folder: &std::path::Path) -> Result<Self> {
        let setup = parts::setup(config, 1, folder, false);
        let opening = Checkpoint::open(setup, parts::rules(config), &Clock::system())?;
        let Opening { checkpoint, pipeline, parameters, .. } = opening;
        let mut trainer = parts::trainer(config)?;
        parts::restore(config, &mut trainer, parameters)?;
        let rows = Arc::clone(trainer.learner().embeddings());
        let serving = Serving::new(
            Arc::new(RwLock::new(pipeline)),
            snapshot(&trainer),
            rows,
            config.serve.clone(),
            "default",
            Clock::system(),
        );
        let (serving, value) = (Arc::new(serving), String::new());
        Ok(Self { checkpoint, trainer, serving, offset: 0, value })
    }

    fn publisher(&self) -> Publisher<Nowhere> {
        let lists = sluice_daemon::config::Scores { budget: 0.0, k: 1, interval: LOOK };
        let settings = Settings { interval: LOOK, refresh: 16, lists };
        let metrics = Arc::new(Metrics::new(&LabelSets {
            outputs: vec!["embeddings".to_owned()],
            ..LabelSets::default()
        }));
        let drain = Box::new(Touched::default);
        let readiness = Arc::new(Readiness::default());
        Publisher::new(Arc::clone(&self.serving), metrics, readiness, Nowhere, drain, settings)
    }

    fn take(&mut self, topic: Topic) -> Result<()> {
        let arrived = EventTime(START + self.offset);
        let (offset, key) = (self.offset, None);
        self.offset += 1;
        let value = Some(self.value.as_bytes());
        let record = Record { topic, partition: 0, offset, arrived, key, value };
        let taken = self.serving.pipeline.write().take(&record);
        taken.map_err(|rejection| anyhow!("{}: {rejection}", self.value))
    }

    /// Tells of an item, the price being of a version.
    fn item(&mut self, item: usize, version: usize) -> Result<()> {
        let (category, brand) = (item % CATEGORIES, item * 7_919 % BRANDS);
        let (price, ts) = (item % 1_000 + version, START + self.offset);
        self.value.clear();
        write!(
            self.value,
            r#"{{"item":"item-{item:08}","ts":{ts},"features":{{"category":"c{category}","brand":"b{brand}","price":{price}.5,"available":true}}}}"#
        )?;
        self.take(Topic::Items)
    }

    /// One event in four is a click on the impression before.
    fn event(&mut self) -> Result<()> {
        let (n, ts) = (self.offset as usize, START + self.offset);
        let click = n % 4 == 3;
        let shown = if click { n - 1 } else { n };
        let (user, item) = (shown * 7_919 % 5_003, shown * 104_729 % ITEMS);
        self.value.clear();
        let kind = if click { "click" } else { "impression" };
        write!(
            self.value,
            r#"{{"type":"{kind}","id":"e{n}","ts":{ts},"user":"u{user}","item":"item-{item:08}""#
        )?;
        if click {
            write!(self.value, r#","impression":"e{shown}""#)?;
        }
        self.value.push('}');
        self.take(Topic::Events)
    }

    /// Closes all windows and learns.
    fn learn(&mut self) {
        self.serving.pipeline.write().finish();
        self.serving.pipeline.write().cut();
        loop {
            let Some(batch) = self.serving.pipeline.write().next_batch() else { break };
            self.trainer.work(&batch);
            self.serving.pipeline.write().recycle(batch);
        }
    }

    fn checkpoint(&mut self) -> Result<Duration> {
        let pipeline = Arc::clone(&self.serving.pipeline);
        let mut changes = Changes::default();
        while changes.gather(&mut pipeline.write(), PORTION)? > 0 {
            if changes.bytes() >= MUCH {
                self.checkpoint.ahead(std::mem::take(&mut changes))?;
            }
        }
        self.learn();
        let cut = Cut::take(&mut pipeline.write(), changes)?;
        let image = self.trainer.image();
        match self.checkpoint.commit(cut, &Clock::system(), || Ok(image))? {
            Outcome::Done(report) => {
                pipeline.write().stored();
                Ok(report.took)
            }
            Outcome::NotNow(reason) => bail!("{reason}"),
        }
    }
}

/// Returns the most memory that the process has had during some work, megabytes.
fn peak<T>(work: impl FnOnce() -> T) -> (T, Result<f64>) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = resident();
            while !done.load(Ordering::Acquire) {
                std::thread::sleep(LOOK);
                most = most.and_then(|most| Ok(most.max(resident()?)));
            }
            most
        });
        let result = work();
        done.store(true, Ordering::Release);
        let most = watch.join().unwrap_or_else(|_| Err(anyhow!("the watching thread panicked")));
        (result, most)
    })
}

/// Returns how much memory the process has, megabytes.
pub(super) fn resident() -> Result<f64> {
    let file = "/proc/self/status";
    let text = std::fs::read_to_string(file).context(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    let kilobytes =
        kilobytes.with_context(|| format!("expected a line VmRSS in {file}, found none"))?;
    Ok(kilobytes * 1024.0 / 1e6)
}
