//! `sluice produce FILE...`: plays files of records into Kafka.
//!
//! Each line is a message with its topic in front, `{"topic":"events",...}`; the message goes out byte for
//! byte without it, keyed by its user (items by the item), so that all of a user meets in one partition.
//! Messages are not judged here: what is wrong with one is the daemon's to say. A line without a topic, or with more bytes than Kafka
//! takes, ends the run, or is left out and counted. What was sent before is delivered in any case, and the numbers are printed; so they are
//! after Ctrl-C.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use sluice_daemon::kafka::{Connection, Outgoing, Probe, Producer, ProducerSettings, Trouble};
use sluice_features::reject::Reason;
use sluice_features::wire::{Topic, split_line};

use crate::connect::{ConnectArguments, parse_duration};
use crate::files::{self, Line, Stopped, TOO_LONG};
use crate::untaken::Untaken;
use sluice_daemon::say::{note, tell};
use sluice_daemon::shutdown::Shutdown;

/// What to send, where and how fast.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// JSON lines, also .gz, .zst, .xz or .zip; - is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Records per second, as N or N/s; as fast as possible where not given
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,
    /// How long Kafka may take to accept a record
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    timeout: Duration,
    /// Leave out lines that are no records or too large for Kafka, count them and go on; the exit code is 1 then
    #[arg(long)]
    skip_bad: bool,
    #[command(flatten)]
    connect: ConnectArguments,
}

/// Runs the subcommand.
///
/// # Errors
/// When a file cannot be read to its end, Kafka cannot be reached, a line is bad, not every record was delivered, or there was none.
/// What was sent before is delivered and told all the same.
pub fn run(arguments: &Arguments) -> Result<()> {
    files::check(&arguments.files)?;
    let stop = Shutdown::new();
    stop.watch_signals().context("signals")?;
    produce(arguments, &stop)
}

fn produce(arguments: &Arguments, stop: &Shutdown) -> Result<()> {
    let target = arguments.connect.target()?;
    let mut sender = Sender::open(&target.connection, &target.prefix, arguments.timeout)?;
    let bar = progress_bar();
    let mut bad = Untaken::default();
    let read = play(arguments, stop, &mut sender, &bar, &mut bad);
    bar.set_message("waiting for delivery");
    let sent = sender.sent;
    let Summary { mut text, lost } = sender.finish();
    bar.finish_and_clear();
    let all = sent + bad.count();
    if let Some(summary) = bad.summary("lines were left out", all) {
        text.push_str(&format!("{summary}\n"));
    }
    tell(&text)?;
    if let (Err(_), Some(lost)) = (&read, &lost) {
        note(&format!("{lost}\n"));
    }
    read?;
    ensure!(lost.is_none(), lost.unwrap_or_default());
    ensure!(bad.count() == 0, "{} of {all} lines were left out", bad.count());
    ensure!(sent > 0, "expected records, found none");
    Ok(())
}

/// Sends the lines of all files, at the set rate, until there are no more or it is asked to stop.
fn play(
    arguments: &Arguments,
    stop: &Shutdown,
    sender: &mut Sender,
    bar: &ProgressBar,
    bad: &mut Untaken,
) -> Result<()> {
    let begun = Instant::now();
    let mut last = String::from("before the first line");
    for path in &arguments.files {
        files::for_each_line(path, stop, |name, number, line| {
            let due = arguments.rate.map_or(0.0, |rate| sender.sent as f64 / rate);
            if stop.wait(Duration::from_secs_f64(due).saturating_sub(begun.elapsed())) {
                bail!(Stopped(std::mem::take(&mut last)));
            }
            let place = format!("{name}, line {number}");
            match sender.send_line(line) {
                Ok(()) => {}
                Err(LineError::Bad { reason, text }) if arguments.skip_bad => {
                    if bad.add(reason, || format!("{place}: {text}")) {
                        bar.suspend(|| note(&format!("left out: {place}: {text}\n")));
                    }
                }
                Err(LineError::Bad { text, .. }) => bail!("{place}: {text}"),
                Err(LineError::Fatal(error)) => return Err(error.context(place)),
            }
            bar.inc(1);
            last = format!("behind {place}");
            Ok(())
        })?;
    }
    Ok(())
}

/// What became of the records.
pub struct Summary {
    /// The counts of each topic in words.
    pub text: String,
    /// How many were not delivered, and why; none where all were.
    pub lost: Option<String>,
}

/// Why a line was not sent.
#[derive(Debug)]
pub enum LineError {
    /// It will never be: it is no record, or Kafka takes none so large.
    Bad {
        /// One of few.
        reason: &'static str,
        /// What was expected and what was found.
        text: String,
    },
    /// No other would be either.
    Fatal(anyhow::Error),
}

impl From<Trouble> for LineError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::TooLarge { .. } => {
                Self::Bad { reason: Reason::TooLarge.name(), text: trouble.to_string() }
            }
            _ => Self::Fatal(trouble.into()),
        }
    }
}

/// Sends lines of files to their topics.
pub struct Sender {
    producer: Producer,
    probe: Probe,
    prefix: String,
    known: BTreeSet<Topic>,
    patience: Duration,
    sent: u64,
    unkeyed: u64,
}

impl Sender {
    /// Connects.
    ///
    /// # Errors
    /// When the connection's settings are refused.
    pub fn open(connection: &Connection, prefix: &str, patience: Duration) -> Result<Self> {
        let mut settings = ProducerSettings::new(connection.clone());
        settings.delivery_timeout = Some(patience);
        Ok(Self {
            producer: Producer::open(&settings)?,
            probe: Probe::open(connection)?,
            prefix: prefix.to_owned(),
            known: BTreeSet::new(),
            patience,
            sent: 0,
            unkeyed: 0,
        })
    }

    /// Sends one line.
    ///
    /// # Errors
    /// When the line names no topic, the topic does not exist, or Kafka takes nothing more in time.
    pub fn send_line(&mut self, line: Line<'_>) -> Result<(), LineError> {
        let Line::Whole(line) = line else {
            let (reason, text) = (Reason::TooLarge.name(), TOO_LONG.to_owned());
            return Err(LineError::Bad { reason, text });
        };
        let (topic, message) = split_line(line).map_err(|rejection| {
            let expected = r#"expected a line such as {"topic":"events",...}"#;
            let text = format!("{expected}: {rejection}");
            LineError::Bad { reason: rejection.reason.name(), text }
        })?;
        let name = format!("{}.{}", self.prefix, topic.name());
        if !self.known.contains(&topic) {
            let found = self.probe.partitions(&name, self.patience)?;
            found.ok_or_else(|| Trouble::MissingTopic { topic: name.clone() })?;
            self.known.insert(topic);
        }
        let keys: Keys<'_> = serde_json::from_slice(message).unwrap_or_default();
        let key = if topic == Topic::Items { keys.item } else { keys.user };
        let unkeyed = key.is_none();
        let key = key.as_ref().map(|key| key.as_bytes());
        let record = Outgoing { topic: &name, key, value: Some(message), headers: &[] };
        self.producer.send_or_refuse(&record, self.patience)?;
        self.sent += 1;
        self.unkeyed += u64::from(unkeyed);
        Ok(())
    }

    /// Waits for delivery of what was sent, and says what became of it.
    pub fn finish(self) -> Summary {
        let flushed = self.producer.flush(self.patience);
        let counts = self.producer.counts_by_topic();
        let mut text = String::from(if counts.is_empty() { "0 delivered\n" } else { "" });
        for (topic, counts) in counts {
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
        let lost = (delivered < self.sent).then(|| {
            let failure = self.producer.take_failure().map(|failure| failure.reason);
            let reason = failure.or_else(|| self.producer.last_complaint());
            let reason = reason.or_else(|| flushed.err().map(|trouble| trouble.to_string()));
            format!(
                "{} of {} records were not delivered to {}: {}",
                self.sent - delivered,
                self.sent,
                self.producer.brokers(),
                reason.unwrap_or_else(|| "no reason given".to_owned())
            )
        });
        Summary { text, lost }
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
    use std::path::Path;

    use clap::Parser;
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
        let mut sender = Sender::open(&connection, "s", PATIENCE).unwrap();
        for line in [
            "{\"topic\":\"events\",\"v\":1, \"user\":\"a\\u00e4\",\"item\":\"5\"}\n",
            "{\"topic\":\"items\",\"item\":\"5\",\"price\":1.50}",
            "{\"topic\":\"events\",\"user\":7}",
        ] {
            sender.send_line(Line::Whole(&mut line.as_bytes().to_vec())).unwrap();
        }
        let Summary { text: told, lost } = sender.finish();
        assert_eq!(lost, None);
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
        let mut sender = Sender::open(&broker.connection(), "s", patience).unwrap();
        let mut line = b"{\"topic\":\"events\",\"user\":\"u\"}".to_vec();
        sender.send_line(Line::Whole(&mut line.clone())).unwrap();
        sender.producer.flush(PATIENCE).unwrap();
        broker.down().unwrap();
        sender.send_line(Line::Whole(&mut line)).unwrap();
        let told = sender.finish().lost.unwrap();
        assert!(told.contains("1 of 2 records were not delivered"), "{told}");
    }

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        produce: Arguments,
    }

    fn play(broker: &EmbeddedBroker, file: &Path, more: &[&str]) -> Result<()> {
        let (brokers, file) = (broker.connection().brokers, file.display().to_string());
        let flags = ["x", &file, "--brokers", &brokers, "--timeout", "20s"];
        let flags = Flags::try_parse_from([&flags[..], more].concat()).unwrap();
        produce(&flags.produce, &Shutdown::new())
    }

    #[test]
    fn what_was_sent_until_it_is_stopped_is_delivered_and_told() {
        use std::io::Write;
        use std::os::fd::AsRawFd;

        let broker = EmbeddedBroker::start().unwrap();
        broker.create_topic("sluice.events", 1).unwrap();
        // A pipe in which nothing more comes.
        let (input, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&b"{\"topic\":\"events\",\"user\":\"u\"}\n".repeat(300)).unwrap();
        let (brokers, file) =
            (broker.connection().brokers, format!("/dev/fd/{}", input.as_raw_fd()));
        let flags = Flags::try_parse_from(["x", &file, "--brokers", &brokers]).unwrap();
        let stop = Shutdown::new();
        let error = std::thread::scope(|scope| {
            let played = scope.spawn(|| produce(&flags.produce, &stop));
            let connection = broker.connection();
            while read(&connection, "sluice.events").len() < 300 {}
            stop.request();
            played.join().unwrap().unwrap_err().to_string()
        });
        assert!(error.starts_with("stopped behind ") && error.ends_with("line 300"), "{error}");
        assert_eq!(read(&broker.connection(), "sluice.events").len(), 300);
    }

    #[test]
    fn what_stands_before_a_bad_line_is_delivered_and_what_stands_behind_if_bad_ones_may_be_skipped()
     {
        let broker = EmbeddedBroker::start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f.jsonl");
        let good = |user: usize| format!("{{\"topic\":\"events\",\"user\":\"{user}\"}}\n");
        let before: String = (0..1000).map(good).collect();
        let large = good(0).replace("\"0\"", &format!("\"{}\"", "x".repeat(1_100_000)));
        for (i, (bad, told)) in
            [("{\"topic\"\n", "topic"), (&large, "message.max.bytes")].iter().enumerate()
        {
            std::fs::write(&file, format!("{before}{bad}{before}")).unwrap();
            let topic = format!("p{i}.events");
            broker.create_topic(&topic, 1).unwrap();
            let prefix = ["--prefix", &topic[..2]];
            let error = format!("{:#}", play(&broker, &file, &prefix).unwrap_err());
            assert!(error.contains("f.jsonl, line 1001: ") && error.contains(told), "{error}");
            assert_eq!(read(&broker.connection(), &topic).len(), 1000, "{told}");
            let skipping = [&prefix[..], &["--skip-bad"]].concat();
            let error = format!("{:#}", play(&broker, &file, &skipping).unwrap_err());
            assert_eq!(error, "1 of 2001 lines were left out");
            assert_eq!(read(&broker.connection(), &topic).len(), 3000, "{told}");
        }
    }

    #[test]
    fn nothing_to_send_and_nothing_but_bad_lines_are_errors() {
        let broker = EmbeddedBroker::start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f.jsonl");
        for (text, more, told) in [
            ("\n  \n", &[][..], "expected records, found none"),
            ("no\nrecord\n", &["--skip-bad"], "2 of 2 lines were left out"),
            (
                "{\"topic\":\"items\",\"item\":\"5\"}\n",
                &["--skip-bad"],
                "topic sluice.items does not exist",
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = format!("{:#}", play(&broker, &file, more).unwrap_err());
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn rates_are_positive() {
        assert_eq!(parse_rate("5000/s"), Ok(5000.0));
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        assert!(parse_rate("0").is_err() && parse_rate("fast").is_err());
    }
}
