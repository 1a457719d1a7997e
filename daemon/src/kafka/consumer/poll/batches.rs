//! From records to batches: copying, and when a batch is handed on.

use std::sync::atomic::Ordering;
use std::time::Instant;

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use super::super::batch::{Batch, Buffers, Record};
use super::super::{ConsumerEvent, TopicRole};
use super::Poller;

impl Poller {
    /// Copies one record into the open batch of its partition.
    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>) {
        let topic = message.topic();
        let source = self.settings.sources.iter().position(|source| source.topic == topic);
        let partition = usize::try_from(message.partition()).unwrap_or(usize::MAX);
        let Some(&at) = source.and_then(|source| self.index[source].get(partition)) else {
            return; // not assigned by us
        };
        let lane = &mut self.lanes[at];
        if message.offset() < lane.position {
            self.shared.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        lane.position = message.offset() + 1;
        let limits = self.settings.batch;
        let (polled, _) = lane.open.get_or_insert_with(|| {
            self.open.push_back((at, Instant::now()));
            let used = self.pool.pop().or_else(|| self.returns.1.try_recv().ok());
            let buffers = used.map_or_else(Buffers::default, |mut buffers| {
                buffers.clear(limits.bytes);
                buffers
            });
            (self.settings.clock.wall(), buffers)
        });
        let polled = *polled;
        let arrived = lane.arrived(message.timestamp(), message.offset(), polled);
        let mut record = Record {
            lane: lane.lane,
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            arrived,
            key: message.key(),
            value: message.payload(),
            reply_topic: None,
            correlation_id: None,
        };
        if lane.lane.role == TopicRole::Requests
            && let Some(headers) = message.headers()
        {
            for header in headers.iter() {
                match header.key {
                    "reply-topic" => record.reply_topic = header.value,
                    "correlation-id" => record.correlation_id = header.value,
                    _ => {}
                }
            }
        }
        let Some((_, open)) = &mut lane.open else { return };
        open.push(&record);
        if open.len() >= limits.records || open.bytes() >= limits.bytes {
            self.open.retain(|(other, _)| *other != at);
            self.seal(at);
        }
    }

    pub(super) fn seal(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        let Some((polled, buffers)) = lane.open.take() else { return };
        self.shared.records.fetch_add(buffers.len() as u64, Ordering::Relaxed);
        let budgets = [&self.shared.bytes_in_flight, &lane.in_hand];
        let batch = Batch::seal(lane.lane, polled, buffers, budgets, &self.returns.0);
        if let Some(shared) = self.shared.lanes.read().get(at) {
            shared.position.store(lane.reached(), Ordering::Release);
        }
        self.outbox.push_back(ConsumerEvent::Batch(batch));
    }

    pub(super) fn seal_all(&mut self) {
        while let Some((at, _)) = self.open.pop_front() {
            self.seal(at);
        }
    }

    pub(super) fn seal_old(&mut self, now: Instant) {
        while let Some(&(at, since)) = self.open.front()
            && now.duration_since(since) >= self.settings.batch.age
        {
            self.open.pop_front();
            self.seal(at);
        }
    }
}
