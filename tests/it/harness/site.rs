//! A place for a daemon: its configuration, topics of its own on a broker, its state on disk; and the daemon while it runs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;
use sluice_daemon::kafka::{Connection, OwnedRecord, Reader, Start};
use tempfile::TempDir;

use super::process::{Finished, Running};
use super::real_kafka::RealKafka;
use super::{Outcome, PATIENCE, wait_for};

/// Where a daemon is at home.
pub(crate) struct Site {
    folder: TempDir,
    connection: Connection,
    prefix: String,
    environment: Vec<(String, String)>,
}

impl Site {
    /// Prepares a folder; topics begin with the prefix. The connection comes by environment, as a container's would.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(crate) fn new(kafka: &RealKafka, prefix: &str, config: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("sluice-site-").tempdir()?;
        std::fs::write(folder.path().join("sluice.toml"), config)?;
        let state = folder.path().join("state").display().to_string();
        let environment = [
            ("KAFKA__BROKERS", kafka.brokers().as_str()),
            ("KAFKA__PREFIX", prefix),
            ("KAFKA__GROUP", prefix),
            ("CHECKPOINT__PATH", &state),
            ("HTTP__LISTEN", "127.0.0.1:0"),
            ("LOG__FORMAT", "json"),
        ]
        .map(|(key, value)| (format!("SLUICE__{key}"), value.to_owned()));
        Ok(Self {
            folder,
            connection: kafka.connection(),
            prefix: prefix.to_owned(),
            environment: environment.to_vec(),
        })
    }

    /// Sets a key of the configuration, by environment.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.environment.push((format!("SLUICE__{key}"), value.to_owned()));
        self
    }

    /// Returns a path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the full name of a topic.
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Returns how to reach the broker.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Creates all topics, by the tool.
    ///
    /// # Errors
    /// When the tool fails.
    pub(crate) fn make_topics(&self, partitions: u32) -> Outcome {
        let partitions = partitions.to_string();
        self.with_config("sluice", &["topics", "apply", "--partitions", &partitions])?
            .wait()?
            .succeeded()
            .map(drop)
    }

    /// Plays a file into Kafka, by the tool.
    ///
    /// # Errors
    /// When a record was not delivered.
    pub(crate) fn produce(&self, file: &Path) -> Outcome {
        self.producing(file, &[])?.wait()?.succeeded().map(drop)
    }

    /// Begins to play a file into Kafka.
    ///
    /// # Errors
    /// When the tool cannot start.
    pub(crate) fn producing(&self, file: &Path, more: &[&str]) -> anyhow::Result<Running> {
        let file = file.display().to_string();
        self.with_config("sluice", &[&["produce", &file], more].concat())
    }

    /// Starts a program with this place's `--config`.
    ///
    /// # Errors
    /// When it is not built or cannot start.
    pub(crate) fn with_config(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Running> {
        let config = self.path("sluice.toml").display().to_string();
        let arguments = [arguments, &["--config", &config]].concat();
        Running::start_in(name, &arguments, &self.environment)
    }

    /// Starts the daemon and waits until it answers HTTP.
    ///
    /// # Errors
    /// With its own words, when it ends instead.
    pub(crate) fn start(&self, more: &[&str]) -> anyhow::Result<Daemon> {
        let running = self.with_config("sluiced", &[&["run"], more].concat())?;
        let address = wait_for("the daemon's address", || {
            Ok(field_of(&running.stderr(), "listening", "address"))
        });
        let address = address.with_context(|| running.told())?;
        Ok(Daemon { running, address })
    }

    /// Reads what a topic holds now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(&self, topic: &str) -> anyhow::Result<Vec<OwnedRecord>> {
        let topic = self.topic(topic);
        let mut reader = Reader::open(&self.connection, &topic, Start::Beginning, PATIENCE)?;
        Ok(reader.read_to_end(PATIENCE)?)
    }
}

/// A daemon that runs; dropping it kills it.
pub(crate) struct Daemon {
    running: Running,
    address: String,
}

impl Daemon {
    /// Asks for a page.
    ///
    /// # Errors
    /// With the daemon's own words, when it does not answer.
    pub(crate) fn get(&self, page: &str) -> anyhow::Result<(u16, String)> {
        let ask = || -> anyhow::Result<String> {
            let mut stream = TcpStream::connect(&self.address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(stream, "GET {page} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().with_context(|| self.running.told())?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((code.context("no status code")?, body.to_owned()))
    }

    /// Returns `/status`.
    ///
    /// # Errors
    /// When it is no JSON.
    pub(crate) fn status(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.get("/status")?.1)?)
    }

    /// Waits until the status is as wanted; gives up when it has not changed for [`PATIENCE`].
    ///
    /// # Errors
    /// With the last status and the daemon's own words.
    pub(crate) fn wait(&self, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let (mut last, mut changed) = (Value::Null, Instant::now());
        loop {
            let status = self.status()?;
            if wanted(&status) {
                return Ok(status);
            }
            if status != last {
                (last, changed) = (status, Instant::now());
            }
            let told = || self.running.told();
            anyhow::ensure!(changed.elapsed() < PATIENCE, "stays {last}\n{}", told());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until so many records of the event topic are taken, valid or refused, and nothing is left to read.
    ///
    /// # Errors
    /// When that does not come.
    pub(crate) fn wait_taken(&self, events: u64) -> anyhow::Result<Value> {
        let taken = |status: &Value| count(status, "events") + count(status, "rejected");
        self.wait(|status| status["caught_up"] == true && taken(status) >= events)
    }

    /// Waits until `/ready` says no because of the reason, or has no reason left but that the model has learned too little: the
    /// streams of tests are short.
    ///
    /// # Errors
    /// With the last answer, when that does not come.
    pub(crate) fn wait_ready(&self, reason: Option<&str>) -> anyhow::Result<String> {
        let mut last = String::new();
        let answer = wait_for("readiness", || {
            let (code, text) = self.get("/ready")?;
            last.clone_from(&text);
            let page: Value = serde_json::from_str(&text)?;
            let reasons = page["reasons"].as_array().context("no reasons")?;
            anyhow::ensure!((code == 200) == reasons.is_empty(), "{code} {text}");
            let of = |name: &str| reasons.iter().any(|found| found["reason"] == name);
            let right = match reason {
                // What a test sends may be little, and refused.
                None => {
                    let usual = ["model-cold", "rejects"].into_iter().filter(|name| of(name));
                    reasons.len() == usual.count()
                }
                Some(reason) => of(reason),
            };
            Ok(right.then_some(text))
        });
        answer.with_context(|| format!("last: {last}\n{}", self.running.told()))
    }

    /// Waits until it reads requests, whatever else it is not ready for.
    ///
    /// # Errors
    /// With the daemon's own words, when that does not come.
    pub(crate) fn wait_answering(&self) -> Outcome {
        let answers = || Ok((!self.get("/ready")?.1.contains("\"requests\"")).then_some(()));
        wait_for("answers", answers).with_context(|| self.running.told())
    }

    /// Returns what it has said so far.
    pub(crate) fn stderr(&self) -> String {
        self.running.stderr()
    }

    /// Returns how many bytes of memory are its own (`VmRSS`).
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        self.running.memory()
    }

    /// Sends it a signal by name.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn signal(&self, name: &str) -> Outcome {
        self.running.signal(name)
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it was gone already.
    pub(crate) fn kill(self) -> Outcome {
        self.running.kill()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// With its own words, when it does not.
    pub(crate) fn ended(self) -> anyhow::Result<Finished> {
        self.running.wait()
    }

    /// Stops it in order (SIGTERM); fails unless it ends well.
    ///
    /// # Errors
    /// With its own words, when it ends otherwise.
    pub(crate) fn stop(self) -> anyhow::Result<Finished> {
        self.running.terminate()?;
        self.running.wait()?.succeeded()
    }
}

/// Returns a count of a status; 0 before the daemon has any.
pub(crate) fn count(status: &Value, name: &str) -> u64 {
    status[name].as_u64().unwrap_or(0)
}

/// Returns a field of the newest log line with this message.
pub(crate) fn field_of(log: &str, message: &str, field: &str) -> Option<String> {
    let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut lines = lines.filter(|line| line["message"] == message);
    Some(match &lines.next()?[field] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}
