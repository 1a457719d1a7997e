//! A stream in checked blocks: `[length u32][crc u32][bytes]`, up to 1 MiB each, ended by a block of length 0.
//!
//! The digest of a stream is that of the lengths and checksums of its blocks: two streams that differ have others, but for chance.
//!
//! Damage is found at the block where it is, before its bytes reach a reader; a stream without its end is damage too.

use std::io::{self, Read, Write};

const BLOCK: usize = 1 << 20;

/// Writes blocks.
pub(super) struct BlockWriter<W> {
    inner: W,
    block: Vec<u8>,
    digest: crc32fast::Hasher,
}

impl<W: Write> BlockWriter<W> {
    /// Begins a stream.
    pub(super) fn new(inner: W) -> Self {
        Self { inner, block: Vec::with_capacity(BLOCK), digest: crc32fast::Hasher::new() }
    }

    /// Writes what is left, and the end. Returns the digest.
    pub(super) fn finish(mut self) -> io::Result<u32> {
        self.emit()?;
        self.digest.update(&[0; 8]);
        self.inner.write_all(&[0; 8])?;
        self.inner.flush()?;
        Ok(self.digest.finalize())
    }

    fn emit(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        // A block is never longer than BLOCK, so the length fits.
        let (length, crc) = (self.block.len() as u32, crc32fast::hash(&self.block));
        for word in [length, crc].map(u32::to_le_bytes) {
            self.digest.update(&word);
            self.inner.write_all(&word)?;
        }
        self.inner.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }
}

impl<W: Write> Write for BlockWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.emit()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads blocks. Damage is an error of the kind `InvalidData`.
#[derive(Debug)]
pub(super) struct BlockReader<R> {
    inner: R,
    block: Vec<u8>,
    at: usize,
    number: u64,
    ended: bool,
    digest: crc32fast::Hasher,
}

impl<R: Read> BlockReader<R> {
    /// Begins a stream.
    pub(super) fn new(inner: R) -> Self {
        let digest = crc32fast::Hasher::new();
        Self { inner, block: Vec::new(), at: 0, number: 0, ended: false, digest }
    }

    /// Returns the digest of what was read up to here: of the stream, at its end.
    pub(super) fn digest(&self) -> u32 {
        self.digest.clone().finalize()
    }

    fn next_block(&mut self) -> io::Result<()> {
        let number = self.number;
        let damaged = |what: &str| {
            io::Error::new(io::ErrorKind::InvalidData, format!("block {number} {what}"))
        };
        let cut_off = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("is cut off"),
            _ => error,
        };
        let mut word = [0; 4];
        self.inner.read_exact(&mut word).map_err(cut_off)?;
        self.digest.update(&word);
        let length = u32::from_le_bytes(word) as usize;
        self.inner.read_exact(&mut word).map_err(cut_off)?;
        self.digest.update(&word);
        let crc = u32::from_le_bytes(word);
        if length > BLOCK {
            return Err(damaged("has an impossible length"));
        }
        self.block.resize(length, 0);
        self.inner.read_exact(&mut self.block).map_err(cut_off)?;
        if crc32fast::hash(&self.block) != crc {
            return Err(damaged("has a wrong checksum"));
        }
        self.ended = length == 0;
        self.at = 0;
        self.number += 1;
        Ok(())
    }
}

impl<R: Read> Read for BlockReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() && !self.ended && !out.is_empty() {
            self.next_block()?;
        }
        let taken = out.len().min(self.block.len() - self.at);
        out[..taken].copy_from_slice(&self.block[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(bytes: &[u8]) -> Vec<u8> {
        let mut stream = Vec::new();
        let mut writer = BlockWriter::new(&mut stream);
        bytes.chunks(70_001).for_each(|chunk| writer.write_all(chunk).unwrap());
        let digest = writer.finish().unwrap();
        let mut reader = BlockReader::new(&stream[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.digest(), digest);
        stream
    }

    fn read(stream: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        BlockReader::new(stream).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn what_is_written_is_read_back() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            assert_eq!(read(&stream(&bytes)).unwrap(), bytes);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let stream = stream(b"some parameters");
        for cut in 0..stream.len() {
            assert_eq!(read(&stream[..cut]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        for bit in 0..stream.len() * 8 {
            let mut damaged = stream.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&damaged).unwrap_err().kind(), io::ErrorKind::InvalidData, "bit {bit}");
        }
    }
}
