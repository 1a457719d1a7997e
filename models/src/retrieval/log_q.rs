//! How often is each item in the stream? The streaming estimate behind the logQ correction.
//!
//! An item of frequency `q` comes every `1/q` events on average. For each item its mean gap `g` and
//! the event `A` of its last sight are kept (Yi et al. 2019, algorithm 2). A batch
//! updates an item once: seen `c` times in a batch that ends at event `t`,
//!
//! `g += w ((t - A) / c - g)`, `A = t`, `w = max(1 - (1 - α)ᶜ, c / n)`, `ln q = -ln g`
//!
//! with `n` its sights so far. Gaps are counted in events, so that batches of any size give `q`
//! itself and not the chance of being in a batch; `c / n` makes `g` a plain mean until there are
//! `1/α` sights, so that a prior is soon forgotten. The prior is the mean gap over all items, which
//! is their number: an item seen for the first time counts as one of average frequency.
//!
//! Items lie in pages that a copy shares, so a checkpoint's copy of a million of them costs next to nothing.

use serde::{Deserialize, Serialize};
use sluice_features::maps::most_bytes;
use sluice_features::pages::PagedMap;

/// The longest gap, `1 / p` for the smallest probability that is told apart.
const LONGEST: f64 = 1e10;

/// Mean gaps of items, at most a given number of them. Serialisable for checkpoints.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "Stored", from = "Stored")]
pub struct LogQ {
    alpha: f64,
    capacity: usize,
    events: u64,
    items: PagedMap<Gap>,
    order: Vec<(u64, u32)>,
}

/// What is known of one item.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Gap {
    mean: f64,
    last: u64,
    sights: u64,
}

impl LogQ {
    /// Bytes of an item, at most.
    pub const ITEM_BYTES: usize = most_bytes(size_of::<(u64, Gap)>());

    /// Creates an estimate without items. `alpha` is the weight of a new gap (0.01 in the paper);
    /// at `capacity` items the half that was seen longest ago is forgotten.
    pub fn new(alpha: f64, capacity: usize) -> Self {
        Self {
            alpha: alpha.clamp(0.0, 1.0),
            capacity: capacity.max(2),
            events: 0,
            items: PagedMap::new(),
            order: Vec::new(),
        }
    }

    /// The same for another number of items.
    #[must_use]
    pub fn with_capacity(self, capacity: usize) -> Self {
        Self { capacity: capacity.max(2), ..self }
    }

    /// Returns how many bytes the items take at most.
    pub fn memory(&self) -> usize {
        self.len() * Self::ITEM_BYTES
    }

    /// Returns the number of items that are known.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns whether no item is known.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Learns from the items of one batch, one for each event.
    pub fn observe(&mut self, items: &[u64]) {
        self.events += items.len() as u64;
        self.order.clear();
        self.order.extend(items.iter().map(|&item| (item, 0)));
        self.order.sort_unstable();
        self.order.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            kept.1 += u32::from(same);
            same
        });
        let order = std::mem::take(&mut self.order);
        for &(item, again) in &order {
            self.see(item, f64::from(again) + 1.0);
        }
        self.order = order;
    }

    /// Returns the logarithm of how often an item is expected among so many `events`, and `others` times besides. Of one that was never seen
    /// the first is nothing, unless there is nothing else to go by: then it counts as an average item.
    pub fn log_count(&self, item: u64, events: f64, others: f64) -> f64 {
        let share = |mean: f64| events / mean.clamp(1.0, LONGEST);
        let seen = self.items.get(item).map(|gap| share(gap.mean));
        let unseen = || if others > 0.0 { 0.0 } else { share(self.items.len() as f64) };
        (seen.unwrap_or_else(unseen) + others).ln()
    }

    fn see(&mut self, item: u64, count: f64) {
        let (events, alpha) = (self.events, self.alpha);
        if let Some(gap) = self.items.get_mut(item) {
            gap.sights += count as u64;
            let weight = (1.0 - (1.0 - alpha).powf(count)).max(count / gap.sights as f64);
            gap.mean += weight * ((events - gap.last) as f64 / count - gap.mean);
            gap.last = events;
            return;
        }
        if self.items.len() >= self.capacity {
            self.forget_half();
        }
        let mean = (self.items.len() + 1) as f64 / count;
        self.items.insert(item, Gap { mean, last: events, sights: count as u64 });
    }

    fn forget_half(&mut self) {
        let mut last: Vec<(u64, u64)> = self.items.iter().map(|(id, gap)| (gap.last, id)).collect();
        let half = last.len() / 2;
        let (_, &mut oldest_kept, _) = last.select_nth_unstable(half);
        self.items.retain(|id, gap| (gap.last, id) >= oldest_kept);
    }
}

/// [`LogQ`] as it is stored, items by ascending id. How many they may be is whoever reads it to say ([`LogQ::with_capacity`]): until then any number.
#[derive(Serialize, Deserialize)]
struct Stored {
    alpha: f64,
    events: u64,
    items: Vec<(u64, Gap)>,
}

impl From<LogQ> for Stored {
    fn from(estimate: LogQ) -> Self {
        let mut items: Vec<_> = estimate.items.iter().map(|(id, gap)| (id, *gap)).collect();
        items.sort_unstable_by_key(|&(id, _)| id);
        Self { alpha: estimate.alpha, events: estimate.events, items }
    }
}

impl From<Stored> for LogQ {
    fn from(stored: Stored) -> Self {
        let mut estimate = Self::new(stored.alpha, usize::MAX);
        estimate.events = stored.events;
        estimate.items.extend(stored.items);
        estimate
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, weighted::WeightedAliasIndex};

    use super::*;

    /// Identity 10: the mean gap of an item of frequency 0.02 is 50, from twice as much at first.
    #[test]
    fn the_mean_gap_is_the_inverse_of_the_frequency() {
        let mut random = ChaCha8Rng::seed_from_u64(10);
        let mut estimate = LogQ::new(0.01, 1000);
        let (mut sum, mut count) = (0.0, 0.0);
        for t in 0..60_000 {
            let item = if random.random_bool(0.02) { 1 } else { 2 + t % 500 };
            estimate.observe(&[item]);
            if item == 1 && t > 20_000 {
                sum += (-estimate.log_count(1, 1.0, 0.0)).exp();
                count += 1.0;
            }
        }
        assert!((sum / count - 50.0).abs() < 3.0, "mean gap {}", sum / count);
    }

    #[test]
    fn frequencies_of_a_zipf_stream_are_found_for_any_batch_size() {
        let raw: Vec<f64> = (1..=200).map(|rank| 1.0 / f64::from(rank)).collect();
        let total: f64 = raw.iter().sum();
        let draw = WeightedAliasIndex::new(raw.clone()).unwrap();
        for (seed, sizes) in [(1, 1..2), (2, 64..65), (3, 1..256)] {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut estimate = LogQ::new(0.01, 1000);
            let (mut gaps, mut reads) = (vec![0.0; 200], 0.0);
            let (mut events, mut read_at) = (0, 100_000);
            while events < 3_000_000 {
                let size = random.random_range(sizes.clone());
                let batch: Vec<u64> = (0..size).map(|_| draw.sample(&mut random) as u64).collect();
                estimate.observe(&batch);
                events += size;
                if events >= read_at {
                    read_at += 5_000;
                    reads += 1.0;
                    for (item, gap) in gaps.iter_mut().enumerate() {
                        *gap += (-estimate.log_count(item as u64, 1.0, 0.0)).exp();
                    }
                }
            }
            for (item, gap) in gaps.iter().enumerate().take(50) {
                let error = gap / reads * raw[item] / total - 1.0;
                assert!(error.abs() < 0.05, "batches {sizes:?}, item {item}: off by {error}");
            }
        }
    }

    #[test]
    fn a_change_of_frequency_is_followed() {
        let mut estimate = LogQ::new(0.05, 1000);
        let gap_after = |estimate: &mut LogQ, every: u64, events: u64| {
            (0..events)
                .for_each(|t| estimate.observe(&[if t % every == 0 { 1 } else { 1000 + t % 50 }]));
            (-estimate.log_count(1, 1.0, 0.0)).exp()
        };
        let rare = gap_after(&mut estimate, 100, 50_000);
        assert!((rare - 100.0).abs() < 1.0, "{rare}");
        let often = gap_after(&mut estimate, 10, 5_000);
        assert!((often - 10.0).abs() < 1.0, "{often}");
    }

    #[test]
    fn an_item_counts_once_in_a_batch_and_a_new_one_as_average() {
        let mut estimate = LogQ::new(0.01, 100);
        assert!(estimate.log_count(7, 1.0, 0.0).abs() < 1e-15, "a frequency is at most one");
        estimate.observe(&[1, 2, 1, 3]);
        assert_eq!(estimate.len(), 3);
        // Seen in order of id: 1 is the first item and came twice, 3 is one of three.
        assert!(estimate.log_count(1, 1.0, 0.0).abs() < 1e-15);
        assert!((estimate.log_count(3, 1.0, 0.0) + 3f64.ln()).abs() < 1e-15);
        assert!((estimate.log_count(99, 1.0, 0.0) + 3f64.ln()).abs() < 1e-15);
        estimate.observe(&[3, 3, 3, 4]);
        // Gap 4 over 3 sights, weight 3/4 against the prior 3: 3 + 3/4 (4/3 - 3) = 1.75.
        assert!((estimate.log_count(3, 1.0, 0.0) + 1.75f64.ln()).abs() < 1e-15);
    }

    #[test]
    fn what_is_drawn_besides_is_added_and_an_item_never_seen_has_no_other_count() {
        let mut estimate = LogQ::new(0.01, 100);
        estimate.observe(&[1, 2, 1, 3]);
        let count = |item, events, others| estimate.log_count(item, events, others).exp();
        assert!((count(3, 128.0, 0.5) - (128.0 / 3.0 + 0.5)).abs() < 1e-12);
        assert!((count(99, 128.0, 0.5) - 0.5).abs() < 1e-12);
        assert!((count(99, 128.0, 0.0) - 128.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn what_was_seen_longest_ago_is_forgotten_at_the_bound() {
        let mut estimate = LogQ::new(0.01, 100);
        for item in 0..10_000 {
            estimate.observe(&[item, 5]);
            assert!(estimate.len() <= 100);
        }
        assert!(
            (estimate.log_count(5, 1.0, 0.0) + 2f64.ln()).abs() < 1e-6,
            "{}",
            estimate.log_count(5, 1.0, 0.0)
        );
        assert!(estimate.items.get(9_999).is_some() && estimate.items.get(0).is_none());
    }

    #[test]
    fn a_restored_estimate_continues_with_the_same_bits() {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let batch = |random: &mut ChaCha8Rng| -> Vec<u64> {
            (0..32).map(|_| random.random_range(0..200)).collect()
        };
        let mut estimate = LogQ::new(0.01, 150);
        (0..50).for_each(|_| estimate.observe(&batch(&mut random)));
        let stored = postcard::to_allocvec(&estimate).unwrap();
        let restored: LogQ = postcard::from_bytes(&stored).unwrap();
        let mut restored = restored.with_capacity(150);
        for _ in 0..50 {
            let items = batch(&mut random);
            estimate.observe(&items);
            restored.observe(&items);
        }
        assert_eq!(
            postcard::to_allocvec(&restored).unwrap(),
            postcard::to_allocvec(&estimate).unwrap()
        );
    }
}
