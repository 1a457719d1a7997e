//! Log lines on standard error: a constant message, data in fields.

use std::io::IsTerminal;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};
use crate::error::Stop;

/// Starts logging for the whole process. A second daemon in one process, as in tests, keeps the first one's.
///
/// # Errors
/// When the filter is none; the configuration has checked it before.
pub fn start(log: &Log) -> Result<(), Stop> {
    let filter = EnvFilter::builder()
        .parse(&log.filter)
        .map_err(|error| Stop::config("log.level is no filter").because(error))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Told on standard error too, by a macro that panics: nobody reading the log any more, or a closed terminal, would end us.
        .log_internal_errors(false);
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let started = match log.format {
        LogFormat::Text => builder.with_ansi(colours).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(())
}

/// Lets the first of many like warnings out, and then one in ten minutes.
#[derive(Debug, Default)]
pub struct RateLimit {
    last: Option<Duration>,
}

impl RateLimit {
    const EVERY: Duration = Duration::from_secs(600);

    /// Tells whether a warning may be logged at a time of the steady clock, and takes note that it is.
    pub fn allows(&mut self, now: Duration) -> bool {
        let allowed = self.last.is_none_or(|last| now.saturating_sub(last) >= Self::EVERY);
        if allowed {
            self.last = Some(now);
        }
        allowed
    }
}
