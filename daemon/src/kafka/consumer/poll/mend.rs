//! Errors of the client: what goes away by itself, what can be mended here, what ends the thread.

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::super::context::Listener;
use super::super::super::probe::Probe;
use super::super::super::trouble::{Right, Trouble, is_refusal};
use super::super::gap::{Gap, GapCause};
use super::super::lanes::{LaneState, start_of};
use super::super::mark::Proof;
use super::super::witness::{Witness, is_unreadable};
use super::super::{ConsumerEvent, ConsumerSettings, Lane, NextOffset, Source, TopicRole};
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
            Some(code) if is_unreadable(code) => self.pass_unreadable(consumer, code),
            Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve) => {
                tracing::debug!(%error, said, "kafka client");
                Ok(())
            }
            _ => {
                if self.told.allows(self.shared.started.elapsed()) {
                    tracing::warn!(%error, said, "kafka client: it goes on by itself, or reading stalls");
                }
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

    /// A batch is damaged. The client does not tell of which partition, and asks for it again and again: each is tried at its position.
    ///
    /// Ends the thread, or goes on behind the batch where that is accepted; with requests always, for nothing is learned of them.
    fn pass_unreadable(
        &mut self,
        consumer: &BaseConsumer<Listener>,
        code: RDKafkaErrorCode,
    ) -> Result<(), Trouble> {
        self.seal_all();
        let ConsumerSettings { connection, group, sources, accept_gaps, .. } = &self.settings;
        let (probe, witness) = (Probe::open(connection)?, Witness::open(connection, group)?);
        for lane in self.lanes.iter_mut().filter(|lane| lane.active) {
            let (topic, partition) = (&sources[lane.source].topic, lane.lane.partition);
            let (from, found) = (lane.position, probe.range(topic, partition, PROBE_PATIENCE));
            let found = found.and_then(|range| {
                let next = witness.next_readable(topic, partition, from, range.high)?;
                Ok((next, next < range.high))
            });
            let (to, is_record) = match found {
                Ok((next, _)) if next <= from => continue,
                Ok(found) => found,
                // The client says it again.
                Err(trouble) if trouble.is_retriable() => continue,
                Err(trouble) => return Err(trouble),
            };
            if !accept_gaps && lane.lane.role != TopicRole::Requests {
                return Err(Trouble::Unreadable {
                    topic: topic.clone(),
                    partition,
                    offset: from,
                    next: is_record.then_some(to),
                    reason: code.to_string(),
                });
            }
            tracing::warn!(topic, partition, from, to, %code, "a damaged batch is passed over");
            let (cause, from, to) = (GapCause::Unreadable, NextOffset(from), NextOffset(to));
            self.outbox.push_back(ConsumerEvent::Gap(Gap { lane: lane.lane, cause, from, to }));
            (lane.position, lane.passed) = (to.0, to.0);
        }
        // What the client holds may lie behind the batch: it is read from the positions again.
        self.assign(consumer)
    }

    /// Reads partitions that a topic has got meanwhile from their beginning.
    pub(super) fn take_up(
        &mut self,
        index: usize,
        consumer: &BaseConsumer<Listener>,
    ) -> Result<(), Trouble> {
        let source = &self.settings.sources[index];
        let probe = Probe::open(&self.settings.connection)?;
        let known = self.index[index].len();
        // What is not known now is looked at again with the next statistics.
        let Ok(Some(found)) = probe.partitions(&source.topic, PROBE_PATIENCE) else {
            return Ok(());
        };
        let mut lanes = Vec::new();
        for partition in known..found {
            let lane =
                Lane { role: source.role, partition: i32::try_from(partition).unwrap_or(i32::MAX) };
            let Ok(range) = probe.range(&source.topic, lane.partition, PROBE_PATIENCE) else {
                return Ok(());
            };
            lanes.push(LaneState::new(lane, index, range.low, range.high));
        }
        if lanes.is_empty() {
            return Ok(());
        }
        tracing::info!(
            topic = source.topic,
            known,
            found,
            "the topic has more partitions: they are read from their beginning"
        );
        self.seal_all();
        self.shared.lanes.write().extend(lanes.iter().map(LaneState::shared));
        self.index[index].extend(self.lanes.len()..self.lanes.len() + lanes.len());
        self.lanes.extend(lanes);
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
