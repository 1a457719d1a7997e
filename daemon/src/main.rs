//! The daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sluice_daemon::app::{self, Options};
use sluice_daemon::config::Config;
use sluice_daemon::error::{Exit, Stop, chain};
use sluice_daemon::say::{note, tell};

/// A recommender that learns from the event stream it stands beside
#[derive(Parser)]
#[command(name = "sluiced", version, after_help = "Example: sluiced run --config sluice.toml")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs until SIGINT, SIGTERM or SIGHUP
    Run {
        #[command(flatten)]
        file: File,
        /// Keeps the consumed records and the journal in this folder, for `sluice replay --capture`
        #[arg(long, value_name = "DIR")]
        capture: Option<PathBuf>,
        /// Keeps the state and starts with new parameters: needed when model or fields have changed
        #[arg(long)]
        new_model: bool,
        /// Goes on where records are missing: deleted before they were read, unreadable, or in a topic that was made anew. Each gap is told
        /// and counted
        #[arg(long)]
        accept_gap: bool,
    },
    /// Says all mistakes of a configuration at once, each with its line and remedy, opens the keys and certificates that it names, and shows
    /// how the memory is shared
    CheckConfig(File),
    /// Prints the configuration in force: defaults, file and environment, secrets hidden
    PrintConfig(File),
}

#[derive(Args)]
struct File {
    /// The configuration file; keys that are not in it have their defaults
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::Run { file, capture, new_model, accept_gap } => {
            run(&file, &Options { capture, new_model, accept_gap })
        }
        Command::CheckConfig(file) => check(&file),
        Command::PrintConfig(file) => print(&file),
    };
    let exit = ended.unwrap_or_else(|stop| {
        note(&format!("{}\n", chain(&stop)));
        stop.exit()
    });
    exit.into()
}

fn run(file: &File, options: &Options) -> Result<Exit, Stop> {
    app::run(&Config::open(&file.config)?, options)
}

fn check(file: &File) -> Result<Exit, Stop> {
    let config = Config::open(&file.config)?;
    app::check(&config)?;
    let risks = app::risks(&config).into_iter().map(|risk| format!("at risk: {risk}"));
    let told: String = config.memory.lines().chain(risks).map(|line| line + "\n").collect();
    say(&format!("{}: no mistakes\n{told}", file.config.display()))
}

fn print(file: &File) -> Result<Exit, Stop> {
    say(&Config::print(&file.config)?)
}

fn say(text: &str) -> Result<Exit, Stop> {
    tell(text).map_err(|error| Stop::fault("cannot write to standard output").because(error))?;
    Ok(Exit::Well)
}
