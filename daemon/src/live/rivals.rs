//! Whether another daemon works in the same group: both then answer every request, and publish everything twice.
//!
//! No group is joined, as every partition is assigned by hand, so Kafka refuses nobody. But each daemon commits offsets of its group for lag tools, and
//! writes beside them who it is. Whoever finds a name that is neither its own nor was there at its start has a rival. What was there at the start is
//! the run before, or a rival that works already: that one finds us.

use std::time::Duration;

use crate::kafka::{Connection, Probe};
use crate::metrics::Metrics;
use crate::telemetry::RateLimit;

/// How long Kafka may take to tell.
const PATIENCE: Duration = Duration::from_secs(1);
/// What the name of every daemon begins with: offsets that a tool has reset have another text beside them, or none.
const WHO: &str = "sluiced ";

/// Looks for another daemon.
pub struct Rivals {
    connection: Connection,
    group: String,
    topic: String,
    name: String,
    /// Names that were there at the start.
    before: Option<Vec<String>>,
    told: RateLimit,
}

impl Rivals {
    /// Creates the look-out of a daemon that is called so ([`name`]) and commits offsets of a topic.
    pub fn new(connection: Connection, group: &str, topic: &str, name: &str) -> Self {
        Self {
            connection,
            group: group.to_owned(),
            topic: topic.to_owned(),
            name: name.to_owned(),
            before: None,
            told: RateLimit::default(),
        }
    }

    /// Looks who has committed last, before this daemon commits again.
    pub fn look(&mut self, metrics: &Metrics, now: Duration) {
        let found = Probe::committers(&self.connection, &self.group, &self.topic, PATIENCE);
        let found = match found {
            Ok(found) => found,
            Err(trouble) => {
                tracing::debug!(%trouble, "it cannot be seen who has committed offsets");
                return;
            }
        };
        let before = self.before.get_or_insert_with(|| found.clone());
        let is_rival =
            |name: &String| name.starts_with(WHO) && *name != self.name && !before.contains(name);
        let rival = found.iter().find(|name| is_rival(name));
        metrics.daemon.rivals.set(f64::from(u8::from(rival.is_some())));
        if let Some(rival) = rival
            && self.told.allows(now)
        {
            tracing::warn!(
                group = self.group,
                rival,
                "another daemon works in this group: requests are answered twice, and embeddings and top lists are published twice; stop one of them, or \
                 give it a kafka.group and a kafka.prefix of its own"
            );
        }
    }
}

/// Returns a name for this run of the daemon, which no other one has.
pub fn name(clock: &crate::clock::Clock) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{WHO}{} {} {}", host.trim(), std::process::id(), clock.wall().0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use super::*;
    use crate::clock::Clock;
    use crate::kafka::{
        Consumer, ConsumerEvent, ConsumerSettings, EmbeddedBroker, Lane, NextOffset, Source,
        TopicRole,
    };
    use crate::metrics::LabelSets;

    const LANE: Lane = Lane { role: TopicRole::Events, partition: 0 };
    const PATIENT: Duration = Duration::from_secs(30);

    fn commit(broker: &EmbeddedBroker, name: &str, offset: i64) {
        let sources = vec![Source::new(TopicRole::Events, "t.events")];
        let mut settings = ConsumerSettings::new(broker.connection(), "g", sources);
        settings.name = name.to_owned();
        settings.offsets = BTreeMap::new();
        let consumer = Consumer::start(settings).unwrap();
        let event = consumer.events().recv_timeout(PATIENT).unwrap();
        assert!(matches!(event, ConsumerEvent::Assigned(_)));
        assert!(consumer.commit(vec![(LANE, NextOffset(offset))]));
        consumer.stop(PATIENT).unwrap();
        let begun = Instant::now();
        let committed =
            || Probe::committed(&broker.connection(), "g", "t.events", PATIENT).unwrap()[0];
        while committed() != Some(NextOffset(offset)) {
            assert!(begun.elapsed() < PATIENT);
        }
    }

    #[test]
    fn another_daemon_of_the_group_is_found_and_the_run_before_is_not() {
        let broker = EmbeddedBroker::start().unwrap();
        broker.create_topic("t.events", 1).unwrap();
        let metrics = Metrics::new(&LabelSets::default());
        let me = name(&Clock::system());
        let mut rivals = Rivals::new(broker.connection(), "g", "t.events", &me);
        let mut look = || {
            rivals.look(&metrics, Duration::ZERO);
            metrics.render().contains("sluice_daemon_rivals 1\n")
        };
        commit(&broker, "sluiced of the run before", 1);
        assert!(!look());
        assert!(!look(), "our own commit was not taken");
        commit(&broker, &me, 2);
        assert!(!look());
        commit(&broker, "sluiced elsewhere 7 1", 3);
        assert!(look());
        commit(&broker, &me, 4);
        assert!(!look());
        commit(&broker, "", 5);
        assert!(!look(), "a tool has reset them");
    }
}
