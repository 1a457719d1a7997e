//! What can go wrong with Kafka, and which of it is worth another try.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

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
    /// A topic that is needed does not exist.
    #[error("topic {topic} does not exist; create it with `sluice topics apply`")]
    MissingTopic {
        /// Its name.
        topic: String,
    },
    /// The offset to continue from is not in the log any more, or not yet.
    #[error(
        "partition {topic}/{partition} holds offsets {low} to {high}, expected to continue at {wanted}: \
         records were deleted before they were read, or the topic was made anew"
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

impl Trouble {
    /// Says whether the same call may work later without anybody changing anything.
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::QueueFull { .. } | Self::Undelivered { .. })
    }

    /// Names a failure of the client library; `said` is its last log line, which knows more than the code.
    pub(super) fn from_client(action: &str, error: &KafkaError, said: Option<String>) -> Self {
        let reason = said.unwrap_or_else(|| error.to_string());
        match error {
            KafkaError::ClientConfig(_, description, key, value) => {
                Self::Settings(format!("{key} = {value:?}: {description}"))
            }
            KafkaError::ClientCreation(reason) => Self::Settings(reason.clone()),
            _ if error.rdkafka_error_code().is_some_and(is_refusal) => {
                Self::Refused { action: action.to_owned(), reason }
            }
            _ => Self::Failed { action: action.to_owned(), reason },
        }
    }
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
    fn a_refusal_is_told_from_a_failure() {
        let denied = KafkaError::MessageConsumption(RDKafkaErrorCode::TopicAuthorizationFailed);
        let trouble = Trouble::from_client("reading", &denied, Some("no such right".into()));
        assert!(matches!(trouble, Trouble::Refused { reason, .. } if reason == "no such right"));
        let other = KafkaError::MessageConsumption(RDKafkaErrorCode::BadMessage);
        assert!(matches!(Trouble::from_client("reading", &other, None), Trouble::Failed { .. }));
    }
}
