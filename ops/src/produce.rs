//! `sluice produce FILE...`: plays files of records into Kafka.
//!
//! Each line is a message with its topic in front, `{"topic":"events",...}`; the message goes out byte for
//! byte without it, keyed by its user (items by the item), so that all of a user meets in one partition.
//! Messages are not judged here: what is wrong with one is the daemon's to say.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{BufRead, stdin};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use sluice_daemon::kafka::{Connection, Outgoing, Probe, Producer, ProducerSettings};
use sluice_features::wire::{Topic, split_line};

use crate::connect::{ConnectArguments, parse_duration};
use crate::files;

/// What to send, where and how fast.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// JSON lines, also .gz or .zst; - is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Records per second, as N or N/s; as fast as possible where not given
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,
    /// How long Kafka may take to accept a record
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    connect: ConnectArguments,
}

/// Runs the subcommand.
///
/// # Errors
/// When a file cannot be read, Kafka cannot be reached, or not every record was delivered.
pub fn run(arguments: &Arguments) -> Result<()> {
    let target = arguments.connect.target()?;
    let bar = progress_bar();
    let mut sender =
        Sender::open(&target.connection, &target.prefix, arguments.timeout, arguments.rate)?;
    for path in &arguments.files {
        let shown = path.display().to_string();
        let mut lines = open(path)?;
        let mut line = Vec::new();
        let mut number = 0_u64;
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line).with_context(|| shown.clone())? == 0 {
                break;
            }
            number += 1;
            if !line.trim_ascii().is_empty() {
                sender.send_line(&mut line).with_context(|| format!("{shown}, line {number}"))?;
                bar.inc(1);
            }
        }
    }
    bar.set_message("waiting for delivery");
    let summary = sender.finish()?;
    bar.finish_and_clear();
    print!("{summary}");
    Ok(())
}

/// Sends lines of files to their topics.
pub struct Sender {
    producer: Producer,
    probe: Probe,
    prefix: String,
    known: BTreeSet<Topic>,
    patience: Duration,
    rate: Option<f64>,
    start: Instant,
    sent: u64,
    unkeyed: u64,
}

impl Sender {
    /// Connects.
    ///
    /// # Errors
    /// When the connection's settings are refused.
    pub fn open(
        connection: &Connection,
        prefix: &str,
        patience: Duration,
        rate: Option<f64>,
    ) -> Result<Self> {
        let mut settings = ProducerSettings::new(connection.clone());
        settings.delivery_timeout = Some(patience);
        Ok(Self {
            producer: Producer::open(&settings)?,
            probe: Probe::open(connection)?,
            prefix: prefix.to_owned(),
            known: BTreeSet::new(),
            patience,
            rate,
            start: Instant::now(),
            sent: 0,
            unkeyed: 0,
        })
    }

    /// Sends one line, at the set rate.
    ///
    /// # Errors
    /// When the line names no topic, the topic does not exist, or Kafka takes nothing more in time.
    pub fn send_line(&mut self, line: &mut [u8]) -> Result<()> {
        let (topic, message) = split_line(line).map_err(|rejection| {
            anyhow::anyhow!("expected a line such as {{\"topic\":\"events\",...}}: {rejection}")
        })?;
        let name = format!("{}.{}", self.prefix, topic.name());
        if self.known.insert(topic) {
            let found = self.probe.partitions(&name, self.patience)?;
            ensure!(
                found.is_some(),
                "topic {name} does not exist; create it with `sluice topics apply`"
            );
        }
        self.keep_rate();
        let keys: Keys<'_> = serde_json::from_slice(message).unwrap_or_default();
        let key = if topic == Topic::Items { keys.item } else { keys.user };
        if key.is_none() {
            self.unkeyed += 1;
        }
        let key = key.as_ref().map(|key| key.as_bytes());
        let record = Outgoing { topic: &name, key, value: Some(message), headers: &[] };
        self.producer.send(&record, self.patience)?;
        self.sent += 1;
        Ok(())
    }

    /// Waits for delivery and returns the counts per topic in words.
    ///
    /// # Errors
    /// When not every record was delivered.
    pub fn finish(self) -> Result<String> {
        let flushed = self.producer.flush(self.patience);
        let counts = self.producer.counts_by_topic();
        let mut text = String::new();
        for (topic, counts) in &counts {
            text.push_str(&format!("{topic}: {} delivered", counts.delivered));
            if counts.failed() > 0 {
                text.push_str(&format!(", {} not", counts.failed()));
            }
            text.push('\n');
        }
        if self.unkeyed > 0 {
            text.push_str(&format!(
                "{} records without a key: their user or item cannot be read\n",
                self.unkeyed
            ));
        }
        let delivered = self.producer.counts().delivered;
        if delivered < self.sent {
            let failure = self.producer.take_failure().map(|failure| failure.reason);
            let reason = failure.or_else(|| self.producer.last_complaint());
            let reason = reason.or_else(|| flushed.err().map(|trouble| trouble.to_string()));
            bail!(
                "{text}{} of {} records were not delivered to {}: {}",
                self.sent - delivered,
                self.sent,
                self.producer.brokers(),
                reason.unwrap_or_else(|| "no reason given".to_owned())
            );
        }
        Ok(text)
    }

    fn keep_rate(&self) {
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.sent as f64 / rate);
            let ahead = due.saturating_sub(self.start.elapsed());
            if !ahead.is_zero() {
                std::thread::sleep(ahead);
            }
        }
    }
}

/// The members of a message that can be its key.
#[derive(Default, Deserialize)]
struct Keys<'a> {
    #[serde(borrow, default)]
    user: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    item: Option<Cow<'a, str>>,
}

fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    Ok(if path == Path::new("-") { Box::new(stdin().lock()) } else { files::open(path)? })
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err(format!("expected a rate above 0 such as 5000/s, found {text:?}")),
    }
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{human_pos} records, {per_sec} {msg}");
    let bar = ProgressBar::new_spinner();
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

#[cfg(test)]
mod tests {
    use sluice_daemon::kafka::{EmbeddedBroker, Reader, Start};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn messages_arrive_byte_for_byte_under_their_keys() {
        let broker = EmbeddedBroker::start().unwrap();
        for name in ["s.events", "s.items"] {
            broker.create_topic(name, 2).unwrap();
        }
        let connection = broker.connection();
        let mut sender = Sender::open(&connection, "s", PATIENCE, None).unwrap();
        for line in [
            "{\"topic\":\"events\",\"v\":1, \"user\":\"a\\u00e4\",\"item\":\"5\"}\n",
            "{\"topic\":\"items\",\"item\":\"5\",\"price\":1.50}",
            "{\"topic\":\"events\",\"user\":7}",
        ] {
            sender.send_line(&mut line.as_bytes().to_vec()).unwrap();
        }
        let told = sender.finish().unwrap();
        assert!(
            told.starts_with("s.events: 2 delivered\ns.items: 1 delivered\n1 records without"),
            "{told}"
        );
        let mut events: Vec<_> = read(&connection, "s.events");
        events.sort();
        assert_eq!(events[0], (None, "{\"user\":7}".to_owned()));
        let whole = "{\"v\":1, \"user\":\"a\\u00e4\",\"item\":\"5\"}".to_owned();
        assert_eq!(events[1], (Some("a\u{e4}".to_owned()), whole));
        let item = (Some("5".to_owned()), "{\"item\":\"5\",\"price\":1.50}".to_owned());
        assert_eq!(read(&connection, "s.items"), [item]);
    }

    fn read(connection: &Connection, topic: &str) -> Vec<(Option<String>, String)> {
        let mut reader = Reader::open(connection, topic, Start::Beginning, PATIENCE).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let records = reader.read_to_end(PATIENCE).unwrap().into_iter();
        records.map(|record| (record.key.map(text), record.value.map(text).unwrap())).collect()
    }

    #[test]
    fn what_kafka_does_not_take_in_time_is_told() {
        let broker = EmbeddedBroker::start().unwrap();
        broker.create_topic("s.events", 1).unwrap();
        let patience = Duration::from_secs(2);
        let mut sender = Sender::open(&broker.connection(), "s", patience, None).unwrap();
        let mut line = b"{\"topic\":\"events\",\"user\":\"u\"}".to_vec();
        sender.send_line(&mut line.clone()).unwrap();
        sender.producer.flush(PATIENCE).unwrap();
        broker.down().unwrap();
        sender.send_line(&mut line).unwrap();
        let told = sender.finish().unwrap_err().to_string();
        assert!(told.contains("1 of 2 records were not delivered"), "{told}");
    }

    #[test]
    fn rates_are_positive() {
        assert_eq!(parse_rate("5000/s"), Ok(5000.0));
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        assert!(parse_rate("0").is_err() && parse_rate("fast").is_err());
    }
}
