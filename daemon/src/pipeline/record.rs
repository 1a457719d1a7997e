//! A record as the pipeline takes it, from Kafka, a file or a capture alike.

use sluice_features::time::EventTime;
use sluice_features::wire::Topic;

/// One record of the event, item or user topic.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Which topic. Requests never come here.
    pub topic: Topic,
    /// Which partition, and so which shard.
    pub partition: u32,
    /// Its offset there; files count lines.
    pub offset: i64,
    /// When it arrived: its stamp in Kafka, or the own clock at the poll where that is earlier or the stamp says nothing; in files the
    /// wall clock.
    pub arrived: EventTime,
    /// The key's bytes.
    pub key: Option<&'a [u8]>,
    /// The payload; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}
