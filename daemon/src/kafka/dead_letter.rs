//! Dead letters: records that the daemon rejected, as they came, with the reason in headers.
//!
//! Headers: `topic`, `partition`, `offset`, `reason`, `field` and `detail` (where they are known), `timestamp` (the record's).
//! A value over [`VALUE_LIMIT`] is cut there; `value-length` and `value-xxh3` (hexadecimal, of the whole) tell
//! what it was. Keys are cut at the same limit, told by `key-length`.

use std::sync::Arc;
use std::time::Duration;

use super::producer::{Header, Outgoing, Producer, Undelivered};
use super::trouble::Trouble;

/// The longest value, and the longest key, of a dead letter.
pub const VALUE_LIMIT: usize = 64 << 10;

/// Where a rejected record came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's stamp in milliseconds since 1970, as it came.
    pub timestamp: Option<i64>,
}

/// A rejected record and why it was rejected.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// Where it came from.
    pub origin: Origin<'a>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// The reason, from the closed set that is also the metric's label.
    pub reason: &'a str,
    /// The field that is wrong.
    pub field: Option<&'a str>,
    /// What was found there.
    pub detail: Option<&'a str>,
}

/// The way to the dead-letter topic, through a producer that has nothing else to send.
#[derive(Clone)]
pub struct DeadLetters {
    producer: Arc<Producer>,
    topic: String,
}

impl DeadLetters {
    /// Returns the way to `topic` through a producer.
    pub fn new(producer: Arc<Producer>, topic: impl Into<String>) -> Self {
        Self { producer, topic: topic.into() }
    }

    /// Queues a dead letter. It is written only once [`Self::settle`] says so: no checkpoint may cover the record before that.
    ///
    /// # Errors
    /// Those of [`Producer::send`].
    pub fn send(&self, letter: &DeadLetter<'_>, patience: Duration) -> Result<(), Trouble> {
        let partition = letter.origin.partition.to_string();
        let offset = letter.origin.offset.to_string();
        let timestamp = letter.origin.timestamp.map(|timestamp| timestamp.to_string());
        let key_length = letter.key.and_then(length_if_cut);
        let value_length = letter.value.and_then(length_if_cut);
        let hash = value_length
            .as_ref()
            .and(letter.value)
            .map(|value| format!("{:016x}", xxhash_rust::xxh3::xxh3_64(value)));
        let optional = [
            ("field", letter.field),
            ("detail", letter.detail),
            ("timestamp", timestamp.as_deref()),
            ("key-length", key_length.as_deref()),
            ("value-length", value_length.as_deref()),
            ("value-xxh3", hash.as_deref()),
        ];
        let mut headers: Vec<Header<'_>> = vec![
            ("topic", letter.origin.topic.as_bytes()),
            ("partition", partition.as_bytes()),
            ("offset", offset.as_bytes()),
            ("reason", letter.reason.as_bytes()),
        ];
        headers.extend(optional.iter().filter_map(|(key, text)| Some((*key, (*text)?.as_bytes()))));
        let outgoing = Outgoing {
            topic: &self.topic,
            key: letter.key.map(cut),
            value: letter.value.map(cut),
            headers: &headers,
        };
        self.producer.send(&outgoing, patience)
    }

    /// Waits until all that were queued are written.
    ///
    /// # Errors
    /// [`Trouble::Undelivered`] when Kafka has not taken them by then: it may yet. [`Trouble::Failed`] when one was given up, or refused.
    pub fn settle(&self, patience: Duration) -> Result<(), Trouble> {
        self.producer.flush(patience)?;
        let lost = self.producer.counts().failed();
        if lost == 0 {
            return Ok(());
        }
        let failure = self.producer.take_failure();
        let remedy = match failure.as_ref().map(|failure| failure.cause) {
            Some(Undelivered::NoTopic) => "the topic is gone: create it with `sluice topics apply`",
            _ => "check the topic's access rules and max.message.bytes",
        };
        let why = failure.map_or_else(|| "kafka did not say why".to_owned(), |f| f.reason);
        let action = format!("writing {lost} dead letters to {}", self.topic);
        let reason = format!(
            "{why}; {remedy}. No checkpoint covers their records: the next start reads them again"
        );
        Err(Trouble::Failed { action, reason })
    }
}

fn cut(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(VALUE_LIMIT)]
}

fn length_if_cut(bytes: &[u8]) -> Option<String> {
    (bytes.len() > VALUE_LIMIT).then(|| bytes.len().to_string())
}
