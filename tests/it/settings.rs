//! Configurations at the command line: mistakes, secrets, and those of the public data sets.

use crate::Test;
use crate::expect_eq;
use crate::harness::process::{Finished, Running};
use crate::harness::{Outcome, process, repository};

pub(crate) const TESTS: &[Test] = &[
    ("all_mistakes_are_said_at_once_and_nothing_starts", all_mistakes_are_said_at_once),
    ("secrets_are_not_printed", secrets_are_not_printed),
    ("the_configurations_of_the_data_sets_have_no_mistakes", data_sets_have_no_mistakes),
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
    let config = "[kafka.extra]\n\"ssl.keystore.password\" = \"hunter2\"\n";
    let printed = with_file("print-config", config)?.succeeded()?;
    let all = format!("{}{}", printed.stdout, printed.stderr);
    anyhow::ensure!(all.contains("***") && !all.contains("hunter2"), "{all}");
    anyhow::ensure!(printed.stdout.contains("max_candidates = 1000"), "defaults: {all}");
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

fn with_file(command: &str, config: &str) -> anyhow::Result<Finished> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("sluice.toml");
    std::fs::write(&path, config)?;
    Running::start("sluiced", &[command, "--config", &path.display().to_string()])?.wait()
}
