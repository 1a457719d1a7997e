//! Outputs: a file that is there when it is whole, or a stream.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use sluice_daemon::shutdown::Shutdown;
use tempfile::{NamedTempFile, TempPath};

use super::identity::Identity;
use super::lines::Lines;

const BUFFER: usize = 1 << 18;

/// Where records are written: a file, compressed if its name ends in `.gz` or `.zst`, or standard
/// output.
///
/// A file is written beside its place, as `NAME.….part`, and moved there by [`Closed::publish`], so that a run that fails leaves
/// what was there before. Pipes and devices are written as it goes.
#[must_use = "an output is there only after finish()"]
pub struct Output {
    sink: Sink,
    beside: Option<Beside>,
}

enum Sink {
    Plain(BufWriter<File>),
    Gzip(BufWriter<GzEncoder<File>>),
    Zstd(BufWriter<zstd::Encoder<'static, File>>),
}

/// A file on its way to its place.
struct Beside {
    /// Where it is; dropping it removes the file.
    part: TempPath,
    /// Where it belongs.
    place: PathBuf,
}

/// An output to which nothing will be added.
#[must_use = "a file is in its place only after publish()"]
pub struct Closed {
    file: File,
    beside: Option<Beside>,
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdout")
}

fn stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Refuses an output that is one of the inputs, or of the other outputs: it would be gone before it was read.
///
/// # Errors
/// Names the output.
pub fn ensure_apart<'a>(
    output: Option<&Path>,
    mut inputs: impl Iterator<Item = &'a Lines>,
    others: &[&Path],
) -> Result<()> {
    let output = output.unwrap_or(Path::new("-"));
    let name =
        if is_stdout(output) { "standard output".into() } else { output.display().to_string() };
    for other in others {
        let same = output == *other || (is_stdout(output) && is_stdout(other));
        ensure!(
            !same && !same_place(output, other),
            "{name}: expected two outputs, found one twice"
        );
    }
    let metadata = if is_stdout(output) { stdout()?.metadata() } else { fs::metadata(output) };
    // What is not there yet is nothing else.
    let Ok(metadata) = metadata else { return Ok(()) };
    let identity = Identity::of(&metadata);
    let input = inputs.find(|input| identity.is_regular() && input.identity() == identity);
    if let Some(input) = input {
        bail!("{name}: is the input {}: write to another file", input.name());
    }
    Ok(())
}

/// Lets signals make a wish to stop before files are begun: the default, which ends the process at once, would leave their parts behind.
/// Filters and writers to devices leave nothing, and end as others of their kind.
///
/// # Errors
/// When signals cannot be watched.
pub fn stop_clean(outputs: &[Option<&Path>], stop: &Shutdown) -> Result<()> {
    let is_file = |path: &Path| {
        !is_stdout(path) && fs::metadata(path).map_or(true, |metadata| metadata.is_file())
    };
    if outputs.iter().flatten().any(|path| is_file(path)) {
        stop.watch_signals().context("signals")?;
    }
    Ok(())
}

/// Says whether two paths of which one or both are not there yet name the same file.
fn same_place(a: &Path, b: &Path) -> bool {
    let place = |path: &Path| -> Option<PathBuf> {
        fs::canonicalize(path)
            .ok()
            .or_else(|| Some(fs::canonicalize(folder(path)).ok()?.join(path.file_name()?)))
    };
    place(a).is_some_and(|a| place(b) == Some(a))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Output {
    /// Begins a file, or takes standard output when there is no path or it is `-`. What is there under that name stays until the
    /// output is published.
    ///
    /// # Errors
    /// When the file could not be written, or its name promises a compression that is not written.
    pub fn create(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path.filter(|path| !is_stdout(path)) else {
            let sink = Sink::Plain(BufWriter::with_capacity(BUFFER, stdout()?));
            return Ok(Self { sink, beside: None });
        };
        let name = || path.display().to_string();
        let (file, beside) = Self::file(path).with_context(name)?;
        let sink = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => {
                let encoder = GzEncoder::new(file, Compression::default());
                Sink::Gzip(BufWriter::with_capacity(BUFFER, encoder))
            }
            Some("zst") => {
                let mut encoder = zstd::Encoder::new(file, 0).with_context(name)?;
                // As the tool does; without it damage goes unnoticed.
                encoder.include_checksum(true).with_context(name)?;
                Sink::Zstd(BufWriter::with_capacity(BUFFER, encoder))
            }
            Some(other @ ("xz" | "zip" | "bz2" | "lz4")) => {
                bail!("{}: expected .gz, .zst or neither, found .{other}", name())
            }
            _ => Sink::Plain(BufWriter::with_capacity(BUFFER, file)),
        };
        Ok(Self { sink, beside })
    }

    fn file(path: &Path) -> Result<(File, Option<Beside>)> {
        ensure!(!path.is_dir(), "expected a file to write, found a folder");
        // Behind a link lies the file itself, which keeps its rights; one that may not be written is not replaced either.
        let mut rights = None;
        let place = match OpenOptions::new().write(true).open(path) {
            Ok(there) => {
                let metadata = there.metadata()?;
                if !metadata.is_file() {
                    return Ok((there, None));
                }
                rights = Some(metadata.permissions());
                fs::canonicalize(path)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_path_buf(),
            Err(error) => return Err(error.into()),
        };
        let folder = folder(&place);
        ensure!(folder.is_dir(), "there is no folder {}: make it first", folder.display());
        let mut name = place.file_name().unwrap_or_default().to_os_string();
        name.push(".");
        let part: NamedTempFile = tempfile::Builder::new()
            .prefix(&name)
            .suffix(".part")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)?;
        let (file, part) = part.into_parts();
        if let Some(rights) = rights {
            file.set_permissions(rights)?;
        }
        Ok((file, Some(Beside { part, place })))
    }

    /// Writes what is still held back, and the end of a compressed file.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn close(self) -> Result<Closed> {
        let file = match self.sink {
            Sink::Plain(out) => inner(out)?,
            Sink::Gzip(out) => inner(out)?.finish()?,
            Sink::Zstd(out) => inner(out)?.finish()?,
        };
        Ok(Closed { file, beside: self.beside })
    }

    /// Closes and publishes it.
    ///
    /// # Errors
    /// When its end cannot be written, or the file cannot be put into its place.
    pub fn finish(self) -> Result<()> {
        self.close()?.publish()
    }
}

impl Closed {
    /// Puts a file into its place.
    ///
    /// # Errors
    /// When that cannot be done; what was there before is still there then.
    pub fn publish(self) -> Result<()> {
        if let Some(Beside { part, place }) = self.beside {
            self.file.sync_all()?;
            part.persist(&place).map_err(|failed| {
                let kept = failed
                    .path
                    .keep()
                    .map_or(String::new(), |part| format!("; all of it is in {}", part.display()));
                anyhow!("{}: cannot be put into its place: {}{kept}", place.display(), failed.error)
            })?;
        }
        Ok(())
    }
}

fn inner<W: Write>(out: BufWriter<W>) -> io::Result<W> {
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.sink {
            Sink::Plain(out) => out.write(bytes),
            Sink::Gzip(out) => out.write(bytes),
            Sink::Zstd(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Plain(out) => out.flush(),
            Sink::Gzip(out) => out.flush(),
            Sink::Zstd(out) => out.flush(),
        }
    }
}
