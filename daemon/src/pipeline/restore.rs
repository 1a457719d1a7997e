//! Putting the state back: the other half of [`super::state`].

use sluice_features::attribution::Joiner;
use sluice_features::dictionary::{Dictionary, Misfit, Name};
use sluice_features::event::BehaviourType;
use sluice_features::schema::Counter;
use sluice_features::sequence::SequencePart;
use sluice_features::wire::Role;

use super::names::{read_names, read_texts, wrong};
use super::shared::counter_entries;
use super::state::{Features, NAMES, Piece, Reach, StateError, Stored, Whole, decode};
use super::{Pipeline, Rules};

/// A pipeline whose state is being put back: first the whole, then the pieces, names before features or after, in any order of
/// shards, names of one kind in the order of their numbers, and strings ([`Restoring::wanted`]) behind all names.
pub struct Restoring {
    pipeline: Pipeline,
    items: usize,
    users: usize,
    reach: Reach,
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
        let packs = whole.shards.iter().map(|shard| shard.sequences.next()).collect();
        let reach = Reach { items: whole.items, users: whole.users, packs };
        for (shard, state) in pipeline.shards.iter_mut().zip(whole.shards) {
            let rules = &pipeline.rules;
            if keep_open {
                let joiner = Joiner::restore(&rules.funnel, rules.limits(), state.joiner);
                shard.joiner = joiner.map_err(StateError::Funnel)?;
            } else {
                dropped += state.joiner.open() as u64;
            }
            shard.spill.restore(state.spill, keep_open);
            shard.sequences.begin(state.sequences);
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
        Ok(Self { pipeline, items: whole.items, users: whole.users, reach, dropped })
    }

    /// Tells whether a piece is a page that the whole does not know: it was written ahead of a checkpoint that never came.
    pub fn is_beyond(&self, piece: Piece) -> bool {
        piece.is_beyond(&self.reach)
    }

    /// Puts back a piece.
    ///
    /// # Errors
    /// When it cannot be read or does not fit to what is there.
    pub fn piece(&mut self, piece: Piece, bytes: &[u8]) -> Result<(), StateError> {
        let shared = &mut self.pipeline.shared;
        match piece {
            Piece::Sequences { shard, part: SequencePart::Index(part) } => {
                let expected = self.pipeline.shards.len();
                let shard = self.pipeline.shards.get_mut(shard as usize).ok_or({
                    StateError::Pieces { what: "shards", expected, found: shard as usize + 1 }
                })?;
                let restored = shard.sequences.restore(part, bytes);
                restored.then_some(()).ok_or(StateError::Index)?;
            }
            // They stay where they are until somebody asks for them.
            Piece::Open { .. } | Piece::Sequences { part: SequencePart::Pack(..), .. } => {}
            Piece::Items(page) => {
                in_order("items", page, shared.items.len())?;
                let (names, first) = read_names(bytes).ok_or_else(|| broken(Role::Item, page))?;
                put_back(&mut shared.items, "items", names)?;
                shared.first_seen.extend(first);
            }
            Piece::Users(page) => {
                in_order("users", page, shared.users.len())?;
                let (names, _) = read_names(bytes).ok_or_else(|| broken(Role::User, page))?;
                put_back(&mut shared.users, "users", names)?;
            }
            Piece::Texts(whose, page) => {
                let dictionary = match whose {
                    Role::Item => &mut shared.items,
                    Role::User => &mut shared.users,
                };
                let texts = read_texts(bytes).filter(|_| dictionary.filling() == Some(page));
                let restored = texts.map(|texts| dictionary.restore_texts(texts));
                if restored != Some(Ok(())) {
                    return Err(broken(whose, page));
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

    /// Returns what is to be put back once all names are: the strings of the pages that fill. All others stay where they are.
    pub fn wanted(&self) -> impl Iterator<Item = Piece> + use<> {
        let shared = &self.pipeline.shared;
        let filling = |whose| Some(Piece::Texts(whose, shared.dictionary(whose).filling()?));
        [filling(Role::Item), filling(Role::User)].into_iter().flatten()
    }

    /// Returns how far the pages and packs of the whole reach.
    pub fn reach(&self) -> Reach {
        self.reach.clone()
    }

    /// Returns the pipeline, and how many open impressions were dropped.
    ///
    /// # Errors
    /// When names are missing, or strings of them that were wanted.
    pub fn finish(mut self) -> Result<(Pipeline, u64), StateError> {
        let (items, users) = (self.pipeline.shared.items.len(), self.pipeline.shared.users.len());
        for (what, expected, found) in [("items", self.items, items), ("users", self.users, users)]
        {
            if expected != found {
                return Err(StateError::Pieces { what, expected, found });
            }
        }
        for whose in [Role::Item, Role::User] {
            let dictionary = self.pipeline.shared.dictionary(whose);
            if let Some(page) =
                dictionary.filling().filter(|page| dictionary.texts(*page).is_none())
            {
                return Err(StateError::Names(wrong(whose, page, "is not there")));
            }
        }
        let found = self.pipeline.shared.first_seen.len();
        if found != items {
            return Err(StateError::Pieces { what: "first sights", expected: items, found });
        }
        self.pipeline.shared.stored = Stored::all(items, users);
        if !self.pipeline.shards.iter().all(|shard| shard.sequences.is_whole()) {
            return Err(StateError::Index);
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

/// Puts back the next names of a kind.
fn put_back(
    dictionary: &mut Dictionary,
    what: &'static str,
    names: impl Iterator<Item = Name>,
) -> Result<(), StateError> {
    for name in names {
        let known = dictionary.len();
        let doubled = |Misfit| StateError::Pieces { what, expected: known + 1, found: known };
        dictionary.restore(name).map_err(doubled)?;
    }
    Ok(())
}

fn broken(whose: Role, page: u32) -> StateError {
    StateError::Names(wrong(whose, page, "is no page"))
}
