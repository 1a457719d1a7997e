//! What is told of orphans, and what is not: on counts as a joiner makes them.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use sluice_features::time::EventTime;

use super::*;
use crate::clock::Clock;

/// Joiners of several shards that count outcomes of one type, and who looks at them.
struct Shop {
    counts: Vec<JoinCounts>,
    orphans: Orphans,
    clock: Clock,
    random: StdRng,
}

impl Shop {
    fn new(seed: u64, shards: usize) -> Self {
        let counts = JoinCounts { kinds: vec![KindCounts::default()], ..JoinCounts::default() };
        Self {
            counts: vec![counts; shards],
            orphans: Orphans::default(),
            clock: Clock::manual(EventTime(0)),
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Counts so many outcomes of a shard, each of which has no impression with this probability.
    fn send(&mut self, shard: usize, outcomes: u64, share: f64) {
        for _ in 0..outcomes {
            let orphan = self.random.random_bool(share);
            self.count(shard, 1, |kind| {
                if orphan {
                    kind.orphaned[Orphan::NoImpression as usize] += 1;
                } else {
                    kind.attributed += 1;
                }
            });
        }
        self.counts[shard].opened += outcomes;
    }

    /// Counts outcomes of a shard as the function says.
    fn count(&mut self, shard: usize, outcomes: u64, fate: impl FnOnce(&mut KindCounts)) {
        let kind = &mut self.counts[shard].kinds[0];
        kind.arrived += outcomes;
        fate(kind);
        assert_eq!(kind.arrived, kind.fates());
    }

    /// Looks so many seconds later.
    fn look(&mut self, seconds: u64) -> Vec<Unusual> {
        self.clock.turn(Duration::from_secs(seconds));
        let counts: Vec<&JoinCounts> = self.counts.iter().collect();
        self.orphans.look(&counts, 0, self.clock.steady())
    }

    fn is_unusual(&self) -> bool {
        self.orphans.unusual().next().is_some()
    }
}

/// A shop whose orphans were usual for some windows.
fn usual(share: f64) -> Shop {
    let mut shop = Shop::new(7, 1);
    shop.look(0);
    for _ in 0..20 {
        shop.send(0, FEWEST, share);
        assert_eq!(shop.look(60), []);
    }
    shop
}

#[test]
fn a_constant_share_is_never_told_however_many_partitions_windows_and_outcomes() {
    // By chance once in a thousand million windows: not in these 10,000 or so.
    for run in 0..400 {
        let mut shop = Shop::new(run, 1 + run as usize % 7);
        let shards = shop.counts.len();
        let shares: Vec<f64> =
            (0..shards).map(|_| shop.random.random_range(0.0..0.6_f64).powi(2)).collect();
        let portion = 1 + shop.random.random_range(0..300 / shards as u64);
        for look in 0..120 {
            for (shard, share) in shares.iter().enumerate() {
                shop.send(shard, portion * (1 + shard as u64), *share);
            }
            assert_eq!(shop.look(25), [], "run {run}, look {look}: {shares:?}");
        }
    }
}

#[test]
fn a_jump_from_2_to_40_percent_is_told_within_400_outcomes_and_ends_when_it_is_usual_again() {
    for run in 0..200 {
        let mut shop = Shop::new(run, 1 + run as usize % 4);
        let shards = shop.counts.len() as u64;
        shop.look(0);
        // Where in a window it begins differs from run to run.
        for outcome in 0..5_000 + 13 * run {
            shop.send((outcome % shards) as usize, 1, 0.02);
            assert_eq!(shop.look(1), []);
        }
        let mut after = 0;
        let found = loop {
            after += 1;
            shop.send((after % shards) as usize, 1, 0.4);
            if let Some(found) = shop.look(1).pop() {
                break found;
            }
            assert!(after < 2 * FEWEST, "run {run}: not told after {after}");
        };
        assert_eq!((found.outcomes, found.reason), (FEWEST, Orphan::NoImpression));
        assert!(found.orphans > 20 && (found.usual - 0.02).abs() < 0.01, "{found:?}");
        // What lasts does not become usual.
        for _ in 0..20 * FEWEST {
            shop.send(0, 1, 0.4);
            shop.look(1);
            assert!(shop.is_unusual());
        }
        let mut after = 0;
        while shop.is_unusual() {
            after += 1;
            shop.send((after % shards) as usize, 1, 0.02);
            shop.look(1);
            // A window may have some more by chance.
            assert!(after < 4 * FEWEST, "run {run}: not over after {after}");
        }
    }
}

#[test]
fn partitions_that_are_read_from_their_middle_one_after_another_are_no_incident() {
    for run in 0..50 {
        let mut shop = Shop::new(run, 4);
        shop.look(0);
        for round in 0..200 {
            for shard in 0..4 {
                // Each begins 40 rounds after the one before, and has its impressions after 20 more.
                let Some(age) = u32::checked_sub(round, 40 * shard) else { continue };
                let share = 0.01 + 0.99 * 0.8_f64.powi(age as i32);
                shop.send(shard as usize, 150, share);
            }
            assert_eq!(shop.look(60), [], "run {run}, round {round}");
        }
    }
}

#[test]
fn it_is_told_once_in_ten_minutes_and_silence_does_not_end_it() {
    let mut shop = usual(0.02);
    let mut told = 0;
    for _ in 0..21 {
        shop.send(0, FEWEST, 1.0);
        told += shop.look(60).len();
    }
    assert_eq!(told, 3);
    assert_eq!(shop.look(600).len(), 1, "nothing says that it is mended");
    shop.send(0, FEWEST, 0.02);
    assert_eq!(shop.look(60), []);
    assert!(!shop.is_unusual());
    shop.send(0, FEWEST, 1.0);
    assert_eq!(shop.look(60).len(), 1, "the next one is another");
}

#[test]
fn what_waits_for_its_impression_is_told_before_it_is_given_up() {
    let mut shop = usual(0.0);
    shop.count(0, FEWEST, |kind| kind.waiting += FEWEST);
    let told = shop.look(60);
    assert_eq!((told[0].orphans, told[0].reason), (FEWEST, Orphan::NoImpression));
    assert_eq!(told[0].remedy, "no impressions come: look at what sends them");
    // Their impressions come after all: that is no negative share, and no second incident.
    shop.count(0, FEWEST, |kind| {
        kind.attributed += 2 * FEWEST;
        kind.waiting = 0;
    });
    assert_eq!(shop.look(60), []);
    assert!(!shop.is_unusual());
    // Being given up at last is no news of the outcomes that come meanwhile.
    shop.count(0, 3 * FEWEST, |kind| kind.waiting += 3 * FEWEST);
    assert_eq!(shop.look(60).len(), 1);
    shop.send(0, FEWEST, 0.0);
    shop.count(0, 0, |kind| {
        kind.orphaned[Orphan::NoImpression as usize] += kind.waiting;
        kind.waiting = 0;
    });
    shop.look(60);
    assert!(!shop.is_unusual());
}

#[test]
fn the_commonest_reason_is_named_with_its_remedy() {
    let remedy = |reason: Orphan| {
        let mut shop = usual(0.02);
        shop.counts[0].opened += 500;
        // Copies and behaviours that are no task have no fate here.
        shop.count(0, 1_000, |kind| {
            (kind.duplicate, kind.extra) = (400, 200);
            kind.attributed += 240;
            kind.orphaned[Orphan::NoImpression as usize] += 50;
            kind.orphaned[reason as usize] += 110;
        });
        let told = shop.look(60);
        assert_eq!((told[0].reason, told[0].outcomes, told[0].orphans), (reason, 400, 160));
        told[0].remedy
    };
    for (reason, part) in [
        (Orphan::NoImpression, "send the impression"),
        (Orphan::OutsideWindow, "raise the window"),
        (Orphan::BeforeImpression, "the clock of one of the senders is wrong"),
        (Orphan::OtherItem, "an id of its own"),
        (Orphan::Overflow, "room"),
    ] {
        assert!(remedy(reason).contains(part), "{reason:?}: {}", remedy(reason));
    }
    let told = |split, late| {
        let mut shop = usual(0.02);
        shop.counts[0].opened += 500;
        shop.count(0, 400, |kind| {
            kind.late_impressions += late;
            kind.waiting += 400;
        });
        shop.clock.turn(SPAN);
        let counts: Vec<&JoinCounts> = shop.counts.iter().collect();
        shop.orphans.look(&counts, split, shop.clock.steady())[0].remedy
    };
    assert!(told(7, 0).contains("several partitions"));
    assert!(told(7, 300).contains("window for this type is over"));
    assert!(told(0, 200).contains("send the impression"));
}

#[test]
fn what_was_counted_before_the_start_is_what_was_usual() {
    let mut shop = Shop::new(3, 2);
    shop.send(0, 100_000, 0.02);
    shop.send(1, 100_000, 0.2);
    shop.look(0);
    // As it was.
    shop.send(1, 400, 0.2);
    assert_eq!(shop.look(60), []);
    shop.send(0, 400, 0.2);
    assert_eq!(shop.look(60).len(), 1);
}

#[test]
fn neither_few_outcomes_nor_a_small_difference_nor_other_fates_are_told() {
    let mut shop = usual(0.02);
    shop.send(0, FEWEST - 1, 1.0);
    assert_eq!(shop.look(600), [], "too few");
    let mut shop = usual(0.02);
    shop.send(0, FEWEST, 1.0);
    assert_eq!(shop.look(59), [], "too soon");
    let mut shop = usual(0.3);
    shop.send(0, 200_000, 0.55);
    assert_eq!(shop.look(60), [], "less than twice");
    let mut shop = usual(0.001);
    shop.send(0, 200_000, 0.04);
    assert_eq!(shop.look(60), [], "less than 5 points");
    let mut shop = usual(0.02);
    shop.count(0, 5_000, |kind| {
        kind.duplicate += 2_000;
        kind.repeated += 1_000;
        kind.late += 1_000;
        kind.extra += 1_000;
    });
    assert_eq!(shop.look(60), [], "each of these is counted by itself");
}
