//! The topics: where they are, and how many partitions they have.

use std::time::Duration;

use super::Daemon;
use crate::config::Config;
use crate::error::Stop;
use crate::http::Wait;
use crate::kafka::{Connection, EmbeddedBroker, Probe};

/// Partitions of the embedded broker's topics.
const EMBEDDED_PARTITIONS: i32 = 16;
/// How long a broker may take to answer one question at the start, before it is asked again.
const ASK: Duration = Duration::from_secs(5);

/// Returns the configured connection, or starts a broker inside the process, with all topics.
pub(super) fn connection(config: &Config) -> Result<(Option<EmbeddedBroker>, Connection), Stop> {
    if !config.kafka.embedded {
        return Ok((None, config.kafka.connection.clone()));
    }
    let broker =
        EmbeddedBroker::start().map_err(|t| Stop::kafka("starting the embedded broker", t))?;
    let topics = &config.kafka.topics;
    for topic in [
        &topics.events,
        &topics.items,
        &topics.users,
        &topics.requests,
        &topics.responses,
        &topics.embeddings,
        &topics.scores,
        &topics.dead_letter,
    ] {
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
    /// Asks for the partitions of the input topics until a broker answers; `None` when asked to stop before.
    pub(super) fn partitions(&self, config: &Config) -> Result<Option<usize>, Stop> {
        let topics = &config.kafka.topics;
        let mut said = false;
        while !self.wish.is_requested() {
            let probe = Probe::open(&self.connection)
                .map_err(|t| Stop::kafka("opening a connection", t))?;
            let count = |topic: &str| probe.partitions(topic, ASK);
            let found = count(&topics.events)
                .and_then(|events| Ok((events, count(&topics.items)?, count(&topics.users)?)));
            match found {
                Ok((Some(events), Some(items), Some(users)))
                    if events == items && events == users =>
                {
                    return Ok(Some(events));
                }
                Ok((Some(events), Some(items), Some(users))) => {
                    return Err(Stop::config(format!(
                        "the topics of events, items and users must have equally many partitions, found {events}, {items} and {users}"
                    )));
                }
                Ok(_) => {
                    return Err(Stop::config(format!(
                        "a topic is missing among {}, {} and {}: sluice topics apply makes them",
                        topics.events, topics.items, topics.users
                    )));
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
}
