//! Configurations at the command line: mistakes, secrets, and those of the public data sets.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Test;
use crate::expect_eq;
use crate::harness::process::{Finished, Running};
use crate::harness::{Outcome, process, program, repository, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("all_mistakes_are_said_at_once_and_nothing_starts", all_mistakes_are_said_at_once),
    ("secrets_are_not_printed", secrets_are_not_printed),
    ("a_connection_without_its_protection_is_told", a_weak_connection_is_told),
    ("the_configurations_of_the_data_sets_have_no_mistakes", data_sets_have_no_mistakes),
    ("a_hangup_ends_the_daemon_in_order", a_hangup_ends_the_daemon_in_order),
    ("a_log_that_nobody_reads_ends_nothing", a_log_that_nobody_reads_ends_nothing),
    ("a_reader_that_has_left_is_no_error", a_reader_that_has_left_is_no_error),
];

const MISTAKEN: &str = r#"
[learn]
batch = 0
max_age = "soon"

[kafka]
broker = "localhost:9092"

[serve]
score = "p.klick"
"#;

fn all_mistakes_are_said_at_once() -> Outcome {
    for command in ["run", "check-config", "print-config"] {
        let found = with_file(command, MISTAKEN)?;
        expect_eq!(found.code, Some(2));
        for path in ["learn.batch", "learn.max_age", "kafka.broker", "serve.score"] {
            let told = found.stderr.lines().find(|line| line.contains(&format!("{path}:")));
            let told = told.ok_or_else(|| anyhow::anyhow!("{path}: {}", found.stderr))?;
            anyhow::ensure!(told.contains("line ") && told.len() > path.len() + 20, "{told}");
        }
        anyhow::ensure!(!found.stderr.contains("listening"), "{}", found.stderr);
    }
    let missing = process::run("sluiced", ["run", "--config", "/no/such/sluice.toml"])?;
    expect_eq!(missing.code, Some(2));
    anyhow::ensure!(missing.stderr.contains("/no/such/sluice.toml"), "{}", missing.stderr);
    expect_eq!(process::run("sluiced", ["run"])?.code, Some(2));
    Ok(())
}

fn secrets_are_not_printed() -> Outcome {
    let config = "[kafka.extra]\n\"ssl.keystore.password\" = \"hunter2\"\n\"sasl.oauthbearer.config\" = \"secret=hunter2\"\n";
    let printed = with_file("print-config", config)?.succeeded()?;
    let all = format!("{}{}", printed.stdout, printed.stderr);
    anyhow::ensure!(all.contains("***") && !all.contains("hunter2"), "{all}");
    anyhow::ensure!(printed.stdout.contains("max_candidates = 1000"), "defaults: {all}");
    Ok(())
}

fn a_weak_connection_is_told() -> Outcome {
    let (weak, sound) = ("\"enable.ssl.certificate.verification\" = false", "");
    for (extra, told) in [(weak, true), (sound, false)] {
        let config = format!("[kafka]\nsecurity = \"ssl\"\n[kafka.extra]\n{extra}\n");
        let checked = with_file("check-config", &config)?.succeeded()?;
        let risk = "at risk: kafka.extra enable.ssl.certificate.verification is false";
        expect_eq!((told, checked.stdout.contains(risk)), (told, told));
    }
    Ok(())
}

fn data_sets_have_no_mistakes() -> Outcome {
    let mut checked = 0;
    for entry in std::fs::read_dir(repository().join("ops/datasets"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let path = path.display().to_string();
            let told = process::run("sluiced", ["check-config", "--config", &path])?.succeeded()?;
            anyhow::ensure!(told.stdout.contains("no mistakes"), "{}", told.stdout);
            checked += 1;
        }
    }
    anyhow::ensure!(checked >= 6, "only {checked} configurations found");
    Ok(())
}

/// A configuration that needs no other program, with its state in a folder.
fn alone(folder: &Path) -> anyhow::Result<String> {
    let (config, state) = (folder.join("sluice.toml"), folder.join("state"));
    let text = format!(
        "[kafka]\nembedded = true\n[http]\nlisten = \"127.0.0.1:0\"\n[checkpoint]\npath = {:?}\n",
        state.display().to_string()
    );
    std::fs::write(&config, text)?;
    Ok(config.display().to_string())
}

fn a_hangup_ends_the_daemon_in_order() -> Outcome {
    let folder = tempfile::tempdir()?;
    let daemon = Running::start("sluiced", &["run", "--config", &alone(folder.path())?])?;
    wait_for("reading", || Ok(daemon.stderr().contains("caught up").then_some(())))?;
    daemon.signal("HUP")?;
    let ended = daemon.wait()?.succeeded()?;
    anyhow::ensure!(ended.stderr.contains("SIGHUP"), "{}", ended.stderr);
    anyhow::ensure!(ended.stderr.contains("everything taken is learned"), "{}", ended.stderr);
    Ok(())
}

fn a_log_that_nobody_reads_ends_nothing() -> Outcome {
    let folder = tempfile::tempdir()?;
    let config = alone(folder.path())?;
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut command = Command::new(program("sluiced")?);
    command.args(["run", "--config", &config]).stdin(Stdio::null()).stderr(writer);
    let mut daemon = command.spawn()?;
    let state = folder.path().join("state");
    let begun = wait_for("the state", || {
        anyhow::ensure!(daemon.try_wait()?.is_none(), "it ended");
        Ok(state.is_dir().then_some(()))
    });
    drop(process::signal("TERM", daemon.id()));
    let code = daemon.wait()?.code();
    begun?;
    expect_eq!(code, Some(0));
    Ok(())
}

fn a_reader_that_has_left_is_no_error() -> Outcome {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("sluice.toml");
    std::fs::write(&config, "")?;
    let config = config.display().to_string();
    for (program_name, arguments) in [
        ("sluiced", &["print-config", "--config", &config][..]),
        ("sluiced", &["check-config", "--config", &config]),
        ("sluiced", &["check-config", "--config", "/no/such/file"]),
        ("sluice", &["simulate", "--impressions", "2000"]),
    ] {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let mut command = Command::new(program(program_name)?);
        command.args(arguments).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let code = command.status()?.code();
        expect_eq!(code, Some(if arguments.contains(&"/no/such/file") { 2 } else { 0 }));
    }
    Ok(())
}

fn with_file(command: &str, config: &str) -> anyhow::Result<Finished> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("sluice.toml");
    std::fs::write(&path, config)?;
    Running::start("sluiced", &[command, "--config", &path.display().to_string()])?.wait()
}
