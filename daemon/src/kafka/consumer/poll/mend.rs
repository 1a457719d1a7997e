//! Errors of the client: what goes away by itself, what can be mended here, what ends the thread.

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::super::context::Listener;
use super::super::super::probe::Probe;
use super::super::super::trouble::{Right, Trouble, is_refusal};
use super::super::lanes::start_of;
use super::super::mark::Proof;
use super::super::{ConsumerEvent, ConsumerSettings, NextOffset, Source, TopicRole};
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
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                // It would be taken for the cause of whatever comes next.
                consumer.context().forget_complaint();
                self.do_without_commits();
                Ok(())
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Err(self
                .unreadable()
                .unwrap_or_else(|| Trouble::from_client("reading", &error, said))),
            Some(code) if is_refusal(code) => Err(Trouble::from_client("reading", &error, said)),
            _ => {
                tracing::debug!(%error, said, "kafka client");
                Ok(())
            }
        }
    }

    /// The user may not commit offsets of the group: only lag tools miss them, for no group is joined and our own offsets are in the
    /// checkpoint.
    pub(super) fn do_without_commits(&mut self) {
        let commits = self.settings.sources.iter().any(|source| source.role != TopicRole::Requests);
        if commits && !self.denied {
            let group = self.settings.group.as_str();
            let right = Right::to_commit(group);
            let remedy = format!(
                "the user needs the right {right}: kafka-acls.sh --add ... {}",
                right.flags()
            );
            tracing::warn!(
                group,
                remedy,
                "kafka takes no offsets of the group: reading goes on, lag tools see nothing"
            );
        }
        self.denied = true;
    }

    /// Finds the topic that may not be read: the client does not say which it is.
    fn unreadable(&self) -> Option<Trouble> {
        let ConsumerSettings { connection, group, sources, .. } = &self.settings;
        let may_read = |source: &Source| {
            Probe::may_read(connection, group, &source.topic, PROBE_PATIENCE).err()
        };
        sources.iter().find_map(may_read)
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
            // A topic that was made anew under a running daemon ends it: only the next start can compare records.
            let accept = self.settings.accept_gaps && lane.position < range.low;
            let (position, gap) =
                start_of(source, lane.lane, wanted, &Proof::Unknown, range, accept)?;
            self.outbox.extend(gap.map(ConsumerEvent::Gap));
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

    /// A topic was deleted and made anew while it was read: requests are read from its beginning, everything else ends here.
    pub(super) fn made_anew(
        &mut self,
        topic: &str,
        consumer: &BaseConsumer<Listener>,
    ) -> Result<(), Trouble> {
        let sources = &self.settings.sources;
        let Some(index) = sources.iter().position(|source| source.topic == topic) else {
            return Ok(());
        };
        if sources[index].role != TopicRole::Requests {
            let what = "its id has changed while it was read".to_owned();
            return Err(Trouble::MadeAnew { topic: topic.to_owned(), what });
        }
        tracing::warn!(topic, "the topic was deleted and made anew: it is read from its beginning");
        self.seal_all();
        for at in &self.index[index] {
            let lane = &mut self.lanes[*at];
            (lane.position, lane.passed, lane.high, lane.target) = (0, 0, 0, 0);
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
