//! The daemon inside this process, on the embedded broker or given ones, with its state in a temporary folder.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sluice_daemon::app::{Daemon, Options};
use sluice_daemon::config::Config;
use sluice_daemon::error::{Exit, Stop};
use sluice_daemon::kafka::Connection;
use sluice_daemon::live::Live;
use sluice_daemon::shutdown::Shutdown;
use tempfile::TempDir;

/// A running daemon; its state folder is removed when this is dropped.
pub(crate) struct Inside {
    /// What the daemon's threads share: its figures.
    pub(crate) shared: Arc<Live>,
    /// How to reach the broker.
    pub(crate) connection: Connection,
    /// The prefix of all topics.
    pub(crate) prefix: String,
    /// Where its HTTP pages are.
    pub(crate) address: SocketAddr,
    wish: Shutdown,
    thread: Option<JoinHandle<Result<Exit, Stop>>>,
    folder: TempDir,
}

impl Inside {
    /// Starts the daemon, and its broker where the configuration wants an embedded one. `configuration` is the text of a file, to which the
    /// state folder and a free HTTP port are added; `topics` are made beside the daemon's on an embedded broker; `ctrl_c` is the wish that
    /// SIGINT, SIGTERM and SIGHUP make.
    ///
    /// # Errors
    /// When the configuration has mistakes, or a part cannot start.
    pub(crate) fn start(configuration: &str, topics: &[&str], ctrl_c: &Shutdown) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("sluice-")
            .tempdir()
            .context("cannot make a temporary folder for the daemon's state")?;
        let path = toml::Value::String(folder.path().display().to_string());
        let text = format!(
            "{configuration}\n[checkpoint]\npath = {path}\n[http]\nlisten = \"127.0.0.1:0\"\n"
        );
        let config = Config::build_here(&text).map_err(|mistakes| anyhow::anyhow!("{mistakes}"))?;
        sluice_daemon::telemetry::start(&config.log)?;
        let (options, wish) = (Options::default(), Shutdown::new());
        let daemon = Daemon::start(&config, &options, &wish)?;
        daemon.watch_signals(ctrl_c);
        let address = daemon.address();
        let running = daemon.connect(&config, &options)?;
        let connection = match &running.embedded {
            Some(broker) => {
                topics.iter().try_for_each(|topic| broker.create_topic(topic, 1))?;
                broker.connection()
            }
            None => config.kafka.connection.clone(),
        };
        let shared = Arc::clone(&running.shared);
        let thread = std::thread::Builder::new()
            .name("daemon".to_owned())
            .spawn(move || running.run())
            .context("cannot start a thread")?;
        let events = config.kafka.topics.events;
        let prefix = events.strip_suffix(".events").unwrap_or(&events).to_owned();
        Ok(Self { shared, connection, prefix, address, wish, thread: Some(thread), folder })
    }

    /// Returns the full name of a topic.
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Returns the folder of its state.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Fails when the daemon has ended by itself.
    ///
    /// # Errors
    /// How it ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match &self.thread {
            Some(thread) if thread.is_finished() => self.end(),
            _ => Ok(()),
        }
    }

    /// Waits until everything sent has been taken.
    ///
    /// # Errors
    /// When that takes longer than `patience`, or the daemon ends meanwhile.
    pub(crate) fn catch_up(&mut self, sent: u64, patience: Duration) -> Result<()> {
        let step = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        while self.shared.records() < sent {
            self.check()?;
            if waited >= patience {
                bail!(
                    "expected the daemon to take {sent} records within {patience:?}, found {}",
                    self.shared.records()
                );
            }
            std::thread::sleep(step);
            waited += step;
        }
        Ok(())
    }

    /// Stops the daemon and the broker, and removes the state.
    ///
    /// # Errors
    /// When it did not end well.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.wish.request();
        self.end()?;
        self.folder.close().context("cannot remove the daemon's state")
    }

    fn end(&mut self) -> Result<()> {
        let asked = self.wish.is_requested();
        let Some(thread) = self.thread.take() else {
            bail!("the daemon has ended");
        };
        match thread.join() {
            Ok(Ok(Exit::Well)) if asked => Ok(()),
            Ok(Ok(exit)) => bail!("the daemon ended by itself ({exit:?})"),
            Ok(Err(stop)) => Err(stop.into()),
            Err(_) => bail!("the daemon panicked"),
        }
    }
}
