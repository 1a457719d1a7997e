//! Putting the state back: the other half of [`super::state`].

use sluice_features::attribution::Joiner;
use sluice_features::event::BehaviourType;
use sluice_features::ids::{ItemId, UserId};
use sluice_features::schema::Counter;
use sluice_features::time::EventTime;

use super::shared::counter_entries;
use super::state::{Features, NAMES, Piece, StateError, Stored, Whole, decode};
use super::{Pipeline, Rules};

/// A pipeline whose state is being put back: first the whole, then the pieces, names before features or after, in any order of
/// shards, names of one kind in the order of their numbers.
pub struct Restoring {
    pipeline: Pipeline,
    items: usize,
    users: usize,
    dropped: u64,
}

impl Restoring {
    /// Begins with the whole. `keep_open` says whether open impressions belong to the schema of `rules`; they are dropped otherwise,
    /// with all that their joiners know, and so are counters that the schema does not have like that, of the same tasks by name. Types of behaviour
    /// keep their numbers.
    ///
    /// # Errors
    /// When the bytes are no state, or one of another funnel; [`StateError::Kinds`] when there is no number left for a new type of behaviour.
    pub fn new(rules: Rules, whole: &[u8], keep_open: bool) -> Result<Self, StateError> {
        let whole: Whole = decode("state of the shards", whole)?;
        let kinds = whole.kinds.configured_as(&rules.funnel).map_err(StateError::Kinds)?;
        let mut pipeline = Pipeline::with_kinds(rules, whole.shards.len(), kinds);
        let mut dropped = 0;
        for (shard, state) in pipeline.shards.iter_mut().zip(whole.shards) {
            let rules = &pipeline.rules;
            if keep_open {
                let joiner = Joiner::restore(&rules.funnel, rules.limits(), state.joiner);
                shard.joiner = joiner.map_err(StateError::Funnel)?;
            } else {
                dropped += state.joiner.open() as u64;
            }
            shard.spill.restore(state.spill, keep_open);
            shard.watermark = state.watermark.with_lateness(rules.lateness);
            shard.idle = state.idle;
            shard.arrivals = state.arrivals;
            shard.next = state.next;
        }
        let shared = &mut pipeline.shared;
        for id in whole.categories {
            shared.categories.enter(id);
        }
        let counters = &pipeline.rules.schema.counters;
        let same_task = |counter: &Counter| {
            let task = BehaviourType(counter.task as u8);
            whole.kinds.name(task) == shared.kinds.name(task)
        };
        if whole.counters.count_by(counters) && counters.iter().all(same_task) {
            shared.counters = whole.counters.bounded(counter_entries(&pipeline.rules));
        }
        shared.popular = whole.popular;
        shared.popular.rank();
        shared.assortment = whole.assortment;
        shared.assortment.sum_up();
        shared.negatives = whole.negatives;
        pipeline.counts = whole.counts;
        Ok(Self { pipeline, items: whole.items, users: whole.users, dropped })
    }

    /// Puts back a piece.
    ///
    /// # Errors
    /// When it cannot be read or does not fit to what is there.
    pub fn piece(&mut self, piece: Piece, bytes: &[u8]) -> Result<(), StateError> {
        let shared = &mut self.pipeline.shared;
        match piece {
            Piece::Segment { shard, key } => {
                let expected = self.pipeline.shards.len();
                let shard = self.pipeline.shards.get_mut(shard as usize).ok_or({
                    StateError::Pieces { what: "shards", expected, found: shard as usize + 1 }
                })?;
                shard.sequences.restore(key, bytes, &shared.kinds).map_err(StateError::Segment)?;
            }
            // They stay where they are until somebody asks for them.
            Piece::Open { .. } => {}
            Piece::Items(page) => {
                in_order("items", page, shared.items.len())?;
                for (text, first) in decode::<Vec<(String, EventTime)>>("names of items", bytes)? {
                    let known = shared.items.len();
                    if shared.items.enter(ItemId::of(&text).0, &text) != Ok(known as u32) {
                        return Err(doubled("items", known));
                    }
                    shared.first_seen.push(first);
                }
            }
            Piece::Users(page) => {
                in_order("users", page, shared.users.len())?;
                for text in decode::<Vec<String>>("names of users", bytes)? {
                    let known = shared.users.len();
                    if shared.users.enter(UserId::of(&text).0, &text) != Ok(known as u32) {
                        return Err(doubled("users", known));
                    }
                }
            }
            Piece::ItemFeatures(_) => {
                for (id, versions) in decode::<Features>("features of items", bytes)? {
                    shared.item_features.restore(id, versions);
                }
            }
            Piece::UserFeatures(_) => {
                for (id, versions) in decode::<Features>("features of users", bytes)? {
                    shared.user_features.restore(id, versions);
                }
            }
        }
        Ok(())
    }

    /// Returns the pipeline, and how many open impressions were dropped.
    ///
    /// # Errors
    /// When names are missing.
    pub fn finish(mut self) -> Result<(Pipeline, u64), StateError> {
        let (items, users) = (self.pipeline.shared.items.len(), self.pipeline.shared.users.len());
        for (what, expected, found) in [("items", self.items, items), ("users", self.users, users)]
        {
            if expected != found {
                return Err(StateError::Pieces { what, expected, found });
            }
        }
        self.pipeline.shared.stored = Stored::all(items, users);
        for number in 0..self.pipeline.shards.len() {
            let horizon = self.pipeline.read_from(number);
            self.pipeline.shards[number].sequences.trim(horizon);
        }
        Ok((self.pipeline, self.dropped))
    }
}

fn in_order(what: &'static str, page: u32, known: usize) -> Result<(), StateError> {
    let expected = page as usize * NAMES;
    if expected == known {
        return Ok(());
    }
    Err(StateError::Pieces { what, expected, found: known })
}

fn doubled(what: &'static str, known: usize) -> StateError {
    StateError::Pieces { what, expected: known + 1, found: known }
}
