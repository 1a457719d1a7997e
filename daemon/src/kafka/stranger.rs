//! For tests: a producer as others run it, with its own partitioner and its own idea of the time.

use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::client::{Connection, Kind};

/// A foreign producer.
pub(crate) struct Stranger(BaseProducer);

impl Stranger {
    /// Opens one with a partitioner by its name in librdkafka.
    pub(crate) fn open(connection: &Connection, partitioner: &str) -> Self {
        let mut options = connection.options(Kind::Producer);
        options.set("partitioner", partitioner);
        Self(options.create().unwrap())
    }

    /// Sends a record, stamped as given, and waits until it is there.
    pub(crate) fn send(&self, topic: &str, key: &[u8], value: &[u8], stamp: Option<i64>) {
        self.post(topic, key, value, stamp);
        self.flush();
    }

    /// Sends a record, stamped as given.
    pub(crate) fn post(&self, topic: &str, key: &[u8], value: &[u8], stamp: Option<i64>) {
        let mut record = BaseRecord::to(topic).key(key).payload(value);
        record.timestamp = stamp;
        self.0.send(record).unwrap();
    }

    /// Waits until everything that was sent is there.
    pub(crate) fn flush(&self) {
        self.0.flush(Duration::from_secs(20)).unwrap();
    }
}
