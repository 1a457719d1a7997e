//! Tables of a data set: files of separated columns, known by what their columns are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use csv::{ByteRecord, ReaderBuilder, StringRecord};

use crate::files;

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
    /// The byte between columns.
    separator: u8,
    /// For files without a header: whether a first row looks like one of this kind, whose columns are
    /// then those of `has`, in that order.
    headless: Option<fn(&StringRecord) -> bool>,
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

/// A file of a known kind.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) path: PathBuf,
    pub(super) kind: &'static Kind,
    /// The columns' names.
    header: StringRecord,
}

/// One row of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    header: &'a StringRecord,
    record: &'a StringRecord,
}

/// Finds the tables among files and folders.
///
/// A file that is named must be of a known kind; one that merely lies in a folder is skipped with a
/// word on standard error.
pub(super) fn find(paths: &[PathBuf], kinds: &'static [Kind]) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for path in paths {
        if !path.is_dir() {
            tables.push(Table::open(path, kinds)?);
            continue;
        }
        for file in files_of(path)? {
            match Table::open(&file, kinds) {
                Ok(table) => tables.push(table),
                Err(error) => eprintln!("skipped {error:#}"),
            }
        }
    }
    let is_log = |kind: &&Kind| kind.phase == Phase::Events;
    ensure!(
        tables.iter().any(|table| is_log(&table.kind)),
        "{}: expected {}, found none",
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
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
    fn open(path: &Path, kinds: &'static [Kind]) -> Result<Self> {
        let mut found = String::from("nothing");
        for kind in kinds {
            let mut first = ByteRecord::new();
            let mut reader = reader(path, kind)?;
            let any = reader
                .read_byte_record(&mut first)
                .with_context(|| format!("{}: cannot be read", path.display()))?;
            let Ok(first) = StringRecord::from_byte_record(first) else {
                found = String::from("bytes that are no text");
                continue;
            };
            if !any {
                continue;
            }
            if let Some(header) = kind.header(&first) {
                return Ok(Self { path: path.to_path_buf(), kind, header });
            }
            found = first.iter().collect::<Vec<_>>().join(", ").chars().take(300).collect();
        }
        bail!("{}: expected {}, found {found}", path.display(), expected(kinds.iter()))
    }

    /// Calls with the line and the row, for every row behind the header.
    pub(super) fn for_each(
        &self,
        mut take: impl FnMut(u64, Result<Row<'_>, RowError>) -> Result<()>,
    ) -> Result<()> {
        let mut reader = reader(&self.path, self.kind)?;
        let (mut bytes, mut record) = (ByteRecord::new(), StringRecord::new());
        let mut is_first = true;
        while reader
            .read_byte_record(&mut bytes)
            .with_context(|| format!("{}: cannot be read to its end", self.path.display()))?
        {
            let line = bytes.position().map_or(0, csv::Position::line);
            let row = fill(&mut record, &bytes).and_then(|()| self.row(&record));
            if is_first && record == self.header {
                is_first = false;
                continue;
            }
            is_first = false;
            take(line, row)?;
        }
        Ok(())
    }

    fn row<'a>(&'a self, record: &'a StringRecord) -> Result<Row<'a>, RowError> {
        let (columns, fields) = (self.header.len(), record.len());
        if columns == fields {
            Ok(Row { header: &self.header, record })
        } else {
            Err(RowError::Bad(format!("expected {columns} columns, found {fields}")))
        }
    }
}

/// Copies a record into a buffer that is used again and again, if it is text.
fn fill(record: &mut StringRecord, bytes: &ByteRecord) -> Result<(), RowError> {
    record.clear();
    for field in bytes {
        let bad = |_| RowError::Bad(String::from("expected UTF-8, found other bytes"));
        record.push_field(std::str::from_utf8(field).map_err(bad)?);
    }
    Ok(())
}

fn reader(path: &Path, kind: &Kind) -> Result<csv::Reader<impl std::io::Read>> {
    Ok(ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(kind.separator)
        // Files of tabs have no quotes: a quote in them is a character of a title.
        .quoting(kind.separator != b'\t')
        .from_reader(files::open(path)?))
}

impl Kind {
    /// Returns a kind of file with these columns behind a header, and commas between them.
    pub(super) const fn of(name: &'static str, phase: Phase, has: &'static [&'static str]) -> Self {
        Self { name, phase, has, lacks: &[], separator: b',', headless: None }
    }

    /// Returns the same without these columns.
    pub(super) const fn lacking(self, lacks: &'static [&'static str]) -> Self {
        Self { lacks, ..self }
    }

    /// Returns the same with tabs between the columns.
    pub(super) const fn of_tabs(self) -> Self {
        Self { separator: b'\t', ..self }
    }

    /// Returns the same that may come without its header.
    pub(super) const fn or_headless(self, looks: fn(&StringRecord) -> bool) -> Self {
        Self { headless: Some(looks), ..self }
    }

    /// Returns the names of the columns, if the first row is one of this kind.
    fn header(&self, first: &StringRecord) -> Option<StringRecord> {
        // RecBole writes the type behind the name: `user_id:token`.
        let has = |name: &&str| first.iter().any(|column| plain(column) == *name);
        if self.has.iter().all(has) && !self.lacks.iter().any(has) {
            return Some(first.clone());
        }
        self.headless.filter(|looks| looks(first)).map(|_| self.has.iter().copied().collect())
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
        self.header.iter().zip(self.record).map(|(column, value)| {
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
