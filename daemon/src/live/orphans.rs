//! Whether more outcomes than usual find no impression: their labels are missing, and nothing else says why.
//!
//! An outcome counts from its arrival: one that waits for its impression is without one until that comes, for what never comes would be told
//! only when the window is over. Of each type the outcomes of a window (at least `FEWEST` and `SPAN`) are compared with what was usual in
//! the windows before, which weigh a thousandth less with each, and at the start with what the joiner has counted since the model began.
//! A share is above what is usual when it is so by `MORE` points at least and twice, and chance explains it less than once in a thousand
//! million windows: the logarithm of the likelihood ratio of two binomials to one is above `SURE`. It is usual again within half of that; until
//! then the window is not what is usual. Without outcomes nothing says that it is mended.
//!
//! Each shard is compared with itself: outcomes of the first windows of a partition that is read from its middle have no impression by
//! nature, and partitions do not begin together.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_features::attribution::{JoinCounts, KindCounts, Orphan};
use sluice_features::event::BehaviourType;

use crate::telemetry::RateLimit;

/// The fewest outcomes of a type that say anything.
pub(super) const FEWEST: u64 = 200;
/// The shortest window.
const SPAN: Duration = Duration::from_secs(60);
/// So much of a share, of 1, is told at least.
const MORE: f64 = 0.05;
/// What the logarithm of the likelihood ratio has to be above: ln 10^9.
const SURE: f64 = 20.7;
/// What the windows before weigh still after each.
const DECAY: f64 = 0.999;
/// The outcomes counted before the start weigh as much as so many at most.
const KNOWN: f64 = 20_000.0;

/// What is known of orphans by type of behaviour.
#[derive(Debug, Default)]
pub struct Orphans {
    kinds: Vec<Kind>,
}

/// A type of behaviour whose outcomes find fewer impressions than usual.
#[derive(Clone, Debug, PartialEq)]
pub struct Unusual {
    /// The type.
    pub kind: BehaviourType,
    /// Outcomes of the window.
    pub outcomes: u64,
    /// How many of them have no impression.
    pub orphans: u64,
    /// The share without one that is usual.
    pub usual: f64,
    /// Why most have none.
    pub reason: Orphan,
    /// What most likely ends it.
    pub remedy: &'static str,
}

/// What is known of one type of behaviour.
#[derive(Debug, Default)]
struct Kind {
    began: Duration,
    /// By shard.
    shards: Vec<Shard>,
    unusual: Option<Unusual>,
    warned: RateLimit,
}

/// What is known of one type of behaviour in one shard.
#[derive(Debug)]
struct Shard {
    /// What was counted when the window began.
    then: Tally,
    usual: Usual,
}

/// Outcomes and those of them without an impression, as they weigh.
#[derive(Clone, Copy, Debug)]
struct Usual {
    outcomes: f64,
    orphans: f64,
}

/// What was counted of one type of behaviour.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    outcomes: u64,
    /// Without an impression, by [`Orphan::ALL`]; what waits has none yet.
    orphans: [u64; Orphan::ALL.len()],
    /// Impressions that came, and those of them that came too late for an outcome of this type.
    impressions: u64,
    late_impressions: u64,
}

/// The outcomes of a window.
#[derive(Debug, Default)]
struct Window {
    /// Of all shards.
    outcomes: u64,
    /// Of the shards of which is known what is usual.
    compared: u64,
    orphans: u64,
    /// By reason; fewer wait than before where outcomes found their impressions after all.
    reasons: [i64; Orphan::ALL.len()],
    /// Orphans among those compared, were all as usual.
    expected: f64,
    /// Sum of squared outcomes of a shard over those that say what is usual there.
    spread: f64,
    impressions: u64,
    late_impressions: u64,
}

impl Orphans {
    /// Looks at what the joiners of all shards have counted. Returns what is to be told now.
    pub fn look(
        &mut self,
        shards: &[&JoinCounts],
        split_users: u64,
        now: Duration,
    ) -> Vec<Unusual> {
        let kinds = shards.first().map_or(0, |counts| counts.kinds.len());
        self.kinds.resize_with(kinds, Kind::default);
        let mut told = Vec::new();
        for (kind, known) in (0..).map(BehaviourType).zip(&mut self.kinds) {
            let tallies = shards.iter().map(|counts| Tally::of(counts, kind));
            if known.shards.is_empty() {
                known.shards = tallies.map(Shard::new).collect();
                known.began = now;
                continue;
            }
            let tallies: Vec<Tally> = tallies.collect();
            known.look(kind, &tallies, split_users, now);
            if let Some(unusual) = &known.unusual
                && known.warned.allows(now)
            {
                told.push(unusual.clone());
            }
        }
        told
    }

    /// Returns the types whose outcomes find fewer impressions than usual.
    pub fn unusual(&self) -> impl Iterator<Item = &Unusual> {
        self.kinds.iter().filter_map(|kind| kind.unusual.as_ref())
    }
}

impl Kind {
    fn look(&mut self, kind: BehaviourType, tallies: &[Tally], split_users: u64, now: Duration) {
        let mut window = Window::default();
        for (shard, tally) in self.shards.iter().zip(tallies) {
            window.add(shard, tally);
        }
        if window.outcomes < FEWEST || now.saturating_sub(self.began) < SPAN {
            return;
        }
        let up = window.is_unusual(self.unusual.is_some());
        for (shard, tally) in self.shards.iter_mut().zip(tallies) {
            if !up {
                let (outcomes, orphans) = shard.since(tally);
                shard.usual.add(outcomes, orphans);
            }
            shard.then = *tally;
        }
        self.began = now;
        self.unusual = up.then(|| window.unusual(kind, split_users));
        if !up {
            self.warned = RateLimit::default();
        }
    }
}

impl Shard {
    fn new(tally: Tally) -> Self {
        let (outcomes, orphans) = (tally.outcomes as f64, tally.without() as f64);
        let weight = (KNOWN / outcomes).min(1.0);
        let usual = Usual { outcomes: outcomes * weight, orphans: orphans * weight };
        Self { then: tally, usual }
    }

    /// Returns the outcomes since the window began, and those of them without an impression.
    fn since(&self, tally: &Tally) -> (u64, u64) {
        let outcomes = tally.outcomes.saturating_sub(self.then.outcomes);
        // Fewer than then where outcomes of an earlier window found their impressions.
        (outcomes, tally.without().saturating_sub(self.then.without()).min(outcomes))
    }
}

impl Usual {
    fn add(&mut self, outcomes: u64, orphans: u64) {
        self.outcomes = DECAY * self.outcomes + outcomes as f64;
        self.orphans = DECAY * self.orphans + orphans as f64;
    }
}

impl Tally {
    fn of(counts: &JoinCounts, kind: BehaviourType) -> Self {
        let KindCounts {
            arrived, duplicate, extra, waiting, late_impressions, mut orphaned, ..
        } = counts.kinds[usize::from(kind.0)];
        orphaned[Orphan::NoImpression as usize] += waiting;
        Self {
            outcomes: arrived - duplicate - extra,
            orphans: orphaned,
            impressions: counts.opened + counts.unopened,
            late_impressions,
        }
    }

    fn without(&self) -> u64 {
        self.orphans.iter().sum()
    }
}

impl Window {
    fn add(&mut self, shard: &Shard, tally: &Tally) {
        let (outcomes, orphans) = shard.since(tally);
        self.outcomes += outcomes;
        self.impressions += tally.impressions.saturating_sub(shard.then.impressions);
        self.late_impressions += tally.late_impressions.saturating_sub(shard.then.late_impressions);
        for (sum, (now, then)) in
            self.reasons.iter_mut().zip(tally.orphans.iter().zip(shard.then.orphans))
        {
            *sum += now.cast_signed() - then.cast_signed();
        }
        let Usual { outcomes: known, orphans: without } = shard.usual;
        if known > 0.0 {
            self.compared += outcomes;
            self.orphans += orphans;
            self.expected += outcomes as f64 * without / known;
            self.spread += (outcomes as f64).powi(2) / known;
        }
    }

    /// Tells whether the share of orphans is above what is usual, or, where it was in the window before, is not usual again.
    fn is_unusual(&self, was: bool) -> bool {
        if self.compared == 0 {
            return was;
        }
        let outcomes = self.compared as f64;
        let (share, usual) = (self.orphans as f64 / outcomes, self.expected / outcomes);
        let above = |much: f64| share > usual + MORE * much && share > usual * (1.0 + much);
        if was {
            return above(0.5);
        }
        // The usual share is known as well as by so many outcomes of one shard.
        let known = outcomes.powi(2) / self.spread;
        above(1.0) && likelihood_ratio(share, outcomes, usual, known) > SURE
    }

    fn unusual(&self, kind: BehaviourType, split_users: u64) -> Unusual {
        // Among equals the one named first.
        let reasons = Orphan::ALL.into_iter().rev();
        let reason = reasons.max_by_key(|reason| self.reasons[*reason as usize]);
        let reason = reason.unwrap_or(Orphan::NoImpression);
        Unusual {
            kind,
            outcomes: self.compared,
            orphans: self.orphans,
            usual: self.expected / (self.compared as f64).max(1.0),
            reason,
            remedy: self.remedy(reason, split_users),
        }
    }

    fn remedy(&self, reason: Orphan, split_users: u64) -> &'static str {
        match reason {
            Orphan::NoImpression if self.impressions == 0 => {
                "no impressions come: look at what sends them"
            }
            Orphan::NoImpression if 2 * self.late_impressions > self.impressions => {
                "most impressions come when the window for this type is over: look at what holds them up, or raise the window"
            }
            Orphan::NoImpression if split_users > 0 => {
                "events of one user lie in several partitions: key every event by its user, with one partitioner throughout"
            }
            Orphan::NoImpression => {
                "send the impression of each outcome, with the same user, item and id, into the same partition; raise the window if outcomes come later than it"
            }
            Orphan::OutsideWindow => {
                "outcomes happen after the window of the impression that they name: raise the window of this type, or look at their senders' clocks"
            }
            Orphan::BeforeImpression => {
                "outcomes happen before the impression that they name: the clock of one of the senders is wrong"
            }
            Orphan::OtherItem => {
                "outcomes name an impression of another item: give each item shown an id of its own"
            }
            Orphan::Overflow => {
                "more outcomes wait for their impressions than there is room for: look at what holds the impressions up"
            }
        }
    }
}

impl Unusual {
    /// Says it in the log; `name` is that of the type.
    pub fn tell(&self, name: &str) {
        let Self { outcomes, orphans, usual, reason, remedy, .. } = self;
        tracing::warn!(
            r#type = name,
            outcomes,
            orphans,
            usual = format!("{:.1} %", 100.0 * usual),
            reason = reason.name(),
            remedy,
            "more outcomes than usual have no impression: they are not learned"
        );
    }

    /// Returns it for readers of `/status`.
    pub fn object(&self, name: &str) -> Value {
        json!({
            "type": name,
            "outcomes": self.outcomes,
            "orphans": self.orphans,
            "usual": self.usual,
            "reason": self.reason.name(),
            "remedy": self.remedy,
        })
    }
}

/// Returns the logarithm of how much likelier two shares, each of so many, are by themselves than as one.
fn likelihood_ratio(share: f64, of: f64, other: f64, of_other: f64) -> f64 {
    let both = (share * of + other * of_other) / (of + of_other);
    of * divergence(share, both) + of_other * divergence(other, both)
}

/// Returns the Kullback-Leibler divergence of one share from another, in nats.
fn divergence(from: f64, to: f64) -> f64 {
    let term = |a: f64, b: f64| if a > 0.0 { a * (a / b).ln() } else { 0.0 };
    term(from, to) + term(1.0 - from, 1.0 - to)
}

#[cfg(test)]
mod tests;
