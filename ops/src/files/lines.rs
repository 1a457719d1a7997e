//! Lines of an input, as every subcommand reads them.

use std::io::{self, BufRead, Read};
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use sluice_daemon::shutdown::Shutdown;

use super::foreign::{Foreign, LONE_RETURNS, has_lone_returns, no_record};
use super::identity::Identity;
use super::input::open;
use super::stoppable::Stopped;

/// A longer line is not kept, only counted: a file without line ends must not fill the memory.
const LONGEST: usize = 16 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines of an input.
///
/// A line ends with `\n` or `\r\n`, which do not belong to it, or with the input. A byte order mark at its beginning does not belong
/// to it either. Lines without anything but spaces are passed over.
pub struct Lines {
    name: String,
    identity: Identity,
    reader: Box<dyn BufRead + Send>,
    number: u64,
    line: Vec<u8>,
    again: bool,
    stop: Shutdown,
}

/// A line, if it could be kept.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Its bytes.
    Whole(&'a mut [u8]),
    /// It has more bytes than a line may have.
    TooLong,
}

/// What is wrong with a [`Line::TooLong`].
pub const TOO_LONG: &str = "expected a line of at most 16 MiB";

impl Lines {
    /// Looks at the first line.
    pub(super) fn open(
        name: String,
        identity: Identity,
        reader: Box<dyn BufRead + Send>,
        stop: Shutdown,
    ) -> Result<Self> {
        let line = Vec::new();
        let mut lines = Self { name, identity, reader, number: 0, line, again: false, stop };
        lines.again = lines.read()?.is_some();
        if lines.again && has_lone_returns(&lines.line) {
            let expected = "expected lines that end with LF or CRLF, found";
            bail!(Foreign(format!("{}: {expected} {LONE_RETURNS}", lines.name)));
        }
        Ok(lines)
    }

    /// Refuses JSON that is not laid out as one record a line, by its first line.
    fn ensure_records(&mut self) -> Result<()> {
        match no_record(&self.line) {
            Some(found) => bail!(Foreign(format!(
                "{}: expected one JSON object a line, found {found}",
                self.name
            ))),
            None => Ok(()),
        }
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Returns how the input is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets the last line be read once more.
    pub fn read_again(&mut self) {
        self.again = true;
    }

    /// Returns the next line and its number, from 1; none at the end.
    ///
    /// # Errors
    /// When the input cannot be read on, with the number of the last whole line: it is damaged or cut off.
    pub fn read(&mut self) -> Result<Option<(u64, Line<'_>)>> {
        loop {
            if !std::mem::take(&mut self.again) && !self.fill()? {
                return Ok(None);
            }
            if self.line.len() > LONGEST {
                return Ok(Some((self.number, Line::TooLong)));
            }
            if self.line.iter().any(|byte| *byte != b' ') {
                return Ok(Some((self.number, Line::Whole(&mut self.line))));
            }
        }
    }

    /// Reads the next line into the buffer; says whether there was one.
    fn fill(&mut self) -> Result<bool> {
        self.line.clear();
        // One more for each byte of the line's end and of the mark.
        let most = LONGEST + 2 + BYTE_ORDER_MARK.len();
        let read = self.reader.by_ref().take(most as u64 + 1).read_until(b'\n', &mut self.line);
        let cut = |error: io::Error| match self.stop.is_requested() {
            true if self.number == 0 => {
                anyhow!(Stopped(format!("before the first line of {}", self.name)))
            }
            true => anyhow!(Stopped(format!("behind {}, line {}", self.name, self.number))),
            false => anyhow!(error).context(format!(
                "{}: cannot be read behind line {}: it is damaged or cut off",
                self.name, self.number
            )),
        };
        if read.map_err(cut)? == 0 {
            return Ok(false);
        }
        if self.line.last() != Some(&b'\n') && self.line.len() > most {
            self.reader.skip_until(b'\n').map_err(cut)?;
        }
        self.number += 1;
        let ends = [b"\n", b"\r"].map(|end: &[u8; 1]| end.as_slice());
        let mut length = self.line.len();
        for end in ends {
            length -= usize::from(self.line[..length].ends_with(end));
        }
        self.line.truncate(length);
        if self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(true)
    }
}

/// Shows every line of a path's inputs, each to be a record, to `take`, with the input's name and the line's number.
///
/// # Errors
/// When an input cannot be opened or read to its end, or is JSON that is laid out otherwise; [`Stopped`]; what `take` returns.
pub fn for_each_line(
    path: &Path,
    stop: &Shutdown,
    mut take: impl FnMut(&str, u64, Line<'_>) -> Result<()>,
) -> Result<()> {
    for input in open(path, stop)? {
        let name = input.name().to_owned();
        let mut lines = input.lines()?;
        lines.ensure_records()?;
        while let Some((number, line)) = lines.read()? {
            take(&name, number, line)?;
        }
    }
    Ok(())
}
