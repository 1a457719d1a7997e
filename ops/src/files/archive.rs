//! Zip archives: their files, each as if it lay in a folder.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Result, ensure};
use flate2::Crc;
use flate2::read::DeflateDecoder;
use liblzma::read::XzDecoder;
use zip::{CompressionMethod, ZipArchive};

/// A file of an archive.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) reader: Box<dyn Read + Send>,
}

/// Lists the files of an archive, in its order, ready to be read one by one or side by side.
///
/// # Errors
/// When the archive is damaged or cut off, or a file in it is encrypted or packed in an unusual way.
pub(super) fn members(file: File) -> Result<Vec<Member>> {
    let size = file.metadata()?.len();
    let whole = Place { file: Arc::new(file), next: 0, end: size };
    let mut archive = ZipArchive::new(whole.clone())?;
    let mut members = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index)?;
        if entry.is_dir() {
            continue;
        }
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        ensure!(!entry.encrypted(), "{name} is encrypted: unpack it first");
        let start = entry.data_start().unwrap_or(size);
        let end = start.saturating_add(entry.compressed_size());
        ensure!(end <= size, "{name}: the archive is cut off");
        let packed = Place { next: start, end, ..whole.clone() };
        let unpacked: Box<dyn Read + Send> = match entry.compression() {
            CompressionMethod::STORE => Box::new(packed),
            CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(packed)),
            CompressionMethod::ZSTD => Box::new(zstd::Decoder::new(packed)?),
            CompressionMethod::XZ => Box::new(XzDecoder::new(packed)),
            other => anyhow::bail!("{name}: packed by {other}: unpack it first"),
        };
        let (left, sum) = (entry.size(), entry.crc32());
        let reader = Box::new(Checked { reader: unpacked, found: Crc::new(), left, sum });
        members.push(Member { name, reader });
    }
    Ok(members)
}

/// A part of a file, read without moving the place of others.
#[derive(Clone)]
struct Place {
    file: Arc<File>,
    next: u64,
    end: u64,
}

impl Read for Place {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.next)).unwrap_or(usize::MAX);
        let wanted = left.min(bytes.len());
        let read = self.file.read_at(&mut bytes[..wanted], self.next)?;
        self.next += read as u64;
        Ok(read)
    }
}

impl Seek for Place {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let next = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(offset) => self.end.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.next.checked_add_signed(offset),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "a place before the start");
        self.next = next.ok_or_else(before)?;
        Ok(self.next)
    }
}

/// Compares what was unpacked with the size and the sum that the archive says.
struct Checked<R> {
    reader: R,
    found: Crc,
    left: u64,
    sum: u32,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(bytes)?;
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        self.left = (self.left.checked_sub(read as u64))
            .ok_or_else(|| damaged("there is more than the archive says"))?;
        self.found.update(&bytes[..read]);
        if read == 0 && !bytes.is_empty() && self.left > 0 {
            return Err(damaged("there is less than the archive says"));
        }
        if read == 0 && !bytes.is_empty() && self.found.sum() != self.sum {
            return Err(damaged("the checksum is another than the archive says"));
        }
        Ok(read)
    }
}
