//! The tool as a process: what a signal leaves behind, pipes whose reader leaves, exit codes.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside of them")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const LOG: &str = "user_id,video_id,time_ms,is_click,duration_ms,tab\n1,2,1650000000000,1,1000,0\n";
const PATIENCE: Duration = Duration::from_secs(60);

fn sluice(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(arguments).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    told(&sluice(folder, arguments).stdin(Stdio::null()).output().unwrap())
}

fn told(ended: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ended.status.code(), text(&ended.stdout), text(&ended.stderr))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn wait_for_parts(folder: &Path, count: usize) {
    let begun = Instant::now();
    while names(folder).iter().filter(|name| name.ends_with(".part")).count() < count {
        assert!(begun.elapsed() < PATIENCE, "{:?}", names(folder));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal and waits for the end.
fn end(child: Child, signal: &str) -> (Option<i32>, String, String) {
    let kill = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    told(&child.wait_with_output().unwrap())
}

#[test]
fn a_signal_leaves_no_part_and_what_was_there_before() {
    for signal in ["INT", "TERM", "HUP"] {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("out.jsonl"), "before\n").unwrap();
        // Standard input in which nothing more comes.
        let mut child =
            sluice(folder.path(), &["import", "kuairand", "-", "-o", "out.jsonl"]).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(LOG.as_bytes()).unwrap();
        wait_for_parts(folder.path(), 1);
        let (code, _, errors) = end(child, signal);
        assert_eq!(code, Some(130), "{signal}: {errors}");
        assert_eq!(names(folder.path()), ["out.jsonl"], "{signal}");
        assert_eq!(fs::read_to_string(folder.path().join("out.jsonl")).unwrap(), "before\n");
        assert!(errors.contains("1 events impression"), "{errors}");
        assert!(errors.ends_with("sluice: stopped behind standard input, line 2\n"), "{errors}");
        drop(input);
    }
}

#[test]
fn a_signal_leaves_no_part_of_either_output_of_a_shop() {
    for (signal, rate) in [("INT", &["--rate", "50"][..]), ("TERM", &[])] {
        let folder = TempDir::new().unwrap();
        let arguments = ["simulate", "-o", "shop.jsonl.zst", "--truth", "truth.gz"];
        let child = sluice(folder.path(), &[&arguments[..], rate].concat()).spawn().unwrap();
        wait_for_parts(folder.path(), 2);
        let (code, _, errors) = end(child, signal);
        assert_eq!(code, Some(130), "{signal}: {errors}");
        assert_eq!(names(folder.path()), [""; 0], "{signal}");
        assert!(errors.contains("impressions, judged") && !errors.contains("NaN"), "{errors}");
        assert!(errors.contains("sluice: stopped behind record "), "{errors}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let folder = TempDir::new().unwrap();
    let shop = folder.path();
    let small = ["--users", "20", "--impressions", "2000"];
    let made = run(shop, &[&["simulate", "-o", "shop.jsonl"][..], &small].concat());
    assert_eq!(made.0, Some(0), "{}", made.2);
    fs::write(shop.join("c.toml"), "").unwrap();
    let rows = LOG.lines().last().unwrap();
    fs::write(shop.join("log.csv"), format!("{LOG}{}", format!("{rows}\n").repeat(20_000)))
        .unwrap();
    for arguments in [
        &["--help"][..],
        &["replay", "--help"],
        &["simulate", "--impressions", "30000"],
        &["import", "kuairand", "log.csv"],
        &["replay", "--config", "c.toml", "shop.jsonl"],
        &["replay", "--config", "c.toml", "--json", "shop.jsonl"],
    ] {
        let mut child = sluice(shop, arguments).spawn().unwrap();
        let mut out = BufReader::with_capacity(16, child.stdout.take().unwrap());
        out.read_until(b'\n', &mut Vec::new()).unwrap();
        drop(out);
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{arguments:?}: {errors}");
        assert!(!errors.contains("panicked") && !errors.contains("sluice: "), "{errors}");
    }
}

#[test]
fn what_is_refused_is_told_and_more_than_half_is_an_error() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    fs::write(folder.join("c.toml"), "").unwrap();
    let good = |i: usize| {
        let time = 1_700_000_000_000_u64 + i as u64;
        format!(
            "{{\"topic\":\"events\",\"type\":\"click\",\"id\":\"{i}\",\"ts\":{time},\"user\":\"u\",\"item\":\"i\"}}\n"
        )
    };
    let records: String = (0..100).map(good).collect();
    for (bad, code) in [(0, 0), (1, 0), (100, 0), (101, 1)] {
        let bad_lines = "{\"topic\":\"events\",\"type\":\"vew\"}\n".repeat(bad);
        fs::write(folder.join("f.jsonl"), format!("{records}{bad_lines}")).unwrap();
        let (found, _, errors) = run(folder, &["replay", "--config", "c.toml", "f.jsonl"]);
        assert_eq!(found, Some(code), "{bad}: {errors}");
        let summary = format!(
            "warning: {bad} of {} records were refused: most of them ({bad}) for",
            100 + bad
        );
        assert_eq!(errors.contains(&summary), bad > 0, "{errors}");
        assert_eq!(errors.contains("such as f.jsonl:101: "), bad > 0, "{errors}");
        assert_eq!(errors.contains("more than half of the 201 records were refused"), code == 1);
    }
    fs::write(folder.join("log.csv"), format!("{LOG}{}", "1,2,soon,1,1000,0\n".repeat(2))).unwrap();
    let (code, _, errors) = run(folder, &["import", "kuairand", "log.csv", "-o", "out.jsonl"]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("2 of 3 rows were left out: most of them (2) for"), "{errors}");
    assert!(errors.contains("sluice: more than half of the 3 rows were left out"), "{errors}");
    assert!(!folder.join("out.jsonl").exists());
}

#[test]
fn a_replay_ends_at_a_bound_of_memory_behind_the_figures_until_then() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    fs::write(folder.join("c.toml"), "[open]\nmax_bytes = \"1MiB\"\n").unwrap();
    let made = run(folder, &["simulate", "-o", "shop.jsonl", "--impressions", "12000"]);
    assert_eq!(made.0, Some(0), "{}", made.2);
    let (code, out, errors) = run(folder, &["replay", "--config", "c.toml", "shop.jsonl"]);
    assert!(code == Some(1) && out.contains("checksum"), "{code:?} {errors}");
    assert!(errors.contains("sluice: shop.jsonl:"), "{errors}");
    assert!(errors.contains("more than open.max_bytes = 1048576: give it more"), "{errors}");
}

#[test]
fn a_truth_that_will_not_do_does_not_cost_the_figures() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    fs::write(folder.join("c.toml"), "").unwrap();
    let small = ["--users", "20", "--impressions", "500"];
    let made = run(folder, &[&["simulate", "-o", "shop.jsonl"][..], &small].concat());
    assert_eq!(made.0, Some(0), "{}", made.2);
    let replay = |more: &[&str]| {
        run(folder, &[&["replay", "--config", "c.toml", "shop.jsonl"][..], more].concat())
    };
    let (code, out, errors) = replay(&["--truth", "nowhere"]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "before anything is played: {errors}");
    let (code, out, errors) = replay(&["--truth", "shop.jsonl"]);
    assert!(code == Some(1) && out.contains("checksum"), "{errors}");
    assert!(errors.contains("shop.jsonl:1: expected a line of truth"), "{errors}");
    let (code, _, errors) = replay(&["--window", "0s"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("--window: expected 1s or more, found 0s"), "{errors}");
}

#[test]
fn an_output_that_cannot_be_and_an_input_given_twice_are_told_in_words() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("log.csv"), LOG).unwrap();
    fs::write(folder.path().join("r.jsonl"), "{\"topic\":\"events\"}\n").unwrap();
    for (arguments, expected) in [
        (&["r.jsonl"][..], "found JSON: the files of the data set are to be given"),
        (&["log.csv", "-o", "no/where/x"][..], "there is no folder no/where: make it first"),
        (&["log.csv", "-o", "."], ".: expected a file to write, found a folder"),
        (&["log.csv", "-o", "log.csv"], "log.csv: is the input log.csv: write to another file"),
        (&["log.csv", "."], "log.csv: expected each file once, found it given twice"),
        (&["log.csv", "./log.csv"], "./log.csv: expected each file once, found it given twice"),
    ] {
        let (code, out, errors) =
            run(folder.path(), &[&["import", "kuairand"][..], arguments].concat());
        assert_eq!((code, out.as_str()), (Some(1), ""), "{errors}");
        assert!(errors.contains(expected), "{errors}");
        assert_eq!(names(folder.path()), ["log.csv", "r.jsonl"]);
    }
}

#[test]
fn a_replay_tells_of_types_that_come_too_late_or_find_no_impression() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    fs::write(folder.join("c.toml"), "").unwrap();
    let line = |kind: &str, number: u64, ts: u64| {
        let user = number % 9;
        format!(
            r#"{{"topic":"events","type":"{kind}","id":"{kind}{number}","ts":{ts},"user":"u{user}","item":"i","impression":"r{number}"}}"#
        )
    };
    let (start, minute, year) = (1_650_000_000_000, 60_000, 365 * 24 * 3_600_000);
    // Ten days on time, then impressions of their beginning, and clicks of what was never shown.
    let mut lines: Vec<String> =
        (0..14_400).map(|n| line("impression", n, start + n * minute)).collect();
    lines.extend((20_000..21_000).map(|n| line("impression", n, start)));
    lines.extend((30_000..30_200).map(|n| line("click", n, start + 14_400 * minute)));
    lines.push(line("impression", 40_000, start + year));
    fs::write(folder.join("e.jsonl"), lines.join("\n")).unwrap();
    let (code, out, errors) = run(folder, &["replay", "--config", "c.toml", "e.jsonl"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.contains("1000 of 15401 impression events came after their windows"), "{out}");
    assert!(out.contains("200 of 200 click events found no impression"), "{out}");
    let (_, out, _) = run(folder, &["replay", "--config", "c.toml", "--json", "e.jsonl"]);
    assert!(out.contains("\"jumped\": 1") || out.contains("\"jumped\":1"), "{out}");
}
