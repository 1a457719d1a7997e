//! Plays files through the same pipeline and model as the daemon, without Kafka, and prints the progressive figures.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sluice_daemon::clock::Clock;
use sluice_daemon::config::Config;
use sluice_daemon::live::lateness::{Count, REMEDY};
use sluice_daemon::live::notices;
use sluice_daemon::pipeline::record::Record;
use sluice_daemon::pipeline::stages::Stage;
use sluice_daemon::replay::{self, Feed, Outcome, late_and_orphaned, learned_until};
use sluice_daemon::{config, parts};
use sluice_features::reject::{Reason, Rejection};
use sluice_features::time::EventTime;
use sluice_features::wire::{Topic, split_line};
use sluice_features::words::shown;
use sluice_models::evaluate::{Figures, Report};

use crate::files::{self, Line};
use crate::simulate::{Bounds, bounds};
use crate::untaken::Untaken;
use sluice_daemon::say::{note, tell};
use sluice_daemon::shutdown::Shutdown;

/// Lines between two looks at the clock.
const GLANCE: u64 = 4096;
/// Lines between two looks at the memory: even the largest take less together than is set aside, and looking takes no time that shows.
const LOOK: i64 = 256;
/// So many events of a type at least say something of how many find no impression.
const FEWEST: u64 = 100;
/// What becomes of records that are not taken.
const REFUSED: &str = "records were refused";

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
    /// Files of JSON lines (.gz, .zst, .xz and .zip too), read one after the other; "-" is standard input.
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
/// A bad configuration, a file that cannot be read to its end, a bound of memory that is reached, nothing that could be taken, or more than
/// half of it refused. The figures of what was played are printed all the same.
pub fn run(arguments: &Arguments) -> Result<()> {
    files::check(&arguments.files)?;
    if let Some(truth) = &arguments.truth {
        files::check_rereadable(&arguments.files, "--truth reads the records again")?;
        files::check(std::slice::from_ref(truth))?;
    }
    let mut config = Config::open(&arguments.config)?;
    if let Some(seed) = arguments.seed {
        config.learn.seed = seed;
    }
    if let Some(window) = arguments.window {
        let least = config::Period::seconds(1);
        ensure!(window >= least, "--window: expected {least} or more, found {window}");
        config.evaluate.window = window.span();
    }
    config.evaluate.from_impression = arguments.from_impression;
    let kernels = parts::choose_kernels()?;
    let clock = Clock::system();
    let progress = progress(arguments.json);
    let mut refused = Untaken::default();
    let mut ended = Ok(());
    let outcome = match &arguments.capture {
        Some(folder) => replay::captured(&config, folder, &clock)?,
        None => replay::files(&config, &clock, |feed| {
            let mut lines = Lines { wall: clock.wall(), number: 0, progress: &progress };
            ended = lines.play(&arguments.files, feed, &mut refused);
            Ok(())
        })?,
    };
    progress.finish_and_clear();
    for line in refused.described() {
        note(&format!("refused: {line}\n"));
    }
    let bounds = match &arguments.truth {
        Some(truth) if ended.is_ok() => bounds(&arguments.files, truth, arguments.from_impression),
        _ => Ok(Vec::new()),
    };
    let known = bounds.as_deref().unwrap_or_default();
    let report = report(&outcome, known, &kernels, arguments.json)?;
    let told = tell(&report).context("standard output");
    let counts = outcome.pipeline.counts();
    if let Some(summary) = refused.summary(REFUSED, counts.taken()) {
        note(&format!("warning: {summary}\n"));
    }
    ended?;
    bounds?;
    told?;
    ensure!(counts.taken() > 0, "expected records, found none");
    ensure!(counts.taken() > counts.all_rejected(), "every record was refused");
    refused.ensure_few(REFUSED, counts.taken())
}

/// What is printed at the end.
fn report(outcome: &Outcome, bounds: &[Bounds], kernels: &str, json: bool) -> Result<String> {
    if json {
        let mut object = object(outcome);
        if !bounds.is_empty() {
            object["truth"] = beside(outcome, bounds).collect();
        }
        return Ok(format!("{object}\n"));
    }
    let mut out = String::new();
    table(outcome, kernels, &mut out)?;
    if !bounds.is_empty() {
        writeln!(
            out,
            "\n{:<16}{:>9}{:>12}{:>9}{:>10}",
            "task", "AUC", "popularity", "truth", "closed"
        )?;
        for (name, line) in beside(outcome, bounds) {
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
    Ok(out)
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
    /// Plays the files.
    fn play(
        &mut self,
        paths: &[PathBuf],
        feed: &mut Feed<'_>,
        refused: &mut Untaken,
    ) -> Result<()> {
        // Nothing is written that a signal could leave half done.
        let never = Shutdown::new();
        for path in paths {
            files::for_each_line(path, &never, |name, number, line| {
                if number % GLANCE == 0 {
                    self.progress.set_position(feed.counts().taken());
                }
                if self.number % LOOK == 0 {
                    feed.ensure_room().with_context(|| format!("{name}:{number}: stopped"))?;
                }
                let taken = self.take(line, feed);
                self.number += 1;
                match taken {
                    Ok(()) => {}
                    Err(Why::Refused(rejection)) => {
                        refused.add(rejection.reason.name(), || {
                            format!("{name}:{number}: {rejection}")
                        });
                    }
                    Err(Why::Request) => bail!(
                        "{name}:{number}: a request: replay plays events, items and users; leave requests out"
                    ),
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn take(&self, line: Line<'_>, feed: &mut Feed<'_>) -> Result<(), Why> {
        let split = match line {
            Line::Whole(line) => split_line(line),
            Line::TooLong => Err(Rejection::whole(Reason::TooLarge)),
        };
        match split {
            Ok((Topic::Requests, _)) => Err(Why::Request),
            Ok((topic, value)) => {
                let record = Record {
                    topic,
                    partition: 0,
                    offset: self.number,
                    arrived: self.wall,
                    key: None,
                    value: Some(value),
                };
                feed.take(&record).map_err(Why::Refused)
            }
            Err(rejection) => {
                feed.reject(&rejection);
                Err(Why::Refused(rejection))
            }
        }
    }
}

/// Why a line was not taken.
enum Why {
    /// The record is refused, and counted.
    Refused(Rejection),
    /// It asks something, which nobody would answer.
    Request,
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
        "skewed": counts.skewed,
        "jumped": counts.jumped,
        "duplicates": joined.duplicate_impressions,
        "duplicate_outcomes": joined.kinds.iter().map(|kind| kind.duplicate).sum::<u64>(),
        "late_impressions": joined.late_impressions,
        "late": late,
        "orphaned": orphaned,
        "open": outcome.pipeline.open_impressions(),
        "examples": judge.judged(),
        "learned_examples": counts.examples,
        "refused_batches": outcome.refused_batches,
        "noticed": notices::object(outcome.pipeline.notes(), counts),
        "seconds": outcome.elapsed.as_secs_f64(),
        "learned_until": learned_until(&outcome.trainer),
        "checksum": format!("{:016x}", outcome.trainer.checksum()),
        "tasks": tasks,
        "windows": windows,
    })
}

fn table(outcome: &Outcome, kernels: &str, out: &mut String) -> Result<()> {
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
        "events       {}, refused {}, skewed {}, jumped {}",
        counts.events,
        counts.all_rejected(),
        counts.skewed,
        counts.jumped
    )?;
    writeln!(
        out,
        "impressions  {} opened, {} duplicates, {} too late for all labels, {} for some, {} judged, {} open",
        joined.opened,
        joined.duplicate_impressions,
        joined.unopened,
        joined.late_impressions - joined.unopened,
        judge.judged(),
        outcome.pipeline.open_impressions()
    )?;
    writeln!(out, "outcomes     {late} late, {orphaned} orphaned")?;
    noticed(outcome, out)?;
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

/// What was noticed of values and names, where there is anything to say.
fn noticed(outcome: &Outcome, out: &mut String) -> Result<()> {
    let (notes, counts) = (outcome.pipeline.notes(), outcome.pipeline.counts());
    for (need, (field, unusable)) in notes.unusable().enumerate() {
        if unusable.count > 0 {
            let (values, found, expected) = (unusable.count, unusable.found, notes.expected(need));
            writeln!(
                out,
                "values       {field}: {values} cannot be used ({found}): expected {expected}"
            )?;
        }
    }
    for (field, _) in notes.fields().filter(|(_, missing)| *missing) {
        let likely = notes.likely(field).map(|name| format!(": \"{}\" came", shown(name)));
        writeln!(out, "fields       {field} is always missing{}", likely.unwrap_or_default())?;
    }
    for (place, late) in Count::all(&outcome.pipeline.join_counts()).into_iter().enumerate() {
        if late.is_much() {
            let (name, Count { came, late }) =
                (Count::name(&outcome.pipeline.rules().funnel, place), late);
            writeln!(
                out,
                "late         {late} of {came} {name} events came after their windows and are not learned: {REMEDY}"
            )?;
        }
    }
    let (joined, funnel) = (outcome.pipeline.join_counts(), &outcome.pipeline.rules().funnel);
    for (name, kind) in funnel.behaviour_names().zip(&joined.kinds) {
        let orphaned: u64 = kind.orphaned.iter().sum();
        if 2 * orphaned > kind.arrived && kind.arrived >= FEWEST {
            writeln!(
                out,
                "orphans      {orphaned} of {} {name} events found no impression and are not learned: send the impression of each, with the same user, item and id",
                kind.arrived
            )?;
        }
    }
    if let Some(likely) = notes.misspelt_available() {
        writeln!(out, "fields       items.available never came: \"{}\" did", shown(likely))?;
    }
    for name in notes.misspelt() {
        writeln!(out, "names        {} came: did you mean {}?", name.found, name.likely)?;
    }
    let sums = [
        (
            counts.later_features,
            "impressions read features that are newer than they are: no older ones are known",
        ),
        (counts.dropped_versions, "versions of features were dropped though they may be asked for"),
        (counts.unknown_ends, "ends of items or users that are not known changed nothing"),
    ];
    for (count, what) in sums.iter().filter(|(count, _)| *count > 0) {
        writeln!(out, "features     {count} {what}")?;
    }
    Ok(())
}

fn row(out: &mut String, name: &str, f: &Figures) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        replay: Arguments,
    }

    fn replay(folder: &Path, file: &[u8], more: &[&str]) -> Result<()> {
        let (config, records) = (folder.join("sluice.toml"), folder.join("records"));
        std::fs::write(&config, "")?;
        std::fs::write(&records, file)?;
        let [config, records] = [config, records].map(|path| path.display().to_string());
        let flags = [&["x", "--config", &config, &records], more].concat();
        run(&Flags::try_parse_from(flags)?.replay)
    }

    #[test]
    fn a_run_that_took_nothing_or_not_all_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let click = |i: i64| json!({"type": "click", "id": format!("{i}"), "ts": 1_700_000_000_000 + i, "user": "u", "item": "i"});
        let line = |i| format!("{{\"topic\":\"events\",{}\n", &click(i).to_string()[1..]);
        let good: String = (0..5000).map(line).collect();
        let packed = zstd::encode_all(good.as_bytes(), 0).unwrap();
        replay(folder.path(), good.as_bytes(), &[]).unwrap();
        replay(folder.path(), &packed, &["--json"]).unwrap();
        replay(
            folder.path(),
            format!("\u{feff}{}no record", good.replace('\n', "\r\n")).as_bytes(),
            &[],
        )
        .unwrap();
        for (file, told) in [
            (&b""[..], "expected records, found none"),
            (b"\n \n", "expected records, found none"),
            (b"no\n{\"topic\":\"events\"}\n", "every record was refused"),
            (&packed[..packed.len() - 9], "records: cannot be read behind line "),
            (b"{\"topic\":\"requests\"}\n", "records:1: a request"),
        ] {
            let error = format!("{:#}", replay(folder.path(), file, &[]).unwrap_err());
            assert!(error.contains(told), "{error}");
        }
        let error = replay(folder.path(), b"", &["--truth", "t", "-"]).unwrap_err().to_string();
        assert!(error.contains("standard input: --truth reads the records again"), "{error}");
    }
}
