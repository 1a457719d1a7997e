//! `sluice bench`: measures, each figure beside its limit and its peer in the same run.
//!
//! The limits of the machine come first, then the groups in a fixed order. A group is one file with a `measure` that pushes rows; a row
//! names its target as a number with a direction, and [`Report`] says whether it is met. A group that fails does not keep the others
//! from being measured: the command ends with the reasons.

mod kafka;
mod limits;
mod machine;
mod report;
mod step;

use anyhow::{Result, bail};
use clap::ValueEnum;
use sluice_daemon::parts::choose_kernels;

use limits::Limits;
use report::Report;

/// What to measure, and where.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Runs one group
    #[arg(long, value_enum)]
    only: Option<Group>,
    /// Group kafka asks the daemon that runs on these brokers (host:port), instead of one inside this process
    #[arg(long)]
    brokers: Option<String>,
    /// What stands before the dot in all topic names on these brokers
    #[arg(long, default_value = "sluice", requires = "brokers")]
    prefix: String,
    /// Prints one JSON array
    #[arg(long)]
    json: bool,
}

/// What can be measured, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Training steps of the reference graph and of the default model
    Step,
    /// Requests over Kafka beside an echo of the same bytes
    Kafka,
}

impl Group {
    fn measure(self, arguments: &Arguments, limits: &Limits, report: &mut Report) -> Result<()> {
        match self {
            Self::Step => step::measure(limits, report),
            Self::Kafka => kafka::measure(arguments.brokers.as_deref(), &arguments.prefix, report),
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
        eprintln!("sluice bench: built without --release: the figures are not the product's");
    }
    let mut report = Report::new(!arguments.json);
    report.head(&machine::describe(&path));
    let limits = Limits::measure()?;
    limits.report(&mut report);
    let mut failed = Vec::new();
    for group in Group::value_variants() {
        if arguments.only.is_some_and(|only| only != *group) {
            continue;
        }
        let name = group.to_possible_value().map(|value| value.get_name().to_owned());
        let name = name.unwrap_or_default();
        eprintln!("sluice bench: measuring {name}");
        if let Err(error) = group.measure(arguments, &limits, &mut report) {
            failed.push(format!("{name}: {error:#}"));
        }
        report.show();
    }
    if arguments.json {
        println!("{}", serde_json::to_string(report.rows())?);
    }
    if !failed.is_empty() {
        bail!("not everything could be measured: {}", failed.join("; "));
    }
    Ok(())
}
