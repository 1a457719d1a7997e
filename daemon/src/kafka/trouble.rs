//! What can go wrong with Kafka, and which of it is worth another try.

use std::fmt;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{HIDDEN, in_our_names, is_shown};

/// A failure of the outside world or of the settings, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The settings cannot work; trying again does not help.
    #[error("kafka settings refused: {0}")]
    Settings(String),
    /// No broker answered in time.
    #[error("no answer from kafka at {brokers} within {waited:?}: {reason}")]
    Unreachable {
        /// The configured brokers.
        brokers: String,
        /// How long the call waited.
        waited: Duration,
        /// What the client library said last.
        reason: String,
    },
    /// Kafka answered and said no: credentials or access rules.
    #[error(
        "kafka refused {action}: {reason}; check the credentials and the access rules of the user"
    )]
    Refused {
        /// What was tried.
        action: String,
        /// The broker's answer.
        reason: String,
    },
    /// Kafka answered and said no: the user lacks a right.
    #[error(
        "kafka refused {action}: {reason}; the user needs the right {right}: kafka-acls.sh --bootstrap-server ... --add \
         --allow-principal User:... {}",
        right.flags()
    )]
    Denied {
        /// What was tried.
        action: String,
        /// The broker's answer.
        reason: String,
        /// What is missing.
        right: Right,
    },
    /// A topic that is needed does not exist.
    #[error("topic {topic} does not exist; create it with `sluice topics apply`")]
    MissingTopic {
        /// Its name.
        topic: String,
    },
    /// The offset to continue from is not in the log any more, or not yet.
    #[error(
        "partition {topic}/{partition} holds offsets {low} to {high}, expected to continue at {wanted}: {}; {GO_ON}",
        cause_of_gap(*wanted, *low)
    )]
    OutOfRange {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset to continue from.
        wanted: i64,
        /// The first offset that the broker still has.
        low: i64,
        /// The offset after the newest record.
        high: i64,
    },
    /// Under the topic's name there is another topic: what was to be read of the old one is gone, and offsets mean other records.
    #[error(
        "the topic {topic} is not the one that was read before ({what}): it was deleted and made anew; {GO_ON}"
    )]
    MadeAnew {
        /// The topic's name.
        topic: String,
        /// What shows it.
        what: String,
    },
    /// A batch of records is damaged.
    #[error(
        "partition {topic}/{partition} cannot be read at offset {offset} ({reason}): a batch is damaged on the broker's disk or of an \
         unknown form, and {}; take it from a sound replica, or {GO_ON}",
        next.map_or("nothing behind it can be read".to_owned(), |next| format!("the next sound record is at {next}"))
    )]
    Unreadable {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset at which reading was to go on.
        offset: i64,
        /// The next offset that can be read.
        next: Option<i64>,
        /// What the client library said.
        reason: String,
    },
    /// A record has more bytes than the client or the topic takes; it will never be sent.
    #[error(
        "kafka {action} failed: {reason} (kafka.extra \"message.max.bytes\" and the topic's max.message.bytes set the limit)"
    )]
    TooLarge {
        /// What was tried.
        action: String,
        /// What the client library said.
        reason: String,
    },
    /// The queue towards Kafka stayed full until the deadline.
    #[error("the queue towards kafka stayed full for {waited:?}")]
    QueueFull {
        /// How long the call waited.
        waited: Duration,
    },
    /// Records were still undelivered at the deadline of a flush.
    #[error("{left} records were not delivered to kafka within {waited:?}")]
    Undelivered {
        /// Records still waiting.
        left: usize,
        /// How long the flush waited.
        waited: Duration,
    },
    /// The poll thread did not end by its deadline; the process can leave without it.
    #[error("the kafka thread {thread} did not end within {waited:?}")]
    StillRunning {
        /// The thread's name.
        thread: String,
        /// How long the stop waited.
        waited: Duration,
    },
    /// The client library failed in a way that it cannot mend.
    #[error("kafka {action} failed: {reason}")]
    Failed {
        /// What was tried.
        action: String,
        /// What the client library said.
        reason: String,
    },
}

/// What can be done where records are missing.
const GO_ON: &str = "to go on without the missing records, start with --accept-gap (each gap is told and counted; outcomes in it are \
                     not learned, and impressions before it whose outcomes lie in it are learned as without); or move the folder of \
                     checkpoint.path away and start again: state and model are built anew from what the topics hold";

impl Trouble {
    /// Says whether the same call may work later without anybody changing anything.
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::QueueFull { .. } | Self::Undelivered { .. })
    }

    /// Names the right that is missing to read a topic.
    pub(super) fn unreadable(topic: &str, error: &KafkaError) -> Self {
        let action = format!("reading records of {topic}");
        let reason = error.rdkafka_error_code().map_or(error.to_string(), |code| code.to_string());
        Self::Denied { action, reason, right: Right::on_topic("Read", topic) }
    }

    /// Names a failure of the client library; `said` is its last log line, which knows more than the code.
    pub(super) fn from_client(action: &str, error: &KafkaError, said: Option<String>) -> Self {
        let reason = said.unwrap_or_else(|| error.to_string());
        match error {
            KafkaError::ClientConfig(_, description, key, value) => {
                let value = if is_shown(key) { value } else { HIDDEN };
                Self::Settings(format!("{key} = {value:?}: {description}"))
            }
            KafkaError::ClientCreation(reason) => Self::Settings(in_our_names(&explained(reason))),
            _ if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                Self::TooLarge { action: action.to_owned(), reason }
            }
            _ if error.rdkafka_error_code().is_some_and(is_refusal) => {
                Self::Refused { action: action.to_owned(), reason }
            }
            _ => Self::Failed { action: action.to_owned(), reason },
        }
    }
}

/// Returns what the library said with what it means, where its words alone would not tell an operator what to do.
pub(super) fn explained(said: &str) -> String {
    match meaning(said) {
        Some(meaning) => format!("{said}: {meaning}"),
        None => said.to_owned(),
    }
}

/// Says whether a line that is no complaint tells why nothing works: a broker that closes every connection at once.
pub(super) fn is_telling(line: &str) -> bool {
    closed_at_once(line).is_some()
}

const NO_TLS: &str = "we speak TLS and the port does not: set security to plaintext or sasl_plaintext, or name the port with TLS";

fn meaning(said: &str) -> Option<&'static str> {
    let meanings = [
        ("connecting to a PLAINTEXT broker listener?", NO_TLS),
        ("wrong version number", NO_TLS),
        ("key values mismatch", "the key is that of another certificate"),
        (
            "ssl.key.location failed: error:0A080009",
            "expected a key in PEM, and its password if it has one",
        ),
    ];
    let known = meanings.into_iter().find(|(part, _)| said.contains(part));
    known.map(|(_, meaning)| meaning).or_else(|| closed_at_once(said)).or_else(|| wrong_size(said))
}

/// The library says of these no more than that the connection was closed, and in which state.
fn closed_at_once(said: &str) -> Option<&'static str> {
    let (before, state) = said.rsplit_once("ms in state ")?;
    let after = before.rsplit_once("(after ")?.1.parse::<u64>().ok()?;
    if !said.contains("Disconnected") {
        return None;
    }
    if state.starts_with("SSL_HANDSHAKE") {
        return Some(NO_TLS);
    }
    match (state.starts_with("APIVERSION_QUERY"), said.contains("ssl://")) {
        (true, false) => Some(
            "the port closes every connection at once. If it speaks TLS, set security to ssl or sasl_ssl, or name the port without TLS",
        ),
        (true, true) => Some(
            "the port closes every connection at once: is it Kafka's, and does it want a certificate of ours (kafka.tls.certificate)?",
        ),
        // A broker that wants a user answers what versions it speaks, and closes at the next question.
        (false, _) if state.starts_with("UP") && after < 2000 && !said.contains("sasl_") => Some(
            "the broker closes the connection at the first question. If it wants a user, set security to sasl_plaintext or sasl_ssl",
        ),
        _ => None,
    }
}

/// What a port of another protocol answers is taken for the length of a record.
fn wrong_size(said: &str) -> Option<&'static str> {
    let size = said.split_once("Invalid response size ")?.1.split(' ').next()?;
    Some(match size.parse::<i32>().ok()?.to_be_bytes() {
        [0x14..=0x17, 3, ..] => {
            "the port speaks TLS and we do not: set security to ssl or sasl_ssl, or name the port without TLS"
        }
        [b'H', b'T', b'T', b'P'] => "the port speaks HTTP and not Kafka: name a broker's port",
        _ => "the port does not speak Kafka, or speaks TLS and we do not",
    })
}

/// A right that a user needs, by the names of Kafka's access rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    operation: &'static str,
    resource: Resource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Resource {
    Topic(String),
    Group(String),
    Cluster,
}

impl Right {
    /// Returns a right on a topic.
    pub fn on_topic(operation: &'static str, topic: &str) -> Self {
        Self { operation, resource: Resource::Topic(topic.to_owned()) }
    }

    /// Returns the right to see a topic: those to read and to write include it.
    pub fn to_describe(topic: &str) -> Self {
        Self::on_topic("Describe", topic)
    }

    /// Returns the right to commit offsets of a group.
    pub fn to_commit(group: &str) -> Self {
        Self { operation: "Read", resource: Resource::Group(group.to_owned()) }
    }

    /// Returns the right that a producer needs beside those on topics; since Kafka 2.8 the right to write to any topic includes it.
    pub fn to_write_at_all() -> Self {
        Self { operation: "IdempotentWrite", resource: Resource::Cluster }
    }

    /// Returns the flags of `kafka-acls.sh` that name it.
    pub fn flags(&self) -> String {
        let operation = self.operation;
        match &self.resource {
            Resource::Topic(name) => format!("--operation {operation} --topic {name}"),
            Resource::Group(name) => format!("--operation {operation} --group {name}"),
            Resource::Cluster => format!("--operation {operation} --cluster"),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on ", self.operation)?;
        match &self.resource {
            Resource::Topic(name) => write!(f, "topic {name}"),
            Resource::Group(name) => write!(f, "group {name}"),
            Resource::Cluster => f.write_str("the cluster"),
        }
    }
}

fn cause_of_gap(wanted: i64, low: i64) -> String {
    if wanted < low {
        return format!(
            "{} records were deleted before they were read (a longer retention.ms of the topic keeps them while the daemon is away)",
            low.saturating_sub(wanted)
        );
    }
    "the topic was made anew, or has lost its end".to_owned()
}

/// Says whether a code means that the user lacks a right on a topic or group.
pub(super) fn is_denial(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed
    )
}

/// Says whether a code means that the broker knows us and does not let us.
pub(super) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::UnsupportedSASLMechanism
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_troubles_are_retriable() {
        let away = Trouble::Unreachable {
            brokers: "b:1".into(),
            waited: Duration::from_secs(1),
            reason: "x".into(),
        };
        assert!(away.is_retriable());
        assert!(!Trouble::MissingTopic { topic: "t".into() }.is_retriable());
    }

    #[test]
    fn what_the_library_says_of_a_wrong_port_is_put_in_words() {
        // As librdkafka 2.12 with OpenSSL 3 says them.
        for (said, told) in [
            (
                "ssl://k:1/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT broker \
                 listener? (after 3ms in state SSL_HANDSHAKE)",
                "the port does not: set security to plaintext",
            ),
            (
                "ssl://k:1/bootstrap: Disconnected: SSL connection closed by peer (after 0ms in state SSL_HANDSHAKE)",
                "the port does not: set security to plaintext",
            ),
            (
                "ssl://k:1/bootstrap: SSL handshake failed: error:0A00010B:SSL routines::wrong version number (after 0ms in state \
                 SSL_HANDSHAKE)",
                "the port does not: set security to plaintext",
            ),
            (
                "k:1/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 0ms in state APIVERSION_QUERY)",
                "If it speaks TLS, set security to ssl",
            ),
            (
                "k:1/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 3ms in state UP)",
                "If it wants a user, set security to sasl_plaintext",
            ),
            (
                "k:1/bootstrap: Receive failed: Invalid response size 352518912 (0..100000000): increase receive.message.max.bytes",
                "the port speaks TLS and we do not: set security to ssl",
            ),
            (
                "k:1/bootstrap: Receive failed: Invalid response size 1213486160 (0..100000000): increase receive.message.max.bytes",
                "speaks HTTP",
            ),
        ] {
            let explained = explained(said);
            assert!(explained.starts_with(said) && explained.contains(told), "{explained}");
        }
        let usual = "k:1/0: Disconnected: connection closed by peer: receive 0 after POLLIN (after 60321ms in state UP)";
        for said in ["1/1 brokers are down", usual] {
            assert_eq!(explained(said), said);
            assert!(!is_telling(said));
        }
    }

    #[test]
    fn settings_are_refused_by_their_own_names() {
        let refused = "ssl.key.location failed: error:05800074:x509 certificate routines::key values mismatch";
        let trouble = Trouble::from_client("x", &KafkaError::ClientCreation(refused.into()), None);
        let told = trouble.to_string();
        assert!(
            told.contains(" kafka.tls.key failed: ") && told.contains("another certificate"),
            "{told}"
        );
    }

    #[test]
    fn a_record_that_is_too_large_is_told_from_a_failure() {
        let large = KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge);
        assert!(matches!(Trouble::from_client("x", &large, None), Trouble::TooLarge { .. }));
    }

    #[test]
    fn a_gap_is_told_with_its_cause_and_what_can_be_done() {
        let gap = |wanted| {
            let topic = "s.events".to_owned();
            Trouble::OutOfRange { topic, partition: 3, wanted, low: 150, high: 200 }.to_string()
        };
        let (passed, anew) = (gap(100), gap(201));
        for word in
            ["s.events/3", "150 to 200", "at 100", "50 records were deleted", "retention.ms"]
        {
            assert!(passed.contains(word), "{word}: {passed}");
        }
        assert!(anew.contains("made anew") && !anew.contains("retention"), "{anew}");
        assert!([passed, anew].iter().all(|told| told.contains("checkpoint.path away")));
    }

    #[test]
    fn a_denial_names_the_right_that_is_missing() {
        let denied = |right| {
            let (action, reason) =
                ("reading s.users".to_owned(), "Topic authorization failed".to_owned());
            Trouble::Denied { action, reason, right }.to_string()
        };
        let topic = denied(Right::on_topic("Read", "s.users"));
        assert!(topic.contains("the right Read on topic s.users"), "{topic}");
        assert!(topic.ends_with("--operation Read --topic s.users"), "{topic}");
        assert!(denied(Right::to_commit("g")).ends_with("--operation Read --group g"));
    }

    #[test]
    fn a_refusal_is_told_from_a_failure() {
        let denied = KafkaError::MessageConsumption(RDKafkaErrorCode::TopicAuthorizationFailed);
        let trouble = Trouble::from_client("reading", &denied, Some("no such right".into()));
        assert!(matches!(trouble, Trouble::Refused { reason, .. } if reason == "no such right"));
        let other = KafkaError::MessageConsumption(RDKafkaErrorCode::BadMessage);
        assert!(matches!(Trouble::from_client("reading", &other, None), Trouble::Failed { .. }));
    }
}
