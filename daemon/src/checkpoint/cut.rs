//! What a checkpoint needs of the pipeline, taken between two records.

use std::collections::BTreeMap;

use super::commit::TOPICS;
use super::pieces::key_of;
use crate::error::Stop;
use crate::kafka::Mark;
use crate::pipeline::Pipeline;
use crate::pipeline::state::{Picture, Piece, StateError};
use crate::store::Batch;

/// Pieces that have changed since the last checkpoint, as the next one writes them. They may be gathered in portions ahead of it: a
/// piece that changes again is gathered again, and the newest counts.
#[derive(Debug, Default)]
pub struct Changes(pub(super) Batch);

impl Changes {
    /// Returns how many bytes they have.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// Gathers about as many changed pieces as `most`, of each kind. Returns how many are left.
    ///
    /// # Errors
    /// When a piece cannot be encoded.
    pub fn gather(&mut self, pipeline: &mut Pipeline, most: usize) -> Result<usize, Stop> {
        pipeline.drain_changes(most, |piece, bytes| self.add(piece, bytes)).map_err(failed)
    }

    /// Gathers all that are left: the changes are those up to now.
    fn finish(&mut self, pipeline: &mut Pipeline) -> Result<(), Stop> {
        pipeline.finish_changes(|piece, bytes| self.add(piece, bytes)).map_err(failed)
    }

    fn add(&mut self, piece: Piece, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.0.put(key_of(piece), bytes),
            None => self.0.delete(key_of(piece)),
        }
    }
}

fn failed(error: StateError) -> Stop {
    Stop::fault("a checkpoint failed").because(error)
}

/// The pipeline at one moment: what is written as a whole, what has changed, and where its topics stand. Later records change nothing
/// of it.
pub struct Cut {
    pub(super) picture: Picture,
    pub(super) changes: Batch,
    /// The next offset of each of [`TOPICS`], by partition.
    pub(super) next: Next,
    /// The last record that was applied, by topic and partition.
    pub(super) marks: Marks,
    /// The journals that go on behind the checkpoint before and behind it.
    pub(super) journals: [u64; 2],
}

/// The last record that was applied, by topic and partition.
pub(super) type Marks = BTreeMap<(String, i32), Mark>;

/// The next offset of each of [`TOPICS`], by partition; none where it is not known yet.
pub(super) type Next = Vec<[Option<i64>; 3]>;

impl Cut {
    /// Takes the pipeline as it is now, with the changes that were gathered ahead. Everything that it took must be cut and fetched.
    ///
    /// # Errors
    /// When something waits in the pipeline, or a piece cannot be encoded.
    pub fn take(pipeline: &mut Pipeline, mut changes: Changes) -> Result<Self, Stop> {
        settled(pipeline)?;
        changes.finish(pipeline)?;
        let next = next(pipeline);
        let marks = BTreeMap::new();
        Ok(Self { picture: pipeline.picture(), changes: changes.0, next, marks, journals: [1; 2] })
    }

    /// Says in which journals is what comes behind the checkpoint before and behind it.
    #[must_use]
    pub fn followed_by(self, journals: [u64; 2]) -> Self {
        Self { journals, ..self }
    }

    /// Adds the last record that was applied, by topic and partition, by which the next start knows them again.
    #[must_use]
    pub fn marked(mut self, marks: BTreeMap<(String, i32), Mark>) -> Self {
        self.marks = marks;
        self
    }
}

/// Returns the next offset of each of [`TOPICS`], by partition.
pub(super) fn next(pipeline: &Pipeline) -> Next {
    pipeline.shards().iter().map(|shard| TOPICS.map(|topic| shard.next(topic))).collect()
}

/// Makes sure that nothing in the pipeline waits to be learned, and nothing was out of reach.
pub(super) fn settled(pipeline: &Pipeline) -> Result<(), Stop> {
    pipeline.check()?;
    if pipeline.is_settled() {
        return Ok(());
    }
    Err(Stop::fault("a checkpoint was asked for while examples wait: cut and fetch them first"))
}
