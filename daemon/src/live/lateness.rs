//! Whether events come after their windows: impressions and outcomes that are too late are masked or lost, and learning goes on without them.
//!
//! Of impressions, and of each type of behaviour, those of the last minute are looked at, and where these are fewer than a hundred, the last
//! hundred. More than one of twenty too late is told, in the log and in `/status`; more than half makes the daemon useless, and `/ready` says so
//! until fewer than a quarter are.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_features::attribution::JoinCounts;
use sluice_features::funnel::Funnel;

use crate::telemetry::RateLimit;

/// How far back is looked.
const MINUTE: Duration = Duration::from_secs(60);
/// The fewest events that say anything.
const FEWEST: u64 = 100;
/// What mends it.
pub const REMEDY: &str = "raise funnel.lateness by as much as they are late, or look at the senders' clocks and at the order in which events are sent";

/// How many events came, and how many of them too late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All that came.
    pub came: u64,
    /// Those after a window that they belong to.
    pub late: u64,
}

/// What is known of one type of event.
#[derive(Debug, Default)]
struct Type {
    /// The counts since the model began, by when they were found to be other ones.
    looks: VecDeque<(Duration, Count)>,
    /// Those of the last minute, or of the last hundred events.
    last: Count,
    useless: bool,
    warned: RateLimit,
}

/// What came too late of late, by type: impressions first, then behaviours.
#[derive(Debug, Default)]
pub struct Lateness {
    types: Vec<Type>,
}

impl Count {
    /// Returns the counts of impressions and of each type of behaviour.
    pub fn all(counts: &JoinCounts) -> Vec<Self> {
        let shown = Self { came: counts.opened + counts.unopened, late: counts.late_impressions };
        let done = counts.kinds.iter().map(|kind| Self { came: kind.arrived, late: kind.late });
        [shown].into_iter().chain(done).collect()
    }

    /// Returns the name of the type in this place of [`Self::all`].
    pub fn name(funnel: &Funnel, place: usize) -> &str {
        let behaviour = |place| funnel.behaviour_names().nth(place);
        place.checked_sub(1).and_then(behaviour).unwrap_or(funnel.entry_name())
    }

    /// Tells whether more than one of twenty is late.
    pub fn is_much(self) -> bool {
        self.came >= FEWEST && 20 * self.late > self.came
    }

    /// Returns the counts for readers of `/status`.
    pub fn object(self, name: &str) -> Value {
        json!({"type": name, "came": self.came, "late": self.late, "remedy": REMEDY})
    }
}

impl Lateness {
    /// Looks at the counts since the model began. Returns the types, by their places, that are to be told now.
    pub fn look(&mut self, counts: &JoinCounts, now: Duration) -> Vec<(usize, Count)> {
        let counts = Count::all(counts);
        self.types.resize_with(counts.len(), Type::default);
        let types = self.types.iter_mut().zip(counts).enumerate();
        types.filter_map(|(place, (seen, count))| Some((place, seen.look(count, now)?))).collect()
    }

    /// Returns the types of which more than one of twenty came late.
    pub fn much(&self) -> impl Iterator<Item = (usize, Count)> {
        let types = self.types.iter().map(|seen| seen.last).enumerate();
        types.filter(|(_, last)| last.is_much())
    }

    /// Returns the types most of which came late.
    pub fn most(&self) -> impl Iterator<Item = (usize, Count)> {
        let useless = self.types.iter().enumerate().filter(|(_, seen)| seen.useless);
        useless.map(|(place, seen)| (place, seen.last))
    }
}

impl Type {
    fn look(&mut self, count: Count, now: Duration) -> Option<Count> {
        let news = self.looks.back().is_none_or(|(_, newest)| *newest != count);
        if news {
            self.looks.push_back((now, count));
        }
        // What lies before the second look is given up once that is long enough ago and enough has come since.
        let enough = |(then, before): &(Duration, Count)| {
            *then + MINUTE <= now && before.came + FEWEST <= count.came
        };
        while self.looks.get(1).is_some_and(enough) {
            self.looks.pop_front();
        }
        let (_, before) = self.looks.front()?;
        let last = Count { came: count.came - before.came, late: count.late - before.late };
        if last.came < FEWEST {
            return None;
        }
        self.last = last;
        self.useless =
            if self.useless { 4 * last.late >= last.came } else { 2 * last.late > last.came };
        (news && last.is_much() && self.warned.allows(now)).then_some(last)
    }
}

#[cfg(test)]
mod tests {
    use sluice_features::attribution::KindCounts;

    use super::*;

    /// A joiner that has counted outcomes of one type, and who looks at it each second.
    struct Shop {
        counts: JoinCounts,
        lateness: Lateness,
        now: u64,
    }

    impl Shop {
        fn new(before: u64) -> Self {
            let kinds = vec![KindCounts { arrived: before, late: before, ..KindCounts::default() }];
            let counts = JoinCounts { opened: 7, kinds, ..JoinCounts::default() };
            let mut shop = Self { counts, lateness: Lateness::default(), now: 0 };
            assert_eq!(shop.second(0, 0), [], "what came before the start says nothing");
            shop
        }

        fn second(&mut self, clicks: u64, late: u64) -> Vec<(usize, Count)> {
            self.counts.kinds[0].arrived += clicks;
            self.counts.kinds[0].late += late;
            self.now += 1;
            self.lateness.look(&self.counts, Duration::from_secs(self.now))
        }

        fn useless(&self) -> bool {
            self.lateness.most().next().is_some()
        }
    }

    #[test]
    fn one_of_twenty_is_told_and_half_of_them_is_a_reason_not_to_be_ready() {
        let mut shop = Shop::new(1_000_000);
        assert_eq!(shop.second(99, 99), [], "too few to say");
        assert!(!shop.useless());
        let told = shop.second(1, 0);
        assert_eq!(told, [(1, Count { came: 100, late: 99 })]);
        assert!(shop.useless());
        // 99 of 397 are less than a quarter; they are told on in `/status`, not in the log.
        assert_eq!(shop.second(296, 0), []);
        assert!(shop.useless());
        assert_eq!(shop.second(1, 0), []);
        assert!(!shop.useless() && shop.lateness.much().next().is_some());
        // A minute later they are forgotten.
        for _ in 0..60 {
            shop.second(100, 5);
        }
        assert!(shop.lateness.much().next().is_none());
        shop.second(100, 6);
        assert!(shop.lateness.much().next().is_some());
    }

    #[test]
    fn silence_changes_nothing_and_impressions_are_judged_by_themselves() {
        let mut shop = Shop::new(0);
        shop.counts.opened += 20;
        shop.counts.unopened += 80;
        shop.counts.late_impressions += 81;
        assert_eq!(shop.second(1000, 0), [(0, Count { came: 100, late: 81 })]);
        for _ in 0..600 {
            assert_eq!(shop.second(0, 0), []);
        }
        assert_eq!(shop.lateness.most().collect::<Vec<_>>(), [(0, Count { came: 100, late: 81 })]);
        // However few come: the newest hundred decide.
        for _ in 0..100 {
            assert!(shop.lateness.most().next().is_some());
            shop.now += 100;
            shop.counts.opened += 1;
            shop.second(0, 0);
        }
        assert_eq!(shop.lateness.most().next(), None);
        for _ in 0..1_000 {
            shop.second(1, 0);
        }
        assert!(shop.lateness.types.iter().all(|seen| seen.looks.len() <= 102));
    }
}
