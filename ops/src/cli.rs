//! The command line: one subcommand per module, each with its own arguments and its own `run`.

use clap::{Parser, Subcommand};

use crate::{bench, demo, import, produce, query, replay, simulate, topics};

/// Looks after a sluice: makes and plays streams, asks questions, measures.
#[derive(Debug, Parser)]
#[command(name = "sluice", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show sluice at work: a simulated shop, a broker and the daemon in one process
    Demo(demo::Arguments),
    /// Turn a public data set into event, item and user records (JSON lines)
    Import(import::Arguments),
    /// Play files through the daemon's pipeline and model and print the progressive figures
    Replay(replay::Arguments),
    /// Run a shop with planted truth and write its events, items and users (JSON lines)
    Simulate(simulate::Arguments),
    /// Show the topics of the daemon as they should be and as they are, and create what is missing
    Topics(topics::Arguments),
    /// Play files of records into Kafka
    Produce(produce::Arguments),
    /// Ask the running daemon over Kafka and print its answer
    Query(query::Arguments),
    /// Measure, each figure beside its limit
    Bench(bench::Arguments),
}

impl Cli {
    /// Runs the subcommand that was asked for.
    ///
    /// # Errors
    /// Whatever stopped the subcommand, with its causes.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Demo(arguments) => demo::run(&arguments),
            Command::Import(arguments) => import::run(&arguments),
            Command::Replay(arguments) => replay::run(&arguments),
            Command::Simulate(arguments) => simulate::run(&arguments),
            Command::Topics(arguments) => topics::run(&arguments),
            Command::Produce(arguments) => produce::run(&arguments),
            Command::Query(arguments) => query::run(&arguments),
            Command::Bench(arguments) => bench::run(&arguments),
        }
    }
}
