//! Click only, one example after the other: `linear`, and `linear` with `fm` of width 8, beside Vowpal Wabbit's logistic regression from its cache.
//!
//! Examples are prepared: batches in memory here, the cache there. They are made up with KuaiRand's shapes; with the records that `sluice import kuairand` wrote
//! they are its impressions, and the progressive log losses mean something.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use sluice_daemon::config::Config;
use sluice_daemon::parts;
use sluice_daemon::pipeline::Pipeline;
use sluice_daemon::pipeline::record::Record;
use sluice_daemon::shutdown::Shutdown;
use sluice_features::example::Batch;
use sluice_features::schema::Schema;
use sluice_features::time::EventTime;
use sluice_features::wire::split_line;
use sluice_models::learner::Learner;
use sluice_models::spec::{CrossingSpec, FunnelSpec, ModelSpec, SharingSpec};
use sluice_models::synthetic::Synthetic;

use super::GROUP;
use super::python::{Answer, run};
use crate::bench::report::{Report, Row, Target};
use crate::files::{self, Line, TOO_LONG};

const SCRIPT: &str = include_str!("click.py");
const FIELDS: &str = include_str!("../../../datasets/kuairand-reference.toml");
/// Examples of a batch and, where they are made up, how many batches.
const BATCH: usize = 256;
const BATCHES: usize = if cfg!(test) { 4 } else { 360 };
/// Runs of which the fastest counts.
const ROUNDS: usize = if cfg!(test) { 1 } else { 6 };
/// Width of the machine's rows.
const WIDTH: usize = 8;
/// Rate of clicks that an operator would guess.
const PRIOR: f64 = 0.4;
/// Log losses on KuaiRand: of `linear`, and with `fm`.
const LOSSES: [f64; 2] = [0.6117, 0.6112];
/// How many times Vowpal Wabbit's speed `linear` should have.
const TIMES: f64 = 2.0;
/// Bits of Vowpal Wabbit's table: no two ids share a weight.
const BITS: u32 = 20;
/// How long the script may take.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Serialize)]
struct Job<'a> {
    file: &'a Path,
    bits: u32,
    rounds: usize,
}

#[derive(Deserialize)]
struct Took {
    version: String,
    cores: usize,
    seconds: f64,
    examples: f64,
    log_loss: f64,
}

/// Prepared examples of one task.
struct Examples {
    schema: Schema,
    batches: Vec<Batch>,
}

/// Measures Vowpal Wabbit, then the same here. `file` has the records of KuaiRand.
///
/// # Errors
/// When the file cannot be read, a model cannot be built, or the script fails.
pub(super) fn measure(file: Option<&Path>, report: &mut Report) -> Result<()> {
    let examples = match file {
        Some(path) => imported(path)?,
        None => made_up(),
    };
    let peers = wabbit(&examples.batches)?;
    let missing = peers.as_ref().err().cloned();
    let peers = peers.unwrap_or_default();
    let crossings =
        [("linear", CrossingSpec::Linear {}), ("linear and fm", CrossingSpec::FmLinear {})];
    for ((name, crossing), bound) in crossings.into_iter().zip(LOSSES) {
        let name = format!("click, {name}, one example at a time");
        let plain = crossing == CrossingSpec::Linear {};
        let (fastest, loss) = learn(&spec(crossing), &examples)?;
        report.push(Row {
            peer: peers.first().map(rate),
            note: missing.clone(),
            ..Row::new(GROUP, name.clone(), fastest, "examples/s")
        });
        if plain {
            beside(&name, fastest, &peers, missing.as_deref(), report);
        }
        let unknown = "made-up examples cannot be predicted: give the imported ones as --kuairand";
        report.push(Row {
            value: file.map(|_| loss),
            peer: peers.first().filter(|_| file.is_some()).map(|took| took.log_loss),
            note: file.is_none().then(|| unknown.to_owned()),
            ..Row::new(GROUP, format!("{name}: log loss"), 0.0, "nat").target(Target::AtMost(bound))
        });
    }
    Ok(())
}

/// The ratios to Vowpal Wabbit's speed on one core, as here, and on all.
fn beside(name: &str, fastest: f64, peers: &[Took], missing: Option<&str>, report: &mut Report) {
    let name = format!("{name}: times Vowpal Wabbit's speed");
    let target = Target::AtLeast(TIMES);
    let Some((one, more)) = peers.split_first() else {
        let row = Row::new(GROUP, format!("{name} on one core"), 0.0, "x").target(target);
        report.push(Row { value: None, note: missing.map(str::to_owned), ..row });
        return;
    };
    let row = |took: &Took, cores: &str| Row {
        note: Some(format!("vowpalwabbit {}: {:.0} examples/s", took.version, rate(took))),
        ..Row::new(GROUP, format!("{name} {cores}"), fastest / rate(took), "x")
    };
    report.push(row(one, "on one core").target(target));
    for took in more.iter().filter(|took| took.cores > 1) {
        report.push(row(took, "with a second core to read its cache"));
    }
}

fn rate(took: &Took) -> f64 {
    took.examples / took.seconds
}

fn spec(crossing: CrossingSpec) -> ModelSpec {
    let mut spec = ModelSpec {
        crossing,
        sharing: SharingSpec::None {},
        funnel: FunnelSpec::Independent { tower: vec![] },
        ..ModelSpec::default()
    };
    spec.learning.row_rate = 0.015;
    spec.learning.row_deviation = 0.02;
    spec
}

/// Returns examples a second of the fastest run, and the progressive log loss.
fn learn(spec: &ModelSpec, examples: &Examples) -> Result<(f64, f64)> {
    let (mut fastest, mut loss) = (0.0_f64, 0.0);
    for _ in 0..ROUNDS {
        let mut learner = Learner::new(spec, &examples.schema, &[None], &[PRIOR], 1)
            .map_err(|mistakes| anyhow!("{mistakes:?}"))?;
        let (mut count, mut sum) = (0, 0.0);
        let begun = Instant::now();
        for batch in &examples.batches {
            let step = learner.step(batch);
            sum += step.loss.iter().sum::<f64>() * step.labelled as f64;
            count += step.labelled;
        }
        let seconds = begun.elapsed().as_secs_f64();
        ensure!(learner.refused() == 0, "{} examples were refused", learner.refused());
        fastest = fastest.max(count as f64 / seconds);
        loss = sum / count as f64;
    }
    Ok((fastest, loss))
}

fn made_up() -> Examples {
    let mut source = Synthetic::new(&spec(CrossingSpec::Linear {}), 7);
    let schema = single(source.schema());
    let tasks = source.schema().tasks;
    let batch = |_| {
        let mut batch = source.impressions(BATCH);
        batch.labels = batch.labels.iter().step_by(tasks).copied().collect();
        batch.modes.truncate(batch.size());
        batch
    };
    Examples { schema, batches: (0..BATCHES).map(batch).collect() }
}

/// One task, and rows of the machine's width.
fn single(schema: &Schema) -> Schema {
    let mut schema = schema.clone();
    schema.tasks = 1;
    schema.tables.iter_mut().for_each(|table| table.width = WIDTH);
    schema
}

/// Reads records through the daemon's own pipeline.
fn imported(path: &Path) -> Result<Examples> {
    let config = Config::build(&only_click()?, &[]).map_err(|mistakes| anyhow!("{mistakes}"))?;
    let mut pipeline = parts::pipeline(&config, 1);
    let mut batches = Vec::new();
    let mut take = |pipeline: &mut Pipeline| {
        while let Some(work) = pipeline.next_batch() {
            batches.push(work.batch.clone());
            pipeline.recycle(work);
        }
    };
    let mut offset = 0;
    // Later than anything that the data set has.
    let arrived = EventTime(2_000_000_000_000);
    files::for_each_line(path, &Shutdown::new(), |name, number, line| {
        let Line::Whole(line) = line else { bail!("{name}:{number}: {TOO_LONG}") };
        if let Ok((topic, value)) = split_line(line) {
            let record =
                Record { topic, partition: 0, offset, arrived, key: None, value: Some(value) };
            pipeline.take(&record).map_err(|error| anyhow!("{name}:{number}: {error}"))?;
            take(&mut pipeline);
        }
        offset += 1;
        Ok(())
    })?;
    pipeline.finish();
    take(&mut pipeline);
    ensure!(!batches.is_empty(), "{}: found no impression", path.display());
    Ok(Examples { schema: single(&config.schema), batches })
}

/// The 34 fields of the parity figures with click as the only task.
fn only_click() -> Result<String> {
    let mut config: toml::Table = FIELDS.parse()?;
    let edit = "[funnel]\nbehaviours = [\"long_view\", \"like\", \"follow\", \"comment\", \"forward\", \"hate\", \"profile_enter\"]\n\
                [serve]\nscore = \"p.click\"\n[model]\nsharing = { name = \"none\" }\ncrossing = { name = \"linear\" }\n\
                funnel = { name = \"independent\" }";
    let edit: toml::Table = edit.parse()?;
    for (name, section) in edit {
        match (config.get_mut(&name), section) {
            (Some(toml::Value::Table(own)), toml::Value::Table(other)) => own.extend(other),
            (_, section) => drop(config.insert(name, section)),
        }
    }
    let tasks = config.get_mut("funnel").and_then(|funnel| funnel.get_mut("tasks"));
    let tasks = tasks.and_then(toml::Value::as_array_mut).context("the data set has no tasks")?;
    tasks.truncate(1);
    Ok(toml::to_string(&config)?)
}

/// Gives the examples to Vowpal Wabbit, or says why it cannot be.
fn wabbit(batches: &[Batch]) -> Result<std::result::Result<Vec<Took>, String>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("examples");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&file)?);
    let mut numbers: HashMap<u64, usize, FixedState> = HashMap::default();
    for batch in batches {
        let fields = batch.keys.len() / batch.size().max(1);
        for (keys, &label) in batch.keys.chunks_exact(fields).zip(&batch.labels) {
            out.write_all(if label > 0.5 { b"1 |" } else { b"-1 |" })?;
            for key in keys.iter().filter(|&&key| key != 0) {
                let next = numbers.len() + 1;
                write!(out, " {}", numbers.entry(*key).or_insert(next))?;
            }
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    let job = Job { file: &file, bits: BITS, rounds: ROUNDS };
    Ok(match run::<Took>(SCRIPT, &job, PATIENCE)? {
        Answer::Lines(lines) => {
            ensure!(!lines.is_empty(), "the script said nothing");
            Ok(lines)
        }
        Answer::Missing(why) => Err(why),
    })
}
