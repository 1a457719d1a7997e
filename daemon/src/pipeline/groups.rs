//! Examples enter the batch that fills: an impression alone, a view with its drawn negatives as a group.

use sluice_features::assemble::{Labelled, Shown};
use sluice_features::attribution::{Kept, Labels, Place, TaskSet};
use sluice_features::example::LabelMode;
use sluice_features::funnel::Entry;
use sluice_features::ids::{EventId, ItemId};
use sluice_features::time::EventTime;

use super::Pipeline;
use super::effects::Arrival;
use super::shared::Shared;
use super::take::Entered;
use super::work::Role;

/// The view, where it opens the funnel: task 0.
pub(super) const VIEW: TaskSet = TaskSet::EMPTY.with(0);

/// Draws for each negative that is wanted, where some items are too new.
const TRIES: usize = 4;

impl Pipeline {
    /// Adds an example of an impression to the batch that fills; where it is a view that has just come, its negatives with it, as a group.
    pub(super) fn learn(
        &mut self,
        number: usize,
        place: Place,
        labels: Labels,
        arrival: Option<Arrival>,
        arrived: EventTime,
    ) {
        if !self.bring(number, place) {
            return;
        }
        let judged = arrival.is_some_and(|arrival| arrival.judged);
        let role = match arrival {
            Some(_) if self.judged_by_step && judged => Role::Judged,
            Some(_) if judged => Role::Arrival,
            None if self.judged_by_step && self.is_plausible(number, place) => Role::Judged,
            _ => Role::Update,
        };
        let view = labels.mode(0) != LabelMode::Masked
            && matches!(self.rules.funnel.entry(), Entry::View { .. });
        let sampled = arrival.is_some_and(|arrival| arrival.sampled);
        // What could not have been drawn as a negative can only be a positive: that says nothing.
        let labels = if view && !sampled { labels.masking(VIEW) } else { labels };
        let negatives = if view && arrival.is_some() { self.drawn.len() } else { 0 };
        let before = if negatives > 0 { self.shared.negatives.place(1 + negatives) } else { 0 };
        for i in 0..=negatives {
            if i == before {
                self.append(number, place, labels);
                self.batcher.added(role, arrived);
            } else {
                self.append_negative(number, place);
                let role = if judged { Role::Negative } else { Role::Update };
                self.batcher.added(role, arrived);
            }
            if i > 0 {
                self.batcher.filling().batch.join_last();
            }
        }
        self.counts.examples += 1 + negatives as u64;
        if self.batcher.is_full() {
            self.end_batch();
        }
    }

    /// Adds the row of an impression whose features have been brought.
    fn append(&mut self, number: usize, place: Place, labels: Labels) {
        let shard = &mut self.shards[number];
        shard.sequences.bring(shard.joiner.get(place).user);
        let opened = shard.joiner.get(place);
        let values = match &opened.payload {
            Kept::Here(values) => values,
            Kept::Away(_) => &self.brought,
        };
        let history = self.shared.past(shard.sequences.of(opened.user));
        let example = Labelled::of(opened, values, labels);
        self.assembler.append(&example, &history, &mut self.batcher.filling().batch);
    }

    /// Adds the row of a drawn item beside a view: not viewed.
    fn append_negative(&mut self, number: usize, place: Place) {
        let Some((item, values)) = self.drawn.pop() else { return };
        let shard = &self.shards[number];
        let user = shard.joiner.get(place).user;
        let labels = Labels::known(VIEW, TaskSet::EMPTY);
        let example = Labelled { values: &values, impression: EventId(0), user, item, labels };
        let history = self.shared.past(shard.sequences.of(user));
        self.assembler.append(&example, &history, &mut self.batcher.filling().batch);
        self.pool.put(values);
    }

    /// Draws items that were not viewed, with their features as of the view.
    pub(super) fn draw_negatives(&mut self, shown: &Shown<'_>, about: &Entered, count: usize) {
        for (_, values) in self.drawn.drain(..) {
            self.pool.put(values);
        }
        if !about.drawable {
            return;
        }
        for _ in 0..TRIES * count {
            if self.drawn.len() == count {
                break;
            }
            let Shared { negatives, assortment, first_seen, .. } = &mut self.shared;
            let Some(number) = negatives.draw(assortment, about.item_number) else { return };
            // Another partition may be ahead: what it has named first after the view was not there yet.
            if !assortment.has_catalogue() && first_seen[number as usize] >= shown.time {
                continue;
            }
            let item = ItemId(self.shared.items.id(number));
            let new_item = self.shared.is_new(number, shown.time, self.rules.new_for);
            let shown = Shown { item, new_item, ..*shown };
            let mut values = self.pool.get();
            self.assembler.snapshot(&shown, &self.shared.known(), &mut values);
            self.drawn.push((item, values));
        }
    }
}
