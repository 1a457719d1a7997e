//! Inputs: files, pipes and standard input, opened once and known by their first bytes.

use std::fs::{self, File};
use std::io::{self, BufRead, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sluice_daemon::shutdown::Shutdown;

use super::ahead::Ahead;
use super::archive;
use super::compressed::{Format, Parts, Source};
use super::foreign::{Foreign, TELLING, foreign, foreign_archive};
use super::identity::Identity;
use super::lines::Lines;
use super::stoppable::{Apart, Stoppable, Stopped};

/// A file of lines that was opened and not yet read.
pub struct Input {
    name: String,
    reader: Box<dyn BufRead + Send>,
    identity: Identity,
    /// Why its lines are of no use, where the first bytes say so.
    foreign: Option<&'static str>,
    stop: Shutdown,
}

/// Says whether a path is standard input.
fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Returns a second handle to standard input, which shares its place.
fn stdin() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Returns how a path is called in messages.
pub fn shown(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

fn identity(path: &Path) -> Result<Identity> {
    let metadata = if is_stdin(path) { stdin()?.metadata() } else { fs::metadata(path) };
    let metadata = metadata.with_context(|| shown(path))?;
    ensure!(!metadata.is_dir(), "{}: expected a file, found a folder", shown(path));
    Ok(Identity::of(&metadata))
}

/// Looks at all inputs before the first is read: each must be there and be a file, and what can be read only once must not be given
/// twice.
///
/// # Errors
/// Names the first that will not do.
pub fn check(paths: &[PathBuf]) -> Result<()> {
    let mut once = Vec::new();
    for path in paths {
        let identity = identity(path)?;
        if !identity.is_regular() {
            let twice = "can be read only once, found it given twice";
            ensure!(!once.contains(&identity), "{}: {twice}", shown(path));
            once.push(identity);
        }
    }
    Ok(())
}

/// As [`check`], for inputs that will be read more than once.
///
/// # Errors
/// Names the first that can be read only once, or is not there.
pub fn check_rereadable(paths: &[PathBuf], why: &str) -> Result<()> {
    for path in paths {
        let regular = identity(path)?.is_regular() && !is_stdin(path);
        ensure!(regular, "{}: {why}: give a file, not standard input or a pipe", shown(path));
    }
    Ok(())
}

/// Opens a file, a pipe or, as `-`, standard input, and unpacks it if need be: gzip, zstd, xz, lzma, or a zip archive, each file of which
/// is an input. It is opened once and read from its beginning on, so that what can be read only once loses nothing. Reading ends when
/// it is asked to `stop`.
///
/// # Errors
/// When it cannot be opened, or its beginning cannot be read; [`Stopped`].
pub fn open(path: &Path, stop: &Shutdown) -> Result<Vec<Input>> {
    let (name, identity) = (shown(path), identity(path)?);
    let inputs = inputs(path, &name, identity, stop);
    if inputs.is_err() && stop.is_requested() {
        bail!(Stopped(format!("before the first line of {name}")));
    }
    inputs.with_context(|| format!("{name}: cannot be read"))
}

fn open_file(path: &Path) -> io::Result<File> {
    if is_stdin(path) { stdin() } else { File::open(path) }
}

fn inputs(path: &Path, name: &str, identity: Identity, stop: &Shutdown) -> Result<Vec<Input>> {
    let stoppable = |reader| Ahead::new(Box::new(Stoppable { reader, stop: stop.clone() }) as _);
    let (mut source, again): (Source, _) = if identity.is_regular() {
        let file = open_file(path)?;
        (stoppable(Box::new(file.try_clone()?) as Box<dyn Read + Send>), Some(file))
    } else {
        let path = path.to_owned();
        let apart = Apart::read(move || open_file(&path), stop.clone())?;
        (Ahead::new(Box::new(apart)), None)
    };
    if Format::of(source.peek(Format::TELLING)?) != Format::Zip {
        return Ok(vec![Input::of(name.to_owned(), source, identity, stop)?]);
    }
    // The list of an archive's files stands at its end: what cannot be read again goes to a file without a name first.
    let archive = match again {
        Some(file) => file,
        None => {
            let mut copy =
                tempfile::tempfile().context("temporary folder (TMPDIR sets another)")?;
            io::copy(&mut source, &mut copy)?;
            copy
        }
    };
    let members = archive::members(archive)?;
    let found = foreign_archive(members.iter().map(|member| member.name.as_str()));
    if found.is_some() {
        let (name, reader, stop) = (name.to_owned(), Box::new(io::empty()), stop.clone());
        return Ok(vec![Input { name, reader, identity, foreign: found, stop }]);
    }
    let inputs = members.into_iter().map(|member| {
        let name = format!("{name}:{}", member.name);
        let source = stoppable(member.reader);
        Input::of(name.clone(), source, identity, stop).with_context(|| name)
    });
    inputs.collect()
}

impl Input {
    fn of(name: String, mut source: Source, identity: Identity, stop: &Shutdown) -> Result<Self> {
        let (reader, foreign): (Box<dyn BufRead + Send>, _) =
            match Format::of(source.peek(Format::TELLING)?) {
                Format::Gzip | Format::Zstd | Format::Xz | Format::Lzma => {
                    let mut text = Ahead::new(Parts::new(source));
                    let foreign = foreign(text.peek(TELLING)?);
                    (Box::new(text), foreign)
                }
                Format::Plain | Format::Zip => {
                    let foreign = foreign(source.peek(TELLING)?);
                    (Box::new(source), foreign)
                }
            };
        Ok(Self { name, reader, identity, foreign, stop: stop.clone() })
    }

    /// Returns how it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads it line by line.
    ///
    /// # Errors
    /// [`Foreign`] when it is no text that could be read, with what to do about it; when its first line cannot be read.
    pub fn lines(self) -> Result<Lines> {
        if let Some(foreign) = self.foreign {
            bail!(Foreign(format!("{}: expected lines of UTF-8, found {foreign}", self.name)));
        }
        Lines::open(self.name, self.identity, self.reader, self.stop)
    }
}
