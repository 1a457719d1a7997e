//! Lines that are read on a thread of their own: whoever takes them can stop waiting for an input in which nothing comes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result};

use super::lines::{Line, for_each_line};

/// Lines that may wait to be taken.
const WAITING: usize = 1024;

/// A line, and where it stands.
pub struct Placed {
    /// The input's name.
    pub name: Arc<str>,
    /// The line's number, from 1.
    pub number: u64,
    /// The line; none where it is too long.
    line: Option<Vec<u8>>,
}

impl Placed {
    /// Returns the line.
    pub fn line(&mut self) -> Line<'_> {
        self.line.as_mut().map_or(Line::TooLong, |line| Line::Whole(line))
    }
}

/// Reads the lines of all paths, one path after the other. An error is the last thing that comes; the thread ends by itself when nobody
/// takes its lines any more.
///
/// # Errors
/// When there is no thread to be had.
pub fn read_apart(paths: Vec<PathBuf>) -> Result<Receiver<Result<Placed>>> {
    let (sender, lines) = sync_channel(WAITING);
    let read = move || {
        let mut name: Arc<str> = Arc::from("");
        let ended = paths.iter().try_for_each(|path| {
            for_each_line(path, |input, number, line| {
                if *name != *input {
                    name = Arc::from(input);
                }
                let line = match line {
                    Line::Whole(line) => Some(line.to_vec()),
                    Line::TooLong => None,
                };
                sender.send(Ok(Placed { name: Arc::clone(&name), number, line }))?;
                Ok(())
            })
        });
        if let Err(error) = ended {
            // Where nobody takes lines any more, that is the error.
            drop(sender.send(Err(error)));
        }
    };
    std::thread::Builder::new().name("reads".into()).spawn(read).context("a thread that reads")?;
    Ok(lines)
}
