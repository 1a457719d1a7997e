//! What is counted of impressions and outcomes: counters and popularity, as of the times of events.

use sluice_features::attribution::{Kept, Place, TaskSet};
use sluice_features::counters::Subjects;
use sluice_features::funnel::Entry;
use sluice_features::time::EventTime;

use super::Pipeline;
use super::shared::Shared;
use super::take::Entered;

impl Pipeline {
    /// Tells the counters how far event time has come over all partitions. One that has not begun holds the horizon back until it is known to
    /// be silent.
    pub(super) fn observe_progress(&mut self) {
        let newest = self.shards.iter().map(|shard| shard.watermark.newest()).max();
        let reading = self.shards.iter().filter(|shard| !shard.idle);
        let horizon = reading.map(|shard| shard.watermark.value()).min();
        // While no time is plausible yet, none has proved wrong.
        let newest = newest.filter(|newest| *newest > EventTime::MIN).unwrap_or(EventTime::MAX);
        self.shared.counters.advance(newest, horizon.unwrap_or(EventTime::MIN));
    }

    /// Counts an impression, and where it is a view its own outcome with it.
    pub(super) fn count_impression(&mut self, about: &Entered, surface: Option<u64>) {
        let Entered { user, item, category, at, .. } = *about;
        let subjects =
            Subjects { item: item.0, user: user.0, category: category.map(|c| c.0), surface };
        let Shared { item_features, counters, .. } = &mut self.shared;
        if counters.look_at_items() {
            item_features.as_of(item.0, at, |_, item| counters.impression(&subjects, item, at));
        } else {
            counters.impression(&subjects, None, at);
        }
        if let Entry::View { .. } = self.rules.funnel.entry() {
            counters.outcome(0, &subjects, at, at);
            self.shared.observe_popular(&subjects, at);
        }
    }

    /// Counts the outcomes of these tasks on an impression whose features have been brought, the last of which happened at `time`.
    pub(super) fn count_outcomes(
        &mut self,
        number: usize,
        place: Place,
        tasks: TaskSet,
        time: EventTime,
        arrived: EventTime,
    ) {
        let opened = self.shards[number].joiner.get(place);
        let subjects = match &opened.payload {
            Kept::Here(values) => values.subjects(opened.user, opened.item),
            Kept::Away(_) => self.brought.subjects(opened.user, opened.item),
        };
        // Several tasks turn together where an earlier outcome waited for its parent's: all are known by now.
        let newest = self.shards[number].newest().unwrap_or(arrived);
        let known = if tasks.iter().count() == 1 { time.min(newest) } else { newest };
        let shown = opened.time.min(newest);
        for task in tasks.iter() {
            self.shared.counters.outcome(task, &subjects, shown, known);
        }
        if tasks.contains(0) {
            self.shared.observe_popular(&subjects, shown);
        }
    }
}
