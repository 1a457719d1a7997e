//! Sending and collecting numbered records, to see that none is lost, doubled or out of order.

use std::collections::BTreeMap;
use std::ops::Range;

use sluice_daemon::kafka::{
    Connection, Consumer, ConsumerEvent, Lane, Outgoing, Producer, ProducerSettings,
};

use super::PATIENCE;
use crate::expect_eq;

/// Opens a producer.
pub(crate) fn producer(connection: Connection) -> anyhow::Result<Producer> {
    Ok(Producer::open(&ProducerSettings::new(connection))?)
}

/// Sends the numbers as values with keys below 50 and waits until all are delivered.
pub(crate) fn send_numbers(
    producer: &Producer,
    topic: &str,
    numbers: Range<u32>,
) -> anyhow::Result<()> {
    let before = producer.counts();
    let count = u64::from(numbers.end - numbers.start);
    for number in numbers {
        let (key, value) = ((number % 50).to_string(), number.to_string());
        let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
        producer.send(&Outgoing { topic, key, value, headers: &[] }, PATIENCE)?;
    }
    producer.flush(PATIENCE)?;
    expect_eq!(producer.counts().delivered - before.delivered, count);
    Ok(())
}

/// What came out of a consumer so far.
#[derive(Default)]
pub(crate) struct Collected {
    /// Values that are numbers.
    pub(crate) numbers: Vec<u32>,
    /// Keys of tombstones.
    pub(crate) tombstones: Vec<String>,
    /// Offsets by partition.
    pub(crate) offsets: BTreeMap<Lane, Vec<i64>>,
    /// Names of the other events, in order.
    pub(crate) states: Vec<String>,
}

impl Collected {
    /// Takes events until the condition holds.
    ///
    /// # Errors
    /// At the deadline, or when the consumer ends with a failure.
    pub(crate) fn watch(
        &mut self,
        consumer: &Consumer,
        until: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !until(self) {
            let event = consumer.events().recv_deadline(deadline).map_err(|error| {
                anyhow::anyhow!("{error}; {} numbers, states {:?}", self.numbers.len(), self.states)
            })?;
            self.note(event)?;
        }
        Ok(())
    }

    /// Says whether an event of this name came.
    pub(crate) fn has(&self, state: &str) -> bool {
        self.states.iter().any(|seen| seen == state)
    }

    /// Fails unless every number of the range came once, in order within its partition.
    pub(crate) fn check_numbers(&self, range: Range<u32>) -> anyhow::Result<()> {
        let mut sorted = self.numbers.clone();
        sorted.sort_unstable();
        expect_eq!(sorted, range.collect::<Vec<_>>());
        for (lane, offsets) in &self.offsets {
            anyhow::ensure!(offsets.is_sorted_by(|a, b| a < b), "{lane:?}: {offsets:?}");
        }
        Ok(())
    }

    fn note(&mut self, event: ConsumerEvent) -> anyhow::Result<()> {
        match event {
            ConsumerEvent::Batch(batch) => {
                for record in batch.records() {
                    match record.value {
                        Some(value) => {
                            self.numbers.extend(std::str::from_utf8(value)?.parse::<u32>())
                        }
                        None => self.tombstones.push(
                            String::from_utf8_lossy(record.key.unwrap_or_default()).into_owned(),
                        ),
                    }
                    self.offsets.entry(record.lane).or_default().push(record.offset);
                }
            }
            ConsumerEvent::Fatal(trouble) => anyhow::bail!("the consumer ended: {trouble}"),
            other => {
                let text = format!("{other:?}");
                let end = text.find([' ', '(']).unwrap_or(text.len());
                self.states.push(text[..end].to_owned());
            }
        }
        Ok(())
    }
}
