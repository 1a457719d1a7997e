//! Inputs: files, pipes and standard input, opened once and known by their first bytes.

use std::fs::{self, File};
use std::io::{self, BufRead};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::ahead::Ahead;
use super::archive;
use super::compressed::{Format, Parts, Source};
use super::identity::Identity;
use super::lines::Lines;

/// So many bytes tell what is no text; what else lies in the buffer is looked at too.
const TELLING: usize = 8;

/// A file of lines that was opened and not yet read.
pub struct Input {
    name: String,
    reader: Box<dyn BufRead + Send>,
    identity: Identity,
    /// Why its lines are of no use, where the first bytes say so.
    foreign: Option<&'static str>,
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

/// Opens a file, a pipe or, as `-`, standard input, and unpacks it if need be: gzip, zstd, xz, or a zip archive, each file of which is
/// an input. It is opened once and read from its beginning on, so that what can be read only once loses nothing.
///
/// # Errors
/// When it cannot be opened, or its beginning cannot be read.
pub fn open(path: &Path) -> Result<Vec<Input>> {
    let name = shown(path);
    let file = if is_stdin(path) { stdin() } else { File::open(path) };
    let file = file.with_context(|| name.clone())?;
    inputs(&name, file).with_context(|| format!("{name}: cannot be read"))
}

fn inputs(name: &str, file: File) -> Result<Vec<Input>> {
    let identity = Identity::of(&file.metadata()?);
    let again = file.try_clone()?;
    let mut source: Source = Ahead::new(Box::new(file));
    if Format::of(source.peek(Format::TELLING)?) != Format::Zip {
        return Ok(vec![Input::of(name.to_owned(), source, identity)?]);
    }
    // The list of an archive's files stands at its end: what cannot be read again goes to a file without a name first.
    let archive = if identity.is_regular() {
        again
    } else {
        let mut copy = tempfile::tempfile().context("temporary folder (TMPDIR sets another)")?;
        io::copy(&mut source, &mut copy)?;
        copy
    };
    let members = archive::members(archive)?.into_iter();
    members
        .map(|member| {
            let source: Source = Ahead::new(member.reader);
            let name = format!("{name}:{}", member.name);
            Input::of(name.clone(), source, identity).with_context(|| name)
        })
        .collect()
}

impl Input {
    fn of(name: String, mut source: Source, identity: Identity) -> Result<Self> {
        let (reader, foreign): (Box<dyn BufRead + Send>, _) =
            match Format::of(source.peek(Format::TELLING)?) {
                Format::Gzip | Format::Zstd | Format::Xz => {
                    let mut text = Ahead::new(Parts::new(source));
                    let foreign = foreign(text.peek(TELLING)?);
                    (Box::new(text), foreign)
                }
                Format::Plain | Format::Zip => {
                    let foreign = foreign(source.peek(TELLING)?);
                    (Box::new(source), foreign)
                }
            };
        Ok(Self { name, reader, identity, foreign })
    }

    /// Returns how it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads it line by line.
    ///
    /// # Errors
    /// When it is no text that could be read, with what to do about it.
    pub fn lines(self) -> Result<Lines> {
        if let Some(foreign) = self.foreign {
            bail!("{}: expected lines of UTF-8, found {foreign}", self.name);
        }
        Ok(Lines::new(self.name, self.identity, self.reader))
    }
}

/// Says what a file is, where its first bytes say that it has no lines of ours.
fn foreign(start: &[u8]) -> Option<&'static str> {
    if start.get(257..262) == Some(b"ustar") {
        return Some("a tar archive: unpack it first (tar -xf)");
    }
    Some(match start {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16: convert it first (iconv -t UTF-8)",
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => "bzip2: unpack it first (bunzip2)",
        [0x04, 0x22, 0x4d, 0x18, ..] => "lz4: unpack it first (lz4 -d)",
        [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => "a 7z archive: unpack it first",
        [b'P', b'K', 3, 4, ..] => "a zip archive inside another file: unpack it first",
        [b'P', b'A', b'R', b'1', ..] => "a Parquet file: convert it first",
        _ => return None,
    })
}
