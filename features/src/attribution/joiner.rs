//! The joiner of one shard.

use super::deadlines::Deadlines;
use super::early::{Early, Waiting};
use super::labels::LabelRules;
use super::open::{OpenSet, mismatch};
use super::seen::{Arrived, Seen};
use super::{
    Effect, Fate, JoinCounts, JoinLimits, Kept, Labels, Opened, Orphan, Outcome, Payload, Place,
    TaskSet,
};
use crate::funnel::Funnel;
use crate::ids::{EventId, UserId};
use crate::time::EventTime;

/// Joins the outcomes of a shard to its impressions. See [`crate::attribution`] for the rules.
///
/// All effects go into a vector of the caller and are to be handled before the next call. Nothing is allocated for an event once
/// the buffers have grown.
#[derive(Clone, Debug)]
pub struct Joiner<T> {
    pub(super) rules: LabelRules,
    pub(super) opens: OpenSet<T>,
    pub(super) early: Early,
    pub(super) seen: Seen,
    /// When each open impression's next stage is over.
    pub(super) deadlines: Deadlines,
    pub(super) watermark: EventTime,
    pub(super) arrivals: u64,
    pub(super) counts: JoinCounts,
    pub(super) found: Vec<Waiting>,
}

/// Where an outcome belongs.
enum Target {
    Impression(Place),
    Unknown,
    Late,
    Orphan(Orphan),
}

impl<T: Payload> Joiner<T> {
    /// Creates a joiner that has seen nothing.
    pub fn new(funnel: &Funnel, limits: JoinLimits) -> Self {
        let rules = LabelRules::new(funnel);
        let extra = rules.behaviours() - rules.windows().len();
        let short = std::iter::repeat_n(limits.seen_for, extra);
        let spans = rules.windows().iter().map(|&window| window.max(limits.seen_for)).chain(short);
        Self {
            opens: OpenSet::new(),
            early: Early::new(rules.windows().to_vec(), limits.early_bytes),
            seen: Seen::new([limits.seen_for].into_iter().chain(spans), limits.seen_bytes),
            deadlines: Deadlines::new(rules.stages().len()),
            watermark: EventTime::MIN,
            arrivals: 0,
            counts: JoinCounts::new(rules.behaviours()),
            found: Vec::new(),
            rules,
        }
    }

    /// Opens an impression whose `payload` is filled in by `snapshot`, which is only called when it is opened. Returns its place, or `None`
    /// for a duplicate and for one that came too late to have any label; both are counted.
    ///
    /// Effects: `fnw` negatives; what outcomes that waited for it bring; and the closing of windows that were over when it came.
    pub fn impression(
        &mut self,
        opened: Opened<()>,
        snapshot: impl FnOnce() -> T,
        effects: &mut Vec<Effect>,
    ) -> Option<Place> {
        let Opened { id, user, item, time, number, new_item, payload: () } = opened;
        if self.opens.by_id(user, id).is_some() || !self.admit(Arrived { log: 0, user, id, time }) {
            self.counts.duplicate_impressions += 1;
            return None;
        }
        let masked = self.masked(user, time);
        for task in masked.iter() {
            self.counts.kinds[task].late_impressions += 1;
        }
        self.counts.late_impressions += u64::from(!masked.is_empty());
        if masked == self.rules.tasks() {
            self.counts.unopened += 1;
            self.turn_down(user, id);
            return None;
        }
        self.counts.opened += 1;
        let payload = Kept::Here(snapshot());
        let opened = Opened { id, user, item, time, number, new_item, payload };
        let place = self.opens.insert(opened, self.rules.at_once(), masked);
        let arrival = self.rules.arrival(masked);
        if !arrival.is_empty() {
            effects.push(Effect::Example { place, labels: arrival });
        }
        self.claim(place, effects);
        self.attribute_waiting(place, effects);
        self.begin(place, effects);
        Some(place)
    }

    /// Takes a behaviour and tells what became of it.
    ///
    /// Effects: the label turned to 1, and the `fnw` positive that follows from it.
    pub fn outcome(&mut self, outcome: Outcome, effects: &mut Vec<Effect>) -> Fate {
        let kind = usize::from(outcome.kind.0);
        self.counts.kinds[kind].arrived += 1;
        let Outcome { user, id, time, .. } = outcome;
        if !self.admit(Arrived { log: kind + 1, user, id, time }) {
            self.counts.kinds[kind].duplicate += 1;
            return Fate::Duplicate;
        }
        let Some(task) = self.rules.task(outcome.kind) else {
            self.counts.kinds[kind].extra += 1;
            return Fate::Extra;
        };
        match self.target(&outcome, task) {
            Target::Impression(place) => self.attach(place, task, &outcome, effects),
            Target::Late => self.late(task),
            Target::Orphan(reason) => self.orphan(task, reason),
            Target::Unknown => self.wait(outcome, task),
        }
    }

    /// Takes an impression's id as seen of a user, to fill a state directly.
    pub fn know(&mut self, user: UserId, id: EventId, time: EventTime) {
        self.admit(Arrived { log: 0, user, id, time });
    }

    /// Returns an impression that is open or was closed by the last call.
    ///
    /// # Panics
    /// When the place was given up by [`Self::take`].
    pub fn get(&self, place: Place) -> &Opened<Kept<T>> {
        &self.opens.get(place).opened
    }

    /// Gives out what is kept with an open impression; the caller will find it by `number`. Nothing when it was put away before.
    ///
    /// # Panics
    /// When the place was given up by [`Self::take`].
    pub fn put_away(&mut self, place: Place, number: u64) -> Option<T> {
        self.opens.put_away(place, number)
    }

    /// Takes an impression out after its [`Effect::Closed`].
    ///
    /// # Panics
    /// When the place was given up before.
    pub fn take(&mut self, place: Place) -> Opened<Kept<T>> {
        self.opens.take(place)
    }

    /// Returns the open impressions in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Opened<Kept<T>>> {
        self.opens.iter().map(|open| &open.opened)
    }

    /// Returns what was counted so far.
    pub fn counts(&self) -> &JoinCounts {
        &self.counts
    }

    /// Returns the newest watermark.
    pub fn watermark(&self) -> EventTime {
        self.watermark
    }

    /// Returns about how many bytes open impressions take: what reading has to pause for.
    pub fn memory(&self) -> usize {
        self.opens.memory()
    }

    /// Returns about how many bytes waiting outcomes take; bounded by [`JoinLimits::early_bytes`].
    pub fn waiting_memory(&self) -> usize {
        self.early.memory()
    }

    /// Gives up the waiting outcome with the least time left, for want of room: where several joiners share what there is. Returns false when
    /// none waits.
    pub fn give_up_waiting(&mut self) -> bool {
        let Some(waiting) = self.early.overflow() else { return false };
        self.give_up(&waiting, Orphan::Overflow);
        true
    }

    /// Returns about how many bytes the remembered event ids take; bounded by [`JoinLimits::seen_bytes`].
    pub fn seen_memory(&self) -> usize {
        self.seen.memory()
    }

    /// Forgets the oldest ids of the commonest type, some at a time, for want of room: where several joiners share what there is. Returns false
    /// when there are hardly any.
    pub fn forget_ids(&mut self) -> bool {
        let Self { seen, counts, watermark, .. } = self;
        seen.forget_oldest(None, *watermark, |log, ids| counts.forgot(log, ids))
    }

    /// Enters the id of an event. Returns false when it was seen before.
    fn admit(&mut self, arrived: Arrived) -> bool {
        let counts = &mut self.counts;
        self.seen.admit(arrived, self.watermark, |log, ids| counts.forgot(log, ids))
    }

    /// Returns the tasks whose label cannot be known of an impression that comes now: their window is over, so outcomes may have been given
    /// up; or some have been for want of room.
    fn masked(&self, user: UserId, time: EventTime) -> TaskSet {
        let missing = |&task: &usize| {
            time + self.rules.window(task) < self.watermark
                || self.early.may_have_lost(user, task, time)
        };
        let all = self.rules.tasks();
        let masked = self.rules.unknown(all.iter().filter(missing).collect());
        // What is certain of a view is learned once: one whose id may be forgotten could be a second copy.
        let once = time + self.seen.span(0) >= self.watermark;
        if once || masked.or(self.rules.at_once()) != all { masked } else { all }
    }

    fn target(&mut self, outcome: &Outcome, task: usize) -> Target {
        let window = self.rules.window(task);
        let place = match outcome.impression {
            Some(id) => self.opens.by_id(outcome.user, id),
            None => self.opens.newest(outcome.user, outcome.item, outcome.time),
        };
        let Some(place) = place else { return Target::Unknown };
        let open = &self.opens.get(place).opened;
        let end = open.time + window;
        if outcome.impression.is_none() {
            // A newer one may yet come whose window is open.
            let open = outcome.time <= end && end >= self.watermark;
            return if open { Target::Impression(place) } else { Target::Unknown };
        }
        match mismatch(outcome, open, end) {
            Some(reason) => Target::Orphan(reason),
            None if end < self.watermark => Target::Late,
            None => Target::Impression(place),
        }
    }

    pub(super) fn attach(
        &mut self,
        place: Place,
        task: usize,
        outcome: &Outcome,
        effects: &mut Vec<Effect>,
    ) -> Fate {
        let count = &mut self.counts.kinds[task];
        let repeated = self.opens.get(place).seen.contains(task);
        if repeated {
            count.repeated += 1;
        } else {
            count.attributed += 1;
        }
        if outcome.impression.is_some() {
            let open = self.opens.get_mut(place);
            open.named = open.named.with(task);
        } else if !self.rules.at_once().contains(task) {
            self.opens.keep(place, task, outcome.time);
        }
        if repeated {
            return Fate::Repeated;
        }
        let open = self.opens.get_mut(place);
        open.seen = open.seen.with(task);
        self.turn(place, outcome.time, TaskSet::EMPTY, effects);
        Fate::Attributed(place)
    }

    /// Turns the labels to 1 whose outcome and ancestors were seen; those in `counted` are learned but not announced again.
    fn turn(&mut self, place: Place, time: EventTime, counted: TaskSet, effects: &mut Vec<Effect>) {
        let fnw = self.rules.fnw();
        let open = self.opens.get_mut(place);
        let positive = self.rules.positive(open.seen);
        let newly = positive.without(open.turned).without(open.masked);
        open.positive = positive;
        open.turned = open.turned.or(positive);
        let tasks = newly.without(counted);
        if !tasks.is_empty() {
            effects.push(Effect::Positive { place, tasks, time });
        }
        let learned = newly.and(fnw);
        if !learned.is_empty() {
            effects.push(Effect::Example { place, labels: Labels::fnw_positive(learned) });
        }
    }

    /// An impression that arrived out of order takes over the outcomes that went to an older one only because it was not there.
    fn claim(&mut self, place: Place, effects: &mut Vec<Effect>) {
        let Some(older) = self.opens.older(place) else { return };
        if self.opens.kept(older).next().is_none() {
            return;
        }
        let start = self.opens.get(place).opened.time;
        let (older_start, before) = {
            let open = self.opens.get(older);
            (open.opened.time, open.positive)
        };
        let (rules, watermark) = (&self.rules, self.watermark);
        let mut last = start;
        let mut tasks = TaskSet::EMPTY;
        let kinds = &mut self.counts.kinds;
        self.opens.move_outcomes(
            older,
            place,
            // A closed label stays as it is.
            |task, time| time >= start && older_start + rules.window(task) >= watermark,
            |task, time| {
                kinds[task].moved += 1;
                tasks = tasks.with(task);
                last = last.max(time);
            },
        );
        let open = self.opens.get_mut(older);
        open.positive = self.rules.positive(open.seen);
        let lost = before.without(open.positive);
        for task in tasks.and(open.seen).iter() {
            // Both impressions now have a first outcome where there was one and a repeated one.
            self.counts.kinds[task].attributed += 1;
            self.counts.kinds[task].repeated -= 1;
        }
        self.turn(place, last, lost, effects);
    }

    pub(super) fn late(&mut self, task: usize) -> Fate {
        self.counts.kinds[task].late += 1;
        Fate::Late
    }

    pub(super) fn orphan(&mut self, task: usize, reason: Orphan) -> Fate {
        self.counts.kinds[task].orphaned[reason as usize] += 1;
        Fate::Orphaned(reason)
    }
}
