use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use liblzma::stream::{LzmaOptions, Stream};
use liblzma::write::XzEncoder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluice_daemon::shutdown::Shutdown;
use tempfile::TempDir;

use super::*;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(text).unwrap();
    out.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
    out.include_checksum(true).unwrap();
    out.write_all(text).unwrap();
    out.finish().unwrap()
}

fn xz(text: &[u8]) -> Vec<u8> {
    let mut out = XzEncoder::new(Vec::new(), 1);
    out.write_all(text).unwrap();
    out.finish().unwrap()
}

fn lzma(text: &[u8]) -> Vec<u8> {
    let options = LzmaOptions::new_preset(1).unwrap();
    let mut out = XzEncoder::new_stream(Vec::new(), Stream::new_lzma_encoder(&options).unwrap());
    out.write_all(text).unwrap();
    out.finish().unwrap()
}

/// An archive as `zip` writes it: local headers, then the directory. Files whose name begins with `stored` are not deflated.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, text) in files {
        let method = if name.starts_with("stored") { 0_u16 } else { 8 };
        let mut packed = text.to_vec();
        if method == 8 {
            let mut out = DeflateEncoder::new(Vec::new(), Compression::fast());
            out.write_all(text).unwrap();
            packed = out.finish().unwrap();
        }
        let mut sum = flate2::Crc::new();
        sum.update(text);
        let start = archive.len() as u32;
        let mut common = Vec::new();
        for number in [20, 0, method, 0, 0] {
            common.extend_from_slice(&number.to_le_bytes());
        }
        for number in [sum.sum(), packed.len() as u32, text.len() as u32] {
            common.extend_from_slice(&number.to_le_bytes());
        }
        common.extend_from_slice(&(name.len() as u16).to_le_bytes());
        common.extend_from_slice(&[0, 0]);
        archive.extend_from_slice(b"PK\x03\x04");
        archive.extend_from_slice(&common);
        archive.extend_from_slice(name.as_bytes());
        archive.extend_from_slice(&packed);
        directory.extend_from_slice(b"PK\x01\x02\x14\0");
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&start.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let (start, count) = (archive.len() as u32, files.len() as u16);
    archive.extend_from_slice(&directory);
    archive.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    for _ in 0..2 {
        archive.extend_from_slice(&count.to_le_bytes());
    }
    archive.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    archive.extend_from_slice(&start.to_le_bytes());
    archive.extend_from_slice(&[0, 0]);
    archive
}

/// What a path's inputs say: the lines, and the error in the end.
fn read(path: &Path) -> (Vec<Vec<u8>>, Option<String>) {
    let mut lines = Vec::new();
    let ended = for_each_line(path, &Shutdown::new(), |_, _, line| {
        lines.push(match line {
            Line::Whole(line) => line.to_vec(),
            Line::TooLong => b"too long".to_vec(),
        });
        Ok(())
    });
    (lines, ended.err().map(|error| format!("{error:#}")))
}

/// The size in the header of an .lzma file, as other writers give it.
fn sized(packed: &[u8], size: usize) -> Vec<u8> {
    let mut packed = packed.to_vec();
    packed[5..13].copy_from_slice(&(size as u64).to_le_bytes());
    packed
}

fn written(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("input");
    fs::write(&path, bytes).unwrap();
    path
}

/// A pipe from which these bytes can be read once, in pieces of so many.
fn pipe(bytes: Vec<u8>, piece: usize) -> (std::io::PipeReader, PathBuf) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::thread::Builder::new()
        .name("writes".into())
        .spawn(move || bytes.chunks(piece).try_for_each(|piece| writer.write_all(piece)))
        .unwrap();
    let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
    (reader, path)
}

#[test]
fn what_is_packed_is_read_whatever_its_name_and_however_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = ("one\n".repeat(50_000), "two\n".repeat(70_000));
    let (a, b) = (one.as_bytes(), two.as_bytes());
    let zeros = [0; 700];
    for (name, bytes) in [
        ("plain", [a, b].concat()),
        ("gzip", gzip(&[a, b].concat())),
        ("gzip of two members", [gzip(a), gzip(b)].concat()),
        ("gzip, padded", [&gzip(a)[..], &gzip(b), &zeros].concat()),
        ("zstd of two frames", [zstd(a), zstd(b)].concat()),
        (
            "zstd behind a frame to skip",
            [b"\x50\x2a\x4d\x18\x02\0\0\0xx", &zstd(a)[..], &zstd(b)].concat(),
        ),
        ("xz of two streams, padded between", [&xz(a)[..], &zeros, &xz(b)].concat()),
        ("lzma", [&lzma(a)[..], &zeros, &lzma(b)].concat()),
        ("lzma of a size that is known", [&sized(&lzma(a), a.len())[..], &zeros, &xz(b)].concat()),
        ("several kinds", [gzip(a), xz(b), lzma(b"")].concat()),
        ("zip", zip(&[("a.csv", a), ("stored.csv", b)])),
        ("zip of packed files", zip(&[("stored.gz", &gzip(a)), ("b.xz", &xz(b))])),
    ] {
        let (lines, error) = read(&written(&folder, &bytes));
        assert_eq!(error, None, "{name}");
        let count = |what: &[u8]| lines.iter().filter(|line| *line == what).count();
        assert_eq!(
            (count(b"one"), count(b"two"), lines.len()),
            (50_000, 70_000, 120_000),
            "{name}"
        );
        for piece in [1, 4_000] {
            let bytes =
                bytes.get(..if piece == 1 { 100_000 } else { bytes.len() }).unwrap_or(&bytes);
            let whole = read(&written(&folder, bytes)).0;
            let (_open, path) = pipe(bytes.to_vec(), piece);
            assert_eq!(read(&path).0, whole, "{name} from a pipe in pieces of {piece}");
        }
    }
}

#[test]
fn what_is_cut_or_damaged_is_told_and_never_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let text: String = (0..20_000).map(|_| format!("{}\n", random.random::<u32>())).collect();
    let all: Vec<_> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
    for (name, bytes) in [
        ("gzip", gzip(text.as_bytes())),
        ("zstd", zstd(text.as_bytes())),
        ("xz", xz(text.as_bytes())),
        ("lzma", lzma(text.as_bytes())),
        ("lzma, sized", sized(&lzma(text.as_bytes()), text.len())),
        ("zip", zip(&[("a", text.as_bytes())])),
        ("zip, stored", zip(&[("stored", text.as_bytes())])),
    ] {
        for cut in (0..60).map(|_| random.random_range(6..bytes.len())) {
            let (lines, error) = read(&written(&folder, &bytes[..cut]));
            let error =
                error.unwrap_or_else(|| panic!("{name} cut at {cut}: {} lines", lines.len()));
            assert!(error.contains("input"), "{name}: {error}");
            assert!(lines.len() < all.len() && all.starts_with(&lines), "{name} cut at {cut}");
            if !lines.is_empty() {
                assert!(error.contains(&format!("behind line {}", lines.len())), "{name}: {error}");
            }
        }
        for _ in 0..60 {
            let mut damaged = bytes.clone();
            let place = random.random_range(0..bytes.len());
            damaged[place] ^= 1 << random.random_range(0..8);
            // A bit of a header that says nothing may change; no other line may come out without a word, but from lzma, which has no sums.
            let (lines, error) = read(&written(&folder, &damaged));
            assert!(
                error.is_some()
                    || lines == all
                    || place < 30
                    || name.starts_with("zip")
                    || name.starts_with("lzma"),
                "{name}, byte {place}"
            );
        }
        let (_, error) = read(&written(&folder, &[&bytes[..], b"rest"].concat()));
        assert!(error.is_some() || name.starts_with("zip"), "{name}: something behind the end");
    }
}

#[test]
fn line_ends_marks_and_padding_do_not_belong_to_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let text = b"\xef\xbb\xbfa\r\n\r\n   \n\xef\xbb\xbfb\n \xef\xbb\xbfc \r\r\n\0\0\nd";
    let (lines, error) = read(&written(&folder, text));
    let expected: [&[u8]; 5] = [b"a", b"b", b" \xef\xbb\xbfc \r", b"\0\0", b"d"];
    assert_eq!((lines, error), (expected.map(<[u8]>::to_vec).to_vec(), None));
    let mut numbers = Vec::new();
    for_each_line(&folder.path().join("input"), &Shutdown::new(), |_, number, _| {
        numbers.push(number);
        Ok(())
    })
    .unwrap();
    assert_eq!(numbers, [1, 4, 5, 6, 7]);
}

#[test]
fn a_line_without_end_is_counted_and_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let long = vec![b'x'; 40 << 20];
    let packed = zstd(&[b"a\n", &long[..], b"\nb\n", &long].concat());
    let (lines, error) = read(&written(&folder, &packed));
    let expected: [&[u8]; 4] = [b"a", b"too long", b"b", b"too long"];
    assert_eq!((lines, error), (expected.map(<[u8]>::to_vec).to_vec(), None));
}

fn wide(text: &str, units: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    text.chars().flat_map(|character| units(character.into())).collect()
}

#[test]
fn json_that_is_not_laid_out_as_lines_of_records_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for (text, told) in [
        ("[\n  {\"topic\":\"events\"},\n  {\"topic\":\"events\"}\n]\n", Some("jq -c '.[]'")),
        ("[{\"topic\":\"events\"},\n{\"topic\":\"events\"}]\n", Some("jq -c '.[]'")),
        ("\u{feff}\n [ { \"topic\":\"events\"}]", Some("jq -c '.[]'")),
        ("[]\n", Some("jq -c '.[]'")),
        ("{\n  \"topic\": \"events\"\n}\n", Some("jq -c .")),
        ("{\"topic\": \"events\",\r\n  \"id\": \"1\"}\r\n", Some("jq -c .")),
        ("{ \"records\": [\n{\"topic\":\"events\"}]}\n", Some("jq -c .")),
        // Lines of which the first happens to be bad are lines.
        ("{\"topic\":\"eve\n{\"topic\":\"events\"}\n", None),
        ("[2026-11-30] started\n{\"topic\":\"events\"}\n", None),
        ("{\"topic\":\"events\"},\n{\"topic\":\"events\"},\n", None),
    ] {
        for packed in [text.as_bytes().to_vec(), gzip(text.as_bytes())] {
            let (lines, error) = read(&written(&folder, &packed));
            let Some(told) = told else {
                assert_eq!((lines.len(), error), (2, None), "{text}");
                continue;
            };
            let error = error.unwrap_or_else(|| panic!("{text}"));
            assert!(
                lines.is_empty() && error.contains("expected one JSON object a line"),
                "{error}"
            );
            assert!(error.ends_with(&format!("first ({told})")), "{error}");
        }
    }
}

/// Columns may be called as the marks of other files are.
#[test]
fn a_header_that_begins_as_a_mark_does_is_a_header() {
    let folder = tempfile::tempdir().unwrap();
    for text in
        ["PAR1,b", "ORC\n1", "FEA1", "ARROW1,b", "BZh,b", "version,b", "Rar!,b", "]", "mimetype"]
    {
        let (lines, error) = read(&written(&folder, text.as_bytes()));
        assert_eq!((lines.len(), error), (text.lines().count(), None), "{text}");
    }
}

#[test]
fn lines_that_end_as_on_an_old_mac_are_named_whatever_packs_them() {
    let folder = tempfile::tempdir().unwrap();
    let long = "{\"topic\":\"events\"}\r".repeat(1 << 20);
    for text in ["a,b\r1,2\r", "a,b\r1,2\r3,4\n", "{\"a\":1}\r{\"a\":2}", &long] {
        for bytes in [text.as_bytes().to_vec(), zstd(text.as_bytes())] {
            let (lines, error) = read(&written(&folder, &bytes));
            let error = error.unwrap();
            assert!(
                lines.is_empty() && error.contains("CR alone: convert them first (tr"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_pipe_in_which_nothing_comes_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let (input, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"one line of text\nanother one\nand a beginn").unwrap();
    let open = PathBuf::from(format!("/dev/fd/{}", input.as_raw_fd()));
    for (path, told) in [(&fifo, "stopped before the first line of "), (&open, "line 2")] {
        let stop = Shutdown::new();
        let mut taken = 0;
        let error = std::thread::scope(|scope| {
            let reads = scope.spawn(|| {
                for_each_line(path, &stop, |_, _, _| {
                    taken += 1;
                    Ok(())
                })
            });
            std::thread::sleep(std::time::Duration::from_millis(300));
            stop.request();
            reads.join().unwrap().unwrap_err()
        });
        assert!(error.is::<Stopped>(), "{error:#}");
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(taken, if path == &fifo { 0 } else { 2 });
    }
}

#[test]
fn what_has_no_lines_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    for (bytes, told) in [
        (b"\xff\xfe{\0\"\0".to_vec(), "found UTF-16: "),
        (gzip(b"\xfe\xff\0{\0\""), "found UTF-16: "),
        (b"\xff\xfe\0\0{\0\0\0".to_vec(), "found UTF-32: "),
        (b"\0\0\xfe\xff\0\0\0{".to_vec(), "found UTF-32: "),
        (wide("user_id,item\n", |unit| unit.to_le_bytes()[..2].to_vec()), "UTF-16LE"),
        (wide("{\"topic\":1}", |unit| unit.to_be_bytes()[2..].to_vec()), "UTF-16BE"),
        (wide("user_id,item\n", |unit| unit.to_le_bytes().to_vec()), "UTF-32LE"),
        (wide("user_id,item\n", |unit| unit.to_be_bytes().to_vec()), "UTF-32BE"),
        (b"BZh91AY&SY".to_vec(), "bunzip2"),
        (gzip(&tar), "tar -xf"),
        (gzip(&gzip(b"a\n")), "gzip inside another file"),
        (zstd(&xz(b"a\n")), "xz inside another file"),
        (xz(&zstd(b"a\n")), "zstd inside another file"),
        (gzip(&zip(&[("a", b"x")])), "zip archive inside"),
        (zip(&[("[Content_Types].xml", b"<?xml"), ("xl/workbook.xml", b"<?xml")]), "as CSV"),
        (b"PAR1\x15\x04\x15\x10".to_vec(), "Parquet"),
        (b"Obj\x01\x04\x14avro.codec".to_vec(), "Avro"),
        (b"SQLite format 3\0\x10\0".to_vec(), "sqlite3"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec(), "Excel"),
        (b"7z\xbc\xaf\x27\x1c\0\x04".to_vec(), "7z x"),
        (b"\x80\x04\x95\x0a\0\0\0".to_vec(), "Python"),
        (b"\n <!DOCTYPE html>\n<title>Sign in</title>".to_vec(), "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".to_vec(), "git lfs"),
    ] {
        let (lines, error) = read(&written(&folder, &bytes));
        assert!(lines.is_empty());
        let error = error.unwrap();
        assert!(
            error.contains("input: expected lines of UTF-8, found ") && error.contains(told),
            "{error}"
        );
    }
}

#[test]
fn inputs_that_will_not_do_are_refused_before_any_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let there = written(&folder, b"a\n");
    check(&[there.clone(), there.clone()]).unwrap();
    let error = |paths: &[PathBuf]| format!("{:#}", check(paths).unwrap_err());
    assert!(error(&[there.clone(), "/nowhere".into()]).starts_with("/nowhere: "));
    assert!(error(&[folder.path().into()]).contains("found a folder"));
    let (_open, path) = pipe(b"a\n".to_vec(), 1);
    check(std::slice::from_ref(&path)).unwrap();
    assert!(error(&[path.clone(), there.clone(), path.clone()]).contains("given twice"));
    check_rereadable(&[there], "why").unwrap();
    assert!(check_rereadable(&[path], "why").unwrap_err().to_string().contains("why: give a file"));
    let error = open(Path::new("/nowhere/at/all.gz"), &Shutdown::new()).err().unwrap();
    assert!(format!("{error:#}").starts_with("/nowhere/at/all.gz: "), "{error:#}");
}

#[test]
fn an_output_is_there_when_it_is_whole_and_what_was_there_stays_until_then() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl.gz");
    let files = || fs::read_dir(folder.path()).unwrap().count();
    let begin = |text: &[u8]| {
        let mut out = Output::create(Some(&path)).unwrap();
        out.write_all(text).unwrap();
        out
    };
    drop(begin(b"given up"));
    assert_eq!(files(), 0, "nothing is left of a run that fails");
    begin(b"good\n").finish().unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let next = begin(&b"next\n".repeat(1 << 20));
    assert_eq!(read(&path).0, [b"good"]);
    drop(next);
    assert_eq!((read(&path).0, files()), (vec![b"good".to_vec()], 1));

    let link = folder.path().join("link.gz");
    symlink(&path, &link).unwrap();
    let mut out = Output::create(Some(&link)).unwrap();
    out.write_all(b"last\n").unwrap();
    out.finish().unwrap();
    assert_eq!(read(&path).0, [b"last"]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn an_output_is_packed_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let text = "one\ntwo\n".repeat(50_000);
    for name in ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"] {
        let path = folder.path().join(name);
        let mut out = Output::create(Some(&path)).unwrap();
        out.write_all(text.as_bytes()).unwrap();
        out.finish().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len() < text.len() as u64, name != "a.jsonl");
        assert_eq!(read(&path).0.len(), 100_000, "{name}");
    }
    let error = Output::create(Some(&folder.path().join("a.xz"))).err().unwrap().to_string();
    assert!(error.contains("expected .gz, .zst or neither, found .xz"), "{error}");
    assert!(!folder.path().join("a.xz").exists());
}

#[test]
fn a_pipe_as_output_is_written_as_it_goes() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let path = PathBuf::from(format!("/dev/fd/{}", writer.as_raw_fd()));
    let mut out = Output::create(Some(&path)).unwrap();
    drop(writer);
    out.write_all(b"text").unwrap();
    out.finish().unwrap();
    let mut found = String::new();
    reader.read_to_string(&mut found).unwrap();
    assert_eq!(found, "text");
}

#[test]
fn an_output_that_is_an_input_or_another_output_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let input = written(&folder, b"a\n");
    let link = folder.path().join("link");
    symlink(&input, &link).unwrap();
    let hard = folder.path().join("hard");
    fs::hard_link(&input, &hard).unwrap();
    let (fresh, roundabout) = (folder.path().join("x"), folder.path().join("./x"));
    let lines: Vec<_> = open(&input, &Shutdown::new())
        .unwrap()
        .into_iter()
        .map(|input| input.lines().unwrap())
        .collect();
    for output in [&input, &link, &hard] {
        let error = ensure_apart(Some(output), lines.iter(), &[]).unwrap_err().to_string();
        assert!(error.contains("is the input") && error.contains("write to another"), "{error}");
    }
    ensure_apart(Some(&fresh), lines.iter(), &[Path::new("-")]).unwrap();
    ensure_apart(None, lines.iter(), &[&fresh]).unwrap();
    for (one, other) in
        [(Some(&*fresh), &*roundabout), (Some(&*link), &*input), (None, Path::new("-"))]
    {
        assert!(ensure_apart(one, std::iter::empty(), &[other]).is_err(), "{one:?} {other:?}");
    }
    // A device takes what comes, from whoever.
    let null = File::open("/dev/null").unwrap();
    drop(null);
    ensure_apart(Some(Path::new("/dev/null")), lines.iter(), &[&fresh]).unwrap();
}

/// Random bytes of what trips readers: every line that is not blank comes out once, whatever it is packed in.
#[test]
fn as_many_lines_come_out_as_went_in() {
    const PIECES: [&[u8]; 14] = [
        b"\n",
        b"\n",
        b"\r\n",
        b"\r",
        b"\xef\xbb\xbf",
        b"\"",
        b"\"\"",
        b",",
        b" ",
        b"a",
        b"\0",
        b"\xff",
        b"\xc3",
        b"1,2",
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for round in 0..400 {
        let count = random.random_range(0..40);
        let pieces = (0..count).flat_map(|_| PIECES[random.random_range(0..PIECES.len())]);
        // The first line is one of text, for it could say what a file is.
        let text: Vec<u8> = b"a\n".iter().chain(pieces).copied().collect();
        let is_kept = |line: &&[u8]| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
            line.iter().any(|byte| *byte != b' ')
        };
        let expected = text.split(|byte| *byte == b'\n').filter(is_kept).count();
        let bytes = match round % 5 {
            0 => gzip(&text),
            1 => zstd(&text),
            2 => xz(&text),
            3 => zip(&[("a", &text)]),
            _ => text.clone(),
        };
        let (lines, error) = read(&written(&folder, &bytes));
        assert_eq!((lines.len(), error), (expected, None), "{text:?}");
    }
}
