//! Near-real-time counters: exponentially decayed counts of impressions and of a task's outcomes, by item, user, category, surface or
//! several of them together.
//!
//! With impressions `n = Σ 2^(-(t - t_i) / h)`, outcomes `c` likewise, half-life `h`, the overall rate `r` of the task and smoothing
//! `k`, a counter is read as `ln((c + k r) / (n - c + k (1 - r))) - ln(r / (1 - r))`: smoothed log-odds beside the overall ones, 0 where
//! nothing is known. Where it matters how much there was, not how often (what a user is after just now), a counter is read as
//! `ln(1 + c)` or `c / (1 + c)`. On sparse tasks such counters beat embeddings alone.
//!
//! With `c = Σ 2^(-(t - t_i) / h) ln(1 + x_i)` for a number `x` of the item that is shown, the counter is read as `ln(1 + x) - c / n`: a price
//! beside the usual one of its category; 0 where nothing was shown yet.
//!
//! Counters by the same subjects with the same half-life share their entries (impressions once, outcomes by task), and all of one
//! half-life share the overall counts: an event costs one look and one power for each such group, not for each counter.

use serde::{Deserialize, Serialize};

use crate::attributes::{AttributeKey, Attributes};
use crate::ids::salted_key;
use crate::pages::PagedMap;
use crate::schema::{Counter, Reading, Subject};
use crate::time::{EventTime, Span};

/// Tasks that share an entry; counters of further tasks get entries of their own, or all entries would be larger.
const TASKS: usize = 3;
/// Entries that are looked up before the first of them is read, so that the processor waits for their memory together.
const LOOKS: usize = 8;
/// Counts below this are forgotten by a sweep.
const NEGLIGIBLE: f64 = 0.02;
/// The fewest new keys between two sweeps.
const SWEEP: usize = 1024;
/// Outcomes and impressions at the prior rate that stand before the overall counts.
const OVERALL_PRIOR: (f64, f64) = (1.0, 20.0);

/// What a counter counts by, as of one impression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subjects {
    /// The item.
    pub item: u64,
    /// The user.
    pub user: u64,
    /// The item's category, if it has one.
    pub category: Option<u64>,
    /// The surface, if it is known.
    pub surface: Option<u64>,
}

/// Counts by one key.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Entry {
    time: EventTime,
    impressions: f64,
    /// By the places of [`Group::tasks`].
    outcomes: [f64; TASKS],
}

/// Counters by the same subjects, with the same half-life, of at most [`TASKS`] tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Group {
    by: Vec<Subject>,
    half_life: Span,
    /// Index of the overall counts of this half-life.
    overall: usize,
    /// The number of the item whose logarithms are added up in place of outcomes; then there is one counter.
    beside: Option<AttributeKey>,
    tasks: Vec<usize>,
    members: Vec<Member>,
    entries: PagedMap<Entry>,
    /// New keys until the next sweep.
    until_sweep: usize,
    refused: u64,
}

/// One counter of a group.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Member {
    counter: usize,
    /// Place of its task in the group.
    task: usize,
    smoothing: f64,
    read: Read,
}

/// What is read of an entry.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Read {
    /// Log-odds beside those of the rate at a place of the overall counts.
    LogOdds(usize),
    Count,
    Any,
    Beside,
}

/// What was counted over all keys with one half-life.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Overall {
    half_life: Span,
    time: EventTime,
    impressions: f64,
    rates: Vec<Rate>,
}

/// The overall rate of a task, as of the newest event.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Rate {
    task: usize,
    outcomes: f64,
    rate: f64,
    log_odds: f64,
}

/// All counters of a schema. A copy costs little and stays as it is ([`crate::pages`]).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Counters {
    counters: Vec<Counter>,
    groups: Vec<Group>,
    overall: Vec<Overall>,
    most: usize,
}

impl Counters {
    /// Creates empty counters, each with at most `most` entries.
    pub fn new(counters: &[Counter], most: usize) -> Self {
        let mut new = Self {
            counters: counters.to_vec(),
            groups: vec![],
            overall: vec![],
            most: most.max(1),
        };
        for (number, counter) in counters.iter().enumerate() {
            new.add_counter(number, counter);
        }
        new.overall.iter_mut().for_each(Overall::refresh);
        new
    }

    /// Counts an impression of an item with these features for all counters.
    pub fn impression(&mut self, subjects: &Subjects, item: Option<&Attributes>, time: EventTime) {
        for overall in &mut self.overall {
            overall.add(time, None);
        }
        for group in &mut self.groups {
            let Some(amount) = group.amount(item) else { continue };
            let added = Added { impressions: 1.0, task: 0, outcomes: amount };
            group.add(subjects, time, added, self.overall[group.overall].time, self.most);
        }
    }

    /// Tells whether any counter looks at the features of items.
    pub fn look_at_items(&self) -> bool {
        self.groups.iter().any(|group| group.beside.is_some())
    }

    /// Counts an outcome of a task. `time` is that of the impression, so that an impression and its outcome decay alike.
    pub fn outcome(&mut self, task: usize, subjects: &Subjects, time: EventTime) {
        for overall in &mut self.overall {
            overall.add(time, Some(task));
        }
        for group in &mut self.groups {
            let place = group.tasks.iter().position(|known| *known == task);
            if let (Some(task), None) = (place, group.beside) {
                let added = Added { impressions: 0.0, task, outcomes: 1.0 };
                group.add(subjects, time, added, self.overall[group.overall].time, self.most);
            }
        }
    }

    /// Calls `see` with each counter and the number that the model reads of it (see the module's page) for an item with these features,
    /// `None` where a subject or the item's number is missing; in the order of the groups, not of the counters.
    pub fn read_all(
        &self,
        subjects: &Subjects,
        item: Option<&Attributes>,
        time: EventTime,
        mut see: impl FnMut(usize, Option<f32>),
    ) {
        for groups in self.groups.chunks(LOOKS) {
            let mut found = [None; LOOKS];
            for (group, found) in groups.iter().zip(&mut found) {
                *found = key(&group.by, subjects).map(|key| group.entries.get(key));
            }
            for (group, found) in groups.iter().zip(found) {
                let rates = &self.overall[group.overall].rates;
                let amount = group.amount(item);
                group.read(found.filter(|_| amount.is_some()), rates, amount, time, &mut see);
            }
        }
    }

    /// Returns the number that the model reads of one counter, `None` where it is missing or there is no such counter.
    pub fn read(
        &self,
        counter: usize,
        subjects: &Subjects,
        item: Option<&Attributes>,
        time: EventTime,
    ) -> Option<f32> {
        let counts = |group: &&Group| group.members.iter().any(|member| member.counter == counter);
        let group = self.groups.iter().find(counts)?;
        let amount = group.amount(item);
        let found = key(&group.by, subjects).map(|key| group.entries.get(key));
        let rates = &self.overall[group.overall].rates;
        let mut number = None;
        group.read(found.filter(|_| amount.is_some()), rates, amount, time, &mut |member, read| {
            if member == counter {
                number = read;
            }
        });
        number
    }

    /// Tells whether these are the counters of a schema.
    pub fn count_by(&self, counters: &[Counter]) -> bool {
        self.counters == counters
    }

    /// Returns how many entries there are.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.entries.len()).sum()
    }

    /// Tells whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many counts were refused because their counter was full.
    pub fn refused(&self) -> u64 {
        self.groups.iter().map(|group| group.refused).sum()
    }

    fn add_counter(&mut self, number: usize, counter: &Counter) {
        let half_life = counter.half_life;
        let known = self.overall.iter().position(|overall| overall.half_life == half_life);
        let at = known.unwrap_or(self.overall.len());
        if known.is_none() {
            let (time, impressions) = (EventTime::default(), 0.0);
            self.overall.push(Overall { half_life, time, impressions, rates: vec![] });
        }
        let (read, beside) = match counter.read {
            Reading::LogOdds => (Read::LogOdds(self.overall[at].rate_of(counter.task)), None),
            Reading::Count => (Read::Count, None),
            Reading::Any => (Read::Any, None),
            Reading::Beside(key) => (Read::Beside, Some(key)),
        };
        let fits = |group: &Group| {
            let room = group.tasks.len() < TASKS || group.tasks.contains(&counter.task);
            let counted = group.beside.is_none() && beside.is_none();
            counted && group.by == counter.by && group.half_life == half_life && room
        };
        let place = self.groups.iter().position(fits).unwrap_or(self.groups.len());
        if place == self.groups.len() {
            self.groups.push(Group {
                by: counter.by.clone(),
                half_life,
                overall: at,
                beside,
                tasks: vec![],
                members: vec![],
                entries: PagedMap::new(),
                until_sweep: SWEEP,
                refused: 0,
            });
        }
        let group = &mut self.groups[place];
        let task = group.tasks.iter().position(|known| *known == counter.task);
        let task = task.unwrap_or_else(|| {
            group.tasks.push(counter.task);
            group.tasks.len() - 1
        });
        let smoothing = f64::from(counter.smoothing);
        group.members.push(Member { counter: number, task, smoothing, read });
    }
}

/// What an event adds to an entry.
#[derive(Clone, Copy, Debug)]
struct Added {
    impressions: f64,
    /// Place of the task in the group.
    task: usize,
    outcomes: f64,
}

impl Entry {
    /// Moves on to a time. Returns what a count of that time is worth: one that comes late as little as had it come in time.
    fn reach(&mut self, half_life: Span, time: EventTime) -> f64 {
        if time < self.time {
            return decay(half_life, self.time - time);
        }
        let kept = decay(half_life, time - self.time);
        self.time = time;
        self.impressions *= kept;
        self.outcomes.iter_mut().for_each(|outcomes| *outcomes *= kept);
        1.0
    }

    fn count(&mut self, added: Added, worth: f64) {
        self.impressions += added.impressions * worth;
        self.outcomes[added.task] += added.outcomes * worth;
    }

    /// Returns what its counts are still worth at a time.
    fn worth(&self, half_life: Span, time: EventTime) -> f64 {
        if time > self.time { decay(half_life, time - self.time) } else { 1.0 }
    }
}

impl Group {
    /// Returns what an impression of an item adds beside itself: `ln(1 + x)` of the item's number that the group is about (a negative one
    /// counts as 0), `None` where the item has none; 0 where outcomes are counted.
    fn amount(&self, item: Option<&Attributes>) -> Option<f64> {
        let Some(key) = self.beside else { return Some(0.0) };
        Some(item?.get(key)?.number()?.max(0.0).ln_1p())
    }

    /// Reads all members of an entry; `found` is `None` where a subject or the amount is missing, and `Some(None)` where nothing was counted.
    fn read(
        &self,
        found: Option<Option<&Entry>>,
        rates: &[Rate],
        amount: Option<f64>,
        time: EventTime,
        see: &mut impl FnMut(usize, Option<f32>),
    ) {
        let Some(Some(entry)) = found else {
            let nothing = found.map(|_| 0.0);
            return self.members.iter().for_each(|member| see(member.counter, nothing));
        };
        let worth = entry.worth(self.half_life, time);
        let n = entry.impressions * worth;
        for member in &self.members {
            let outcomes = entry.outcomes[member.task];
            let c = outcomes * worth;
            let number = match member.read {
                Read::LogOdds(place) => rates[place].odds_beside(n, c, member.smoothing),
                Read::Count => c.ln_1p(),
                Read::Any => c / (1.0 + c),
                // Both sums fade alike, so their quotient does not.
                Read::Beside => amount.unwrap_or(0.0) - outcomes / entry.impressions.max(1e-9),
            };
            see(member.counter, Some(number as f32));
        }
    }

    fn add(
        &mut self,
        subjects: &Subjects,
        time: EventTime,
        added: Added,
        now: EventTime,
        most: usize,
    ) {
        let Some(key) = key(&self.by, subjects) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(key) {
            let worth = entry.reach(self.half_life, time);
            entry.count(added, worth);
            return;
        }
        self.until_sweep -= 1;
        if self.until_sweep == 0 {
            self.sweep(now);
        }
        if self.entries.len() >= most {
            self.refused += 1;
            return;
        }
        let mut entry = Entry { time, ..Entry::default() };
        entry.count(added, 1.0);
        self.entries.insert(key, entry);
    }

    /// Forgets negligible entries. The next sweep comes after as many new keys as there are entries, so it costs O(1) a key.
    fn sweep(&mut self, now: EventTime) {
        let half_life = self.half_life;
        self.entries.retain(|_, entry| {
            let outcomes = entry.outcomes.iter().copied().fold(0.0, f64::max);
            (entry.impressions + outcomes) * entry.worth(half_life, now) >= NEGLIGIBLE
        });
        self.until_sweep = self.entries.len().max(SWEEP);
    }
}

impl Overall {
    /// Returns the place of a task's rate, entering it when it is new.
    fn rate_of(&mut self, task: usize) -> usize {
        let known = self.rates.iter().position(|rate| rate.task == task);
        known.unwrap_or_else(|| {
            self.rates.push(Rate { task, outcomes: 0.0, rate: 0.0, log_odds: 0.0 });
            self.rates.len() - 1
        })
    }

    /// Counts an outcome of a task, or an impression.
    fn add(&mut self, time: EventTime, task: Option<usize>) {
        let (newest, before) = (time.max(self.time), self.time);
        self.time = newest;
        if self.rates.is_empty() {
            return;
        }
        let worth = decay(self.half_life, newest - time);
        if newest > before {
            let kept = decay(self.half_life, newest - before);
            self.impressions *= kept;
            self.rates.iter_mut().for_each(|rate| rate.outcomes *= kept);
        }
        match task {
            None => self.impressions += worth,
            Some(task) => {
                self.rates.iter_mut().filter(|r| r.task == task).for_each(|r| r.outcomes += worth);
            }
        }
        self.refresh();
    }

    /// Brings the rates up to date with the counts.
    fn refresh(&mut self) {
        for share in &mut self.rates {
            let rate = (share.outcomes + OVERALL_PRIOR.0) / (self.impressions + OVERALL_PRIOR.1);
            share.rate = rate.clamp(1e-6, 1.0 - 1e-6);
            share.log_odds = (share.rate / (1.0 - share.rate)).ln();
        }
    }
}

impl Rate {
    /// Returns the log-odds of `c` outcomes of `n` impressions, smoothed by `k` impressions at the overall rate, beside the overall ones.
    fn odds_beside(&self, n: f64, c: f64, k: f64) -> f64 {
        // An outcome may be counted whose impression has been swept: the odds stay finite.
        let missed = (n - c).max(0.0) + k * (1.0 - self.rate);
        let odds = (c + k * self.rate) / missed.max(1e-9);
        odds.max(1e-9).ln() - self.log_odds
    }
}

/// Returns what a count is still worth after a while.
fn decay(half_life: Span, after: Span) -> f64 {
    if after.0 == 0 { 1.0 } else { (-(after.0 as f64) / half_life.0.max(1) as f64).exp2() }
}

/// Returns the key of a counter's subjects, `None` where one is missing.
fn key(by: &[Subject], subjects: &Subjects) -> Option<u64> {
    let mut key = 0;
    for subject in by {
        let id = match subject {
            Subject::Item => subjects.item,
            Subject::User => subjects.user,
            Subject::Category => subjects.category?,
            Subject::Surface => subjects.surface?,
        };
        key = salted_key(key, id);
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::{AttributeKey, Value};

    fn counter(task: usize, by: &[Subject]) -> Counter {
        let (half_life, read) = (Span(1000), Reading::LogOdds);
        Counter { task, by: by.to_vec(), half_life, smoothing: 4.0, read }
    }

    fn subjects(item: u64, user: u64) -> Subjects {
        Subjects { item, user, category: None, surface: Some(1) }
    }

    #[test]
    fn counts_equal_the_sum_over_the_log_in_any_order() {
        let log: Vec<(i64, u64, bool)> =
            (0..200).map(|i| ((i * 7919) % 5000, (i % 5) as u64 + 1, i % 3 == 0)).collect();
        let mut counters = Counters::new(&[counter(0, &[Subject::Item])], 1000);
        for &(time, item, outcome) in &log {
            counters.impression(&subjects(item, 9), None, EventTime(time));
            if outcome {
                counters.outcome(0, &subjects(item, 9), EventTime(time));
            }
        }
        let now = 6000;
        let weight = |t: i64| (-((now - t) as f64) / 1000.0).exp2();
        for item in 1..=5 {
            let of_item = || log.iter().filter(move |e| e.1 == item);
            let n: f64 = of_item().map(|e| weight(e.0)).sum();
            let c: f64 = of_item().filter(|e| e.2).map(|e| weight(e.0)).sum();
            // The overall rate is read as it stood at the newest event.
            let newest = log.iter().map(|e| e.0).max().unwrap();
            let at = |t: i64| (-((newest - t) as f64) / 1000.0).exp2();
            let all: f64 = log.iter().map(|e| at(e.0)).sum();
            let hits: f64 = log.iter().filter(|e| e.2).map(|e| at(e.0)).sum();
            let r = (hits + 1.0) / (all + 20.0);
            let want = ((c + 4.0 * r) / (n - c + 4.0 * (1.0 - r))).ln() - (r / (1.0 - r)).ln();
            let got = counters.read(0, &subjects(item, 9), None, EventTime(now)).unwrap();
            assert!((f64::from(got) - want).abs() < 1e-5, "item {item}: {got} != {want}");
        }
    }

    #[test]
    fn the_unknown_counts_as_the_overall_rate_and_the_missing_as_missing() {
        let mut counters = Counters::new(
            &[counter(0, &[Subject::Item]), counter(0, &[Subject::User, Subject::Category])],
            10,
        );
        counters.impression(&subjects(1, 1), None, EventTime(0));
        assert_eq!(counters.read(0, &subjects(2, 1), None, EventTime(0)), Some(0.0));
        assert_eq!(counters.read(1, &subjects(1, 1), None, EventTime(0)), None);
    }

    #[test]
    fn a_count_is_read_as_how_much_there_was() {
        let count = Counter { read: Reading::Count, ..counter(0, &[Subject::User]) };
        let mut counters = Counters::new(&[count], 10);
        for time in [0, 1000] {
            counters.impression(&subjects(1, 1), None, EventTime(time));
            counters.outcome(0, &subjects(1, 1), EventTime(time));
        }
        let read = counters.read(0, &subjects(2, 1), None, EventTime(2000)).unwrap();
        assert!((read - 1.75f32.ln()).abs() < 1e-6, "{read}");
        assert_eq!(counters.read(0, &subjects(2, 2), None, EventTime(2000)), Some(0.0));
    }

    #[test]
    fn an_interest_is_read_as_whether_there_was_any() {
        let any = Counter { read: Reading::Any, ..counter(0, &[Subject::User]) };
        let mut counters = Counters::new(&[any], 10);
        for outcomes in 1..=3 {
            counters.outcome(0, &subjects(1, 1), EventTime(0));
            let read = |time| counters.read(0, &subjects(2, 1), None, EventTime(time)).unwrap();
            let c = f64::from(outcomes);
            assert!((f64::from(read(0)) - c / (1.0 + c)).abs() < 1e-6);
            assert!((f64::from(read(1000)) - c / (2.0 + c)).abs() < 1e-6);
        }
    }

    #[test]
    fn a_number_is_read_beside_those_that_were_shown() {
        let price = AttributeKey::of("price");
        let beside = Counter { read: Reading::Beside(price), ..counter(0, &[Subject::Category]) };
        let mut counters = Counters::new(&[beside], 10);
        let item = |number: f64| {
            let mut item = Attributes::default();
            item.insert(price, Value::Number(number));
            item
        };
        let of = |category| Subjects { category: Some(category), ..subjects(1, 1) };
        let read = |counters: &Counters, category, number: f64, time| {
            counters.read(0, &of(category), Some(&item(number)), EventTime(time))
        };
        assert_eq!(read(&counters, 1, 5.0, 0), Some(0.0));
        // A price of 3 half a life before one of 15 and one without a price: the mean of the logarithms is 5/3 of ln 4.
        counters.impression(&of(1), Some(&item(3.0)), EventTime(0));
        counters.impression(&of(1), Some(&item(15.0)), EventTime(1000));
        counters.impression(&of(1), None, EventTime(1000));
        counters.impression(&of(2), Some(&item(1e6)), EventTime(1000));
        counters.outcome(0, &of(1), EventTime(1000));
        let wanted = 64.0f64.ln() - 5.0 / 3.0 * 4.0f64.ln();
        for time in [1000, 9000] {
            let found = read(&counters, 1, 63.0, time).unwrap();
            assert!((f64::from(found) - wanted).abs() < 1e-6, "{found} {wanted}");
        }
        assert_eq!(counters.read(0, &of(1), None, EventTime(1000)), None);
        assert_eq!(counters.read(0, &subjects(1, 1), Some(&item(1.0)), EventTime(1000)), None);
    }

    #[test]
    fn other_tasks_do_not_count_and_pairs_are_apart() {
        let mut counters = Counters::new(&[counter(1, &[Subject::Item, Subject::User])], 10);
        for user in [1, 2] {
            counters.impression(&subjects(1, user), None, EventTime(0));
        }
        counters.outcome(0, &subjects(1, 1), EventTime(0));
        let before = counters.read(0, &subjects(1, 1), None, EventTime(0));
        assert_eq!(before, counters.read(0, &subjects(1, 2), None, EventTime(0)));
        counters.outcome(1, &subjects(1, 1), EventTime(0));
        assert!(counters.read(0, &subjects(1, 1), None, EventTime(0)) > before);
        assert!(counters.read(0, &subjects(1, 2), None, EventTime(0)) < before);
    }

    #[test]
    fn memory_is_bounded_and_old_entries_make_room() {
        let mut counters = Counters::new(&[counter(0, &[Subject::Item])], 2000);
        for item in 0..10_000 {
            counters.impression(&subjects(item + 1, 1), None, EventTime(0));
        }
        assert!(counters.len() <= 2000 && counters.refused() > 0);
        for item in 0..3_000 {
            counters.impression(&subjects(item + 100_000, 1), None, EventTime(1_000_000));
        }
        assert!(counters.read(0, &subjects(102_000, 1), None, EventTime(1_000_000)) != Some(0.0));
    }

    #[test]
    fn counters_together_are_read_as_each_one_alone() {
        let price = AttributeKey::of("price");
        let by = [&[Subject::Item][..], &[Subject::User], &[Subject::User, Subject::Category]];
        let reads = [Reading::LogOdds, Reading::Count, Reading::Any, Reading::Beside(price)];
        let mut all = Vec::new();
        for (i, (by, read)) in by.iter().flat_map(|by| reads.map(|read| (by, read))).enumerate() {
            for task in 0..5 {
                let half_life = Span(if i % 2 == 0 { 1000 } else { 70 });
                all.push(Counter { half_life, read, ..counter(task, by) });
            }
        }
        let mut together = Counters::new(&all, 1000);
        assert!(together.groups.len() > LOOKS && together.groups.len() < all.len());
        let mut alone: Vec<Counters> =
            all.iter().map(|one| Counters::new(std::slice::from_ref(one), 1000)).collect();
        for i in 0..400_i64 {
            let time = EventTime(5 * i - i * 13 % 40);
            let category = (i % 7 > 0).then_some(i as u64 % 3);
            let subjects = Subjects { category, ..subjects(i as u64 % 5 + 1, i as u64 % 11) };
            let mut item = Attributes::default();
            if i % 3 > 0 {
                item.insert(price, crate::attributes::Value::Number((i % 9) as f64));
            }
            let mut seen = 0;
            together.read_all(&subjects, Some(&item), time, |number, read| {
                let expected = alone[number].read(0, &subjects, Some(&item), time);
                assert_eq!(read.map(f32::to_bits), expected.map(f32::to_bits), "{:?}", all[number]);
                seen += 1;
            });
            assert_eq!(seen, all.len());
            for counters in alone.iter_mut().chain([&mut together]) {
                counters.impression(&subjects, Some(&item), time);
                if i % 4 == 0 {
                    counters.outcome(i as usize / 4 % 5, &subjects, time);
                }
            }
        }
    }
}
