//! Between the thread and its owner: handing on without waiting, pausing by the bytes held, commits.

use std::sync::atomic::Ordering;

use crossbeam_channel::TrySendError;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::super::super::context::Listener;
use super::super::super::trouble::Trouble;
use super::super::{Control, Lane, NextOffset};
use super::Poller;

impl Poller {
    /// Hands on what the channel takes; never waits.
    pub(super) fn deliver(&mut self) {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => {
                    self.shared.stop.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    /// Pauses or resumes by the bytes that the owner holds.
    pub(super) fn balance(&mut self, consumer: &BaseConsumer<Listener>) -> Result<(), Trouble> {
        let held = self.shared.bytes_in_flight.load(Ordering::Relaxed);
        let crowded = self.outbox.len() >= self.settings.queue_batches;
        if !self.paused && (held >= self.settings.queue_high || crowded) {
            let list = self.active()?;
            consumer.pause(&list).map_err(|error| Trouble::from_client("pausing", &error, None))?;
            self.set_paused(true);
            for lane in &mut self.lanes {
                lane.fetched = None; // what was fetched ahead is thrown away by the pause
            }
        } else if self.paused && held <= self.settings.queue_low && self.outbox.is_empty() {
            let list = self.active()?;
            consumer
                .resume(&list)
                .map_err(|error| Trouble::from_client("resuming", &error, None))?;
            self.set_paused(false);
        }
        Ok(())
    }

    fn active(&self) -> Result<TopicPartitionList, Trouble> {
        let mut list = TopicPartitionList::with_capacity(self.lanes.len());
        for lane in self.lanes.iter().filter(|lane| lane.active) {
            list.add_partition(&self.settings.sources[lane.source].topic, lane.lane.partition);
        }
        Ok(list)
    }

    pub(super) fn obey(&mut self, consumer: &BaseConsumer<Listener>) {
        while let Ok(Control::Commit(offsets)) = self.control.try_recv() {
            self.commit(consumer, &offsets);
        }
    }

    pub(super) fn commit(
        &mut self,
        consumer: &BaseConsumer<Listener>,
        offsets: &[(Lane, NextOffset)],
    ) {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (lane, NextOffset(offset)) in offsets {
            let source = self.settings.sources.iter().find(|source| source.role == lane.role);
            if let Some(source) = source {
                let mut partition = list.add_partition(&source.topic, lane.partition);
                partition.set_metadata(&self.settings.name);
                if let Err(error) = partition.set_offset(Offset::Offset(*offset)) {
                    tracing::debug!(%error, "offset not committed to kafka");
                }
            }
        }
        if list.count() == 0 {
            return;
        }
        match consumer.commit(&list, CommitMode::Async) {
            Ok(()) => self.has_committed = true,
            Err(error) => {
                tracing::debug!(%error, "offsets not committed to kafka");
                self.commits_untaken += 1;
            }
        }
    }

    /// Says how many commits have failed.
    pub(super) fn count_commits(&self, consumer: &BaseConsumer<Listener>) {
        let failed = consumer.context().commits_failed() + self.commits_untaken;
        self.shared.commits_failed.store(failed, Ordering::Relaxed);
    }
}
