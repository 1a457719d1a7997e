//! `sluice topics plan|apply`: the topics of the daemon, as they should be and as they are.
//!
//! Applying only creates. What exists and differs is named with the command that changes it, for a person
//! must decide whether a topic in use may change. What is only advised is no failure.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use sluice_daemon::kafka::{Admin, TopicRole, TopicSpec, TopicState, standard_topics};

use crate::connect::ConnectArguments;
use sluice_daemon::say::tell;

/// Partitions where there are none and none are asked for.
const PARTITIONS: i32 = 4;

/// What to do and how the topics should be.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// plan: only show; apply: create what is missing
    #[arg(value_enum)]
    action: Action,
    /// Partitions of every topic: the shards of the daemon; as many as the topic of events has where not given, 4 where there is none
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1024))]
    partitions: Option<i32>,
    /// Replicas of what is created; as many as there are brokers where not given, at most 3
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=32))]
    replication: Option<i32>,
    #[command(flatten)]
    connect: ConnectArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    Plan,
    Apply,
}

/// Runs the subcommand.
///
/// # Errors
/// When Kafka cannot be asked, or topics remain that differ.
pub fn run(arguments: &Arguments) -> Result<()> {
    let target = arguments.connect.target()?;
    let admin = Admin::open(&target.connection, Duration::from_secs(10))?;
    let replication = match arguments.replication {
        Some(replication) => replication,
        None => i32::try_from(admin.broker_count()?).unwrap_or(3).clamp(1, 3),
    };
    let partitions = match arguments.partitions {
        Some(partitions) => partitions,
        None => {
            let events = format!("{}.{}", target.prefix, TopicRole::Events.name());
            admin.partitions(&events)?.unwrap_or(PARTITIONS)
        }
    };
    let specs = standard_topics(&target.prefix, partitions, replication);
    let states = admin.look(&specs)?;
    tell(&table(&specs, &states))?;
    let missing: Vec<_> = specs
        .iter()
        .zip(&states)
        .filter(|(_, state)| **state == TopicState::Missing)
        .map(|(spec, _)| spec)
        .collect();
    let with = |needed: bool| states.iter().filter(|state| differs(state, needed)).count();
    let (different, advised) = (with(true), with(false));
    match arguments.action {
        _ if missing.is_empty() && different + advised == 0 => tell("nothing to do\n")?,
        Action::Plan if !missing.is_empty() => {
            tell(&format!(
                "{} topics to create: run `sluice topics apply` with the same flags\n",
                missing.len()
            ))?;
        }
        Action::Apply if !missing.is_empty() => {
            admin.create(&missing)?;
            tell(&format!("{} topics created\n", missing.len()))?;
        }
        Action::Plan | Action::Apply => {}
    }
    if advised > 0 {
        tell(&format!("{advised} topics work, and would work better as the lines above say\n"))?;
    }
    ensure!(
        different == 0,
        "{different} topics differ from what the daemon needs; the lines above say how to change them"
    );
    Ok(())
}

/// Tells whether a topic differs in anything that is needed, or in anything that is advised.
fn differs(state: &TopicState, needed: bool) -> bool {
    match state {
        TopicState::Different(all) => all.iter().any(|difference| difference.needed == needed),
        TopicState::Missing | TopicState::Right => false,
    }
}

fn table(specs: &[TopicSpec], states: &[TopicState]) -> String {
    let width = specs.iter().map(|spec| spec.name.len()).max().unwrap_or(0);
    let mut text = format!("{:width$}  partitions  replicas  settings\n", "topic");
    for (spec, state) in specs.iter().zip(states) {
        let settings: Vec<_> = spec
            .needed
            .iter()
            .chain(&spec.advised)
            .chain(&spec.initial)
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let state_text = match state {
            TopicState::Missing => "to create",
            TopicState::Different(_) if differs(state, true) => "differs",
            TopicState::Right | TopicState::Different(_) => "exists",
        };
        text.push_str(&format!(
            "{:width$}  {:>10}  {:>8}  {}  [{state_text}]\n",
            spec.name,
            spec.partitions,
            spec.replication,
            settings.join(" "),
        ));
        if let TopicState::Different(differences) = state {
            for difference in differences {
                let word = if difference.needed { "expected" } else { "advised" };
                text.push_str(&format!(
                    "  {}: found {}, {word} {}\n    {}\n",
                    difference.what, difference.found, difference.expected, difference.remedy
                ));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use sluice_daemon::kafka::{Difference, EmbeddedBroker};

    use super::*;

    #[test]
    fn the_table_shows_what_differs_and_how_to_change_it() {
        let specs = standard_topics("s", 2, 1);
        let difference = Difference {
            what: "partitions".into(),
            needed: true,
            found: "1".into(),
            expected: "2".into(),
            remedy: "do this".into(),
        };
        let mut states = vec![TopicState::Right; specs.len()];
        states[0] = TopicState::Missing;
        let advice = Difference { what: "stamp".into(), needed: false, ..difference.clone() };
        states[1] = TopicState::Different(vec![difference]);
        states[2] = TopicState::Different(vec![advice]);
        let text = table(&specs, &states);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("s.events ") && lines[1].ends_with("[to create]"), "{text}");
        assert!(lines[2].ends_with("[differs]"), "{text}");
        assert_eq!(lines[3..5], ["  partitions: found 1, expected 2", "    do this"]);
        assert!(lines[5].starts_with("s.users ") && lines[5].ends_with("[exists]"), "{text}");
        assert_eq!(lines[6..8], ["  stamp: found 1, advised 2", "    do this"]);
        assert!(lines[8].ends_with("[exists]"));
        let different =
            [true, false].map(|needed| states.iter().filter(|s| differs(s, needed)).count());
        assert_eq!(different, [1, 1]);
    }

    #[test]
    fn an_embedded_broker_says_that_it_has_no_administration() {
        let broker = EmbeddedBroker::start().unwrap();
        let admin = Admin::open(&broker.connection(), Duration::from_millis(500)).unwrap();
        let specs = standard_topics("s", 1, 1);
        let told = admin.create(&[&specs[0]]).unwrap_err().to_string();
        assert!(told.contains("embedded broker"), "{told}");
    }
}
