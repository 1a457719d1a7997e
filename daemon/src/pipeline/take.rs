//! What one record does to the state.

use sluice_features::assemble::{Labelled, Owner, Shown};
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

/// The view, where it opens the funnel: task 0.
const VIEW: TaskSet = TaskSet::EMPTY.with(0);

/// Draws for each negative that is wanted, where some items are too new.
const TRIES: usize = 4;

/// User and item of an event.
struct Entered {
    user: UserId,
    item: ItemId,
    item_number: u32,
    category: Option<CategoryId>,
    /// The time that it counts as.
    at: EventTime,
    /// The item might have been drawn as a negative before this event.
    drawable: bool,
}

/// The impression that has just come.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    id: EventId,
    /// It is among the share that is judged, and its time is plausible.
    judged: bool,
    /// Its item might have been drawn as a negative.
    sampled: bool,
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
        if record.offset < shard.next(record.topic) {
            self.counts.replayed += 1;
            return Ok(());
        }
        shard.set_next(record.topic, record.offset + 1);
        self.stages.begin();
        let mut scratch = std::mem::take(&mut self.scratch);
        self.notes.begin(&mut scratch);
        let taken = match record.topic {
            Topic::Events => self.take_event(number, record, &mut scratch),
            Topic::Items => self.take_update(Whose::Item, record, &mut scratch),
            Topic::Users => self.take_update(Whose::User, record, &mut scratch),
            Topic::Requests => Err(Rejection::whole(Reason::UnknownTopic)),
        };
        self.notes.names_of(&scratch);
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
                let user = self.shared.enter_user(&update.id).map_err(|c| collision("user", &c))?;
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
                let number = entered.map_err(|c| collision("item", &c))?;
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
        let clock = BrokerTime(Some(record.arrived));
        let decoded = decode_event(bytes, &self.rules.funnel, clock, scratch)?;
        self.stages.lap(Stage::Decode);
        let (time, user, item) = match &decoded.event {
            Event::Impression(shown) => (shown.time, &shown.user, &shown.item),
            Event::Behaviour(done) => (done.time, &done.user, &done.item),
        };
        let user = self.shared.enter_user(user).map_err(|c| collision("user", &c))?;
        let mut watermark = self.shards[number].watermark;
        let plausible = !decoded.skewed && watermark.observe(time, user, record.arrived);
        let at = watermark.as_plausible(time, plausible, record.arrived);
        let about = self.enter_item(user, item, at)?;
        self.latest_user = Some(user);
        // From here on the record is taken.
        self.counts.events += 1;
        self.counts.unknown_fields += u64::from(decoded.ignored);
        self.counts.skewed += u64::from(decoded.skewed);
        let shard = &mut self.shards[number];
        // A first event of the far future that has given way counts too.
        let gave_way = watermark.newest() < shard.watermark.newest();
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

    /// Counts an impression, and where it is a view its own outcome with it.
    fn count_impression(&mut self, about: &Entered, surface: Option<u64>) {
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
                    if !self.bring(number, place) {
                        continue;
                    }
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

    /// Adds an example of an impression to the batch that fills; where it is a view that has just come, its negatives with it, as a group.
    fn learn(
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
        let shard = &self.shards[number];
        let opened = shard.joiner.get(place);
        let values = match &opened.payload {
            Kept::Here(values) => values,
            Kept::Away(_) => &self.brought,
        };
        let history = self.shared.past(&shard.sequences, opened.user);
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
        let history = self.shared.past(&shard.sequences, user);
        self.assembler.append(&example, &history, &mut self.batcher.filling().batch);
        self.pool.put(values);
    }

    /// Draws items that were not viewed, with their features as of the view.
    fn draw_negatives(&mut self, shown: &Shown<'_>, about: &Entered, count: usize) {
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
    fn is_plausible(&self, number: usize, place: Place) -> bool {
        let shard = &self.shards[number];
        shard.joiner.get(place).time <= shard.watermark.newest()
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
        let shard = &mut self.shards[number];
        // An impression that is open was shown at most the longest window before the watermark.
        let horizon = shard.watermark.value() - self.rules.funnel.longest_window();
        shard.sequences.append(user, entry, horizon);
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
        let entered = self.shared.enter_item(item, text, category, at);
        let item_number = entered.map_err(|c| collision("item", &c))?;
        // A time that is out of order by more than the lateness is not believed.
        if at < self.shared.first_seen[item_number as usize] && at >= self.horizon() {
            self.shared.seen_before(item_number, at);
        }
        let drawable = self.shared.assortment.is_drawable(item_number);
        self.shared.assortment.named(item_number);
        Ok(Entered { user, item, item_number, category, at, drawable })
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
        offered: false,
    }
}

fn owner(whose: Whose) -> Owner {
    match whose {
        Whose::Item => Owner::Item,
        Whose::User => Owner::User,
    }
}

fn collision(field: &'static str, _collision: &Collision) -> Rejection {
    Rejection::field(Reason::IdCollision, field)
}
