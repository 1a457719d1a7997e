//! Errors of the client: what goes away by itself, what can be mended here, what ends the thread.

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::super::context::Listener;
use super::super::super::probe::Probe;
use super::super::super::trouble::{Trouble, is_refusal};
use super::super::NextOffset;
use super::super::lanes::start_of;
use super::{PROBE_PATIENCE, Poller};

impl Poller {
    /// Sorts an error of the client into: goes away by itself, can be mended here, ends the thread.
    pub(super) fn handle(
        &mut self,
        consumer: &BaseConsumer<Listener>,
        error: KafkaError,
    ) -> Result<(), Trouble> {
        let said = consumer.context().last_complaint();
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return Err(Trouble::from_client("reading", &error, said));
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.set_down(&said.unwrap_or_else(|| error.to_string()));
                Ok(())
            }
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.mend_offsets(consumer)
            }
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ) => self.check_topics(),
            Some(code) if is_refusal(code) => Err(Trouble::from_client("reading", &error, said)),
            _ => {
                tracing::debug!(%error, said, "kafka client");
                Ok(())
            }
        }
    }

    /// A position fell out of the log: stops for topics without gaps, goes on at the nearest offset for others.
    pub(super) fn mend_offsets(
        &mut self,
        consumer: &BaseConsumer<Listener>,
    ) -> Result<(), Trouble> {
        self.seal_all();
        let probe = Probe::open(&self.settings.connection)?;
        for lane in self.lanes.iter_mut().filter(|lane| lane.active) {
            let source = &self.settings.sources[lane.source];
            let range = match probe.range(&source.topic, lane.lane.partition, PROBE_PATIENCE) {
                Err(trouble) if trouble.is_retriable() => continue,
                other => other?,
            };
            let wanted = Some(NextOffset(lane.position));
            let position = start_of(source, lane.lane.partition, wanted, range)?;
            if position != lane.position {
                tracing::warn!(
                    topic = source.topic,
                    partition = lane.lane.partition,
                    from = lane.position,
                    to = position,
                    "records are gone, going on at the nearest offset"
                );
                lane.position = position;
                lane.passed = position;
                lane.high = range.high;
                lane.target = lane.target.min(range.high);
            }
        }
        self.assign(consumer)
    }

    pub(super) fn check_topics(&self) -> Result<(), Trouble> {
        let probe = Probe::open(&self.settings.connection)?;
        for source in &self.settings.sources {
            // Without an answer nothing is known to be missing; the client asks again by itself.
            if let Ok(None) = probe.partitions(&source.topic, PROBE_PATIENCE) {
                return Err(Trouble::MissingTopic { topic: source.topic.clone() });
            }
        }
        Ok(())
    }
}
