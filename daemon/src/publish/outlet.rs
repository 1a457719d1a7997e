//! Where published messages go.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Stop, chain};
use crate::kafka::{Outgoing, Producer, Trouble};
use crate::shutdown::Shutdown;

/// How long a message waits for room before the wish to stop is looked at.
const WAIT: Duration = Duration::from_millis(200);
/// How long the last messages have to be delivered.
const FLUSH: Duration = Duration::from_secs(2);

/// A topic of published messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Vectors of items and users.
    Embeddings,
    /// Top lists.
    Scores,
}

/// Takes published messages.
pub trait Outlet {
    /// Takes a message (a tombstone without value), and waits while there is no room. Returns false when told to stop before there was.
    /// What becomes of it then, the producer counts.
    ///
    /// # Errors
    /// When there will never be room.
    fn send(
        &mut self,
        output: Output,
        key: &str,
        value: Option<&[u8]>,
        shutdown: &Shutdown,
    ) -> Result<bool, Stop>;

    /// Waits for the delivery of what was taken.
    fn finish(&mut self);
}

/// The topics of Kafka.
pub struct KafkaOutlet {
    producer: Arc<Producer>,
    embeddings: String,
    scores: String,
}

impl KafkaOutlet {
    /// Creates the outlet to two topics.
    pub fn new(
        producer: Arc<Producer>,
        embeddings: impl Into<String>,
        scores: impl Into<String>,
    ) -> Self {
        Self { producer, embeddings: embeddings.into(), scores: scores.into() }
    }
}

impl Outlet for KafkaOutlet {
    fn send(
        &mut self,
        output: Output,
        key: &str,
        value: Option<&[u8]>,
        shutdown: &Shutdown,
    ) -> Result<bool, Stop> {
        let topic = match output {
            Output::Embeddings => &self.embeddings,
            Output::Scores => &self.scores,
        };
        let record = Outgoing { topic, key: Some(key.as_bytes()), value, headers: &[] };
        loop {
            match self.producer.send(&record, WAIT) {
                Ok(()) => return Ok(true),
                Err(Trouble::QueueFull { .. }) if shutdown.is_requested() => return Ok(false),
                Err(Trouble::QueueFull { .. }) => {}
                Err(trouble) => return Err(Stop::kafka("publishing", trouble)),
            }
        }
    }

    fn finish(&mut self) {
        if let Err(trouble) = self.producer.flush(FLUSH) {
            tracing::warn!(
                error = chain(&trouble),
                "the last published messages were not delivered"
            );
        }
    }
}
