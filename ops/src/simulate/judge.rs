//! What can be learned from a simulated shop: the truth's own figures beside those of popularity.
//!
//! Judged on the second half of the impressions. Popularity scores an item by its own decayed rate of
//! the task: `(positives + 10 rate) / (impressions + 10)`, both counts halving every 3 days, with what
//! had happened before the impression.

use std::collections::HashMap;
use std::fmt;

use foldhash::fast::FixedState;

use super::record::Record;
use super::shop::TASKS;

const HALF_LIFE: f64 = 3.0 * 86_400_000.0;
const PRIOR: f64 = 10.0;
/// Scores are counted in buckets of their log-odds.
const BUCKETS: usize = 1 << 14;
const LOG_ODDS: f64 = 16.0;

/// Takes the records of a shop and keeps its figures.
#[derive(Debug)]
pub struct Judge {
    /// Impressions before this one only warm up.
    from: u64,
    impressions: u64,
    items: HashMap<u64, Popularity, FixedState>,
    all: Popularity,
    pub(super) tasks: [Figures; TASKS.len()],
}

/// What is true of one task so far. What is not defined yet is not a number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TaskTruth {
    /// The AUC of the true probabilities: the best that can be reached.
    pub truth: f64,
    /// The AUC of the item's popularity.
    pub popularity: f64,
}

/// Decayed counts as of a time.
#[derive(Clone, Copy, Debug, Default)]
struct Popularity {
    at: i64,
    impressions: f64,
    positives: [f64; TASKS.len()],
}

/// Figures of one task.
#[derive(Debug, Default)]
pub(super) struct Figures {
    impressions: u64,
    positives: u64,
    expected: f64,
    pub(super) truth: Auc,
    pub(super) popularity: Auc,
}

/// Positives and negatives by bucket of their score.
#[derive(Debug)]
pub(super) struct Auc(Vec<[u64; 2]>);

impl Judge {
    /// Judges from the `from`th impression on.
    pub fn new(from: u64) -> Self {
        let (items, all) = (HashMap::default(), Popularity::default());
        Self { from, impressions: 0, items, all, tasks: Default::default() }
    }

    /// Returns the figures so far, in the order of the funnel.
    pub fn so_far(&self) -> [TaskTruth; TASKS.len()] {
        self.tasks.each_ref().map(|figures| TaskTruth {
            truth: figures.truth.value(),
            popularity: figures.popularity.value(),
        })
    }

    /// Takes a record.
    pub fn take(&mut self, record: &Record) {
        if let Some(truth) = &record.truth {
            let item = self.items.entry(truth.item).or_default();
            item.fade(truth.ts);
            self.all.fade(truth.ts);
            if self.impressions >= self.from {
                for (task, (p, hit)) in
                    truth.p.in_order().into_iter().zip(truth.outcomes).enumerate()
                {
                    let rate = (self.all.positives[task] + 1.0) / (self.all.impressions + 100.0);
                    let popularity =
                        (item.positives[task] + PRIOR * rate) / (item.impressions + PRIOR);
                    self.tasks[task].take(p, popularity, hit);
                }
            }
            item.impressions += 1.0;
            self.all.impressions += 1.0;
            self.impressions += 1;
        }
        if let Some((item, task)) = record.outcome {
            for counts in [self.items.entry(item).or_default(), &mut self.all] {
                counts.fade(record.ts);
                counts.positives[task] += 1.0;
            }
        }
    }
}

impl Popularity {
    fn fade(&mut self, now: i64) {
        let stays = (-((now - self.at) as f64) / HALF_LIFE).exp2();
        self.impressions *= stays;
        self.positives.iter_mut().for_each(|count| *count *= stays);
        self.at = now;
    }
}

impl Figures {
    fn take(&mut self, p: f64, popularity: f64, hit: bool) {
        self.impressions += 1;
        self.positives += u64::from(hit);
        self.expected += p;
        self.truth.take(p, hit);
        self.popularity.take(popularity, hit);
    }
}

impl Default for Auc {
    fn default() -> Self {
        Self(vec![[0; 2]; BUCKETS])
    }
}

impl Auc {
    fn take(&mut self, p: f64, hit: bool) {
        let place = ((p / (1.0 - p)).ln() + LOG_ODDS) / (2.0 * LOG_ODDS) * BUCKETS as f64;
        self.0[(place as usize).min(BUCKETS - 1)][usize::from(hit)] += 1;
    }

    /// Share of the pairs of a positive and a negative in which the positive scores higher; ties count
    /// half.
    pub(super) fn value(&self) -> f64 {
        let (mut below, mut positives, mut won) = (0.0, 0.0, 0.0);
        for [negative, positive] in &self.0 {
            let (negative, positive) = (*negative as f64, *positive as f64);
            won += positive * (below + negative / 2.0);
            below += negative;
            positives += positive;
        }
        won / (below * positives)
    }
}

impl fmt::Display for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>9} impressions, judged from number {} on", self.impressions, self.from)?;
        writeln!(f, "task        rate  truth/observed  AUC of truth  AUC of item popularity")?;
        let show = |value: f64, digits: usize| match value.is_finite() {
            true => format!("{value:.digits$}"),
            false => "-".to_owned(),
        };
        for (task, figures) in TASKS.iter().zip(&self.tasks) {
            writeln!(
                f,
                "{task:<9} {:>7} {:>15} {:>13} {:>23}",
                show(figures.positives as f64 / figures.impressions as f64, 5),
                show(figures.expected / figures.positives as f64, 4),
                show(figures.truth.value(), 4),
                show(figures.popularity.value(), 4)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_counts_pairs_and_halves_ties() {
        let mut auc = Auc::default();
        for (p, hit) in [(0.1, false), (0.3, true), (0.3, false), (0.2, true), (0.6, true)] {
            auc.take(p, hit);
        }
        // Pairs won: .3 over .1, tie with .3; .2 over .1; .6 over both.
        assert!((auc.value() - 4.5 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_be_told_is_shown_as_such() {
        let told = Judge::new(0).to_string();
        assert!(told.contains('-') && !told.contains("NaN") && !told.contains("inf"), "{told}");
    }
}
