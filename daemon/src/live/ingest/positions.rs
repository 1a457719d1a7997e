//! Where the ingest thread stands in each partition: known from the start on, kept by every checkpoint, and told where records are missing.

use std::collections::BTreeMap;

use sluice_features::wire::Topic;

use super::{Ingest, State};
use crate::error::Stop;
use crate::kafka::{Batch, Gap, GapCause, Lane, LaneStatus, Mark, TopicRole};

/// The last record that was applied of each partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Positions {
    marks: BTreeMap<Lane, Mark>,
}

impl Positions {
    /// Begins with what the last checkpoint has kept.
    pub(super) fn new(marks: BTreeMap<Lane, Mark>) -> Self {
        Self { marks }
    }

    /// Takes note of a batch of which every record is applied.
    pub(super) fn note(&mut self, batch: &Batch) {
        if let Some(mark) = batch.mark() {
            self.marks.insert(batch.lane(), mark);
        }
    }

    /// Returns the marks, for a checkpoint.
    pub(super) fn marks(&self) -> &BTreeMap<Lane, Mark> {
        &self.marks
    }
}

impl Ingest {
    /// Takes over where reading begins. Where the last checkpoint does not know it, one that does is made before the first record is taken:
    /// a partition that is read from its end would begin at another end after a kill.
    pub(in super::super) fn assigned(
        &mut self,
        lanes: &[LaneStatus],
        state: &mut State,
    ) -> Result<(), Stop> {
        let mut unknown = 0;
        for status in lanes {
            unknown += usize::from(!self.stand_at(status.lane, status.position.0)?);
        }
        if unknown > 0 {
            tracing::info!(partitions = unknown, "beginning: where these begin is kept first");
            // What keeps it from being written is told, and it is tried again.
            drop(self.finish_checkpoint(state)?);
            self.begin_checkpoint(state)?;
            drop(self.finish_checkpoint(state)?);
        }
        Ok(())
    }

    /// Goes on behind records that are missing.
    pub(super) fn went_on(&self, gap: &Gap, state: &mut State) -> Result<(), Stop> {
        // What was read before the gap may wait still, for room: then the first record behind the gap moves the position.
        if gap.to < gap.from || self.stands_at(gap.lane)? >= Some(gap.from.0) {
            self.stand_at(gap.lane, gap.to.0)?;
        }
        if gap.cause == GapCause::MadeAnew {
            state.positions.marks.remove(&gap.lane);
        }
        let consumed = &self.shared.metrics.consume;
        consumed.gaps[gap.cause as usize].increment(1);
        consumed.missing[gap.cause as usize].increment(gap.missing().unwrap_or(0));
        let topic = self.shared.topic_name(topic_of(gap.lane.role)?);
        let missing = gap.missing().map_or("unknown".to_owned(), |missing| missing.to_string());
        tracing::error!(
            topic,
            partition = gap.lane.partition,
            cause = gap.cause.name(),
            from = gap.from.0,
            to = gap.to.0,
            missing,
            "records are missing and reading goes on (--accept-gap): outcomes in the gap are not learned, impressions before it whose \
             outcomes lie in it are learned as without"
        );
        Ok(())
    }

    fn stands_at(&self, lane: Lane) -> Result<Option<i64>, Stop> {
        let (topic, partition) = (topic_of(lane.role)?, usize::try_from(lane.partition));
        let pipeline = self.shared.pipeline.read();
        let shard = partition.ok().and_then(|partition| pipeline.shards().get(partition));
        Ok(shard.and_then(|shard| shard.next(topic)))
    }

    /// Sets the offset that is expected next. Says whether one was known.
    fn stand_at(&self, lane: Lane, next: i64) -> Result<bool, Stop> {
        let topic = topic_of(lane.role)?;
        let mut pipeline = self.shared.pipeline.write();
        let (_, shard) = pipeline.parts_mut(u32::try_from(lane.partition).unwrap_or_default());
        let known = shard.next(topic).is_some();
        shard.set_next(topic, next);
        Ok(known)
    }
}

/// Returns the topic of what the ingest thread reads.
///
/// # Errors
/// For requests.
pub(super) fn topic_of(role: TopicRole) -> Result<Topic, Stop> {
    match role {
        TopicRole::Events => Ok(Topic::Events),
        TopicRole::Items => Ok(Topic::Items),
        TopicRole::Users => Ok(Topic::Users),
        TopicRole::Requests => Err(Stop::fault("a request came to the ingest thread")),
    }
}
