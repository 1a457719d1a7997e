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

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;
use crate::ids::salted_key;
use crate::pages::PagedMap;
use crate::schema::{Counter, Reading, Subject};
use crate::time::{EventTime, Span};

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

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Decayed {
    time: EventTime,
    impressions: f64,
    outcomes: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Table {
    counter: Counter,
    overall: Decayed,
    entries: PagedMap<Decayed>,
    /// New keys until the next sweep.
    until_sweep: usize,
    refused: u64,
}

/// All counters of a schema. A copy costs little and stays as it is ([`crate::pages`]).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Counters {
    tables: Vec<Table>,
    most: usize,
}

impl Decayed {
    /// Adds at a time. What comes late is worth as little as it would be had it come in time.
    fn add(&mut self, half_life: Span, time: EventTime, impressions: f64, outcomes: f64) {
        let (kept, added) = if time >= self.time {
            let kept = decay(half_life, time - self.time);
            self.time = time;
            (kept, 1.0)
        } else {
            (1.0, decay(half_life, self.time - time))
        };
        self.impressions = self.impressions * kept + impressions * added;
        self.outcomes = self.outcomes * kept + outcomes * added;
    }
}

/// Returns what a count is still worth after a while.
fn decay(half_life: Span, after: Span) -> f64 {
    (-(after.0 as f64) / half_life.0.max(1) as f64).exp2()
}

impl Counters {
    /// Creates empty counters, each with at most `most` entries.
    pub fn new(counters: &[Counter], most: usize) -> Self {
        let table = |counter: &Counter| Table {
            counter: counter.clone(),
            overall: Decayed::default(),
            entries: PagedMap::new(),
            until_sweep: SWEEP,
            refused: 0,
        };
        Self { tables: counters.iter().map(table).collect(), most: most.max(1) }
    }

    /// Counts an impression of an item with these features for all counters.
    pub fn impression(&mut self, subjects: &Subjects, item: Option<&Attributes>, time: EventTime) {
        for table in &mut self.tables {
            let amount = match table.counter.read {
                Reading::Beside(_) => logarithm(&table.counter, item),
                Reading::LogOdds | Reading::Count | Reading::Any => Some(0.0),
            };
            if let Some(amount) = amount {
                table.add(subjects, time, 1.0, amount, self.most);
            }
        }
    }

    /// Counts an outcome of a task. `time` is that of the impression, so that an impression and its outcome decay alike.
    pub fn outcome(&mut self, task: usize, subjects: &Subjects, time: EventTime) {
        for i in 0..self.tables.len() {
            let counter = &self.tables[i].counter;
            if counter.task == task && !matches!(counter.read, Reading::Beside(_)) {
                self.tables[i].add(subjects, time, 0.0, 1.0, self.most);
            }
        }
    }

    /// Returns the number that the model reads of a counter (see the module's page) for an item with these features, `None` where a subject or
    /// the item's number is missing.
    ///
    /// # Panics
    /// When there is no such counter.
    pub fn read(
        &self,
        counter: usize,
        subjects: &Subjects,
        item: Option<&Attributes>,
        time: EventTime,
    ) -> Option<f32> {
        let table = &self.tables[counter];
        let key = key(&table.counter.by, subjects)?;
        let beside = match table.counter.read {
            Reading::Beside(_) => logarithm(&table.counter, item)?,
            Reading::LogOdds | Reading::Count | Reading::Any => 0.0,
        };
        let Some(entry) = table.entries.get(key) else {
            return Some(0.0);
        };
        let worth =
            if time > entry.time { decay(table.counter.half_life, time - entry.time) } else { 1.0 };
        let (n, c) = (entry.impressions * worth, entry.outcomes * worth);
        match table.counter.read {
            Reading::LogOdds => {}
            Reading::Count => return Some(c.ln_1p() as f32),
            Reading::Any => return Some((c / (1.0 + c)) as f32),
            // Both sums fade alike, so their quotient does not.
            Reading::Beside(_) => {
                return Some((beside - entry.outcomes / entry.impressions.max(1e-9)) as f32);
            }
        }
        let rate = ((table.overall.outcomes + OVERALL_PRIOR.0)
            / (table.overall.impressions + OVERALL_PRIOR.1))
            .clamp(1e-6, 1.0 - 1e-6);
        let k = f64::from(table.counter.smoothing);
        // An outcome may be counted whose impression has been swept: the odds stay finite.
        let missed = (n - c).max(0.0) + k * (1.0 - rate);
        let odds = (c + k * rate) / missed.max(1e-9);
        Some((odds.max(1e-9).ln() - (rate / (1.0 - rate)).ln()) as f32)
    }

    /// Tells whether these are the counters of a schema.
    pub fn count_by(&self, counters: &[Counter]) -> bool {
        self.tables.iter().map(|table| &table.counter).eq(counters)
    }

    /// Returns how many entries there are.
    pub fn len(&self) -> usize {
        self.tables.iter().map(|table| table.entries.len()).sum()
    }

    /// Tells whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many counts were refused because their counter was full.
    pub fn refused(&self) -> u64 {
        self.tables.iter().map(|table| table.refused).sum()
    }
}

impl Table {
    fn add(&mut self, subjects: &Subjects, time: EventTime, n: f64, c: f64, most: usize) {
        let half_life = self.counter.half_life;
        self.overall.add(half_life, time, n, c);
        let Some(key) = key(&self.counter.by, subjects) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(key) {
            entry.add(half_life, time, n, c);
            return;
        }
        self.until_sweep -= 1;
        if self.until_sweep == 0 {
            self.sweep();
        }
        if self.entries.len() >= most {
            self.refused += 1;
            return;
        }
        self.entries.insert(key, Decayed { time, impressions: n, outcomes: c });
    }

    /// Forgets negligible entries. The next sweep comes after as many new keys as there are entries, so it costs O(1) a key.
    fn sweep(&mut self) {
        let (now, half_life) = (self.overall.time, self.counter.half_life);
        self.entries.retain(|_, entry| {
            let worth = if now > entry.time { decay(half_life, now - entry.time) } else { 1.0 };
            (entry.impressions + entry.outcomes) * worth >= NEGLIGIBLE
        });
        self.until_sweep = self.entries.len().max(SWEEP);
    }
}

/// Returns `ln(1 + x)` of the item's number that a counter is about, `None` where the item has none. Negative numbers count as 0.
fn logarithm(counter: &Counter, item: Option<&Attributes>) -> Option<f64> {
    let Reading::Beside(key) = counter.read else { return None };
    Some(item?.get(key)?.number()?.max(0.0).ln_1p())
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
}
