//! Running the built programs: to their end, or beside a test until it has seen enough.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::Context;
use tempfile::TempDir;

use super::{PATIENCE, program, wait_for};

/// What a program left behind.
pub(crate) struct Finished {
    /// Its exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it wrote to standard output.
    pub(crate) stdout: String,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
}

impl Finished {
    /// Fails unless the program ended well.
    pub(crate) fn succeeded(self) -> anyhow::Result<Self> {
        anyhow::ensure!(
            self.code == Some(0),
            "exit code {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }
}

/// Runs a program to its end, at most for [`PATIENCE`].
///
/// # Errors
/// When it is not built, cannot start, or does not end.
pub(crate) fn run<const N: usize>(name: &str, arguments: [&str; N]) -> anyhow::Result<Finished> {
    Running::start(name, &arguments)?.wait()
}

/// A program that runs beside the test; dropping it kills it.
pub(crate) struct Running {
    name: String,
    child: Child,
    output: TempDir,
}

impl Running {
    /// Starts a program.
    ///
    /// # Errors
    /// When it is not built or cannot start.
    pub(crate) fn start(name: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_in(name, arguments, &[])
    }

    /// Starts a program with further environment variables.
    ///
    /// # Errors
    /// When it is not built or cannot start.
    pub(crate) fn start_in(
        name: &str,
        arguments: &[&str],
        environment: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let output = tempfile::tempdir()?;
        let child = Command::new(program(name)?)
            .args(arguments)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(File::create(output.path().join("stdout"))?)
            .stderr(File::create(output.path().join("stderr"))?)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, output })
    }

    /// Waits for the end, at most for [`PATIENCE`].
    ///
    /// # Errors
    /// When it does not end.
    pub(crate) fn wait(mut self) -> anyhow::Result<Finished> {
        let what = format!("the end of {}", self.name);
        let status: anyhow::Result<ExitStatus> = wait_for(&what, || Ok(self.child.try_wait()?));
        let status = status.with_context(|| self.told())?;
        Ok(Finished {
            code: status.code(),
            stdout: read(&self.output.path().join("stdout")),
            stderr: read(&self.output.path().join("stderr")),
        })
    }

    /// Asks it to end (SIGTERM).
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        self.signal("TERM")
    }

    /// Returns how many bytes of memory are its own (`VmRSS`).
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let size = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = size.and_then(|size| size.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kibibytes.context("no VmRSS")? << 10)
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        signal(name, self.child.id())
    }

    /// Kills it (SIGKILL), so that it can do nothing more, and waits until it is gone.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Returns what it has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        read(&self.output.path().join("stderr"))
    }

    /// Returns all that it has written so far.
    pub(crate) fn told(&self) -> String {
        let (out, err) = ("stdout", "stderr");
        let [out, err] = [out, err].map(|name| read(&self.output.path().join(name)));
        format!("--- stdout of {}\n{out}\n--- stderr\n{err}", self.name)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sends a signal by name.
///
/// # Errors
/// When there is no such process.
pub(crate) fn signal(name: &str, process: u32) -> anyhow::Result<()> {
    let status = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status()?;
    anyhow::ensure!(status.success(), "no process {process} to send {name} to");
    Ok(())
}

/// Waits until a process is gone or only waits to be collected by its parent; false at the deadline.
pub(crate) fn wait_gone(process: u32) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        if state.is_empty() || state.starts_with('Z') {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    false
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
