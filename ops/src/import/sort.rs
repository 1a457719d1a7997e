//! A sort by time of more bytes than fit into memory: runs are sorted in memory, spilled to
//! temporary files, and merged. Stable: records of one time keep their order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use anyhow::{Context, Result};

const RUN_BYTES: usize = 256 << 20;

/// Takes records in any order.
pub(super) struct TimeSorter {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    run_bytes: usize,
    runs: Vec<File>,
}

/// Where a record lies in the bytes.
#[derive(Clone, Copy)]
struct Entry {
    ts: i64,
    start: u32,
    length: u32,
}

impl TimeSorter {
    pub(super) fn new() -> Self {
        Self::with_run_bytes(RUN_BYTES)
    }

    fn with_run_bytes(run_bytes: usize) -> Self {
        Self { bytes: Vec::new(), entries: Vec::new(), run_bytes, runs: Vec::new() }
    }

    /// Takes a record of a time.
    ///
    /// # Errors
    /// When memory is full and the temporary folder cannot be written.
    pub(super) fn push(&mut self, ts: i64, record: &[u8]) -> Result<()> {
        let used = self.bytes.len() + self.entries.len() * size_of::<Entry>();
        if used + record.len() > self.run_bytes && !self.entries.is_empty() {
            self.spill().context("temporary folder (TMPDIR sets another)")?;
        }
        let (start, length) = (self.bytes.len() as u32, record.len() as u32);
        self.bytes.extend_from_slice(record);
        self.entries.push(Entry { ts, start, length });
        Ok(())
    }

    /// Hands every record, in the order of time, to `take`.
    ///
    /// # Errors
    /// What `take` returns, or when a temporary file cannot be read.
    pub(super) fn drain(mut self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self.runs.is_empty() {
            self.entries.sort_by_key(|entry| entry.ts);
            return self.entries.iter().try_for_each(|entry| take(entry.of(&self.bytes)));
        }
        if !self.entries.is_empty() {
            self.spill()?;
        }
        let mut runs = Vec::with_capacity(self.runs.len());
        for file in self.runs.drain(..) {
            runs.push(Run::open(file)?);
        }
        // Of equal times the earlier run goes first: it was pushed earlier.
        let mut heap: BinaryHeap<_> =
            runs.iter().enumerate().filter_map(|(i, run)| Some(Reverse((run.ts?, i)))).collect();
        while let Some(Reverse((_, i))) = heap.pop() {
            take(&runs[i].record)?;
            runs[i].advance()?;
            heap.extend(runs[i].ts.map(|ts| Reverse((ts, i))));
        }
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        self.entries.sort_by_key(|entry| entry.ts);
        let mut out = BufWriter::new(tempfile::tempfile()?);
        for entry in &self.entries {
            out.write_all(&entry.ts.to_le_bytes())?;
            out.write_all(&entry.length.to_le_bytes())?;
            out.write_all(entry.of(&self.bytes))?;
        }
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        self.runs.push(file);
        self.bytes.clear();
        self.entries.clear();
        Ok(())
    }
}

impl Entry {
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..][..self.length as usize]
    }
}

/// A spilled run and its next record.
struct Run {
    file: BufReader<File>,
    left: u64,
    /// The time of the next record; none at the end.
    ts: Option<i64>,
    record: Vec<u8>,
}

impl Run {
    fn open(file: File) -> Result<Self> {
        let left = file.metadata()?.len();
        let mut run =
            Self { file: BufReader::with_capacity(1 << 18, file), left, ts: None, record: vec![] };
        run.advance()?;
        Ok(run)
    }

    fn advance(&mut self) -> Result<()> {
        self.ts = None;
        if self.left > 0 {
            let (mut ts, mut length) = ([0; 8], [0; 4]);
            self.file.read_exact(&mut ts)?;
            self.file.read_exact(&mut length)?;
            self.record.resize(u32::from_le_bytes(length) as usize, 0);
            self.file.read_exact(&mut self.record)?;
            self.left -= 12 + self.record.len() as u64;
            self.ts = Some(i64::from_le_bytes(ts));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_merge_into_the_order_of_one_stable_sort() {
        let records: Vec<(i64, String)> =
            (0..1000_i64).map(|i| (i * 7919 % 61 - 30, format!("record {i}"))).collect();
        let mut sorted = records.clone();
        sorted.sort_by_key(|record| record.0);
        for run_bytes in [1, 300, 5_000, RUN_BYTES] {
            let mut sorter = TimeSorter::with_run_bytes(run_bytes);
            for (ts, record) in &records {
                sorter.push(*ts, record.as_bytes()).unwrap();
            }
            assert_eq!(sorter.runs.is_empty(), run_bytes == RUN_BYTES);
            let mut found = Vec::new();
            sorter
                .drain(|record| {
                    found.push(String::from_utf8(record.to_vec())?);
                    Ok(())
                })
                .unwrap();
            assert!(found.iter().eq(sorted.iter().map(|record| &record.1)), "{run_bytes}");
        }
    }
}
