//! The command line: one subcommand per module, each with its own arguments and its own `run`.

use clap::{Parser, Subcommand};

use crate::{import, simulate};

/// Looks after a sluice: makes and plays streams, asks questions, measures.
#[derive(Debug, Parser)]
#[command(name = "sluice", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn a public data set into event, item and user records (JSON lines)
    Import(import::Arguments),
    /// Run a shop with planted truth and write its events, items and users (JSON lines)
    Simulate(simulate::Arguments),
}

impl Cli {
    /// Runs the subcommand that was asked for.
    ///
    /// # Errors
    /// Whatever stopped the subcommand, with its causes.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Import(arguments) => import::run(&arguments),
            Command::Simulate(arguments) => simulate::run(&arguments),
        }
    }
}
