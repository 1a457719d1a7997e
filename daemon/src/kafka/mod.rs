//! Kafka: everything that speaks its protocol. No type of the client library leaves this folder.
//!
//! ```text
//! Connection ──▶ Consumer ──▶ bounded channel of ConsumerEvent (batches of records, states)
//!            ├─▶ Producer ──▶ delivery counts      DeadLetters ──▶ Producer
//!            ├─▶ Reader       one topic, record by record, for tools
//!            └─▶ Admin        topics as they are and as they should be
//! EmbeddedBroker             a broker inside the process, for the demonstration and for tests
//! ```
//!
//! Rules that hold everywhere in here:
//! - nothing waits without a deadline;
//! - offsets come from the caller and go to the caller; what is committed to Kafka is for lag tools only;
//! - no list of partitions of the client library is kept: one that outlives its consumer makes the
//!   drop of that consumer hang for ever.

mod admin;
mod client;
mod consumer;
mod context;
mod dead_letter;
mod embedded;
mod partitioner;
mod probe;
mod producer;
mod reader;
mod recall;
#[cfg(test)]
mod stranger;
mod trouble;

pub use admin::{Admin, Difference, TopicSpec, TopicState, standard_topics};
pub use client::{Connection, Mistake, Sasl, SaslMechanism, Secret, Security, Tls};
pub(crate) use client::{HIDDEN, is_shown};
pub use consumer::{
    Batch, BatchLimits, Consumer, ConsumerEvent, ConsumerGauges, ConsumerSettings, Gap, GapCause,
    Gaps, Lane, LaneStatus, LogEnd, Mark, NextOffset, Record, Source, Start, TopicRole,
};
pub use dead_letter::{DeadLetter, DeadLetters, Origin, VALUE_LIMIT};
pub use embedded::EmbeddedBroker;
pub use partitioner::Partitioner;
pub use probe::{PartitionRange, Probe};
pub use producer::{
    Header, OnFate, Outgoing, Producer, ProducerCounts, ProducerFailure, ProducerSettings,
    Undelivered,
};
pub use reader::{OwnedRecord, Reader};
pub use recall::Recall;
pub use trouble::{Right, Trouble};

#[cfg(test)]
pub(crate) use stranger::Stranger;

#[cfg(test)]
mod tests;
