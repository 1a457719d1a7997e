//! What the client library tells us beside records: log lines, errors, statistics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::Deserialize;

use super::trouble::{explained, is_telling};

/// Collects what a client says; one per client.
#[derive(Default)]
pub(super) struct Listener {
    said: Mutex<Option<String>>,
    statistics: Mutex<Option<Statistics>>,
    commits_failed: AtomicU64,
    commits_denied: AtomicBool,
    made_anew: Mutex<Option<String>>,
}

impl Listener {
    /// Returns the last complaint, which usually names the cause that an error code hides.
    pub(super) fn last_complaint(&self) -> Option<String> {
        self.said.lock().clone()
    }

    /// Forgets the last complaint.
    pub(super) fn forget_complaint(&self) {
        *self.said.lock() = None;
    }

    /// Takes the newest statistics, if any came since the last call.
    pub(super) fn take_statistics(&self) -> Option<Statistics> {
        self.statistics.lock().take()
    }

    /// Takes the name of a topic that was made anew while it was in use, if there was one since the last call. Only a client that
    /// [`tells_of_topics_made_anew`] hears of it.
    pub(super) fn take_made_anew(&self) -> Option<String> {
        self.made_anew.lock().take()
    }

    /// Tells whether a commit was refused because the user may not commit offsets of the group.
    pub(super) fn are_commits_denied(&self) -> bool {
        self.commits_denied.load(Ordering::Relaxed)
    }

    /// Returns how many commits have failed. That one has succeeded the client does not tell.
    pub(super) fn commits_failed(&self) -> u64 {
        self.commits_failed.load(Ordering::Relaxed)
    }

    /// Takes note of a commit that has failed: the client tells by a log line, for it calls back only those who set a callback of C.
    fn note_failed_commit(&self, line: &str) {
        tracing::debug!(line, "offsets not committed to kafka (our own are in the checkpoint)");
        self.commits_failed.fetch_add(1, Ordering::Relaxed);
        if line.contains("Group authorization failed") {
            self.commits_denied.store(true, Ordering::Relaxed);
        }
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let complains = matches!(
            level,
            RDKafkaLogLevel::Emerg
                | RDKafkaLogLevel::Alert
                | RDKafkaLogLevel::Critical
                | RDKafkaLogLevel::Error
                | RDKafkaLogLevel::Warning
        );
        if let Some(topic) = made_anew(line).filter(|_| facility == "METADATA") {
            *self.made_anew.lock() = Some(topic.to_owned());
        }
        if facility == "COMMITFAIL" {
            self.note_failed_commit(line);
            return;
        }
        // Connection failures repeat with every attempt; the owner reports them once, with this text.
        if matches!(facility, "FAIL" | "ERROR" | "REQTMOUT") && (complains || is_telling(line)) {
            *self.said.lock() = Some(explained(line));
        } else if complains {
            tracing::warn!(facility, line, "kafka client");
            return;
        }
        tracing::debug!(facility, line, "kafka client");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        let mut said = self.said.lock();
        // That all brokers are down says less than why the last one was.
        if said.is_none() || error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *said = Some(explained(reason));
        }
    }

    fn stats_raw(&self, json: &[u8]) {
        // The library's statistics are sometimes malformed (librdkafka#5390): the next ones will do.
        match serde_json::from_slice(json) {
            Ok(statistics) => *self.statistics.lock() = Some(statistics),
            Err(error) => tracing::debug!(%error, "kafka statistics unreadable"),
        }
    }
}

impl ConsumerContext for Listener {}

/// Lets a client tell by log lines which ids its topics have: it goes on in a topic that was made anew as if it were the old one, and says
/// so nowhere else.
pub(super) fn tells_of_topics_made_anew(options: &mut ClientConfig) {
    let others = options.get("debug").map(|others| format!("{others},")).unwrap_or_default();
    options.set("debug", format!("{others}metadata")).set_log_level(RDKafkaLogLevel::Debug);
}

/// Returns the topic of a log line that says that its id is another one now. Before the first answer a client knows no id.
fn made_anew(line: &str) -> Option<&str> {
    const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";
    let (before, ids) = line.rsplit_once(" changed id from ")?;
    let topic = before.rsplit_once("Topic ")?.1;
    let (old, new) = ids.split_once(" to ")?;
    (!old.starts_with(NO_ID) && !new.starts_with(NO_ID)).then_some(topic)
}

/// The few statistics of the library that we use.
#[derive(Debug, Deserialize)]
pub(super) struct Statistics {
    #[serde(default)]
    brokers: BTreeMap<String, BrokerStatistics>,
    #[serde(default)]
    topics: BTreeMap<String, TopicStatistics>,
}

#[derive(Debug, Deserialize)]
struct BrokerStatistics {
    nodeid: i64,
    state: String,
}

#[derive(Debug, Deserialize)]
struct TopicStatistics {
    #[serde(default)]
    partitions: BTreeMap<String, PartitionStatistics>,
}

/// How far one partition was fetched.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct PartitionStatistics {
    /// The partition, or -1 for the library's own spare one.
    pub(super) partition: i32,
    /// The next offset to fetch: everything below it is in the client, control records included.
    pub(super) next_offset: i64,
    /// The offset after the newest record on the broker; negative while unknown.
    pub(super) hi_offset: i64,
}

impl Statistics {
    /// Says whether a connection to any real broker is up.
    pub(super) fn any_broker_up(&self) -> bool {
        self.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP")
    }

    /// Returns the partitions of a topic that the library knows.
    pub(super) fn partitions(&self, topic: &str) -> impl Iterator<Item = PartitionStatistics> + '_ {
        let found = self.topics.get(topic).into_iter().flat_map(|topic| topic.partitions.values());
        found.filter(|partition| partition.partition >= 0).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_kept_over_its_consequence() {
        let listener = Listener::default();
        let down = KafkaError::Global(RDKafkaErrorCode::AllBrokersDown);
        listener.error(down.clone(), "1/1 brokers are down");
        assert_eq!(listener.last_complaint().as_deref(), Some("1/1 brokers are down"));
        listener.error(KafkaError::Global(RDKafkaErrorCode::SSL), "certificate verify failed");
        listener.error(down, "1/1 brokers are down");
        assert_eq!(listener.last_complaint().as_deref(), Some("certificate verify failed"));
    }

    #[test]
    fn a_topic_with_another_id_was_made_anew() {
        let line = |old: &str, new: &str| {
            format!("[thrd:main]: Topic s.events changed id from {old} to {new}")
        };
        let (none, one, other) =
            ("AAAAAAAAAAAAAAAAAAAAAA", "7Qf9NtlrRIqEBdOkVkdmOg", "x4cQ8iVTQbqvW6hC1ZxL3w");
        assert_eq!(made_anew(&line(one, other)), Some("s.events"));
        for (old, new) in [(none, one), (one, none)] {
            assert_eq!(made_anew(&line(old, new)), None);
        }
        assert_eq!(made_anew("Topic s.events [0] Leader 1 Epoch 0"), None);
    }

    #[test]
    fn statistics_are_read_and_bad_ones_ignored() {
        let listener = Listener::default();
        listener.stats_raw(b"{\"brokers\":{\"x\":{\"nodeid\":1,\"sta");
        assert!(listener.take_statistics().is_none());
        listener.stats_raw(
            br#"{"brokers":{"x":{"nodeid":1,"state":"UP","z":0}},"topics":{"t":{"age":1,"partitions":{
            "0":{"partition":0,"next_offset":5,"hi_offset":7,"a":1},
            "-1":{"partition":-1,"next_offset":-1001,"hi_offset":-1001}}}}}"#,
        );
        let statistics = listener.take_statistics().expect("statistics");
        assert!(statistics.any_broker_up());
        let found: Vec<_> = statistics.partitions("t").collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].next_offset, found[0].hi_offset), (5, 7));
        assert!(listener.take_statistics().is_none());
    }
}
