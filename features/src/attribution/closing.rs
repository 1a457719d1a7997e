//! Windows close: in the order of (deadline, arrival), in portions.

use super::deadlines::Deadline;
use super::labels::Stage;
use super::{Effect, Joiner, Labels, Orphan, Payload, Place};
use crate::time::EventTime;

/// Windows that one call closes at most: when days of event time pass at once, the caller hands on what they bring in between.
pub const MOST_CLOSINGS: usize = if cfg!(test) { 4 } else { 256 };

impl<T: Payload> Joiner<T> {
    /// Moves the watermark on, never back, closes what is strictly before it and gives up outcomes that have waited long enough, at most
    /// [`MOST_CLOSINGS`] together. Returns whether more of it is due: then it is to be called again, with the same watermark, before
    /// anything else is taken. What happens in which order does not depend on the portions.
    pub fn advance(&mut self, watermark: EventTime, effects: &mut Vec<Effect>) -> bool {
        if watermark > self.watermark {
            self.watermark = watermark;
        }
        for _ in 0..MOST_CLOSINGS {
            if let Some((stage, deadline)) = self.deadlines.pop_before(self.watermark) {
                self.pass(stage, deadline.place, effects);
                self.schedule(deadline.place, stage + 1);
            } else if let Some(waiting) = self.early.pop_before(self.watermark) {
                self.give_up(&waiting, Orphan::NoImpression);
            } else {
                return false;
            }
        }
        self.is_behind()
    }

    /// Tells whether windows are due to close, or outcomes to be given up.
    pub fn is_behind(&self) -> bool {
        self.deadlines.is_due(self.watermark) || self.early.is_due(self.watermark)
    }

    /// Closes the windows of an impression that were over when it came, and sets the first deadline of the others.
    pub(super) fn begin(&mut self, place: Place, effects: &mut Vec<Effect>) {
        let over = self.stages_over(self.opens.get(place).opened.time);
        for stage in 0..over {
            self.pass(stage, place, effects);
        }
        self.schedule(place, over);
    }

    /// Returns how many stages of an impression of this time are over.
    pub(super) fn stages_over(&self, time: EventTime) -> usize {
        let over = |stage: &&Stage| time + stage.window < self.watermark;
        self.rules.stages().iter().take_while(over).count()
    }

    /// Sets the deadline of a stage, if there is such a stage.
    pub(super) fn schedule(&mut self, place: Place, stage: usize) {
        let Some(next) = self.rules.stages().get(stage) else { return };
        let opened = &self.opens.get(place).opened;
        let (time, number) = (opened.time + next.window, opened.number);
        self.deadlines.push(stage, Deadline { time, number, place });
    }

    /// Closes the windows of a stage; with the last stage the impression.
    fn pass(&mut self, stage: usize, place: Place, effects: &mut Vec<Effect>) {
        let open = self.opens.get(place);
        let (positive, masked) = (open.positive, open.masked);
        let Stage { closed, learned, .. } = self.rules.stages()[stage];
        let (closed, learned) = (closed.without(masked), learned.without(masked));
        if !learned.is_empty() {
            effects.push(Effect::Example { place, labels: Labels::known(learned, positive) });
        }
        let last = stage + 1 == self.rules.stages().len();
        if last || !closed.is_empty() {
            effects.push(Effect::Final { place, labels: Labels::known(closed, positive) });
        }
        if last {
            self.close(place, effects);
        } else if stage == 0 {
            effects.push(Effect::Waits { place });
        }
    }

    fn close(&mut self, place: Place, effects: &mut Vec<Effect>) {
        let open = self.opens.get(place);
        for task in open.seen.without(open.positive).iter() {
            self.counts.kinds[task].childless += 1;
        }
        let labels = Labels::known(self.rules.tasks().without(open.masked), open.positive);
        self.counts.closed += 1;
        self.opens.close(place);
        effects.push(Effect::Closed { place, labels });
    }
}
