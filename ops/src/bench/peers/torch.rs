//! The reference graph in PyTorch: training steps and scoring, on the same batches, with as many threads.
//!
//! The script beside this file gets the batches with their ids numbered as rows of one table. Ratios are above 1 where sluice is faster.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use sluice_features::candidates::Candidates;
use sluice_features::example::Batch;
use sluice_models::executor::Alone;
use sluice_models::kernels::Path;
use sluice_models::model::Scoring;
use sluice_models::spec::ModelSpec;
use sluice_models::synthetic::Synthetic;

use super::GROUP;
use super::python::{Answer, run};
use crate::bench::clock;
use crate::bench::limits::Limits;
use crate::bench::report::{Report, Row, Target};
use crate::bench::step::Steps;

const SCRIPT: &str = include_str!("reference.py");
/// Examples of a batch; how many times faster than PyTorch a step should be with AVX-512, and with AVX2.
const STEPS: [(usize, [f64; 2]); 3] = [(16, [6.0, 4.5]), (64, [3.2, 2.1]), (256, [1.8, 1.65])];
/// Share of the FMA peak over the whole step that counts as well with AVX2.
const WHOLE_STEP: f64 = 0.52;
/// Candidates of one user and their histories.
const CANDIDATES: [usize; 3] = [500, 50, 50];
/// How many times faster scoring should be.
const SCORING: [f64; 2] = [5.0, 3.0];
/// How long the script may take.
const PATIENCE: Duration = Duration::from_secs(240);

#[derive(Serialize)]
struct Wanted {
    table_rows: usize,
    fields: usize,
    run: f64,
    all: f64,
    jobs: Vec<Job>,
}

#[derive(Serialize)]
struct Job {
    kind: Kind,
    threads: usize,
    batches: Vec<Shown>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Step,
    Score,
}

/// A batch as the script takes it.
#[derive(Debug, PartialEq, Serialize)]
struct Shown {
    size: usize,
    rows: Vec<usize>,
    newest: Vec<u32>,
    matching: Vec<u32>,
    labels: Vec<f32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Took(Took),
    Torch { torch: String, parameters: usize },
}

#[derive(Deserialize)]
struct Took {
    kind: Kind,
    batch: usize,
    threads: usize,
    seconds: f64,
}

/// Measures PyTorch, then the same here.
///
/// # Errors
/// When the model cannot be built, the script fails, or its graph is another.
pub(super) fn measure(limits: &Limits, report: &mut Report) -> Result<()> {
    let spec = ModelSpec::reference();
    let mut steps =
        STEPS.iter().map(|(size, _)| Steps::prepare(&spec, *size)).collect::<Result<Vec<_>>>()?;
    let mut source = Synthetic::new(&spec, 7);
    let [size, newest, matching] = CANDIDATES;
    let candidates = source.request(size, newest, matching);
    let mut examples = Batch::new(0, source.schema().lookups.len());
    candidates.expand(source.schema(), &mut examples);

    let mut table = Numbered::default();
    let job = |kind, batches| Job { kind, threads: 1, batches };
    let mut jobs: Vec<Job> = Vec::new();
    for steps in &steps {
        let batches = steps.batches().iter().map(|batch| table.show(batch)).collect();
        jobs.push(job(Kind::Step, batches));
    }
    jobs.push(job(Kind::Score, vec![table.show(&examples)]));
    let fields = source.schema().fields.len();
    let table_rows = table.0.len();
    let [run_length, all] = [clock::RUN, clock::ALL].map(|length| length.as_secs_f64());
    let wanted = Wanted { table_rows, fields, run: run_length, all, jobs };
    let peer = match run::<Line>(SCRIPT, &wanted, PATIENCE)? {
        Answer::Lines(lines) => Ok(check(lines, steps[0].parameters())?),
        Answer::Missing(why) => Err(why),
    };
    let took = |kind: Kind, batch: usize| {
        let (_, lines) = peer.as_ref().ok()?;
        let line = |line: &&Took| line.kind == kind && line.batch == batch && line.threads == 1;
        lines.iter().find(line).map(|line| line.seconds)
    };

    let path = usize::from(limits.path != Path::Avx512);
    for (steps, (size, targets)) in steps.iter_mut().zip(STEPS) {
        let (seconds, examples) = (steps.seconds(&Alone), size as f64);
        let (theirs, least) = (took(Kind::Step, size), steps.operations() / 1e9 / limits.peak[0]);
        let rate =
            Row::new(GROUP, format!("step, batch {size}, 1 thread"), examples / seconds, "1/s");
        let rate = rate.limit(examples / least);
        report.push(Row { peer: theirs.map(|theirs| examples / theirs), ..rate });
        let name = format!("step, batch {size}, 1 thread");
        let mut ratio = compared(&name, [seconds, least], theirs, &peer);
        let share = least / seconds;
        if limits.path == Path::Avx2 && share >= WHOLE_STEP {
            ratio.met_otherwise = ratio.value.is_some();
        }
        report.push(asked(ratio, targets[path]));
    }

    let (seconds, operations) = scoring(&source, &spec, &candidates)?;
    let least = operations as f64 / 1e9 / limits.peak[0];
    let name = format!("scoring {size} candidates, history {newest} + {matching}");
    let theirs = took(Kind::Score, size);
    let row = Row::new(GROUP, &*name, seconds * 1e3, "ms").limit(least * 1e3);
    report.push(Row { peer: theirs.map(|theirs| theirs * 1e3), ..row });
    let ratio = compared(&name, [seconds, least], theirs, &peer);
    report.push(asked(ratio, SCORING[path]));
    Ok(())
}

/// The row of a ratio, or the reason why there is none. The second of `seconds` is what the operations take at the peak, so what the ratio could be.
fn compared(
    name: &str,
    [seconds, least]: [f64; 2],
    theirs: Option<f64>,
    peer: &Result<(String, Vec<Took>), String>,
) -> Row {
    let note = match peer {
        Ok((torch, _)) => format!("torch {torch}"),
        Err(why) => format!("no peer: {why}"),
    };
    Row {
        group: GROUP,
        name: format!("{name}: times PyTorch's speed"),
        value: theirs.map(|theirs| theirs / seconds),
        limit: theirs.map(|theirs| theirs / least),
        unit: "x",
        note: Some(note),
        ..Row::default()
    }
}

/// A ratio with its target, and how much of the peak that asks for.
fn asked(mut ratio: Row, target: f64) -> Row {
    if let (Some(limit), Some(note)) = (ratio.limit, &mut ratio.note) {
        note.push_str(&format!(
            "; the target asks for {:.0} % of the peak",
            100.0 * target / limit
        ));
    }
    ratio.target(Target::AtLeast(target))
}

/// Parts the first line from the others.
fn check(lines: Vec<Line>, parameters: usize) -> Result<(String, Vec<Took>)> {
    let (mut version, mut took) = (None, Vec::new());
    for line in lines {
        match line {
            Line::Torch { torch, parameters: found } => {
                ensure!(
                    found == parameters,
                    "expected a graph of {parameters} dense parameters in PyTorch, found {found}"
                );
                version = Some(torch);
            }
            Line::Took(line) => took.push(line),
        }
    }
    Ok((version.ok_or_else(|| anyhow!("the script did not name torch's version"))?, took))
}

/// Seconds of one pass over candidates, as the scorer makes it, and its operations.
fn scoring(source: &Synthetic, spec: &ModelSpec, candidates: &Candidates) -> Result<(f64, u64)> {
    let mut learner = source.learner(spec, 1).map_err(|mistakes| anyhow!("{mistakes:?}"))?;
    let mut examples = Batch::new(0, source.schema().lookups.len());
    candidates.expand(source.schema(), &mut examples);
    // Every id gets its row.
    learner.step(&examples);
    let (model, rows) = (learner.model(), learner.embeddings());
    let (mut work, mut out) = (Scoring::default(), vec![0.0; candidates.size() * model.tasks()]);
    let seconds = clock::seconds(|| model.score_candidates(rows, candidates, &mut work, &mut out));
    Ok((seconds, work.operations(model, candidates)))
}

/// Keys, numbered in the order of their first sight.
#[derive(Default)]
struct Numbered(HashMap<u64, usize, FixedState>);

impl Numbered {
    fn show(&mut self, batch: &Batch) -> Shown {
        let mut number = |key: &u64| {
            let next = self.0.len();
            *self.0.entry(*key).or_insert(next)
        };
        let mut rows: Vec<usize> = batch.keys.iter().map(&mut number).collect();
        for (look, history) in batch.histories.iter().enumerate() {
            let pairs = history.items.iter().zip(&history.categories).zip(&history.gaps);
            for ((item, category), gap) in pairs {
                rows.extend([number(item), number(category)]);
                if look == 1 {
                    rows.push(number(gap));
                }
            }
        }
        let lengths = |look: usize| -> Vec<u32> {
            batch.histories[look].starts.windows(2).map(|pair| pair[1] - pair[0]).collect()
        };
        let (newest, matching) = (lengths(0), lengths(1));
        Shown { size: batch.size(), rows, newest, matching, labels: batch.labels.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_shown_as_rows_of_one_table() {
        let mut source = Synthetic::new(&ModelSpec::reference(), 5);
        let batch = source.impressions(40);
        let mut table = Numbered::default();
        let shown = table.show(&batch);
        let sum = |lengths: &[u32]| lengths.iter().sum::<u32>() as usize;
        let behaviours = 2 * sum(&shown.newest) + 3 * sum(&shown.matching);
        assert_eq!(shown.rows.len(), 40 * 34 + behaviours);
        assert_eq!((shown.newest.len(), shown.matching.len(), shown.labels.len()), (40, 40, 120));
        assert_eq!(shown.rows.iter().max().map(|last| last + 1), Some(table.0.len()));
        assert_eq!(table.show(&batch), shown, "the same keys have the same rows");
    }

    #[test]
    fn another_graph_is_no_peer() {
        let torch = |parameters| Line::Torch { torch: "2.15".to_owned(), parameters };
        let took = Took { kind: Kind::Step, batch: 16, threads: 1, seconds: 0.5 };
        let (version, lines) = check(vec![torch(7), Line::Took(took)], 7).unwrap();
        assert_eq!((version.as_str(), lines.len()), ("2.15", 1));
        assert!(check(vec![torch(8)], 7).is_err() && check(vec![], 7).is_err());
    }

    #[test]
    fn a_missing_peer_leaves_the_ratio_open() {
        let row = compared("step", [0.5, 0.25], None, &Err("python3 has no torch".to_owned()));
        assert_eq!((row.value, row.note.as_deref()), (None, Some("no peer: python3 has no torch")));
        let row = compared("step", [0.5, 0.25], Some(2.0), &Ok(("2.15".to_owned(), vec![])));
        assert_eq!((row.value, row.limit), (Some(4.0), Some(8.0)));
        let note = asked(row, 6.0).note.unwrap();
        assert_eq!(note, "torch 2.15; the target asks for 75 % of the peak");
    }
}
