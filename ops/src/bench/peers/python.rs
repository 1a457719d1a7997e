//! Runs a script of ours in the Python that there is: one JSON object in, JSON lines out.

use std::io::{Read, Write as _};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The variable that names the interpreter.
const VARIABLE: &str = "SLUICE_PYTHON";
/// The interpreter where the variable is not set.
const USUAL: &str = "python3";
/// Time between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// What a script answered.
#[derive(Debug, PartialEq)]
pub(super) enum Answer<T> {
    /// Its lines.
    Lines(Vec<T>),
    /// Why there is nothing to compare with.
    Missing(String),
}

/// Runs `script` with `job` on its standard input and reads each line of its output as a `T`. A line `{"missing": why}` says that the
/// peer is not installed.
///
/// # Errors
/// When the script fails, says something else, or takes longer than `patience`; with what it wrote on standard error.
pub(super) fn run<T: DeserializeOwned>(
    script: &str,
    job: &impl Serialize,
    patience: Duration,
) -> Result<Answer<T>> {
    let python = std::env::var(VARIABLE).unwrap_or_else(|_| USUAL.to_owned());
    let pipes = || Stdio::piped();
    let mut command = Command::new(&python);
    command.args(["-c", script]).stdin(pipes()).stdout(pipes()).stderr(pipes());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let advice = format!("set {VARIABLE} to the Python that has it");
            return Ok(Answer::Missing(format!("{python} cannot be run ({error}); {advice}")));
        }
    };
    let text = serde_json::to_vec(job)?;
    let input = child.stdin.take().context("the script has no standard input")?;
    // A script that ends before it has read all says so by its code or its lines.
    let writer = aside(move || drop({ input }.write_all(&text)))?;
    let said = keep(child.stdout.take().context("the script has no standard output")?)?;
    let told = keep(child.stderr.take().context("the script has no standard error")?)?;
    let deadline = Instant::now() + patience;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("{python} did not end within {patience:?}");
        }
        std::thread::sleep(LOOK);
    }
    drop(writer.join());
    let [said, told] = [said, told].map(|kept| kept.join().unwrap_or_default());
    let status = child.wait()?;
    if !status.success() {
        bail!("{python} ended with {status}: {}", told.trim_end());
    }
    lines(&said).with_context(|| format!("expected JSON lines from {python}"))
}

/// Reads all that comes, so that the script never waits for room.
fn keep(mut pipe: impl Read + Send + 'static) -> Result<JoinHandle<String>> {
    aside(move || {
        let mut bytes = Vec::new();
        // What came before a failure is what there is to show.
        drop(pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name("script".to_owned())
        .spawn(work)
        .context("cannot start a thread")
}

fn lines<T: DeserializeOwned>(said: &str) -> Result<Answer<T>> {
    #[derive(serde::Deserialize)]
    struct Missing {
        missing: String,
    }
    let mut lines = Vec::new();
    for line in said.lines() {
        if let Ok(Missing { missing }) = serde_json::from_str(line) {
            return Ok(Answer::Missing(missing));
        }
        let read = serde_json::from_str(line);
        lines.push(read.with_context(|| format!("found the line {line:?}"))?);
    }
    Ok(Answer::Lines(lines))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn lines_are_read_or_shown() {
        let read = |said: &str| lines::<u32>(said);
        assert_eq!(read("1\n2\n").unwrap(), Answer::Lines(vec![1, 2]));
        let missing = Answer::Missing("no torch".to_owned());
        assert_eq!(read("{\"missing\": \"no torch\"}\n").unwrap(), missing);
        assert!(read("1\noops\n").unwrap_err().to_string().contains("oops"));
    }

    #[test]
    fn a_script_gets_its_job_and_its_failure_is_told() {
        let patience = Duration::from_secs(20);
        let echo = "import json, sys; print(json.dumps(json.load(sys.stdin)))";
        let job = json!({"numbers": vec![1; 50_000]});
        match run::<Value>(echo, &job, patience).unwrap() {
            Answer::Lines(lines) => assert_eq!(lines, [job]),
            // No Python here: it was said so, and there is nothing more to see.
            Answer::Missing(why) => return assert!(why.contains(VARIABLE), "{why}"),
        }
        let told = run::<Value>("raise SystemExit('no such shape')", &0, patience).unwrap_err();
        assert!(told.to_string().contains("no such shape"), "{told}");
        let slow = "import time; time.sleep(60)";
        let told = run::<Value>(slow, &0, Duration::from_millis(100)).unwrap_err();
        assert!(told.to_string().contains("did not end within"), "{told}");
    }
}
