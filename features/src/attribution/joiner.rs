//! The joiner of one shard.

use super::deadlines::{Deadline, Deadlines};
use super::early::{Awaited, Early, Waiting};
use super::labels::{LabelRules, Stage};
use super::open::{OpenSet, mismatch};
use super::seen::{Seen, name};
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
    deadlines: Deadlines,
    pub(super) watermark: EventTime,
    pub(super) arrivals: u64,
    pub(super) counts: JoinCounts,
    found: Vec<Waiting>,
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
        Self {
            opens: OpenSet::new(),
            early: Early::new(limits.early_wait, limits.early_most),
            seen: Seen::new(limits.seen_ids, limits.seen_bytes),
            deadlines: Deadlines::new(rules.stages().len()),
            watermark: EventTime::MIN,
            arrivals: 0,
            counts: JoinCounts::new(rules.behaviours()),
            found: Vec::new(),
            rules,
        }
    }

    /// Opens an impression whose `payload` is filled in by `snapshot`, which is only called when the impression is no duplicate.
    /// Returns its place, or `None` for a duplicate.
    ///
    /// Effects: `fnw` negatives; then what outcomes that waited for it bring; and its closing, when it came so late that its windows
    /// are over.
    pub fn impression(
        &mut self,
        opened: Opened<()>,
        snapshot: impl FnOnce() -> T,
        effects: &mut Vec<Effect>,
    ) -> Option<Place> {
        if self.opens.by_id(opened.user, opened.id).is_some()
            || !self.seen.admit(opened.user, name(None, opened.id))
        {
            self.counts.duplicate_impressions += 1;
            return None;
        }
        self.counts.opened += 1;
        let Opened { id, user, item, time, number, new_item, payload: () } = opened;
        let payload = Kept::Here(snapshot());
        let opened = Opened { id, user, item, time, number, new_item, payload };
        let place = self.place(opened);
        let arrival = self.rules.arrival();
        if !arrival.is_empty() {
            effects.push(Effect::Example { place, labels: arrival });
        }
        self.claim(place, effects);
        self.attribute_waiting(place, effects);
        self.close_due(effects);
        Some(place)
    }

    /// Takes a behaviour and tells what became of it.
    ///
    /// Effects: the label turned to 1, and the `fnw` positive that follows from it.
    pub fn outcome(&mut self, outcome: Outcome, effects: &mut Vec<Effect>) -> Fate {
        let kind = usize::from(outcome.kind.0);
        self.counts.kinds[kind].arrived += 1;
        if !self.seen.admit(outcome.user, name(Some(outcome.kind), outcome.id)) {
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
    pub fn know(&mut self, user: UserId, id: EventId) {
        self.seen.admit(user, name(None, id));
    }

    /// Moves the watermark on, never back, closes what is strictly before it and gives up outcomes that have waited long enough.
    pub fn advance(&mut self, watermark: EventTime, effects: &mut Vec<Effect>) {
        if watermark <= self.watermark {
            return;
        }
        self.watermark = watermark;
        self.close_due(effects);
        while let Some(waiting) = self.early.pop_before(watermark) {
            self.give_up(&waiting, Orphan::NoImpression);
        }
    }

    /// Closes everything at the end of the input.
    pub fn finish(&mut self, effects: &mut Vec<Effect>) {
        self.advance(EventTime::MAX, effects);
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

    /// Returns about how many bytes open impressions and waiting outcomes take: what reading has to pause for.
    pub fn memory(&self) -> usize {
        self.opens.memory() + self.early.memory()
    }

    /// Returns about how many bytes the remembered event ids take; bounded by [`JoinLimits::seen_bytes`].
    pub fn seen_memory(&self) -> usize {
        self.seen.memory()
    }

    /// Adds an impression to the open ones and sets its next deadline.
    pub(super) fn place(&mut self, opened: Opened<Kept<T>>) -> Place {
        let (time, number) = (opened.time, opened.number);
        let place = self.opens.insert(opened, self.rules.at_once());
        self.schedule(time, number, place, 0);
        place
    }

    /// Sets the deadline of the first stage from `stage` on; of a restored impression the first that is not over.
    pub(super) fn schedule(&mut self, time: EventTime, number: u64, place: Place, stage: usize) {
        let time = time + self.rules.stages()[stage].window;
        self.deadlines.push(stage, Deadline { time, number, place });
    }

    fn target(&self, outcome: &Outcome, task: usize) -> Target {
        let window = self.rules.window(task);
        let place = match outcome.impression {
            Some(id) => self.opens.by_id(outcome.user, id),
            None => self.opens.newest(outcome.user, outcome.item, outcome.time),
        };
        let Some(place) = place else { return Target::Unknown };
        let open = &self.opens.get(place).opened;
        let end = open.time + window;
        if outcome.impression.is_some() {
            if let Some(reason) = mismatch(outcome, open, end) {
                return Target::Orphan(reason);
            }
        } else if outcome.time > end {
            return Target::Unknown;
        }
        if end < self.watermark { Target::Late } else { Target::Impression(place) }
    }

    fn attach(
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
        let newly = positive.without(open.turned);
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

    fn attribute_waiting(&mut self, place: Place, effects: &mut Vec<Effect>) {
        let (id, user, item, time) = {
            let opened = &self.opens.get(place).opened;
            (opened.id, opened.user, opened.item, opened.time)
        };
        let mut found = std::mem::take(&mut self.found);
        self.early.take(Awaited::Named(user, id), |_| true, &mut found);
        let rules = &self.rules;
        let covered = |outcome: &Outcome| {
            let end = rules.task(outcome.kind).map(|task| time + rules.window(task));
            outcome.time >= time && end.is_some_and(|end| outcome.time <= end)
        };
        self.early.take(Awaited::Any(user, item), covered, &mut found);
        for Waiting { outcome, .. } in found.drain(..) {
            let task = usize::from(outcome.kind.0);
            self.counts.kinds[task].waiting -= 1;
            let opened = &self.opens.get(place).opened;
            match mismatch(&outcome, opened, time + self.rules.window(task)) {
                Some(reason) => self.counts.kinds[task].orphaned[reason as usize] += 1,
                None => {
                    self.attach(place, task, &outcome, effects);
                }
            }
        }
        self.found = found;
    }

    fn wait(&mut self, outcome: Outcome, task: usize) -> Fate {
        if self.early.is_over(outcome.time, self.watermark) {
            return self.late(task);
        }
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.counts.kinds[task].waiting += 1;
        let behind = outcome.time < self.watermark;
        if let Some(waiting) = self.early.push(Waiting { outcome, behind, arrival }) {
            self.give_up(&waiting, Orphan::Overflow);
            if waiting.arrival == arrival {
                return if behind { Fate::Late } else { Fate::Orphaned(Orphan::Overflow) };
            }
        }
        Fate::Waiting
    }

    pub(super) fn give_up(&mut self, waiting: &Waiting, reason: Orphan) {
        let task = usize::from(waiting.outcome.kind.0);
        self.counts.kinds[task].waiting -= 1;
        if waiting.behind {
            self.late(task);
        } else {
            self.orphan(task, reason);
        }
    }

    fn late(&mut self, task: usize) -> Fate {
        self.counts.kinds[task].late += 1;
        Fate::Late
    }

    fn orphan(&mut self, task: usize, reason: Orphan) -> Fate {
        self.counts.kinds[task].orphaned[reason as usize] += 1;
        Fate::Orphaned(reason)
    }

    fn close_due(&mut self, effects: &mut Vec<Effect>) {
        while let Some((stage, deadline)) = self.deadlines.pop_before(self.watermark) {
            let Deadline { number, place, .. } = deadline;
            let open = self.opens.get(place);
            let (time, positive) = (open.opened.time, open.positive);
            let Stage { closed, learned, .. } = self.rules.stages()[stage];
            if !learned.is_empty() {
                let labels = Labels::known(learned, positive);
                effects.push(Effect::Example { place, labels });
            }
            effects.push(Effect::Final { place, labels: Labels::known(closed, positive) });
            if stage + 1 < self.rules.stages().len() {
                self.schedule(time, number, place, stage + 1);
                if stage == 0 {
                    effects.push(Effect::Waits { place });
                }
            } else {
                self.close(place, effects);
            }
        }
    }

    fn close(&mut self, place: Place, effects: &mut Vec<Effect>) {
        let open = self.opens.get(place);
        for task in open.seen.without(open.positive).iter() {
            self.counts.kinds[task].childless += 1;
        }
        let labels = Labels::known(self.rules.tasks(), open.positive);
        self.counts.closed += 1;
        self.opens.close(place);
        effects.push(Effect::Closed { place, labels });
    }
}
