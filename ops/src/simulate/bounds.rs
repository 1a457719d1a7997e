//! What bounds a model on a stream that a simulated shop wrote: item popularity below, the truth above.
//!
//! The figures are those of [`Judge`], from the files alone: a first pass over the records finds what became of each impression, a second
//! one lays the truth beside the impressions, which stand in both files in the same order.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use foldhash::fast::FixedState;
use serde::Deserialize;
use sluice_daemon::shutdown::Shutdown;
use sluice_features::ids::stable_hash;
use sluice_features::wire::Topic;

use super::judge::Judge;
use super::record::{Record, Truth};
use super::shop::TASKS;
use super::truth::Probabilities;
use crate::files::{self, Input, Line, TOO_LONG};

/// The AUC of one task that popularity reaches, and the best there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// The task.
    pub task: &'static str,
    /// The AUC of item popularity.
    pub popularity: f64,
    /// The truth's own AUC.
    pub truth: f64,
}

/// What is read of an event.
#[derive(Deserialize)]
struct Seen {
    #[serde(rename = "type")]
    kind: Option<String>,
    id: Option<String>,
    ts: i64,
    item: Option<String>,
    impression: Option<String>,
}

/// A line of the truth.
#[derive(Deserialize)]
struct TrueLine {
    impression: String,
    ts: i64,
    p: Probabilities,
}

type Outcomes = HashMap<u64, [bool; TASKS.len()], FixedState>;

/// Judges popularity and truth on records and the truth beside them, without the first `from` impressions.
///
/// # Errors
/// When a file cannot be read, or the truth is that of another stream.
pub fn bounds(records: &[PathBuf], truth: &Path, from: u64) -> Result<Vec<Bounds>> {
    let mut outcomes = Outcomes::default();
    events(records, |event| {
        if let (Some(task), Some(impression)) = (event.task(), &event.impression) {
            outcomes.entry(stable_hash(impression.as_bytes())).or_default()[task] = true;
        }
        Ok(())
    })?;
    let mut lines = only(truth)?.lines()?;
    let mut judge = Judge::new(from);
    events(records, |event| {
        let item = stable_hash(event.item.as_deref().unwrap_or_default().as_bytes());
        let mut record = Record {
            topic: Topic::Events,
            key: String::new(),
            ts: event.ts,
            message: String::new(),
            truth: None,
            outcome: event.task().map(|task| (item, task)),
        };
        if event.kind.as_deref() == Some("impression") {
            let id = event.id.unwrap_or_default();
            let Some((number, line)) = lines.read()? else {
                bail!(
                    "{}: ends before impression {id}: give the truth of these records",
                    truth.display()
                )
            };
            let place = || format!("{}:{number}: expected a line of truth", truth.display());
            let Line::Whole(line) = line else { bail!("{}: {TOO_LONG}", place()) };
            let TrueLine { impression, ts, p } =
                serde_json::from_slice(line).with_context(place)?;
            ensure!(
                impression == id,
                "{}: expected the truth of impression {id}, found that of {impression}: give the truth of these records",
                truth.display()
            );
            let became = outcomes.get(&stable_hash(id.as_bytes())).copied().unwrap_or_default();
            record.truth = Some(Truth { impression, ts, p, outcomes: became, item });
        }
        judge.take(&record);
        Ok(())
    })?;
    let bounds = TASKS.iter().zip(&judge.tasks);
    Ok(bounds
        .map(|(&task, figures)| Bounds {
            task,
            popularity: figures.popularity.value(),
            truth: figures.truth.value(),
        })
        .collect())
}

impl Seen {
    fn task(&self) -> Option<usize> {
        TASKS.iter().position(|task| self.kind.as_deref() == Some(task))
    }
}

/// Opens a path of one file; an archive of several is none.
fn only(path: &Path) -> Result<Input> {
    let mut inputs = files::open(path, &Shutdown::new())?;
    let found = inputs.len();
    inputs.pop().filter(|_| found == 1).with_context(|| {
        format!("{}: expected one file, found an archive of {found}", path.display())
    })
}

/// Shows every event of the files that can be understood, and of twins that follow each other only the first.
fn events(records: &[PathBuf], mut take: impl FnMut(Seen) -> Result<()>) -> Result<()> {
    let mut last = None;
    for path in records {
        files::for_each_line(path, &Shutdown::new(), |_, _, line| {
            // Items, users, and what the pipeline refuses are passed over.
            let Line::Whole(line) = line else { return Ok(()) };
            let Ok(event) = serde_json::from_slice::<Seen>(line) else { return Ok(()) };
            let twin = last.is_some() && last == event.id;
            if event.kind.is_some() && event.ts > 0 && !twin {
                last.clone_from(&event.id);
                take(event)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Output;
    use crate::simulate::{Shop, ShopConfig};
    use std::io::Write;

    #[test]
    fn the_files_have_the_figures_of_the_shop() {
        let folder = tempfile::tempdir().unwrap();
        let (events, truth) = (folder.path().join("events.jsonl"), folder.path().join("truth.zst"));
        let config = ShopConfig { impressions: 5_000, ..ShopConfig::default() };
        let mut judge = Judge::new(1_000);
        let mut out = Output::create(Some(&events)).unwrap();
        let mut beside = Output::create(Some(&truth)).unwrap();
        for record in Shop::new(config, 1).unwrap() {
            judge.take(&record);
            record.write(&mut out).unwrap();
            if let Some(line) = &record.truth {
                serde_json::to_writer(&mut beside, line).unwrap();
                beside.write_all(b"\n").unwrap();
            }
        }
        out.finish().unwrap();
        beside.finish().unwrap();
        let found = bounds(std::slice::from_ref(&events), &truth, 1_000).unwrap();
        for (figures, bounds) in judge.tasks.iter().zip(&found) {
            assert_eq!(figures.truth.value().to_bits(), bounds.truth.to_bits());
            assert_eq!(figures.popularity.value().to_bits(), bounds.popularity.to_bits());
        }
        let error = bounds(&[events.clone(), events], &truth, 0).unwrap_err().to_string();
        assert!(error.contains("give the truth of these records"), "{error}");
    }
}
