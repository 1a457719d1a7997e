//! What one record does to the state.

use sluice_features::assemble::{Owner, Shown};
use sluice_features::attribution::{Effect, Fate, Labels, Opened, Outcome};
use sluice_features::catalogue::Found;
use sluice_features::dictionary::Collision;
use sluice_features::event::{Behaviour, BehaviourType, Event, Impression};
use sluice_features::funnel::Entry;
use sluice_features::ids::{CategoryId, ItemId, UserId, stable_hash};
use sluice_features::reject::{Reason, Rejection};
use sluice_features::sequence::Entry as SequenceEntry;
use sluice_features::time::EventTime;
use sluice_features::watermark::JUMP;
use sluice_features::wire::{
    ArrivalTime, Role as Whose, Scratch, Topic, decode_event, decode_update,
};

use super::Pipeline;
use super::effects::Arrival;
use super::memory::Taken;
use super::record::Record;
use super::stages::Stage;

/// User and item of an event.
pub(super) struct Entered {
    pub(super) user: UserId,
    pub(super) item: ItemId,
    pub(super) item_number: u32,
    pub(super) category: Option<CategoryId>,
    /// The time that it counts as.
    pub(super) at: EventTime,
    /// The item might have been drawn as a negative before this event.
    pub(super) drawable: bool,
}

impl Pipeline {
    /// Applies a record. One that was applied before changes nothing.
    ///
    /// # Errors
    /// When the record is refused: it is counted, nothing else has changed, and it belongs into the dead-letter topic.
    pub fn take(&mut self, record: &Record<'_>) -> Result<(), Rejection> {
        self.catch_up();
        let number = self.shard_number(record.partition);
        self.latest_user = None;
        let shard = &mut self.shards[number];
        if shard.next(record.topic).is_some_and(|next| record.offset < next) {
            self.counts.replayed += 1;
            return Ok(());
        }
        shard.set_next(record.topic, record.offset + 1);
        let before = Taken::by(shard);
        self.stages.begin();
        let mut scratch = std::mem::take(&mut self.scratch);
        self.notes.begin(&mut scratch);
        let taken = match record.topic {
            Topic::Events => self.take_event(number, record, &mut scratch),
            Topic::Items => self.take_update(Whose::Item, record, &mut scratch),
            Topic::Users => self.take_update(Whose::User, record, &mut scratch),
            Topic::Requests => Err(Rejection::whole(Reason::UnknownTopic)),
        };
        self.notes.names_of(record.topic, &scratch);
        self.scratch = scratch;
        self.keep_within(number, before);
        self.stages.end(Stage::Join);
        if let Err(rejection) = &taken {
            self.counts.reject(rejection.reason);
        }
        taken
    }

    /// Passes a record that is not to be taken: it is counted and never comes again.
    pub fn pass(&mut self, record: &Record<'_>, rejection: &Rejection) {
        let number = self.shard_number(record.partition);
        self.shards[number].set_next(record.topic, record.offset + 1);
        self.counts.reject(rejection.reason);
    }

    fn take_update(
        &mut self,
        whose: Whose,
        record: &Record<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), Rejection> {
        let clock = ArrivalTime(Some(record.arrived));
        let decoded = decode_update(whose, record.key, record.value, clock, scratch)?;
        self.stages.lap(Stage::Decode);
        self.counts.unknown_fields += u64::from(decoded.ignored);
        let mut update = decoded.update;
        if let Some(features) = update.features {
            self.notes.attributes(owner(whose), features);
        } else if !self.shared.knows(whose, &update.id) {
            match decoded.inner.filter(|inner| self.shared.knows(whose, inner)) {
                Some(inner) => update.id = inner,
                None => {
                    self.counts.unknown_ends += 1;
                    self.notes.end_of(&update.id);
                    match whose {
                        Whose::Item => self.counts.items += 1,
                        Whose::User => self.counts.users += 1,
                    }
                    return Ok(());
                }
            }
        }
        let (time, horizon) = (update.time, self.horizon());
        let features = update.features.cloned();
        match whose {
            Whose::User => {
                let user =
                    self.shared.enter_user(&update.id).map_err(|Collision| collision("user"))?;
                let applied = self.shared.user_features.apply(user.0, time, features, horizon);
                self.counts.dropped_versions += u64::from(applied.dropped);
                self.changed.get_mut().user(user);
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
                let number = entered.map_err(|Collision| collision("item"))?;
                let applied = self.shared.item_features.apply(item.0, time, features, horizon);
                self.counts.dropped_versions += u64::from(applied.dropped);
                // The newest version decides, whatever the order of updates.
                let catalogue = &self.shared.item_features;
                let offered = catalogue.as_of(item.0, EventTime::MAX, |found, features| {
                    catalogue.is_offered(found, features, self.rules.available)
                });
                self.shared.assortment.recorded(number, offered);
                self.changed.get_mut().item(item);
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
        let clock = ArrivalTime(Some(record.arrived));
        let decoded = decode_event(bytes, &self.rules.funnel, clock, scratch)?;
        self.stages.lap(Stage::Decode);
        let (time, user, item) = match &decoded.event {
            Event::Impression(shown) => (shown.time, &shown.user, &shown.item),
            Event::Behaviour(done) => (done.time, &done.user, &done.item),
        };
        let name = user;
        let user = self.shared.enter_user(name).map_err(|Collision| collision("user"))?;
        let mut watermark = self.shards[number].watermark;
        let plausible = !decoded.skewed && watermark.observe(time, user, record.arrived);
        let at = watermark.as_plausible(time, plausible, record.arrived);
        let about = self.enter_item(user, item, at)?;
        self.latest_user = Some(user);
        self.latest_name.clear();
        self.latest_name.push_str(name);
        // From here on the record is taken.
        self.counts.events += 1;
        self.counts.unknown_fields += u64::from(decoded.ignored);
        self.counts.skewed += u64::from(decoded.skewed);
        let shard = &mut self.shards[number];
        // A first event of the far future that has given way counts too.
        let gave_way = watermark.newest() + JUMP < shard.watermark.newest();
        self.counts.jumped += u64::from(gave_way || !decoded.skewed && !plausible);
        (shard.watermark, shard.idle) = (watermark, false);
        self.observe_progress();
        match &decoded.event {
            Event::Impression(impression) => {
                self.take_impression(number, impression, &about, plausible, record.arrived);
            }
            Event::Behaviour(behaviour) => {
                self.take_behaviour(number, behaviour, &about, record.arrived);
            }
        }
        self.advance(number, watermark.value(), record.arrived);
        Ok(())
    }

    fn take_impression(
        &mut self,
        number: usize,
        impression: &Impression<'_>,
        about: &Entered,
        plausible: bool,
        arrived: EventTime,
    ) {
        let Entered { user, item, item_number, category, at, .. } = *about;
        let surface = impression.surface.as_deref().map(|text| stable_hash(text.as_bytes()));
        let shown = Shown {
            user,
            item,
            time: at,
            surface,
            position: impression.position,
            context: impression.context,
            new_item: self.shared.is_new(item_number, at, self.rules.new_for),
        };
        self.notes.impression(impression.id, &shown, &self.shared);
        let shard = &mut self.shards[number];
        shard.arrivals += 1;
        let opened = Opened {
            id: impression.id,
            user,
            item,
            time: impression.time,
            number: shard.arrivals,
            new_item: shown.new_item,
            payload: (),
        };
        let (assembler, shared, pool) = (&self.assembler, &self.shared, &mut self.pool);
        let (mut later, mut told) = (false, true);
        let stages = &mut self.stages;
        stages.lap(Stage::Look);
        let snapshot = || {
            stages.lap(Stage::Join);
            let mut values = pool.get();
            let looked = assembler.snapshot(&shown, &shared.known(), &mut values);
            later = looked.item == Found::Later || looked.user == Found::Later;
            told = looked.counters;
            stages.lap(Stage::Look);
            values
        };
        let Some(place) = shard.joiner.impression(opened, snapshot, &mut self.effects) else {
            return;
        };
        self.stages.lap(Stage::Join);
        self.counts.later_features += u64::from(later);
        self.counts.untold_counters += u64::from(!told);
        if let Entry::View { negatives } = self.rules.funnel.entry() {
            // Drawn up before the view is counted and remembered.
            self.draw_negatives(&shown, about, negatives);
        }
        self.count_impression(about, surface);
        self.stages.lap(Stage::Look);
        let learned = self.effects.iter().any(|effect| matches!(effect, Effect::Example { .. }));
        let judged = plausible && self.is_judged(impression.id);
        if !self.judged_by_step && !learned && judged {
            // Nothing is learned yet, but the prediction is made now.
            self.effects.insert(0, Effect::Example { place, labels: Labels::default() });
        }
        let arrival = Arrival { id: impression.id, judged, sampled: about.drawable };
        self.run_effects(number, Some(arrival), arrived);
        if let Entry::View { .. } = self.rules.funnel.entry() {
            self.remember(number, user, item_number, category, BehaviourType(0), impression.time);
        }
    }

    fn take_behaviour(
        &mut self,
        number: usize,
        behaviour: &Behaviour<'_>,
        about: &Entered,
        arrived: EventTime,
    ) {
        let Entered { user, item, item_number, category, .. } = *about;
        self.stages.lap(Stage::Look);
        let outcome = Outcome {
            id: behaviour.id,
            kind: behaviour.kind,
            user,
            item,
            time: behaviour.time,
            impression: behaviour.impression,
        };
        let fate = self.shards[number].joiner.outcome(outcome, &mut self.effects);
        self.run_effects(number, None, arrived);
        if fate != Fate::Duplicate {
            let (kind, time) = (behaviour.kind, behaviour.time);
            self.remember(number, user, item_number, category, kind, time);
        }
    }

    /// Returns from when on sequences of a shard may be read: an impression that is open was shown at most the longest window before the
    /// watermark.
    pub(super) fn read_from(&self, number: usize) -> EventTime {
        self.shards[number].watermark.value() - self.rules.funnel.longest_window()
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
        let kind = self.shared.kinds.number(kind);
        let entry = SequenceEntry { item, category, kind, time };
        let horizon = self.read_from(number);
        self.shards[number].sequences.append(user, entry, horizon);
        self.changed.get_mut().user(user);
    }

    /// Enters the item of an event that counts as of a time.
    fn enter_item(
        &mut self,
        user: UserId,
        text: &str,
        at: EventTime,
    ) -> Result<Entered, Rejection> {
        let item = ItemId::of(text);
        let category = self.shared.category_of(item, at, self.rules.category);
        // A first sight that is out of order by more than the lateness is not believed.
        let horizon = self.horizon();
        let entered = self.shared.enter_item(item, text, category, at.max(horizon));
        let item_number = entered.map_err(|Collision| collision("item"))?;
        if at < self.shared.first_seen[item_number as usize] && at >= horizon {
            self.shared.seen_before(item_number, at);
        }
        let drawable = self.shared.assortment.is_drawable(item_number);
        self.shared.assortment.named(item_number);
        Ok(Entered { user, item, item_number, category, at, drawable })
    }
}

fn owner(whose: Whose) -> Owner {
    match whose {
        Whose::Item => Owner::Item,
        Whose::User => Owner::User,
    }
}

fn collision(field: &'static str) -> Rejection {
    Rejection::field(Reason::IdCollision, field)
}
