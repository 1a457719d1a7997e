//! Where it happens: a daemon in this process, its broker, its shop, and those who will ask.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use sluice_daemon::kafka::{
    Admin, Connection, Outgoing, Producer, ProducerSettings, TopicSpec, standard_topics,
};
use sluice_daemon::shutdown::Shutdown;
use sluice_features::wire::Topic;

use super::PATIENCE;
use super::load::LIMIT;
use super::requests::CANDIDATES;
use crate::demo::inside::Inside;
use crate::query::{Kind, fresh_id, question};
use crate::simulate::{Shop, ShopConfig};

/// Scratch topics of the echo, behind the prefix.
pub(super) const ECHO: [&str; 2] = ["bench-echo", "bench-echo-answers"];
/// Partitions of the daemon's topics on given brokers: as many as on the embedded one.
const PARTITIONS: i32 = 16;
/// Users about whom is asked.
const ASKERS: usize = 16;
/// How often each of them has clicked on each item: with 20 items in a category, more than 50 behaviours of every category.
const CLICKS: usize = 3;
/// The shop: small enough that users come back, and without new items, so that candidates stay.
const SHOP: ShopConfig = ShopConfig {
    users: 250,
    items: 400,
    categories: 20,
    impressions: u64::MAX,
    per_day: 1_000_000.0,
    start: 1_704_067_200_000,
    turnover: 0.0,
    duplicates: 0.0,
    bots: 0.0,
    malformed: 0.0,
};

/// A running daemon with its shop.
pub(super) struct Site {
    pub(super) daemon: Inside,
    pub(super) ctrl_c: Shutdown,
    /// The shop, when no [`super::Load`] has it.
    pub(super) shop: Option<Shop>,
    items: Vec<String>,
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
        let items = (1..=SHOP.items).map(|number| format!("i{number}")).collect();
        Ok(Self { daemon, ctrl_c, shop: Some(Shop::new(SHOP, 1)?), items, made })
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
        let mut send = |site: &mut Self, topic: Topic, key: &str, message: &str| -> Result<()> {
            let (topic, key) = (site.topic(topic.name()), Some(key.as_bytes()));
            let value = Some(message.as_bytes());
            producer.send(&Outgoing { topic: &topic, key, value, headers: &[] }, PATIENCE)?;
            sent += 1;
            while sent > site.records() - before + LIMIT {
                site.pause(Duration::from_millis(2))?;
            }
            Ok(())
        };
        let shop = Shop::new(SHOP, 1)?;
        let described = shop.take_while(|record| record.topic != Topic::Events);
        for record in described {
            send(self, record.topic, &record.key, &stamped(&record.message, wall()))?;
        }
        for click in 0..CLICKS {
            for asker in 0..ASKERS {
                let user = user(asker);
                for item in self.items.clone() {
                    let (id, ts) = (format!("history/{user}/{item}/{click}"), wall());
                    let seen = format!(
                        r#"{{"type":"impression","id":"{id}","ts":{ts},"user":"{user}","item":"{item}"}}"#
                    );
                    let clicked = format!(
                        r#"{{"type":"click","id":"{id}/click","ts":{ts},"user":"{user}","item":"{item}","impression":"{id}"}}"#
                    );
                    send(self, Topic::Events, &user, &seen)?;
                    send(self, Topic::Events, &user, &clicked)?;
                }
            }
        }
        producer.flush(PATIENCE)?;
        let sent = before + sent;
        self.daemon.catch_up(sent, PATIENCE)
    }

    /// Returns the user and the bytes of a request.
    ///
    /// # Errors
    /// None today: texts can always be written.
    pub(super) fn request(&self, id: &str, number: usize) -> Result<(String, String)> {
        let user = user(number % ASKERS);
        let items = self.items.iter().cycle().skip(number * 7 % self.items.len());
        let items: Vec<String> = items.take(CANDIDATES).cloned().collect();
        let k = u32::try_from(CANDIDATES)?;
        let text = question(id, Kind::Rank, Some(&user), &items, k, PATIENCE)?;
        Ok((user, text))
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

/// The name of one who asks.
fn user(asker: usize) -> String {
    format!("u{}", asker + 1)
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

    #[test]
    fn the_shop_has_the_items_and_users_that_are_asked_about() {
        let mut items = 0;
        let mut users = Vec::new();
        for record in Shop::new(SHOP, 1).unwrap().take_while(|r| r.topic != Topic::Events) {
            match record.topic {
                Topic::Items => items += 1,
                _ => users.push(record.key),
            }
        }
        assert_eq!(items, SHOP.items);
        assert!((0..ASKERS).all(|asker| users.contains(&user(asker))), "{users:?}");
        const { assert!(CLICKS * SHOP.items / SHOP.categories >= 50) };
    }
}
