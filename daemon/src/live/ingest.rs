//! The ingest thread: records from the consumer through the pipeline to the learner. It alone writes the pipeline's state, and begins
//! the checkpoints, which the checkpointer writes.
//!
//! It decides by the clock in three cases, and writes each decision down before it takes effect, as it does whose turn it was: a batch is cut
//! because its oldest example has waited long enough; a silent partition's watermark moves; a checkpoint ends the batch that fills.

mod checkpoints;
mod positions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use sluice_features::reject::Rejection;
use sluice_features::wire::Topic;

use super::checkpointer::{Job, Written};
use super::partitioning::{Partitioning, Told};
use super::poison::Poison;
use super::repeat::Repeat;
use super::room::Room;
use super::silence::Silence;
use super::{Live, Work};
use crate::capture::{Capture, Decision};
use crate::checkpoint::Changes;
use crate::error::Stop;
use crate::http::Wait;
use crate::kafka::{Batch, Consumer, ConsumerEvent, DeadLetter, DeadLetters, Lane, Mark, Origin};
use crate::pipeline::Pipeline;
use crate::pipeline::due::Next;
use crate::pipeline::record::Record;
use crate::pipeline::work::LearnBatch;
use crate::recovery::{Journal, Part, Turn};
use crate::shutdown::Shutdown;
use crate::supervise::Faults;

use positions::{Positions, topic_of};

/// How often silent partitions are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// The longest the thread sleeps.
const TICK: Duration = Duration::from_millis(10);
/// How long a dead letter waits for room in the producer before the thread says that Kafka does not take it, and tries again.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long before a checkpoint begins, what has changed is gathered in portions, so that little is left to do at once.
const AHEAD: Duration = Duration::from_secs(10);
/// Changed pieces of a kind and shard that are gathered at a time: about a millisecond.
const PORTION: usize = 512;
/// After a full disk a checkpoint is tried again this soon, and where the journal cannot go on.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// What the ingest thread is made of.
pub struct Ingest {
    /// What it shares with the learner.
    pub shared: Arc<Live>,
    /// The consumer of events, items and users.
    pub consumer: Arc<Consumer>,
    /// To the learner.
    pub work: Sender<Work>,
    /// Batches to be filled again.
    pub used: Receiver<LearnBatch>,
    /// Where refused records go.
    pub dead_letters: DeadLetters,
    /// To the checkpointer: room for a checkpoint behind changes ahead of it.
    pub checkpoints: Sender<Job>,
    /// What became of what was sent.
    pub checkpointed: Receiver<Written>,
    /// How often a checkpoint begins.
    pub interval: Duration,
    /// The order of records and decisions, for a start after a kill.
    pub journal: Journal,
    /// Records at which it has panicked.
    pub poison: Poison,
    /// What such a start repeats first.
    pub repeat: Option<Repeat>,
    /// The last record that was applied of each partition, as the last checkpoint knows it.
    pub marks: BTreeMap<Lane, Mark>,
    /// The capture, if this run is captured.
    pub capture: Option<Capture>,
    /// A batch is cut when its oldest example has waited for so long.
    pub max_age: Duration,
    /// Tells at the end whether the state may be kept.
    pub faults: Faults,
}

/// What changes while it runs.
pub(super) struct State {
    filling_since: Option<Duration>,
    looked: Duration,
    /// When the newest checkpoint in force was begun, or the start.
    last_checkpoint: Duration,
    next_checkpoint: Duration,
    /// When the newest one was begun, whatever became of it, or the start.
    begun: Duration,
    /// When the checkpoint was begun that is being written.
    writing: Option<Duration>,
    /// What the next checkpoint writes of what has changed, as far as it is gathered.
    changes: Changes,
    /// The journals behind the checkpoint in force and behind the one that is being written.
    journals: [u64; 2],
    /// Of each partition, how long nothing has moved its watermark although it is read up.
    pub(super) silences: Vec<Silence>,
    partitioning: Partitioning,
    pub(super) room: Room,
    positions: Positions,
}

impl Ingest {
    /// Runs until told to stop; then learns what was taken and makes a last checkpoint.
    ///
    /// # Errors
    /// What the daemon cannot go on with.
    pub fn run(mut self, shutdown: &Shutdown) -> Result<(), Stop> {
        let mut state = self.state();
        let events = self.consumer.events().clone();
        let checkpointed = self.checkpointed.clone();
        if let Some(repeat) = self.repeat.take() {
            state.journals[0] = repeat.journal;
            if !self.repeat(repeat, &mut state, shutdown)? {
                tracing::info!("stopped in what is repeated: the next start begins with it again");
                return Ok(());
            }
        }
        while !shutdown.is_requested() {
            if let Some(batch) = state.room.next() {
                self.batch(&batch, &mut state, shutdown)?;
            } else {
                crossbeam_channel::select! {
                    recv(shutdown.channel()) -> _ => {}
                    recv(events) -> event => match event {
                        Ok(ConsumerEvent::Batch(batch)) => self.came(batch, &mut state, shutdown)?,
                        Ok(ConsumerEvent::Gap(gap)) => self.went_on(&gap, &mut state)?,
                        Ok(ConsumerEvent::Assigned(lanes)) => {
                            self.assigned(&lanes, &mut state)?;
                            self.heard(ConsumerEvent::Assigned(lanes))?;
                        }
                        Ok(event) => self.heard(event)?,
                        Err(_) => return Err(Stop::fault("the poll thread ended before it was told to")),
                    },
                    recv(checkpointed) -> written => drop(self.checkpointed(written, &mut state)?),
                    default(TICK) => {}
                }
            }
            let now = self.shared.clock.steady();
            if state.filling_since.is_some_and(|since| now - since >= self.max_age) {
                self.decide(Decision::Cut, &mut state)?;
            }
            if now - state.looked >= LOOK {
                state.looked = now;
                self.look_at_disk(now, &state);
                self.look_for_silence(&mut state)?;
                self.look_at_partitioning(now, &mut state.partitioning);
                self.shared.pipeline.write().fit_users();
                self.look_at_room(&mut state);
                self.look_for_an_end(&state);
                self.look_at_unstored(now, &mut state);
            }
            if state.writing.is_none() {
                let unwritten = self.journal.bytes().is_none() && now >= state.begun + TRY_AGAIN;
                if now >= state.next_checkpoint || unwritten {
                    self.begin_checkpoint(&mut state)?;
                } else if state.next_checkpoint - now <= self.ahead() {
                    self.gather(&mut state)?;
                }
            }
        }
        if self.faults.any() {
            tracing::warn!(
                "a part has failed: no last checkpoint, the next start goes on from the one before"
            );
            return Ok(());
        }
        drop(self.finish_checkpoint(&mut state)?);
        self.begin_checkpoint(&mut state)?;
        let last = self.finish_checkpoint(&mut state)?;
        let checksum = self.shared.trainer.lock().checksum();
        tracing::info!(
            checksum = format!("{checksum:016x}"),
            records = self.shared.records(),
            "everything taken is learned"
        );
        if let Some(capture) = self.capture {
            capture.finish();
        }
        last.map_err(|reason| {
            let message = "ended without a last checkpoint: the next start goes on from the one before and reads what came since again from Kafka, \
                 as long as Kafka keeps it; mend this and start again";
            Stop::fault(message).because(reason)
        })
    }

    /// Returns what changes while it runs, as it is at the start.
    fn state(&self) -> State {
        let now = self.shared.clock.steady();
        let partitions = self.shared.pipeline.read().shards().len();
        State {
            filling_since: None,
            looked: now,
            last_checkpoint: now,
            next_checkpoint: now + self.interval,
            begun: now,
            writing: None,
            changes: Changes::default(),
            journals: [self.journal.number(); 2],
            silences: vec![Silence::begin(now); partitions],
            partitioning: Partitioning::new(partitions),
            room: Room::new(self.shared.pipeline.read().rules().bounds),
            positions: Positions::new(self.marks.clone()),
        }
    }

    /// Takes a batch, or holds it back where what it brings would take more memory than there may be.
    fn came(&mut self, batch: Batch, state: &mut State, shutdown: &Shutdown) -> Result<(), Stop> {
        if !state.room.admits(batch.lane().role) {
            state.room.hold(batch);
            return Ok(());
        }
        self.batch(&batch, state, shutdown)
    }

    /// Takes the records of one partition, after it was written down whose turn it is.
    fn batch(&mut self, batch: &Batch, state: &mut State, shutdown: &Shutdown) -> Result<(), Stop> {
        let (topic, partition) = part_of(batch.lane())?;
        let next = batch.next_offset().0;
        self.journal.took(Turn::new(topic, partition, next, batch.polled()));
        self.take(batch, state, shutdown)
    }

    /// Takes the records of one partition.
    pub(super) fn take(
        &mut self,
        batch: &Batch,
        state: &mut State,
        shutdown: &Shutdown,
    ) -> Result<(), Stop> {
        let lane = batch.lane();
        let (topic, partition) = part_of(lane)?;
        if topic == Topic::Events {
            self.read_ahead(batch, partition);
        }
        let mut refused: Vec<(usize, Rejection)> = Vec::new();
        let awaited = |pipeline: &Pipeline| {
            pipeline.shards().get(partition as usize).map(|shard| shard.watermark.awaited())
        };
        let before = awaited(&self.shared.pipeline.read());
        let mut records = batch.records().enumerate().peekable();
        while records.peek().is_some() {
            let mut pipeline = self.shared.pipeline.write();
            for (i, record) in records.by_ref() {
                let record = Record {
                    topic,
                    partition,
                    offset: record.offset,
                    arrived: record.arrived,
                    key: record.key,
                    value: record.value,
                };
                if let Some(rejection) = self.poison.refusal(&record) {
                    pipeline.pass(&record, &rejection);
                    refused.push((i, rejection));
                    continue;
                }
                if let Some(capture) = &mut self.capture {
                    capture.record(&record);
                }
                let _in_hand = self.poison.in_hand(&record);
                match pipeline.take(&record) {
                    Ok(()) => state.partitioning.note_latest(&pipeline, &record),
                    Err(rejection) => refused.push((i, rejection)),
                }
                if pipeline.is_behind() {
                    break;
                }
            }
            pipeline.check()?;
            drop(pipeline);
            if records.peek().is_some() {
                self.hand_on(state)?;
            }
        }
        let moved = awaited(&self.shared.pipeline.read()) > before;
        let consumed = &self.shared.metrics.consume;
        consumed.records[lane.role as usize].increment(batch.len() as u64);
        consumed.bytes[lane.role as usize].increment(batch.bytes() as u64);
        self.shared.count(batch.len() as u64);
        let (now, rejections) = (self.shared.clock.steady(), refused.iter().map(|(_, why)| why));
        self.shared.refusals.lock().note(topic, now, batch.len() as u64, rejections);
        for (i, rejection) in refused {
            self.bury(batch, topic, i, &rejection, shutdown)?;
        }
        // Item and user updates, refused, repeated and skewed events say nothing of how far event time has come.
        if let Some(silence) = state.silences.get_mut(partition as usize).filter(|_| moved) {
            *silence = Silence::begin(self.shared.clock.steady());
        }
        state.positions.note(batch);
        self.look_at_room(state);
        self.hand_on(state)
    }

    /// Sends a refused record to the dead-letter topic; waits as long as it takes, for nothing may be lost.
    fn bury(
        &self,
        batch: &Batch,
        topic: Topic,
        place: usize,
        rejection: &Rejection,
        shutdown: &Shutdown,
    ) -> Result<(), Stop> {
        let Some(record) = batch.records().nth(place) else {
            return Ok(());
        };
        let letter = DeadLetter {
            origin: Origin {
                topic: self.shared.topic_name(topic),
                partition: record.lane.partition,
                offset: record.offset,
                timestamp: record.timestamp,
            },
            key: record.key,
            value: record.value,
            reason: rejection.reason.name(),
            field: rejection.field.as_deref(),
            detail: rejection.detail.as_deref(),
        };
        while let Err(trouble) = self.dead_letters.send(&letter, PATIENCE) {
            if !trouble.is_retriable() || shutdown.is_requested() {
                return Err(Stop::kafka("writing to the dead-letter topic", trouble));
            }
            self.shared
                .readiness
                .wait_for(Wait::DeadLetters, "the dead-letter topic takes nothing");
            tracing::warn!(%trouble, "the dead-letter topic takes nothing: reading waits");
        }
        self.shared.readiness.clear(Wait::DeadLetters);
        self.shared.metrics.publish.dead_letters.increment(1);
        Ok(())
    }

    /// Carries out what the clock decided, after it was written down.
    pub(super) fn decide(&mut self, decision: Decision, state: &mut State) -> Result<(), Stop> {
        self.journal.decided(decision);
        self.carry_out(decision, state)
    }

    pub(super) fn carry_out(&mut self, decision: Decision, state: &mut State) -> Result<(), Stop> {
        if let Some(capture) = &mut self.capture {
            capture.decision(decision);
        }
        {
            let mut pipeline = self.shared.pipeline.write();
            decision.apply(&mut pipeline);
            pipeline.check()?;
        }
        self.hand_on(state)
    }

    /// Says how many users' events lie in more than one partition, and why that is so.
    fn look_at_partitioning(&self, now: Duration, partitioning: &mut Partitioning) {
        self.shared.set_split_users(partitioning.split_users());
        if let Some(Told { users, seen, cause, remedy }) = partitioning.look(now) {
            tracing::warn!(
                users,
                seen,
                cause,
                remedy,
                "events of one user lie in several partitions"
            );
        }
    }

    /// Hands finished batches to the learner, waiting where it is behind. Where much is due, answers are given in between.
    fn hand_on(&self, state: &mut State) -> Result<(), Stop> {
        let mut cut = false;
        loop {
            let next = {
                let mut pipeline = self.shared.pipeline.write();
                while let Ok(used) = self.used.try_recv() {
                    pipeline.recycle(used);
                }
                pipeline.hand_on()
            };
            match next {
                Next::Batch(batch) => {
                    cut = true;
                    self.send(Work::Learn(Box::new(batch)))?;
                }
                Next::Due => {}
                Next::Nothing => break,
            }
        }
        self.shared.pipeline.read().check()?;
        let filling = self.shared.pipeline.read().is_filling();
        if !filling {
            state.filling_since = None;
        } else if cut || state.filling_since.is_none() {
            state.filling_since = Some(self.shared.clock.steady());
        }
        Ok(())
    }

    fn send(&self, work: Work) -> Result<(), Stop> {
        self.work.send(work).map_err(|_| Stop::fault("the learner ended before it was told to"))
    }

    /// Takes note of what the consumer says beside records.
    pub(super) fn heard(&self, event: ConsumerEvent) -> Result<(), Stop> {
        let readiness = &self.shared.readiness;
        match event {
            ConsumerEvent::Batch(_) | ConsumerEvent::Gap(_) => {}
            ConsumerEvent::Assigned(lanes) => {
                tracing::info!(partitions = lanes.len(), "reading");
                readiness.clear(Wait::Kafka);
                readiness.clear(Wait::Starting);
            }
            ConsumerEvent::ReadUp => {
                readiness.clear(Wait::Catalogue);
            }
            ConsumerEvent::CaughtUp { lag } => {
                self.shared.set_caught_up(true);
                readiness.clear(Wait::Lag);
                tracing::info!(lag, "caught up");
            }
            ConsumerEvent::Behind { lag } => {
                self.shared.set_caught_up(false);
                readiness.wait_for(Wait::Lag, format!("{lag} records behind"));
                tracing::warn!(lag, "behind");
            }
            ConsumerEvent::BrokersDown { reason } => {
                readiness.wait_for(Wait::Kafka, &reason);
                tracing::warn!(reason, "no broker answers: waiting");
            }
            ConsumerEvent::BrokersBack => {
                readiness.clear(Wait::Kafka);
                tracing::info!("brokers answer again");
            }
            ConsumerEvent::PartitionsChanged { role, known, found } => {
                return Err(Stop::config(format!(
                    "the topic of {} has {found} partitions, {known} at the start: users would move between shards; \
                     make new topics with the wanted number and produce into them",
                    role.name()
                )));
            }
            ConsumerEvent::Fatal(trouble) => return Err(Stop::kafka("reading", trouble)),
        }
        Ok(())
    }
}

/// Returns the part of the pipeline that a partition's records belong to.
fn part_of(lane: Lane) -> Result<Part, Stop> {
    Ok((topic_of(lane.role)?, u32::try_from(lane.partition).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
