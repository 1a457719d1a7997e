//! What becomes of outcomes that came before their impression.

use super::early::Waiting;
use super::open::mismatch;
use super::{Effect, Fate, Joiner, Orphan, Outcome, Payload, Place};
use crate::ids::{EventId, UserId};

impl<T: Payload> Joiner<T> {
    /// Gives an impression that has just come the outcomes that waited for it: those that name it, then those of its user and item within
    /// its windows, both in the order of arrival. Outcomes of a window that was over when it came stay without a label, as it does.
    pub(super) fn attribute_waiting(&mut self, place: Place, effects: &mut Vec<Effect>) {
        let (id, user, item, time) = {
            let opened = &self.opens.get(place).opened;
            (opened.id, opened.user, opened.item, opened.time)
        };
        let mut found = std::mem::take(&mut self.found);
        self.early.take_named(user, id, &mut found);
        found.sort_unstable_by_key(|waiting| waiting.arrival);
        let named = found.len();
        if self.early.awaits(user, item) {
            for task in self.rules.tasks().iter() {
                let end = time + self.rules.window(task);
                if end >= self.watermark {
                    self.early.take_any(user, item, task, time..=end, &mut found);
                }
            }
            found[named..].sort_unstable_by_key(|waiting| waiting.arrival);
        }
        for Waiting { outcome, .. } in found.drain(..) {
            let task = usize::from(outcome.kind.0);
            self.counts.kinds[task].waiting -= 1;
            let end = time + self.rules.window(task);
            match mismatch(&outcome, &self.opens.get(place).opened, end) {
                Some(reason) => self.orphan(task, reason),
                None if end < self.watermark => self.late(task),
                None => self.attach(place, task, &outcome, effects),
            };
        }
        self.found = found;
    }

    /// Takes the outcomes that name an impression without any label as late as it is.
    pub(super) fn turn_down(&mut self, user: UserId, id: EventId) {
        let mut found = std::mem::take(&mut self.found);
        self.early.take_named(user, id, &mut found);
        for Waiting { outcome, .. } in found.drain(..) {
            let task = usize::from(outcome.kind.0);
            self.counts.kinds[task].waiting -= 1;
            self.late(task);
        }
        self.found = found;
    }

    /// Lets an outcome wait for its impression, unless none can come any more.
    pub(super) fn wait(&mut self, outcome: Outcome, task: usize) -> Fate {
        if self.early.is_over(&outcome, self.watermark) {
            return self.late(task);
        }
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.counts.kinds[task].waiting += 1;
        let behind = outcome.time < self.watermark;
        if let Some(waiting) = self.early.push(Waiting { outcome, behind, arrival }) {
            let fate = self.give_up(&waiting, Orphan::Overflow);
            if waiting.arrival == arrival {
                return fate;
            }
        }
        Fate::Waiting
    }

    /// Takes an outcome that waits no more as late or as an orphan.
    pub(super) fn give_up(&mut self, waiting: &Waiting, reason: Orphan) -> Fate {
        let task = usize::from(waiting.outcome.kind.0);
        self.counts.kinds[task].waiting -= 1;
        if waiting.behind { self.late(task) } else { self.orphan(task, reason) }
    }
}
