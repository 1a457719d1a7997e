//! Tables of a data set: files of separated columns, known by what their columns are.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::record::{Dialect, Record};
use crate::files::{self, Foreign, Input, Line, Lines, TOO_LONG};
use sluice_daemon::say::note;
use sluice_daemon::shutdown::Shutdown;

/// When the rows of a table are read: events first, for items and users take the first event's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Events,
    Items,
    Users,
}

/// A kind of file of a data set, and how to know it.
#[derive(Debug)]
pub(super) struct Kind {
    /// What it is called in messages.
    pub(super) name: &'static str,
    pub(super) phase: Phase,
    /// Columns that it has.
    has: &'static [&'static str],
    /// Columns that it does not have, where `has` alone would fit another kind too.
    lacks: &'static [&'static str],
    /// What stands between columns.
    dialect: Dialect,
    /// For files without a header: whether a first row looks like one of this kind, whose columns are
    /// then those of `has`, in that order.
    headless: Option<fn(&Record) -> bool>,
}

/// Why a row was not taken.
#[derive(Debug)]
pub(super) enum RowError {
    /// The row cannot be understood: left out, and reported.
    Bad(String),
    /// The import cannot go on.
    Fatal(anyhow::Error),
}

impl From<anyhow::Error> for RowError {
    fn from(error: anyhow::Error) -> Self {
        Self::Fatal(error)
    }
}

/// A file of a known kind, opened and read to its first row.
pub(super) struct Table {
    pub(super) kind: &'static Kind,
    /// The columns' names.
    header: Record,
    lines: Lines,
}

/// One row of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    header: &'a Record,
    record: &'a Record,
}

/// Opens the tables among files, archives and folders.
///
/// A file that is named must be of a known kind; one that merely lies in a folder or an archive is skipped with a word on standard
/// error.
pub(super) fn find(
    paths: &[PathBuf],
    kinds: &'static [Kind],
    stop: &Shutdown,
) -> Result<Vec<Table>> {
    let (folders, files): (Vec<_>, Vec<_>) = paths.iter().cloned().partition(|path| path.is_dir());
    files::check(&files)?;
    let (mut tables, mut places) = (Vec::new(), HashSet::new());
    for path in paths {
        let is_folder = folders.contains(path);
        let files = if is_folder { files_of(path)? } else { vec![path.clone()] };
        for file in files {
            // Its rows would be there twice. What can be read only once has no such place.
            let again = fs::canonicalize(&file).is_ok_and(|place| !places.insert(place));
            ensure!(
                !again,
                "{}: expected each file once, found it given twice",
                files::shown(&file)
            );
            let inputs = files::open(&file, stop)?;
            let may_skip = is_folder || inputs.len() > 1;
            for input in inputs {
                match Table::open(input, kinds)? {
                    Ok(table) => tables.push(table),
                    Err(unknown) if may_skip => note(&format!("skipped {unknown}\n")),
                    Err(unknown) => bail!(unknown),
                }
            }
        }
    }
    let is_log = |kind: &&Kind| kind.phase == Phase::Events;
    ensure!(
        tables.iter().any(|table| is_log(&table.kind)),
        "{}: expected {}, found none",
        paths.iter().map(|path| files::shown(path)).collect::<Vec<_>>().join(", "),
        expected(kinds.iter().filter(is_log))
    );
    Ok(tables)
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let name = || folder.display().to_string();
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(name)? {
        let path = entry.with_context(name)?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn expected<'a>(kinds: impl Iterator<Item = &'a Kind>) -> String {
    let kinds: Vec<_> = kinds
        .map(|kind| {
            let header = if kind.headless.is_some() { ", with or without a header" } else { "" };
            format!("{} with the columns {}{header}", kind.name, kind.has.join(", "))
        })
        .collect();
    kinds.join("; or ")
}

impl Table {
    /// Reads the first row; returns what was expected and found where it is of no known kind.
    fn open(input: Input, kinds: &'static [Kind]) -> Result<Result<Self, String>> {
        let name = input.name().to_owned();
        let mut lines = match input.lines() {
            Ok(lines) => lines,
            Err(error) if error.is::<Foreign>() => return Ok(Err(error.to_string())),
            Err(error) => return Err(error),
        };
        let unknown = |found: &str| {
            Ok(Err(format!("{name}: expected {}, found {found}", expected(kinds.iter()))))
        };
        let first = match lines.read()? {
            None => return unknown("nothing"),
            Some((_, Line::TooLong)) => return unknown("a first line of more than 16 MiB"),
            Some((_, Line::Whole(line))) => match std::str::from_utf8(line) {
                Ok(line) => line.to_owned(),
                Err(_) => return unknown("bytes that are no text"),
            },
        };
        if first.trim_start().starts_with(['{', '[']) {
            return unknown("JSON: the files of the data set are to be given, not records");
        }
        let mut found = String::new();
        for kind in kinds {
            let mut record = Record::default();
            if let Err(reason) = record.split(&first, kind.dialect) {
                found = format!("a first line of other columns ({reason})");
            } else if kind.has_header(&record) {
                return Ok(Ok(Self { kind, header: record, lines }));
            } else if kind.headless.is_some_and(|looks| looks(&record)) {
                lines.read_again();
                return Ok(Ok(Self { kind, header: kind.has.iter().copied().collect(), lines }));
            } else {
                found = record.iter().collect::<Vec<_>>().join(", ").chars().take(300).collect();
            }
        }
        unknown(&found)
    }

    /// Returns the lines, of which some are read already.
    pub(super) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Calls with the line and the row, for every row behind the header. Every line is a row, good or bad.
    pub(super) fn for_each(
        &mut self,
        mut take: impl FnMut(u64, Result<Row<'_>, RowError>) -> Result<()>,
    ) -> Result<()> {
        let mut record = Record::default();
        while let Some((number, line)) = self.lines.read()? {
            take(number, row(&mut record, &self.header, line, self.kind.dialect))?;
        }
        Ok(())
    }
}

/// Splits a line into a record that is used again and again.
fn row<'a>(
    record: &'a mut Record,
    header: &'a Record,
    line: Line<'_>,
    dialect: Dialect,
) -> Result<Row<'a>, RowError> {
    let Line::Whole(line) = line else { return Err(RowError::Bad(TOO_LONG.to_owned())) };
    let bad = |_| RowError::Bad(String::from("expected UTF-8, found other bytes"));
    let line = std::str::from_utf8(line).map_err(bad)?;
    record.split(line, dialect).map_err(RowError::Bad)?;
    let (columns, fields) = (header.len(), record.len());
    if columns == fields {
        Ok(Row { header, record })
    } else {
        Err(RowError::Bad(format!("expected {columns} columns, found {fields}")))
    }
}

impl Kind {
    /// Returns a kind of file with these columns behind a header, and commas between them.
    pub(super) const fn of(name: &'static str, phase: Phase, has: &'static [&'static str]) -> Self {
        Self { name, phase, has, lacks: &[], dialect: Dialect::Commas, headless: None }
    }

    /// Returns the same without these columns.
    pub(super) const fn lacking(self, lacks: &'static [&'static str]) -> Self {
        Self { lacks, ..self }
    }

    /// Returns the same with tabs between the columns.
    pub(super) const fn of_tabs(self) -> Self {
        Self { dialect: Dialect::Tabs, ..self }
    }

    /// Returns the same that may come without its header.
    pub(super) const fn or_headless(self, looks: fn(&Record) -> bool) -> Self {
        Self { headless: Some(looks), ..self }
    }

    /// Says whether the first row is the header of one of this kind.
    fn has_header(&self, first: &Record) -> bool {
        // RecBole writes the type behind the name: `user_id:token`.
        let has = |name: &&str| first.iter().any(|column| plain(column) == *name);
        self.has.iter().all(has) && !self.lacks.iter().any(has)
    }
}

fn plain(column: &str) -> &str {
    column.split(':').next().unwrap_or(column)
}

impl<'a> Row<'a> {
    /// Returns the value of a column, unless there is no such column or the value is empty.
    pub(super) fn get(&self, column: &str) -> Option<&'a str> {
        let index = self.header.iter().position(|name| plain(name) == column)?;
        self.record.get(index).filter(|value| !value.is_empty())
    }

    /// Returns the value of a column that must not be empty.
    pub(super) fn need(&self, column: &str) -> Result<&'a str, RowError> {
        self.get(column).ok_or_else(|| {
            RowError::Bad(format!("expected a value in column {column}, found none"))
        })
    }

    /// Returns the value of a column as a number, if there is one.
    pub(super) fn number(&self, column: &str) -> Result<Option<f64>, RowError> {
        self.get(column).map(|text| number(column, text)).transpose()
    }

    /// Returns whether a column says 1; without a value it does not.
    pub(super) fn flag(&self, column: &str) -> Result<bool, RowError> {
        match self.get(column) {
            Some("1") => Ok(true),
            Some("0") | None => Ok(false),
            Some(_) => Err(RowError::Bad(format!("expected 0 or 1 in column {column}"))),
        }
    }

    /// Returns all columns with their types (`token` where none is written) and values.
    pub(super) fn columns(&self) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
        self.header.iter().zip(self.record.iter()).map(|(column, value)| {
            let (name, kind) = column.split_once(':').unwrap_or((column, "token"));
            (name, kind, value)
        })
    }
}

/// Reads a number that a record may carry: finite, and within the range of an f32.
pub(super) fn number(column: &str, text: &str) -> Result<f64, RowError> {
    match text.parse::<f64>() {
        Ok(number) if number.abs() <= f64::from(f32::MAX) => Ok(number),
        _ => Err(RowError::Bad(format!("expected a finite number in column {column}"))),
    }
}
