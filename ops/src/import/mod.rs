//! `sluice import`: public data sets as event, item and user records.
//!
//! Files are known by their columns, not by their names. Events come out in time order across all
//! files (rows of one time in the order in which they were read), behind the items and users, whose
//! `ts` is the time of the first event. An outcome that stands in the row of its impression has the
//! impression's time and follows it directly.
//!
//! Memory: rows are rendered as they are read and sorted in runs of 256 MiB, which spill to the
//! system's temporary folder and are merged at the end, so that a log of any length fits. Beside that
//! an importer keeps the distinct items of a log that carries the items' features itself (`taobao`,
//! `rees46`, and the properties of `retailrocket`): about 100 to 200 bytes an item.

pub(crate) mod calendar;
mod first_seen;
mod ids;
mod kuairand;
mod movielens;
mod rees46;
mod retailrocket;
mod sort;
mod stream;
mod table;
mod taobao;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::files::Output;
use stream::Stream;
use table::{Kind, Phase, Row, RowError, Table};

/// What to import, and where to.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The data set
    dataset: Dataset,
    /// Its files, or folders of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The file to write (`.gz` and `.zst` compress) instead of standard output
    #[arg(long, short)]
    output: Option<PathBuf>,
}

/// A data set that can be imported.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Dataset {
    /// KuaiRand: a short-video feed, one row an impression with its outcomes
    Kuairand,
    /// Taobao UserBehavior: views, carts, favourites, purchases
    Taobao,
    /// RetailRocket: views, carts, transactions, item properties
    Retailrocket,
    /// REES46: views, carts, purchases of a shop of many categories
    Rees46,
    /// MovieLens as RecBole's atomic files: ratings
    Movielens,
}

/// What knows the files of one data set.
trait Importer {
    /// The kinds of files of the data set.
    fn kinds(&self) -> &'static [Kind];

    /// Takes one row of a file of a kind.
    fn row(
        &mut self,
        kind: &'static str,
        row: &Row<'_>,
        stream: &mut Stream,
    ) -> Result<(), RowError>;

    /// Gives the items that were gathered from the rows of other files, once all events are known.
    fn finish(&mut self, _stream: &mut Stream) -> Result<()> {
        Ok(())
    }
}

/// Reads the files and writes the records.
///
/// # Errors
/// When a file cannot be read, is of no known kind, or holds no event; when the output cannot be
/// written. Rows that cannot be understood are left out, and reported on standard error.
pub fn run(arguments: &Arguments) -> Result<()> {
    let tables = table::find(&arguments.paths, importer(arguments.dataset).kinds())?;
    let output = Output::create(arguments.output.as_deref())?;
    let report = import(arguments.dataset, &tables, output)?;
    eprint!("{report}");
    Ok(())
}

fn importer(dataset: Dataset) -> Box<dyn Importer> {
    match dataset {
        Dataset::Kuairand => Box::new(kuairand::Kuairand),
        Dataset::Taobao => Box::new(taobao::Taobao::default()),
        Dataset::Retailrocket => Box::new(retailrocket::Retailrocket::default()),
        Dataset::Rees46 => Box::new(rees46::Rees46::default()),
        Dataset::Movielens => Box::new(movielens::Movielens),
    }
}

fn import(dataset: Dataset, tables: &[Table], output: Output) -> Result<stream::Report> {
    let mut importer = importer(dataset);
    let mut stream = Stream::new(output);
    for phase in [Phase::Events, Phase::Items, Phase::Users] {
        if phase == Phase::Items {
            ensure!(stream.any_event(), "{}", no_events(tables, &stream));
        }
        for table in tables.iter().filter(|table| table.kind.phase == phase) {
            read(table, importer.as_mut(), &mut stream)?;
        }
        if phase == Phase::Items {
            importer.finish(&mut stream)?;
        }
    }
    stream.finish()
}

fn read(table: &Table, importer: &mut dyn Importer, stream: &mut Stream) -> Result<()> {
    table.for_each(|line, row| {
        match row.and_then(|row| importer.row(table.kind.name, &row, stream)) {
            Ok(()) => Ok(()),
            Err(RowError::Bad(reason)) => {
                stream.leave_out(&table.path, line, &reason);
                Ok(())
            }
            Err(RowError::Fatal(error)) => Err(error),
        }
    })
}

fn no_events(tables: &[Table], stream: &Stream) -> String {
    let names: Vec<_> = tables.iter().map(|table| table.path.display().to_string()).collect();
    format!("expected events, found none in {}\n{}", names.join(", "), stream.report())
}

/// Imports files as the command does, and returns the lines that it would write.
#[cfg(test)]
fn import_paths(dataset: Dataset, paths: &[PathBuf]) -> Result<(Vec<serde_json::Value>, String)> {
    use std::io::BufRead;

    let folder = tempfile::tempdir()?;
    let output = folder.path().join("output.jsonl.zst");
    let tables = table::find(paths, importer(dataset).kinds())?;
    let report = import(dataset, &tables, Output::create(Some(&output))?)?;
    let lines = crate::files::open(&output)?.lines();
    let lines = lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect::<Result<_>>()?;
    Ok((lines, report.to_string()))
}

#[cfg(test)]
mod tests;
