//! What the joiner has said is carried out: counted, learned, judged, put away.

use sluice_features::attribution::{Effect, Kept, Labels, Opened, Place};
use sluice_features::example::About;
use sluice_features::funnel::Entry;
use sluice_features::ids::EventId;
use sluice_features::time::EventTime;

use super::Pipeline;
use super::groups::VIEW;
use super::stages::Stage;
use super::work::Verdict;

/// The impression that has just come.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) id: EventId,
    /// It is among the share that is judged, and its time is plausible.
    pub(super) judged: bool,
    /// Its item might have been drawn as a negative.
    pub(super) sampled: bool,
}

impl Pipeline {
    /// Carries out what the joiner said. `arrival` is the impression that has just come.
    pub(super) fn run_effects(
        &mut self,
        number: usize,
        arrival: Option<Arrival>,
        arrived: EventTime,
    ) {
        let effects = std::mem::take(&mut self.effects);
        for (i, effect) in effects.iter().enumerate() {
            let next = effects.get(i + 1);
            match *effect {
                Effect::Positive { place, tasks, time } => {
                    if self.bring(number, place) {
                        self.count_outcomes(number, place, tasks, time, arrived);
                    }
                }
                Effect::Example { place, labels } => {
                    self.stages.lap(Stage::Join);
                    let arrival = arrival.filter(|arrival| self.is_arrival(number, place, arrival));
                    self.learn(number, place, labels, arrival, arrived);
                    self.stages.lap(Stage::Assemble);
                }
                Effect::Final { place, labels } => self.judge(number, place, labels, next),
                Effect::Waits { place } => self.put_away(number, place),
                Effect::Closed { place, .. } => {
                    let shard = &mut self.shards[number];
                    match shard.joiner.take(place).payload {
                        Kept::Here(values) => self.pool.put(values),
                        Kept::Away(at) => shard.spill.release(at),
                    }
                }
            }
        }
        self.effects = effects;
        self.effects.clear();
    }

    fn is_arrival(&self, number: usize, place: Place, arrival: &Arrival) -> bool {
        self.shards[number].joiner.get(place).id == arrival.id
    }

    /// Reads what was put away of an impression. Returns false when it is out of reach.
    pub(super) fn bring(&mut self, number: usize, place: Place) -> bool {
        let shard = &mut self.shards[number];
        let Kept::Away(at) = shard.joiner.get(place).payload else { return true };
        let read = shard.spill.read(at, &mut self.brought);
        read.map_err(|trouble| self.trouble.get_or_insert(trouble)).is_ok()
    }

    /// Puts away what is kept with an impression that waits for further windows.
    fn put_away(&mut self, number: usize, place: Place) {
        let shard = &mut self.shards[number];
        let Kept::Here(values) = &shard.joiner.get(place).payload else { return };
        if !shard.spill.is_on() {
            return;
        }
        let at = shard.spill.put(values);
        if let Some(values) = shard.joiner.put_away(place, at) {
            self.pool.put(values);
        }
    }

    /// Passes on labels that have become final, unless the step that learns them judges them. A view's own label was judged at its arrival.
    fn judge(&mut self, number: usize, place: Place, labels: Labels, next: Option<&Effect>) {
        let opened = self.shards[number].joiner.get(place);
        if self.judged_by_step || !self.is_judged(opened.id) || !self.is_plausible(number, place) {
            return;
        }
        let view = matches!(self.rules.funnel.entry(), Entry::View { .. });
        let labels = if view { labels.masking(VIEW) } else { labels };
        let last = matches!(next, Some(Effect::Closed { place: closed, .. }) if *closed == place);
        if self.batcher.judge(Verdict { about: about(opened), labels, last }) {
            self.end_batch();
        }
    }

    /// Tells whether an impression is not of a time that has not come: its figures would move the windows of evaluation.
    pub(super) fn is_plausible(&self, number: usize, place: Place) -> bool {
        let shard = &self.shards[number];
        shard.joiner.get(place).time <= shard.watermark.newest()
    }

    /// Tells whether an impression is among the share that is judged, by its id alone.
    pub(super) fn is_judged(&self, impression: EventId) -> bool {
        let place = (impression.0 >> 11) as f64 / (1u64 << 53) as f64;
        place < self.rules.share || self.rules.share >= 1.0
    }
}

fn about<T>(opened: &Opened<T>) -> About {
    About {
        impression: opened.id,
        user: opened.user,
        item: opened.item,
        time: opened.time,
        new_item: opened.new_item,
        offered: false,
    }
}
