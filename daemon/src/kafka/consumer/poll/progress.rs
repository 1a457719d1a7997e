//! How far reading is: high-water marks, lag, the end of the read-up, brokers there or away.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::super::super::context::{Listener, Statistics};
use super::super::super::trouble::Trouble;
use super::super::lanes::LaneState;
use super::super::{ConsumerEvent, TopicRole};
use super::{DOWN_AFTER, Poller, UP_AFTER};

/// After so long without an answer a connection that is open counts as dead: packets vanish on the way.
const UNANSWERED: Duration = Duration::from_secs(10);

impl Poller {
    /// Nothing is waiting in the client: what it fetched and did not hand out is not a record.
    pub(super) fn settle(&mut self) {
        if self.paused {
            return;
        }
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            if let Some(fetched) = lane.fetched.take() {
                lane.passed = lane.passed.max(fetched);
                if let Some(shared) = self.shared.lanes.read().get(at) {
                    shared.position.store(lane.reached(), Ordering::Release);
                }
            }
        }
        self.judge_lag();
    }

    pub(super) fn look_at(
        &mut self,
        statistics: &Statistics,
        consumer: &BaseConsumer<Listener>,
    ) -> Result<(), Trouble> {
        let unanswered = self.shared.unanswered(Instant::now());
        let answers = unanswered < UNANSWERED;
        if statistics.any_broker_up() && answers {
            (self.heard, self.silent) = (self.heard.saturating_add(1), 0);
        } else {
            (self.heard, self.silent) = (0, self.silent.saturating_add(1));
        }
        if self.down && self.heard >= UP_AFTER {
            self.set_connected();
        } else if self.silent >= DOWN_AFTER && !self.down {
            let said = consumer.context().last_complaint();
            let open = statistics.any_broker_up();
            self.set_down(&match said {
                _ if open => format!("no answer for {UNANSWERED:?}, though connected"),
                Some(said) => said,
                None => "no connection".to_owned(),
            });
        }
        let mut grown = None;
        for (source, known) in self.index.iter().enumerate() {
            let mut found = 0;
            for partition in statistics.partitions(&self.settings.sources[source].topic) {
                found += 1;
                let Some(&at) =
                    known.get(usize::try_from(partition.partition).unwrap_or(usize::MAX))
                else {
                    continue;
                };
                let lane = &mut self.lanes[at];
                if partition.hi_offset > lane.high {
                    lane.high = partition.hi_offset;
                    if let Some(shared) = self.shared.lanes.read().get(at) {
                        shared.high.store(lane.high, Ordering::Relaxed);
                    }
                }
                if lane.active && !self.paused && partition.next_offset > lane.reached() {
                    lane.fetched = Some(partition.next_offset);
                }
            }
            if found > known.len() && !self.changed[source] {
                let role = self.settings.sources[source].role;
                if role == TopicRole::Requests {
                    grown = Some(source);
                    continue;
                }
                self.changed[source] = true;
                self.outbox.push_back(ConsumerEvent::PartitionsChanged {
                    role,
                    known: known.len(),
                    found,
                });
            }
        }
        if let Some(source) = grown {
            self.take_up(source, consumer)?;
        }
        self.count_commits(consumer);
        // A user who may find the group's coordinator learns only from the answer to a commit that it may not commit.
        if consumer.context().are_commits_denied() {
            self.do_without_commits();
        }
        self.judge_lag();
        Ok(())
    }

    pub(super) fn judge_lag(&mut self) {
        if !self.read_up {
            return;
        }
        let lag: u64 = self.lanes.iter().map(LaneState::lag).sum();
        let within = self.settings.caught_up_within;
        if lag <= within && !self.paused && self.caught_up != Some(true) {
            self.caught_up = Some(true);
            self.seal_all();
            self.outbox.push_back(ConsumerEvent::CaughtUp { lag });
        } else if lag > within.saturating_mul(4).saturating_add(100)
            && self.caught_up != Some(false)
        {
            self.caught_up = Some(false);
            self.outbox.push_back(ConsumerEvent::Behind { lag });
        }
    }

    /// Begins with everything once the topics that come first are read.
    pub(super) fn end_read_up(&mut self, consumer: &BaseConsumer<Listener>) -> Result<(), Trouble> {
        if self.read_up || self.lanes.iter().any(|lane| lane.active && lane.reached() < lane.target)
        {
            return Ok(());
        }
        self.read_up = true;
        self.seal_all();
        self.outbox.push_back(ConsumerEvent::ReadUp);
        self.assign(consumer)
    }

    pub(super) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        self.shared.paused.store(paused, Ordering::Relaxed);
    }

    pub(super) fn set_down(&mut self, reason: &str) {
        self.shared.connected.store(false, Ordering::Relaxed);
        self.heard = 0;
        if !self.down {
            self.down = true;
            tracing::warn!(
                brokers = self.settings.connection.brokers,
                reason,
                "kafka is away, waiting"
            );
            self.outbox.push_back(ConsumerEvent::BrokersDown { reason: reason.to_owned() });
        }
    }

    pub(super) fn set_connected(&mut self) {
        self.silent = 0;
        self.shared.connected.store(true, Ordering::Relaxed);
        if self.down {
            self.down = false;
            tracing::info!(brokers = self.settings.connection.brokers, "kafka is back");
            self.outbox.push_back(ConsumerEvent::BrokersBack);
        }
    }
}
