//! The frame of a checkpoint: start, and blocks with a length and a checksum.

use std::io::{ErrorKind, Read, Write};

use crate::table::ImageError;

const MAGIC: [u8; 8] = *b"sluice\0p";
const VERSION: u32 = 2;

/// Why a checkpoint is not read.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It is not one.
    #[error("expected a parameter file of sluice, found {0:02x?} at its start: name another file")]
    Magic([u8; 8]),
    /// It was written by another generation of the program.
    #[error("expected format version {VERSION}, found {0}: use the program that wrote the file")]
    Version(u32),
    /// Fields, tables, counters or looks into the history differ.
    #[error(
        "the file was written for another schema (fingerprint {found:016x}, expected \
         {expected:016x}): restore the configuration's fields, or start anew with --new-model"
    )]
    Schema {
        /// The configuration's.
        expected: u64,
        /// The file's.
        found: u64,
    },
    /// The model differs.
    #[error(
        "the file holds another model: {0}; restore the configuration, or start anew with --new-model"
    )]
    Model(String),
    /// A block is not what was written.
    #[error("block {block}: {problem}; take an older checkpoint")]
    Damaged {
        /// Which.
        block: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// A shard of a table does not fit.
    #[error(
        "block rows: {0}; restore the configuration of embeddings, or take an older checkpoint"
    )]
    Rows(ImageError),
    /// It could not be read.
    #[error("the file cannot be read: {0}")]
    Read(std::io::Error),
}

pub(super) fn write_start(out: &mut impl Write, fingerprint: u64) -> std::io::Result<()> {
    out.write_all(&MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&fingerprint.to_le_bytes())
}

pub(super) fn read_start(input: &mut impl Read, expected: u64) -> Result<(), FormatError> {
    let magic = take(input, "start")?;
    if magic != MAGIC {
        return Err(FormatError::Magic(magic));
    }
    let version = u32::from_le_bytes(take(input, "start")?);
    if version != VERSION {
        return Err(FormatError::Version(version));
    }
    let found = u64::from_le_bytes(take(input, "start")?);
    if found != expected {
        return Err(FormatError::Schema { expected, found });
    }
    Ok(())
}

pub(super) fn write_block(
    out: &mut impl Write,
    name: &[u8; 4],
    bytes: &[u8],
) -> std::io::Result<()> {
    out.write_all(name)?;
    out.write_all(&(bytes.len() as u64).to_le_bytes())?;
    out.write_all(bytes)?;
    out.write_all(&crc32fast::hash(bytes).to_le_bytes())
}

/// Reads the block that must come next into `bytes`. A length that lies costs no more memory than the file has bytes.
pub(super) fn read_block(
    input: &mut impl Read,
    name: &[u8; 4],
    bytes: &mut Vec<u8>,
) -> Result<(), FormatError> {
    let block = String::from_utf8_lossy(name).trim().to_owned();
    let damaged = |problem: String| FormatError::Damaged { block: block.clone(), problem };
    let found: [u8; 4] = take(input, &block)?;
    if found != *name {
        return Err(damaged(format!("found {:?} in its place", String::from_utf8_lossy(&found))));
    }
    let length = u64::from_le_bytes(take(input, &block)?);
    bytes.clear();
    let read = input.by_ref().take(length).read_to_end(bytes).map_err(FormatError::Read)? as u64;
    if read < length {
        return Err(damaged(format!("expected {length} bytes, the file ends after {read}")));
    }
    let (expected, found) = (u32::from_le_bytes(take(input, &block)?), crc32fast::hash(bytes));
    if found != expected {
        return Err(damaged(format!("expected checksum {expected:08x}, found {found:08x}")));
    }
    Ok(())
}

fn take<const N: usize>(input: &mut impl Read, block: &str) -> Result<[u8; N], FormatError> {
    let mut bytes = [0; N];
    match input.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(FormatError::Damaged {
            block: block.to_owned(),
            problem: "the file ends before it".into(),
        }),
        Err(error) => Err(FormatError::Read(error)),
    }
}
