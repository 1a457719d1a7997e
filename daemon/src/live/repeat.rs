//! A start after a kill repeats what the run before had taken since the checkpoint, in the same turns and with the same decisions, and so learns
//! the same bits ([`crate::recovery`]). Until that is done nothing else is taken and no checkpoint made; requests are answered.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use sluice_features::wire::Topic;

use super::ingest::{Ingest, State};
use crate::error::Stop;
use crate::http::Wait;
use crate::kafka::{
    Batch, Connection, ConsumerEvent, Lane, LaneStatus, NextOffset, Recall, Source, TopicRole,
};
use crate::recovery::{Chain, Part, Step, Turn};
use crate::shutdown::Shutdown;

/// How long records may take to come before the thread says that it waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is to be repeated, and where its records are.
pub struct Repeat {
    /// The steps.
    pub chain: Chain,
    /// The number of the journal that the checkpoint in force names.
    pub journal: u64,
    /// Where the records are.
    pub connection: Connection,
    /// The topics.
    pub sources: Vec<Source>,
    /// Where the checkpoint ends.
    pub from: BTreeMap<Lane, NextOffset>,
}

impl Repeat {
    /// Returns where reading goes on behind it.
    pub fn ends(&self) -> impl Iterator<Item = (Lane, NextOffset)> + '_ {
        self.chain.ends().iter().filter_map(|(part, end)| Some((lane_of(*part)?, NextOffset(*end))))
    }

    fn ranges(&self) -> BTreeMap<Lane, Range<i64>> {
        let range = |(lane, NextOffset(end)): (Lane, NextOffset)| {
            let NextOffset(from) = self.from.get(&lane).copied().unwrap_or(NextOffset(0));
            (lane, from..end.max(from))
        };
        self.ends().map(range).collect()
    }
}

impl Ingest {
    /// Repeats it. Returns false when told to stop before the end.
    ///
    /// # Errors
    /// When the journal cannot be read, or Kafka has not got the records any more.
    pub(super) fn repeat(
        &mut self,
        repeat: Repeat,
        state: &mut State,
        shutdown: &Shutdown,
    ) -> Result<bool, Stop> {
        let (steps, ranges) = (repeat.chain.len(), repeat.ranges());
        if steps == 0 {
            return Ok(true);
        }
        let Some(lanes) = self.wait_until_assigned(shutdown)? else { return Ok(false) };
        let wait = format!("{steps} steps since the checkpoint are being repeated");
        self.shared.readiness.wait_for(Wait::Starting, wait);
        let Some(mut recall) = self.recall(&repeat, &ranges, shutdown)? else { return Ok(false) };
        let (begun, before) = (self.shared.clock.steady(), self.shared.records());
        for step in repeat.chain {
            match step? {
                Step::Took(turn) => {
                    let Some(batch) = self.turn(&mut recall, turn, shutdown)? else {
                        return Ok(false);
                    };
                    if !batch.is_empty() {
                        self.take(&batch, state, shutdown)?;
                    }
                }
                Step::Decided(decision) => self.carry_out(decision, state)?,
                Step::Next => {}
            }
        }
        self.assigned(&lanes, state)?;
        self.heard(ConsumerEvent::Assigned(lanes))?;
        tracing::info!(
            steps,
            records = self.shared.records() - before,
            took_ms = (self.shared.clock.steady() - begun).as_millis() as u64,
            "repeated what was taken since the checkpoint"
        );
        Ok(true)
    }

    /// Waits until the consumer has found the partitions and made sure that they are those of before. `None` when told to stop.
    fn wait_until_assigned(&self, shutdown: &Shutdown) -> Result<Option<Vec<LaneStatus>>, Stop> {
        let events = self.consumer.events();
        loop {
            crossbeam_channel::select! {
                recv(shutdown.channel()) -> _ => return Ok(None),
                recv(events) -> event => match event {
                    Ok(ConsumerEvent::Assigned(lanes)) => {
                        self.shared.readiness.clear(Wait::Kafka);
                        return Ok(Some(lanes));
                    }
                    Ok(event) => self.heard(event)?,
                    Err(_) => return Err(Stop::fault("the poll thread ended before it was told to")),
                }
            }
        }
    }

    fn recall(
        &self,
        repeat: &Repeat,
        ranges: &BTreeMap<Lane, Range<i64>>,
        shutdown: &Shutdown,
    ) -> Result<Option<Recall>, Stop> {
        while !shutdown.is_requested() {
            match Recall::open(&repeat.connection, &repeat.sources, ranges) {
                Ok(recall) => return Ok(Some(recall)),
                Err(trouble) if trouble.is_retriable() => {
                    self.shared.readiness.wait_for(Wait::Kafka, trouble.to_string());
                    shutdown.wait(PATIENCE);
                }
                Err(trouble) => return Err(Stop::kafka("reading again", trouble)),
            }
        }
        Ok(None)
    }

    /// Waits for the records of a turn. `None` when told to stop.
    fn turn(
        &self,
        recall: &mut Recall,
        turn: Turn,
        shutdown: &Shutdown,
    ) -> Result<Option<Batch>, Stop> {
        let Some(lane) = turn.part().and_then(lane_of) else {
            return Err(Stop::data(
                "the journal is of another version: start the one that wrote it",
            ));
        };
        while !shutdown.is_requested() {
            let batch = recall.turn(lane, turn.next, turn.polled, PATIENCE);
            if let Some(batch) = batch.map_err(|trouble| Stop::kafka("reading again", trouble))? {
                self.shared.readiness.clear(Wait::Kafka);
                return Ok(Some(batch));
            }
            self.shared.readiness.wait_for(
                Wait::Kafka,
                "the records since the checkpoint, which are to be repeated, do not come",
            );
        }
        Ok(None)
    }
}

fn lane_of((topic, partition): Part) -> Option<Lane> {
    let role = match topic {
        Topic::Events => TopicRole::Events,
        Topic::Items => TopicRole::Items,
        Topic::Users => TopicRole::Users,
        Topic::Requests => return None,
    };
    Some(Lane { role, partition: i32::try_from(partition).ok()? })
}
