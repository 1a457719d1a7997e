//! The topics: where they are, and how many partitions they have.

use std::time::Duration;

use super::Daemon;
use crate::config::{Config, Topics};
use crate::error::Stop;
use crate::http::Wait;
use crate::kafka::{Admin, Connection, EmbeddedBroker, Probe, Right, Trouble};

/// Partitions of the embedded broker's topics.
const EMBEDDED_PARTITIONS: i32 = 16;
/// How long a broker may take to answer one question at the start, before it is asked again.
const ASK: Duration = Duration::from_secs(5);
/// How long a broker may take to tell the settings of topics, which is only worth a warning.
const SETTINGS: Duration = Duration::from_secs(2);

/// Returns the configured connection, or starts a broker inside the process, with all topics.
pub(super) fn connection(config: &Config) -> Result<(Option<EmbeddedBroker>, Connection), Stop> {
    if !config.kafka.embedded {
        return Ok((None, config.kafka.connection.clone()));
    }
    let broker =
        EmbeddedBroker::start().map_err(|t| Stop::kafka("starting the embedded broker", t))?;
    let topics = &config.kafka.topics;
    let standard = [
        &topics.events,
        &topics.items,
        &topics.users,
        &topics.requests,
        &topics.responses,
        &topics.embeddings,
        &topics.scores,
        &topics.dead_letter,
    ];
    for topic in standard.into_iter().chain(&config.kafka.reply_topics) {
        broker
            .create_topic(topic, EMBEDDED_PARTITIONS)
            .map_err(|t| Stop::kafka("making a topic of the embedded broker", t))?;
    }
    tracing::warn!(
        brokers = broker.brokers(),
        "the broker is inside this process: nothing in it survives"
    );
    let connection = broker.connection();
    Ok((Some(broker), connection))
}

impl Daemon {
    /// Asks for all topics until a broker answers, and returns how many partitions those of events, items and users have; `None` when asked
    /// to stop before.
    pub(super) fn partitions(&self, config: &Config) -> Result<Option<usize>, Stop> {
        let mut said = false;
        while !self.wish.is_requested() {
            let probe = Probe::open(&self.connection)
                .map_err(|t| Stop::kafka("opening a connection", t))?;
            match Counts::ask(&probe, config) {
                Ok(counts) => {
                    counts.tell_unseen();
                    let partitions = counts.check()?;
                    self.look_at_stamps(config);
                    return Ok(Some(partitions));
                }
                Err(trouble) if trouble.is_retriable() => {
                    if !said {
                        tracing::warn!(%trouble, "Kafka does not answer: waiting");
                        said = true;
                    }
                    self.readiness.wait_for(Wait::Kafka, trouble.to_string());
                    self.wish.wait(Duration::from_secs(1));
                }
                Err(trouble) => return Err(Stop::kafka("asking for the topics", trouble)),
            }
        }
        Ok(None)
    }

    /// Warns of input topics that believe what producers say of the time.
    fn look_at_stamps(&self, config: &Config) {
        if self.embedded.is_some() {
            return;
        }
        let Topics { events, items, users, requests, .. } = &config.kafka.topics;
        let ask = |admin: Admin| admin.stamped_by_producers(&[events, items, users, requests]);
        match Admin::open(&self.connection, SETTINGS).and_then(ask) {
            Ok(stamped) if stamped.is_empty() => {}
            Ok(stamped) => {
                let remedy: Vec<_> = stamped.into_iter().map(|topic| topic.remedy).collect();
                tracing::warn!(
                    remedy = remedy.join("; "),
                    "records are dated by their producers' clocks (CreateTime): one that is up to an hour wrong dates event and record alike, so only events of \
                     other users show it; freshness is wrong by as much, and after a restart requests are as old as their askers say"
                );
            }
            Err(trouble) => {
                tracing::info!(%trouble, "it cannot be seen whose clock dates the records of the input topics");
            }
        }
    }
}

/// How many partitions each topic has; none where there is no such topic.
struct Counts<'a> {
    /// Of events, items and users.
    shards: [(&'a str, Option<usize>); 3],
    /// Of the others.
    others: Vec<(&'a str, Option<usize>)>,
    /// Of those that requests may name.
    replies: Vec<(&'a str, Option<usize>)>,
    /// Those written of which the user may not know whether they exist.
    unseen: Vec<&'a str>,
}

impl<'a> Counts<'a> {
    fn ask(probe: &Probe, config: &'a Config) -> Result<Self, Trouble> {
        let topics = &config.kafka.topics;
        let count = |topic: &'a str| Ok((topic, probe.partitions(topic, ASK)?));
        let shards = [count(&topics.events)?, count(&topics.items)?, count(&topics.users)?];
        let mut others = vec![count(&topics.requests)?];
        let lists = (config.scores.budget > 0.0).then_some(&topics.scores);
        let outputs = [&topics.responses, &topics.embeddings, &topics.dead_letter];
        let (mut replies, mut unseen) = (Vec::new(), Vec::new());
        let mut look = |topic: &'a String, found: &mut Vec<_>| match count(topic) {
            // Writing to it may be refused, which is told then: the rest can go on.
            Err(Trouble::Denied { .. }) => {
                unseen.push(topic.as_str());
                Ok(())
            }
            answer => answer.map(|answer| found.push(answer)),
        };
        outputs.into_iter().chain(lists).try_for_each(|topic| look(topic, &mut others))?;
        config.kafka.reply_topics.iter().try_for_each(|topic| look(topic, &mut replies))?;
        Ok(Self { shards, others, replies, unseen })
    }

    /// Tells of topics that the user may not see.
    fn tell_unseen(&self) {
        for topic in &self.unseen {
            let (right, describe) = (Right::on_topic("Write", topic), Right::to_describe(topic));
            tracing::warn!(
                topic,
                remedy = format!(
                    "the user needs the right {right}, which includes {describe}: kafka-acls.sh --add ... {}",
                    right.flags()
                ),
                "it cannot be seen whether a topic that is written exists: what goes there may be lost"
            );
        }
    }

    /// Returns the number of shards.
    fn check(self) -> Result<usize, Stop> {
        let all = self.shards.iter().chain(&self.others);
        let missing: Vec<_> =
            all.filter(|(_, count)| count.is_none()).map(|(topic, _)| *topic).collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(Stop::config(format!(
                "expected topics that do not exist: {missing}; create them with `sluice topics apply`"
            )));
        }
        let missing: Vec<_> = self
            .replies
            .iter()
            .filter(|(_, count)| count.is_none())
            .map(|(topic, _)| *topic)
            .collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(Stop::config(format!(
                "kafka.reply_topics names topics that do not exist: {missing}; answers to requests that name them would be lost: create them, \
                 or take them out of the list"
            )));
        }
        let [events, items, users] = self.shards.map(|(_, count)| count.unwrap_or_default());
        if events != items || events != users {
            return Err(Stop::config(format!(
                "the topics of events, items and users must have equally many partitions, found {events}, {items} and {users}"
            )));
        }
        Ok(events)
    }
}
