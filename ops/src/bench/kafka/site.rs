//! Where it happens: a daemon in this process, its broker, its shop, and those who will ask.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use sluice_daemon::kafka::{
    Admin, Connection, Outgoing, Producer, ProducerSettings, TopicSpec, standard_topics,
};
use sluice_daemon::shutdown::Shutdown;

use super::PATIENCE;
use super::load::LIMIT;
use crate::bench::askers::{SHOP, introduce};
use crate::demo::inside::Inside;
use crate::query::fresh_id;
use crate::simulate::Shop;

/// Scratch topics of the echo, behind the prefix.
pub(super) const ECHO: [&str; 2] = ["bench-echo", "bench-echo-answers"];
/// Partitions of the daemon's topics on given brokers: as many as on the embedded one.
const PARTITIONS: i32 = 16;
/// A running daemon with its shop.
pub(super) struct Site {
    pub(super) daemon: Inside,
    pub(super) ctrl_c: Shutdown,
    /// The shop, when no [`super::Load`] has it.
    pub(super) shop: Option<Shop>,
    /// The topics that were made on given brokers.
    made: Option<(Admin, Vec<TopicSpec>)>,
}

impl Site {
    /// Starts the daemon on a broker of its own, or on given ones with topics of its own.
    ///
    /// # Errors
    /// When Kafka cannot be reached or a part does not start.
    pub(super) fn open(brokers: Option<&str>, ctrl_c: Shutdown) -> Result<Self> {
        let quiet = "[log]\nlevel = \"error\"\n";
        let (daemon, made) = match brokers {
            None => {
                let topics = ECHO.map(|topic| format!("sluice.{topic}"));
                let text = format!("[kafka]\nembedded = true\n{quiet}");
                (Inside::start(&text, &[&topics[0], &topics[1]], &ctrl_c)?, None)
            }
            Some(brokers) => {
                let prefix = fresh_id().replace("query", "sluice-bench");
                let admin = Admin::open(&Connection::plain(brokers), PATIENCE)?;
                let mut topics = standard_topics(&prefix, PARTITIONS, 1);
                topics.extend(ECHO.map(|topic| TopicSpec {
                    name: format!("{prefix}.{topic}"),
                    partitions: 1,
                    replication: 1,
                    needed: Vec::new(),
                    advised: Vec::new(),
                    initial: vec![("retention.ms", "600000")],
                }));
                admin.create(&topics.iter().collect::<Vec<_>>())?;
                let addresses = toml::Value::String(brokers.to_owned());
                let text = format!(
                    "[kafka]\nbrokers = {addresses}\nprefix = \"{prefix}\"\ngroup = \"{prefix}\"\n{quiet}"
                );
                (Inside::start(&text, &[], &ctrl_c)?, Some((admin, topics)))
            }
        };
        Ok(Self { daemon, ctrl_c, shop: Some(Shop::new(SHOP, 1)?), made })
    }

    /// Returns the full name of a topic.
    pub(super) fn topic(&self, name: &str) -> String {
        self.daemon.topic(name)
    }

    /// How to reach the broker.
    pub(super) fn connection(&self) -> Connection {
        self.daemon.connection.clone()
    }

    /// Returns how many records the daemon has taken.
    pub(super) fn records(&self) -> u64 {
        self.daemon.shared.records()
    }

    /// Waits, unless the daemon ends or a signal comes.
    ///
    /// # Errors
    /// How the daemon ended, or that a signal came.
    pub(super) fn pause(&mut self, duration: Duration) -> Result<()> {
        ensure!(!self.ctrl_c.wait(duration), "stopped by a signal");
        self.daemon.check()
    }

    /// Describes items and users, and gives those who ask their histories.
    ///
    /// # Errors
    /// When the daemon does not take them in time.
    pub(super) fn introduce_askers(&mut self) -> Result<()> {
        let producer = Producer::open(&ProducerSettings::new(self.connection()))?;
        let before = self.records();
        let mut sent = 0;
        introduce(|topic, key, message, _| {
            let (topic, message) = (self.topic(topic.name()), stamped(message, wall()));
            let (key, value) = (Some(key.as_bytes()), Some(message.as_bytes()));
            producer.send(&Outgoing { topic: &topic, key, value, headers: &[] }, PATIENCE)?;
            sent += 1;
            while sent > self.records() - before + LIMIT {
                self.pause(Duration::from_millis(2))?;
            }
            Ok(())
        })?;
        producer.flush(PATIENCE)?;
        let sent = before + sent;
        self.daemon.catch_up(sent, PATIENCE)
    }

    /// Stops the daemon and removes what it made.
    ///
    /// # Errors
    /// When it did not end well, or its topics cannot be deleted.
    pub(super) fn close(self) -> Result<()> {
        self.daemon.stop()?;
        if let Some((admin, topics)) = &self.made {
            let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
            admin.delete(&names)?;
        }
        Ok(())
    }
}

/// Milliseconds since 1970.
pub(super) fn wall() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Returns a message of the shop with another event time.
pub(super) fn stamped(message: &str, time: i64) -> String {
    const KEY: &str = "\"ts\":";
    let Some((before, rest)) = message.split_once(KEY) else {
        return message.to_owned();
    };
    let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}{KEY}{time}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_gets_another_time() {
        let message = r#"{"item":"i1","ts":1704067200000,"features":{"price":30.8}}"#;
        assert_eq!(stamped(message, 5), r#"{"item":"i1","ts":5,"features":{"price":30.8}}"#);
        assert_eq!(stamped("{}", 5), "{}");
    }
}
