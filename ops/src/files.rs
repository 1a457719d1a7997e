//! Files of records, compressed or not: `.gz` and `.zst` are understood on both sides.
//!
//! What is read is known by its first bytes, whatever its name; what is written, by its name.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

const BUFFER: usize = 1 << 18;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Opens a file for reading, decompressing it if need be.
///
/// # Errors
/// When the file cannot be opened or its first bytes cannot be read.
pub fn open(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    let name = || path.display().to_string();
    let file = File::open(path).with_context(name)?;
    let mut file = BufReader::with_capacity(BUFFER, file);
    let start = file.fill_buf().with_context(name)?;
    Ok(if start.starts_with(&GZIP) {
        buffered(MultiGzDecoder::new(file))
    } else if start.starts_with(&ZSTD) {
        buffered(zstd::Decoder::with_buffer(file).with_context(name)?)
    } else {
        Box::new(file)
    })
}

fn buffered(reader: impl Read + Send + 'static) -> Box<dyn BufRead + Send> {
    Box::new(BufReader::with_capacity(BUFFER, reader))
}

/// Where records are written: a file, compressed if its name ends in `.gz` or `.zst`, or standard
/// output.
///
/// It must be closed by [`Output::finish`]: what is only dropped may lack its end.
#[must_use = "an output is whole only after finish()"]
pub enum Output {
    /// As it is.
    Plain(BufWriter<Box<dyn Write + Send>>),
    /// Gzip.
    Gzip(BufWriter<GzEncoder<File>>),
    /// Zstandard.
    Zstd(BufWriter<zstd::Encoder<'static, File>>),
}

impl Output {
    /// Creates the file, or takes standard output when there is no path or it is `-`.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::Plain(BufWriter::with_capacity(BUFFER, Box::new(io::stdout()))));
        };
        let name = || path.display().to_string();
        let file = File::create(path).with_context(name)?;
        Ok(match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => {
                let encoder = GzEncoder::new(file, Compression::default());
                Self::Gzip(BufWriter::with_capacity(BUFFER, encoder))
            }
            Some("zst") => {
                let encoder = zstd::Encoder::new(file, 0).with_context(name)?;
                Self::Zstd(BufWriter::with_capacity(BUFFER, encoder))
            }
            _ => Self::Plain(BufWriter::with_capacity(BUFFER, Box::new(file))),
        })
    }

    /// Writes what is still held back, and the end of a compressed file.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn finish(self) -> Result<()> {
        match self {
            Self::Plain(mut out) => out.flush()?,
            Self::Gzip(out) => drop(inner(out)?.finish()?),
            Self::Zstd(out) => drop(inner(out)?.finish()?),
        }
        Ok(())
    }
}

fn inner<W: Write>(out: BufWriter<W>) -> io::Result<W> {
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Gzip(out) => out.write(bytes),
            Self::Zstd(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Gzip(out) => out.flush(),
            Self::Zstd(out) => out.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_compressed_is_read_back_whatever_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let text = "one\ntwo\n".repeat(50_000);
        for name in ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"] {
            let path = folder.path().join(name);
            let mut out = Output::create(Some(&path)).unwrap();
            out.write_all(text.as_bytes()).unwrap();
            out.finish().unwrap();
            let compressed = std::fs::metadata(&path).unwrap().len() < text.len() as u64;
            assert_eq!(compressed, name != "a.jsonl");

            let renamed = folder.path().join("renamed");
            std::fs::rename(&path, &renamed).unwrap();
            let mut back = String::new();
            open(&renamed).unwrap().read_to_string(&mut back).unwrap();
            assert!(back == text, "{name}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = open(Path::new("/nowhere/at/all.gz")).err().unwrap();
        assert!(format!("{error:#}").starts_with("/nowhere/at/all.gz: "), "{error:#}");
    }
}
