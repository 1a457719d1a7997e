//! Grouped AUC: how well the candidates of one and the same user are ordered.
//!
//! `Σ_u n_u AUC_u / Σ_u n_u` over the users `u` that have both classes, with `n_u` examples each
//!. It needs the examples, so it is exact over the newest ones of a task, up to
//! [`Settings::grouped`](super::Settings::grouped) of them; what is older no longer counts.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use sluice_features::time::EventTime;

/// One judged example, as far as a user's ranking needs it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) at: EventTime,
    pub(super) group: u64,
    pub(super) probability: f32,
    pub(super) label: bool,
    pub(super) new_item: bool,
}

/// The newest examples of a task in the order of their recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Newest {
    capacity: usize,
    entries: VecDeque<Entry>,
}

impl Newest {
    /// Creates an empty store of at most `capacity` examples.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, entries: VecDeque::new() }
    }

    /// Keeps an example; the oldest one goes when the store is full.
    pub(super) fn push(&mut self, entry: Entry) {
        if self.entries.len() >= self.capacity {
            self.entries.pop_front();
        }
        if self.capacity > 0 {
            self.entries.push_back(entry);
        }
    }

    /// Returns the grouped AUC of the kept examples that pass.
    pub(super) fn auc(&self, pass: impl Fn(&Entry) -> bool) -> Option<f64> {
        grouped_auc(
            &mut self.entries.iter().filter(|entry| pass(entry)).copied().collect::<Vec<_>>(),
        )
    }
}

/// Returns the grouped AUC of `entries`, which are sorted by user and probability on the way.
fn grouped_auc(entries: &mut [Entry]) -> Option<f64> {
    entries.sort_unstable_by(|a, b| {
        a.group.cmp(&b.group).then(a.probability.total_cmp(&b.probability))
    });
    let (mut weighted, mut weight) = (0.0, 0.0);
    for user in entries.chunk_by(|a, b| a.group == b.group) {
        if let Some(auc) = sorted_auc(user) {
            weighted += user.len() as f64 * auc;
            weight += user.len() as f64;
        }
    }
    (weight > 0.0).then(|| weighted / weight)
}

/// Returns the exact AUC of examples in ascending order of probability, ties counting half; `None`
/// unless both classes occur.
pub(super) fn sorted_auc(entries: &[Entry]) -> Option<f64> {
    let (mut below, mut positives, mut twice) = (0u128, 0u128, 0u128);
    for tie in entries.chunk_by(|a, b| a.probability.total_cmp(&b.probability).is_eq()) {
        let positive = tie.iter().filter(|entry| entry.label).count() as u128;
        let negative = tie.len() as u128 - positive;
        twice += positive * (2 * below + negative);
        below += negative;
        positives += positive;
    }
    let pairs = below * positives;
    (pairs > 0).then(|| twice as f64 / 2.0 / pairs as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(group: u64, probability: f32, label: bool) -> Entry {
        Entry { at: EventTime(0), group, probability, label, new_item: false }
    }

    #[test]
    fn users_weigh_by_their_examples_and_users_of_one_class_not_at_all() {
        let mut newest = Newest::new(100);
        // User 1: one pair of four is the wrong way round, one a tie: (2 + 1/2) / 4 = 0.625.
        for (p, y) in [(0.1, false), (0.4, true), (0.4, false), (0.3, true)] {
            newest.push(entry(1, p, y));
        }
        // User 2: perfect, with two examples. User 3: one class.
        newest.push(entry(2, 0.2, false));
        newest.push(entry(2, 0.9, true));
        for p in [0.1, 0.2, 0.3] {
            newest.push(entry(3, p, true));
        }
        let expected = (4.0 * 0.625 + 2.0 * 1.0) / 6.0;
        assert!((newest.auc(|_| true).unwrap() - expected).abs() < 1e-15);
        assert_eq!(newest.auc(|e| e.group == 2), Some(1.0));
        assert_eq!(newest.auc(|e| e.group == 3), None);
        assert_eq!(newest.auc(|_| false), None);
    }

    #[test]
    fn only_the_newest_examples_are_kept() {
        let mut newest = Newest::new(2);
        newest.push(entry(1, 0.9, false));
        newest.push(entry(1, 0.1, true));
        assert_eq!(newest.auc(|_| true), Some(0.0));
        newest.push(entry(1, 0.05, false));
        assert_eq!(newest.auc(|_| true), Some(1.0));
        assert_eq!(newest.entries.len(), 2);

        let mut none = Newest::new(0);
        none.push(entry(1, 0.9, false));
        assert_eq!(none.entries.len(), 0);
    }
}
