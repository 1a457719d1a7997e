//! Plays files through the same pipeline and model as the daemon, without Kafka, and prints the progressive figures.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sluice_daemon::clock::Clock;
use sluice_daemon::config::Config;
use sluice_daemon::error::Stop;
use sluice_daemon::pipeline::record::Record;
use sluice_daemon::pipeline::stages::Stage;
use sluice_daemon::replay::{self, Feed, Outcome, late_and_orphaned, learned_until};
use sluice_daemon::{config, parts};
use sluice_features::reject::Rejection;
use sluice_features::time::EventTime;
use sluice_features::wire::{Topic, split_line};
use sluice_models::evaluate::{Figures, Report};

use crate::files;
use crate::simulate::{Bounds, bounds};

/// Refused records that are described one by one.
const DESCRIBED: usize = 5;
/// Lines between two looks at the clock.
const GLANCE: u64 = 4096;

/// Plays records through the daemon's own pipeline and model, without Kafka, and prints the progressive figures.
///
/// Every example is predicted before it is learned. Batches are cut by count alone, all windows close at the end, and the same
/// files with the same seed give the same parameters: see "checksum".
#[derive(Debug, Args)]
#[command(
    after_help = "Example: sluice replay --config ops/datasets/kuairand.toml kuairand.jsonl.zst"
)]
pub struct Arguments {
    /// The daemon's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Files of JSON lines (.gz and .zst too), read one after the other; "-" is standard input.
    #[arg(required_unless_present = "capture", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Repeats a run that `sluiced run --capture DIR` has kept, the newest in DIR: its records and what its clock decided.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["files", "seed"])]
    capture: Option<PathBuf>,
    /// Draws the first parameters; default: the configuration's.
    #[arg(long)]
    seed: Option<u64>,
    /// Length of the windows in the report, such as 6h; default: the configuration's.
    #[arg(long, value_name = "TIME")]
    window: Option<config::Period>,
    /// Leaves the first N impressions out of the figures: the model has warmed up then.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "capture")]
    from_impression: u64,
    /// The truth that `sluice simulate --truth` wrote: shows beside each AUC the truth's own, that of item popularity, and how much of
    /// the distance between them the model closes. The files are read twice more for it.
    #[arg(long, value_name = "FILE", conflicts_with = "capture")]
    truth: Option<PathBuf>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// A bad configuration, or a file that cannot be read.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.truth.is_some() && arguments.files.iter().any(|path| path == Path::new("-")) {
        bail!("--truth reads the records again: give files, not standard input");
    }
    let mut config = Config::open(&arguments.config)?;
    if let Some(seed) = arguments.seed {
        config.learn.seed = seed;
    }
    if let Some(window) = arguments.window {
        config.evaluate.window = window.span();
    }
    config.evaluate.from_impression = arguments.from_impression;
    let kernels = parts::choose_kernels()?;
    let clock = Clock::system();
    let progress = progress(arguments.json);
    let mut refused: Vec<String> = Vec::new();
    let outcome = match &arguments.capture {
        Some(folder) => replay::captured(&config, folder, &clock)?,
        None => replay::files(&config, &clock, |feed| {
            let mut lines = Lines { wall: clock.wall(), number: 0, progress: &progress };
            for path in &arguments.files {
                let note = |line: u64, rejection: &Rejection| {
                    if refused.len() < DESCRIBED {
                        refused.push(format!("{}:{line}: {rejection}", path.display()));
                    }
                };
                lines.play(path, feed, note).map_err(|error| {
                    Stop::fault(format!("cannot replay {}", path.display())).because(error)
                })?;
            }
            Ok(())
        })?,
    };
    progress.finish_and_clear();
    for line in &refused {
        eprintln!("refused: {line}");
    }
    let bounds = match &arguments.truth {
        Some(truth) => bounds(&arguments.files, truth, arguments.from_impression)?,
        None => Vec::new(),
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let mut object = object(&outcome);
        if !bounds.is_empty() {
            object["truth"] = beside(&outcome, &bounds).collect();
        }
        serde_json::to_writer(&mut out, &object)?;
        writeln!(out)?;
    } else {
        table(&outcome, &kernels, &mut out)?;
        if !bounds.is_empty() {
            writeln!(
                out,
                "\n{:<16}{:>9}{:>12}{:>9}{:>10}",
                "task", "AUC", "popularity", "truth", "closed"
            )?;
            for (name, line) in beside(&outcome, &bounds) {
                let show = |key: &str| {
                    line[key].as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
                };
                writeln!(
                    out,
                    "{name:<16}{:>9}{:>12}{:>9}{:>10}",
                    show("auc"),
                    show("popularity"),
                    show("truth"),
                    show("closed")
                )?;
            }
        }
    }
    Ok(())
}

/// The model's AUC of each task between that of item popularity and the truth's, and the share of the distance that it closes.
fn beside<'a>(
    outcome: &Outcome,
    bounds: &'a [Bounds],
) -> impl Iterator<Item = (String, serde_json::Value)> + use<'a> {
    let tasks = outcome.trainer.judge().progressive().report().tasks;
    bounds.iter().map(move |Bounds { task, popularity, truth }| {
        let auc = tasks.task(task).and_then(|figures| figures.all.auc);
        let closed = auc.map(|auc| (auc - popularity) / (truth - popularity));
        let line =
            json!({ "auc": auc, "popularity": popularity, "truth": truth, "closed": closed });
        ((*task).to_owned(), line)
    })
}

/// Reads lines of files; their numbers over all files are the offsets.
struct Lines<'a> {
    wall: EventTime,
    number: i64,
    progress: &'a ProgressBar,
}

impl Lines<'_> {
    fn play(
        &mut self,
        path: &Path,
        feed: &mut Feed<'_>,
        mut refused: impl FnMut(u64, &Rejection),
    ) -> Result<()> {
        let mut input: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(std::io::stdin().lock())
        } else {
            files::open(path)?
        };
        let (mut line, mut in_file) = (Vec::new(), 0);
        loop {
            line.clear();
            let read = input.read_until(b'\n', &mut line).with_context(|| {
                format!("{}:{}: the file ends in the middle", path.display(), in_file + 1)
            })?;
            if read == 0 {
                return Ok(());
            }
            in_file += 1;
            if in_file % GLANCE == 0 {
                self.progress.set_position(feed.counts().taken());
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let taken = match split_line(&mut line) {
                Ok((Topic::Requests, _)) => bail!(
                    "{}:{in_file}: a request: replay plays events, items and users; leave requests out",
                    path.display()
                ),
                Ok((topic, value)) => feed.take(&Record {
                    topic,
                    partition: 0,
                    offset: self.number,
                    arrived: self.wall,
                    key: None,
                    value: Some(value),
                }),
                Err(rejection) => {
                    feed.reject(&rejection);
                    Err(rejection)
                }
            };
            self.number += 1;
            if let Err(rejection) = taken {
                refused(in_file, &rejection);
            }
        }
    }
}

fn progress(quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {human_pos} records, {per_sec}, {elapsed}")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// The report as one object.
fn object(outcome: &Outcome) -> serde_json::Value {
    let (counts, joined) = (outcome.pipeline.counts(), outcome.pipeline.join_counts());
    let (late, orphaned) = late_and_orphaned(&joined);
    let judge = outcome.trainer.judge();
    let Report { tasks, windows, .. } = judge.progressive().report();
    json!({
        "events": counts.events,
        "rejected": counts.all_rejected(),
        "duplicates": joined.duplicate_impressions,
        "duplicate_outcomes": joined.kinds.iter().map(|kind| kind.duplicate).sum::<u64>(),
        "late": late,
        "orphaned": orphaned,
        "open": outcome.pipeline.open_impressions(),
        "examples": judge.judged(),
        "learned_examples": counts.examples,
        "refused_batches": outcome.refused_batches,
        "seconds": outcome.elapsed.as_secs_f64(),
        "learned_until": learned_until(&outcome.trainer),
        "checksum": format!("{:016x}", outcome.trainer.checksum()),
        "tasks": tasks,
        "windows": windows,
    })
}

fn table(outcome: &Outcome, kernels: &str, out: &mut impl Write) -> Result<()> {
    let (counts, joined) = (outcome.pipeline.counts(), outcome.pipeline.join_counts());
    let (late, orphaned) = late_and_orphaned(&joined);
    let judge = outcome.trainer.judge();
    let seconds = outcome.elapsed.as_secs_f64().max(1e-9);
    let records = counts.taken() as f64;
    writeln!(
        out,
        "records      {} in {seconds:.1} s ({:.0}/s), kernels {kernels}",
        counts.taken(),
        records / seconds
    )?;
    let share = |time: Duration| 100.0 * time.as_secs_f64() / seconds;
    write!(out, "time         ")?;
    for ((_, stage), spent) in Stage::ALL.iter().zip(outcome.pipeline.stages().spent()) {
        write!(out, "{stage} {:.1} %, ", share(spent))?;
    }
    writeln!(
        out,
        "learning {:.0} %, waiting for it {:.0} %",
        share(outcome.learning),
        share(outcome.waiting)
    )?;
    writeln!(
        out,
        "events       {}, refused {}, skewed {}",
        counts.events,
        counts.all_rejected(),
        counts.skewed
    )?;
    writeln!(
        out,
        "impressions  {} opened, {} duplicates, {} judged, {} open",
        joined.opened,
        joined.duplicate_impressions,
        judge.judged(),
        outcome.pipeline.open_impressions()
    )?;
    writeln!(out, "outcomes     {late} late, {orphaned} orphaned")?;
    writeln!(out, "checksum     {:016x}", outcome.trainer.checksum())?;
    writeln!(
        out,
        "\n{:<16}{:>10}{:>10}{:>9}{:>10}{:>9}{:>9}{:>9}",
        "task", "examples", "positives", "AUC", "log loss", "NE", "calibr.", "GAUC"
    )?;
    let report = judge.progressive().report();
    for (name, figures) in &report.tasks.0 {
        row(out, name, &figures.all)?;
        if figures.new.examples > 0 && figures.warm.examples > 0 {
            row(out, "  warm items", &figures.warm)?;
            row(out, "  new items", &figures.new)?;
        }
    }
    Ok(())
}

fn row(out: &mut impl Write, name: &str, f: &Figures) -> Result<()> {
    let show = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    writeln!(
        out,
        "{name:<16}{:>10}{:>10}{:>9}{:>10}{:>9}{:>9}{:>9}",
        f.examples,
        f.positives,
        show(f.auc, 4),
        show(f.log_loss, 4),
        show(f.normalised_entropy, 4),
        show(f.calibration, 3),
        show(f.grouped_auc, 4)
    )?;
    Ok(())
}
