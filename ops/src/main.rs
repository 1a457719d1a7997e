//! `sluice`: the operator's tool. All it does is in the library beside it.

use std::process::ExitCode;

use clap::Parser;
use sluice_daemon::say::note;
use sluice_ops::cli::Cli;
use sluice_ops::files::Stopped;

/// What a shell says of a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe (`sluice import … | head`) may leave when it has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("sluice: {error:#}\n"));
            if error.is::<Stopped>() { ExitCode::from(INTERRUPTED) } else { ExitCode::FAILURE }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
