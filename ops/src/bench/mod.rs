//! `sluice bench`: measures, each figure beside its limit and its peer in the same run.
//!
//! The limits of the machine come first, then the groups in a fixed order. A group is one file with a `measure` that pushes rows; a row
//! names its target as a number with a direction, and `Report` says whether it is met. A group that fails does not keep the others
//! from being measured: the command ends with the reasons.

mod askers;
mod clock;
mod growth;
mod kafka;
mod limits;
mod machine;
mod peers;
mod pipeline;
mod report;
mod scoring;
mod sequence;
mod step;
mod stream;
mod table;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;
use sluice_daemon::parts::choose_kernels;

use limits::Limits;
use report::Report;
use sluice_daemon::say::{note, tell};

/// What to measure, and where.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Runs one group
    #[arg(long, value_enum)]
    only: Option<Group>,
    /// Group kafka uses these brokers (host:port) instead of one inside this process: topics sluice-bench-* are made, and deleted at the end
    #[arg(long)]
    brokers: Option<String>,
    /// Group peers learns clicks from these records of `sluice import kuairand` instead of made-up ones: only then are log losses shown
    #[arg(long, value_name = "FILE")]
    kuairand: Option<PathBuf>,
    /// Prints one JSON array
    #[arg(long)]
    json: bool,
}

/// What can be measured, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Training steps of the reference graph and of the default model
    Step,
    /// The same in PyTorch; clicks learned one example at a time, beside Vowpal Wabbit
    Peers,
    /// Candidates of one user, and the answers of one scorer
    Scoring,
    /// Lookups and updates in a table of 10 million rows
    Table,
    /// Events through the pipeline without learning, and their allocations
    Pipeline,
    /// A user's long history: appends, looks, bytes
    Sequence,
    /// Events, freshness and requests over Kafka, beside an echo of the same bytes
    Kafka,
    /// What a large state costs: an event with 10^4 to 10^7 users, the pause of a checkpoint
    Growth,
}

impl Group {
    fn measure(self, arguments: &Arguments, limits: &Limits, report: &mut Report) -> Result<()> {
        match self {
            Self::Step => step::measure(limits, report),
            Self::Peers => peers::measure(arguments.kuairand.as_deref(), limits, report),
            Self::Scoring => scoring::measure(limits, report),
            Self::Table => table::measure(limits, report),
            Self::Pipeline => pipeline::measure(report),
            Self::Sequence => sequence::measure(report),
            Self::Kafka => kafka::measure(arguments.brokers.as_deref(), limits, report),
            Self::Growth => growth::measure(report),
        }
    }
}

/// Runs the subcommand.
///
/// # Errors
/// When a group cannot be measured; the others are.
pub fn run(arguments: &Arguments) -> Result<()> {
    let path = choose_kernels()?;
    if cfg!(debug_assertions) {
        note("sluice bench: built without --release: the figures are not the product's\n");
    }
    let mut report = Report::new(!arguments.json);
    report.head(&machine::describe(&path))?;
    let failed = measure(arguments, &mut report)?;
    if arguments.json {
        tell(&format!("{}\n", serde_json::to_string(report.rows())?))?;
    }
    if !failed.is_empty() {
        bail!("not everything could be measured: {}", failed.join("; "));
    }
    Ok(())
}

/// Measures limits and groups, and returns why groups failed.
fn measure(arguments: &Arguments, report: &mut Report) -> Result<Vec<String>> {
    let limits = Limits::measure()?;
    limits.report(report)?;
    let mut failed = Vec::new();
    for group in Group::value_variants() {
        if arguments.only.is_some_and(|only| only != *group) {
            continue;
        }
        let name = group.to_possible_value().map(|value| value.get_name().to_owned());
        let name = name.unwrap_or_default();
        note(&format!("sluice bench: measuring {name}\n"));
        if let Err(error) = group.measure(arguments, &limits, report) {
            failed.push(format!("{name}: {error:#}"));
        }
        report.show()?;
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// The rows of one group, as JSON.
    fn rows(group: Group) -> Vec<Value> {
        let arguments = Arguments { only: Some(group), brokers: None, kuairand: None, json: true };
        let mut report = Report::new(false);
        assert_eq!(measure(&arguments, &mut report).unwrap(), Vec::<String>::new());
        match serde_json::to_value(report.rows()).unwrap() {
            Value::Array(rows) => rows,
            other => panic!("expected an array, found {other}"),
        }
    }

    fn check(rows: &[Value], group: &str, targets: &[&str]) {
        let members = ["group", "limit", "met", "name", "peer", "target", "unit", "value"];
        let mut names = BTreeSet::new();
        for row in rows {
            let row = row.as_object().unwrap();
            assert!(row.keys().map(String::as_str).eq(members), "{row:?}");
            assert!(names.insert(row["name"].as_str().unwrap()), "twice: {row:?}");
            assert!(row["value"].as_f64().is_none_or(|value| value > 0.0), "{row:?}");
            let judged = row["target"].is_number() && row["value"].is_number();
            assert_eq!(row["met"].is_boolean(), judged, "{row:?}");
            assert!(row["group"] == group || row["group"] == "limits", "{row:?}");
        }
        for name in targets {
            assert!(names.contains(name), "expected {name:?} among {names:?}");
        }
    }

    #[test]
    fn the_limits_come_first_and_steps_have_their_targets() {
        let rows = rows(Group::Step);
        assert!(rows[0]["name"].as_str().unwrap().starts_with("multiply-adds, scalar"));
        let share = "1 thread: dense part, share of the peak";
        let judged = [64, 256].map(|size| format!("reference, batch {size}, {share}"));
        check(&rows, "step", &judged.each_ref().map(String::as_str));
        let met = |name: &String| {
            rows.iter().any(|row| row["name"] == **name && row["met"] != Value::Null)
        };
        assert!(judged.iter().all(met));
    }

    #[test]
    fn every_comparison_has_its_row_with_or_without_the_peer() {
        let rows = rows(Group::Peers);
        let ratio = |what: &str| format!("{what}: times PyTorch's speed");
        let steps = [16, 64, 256].map(|size| ratio(&format!("step, batch {size}, 1 thread")));
        let scoring = ratio("scoring 500 candidates, history 50 + 50");
        let click = "click, linear, one example at a time";
        let (speed, loss) = (
            format!("{click}: times Vowpal Wabbit's speed on one core"),
            format!("{click}: log loss"),
        );
        check(&rows, "peers", &[&steps[0], &steps[1], &steps[2], &scoring, click, &speed, &loss]);
    }

    #[test]
    fn candidates_and_answers_have_their_rows() {
        let rows = rows(Group::Scoring);
        let share =
            "default fields, one scorer without Kafka, rank of 200: share of what the peak allows";
        check(&rows, "scoring", &["reference, 500 candidates, history 50 + 50", share]);
    }

    #[test]
    fn the_table_is_read_and_updated() {
        let rows = rows(Group::Table);
        check(&rows, "table", &["updates, uniform", "lookups, skewed", "memory of a row"]);
    }
}
