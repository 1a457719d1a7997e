//! How much memory the state takes, and what goes where partitions share a bound that is reached.
//!
//! Ids of events and waiting outcomes decide what is learned, so what goes at their bounds follows from the records alone: their bytes are counted
//! by their number. The other parts are measured, and only reading waits for them.

use sluice_features::attribution::JoinLimits;
use sluice_features::time::Span;

use super::shard::Shard;
use super::{Pipeline, Rules};
use crate::config::{Part, Share};

/// An id is remembered for so long of event time at least.
const SEEN_FOR: Span = Span::seconds(86_400);

/// So small a part of a bound is made free at a time, so that not every event looks at all shards.
const FREED: u64 = 64;

/// What may be added before all shards are looked at again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Left {
    ids: u64,
    waiting: u64,
}

/// What a shard takes of the bounds that are shared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    ids: u64,
    waiting: u64,
}

impl Taken {
    pub(super) fn by(shard: &Shard) -> Self {
        Self {
            ids: shard.joiner.seen_memory() as u64,
            waiting: shard.joiner.waiting_memory() as u64,
        }
    }
}

/// What takes more than its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// What it is.
    pub share: Share,
    /// How many bytes it takes.
    pub found: u64,
    /// How many it may take.
    pub most: u64,
}

impl Rules {
    /// Returns how many bytes users in memory may take, in all shards, where what else is known of users and items takes so many: most of the rest,
    /// and a sixteenth in any case.
    fn resident_bytes(&self, others: u64) -> usize {
        let all = self.bounds.of(Share::State);
        let rest = (all / 8 * 7).saturating_sub(others).max(all / 16);
        usize::try_from(rest).unwrap_or(usize::MAX)
    }

    /// Returns the bounds of one joiner: what all of them share.
    pub(super) fn limits(&self) -> JoinLimits {
        let most = |share| usize::try_from(self.bounds.of(share)).unwrap_or(usize::MAX);
        JoinLimits {
            early_bytes: most(Share::Waiting),
            seen_for: SEEN_FOR,
            seen_bytes: most(Share::Ids),
        }
    }
}

impl Pipeline {
    /// Returns about how many bytes each part of the state takes, by [`Part`]; nothing of tables, which are the learner's. O(1) a shard.
    pub fn memory(&self) -> [u64; Part::ALL.len()] {
        let shared = &self.shared;
        let sum = |of: fn(&Shard) -> usize| self.shards.iter().map(of).sum::<usize>();
        Part::ALL.map(|part| {
            let bytes = match part {
                Part::Open => self.open_bytes(),
                Part::Ids => sum(|shard| shard.joiner.seen_memory()),
                Part::Waiting => sum(|shard| shard.joiner.waiting_memory()),
                Part::Counters => shared.counters.memory(),
                Part::Sequences => sum(|shard| shard.sequences.memory()),
                Part::Names => shared.names_memory(),
                Part::Catalogue => shared.item_features.memory() + shared.user_features.memory(),
                // One in use, and one that is being made.
                Part::Index => 2 * self.rules.vector_bytes * shared.assortment.drawable() as usize,
                Part::Tables => 0,
            };
            bytes as u64
        })
    }

    /// Lets users in memory take what is left of the bound that they share.
    pub fn fit_users(&mut self) {
        let fixed: usize = self.shards.iter().map(|shard| shard.sequences.fixed_memory()).sum();
        let others = Part::ALL.into_iter().zip(self.memory());
        let others = others
            .filter(|(part, _)| part.share() == Share::State && *part != Part::Sequences)
            .map(|(_, bytes)| bytes);
        let most = self.rules.resident_bytes(others.sum::<u64>() + fixed as u64);
        self.most_users = most;
        let each = most / self.shards.len();
        self.shards.iter_mut().for_each(|shard| shard.sequences.bound(each));
    }

    /// Returns how many bytes users take who have changed since the checkpoint in force: they are free, if need be, when the next one is.
    pub fn unstored_users(&self) -> usize {
        self.shards.iter().map(|shard| shard.sequences.unstored_bytes()).sum()
    }

    /// Returns how many bytes users take who are stored as they are: they make room when it is needed.
    pub fn spare_users(&self) -> usize {
        let spare = |shard: &Shard| {
            let sequences = &shard.sequences;
            let kept = sequences.fixed_memory() + sequences.unstored_bytes();
            sequences.memory().saturating_sub(kept)
        };
        if self.most_users == usize::MAX { 0 } else { self.shards.iter().map(spare).sum() }
    }

    /// Returns what takes more than its bound of that which only reading less can bound: open impressions; what is known of users and items.
    pub fn over(&self) -> Option<Over> {
        let memory = self.memory();
        let over = |share| {
            let parts = Part::ALL.into_iter().zip(memory).filter(|(part, _)| part.share() == share);
            let spare = if share == Share::State { self.spare_users() as u64 } else { 0 };
            let found = parts.map(|(_, bytes)| bytes).sum::<u64>().saturating_sub(spare);
            let most = self.rules.bounds.of(share);
            (found > most).then_some(Over { share, found, most })
        };
        over(Share::Open).or_else(|| over(Share::State))
    }

    /// Makes room where what a shard has added since `before` has brought all shards together above a bound: the one that has most of it forgets.
    pub(super) fn keep_within(&mut self, number: usize, before: Taken) {
        let after = Taken::by(&self.shards[number]);
        let Self { shards, left, rules, .. } = self;
        left.ids = share_out(
            shards,
            left.ids.checked_sub(after.ids.saturating_sub(before.ids)),
            rules.bounds.of(Share::Ids),
            |shard| Taken::by(shard).ids,
            |shard| shard.joiner.forget_ids(),
        );
        left.waiting = share_out(
            shards,
            left.waiting.checked_sub(after.waiting.saturating_sub(before.waiting)),
            rules.bounds.of(Share::Waiting),
            |shard| Taken::by(shard).waiting,
            |shard| shard.joiner.give_up_waiting(),
        );
    }
}

/// Returns what may be added. Where that is not known any more (`left` is `None`), looks at all shards: above the bound the largest give up
/// until a little is free.
fn share_out(
    shards: &mut [Shard],
    left: Option<u64>,
    most: u64,
    takes: fn(&Shard) -> u64,
    give_up: fn(&mut Shard) -> bool,
) -> u64 {
    if let Some(left) = left {
        return left;
    }
    let mut sum: u64 = shards.iter().map(takes).sum();
    if sum > most {
        let wanted = most - most / FREED;
        while sum > wanted {
            let Some(largest) = shards.iter_mut().max_by_key(|shard| takes(shard)) else { break };
            let before = takes(largest);
            if !give_up(largest) {
                break;
            }
            sum -= before.saturating_sub(takes(largest));
        }
    }
    most.saturating_sub(sum)
}

#[cfg(test)]
mod tests;
