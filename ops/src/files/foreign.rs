//! What a file is that has no lines of ours, by its beginning, and what to do about it.

use std::fmt;

/// So many bytes tell; what else lies in the buffer is looked at too.
pub(super) const TELLING: usize = 16;

/// A file that is something else than lines of UTF-8, or of records.
#[derive(Debug)]
pub struct Foreign(pub(super) String);

impl std::error::Error for Foreign {}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What lines that end as on an old Mac look like: one line without end.
pub(super) const LONE_RETURNS: &str =
    "lines that end with CR alone: convert them first (tr '\\r' '\\n')";

/// Says what a file is, where its first bytes (unpacked, if they were packed) say that it has no lines of ours.
pub(super) fn foreign(start: &[u8]) -> Option<&'static str> {
    if start.get(257..262) == Some(b"ustar") {
        return Some("a tar archive: unpack it first (tar -xf)");
    }
    Some(match start {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            "UTF-32: convert it first (iconv -f UTF-32 -t UTF-8)"
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            "UTF-16: convert it first (iconv -f UTF-16 -t UTF-8)"
        }
        [0x1f, 0x8b, ..] => "gzip inside another file: unpack it once first (gunzip)",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd inside another file: unpack it once first (unzstd)",
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            "xz inside another file: unpack it once first (unxz)"
        }
        [b'P', b'K', 3, 4, ..] => "a zip archive inside another file: unpack it first (unzip)",
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, ..]
        | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, ..] => {
            "bzip2: unpack it first (bunzip2)"
        }
        [0x04, 0x22, 0x4d, 0x18, ..] => "lz4: unpack it first (lz4 -d)",
        [0x1f, 0x9d, ..] => "the output of compress: unpack it first (uncompress)",
        [b'L', b'Z', b'I', b'P', 0 | 1, ..] => "lzip: unpack it first (lzip -d)",
        [0xff, 6, 0, 0, b's', b'N', b'a', b'P', ..] => "snappy: unpack it first (snzip -d)",
        [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => "a 7z archive: unpack it first (7z x)",
        [b'R', b'a', b'r', b'!', 0x1a, 7, ..] => "a RAR archive: unpack it first (unrar x)",
        [b'P', b'A', b'R', b'1', next, ..] if is_binary(*next) => {
            "a Parquet file: convert it first (duckdb: COPY 'FILE' TO 'out.csv')"
        }
        [b'O', b'b', b'j', 1, ..] => "an Avro file: convert it first (avro-tools tojson)",
        [b'O', b'R', b'C', next, ..] if is_binary(*next) => {
            "an ORC file: convert it first (orc-tools data)"
        }
        [b'A', b'R', b'R', b'O', b'W', b'1', 0, 0, ..] => {
            "an Arrow file: convert it first to lines of text"
        }
        [b'S', b'Q', b'L', b'i', b't', b'e', b' ', b'f', b'o', b'r', b'm', b'a', b't', ..] => {
            "an SQLite database: export its tables first (sqlite3 -csv -header FILE 'select ...')"
        }
        [0x89, b'H', b'D', b'F', ..] => "an HDF5 file: convert it first to lines of text",
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] | [0x80, 2..=5, 0x95 | b'}' | b']' | b'c', ..] => {
            "an array or object of Python: convert it first to lines of text"
        }
        [0xd0, 0xcf, 0x11, 0xe0, ..] => "an old Excel or Office document: save it as CSV first",
        [b'%', b'P', b'D', b'F', b'-', ..] => "a PDF document: get the data as text",
        _ if start.starts_with(b"version https://git-lfs") => {
            "a pointer that Git LFS left in place of the file: get the file itself (git lfs pull)"
        }
        _ if is_page(start) => "a page of HTML or XML, not the data: get the file itself",
        _ => return wide(start),
    })
}

/// Says that a byte is none of text, for marks that a column could be called.
fn is_binary(byte: u8) -> bool {
    byte.is_ascii_control() && !byte.is_ascii_whitespace() || !byte.is_ascii()
}

/// What a failed download leaves: a page that says so.
fn is_page(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    ["<!doctype", "<html", "<?xml"].iter().any(|mark| {
        start.get(..mark.len()).is_some_and(|found| found.eq_ignore_ascii_case(mark.as_bytes()))
    })
}

/// Known by its zeros: the first characters of all that is read here are ASCII.
fn wide(start: &[u8]) -> Option<&'static str> {
    let start = start.get(..8)?;
    let is_text = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, 9 | 10 | 13 | 32..=126));
    let zeros = |places: &[usize]| {
        let (wide, text): (Vec<_>, Vec<_>) =
            start.iter().enumerate().partition(|(place, _)| places.contains(&(place % 4)));
        let text: Vec<u8> = text.into_iter().map(|(_, byte)| *byte).collect();
        wide.iter().all(|(_, byte)| **byte == 0) && is_text(&text)
    };
    if zeros(&[1, 2, 3]) {
        Some("UTF-32 without a mark: convert it first (iconv -f UTF-32LE -t UTF-8)")
    } else if zeros(&[0, 1, 2]) {
        Some("UTF-32 without a mark: convert it first (iconv -f UTF-32BE -t UTF-8)")
    } else if zeros(&[1, 3]) {
        Some("UTF-16 without a mark: convert it first (iconv -f UTF-16LE -t UTF-8)")
    } else if zeros(&[0, 2]) {
        Some("UTF-16 without a mark: convert it first (iconv -f UTF-16BE -t UTF-8)")
    } else {
        None
    }
}

/// Says what an archive is by the names of its files: documents of offices are archives too.
pub(super) fn foreign_archive<'a>(
    mut names: impl Iterator<Item = &'a str>,
) -> Option<&'static str> {
    names.any(|name| matches!(name, "[Content_Types].xml" | "mimetype")).then_some(
        "a spreadsheet or another document of an office (xlsx, ods): save it as CSV first",
    )
}

/// Says whether a first line ends where it does only because CR alone ends those of this file.
pub(super) fn has_lone_returns(first: &[u8]) -> bool {
    first.trim_ascii().contains(&b'\r')
}

/// Says what JSON a file holds whose first line begins a value that goes on below, or holds many.
pub(super) fn no_record(first: &[u8]) -> Option<&'static str> {
    let first = first.trim_ascii();
    match first {
        [b'[', rest @ ..] if matches!(rest.trim_ascii_start(), [] | [b'{' | b'[' | b']', ..]) => {
            Some("what looks like a JSON array: turn it into lines first (jq -c '.[]')")
        }
        [b'{', .., b'{' | b'[' | b','] | [b'{'] => {
            let read = serde_json::from_slice::<serde::de::IgnoredAny>(first);
            read.is_err_and(|error| error.is_eof()).then_some(
                "what looks like JSON objects over several lines: put each on a line of its own first (jq -c .)",
            )
        }
        _ => None,
    }
}
