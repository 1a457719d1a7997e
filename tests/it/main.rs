//! One binary for all end-to-end tests, so that a test that lacks Java or data is counted as ignored, by name.

mod harness;

mod answers;
mod changes;
mod datasets;
mod faults;
mod house;
mod kafka;
mod outputs;
mod rights;
mod runs;
mod settings;
mod topics;

use harness::{Outcome, real_kafka};
use libtest_mimic::{Arguments, Failed, Trial};

/// A test: its name, a sentence, and what it does.
type Test = (&'static str, fn() -> Outcome);

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    trials.extend(group("house", house::TESTS));
    trials.extend(group("house", &house::tests_of_files_that_exist()));
    trials.extend(kafka_group("kafka", kafka::TESTS));
    trials.extend(group("settings", settings::TESTS));
    trials.extend(kafka_group("runs", runs::TESTS));
    trials.extend(kafka_group("changes", changes::TESTS));
    trials.extend(kafka_group("faults", faults::TESTS));
    trials.extend(kafka_group("rights", rights::TESTS));
    trials.extend(kafka_group("topics", topics::TESTS));
    trials.extend(kafka_group("outputs", outputs::TESTS));
    trials.extend(kafka_group("answers", answers::TESTS));
    trials.extend(data_group("datasets", datasets::TESTS));
    let conclusion = libtest_mimic::run(&arguments, trials);
    real_kafka::stop_shared();
    conclusion.exit();
}

fn group(name: &str, tests: &[Test]) -> Vec<Trial> {
    let trial = |(test, run): &Test| {
        let run = *run;
        Trial::test(format!("{name}::{test}"), move || run().map_err(failed))
    };
    tests.iter().map(trial).collect()
}

/// Tests that need a real Kafka: where none can be run they are ignored, in CI they fail.
fn kafka_group(name: &str, tests: &[Test]) -> Vec<Trial> {
    let Some(reason) = real_kafka::missing() else {
        return group(name, tests);
    };
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    if !in_ci {
        eprintln!("{} tests need a real Kafka and are ignored: {reason}", tests.len());
    }
    let trial = |(test, _): &Test| {
        let reason = format!("no real Kafka can be run: {reason}");
        Trial::test(format!("{name}::{test}"), move || Err(Failed::from(reason)))
            .with_ignored_flag(!in_ci)
    };
    tests.iter().map(trial).collect()
}

/// Tests that need a real Kafka and the public data: without data they are ignored, by name.
fn data_group(name: &str, tests: &[Test]) -> Vec<Trial> {
    let trials = kafka_group(name, tests);
    match datasets::missing() {
        None => trials,
        Some(reason) => {
            eprintln!("{} tests need public data and are ignored: {reason}", tests.len());
            trials.into_iter().map(|trial| trial.with_ignored_flag(true)).collect()
        }
    }
}

fn failed(error: anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}
