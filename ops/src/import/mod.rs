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
mod record;
mod rees46;
mod retailrocket;
mod sort;
mod stream;
mod table;
mod taobao;

use std::path::PathBuf;

#[cfg(test)]
use anyhow::Context;
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::files::{self, Output};
use sluice_daemon::say::note;
use sluice_daemon::shutdown::Shutdown;
use stream::{Report, Stream};
use table::{Kind, Phase, Row, RowError, Table};

/// What to import, and where to.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The data set
    dataset: Dataset,
    /// Its files, or folders of them; also .gz, .zst, .xz and .zip; - is standard input
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
/// When a file cannot be read to its end, is of no known kind, or holds no event; when the output is an input or cannot be
/// written. Rows that cannot be understood are left out, and reported on standard error.
pub fn run(arguments: &Arguments) -> Result<()> {
    let output = arguments.output.as_deref();
    let stop = Shutdown::new();
    let kinds = importer(arguments.dataset).kinds();
    let mut tables = table::find(&arguments.paths, kinds, &stop)?;
    files::ensure_apart(output, tables.iter().map(Table::lines), &[])?;
    files::stop_clean(&[output], &stop)?;
    let output = Output::create(output)?;
    let (report, ended) = import(arguments.dataset, &mut tables, output, &stop);
    if ended.is_err() {
        note("read until then:\n");
    }
    note(&report.to_string());
    ended
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

fn import(
    dataset: Dataset,
    tables: &mut [Table],
    output: Output,
    stop: &Shutdown,
) -> (Report, Result<()>) {
    let mut stream = Stream::new(output);
    let read = read_all(dataset, tables, &mut stream);
    let read = read.and_then(|()| stream.ensure_few_left_out());
    end(stream, read, stop)
}

fn end(stream: Stream, read: Result<()>, stop: &Shutdown) -> (Report, Result<()>) {
    match read {
        Ok(()) => stream.finish(stop),
        Err(error) => (stream.give_up(), Err(error)),
    }
}

fn read_all(dataset: Dataset, tables: &mut [Table], stream: &mut Stream) -> Result<()> {
    let mut importer = importer(dataset);
    for phase in [Phase::Events, Phase::Items, Phase::Users] {
        if phase == Phase::Items {
            ensure!(stream.any_event(), "{}", no_events(tables));
        }
        for table in tables.iter_mut().filter(|table| table.kind.phase == phase) {
            read(table, importer.as_mut(), stream)?;
        }
        if phase == Phase::Items {
            importer.finish(stream)?;
        }
    }
    Ok(())
}

fn read(table: &mut Table, importer: &mut dyn Importer, stream: &mut Stream) -> Result<()> {
    let (name, kind) = (table.lines().name().to_owned(), table.kind.name);
    table.for_each(|line, row| {
        stream.count_row();
        match row.and_then(|row| importer.row(kind, &row, stream)) {
            Ok(()) => Ok(()),
            Err(RowError::Bad(reason)) => {
                stream.leave_out(&name, line, &reason);
                Ok(())
            }
            Err(RowError::Fatal(error)) => Err(error),
        }
    })
}

fn no_events(tables: &[Table]) -> String {
    let names: Vec<_> = tables.iter().map(|table| table.lines().name()).collect();
    format!("expected events, found none in {}", names.join(", "))
}

/// Imports files as the command does, however many rows are left out, and returns the lines that it would write.
#[cfg(test)]
fn import_paths(dataset: Dataset, paths: &[PathBuf]) -> Result<(Vec<serde_json::Value>, String)> {
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("output.jsonl.zst");
    let stop = Shutdown::new();
    let mut tables = table::find(paths, importer(dataset).kinds(), &stop)?;
    let mut stream = Stream::new(Output::create(Some(&output))?);
    let read = read_all(dataset, &mut tables, &mut stream);
    let (report, ended) = end(stream, read, &stop);
    ended.with_context(|| report.to_string())?;
    let mut lines = Vec::new();
    files::for_each_line(&output, &stop, |_, _, line| {
        let files::Line::Whole(line) = line else { anyhow::bail!(files::TOO_LONG) };
        lines.push(serde_json::from_slice(line)?);
        Ok(())
    })?;
    Ok((lines, report.to_string()))
}

#[cfg(test)]
mod tests;
