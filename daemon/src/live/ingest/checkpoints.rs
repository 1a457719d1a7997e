//! When a checkpoint begins, what it takes along, and what becomes of it.

use std::time::Duration;

use crossbeam_channel::{RecvError, bounded};

use super::super::Work;
use super::super::checkpointer::{Job, Written, marked};
use super::{AHEAD, Ingest, PORTION, State, TRY_AGAIN};
use crate::capture::{Capture, Decision};
use crate::checkpoint::Cut;
use crate::error::Stop;

/// Changes of so many bytes are handed on before their checkpoint.
const MUCH: usize = 8 << 20;

impl Ingest {
    /// Says how old the newest checkpoint is and how much is captured.
    pub(super) fn look_at_disk(&self, now: Duration, state: &State) {
        let metrics = &self.shared.metrics;
        let age = now.saturating_sub(state.last_checkpoint);
        metrics.checkpoint.age_seconds.set(age.as_secs_f64());
        let captured = self.capture.as_ref().map_or(0, Capture::bytes);
        metrics.state.capture_bytes.set(captured as f64);
        metrics.state.journal_bytes.set(self.journal.bytes().unwrap_or(0) as f64);
    }

    /// Ends the batch that fills, and sets aside all that a checkpoint of everything up to here needs: the pipeline at once, the
    /// parameters when the learner has come so far. The checkpointer writes it while this thread goes on.
    pub(super) fn begin_checkpoint(&mut self, state: &mut State) -> Result<(), Stop> {
        self.decide(Decision::Cut, state)?;
        let (to, image) = bounded(1);
        self.send(Work::Freeze(to))?;
        if let Some(capture) = &mut self.capture {
            capture.flush();
        }
        let begun = self.shared.clock.steady();
        let changes = std::mem::take(&mut state.changes);
        state.journals[1] = self.journal.turn_over();
        let cut = Cut::take(&mut self.shared.pipeline.write(), changes)?;
        let cut = cut.followed_by(state.journals);
        let cut = cut.marked(marked(&self.shared.topics, state.positions.marks()));
        let now = self.shared.clock.steady();
        self.shared.hold(now - begun);
        (state.writing, state.begun) = (Some(begun), begun);
        state.next_checkpoint = now + self.interval;
        let ended = |_| Stop::fault("the checkpointer ended before it was told to");
        let cut = Box::new(cut);
        self.checkpoints.send(Job::Commit { cut, image }).map_err(ended)
    }

    /// Gathers some of what has changed, and lets the checkpointer have it where it is much.
    pub(super) fn gather(&mut self, state: &mut State) -> Result<(), Stop> {
        state.changes.gather(&mut self.shared.pipeline.write(), PORTION)?;
        if state.changes.bytes() >= MUCH && self.checkpoints.is_empty() {
            let ended = |_| Stop::fault("the checkpointer ended before it was told to");
            let changes = std::mem::take(&mut state.changes);
            self.checkpoints.send(Job::Ahead(changes)).map_err(ended)?;
        }
        Ok(())
    }

    /// Waits for the checkpoint that is being written, if there is one. Returns what became of it.
    pub(super) fn finish_checkpoint(&mut self, state: &mut State) -> Result<Written, Stop> {
        match state.writing {
            Some(_) => {
                let written = self.checkpointed.recv();
                self.checkpointed(written, state)
            }
            None => Ok(Ok(())),
        }
    }

    /// Takes note of what became of a checkpoint, and returns it.
    pub(super) fn checkpointed(
        &mut self,
        written: Result<Written, RecvError>,
        state: &mut State,
    ) -> Result<Written, Stop> {
        let ended = |_| Stop::fault("the checkpointer ended before it was told to");
        let (written, begun) = (written.map_err(ended)?, state.writing.take());
        if written.is_ok() {
            state.last_checkpoint = begun.unwrap_or(state.last_checkpoint);
            self.shared.pipeline.write().stored();
            let [before, now] = state.journals;
            // The checkpoint before can still be gone back to.
            self.journal.retain(before, now);
            state.journals[0] = now;
        } else {
            state.next_checkpoint = self.shared.clock.steady() + TRY_AGAIN;
        }
        Ok(written)
    }

    /// Makes a checkpoint ahead of its time where much memory waits for one.
    pub(super) fn look_at_unstored(&self, now: Duration, state: &mut State) {
        if state.writing.is_some() || now - state.begun < TRY_AGAIN {
            return;
        }
        if self.shared.pipeline.read().wants_checkpoint() {
            state.next_checkpoint = now;
        }
    }

    /// How long before a checkpoint begins its changes are gathered.
    pub(super) fn ahead(&self) -> Duration {
        AHEAD.min(self.interval / 2)
    }
}
