//! `sluice bench`: measures, each figure beside its limit in the same run.
//!
//! One group so far: `kafka`, the time from a request's turn to its answer.

mod kafka;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

/// What to measure, and where.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Runs one group
    #[arg(long, value_enum)]
    only: Option<Group>,
    /// Asks the daemon that runs on these brokers (host:port), instead of one inside this process
    #[arg(long)]
    brokers: Option<String>,
    /// What stands before the dot in all topic names on these brokers
    #[arg(long, default_value = "sluice", requires = "brokers")]
    prefix: String,
    /// Prints one JSON array
    #[arg(long)]
    json: bool,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Requests over Kafka beside an echo of the same bytes
    Kafka,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    group: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    /// What the machine allows, measured in the same run.
    limit: Option<f64>,
    /// What another system reaches, measured in the same run.
    peer: Option<f64>,
    target: Option<f64>,
    met: Option<bool>,
}

/// Runs the subcommand.
///
/// # Errors
/// When a group cannot be measured.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut rows = Vec::new();
    if arguments.only.is_none_or(|only| only == Group::Kafka) {
        let brokers = arguments.brokers.as_deref();
        rows.extend(kafka::measure(brokers, &arguments.prefix)?);
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&rows)?);
    } else {
        print!("{}", table(&rows));
    }
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(4);
    let mut text =
        format!("{:<8}{:width$}{:>10}{:>10}{:>10}\n", "group", "name", "value", "limit", "target");
    let shown =
        |figure: Option<f64>| figure.map_or("-".to_owned(), |figure| format!("{figure:.2}"));
    for row in rows {
        let met = match row.met {
            Some(true) => "  met",
            Some(false) => "  missed",
            None => "",
        };
        text.push_str(&format!(
            "{:<8}{:width$}{:>10.2}{:>10}{:>10} {}{met}\n",
            row.group,
            row.name,
            row.value,
            shown(row.limit),
            shown(row.target),
            row.unit,
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_eight_members_and_a_line() {
        let row = Row {
            group: "kafka",
            name: "rank p50".to_owned(),
            value: 4.25,
            unit: "ms",
            limit: Some(3.5),
            peer: None,
            target: Some(13.5),
            met: Some(true),
        };
        let json = serde_json::to_string(&row).unwrap();
        assert_eq!(
            json,
            r#"{"group":"kafka","name":"rank p50","value":4.25,"unit":"ms","limit":3.5,"peer":null,"target":13.5,"met":true}"#
        );
        let table = table(&[row]);
        let line = table.lines().nth(1).unwrap();
        assert!(line.contains("4.25") && line.ends_with("13.50 ms  met"), "{table}");
    }
}
