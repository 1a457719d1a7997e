//! The configuration: one TOML file between the built-in reference and the environment.
//!
//! ```text
//! layers ─▶ file::Config (what was written) ─▶ validate ─▶ Config (what it means)
//! ```
//!
//! All mistakes are reported at once, each with its line, path and remedy. Secrets are never written in the file: a key that ends in
//! `_file` names where one lies.

mod check;
mod connection;
mod expression;
pub mod file;
mod layers;
mod machine;
mod meaning;
mod memory;
mod mistake;
mod schema;
mod tables;
mod units;
mod validate;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use expression::{Expression, ExpressionError};
pub use layers::{PREFIX, REFERENCE};
pub use meaning::{
    Checkpoint, Config, Evaluate, Items, Joining, Kafka, Learn, Log, LogFormat, Model, Retrieval,
    Scores, Serve, Topics,
};
pub use memory::{Bounds, Memory, Part, SET_ASIDE, Share};
pub use mistake::{Mistake, Mistakes};
pub use units::{Period, Size};

use crate::kafka::{HIDDEN, is_shown};
use layers::{line_of, read};
use machine::Available;
use units::Amount;

/// Says how much memory there is.
type Machine = fn() -> Result<Available, String>;

impl Config {
    /// Reads the file and the environment of the process, for this machine.
    ///
    /// # Errors
    /// All mistakes, an unreadable file among them.
    pub fn open(path: &Path) -> Result<Self, Mistakes> {
        written(&text_of(path)?, &environment(), Available::here).map(|(_, config)| config)
    }

    /// Reads a configuration from the text of a file, for this machine.
    ///
    /// # Errors
    /// All mistakes.
    pub fn build_here(file: &str) -> Result<Self, Mistakes> {
        written(file, &[], Available::here).map(|(_, config)| config)
    }

    /// Reads a configuration from the text of a file and from variables as in the environment, as for a machine with 16 GiB: the same wherever it
    /// is read.
    ///
    /// # Errors
    /// All mistakes.
    pub fn build(file: &str, environment: &[(String, String)]) -> Result<Self, Mistakes> {
        written(file, environment, || Ok(Available::nowhere())).map(|(_, config)| config)
    }

    /// Returns the file and the environment of the process over the defaults, as one complete file without secrets.
    ///
    /// # Errors
    /// All mistakes.
    pub fn print(path: &Path) -> Result<String, Mistakes> {
        Self::print_text(&text_of(path)?, &environment(), Available::here)
    }

    fn print_text(
        file: &str,
        environment: &[(String, String)],
        machine: Machine,
    ) -> Result<String, Mistakes> {
        let (mut file, config) = written(file, environment, machine)?;
        hide_secrets(&mut file);
        for task in 0..file.funnel.tasks.len() {
            file.funnel.tasks[task].prior = Some(file.funnel.prior(task));
        }
        let bounds = &config.memory.bounds;
        file.memory.limit = Amount::Size(Size::bytes(bounds.limit));
        file.open.max_bytes = Size::bytes(bounds.of(Share::Open)).to_string();
        file.table.max_rows = bounds.rows;
        let comment: String = config.memory.lines().map(|line| format!("# {line}\n")).collect();
        toml::to_string_pretty(&file).map(|text| comment + &text).map_err(|error| {
            let mut mistakes = Mistakes::none();
            mistakes.add_at(None, format!("the configuration cannot be written: {error}"));
            mistakes
        })
    }
}

fn written(
    file: &str,
    environment: &[(String, String)],
    machine: Machine,
) -> Result<(file::Config, Config), Mistakes> {
    let mut mistakes = Mistakes::none();
    let written = read(file, environment, &mut mistakes);
    match validate::validate(&written, machine, mistakes) {
        Ok(config) => Ok((written, config)),
        Err(mut mistakes) => {
            mistakes.place(|path| line_of(file, path));
            Err(mistakes)
        }
    }
}

fn text_of(path: &Path) -> Result<String, Mistakes> {
    std::fs::read_to_string(path).map_err(|error| {
        let mut mistakes = Mistakes::none();
        mistakes.add_at(None, format!("cannot read the file {}: {error}", path.display()));
        mistakes
    })
}

fn environment() -> Vec<(String, String)> {
    let mut variables: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    variables.sort();
    variables
}

fn hide_secrets(file: &mut file::Config) {
    for (_, value) in file.kafka.extra.iter_mut().filter(|(key, _)| !is_shown(key)) {
        *value = toml::Value::String(HIDDEN.into());
    }
}
