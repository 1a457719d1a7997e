//! What a start begins with: the state of the last checkpoint or nothing, and a capture of the run if one is wanted.

use std::collections::BTreeMap;
use std::path::Path;

use super::Options;
use crate::capture::{Capture, Start};
use crate::checkpoint::{Checkpoint, Opening, Resumed, write_full};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::Stop;
use crate::kafka::{Lane, Mark, NextOffset};
use crate::learn::trainer::Trainer;
use crate::live::checkpointer::lanes;
use crate::parts;
use crate::pipeline::Pipeline;
use crate::recovery::{Chain, Journal};

/// What a start begins with.
pub(super) struct State {
    pub(super) pipeline: Pipeline,
    pub(super) trainer: Trainer,
    /// Makes the checkpoints to come.
    pub(super) checkpoint: Checkpoint,
    /// Where the checkpoint ends; partitions that are not there begin as configured.
    pub(super) offsets: BTreeMap<Lane, NextOffset>,
    /// The last record that was applied of each partition.
    pub(super) marks: BTreeMap<Lane, Mark>,
    pub(super) journal: Journal,
    /// What the run before took behind the checkpoint, with the number of the journal that the checkpoint names.
    pub(super) chain: Option<(u64, Chain)>,
    pub(super) capture: Option<Capture>,
}

impl State {
    /// Puts back what is on disk, or begins with nothing.
    pub(super) fn open(
        config: &Config,
        options: &Options,
        partitions: usize,
        clock: &Clock,
    ) -> Result<Self, Stop> {
        let setup = parts::setup(config, partitions, &config.checkpoint.path, options.new_model);
        let Opening { checkpoint, pipeline, parameters, resumed } =
            Checkpoint::open(setup, parts::rules(config), clock)?;
        let mut trainer = parts::trainer(config)?;
        parts::restore(config, &mut trainer, parameters)?;
        let journals = resumed.as_ref().map(|resumed| resumed.journals);
        let (mut journal, mut chain) = Journal::open(&config.checkpoint.path, journals)?;
        let number = journals.map(|[_, number]| number);
        if let Some(number) = number.filter(|_| options.accept_gap) {
            // What is missing in Kafka cannot be repeated: everything is taken as it comes.
            journal.begin_anew(number)?;
            chain = Chain::default();
        }
        let chain = number.map(|number| (number, chain));
        let (offsets, marks) = Default::default();
        let mut state =
            Self { pipeline, trainer, checkpoint, offsets, marks, journal, chain, capture: None };
        if let Some(folder) = &options.capture {
            state.capture = state.capture(config, folder, resumed.is_some())?;
        }
        if let Some(resumed) = &resumed {
            for (lane, next, mark) in lanes(&config.kafka.topics, &resumed.offsets) {
                state.offsets.insert(lane, next);
                state.marks.extend(mark.map(|mark| (lane, mark)));
            }
            tell(resumed);
        }
        Ok(state)
    }

    /// Begins to capture, with a copy of what was put back, if there is room.
    fn capture(
        &self,
        config: &Config,
        folder: &Path,
        resumed: bool,
    ) -> Result<Option<Capture>, Stop> {
        let setup = self.checkpoint.setup();
        let start = Start {
            partitions: u32::try_from(setup.partitions).unwrap_or(u32::MAX),
            fingerprint: setup.identity.fingerprint(),
            seed: config.learn.seed,
            threads: u32::try_from(config.learn.threads).unwrap_or(u32::MAX),
            bounds: config.memory.bounds,
            resumed,
        };
        let copy = |to: &Path| {
            let write = |mut to: &mut dyn std::io::Write| self.trainer.write(&mut to);
            write_full(to, setup, &self.pipeline, write).map(drop)
        };
        Capture::create(folder, config.capture_bytes, start, copy)
    }
}

fn tell(resumed: &Resumed) {
    tracing::info!(number = resumed.number, "going on from a checkpoint");
    if let Some(lost) = resumed.lost {
        tracing::warn!(
            lost,
            resumed.number,
            "the store has lost a newer checkpoint: records since the older one are read again"
        );
    }
    if resumed.dropped > 0 {
        tracing::warn!(
            dropped = resumed.dropped,
            "open impressions of another schema were dropped"
        );
    }
    if let Some(difference) = &resumed.difference {
        tracing::warn!(difference, "new parameters for another model, the state is kept");
    }
}
