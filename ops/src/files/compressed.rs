//! Compressed input: gzip, zstd, xz and lzma, of one part or of several behind each other.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;

use super::ahead::Ahead;

/// What is compressed.
pub(super) type Source = Ahead<Box<dyn Read + Send>>;

/// How a file is packed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Plain,
    Gzip,
    Zstd,
    Xz,
    /// What xz took the place of: no mark, only a header that hardly anything else has.
    Lzma,
    Zip,
}

impl Format {
    /// So many bytes tell the format.
    pub(super) const TELLING: usize = 13;

    pub(super) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one that is to be skipped, such as pzstd puts in front.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // The last one is an archive of nothing.
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Self::Zip,
            _ if is_lzma(start) => Self::Lzma,
            _ => Self::Plain,
        }
    }
}

/// Says whether this is the header of an .lzma file: the usual parameters; a dictionary of 2^n or 2^n + 2^(n-1) bytes, 64 KiB at least; the
/// size of what is packed, or -1 where it is not known.
fn is_lzma(start: &[u8]) -> bool {
    let [0x5d, header @ ..] = start else { return false };
    let Some((dictionary, size)) = header.get(..12).and_then(<[u8]>::split_first_chunk::<4>) else {
        return false;
    };
    let Ok(size) = size.try_into().map(u64::from_le_bytes) else { return false };
    let dictionary = u32::from_le_bytes(*dictionary);
    let bits = dictionary >> dictionary.trailing_zeros().min(31);
    dictionary >= 1 << 16 && matches!(bits, 1 | 3) && (size == u64::MAX || size < 1 << 38)
}

/// Reads the contents of all parts.
///
/// Behind a part there may be zeros, as media of fixed blocks have them, and further parts. Anything else is an error, and so is
/// a part that ends before its end.
pub(super) struct Parts(State);

enum State {
    Inside(Decoder),
    Between(Source),
    /// At the end, or behind an error.
    Done,
}

enum Decoder {
    Gzip(GzDecoder<Source>),
    Zstd(zstd::Decoder<'static, Source>),
    Xz(XzDecoder<Source>),
}

impl Parts {
    pub(super) fn new(source: Source) -> Self {
        Self(State::Between(source))
    }
}

impl Read for Parts {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.0, State::Done) {
                State::Inside(mut decoder) => match decoder.read(bytes) {
                    Ok(0) => self.0 = State::Between(decoder.into_inner()),
                    Ok(read) => {
                        self.0 = State::Inside(decoder);
                        return Ok(read);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                        self.0 = State::Inside(decoder);
                    }
                    Err(error) => return Err(error),
                },
                State::Between(mut source) => {
                    skip_zeros(&mut source)?;
                    if source.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    self.0 = State::Inside(Decoder::open(source)?);
                }
                State::Done => return Ok(0),
            }
        }
    }
}

fn skip_zeros(source: &mut Source) -> io::Result<()> {
    loop {
        let ready = source.fill_buf()?;
        let zeros = ready.iter().take_while(|byte| **byte == 0).count();
        let all = zeros == ready.len();
        source.consume(zeros);
        if zeros == 0 || !all {
            return Ok(());
        }
    }
}

impl Decoder {
    fn open(mut source: Source) -> io::Result<Self> {
        Ok(match Format::of(source.peek(Format::TELLING)?) {
            Format::Gzip => Self::Gzip(GzDecoder::new(source)),
            Format::Zstd => Self::Zstd(zstd::Decoder::with_buffer(source)?.single_frame()),
            Format::Xz => Self::Xz(XzDecoder::new(source)),
            Format::Lzma => {
                let stream = Stream::new_lzma_decoder(u64::MAX)?;
                Self::Xz(XzDecoder::new_stream(source, stream))
            }
            Format::Plain | Format::Zip => {
                let what = "behind the end of the compressed data there is something else";
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        })
    }

    fn into_inner(self) -> Source {
        match self {
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
            Self::Xz(decoder) => decoder.into_inner(),
        }
    }
}

impl Read for Decoder {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(bytes),
            Self::Zstd(decoder) => decoder.read(bytes),
            Self::Xz(decoder) => decoder.read(bytes),
        }
    }
}
