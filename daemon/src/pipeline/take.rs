//! What one record does to the state.

use sluice_features::assemble::{Labelled, Shown, sampling_offset};
use sluice_features::attribution::{Effect, Fate, Kept, Labels, Opened, Outcome, Place, TaskSet};
use sluice_features::catalogue::Found;
use sluice_features::counters::Subjects;
use sluice_features::event::{Behaviour, BehaviourType, Event, Impression};
use sluice_features::example::{About, LabelMode};
use sluice_features::funnel::Entry;
use sluice_features::ids::{CategoryId, Collision, EventId, ItemId, UserId, stable_hash};
use sluice_features::reject::{Reason, Rejection};
use sluice_features::sequence::Entry as SequenceEntry;
use sluice_features::time::EventTime;
use sluice_features::wire::{
    BrokerTime, Role as Whose, Scratch, Topic, decode_event, decode_update,
};

use super::Pipeline;
use super::record::Record;
use super::shared::Shared;
use super::stages::Stage;
use super::work::{Role, Verdict};

impl Pipeline {
    /// Applies a record. One that was applied before changes nothing.
    ///
    /// # Errors
    /// When the record is refused: it is counted, nothing else has changed, and it belongs into the dead-letter topic.
    pub fn take(&mut self, record: &Record<'_>) -> Result<(), Rejection> {
        let number = self.shard_number(record.partition);
        let shard = &mut self.shards[number];
        if record.offset < shard.next(record.topic) {
            self.counts.replayed += 1;
            return Ok(());
        }
        shard.set_next(record.topic, record.offset + 1);
        self.stages.begin();
        let mut scratch = std::mem::take(&mut self.scratch);
        let taken = match record.topic {
            Topic::Events => self.take_event(number, record, &mut scratch),
            Topic::Items => self.take_update(Whose::Item, record, &mut scratch),
            Topic::Users => self.take_update(Whose::User, record, &mut scratch),
            Topic::Requests => Err(Rejection::whole(Reason::UnknownTopic)),
        };
        self.scratch = scratch;
        self.stages.end(Stage::Join);
        if let Err(rejection) = &taken {
            self.counts.reject(rejection.reason);
        }
        taken
    }

    fn take_update(
        &mut self,
        whose: Whose,
        record: &Record<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), Rejection> {
        let clock = BrokerTime(Some(record.arrived));
        let decoded = decode_update(whose, record.key, record.value, clock, scratch)?;
        self.stages.lap(Stage::Decode);
        self.counts.unknown_fields += u64::from(decoded.ignored);
        let update = decoded.update;
        let time = update.time;
        let features = update.features.cloned();
        match whose {
            Whose::User => {
                let user = self.shared.enter_user(&update.id).map_err(|c| collision("user", &c))?;
                self.shared.user_features.apply(user.0, time, features);
                self.changed.user(user);
                if let Some(number) = self.shared.users.number(user.0) {
                    self.shared.stored.features_changed(whose, number);
                }
                self.counts.users += 1;
            }
            Whose::Item => {
                let category = update.features.and_then(|f| f.get(self.rules.category)?.category());
                let category = category.map(CategoryId);
                let item = ItemId::of(&update.id);
                let entered = self.shared.enter_item(item, &update.id, category, time);
                let number = entered.map_err(|c| collision("item", &c))?;
                self.shared.item_features.apply(item.0, time, features);
                self.changed.item(item);
                self.shared.stored.features_changed(whose, number);
                self.counts.items += 1;
            }
        }
        Ok(())
    }

    fn take_event(
        &mut self,
        number: usize,
        record: &Record<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), Rejection> {
        let bytes = record.value.ok_or_else(|| Rejection::whole(Reason::EmptyRecord))?;
        let clock = BrokerTime(Some(record.arrived));
        let decoded = decode_event(bytes, &self.rules.funnel, clock, scratch)?;
        self.stages.lap(Stage::Decode);
        let time = decoded.event.time();
        match &decoded.event {
            Event::Impression(impression) => {
                self.take_impression(number, impression, record.arrived)?
            }
            Event::Behaviour(behaviour) => {
                self.take_behaviour(number, behaviour, record.arrived)?
            }
        }
        self.counts.events += 1;
        self.counts.unknown_fields += u64::from(decoded.ignored);
        self.counts.skewed += u64::from(decoded.skewed);
        let shard = &mut self.shards[number];
        shard.idle = false;
        if !decoded.skewed {
            shard.watermark.observe(time);
        }
        let watermark = shard.watermark.value();
        self.advance(number, watermark, record.arrived);
        Ok(())
    }

    fn take_impression(
        &mut self,
        number: usize,
        impression: &Impression<'_>,
        arrived: EventTime,
    ) -> Result<(), Rejection> {
        let time = impression.time;
        let user = self.shared.enter_user(&impression.user).map_err(|c| collision("user", &c))?;
        let (item, item_number, category) = self.enter_item(&impression.item, time)?;
        let surface = impression.surface.as_deref().map(|text| stable_hash(text.as_bytes()));
        let shown = Shown {
            user,
            item,
            time,
            surface,
            position: impression.position,
            context: impression.context,
            new_item: self.shared.is_new(item_number, time, self.rules.new_for),
        };
        let shard = &mut self.shards[number];
        shard.arrivals += 1;
        let opened = Opened {
            id: impression.id,
            user,
            item,
            time,
            number: shard.arrivals,
            new_item: shown.new_item,
            payload: (),
        };
        let (assembler, shared, pool) = (&self.assembler, &self.shared, &mut self.pool);
        let mut later = false;
        let stages = &mut self.stages;
        stages.lap(Stage::Look);
        let snapshot = || {
            stages.lap(Stage::Join);
            let mut values = pool.get();
            let looked = assembler.snapshot(&shown, &shared.known(), &mut values);
            later = looked.item == Found::Later || looked.user == Found::Later;
            stages.lap(Stage::Look);
            values
        };
        let Some(place) = shard.joiner.impression(opened, snapshot, &mut self.effects) else {
            return Ok(());
        };
        self.stages.lap(Stage::Join);
        self.counts.later_features += u64::from(later);
        let subjects =
            Subjects { item: item.0, user: user.0, category: category.map(|c| c.0), surface };
        let Shared { item_features, counters, .. } = &mut self.shared;
        if counters.look_at_items() {
            item_features.as_of(item.0, time, |_, item| counters.impression(&subjects, item, time));
        } else {
            counters.impression(&subjects, None, time);
        }
        self.stages.lap(Stage::Look);
        let learned = self.effects.iter().any(|effect| matches!(effect, Effect::Example { .. }));
        if !self.judged_by_step && !learned && self.is_judged(impression.id) {
            // Nothing is learned yet, but the prediction is made now.
            self.effects.insert(0, Effect::Example { place, labels: Labels::default() });
        }
        self.run_effects(number, Some(impression.id), arrived);
        if let Entry::View { negatives } = self.rules.funnel.entry() {
            self.add_negatives(number, &shown, negatives, arrived);
            let kind = BehaviourType(0);
            self.remember(number, user, item_number, category, kind, time);
        }
        Ok(())
    }

    fn take_behaviour(
        &mut self,
        number: usize,
        behaviour: &Behaviour<'_>,
        arrived: EventTime,
    ) -> Result<(), Rejection> {
        let time = behaviour.time;
        let user = self.shared.enter_user(&behaviour.user).map_err(|c| collision("user", &c))?;
        let (item, item_number, category) = self.enter_item(&behaviour.item, time)?;
        self.stages.lap(Stage::Look);
        let outcome = Outcome {
            id: behaviour.id,
            kind: behaviour.kind,
            user,
            item,
            time,
            impression: behaviour.impression,
        };
        let fate = self.shards[number].joiner.outcome(outcome, &mut self.effects);
        self.run_effects(number, None, arrived);
        if fate != Fate::Duplicate {
            self.remember(number, user, item_number, category, behaviour.kind, time);
        }
        Ok(())
    }

    /// Moves a shard's watermark, which closes windows.
    pub(super) fn advance(&mut self, number: usize, watermark: EventTime, arrived: EventTime) {
        self.shards[number].joiner.advance(watermark, &mut self.effects);
        self.run_effects(number, None, arrived);
    }

    /// Carries out what the joiner said. `arrival` is the impression that has just come.
    fn run_effects(&mut self, number: usize, arrival: Option<EventId>, arrived: EventTime) {
        let effects = std::mem::take(&mut self.effects);
        for (i, effect) in effects.iter().enumerate() {
            let next = effects.get(i + 1);
            match *effect {
                Effect::Positive { place, tasks, .. } => {
                    if !self.bring(number, place) {
                        continue;
                    }
                    let opened = self.shards[number].joiner.get(place);
                    let subjects = match &opened.payload {
                        Kept::Here(values) => values.subjects(opened.user, opened.item),
                        Kept::Away(_) => self.brought.subjects(opened.user, opened.item),
                    };
                    let time = opened.time;
                    for task in tasks.iter() {
                        self.shared.counters.outcome(task, &subjects, time);
                    }
                    if tasks.contains(0) {
                        self.shared.observe_popular(&subjects, time);
                    }
                }
                Effect::Example { place, labels } => {
                    self.stages.lap(Stage::Join);
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

    /// Adds an example of an impression to the batch that fills.
    fn learn(
        &mut self,
        number: usize,
        place: Place,
        labels: Labels,
        arrival: Option<EventId>,
        arrived: EventTime,
    ) {
        if !self.bring(number, place) {
            return;
        }
        let offset = self.view_offset(labels);
        let shard = &self.shards[number];
        let opened = shard.joiner.get(place);
        let values = match &opened.payload {
            Kept::Here(values) => values,
            Kept::Away(_) => &self.brought,
        };
        let role = if self.judged_by_step {
            Role::Judged
        } else if arrival == Some(opened.id) && self.is_judged(opened.id) {
            Role::Arrival
        } else {
            Role::Update
        };
        let history = self.shared.past(&shard.sequences, opened.user);
        let example = Labelled { offset, ..Labelled::of(opened, values, labels) };
        self.assembler.append(&example, &history, &mut self.batcher.filling().batch);
        self.added(role, arrived);
    }

    /// Reads what was put away of an impression. Returns false when it is out of reach.
    fn bring(&mut self, number: usize, place: Place) -> bool {
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
        match shard.spill.put(values) {
            Ok(at) => {
                if let Some(values) = shard.joiner.put_away(place, at) {
                    self.pool.put(values);
                }
            }
            Err(trouble) => {
                self.trouble.get_or_insert(trouble);
            }
        }
    }

    /// Passes on labels that have become final, unless the step that learns them judges them.
    fn judge(&mut self, number: usize, place: Place, labels: Labels, next: Option<&Effect>) {
        let opened = self.shards[number].joiner.get(place);
        if self.judged_by_step || !self.is_judged(opened.id) {
            return;
        }
        let last = matches!(next, Some(Effect::Closed { place: closed, .. }) if *closed == place);
        if self.batcher.judge(Verdict { about: about(opened), labels, last }) {
            self.cut();
        }
    }

    /// Returns the log-odds of sampling for an example that says whether an item was viewed, 0 for all others.
    fn view_offset(&self, labels: Labels) -> f32 {
        match self.rules.funnel.entry() {
            Entry::View { negatives } if labels.mode(0) != LabelMode::Masked => {
                sampling_offset(negatives, self.shared.items.len())
            }
            _ => 0.0,
        }
    }

    /// Adds sampled items beside a view: not viewed.
    fn add_negatives(
        &mut self,
        number: usize,
        shown: &Shown<'_>,
        count: usize,
        arrived: EventTime,
    ) {
        let labels = Labels::known(TaskSet::EMPTY.with(0), TaskSet::EMPTY);
        let offset = self.view_offset(labels);
        for _ in 0..count {
            let Some(item) = self.shared.negatives.draw(&self.shared.items, shown.item) else {
                return;
            };
            let shown = Shown { item, new_item: false, ..*shown };
            let mut values = self.pool.get();
            self.assembler.snapshot(&shown, &self.shared.known(), &mut values);
            let example = Labelled {
                values: &values,
                impression: EventId(0),
                user: shown.user,
                item,
                time: shown.time,
                labels,
                offset,
            };
            let history = self.shared.past(&self.shards[number].sequences, shown.user);
            self.assembler.append(&example, &history, &mut self.batcher.filling().batch);
            self.pool.put(values);
            self.added(Role::Negative, arrived);
        }
        self.stages.lap(Stage::Assemble);
    }

    fn added(&mut self, role: Role, arrived: EventTime) {
        self.counts.examples += 1;
        if self.batcher.added(role, arrived) {
            self.cut();
        }
    }

    fn remember(
        &mut self,
        number: usize,
        user: UserId,
        item: u32,
        category: Option<CategoryId>,
        kind: BehaviourType,
        time: EventTime,
    ) {
        let category = self.shared.category_number(category);
        let entry = SequenceEntry { item, category, kind, time };
        self.shards[number].sequences.append(user, entry);
        self.changed.user(user);
    }

    /// Enters the item of an event. Returns its id, its number and its category as of the time.
    fn enter_item(
        &mut self,
        text: &str,
        time: EventTime,
    ) -> Result<(ItemId, u32, Option<CategoryId>), Rejection> {
        let item = ItemId::of(text);
        let category = self.shared.category_of(item, time, self.rules.category);
        let entered = self.shared.enter_item(item, text, category, time);
        Ok((item, entered.map_err(|c| collision("item", &c))?, category))
    }

    /// Tells whether an impression is among the share that is judged, by its id alone.
    fn is_judged(&self, impression: EventId) -> bool {
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
    }
}

fn collision(field: &'static str, _collision: &Collision) -> Rejection {
    Rejection::field(Reason::IdCollision, field)
}
