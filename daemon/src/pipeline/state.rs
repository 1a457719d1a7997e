//! The state as a checkpoint keeps it. With the same records and decisions afterwards a restored pipeline does the same, bit for bit.
//!
//! | part | how it is kept |
//! |---|---|
//! | sequences, names, features of items and users | in pieces ([`Piece`]); only changed ones are written again, and the strings of names lie apart ([`super::names`]) |
//! | features of open impressions that wait longer than their first window | in pages ([`super::spill`]), each written once |
//! | other open impressions, numbers of categories and of types of behaviour, counters, popularity, counts, watermarks, offsets | as a whole ([`Picture`]), written anew each time |
//!
//! Nothing of a batch is kept: before its state is taken, everything in the pipeline is cut and fetched.
//!
//! Both are taken between two records and must not hold the next one up. A picture shares its pages with the pipeline
//! ([`sluice_features::pages`]) and is written by another thread while the pipeline goes on. Changed pieces are encoded in portions
//! ahead of time ([`Pipeline::drain_changes`]); a piece that changes again is drained again, so only the last few are left to the end.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use sluice_features::assemble::{FieldValues, Negatives};
use sluice_features::assortment::Assortment;
use sluice_features::attribution::{JoinerPicture, JoinerState, OtherFunnel};
use sluice_features::catalogue::Version;
use sluice_features::counters::Counters;
use sluice_features::dictionary::PAGE;
use sluice_features::pack::OutOfReach;
use sluice_features::sequence::{KindNumbers, SequencePart, SequencesState, TooManyKinds};
use sluice_features::watermark::Watermark;
use sluice_features::wire::Role as Whose;

use super::Pipeline;
use super::counts::Counts;
use super::names::{NamesError, write_names};
use super::popular::Popular;
use super::shared::Shared;
use super::spill::SpillState;

/// Names of a piece.
pub(super) const NAMES: usize = PAGE;
/// Items or users whose features are one piece.
const FEATURES: usize = 16;
/// A page of open impressions costs as much as so many other pieces.
const COST: usize = 16;

/// A part of the state that has a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Piece {
    /// A part of the sequences of a shard.
    Sequences {
        /// The shard.
        shard: u32,
        /// Which.
        part: SequencePart,
    },
    /// Names of items by number, without their strings, with the time when each was first seen.
    Items(u32),
    /// Names of users by number, without their strings.
    Users(u32),
    /// The strings of names of items or users.
    Texts(Whose, u32),
    /// Features of items whose names are neighbours.
    ItemFeatures(u32),
    /// Features of users whose names are neighbours.
    UserFeatures(u32),
    /// Features of open impressions, as they were put away.
    Open {
        /// The shard.
        shard: u32,
        /// Which page of it.
        page: u64,
    },
}

impl Piece {
    /// Tells whether a piece is a page or a pack that holds nothing of what reaches so far.
    pub fn is_beyond(self, reach: &Reach) -> bool {
        let from = |page: u32, each: usize| page as usize * each;
        match self {
            Self::Sequences { shard, part: SequencePart::Pack(kind, number) } => {
                let next = reach.packs.get(shard as usize);
                next.is_none_or(|next| number >= next[kind as usize - 1])
            }
            Self::Sequences { part: SequencePart::Index(_), .. } | Self::Open { .. } => false,
            Self::Items(page) | Self::Texts(Whose::Item, page) => from(page, NAMES) >= reach.items,
            Self::Users(page) | Self::Texts(Whose::User, page) => from(page, NAMES) >= reach.users,
            Self::ItemFeatures(page) => from(page, FEATURES) >= reach.items,
            Self::UserFeatures(page) => from(page, FEATURES) >= reach.users,
        }
    }
}

/// How far the pages and packs of a checkpoint reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Names of items.
    pub items: usize,
    /// Names of users.
    pub users: usize,
    /// The next pack of each kind, by shard.
    pub packs: Vec<[u64; 2]>,
}

/// What of names and features is stored already.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    items: usize,
    users: usize,
    /// Stored names of items of which something has changed, by piece.
    item_names: std::collections::BTreeSet<u32>,
    /// Features that have changed, by piece.
    item_features: std::collections::BTreeSet<u32>,
    user_features: std::collections::BTreeSet<u32>,
}

/// Why bytes are no state of this pipeline.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The state cannot be written.
    #[error("the {what} cannot be encoded")]
    Encode {
        /// Which part.
        what: &'static str,
        /// The encoder's words.
        #[source]
        source: postcard::Error,
    },
    /// The bytes do not read as what they should be.
    #[error("the stored {what} cannot be read: it is damaged or of another version")]
    Decode {
        /// Which part.
        what: &'static str,
        /// The decoder's words.
        #[source]
        source: postcard::Error,
    },
    /// Features of open impressions are out of reach.
    #[error("features of open impressions cannot be copied")]
    Spill(#[source] OutOfReach),
    /// A part of the index of users is damaged.
    #[error("the stored index of users cannot be read")]
    Index,
    /// Users are out of reach.
    #[error("users cannot be copied")]
    Users(#[source] OutOfReach),
    /// Names are out of reach.
    #[error("names cannot be copied")]
    Names(#[source] NamesError),
    /// The joins are those of another funnel.
    #[error("the stored joins cannot be used")]
    Funnel(#[source] OtherFunnel),
    /// The configured funnel has too many types of behaviour that are new to the state.
    #[error("the stored sequences cannot take these types of behaviour")]
    Kinds(#[source] TooManyKinds),
    /// Pieces are missing, or there are too many.
    #[error("expected {expected} {what} in the stored state, found {found}")]
    Pieces {
        /// Of what.
        what: &'static str,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
}

/// Everything that is written anew each time, as it was; field by field the same as `Whole`.
#[derive(Serialize)]
pub struct Picture {
    shards: Vec<ShardState<JoinerPicture<FieldValues>>>,
    items: usize,
    users: usize,
    categories: Vec<u64>,
    kinds: KindNumbers,
    counters: Counters,
    popular: Popular,
    assortment: Assortment,
    negatives: Negatives,
    counts: Counts,
}

/// A [`Picture`] as it is read back.
#[derive(Deserialize)]
pub(super) struct Whole {
    pub(super) shards: Vec<ShardState<JoinerState<FieldValues>>>,
    pub(super) items: usize,
    pub(super) users: usize,
    pub(super) categories: Vec<u64>,
    pub(super) kinds: KindNumbers,
    pub(super) counters: Counters,
    pub(super) popular: Popular,
    pub(super) assortment: Assortment,
    pub(super) negatives: Negatives,
    pub(super) counts: Counts,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ShardState<J> {
    pub(super) joiner: J,
    pub(super) watermark: Watermark,
    pub(super) idle: bool,
    pub(super) arrivals: u64,
    pub(super) next: [i64; 4],
    pub(super) spill: SpillState,
    pub(super) sequences: SequencesState,
}

impl Stored {
    /// Takes so many names as stored, and all features.
    pub(super) fn all(items: usize, users: usize) -> Self {
        Self { items, users, ..Self::default() }
    }

    /// Returns pieces that are not stored as they are, and takes them as stored: at most so many of each kind. `items` and `users` are
    /// how many names there are.
    fn take(&mut self, most: usize, items: usize, users: usize) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut names = |stored: &mut usize, all: usize, whose, piece: fn(u32) -> Piece| {
            for page in pages(*stored, all).take(most) {
                pieces.extend([piece(page), Piece::Texts(whose, page)]);
                *stored = all.min((page as usize + 1) * NAMES);
            }
        };
        names(&mut self.items, items, Whose::Item, Piece::Items);
        names(&mut self.users, users, Whose::User, Piece::Users);
        let mut changed = |changed: &mut std::collections::BTreeSet<u32>,
                           piece: fn(u32) -> Piece| {
            pieces.extend(std::iter::from_fn(|| changed.pop_first()).take(most).map(piece));
        };
        changed(&mut self.item_names, Piece::Items);
        changed(&mut self.item_features, Piece::ItemFeatures);
        changed(&mut self.user_features, Piece::UserFeatures);
        pieces
    }

    /// Returns how many names of items and of users checkpoints were given.
    pub(super) fn names(&self) -> (usize, usize) {
        (self.items, self.users)
    }

    /// Returns how many pieces are not stored as they are.
    fn left(&self, items: usize, users: usize) -> usize {
        let names = pages(self.items, items).len() + pages(self.users, users).len();
        names + self.item_names.len() + self.item_features.len() + self.user_features.len()
    }

    /// Takes note that an item was first seen at another time. A name that is not stored yet is written with it.
    pub(super) fn item_changed(&mut self, number: u32) {
        if (number as usize) < self.items {
            self.item_names.insert(number / NAMES as u32);
        }
    }

    /// Takes note that the features of an item or user have changed.
    pub(super) fn features_changed(&mut self, whose: Whose, number: u32) {
        let page = number / FEATURES as u32;
        match whose {
            Whose::Item => self.item_features.insert(page),
            Whose::User => self.user_features.insert(page),
        };
    }
}

impl Picture {
    /// Returns how far its pages and packs reach.
    pub fn reach(&self) -> Reach {
        let packs = self.shards.iter().map(|shard| shard.sequences.next()).collect();
        Reach { items: self.items, users: self.users, packs }
    }

    /// Writes it.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut heard = Heard { to, error: None };
        let written = postcard::to_io(self, &mut heard).map(|_| ());
        written.map_err(|error| heard.error.unwrap_or_else(|| io::Error::other(error)))
    }
}

/// Keeps what a writer says, for the encoder says only that it failed.
struct Heard<'a> {
    to: &'a mut dyn Write,
    error: Option<io::Error>,
}

impl Write for Heard<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes).map_err(|error| {
            let kind = error.kind();
            self.error = Some(error);
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Pipeline {
    /// Tells whether the state can be taken: nothing is due, and nothing waits to be cut or fetched.
    pub fn is_settled(&self) -> bool {
        self.batcher.is_empty() && !self.is_behind()
    }

    /// Returns what is not kept in pieces, as it is now: of what is, as the last call of [`Pipeline::finish_changes`] left it.
    pub fn picture(&self) -> Picture {
        self.picture_with(self.shards.iter().map(|shard| shard.sequences.state()).collect())
    }

    pub(crate) fn picture_with(&self, sequences: Vec<SequencesState>) -> Picture {
        let shards = self.shards.iter().zip(sequences).map(|(shard, sequences)| ShardState {
            sequences,
            joiner: shard.joiner.picture(),
            watermark: shard.watermark,
            idle: shard.idle,
            arrivals: shard.arrivals,
            next: shard.next,
            spill: shard.spill.state(),
        });
        Picture {
            shards: shards.collect(),
            items: self.shared.items.len(),
            users: self.shared.users.len(),
            categories: self.shared.categories.ids_from(0).to_vec(),
            kinds: self.shared.kinds.clone(),
            counters: self.shared.counters.clone(),
            popular: self.shared.popular.picture(),
            assortment: self.shared.assortment.clone(),
            negatives: self.shared.negatives,
            counts: self.counts.clone(),
        }
    }

    /// Calls `see` with pieces that have changed since the last time, `None` for one that is no more, and takes them as stored: about as
    /// many as `most`, of each kind. Returns about how many are left.
    ///
    /// # Errors
    /// When one cannot be encoded; then the changes are lost to later calls.
    pub fn drain_changes(
        &mut self,
        most: usize,
        mut see: impl FnMut(Piece, Option<&[u8]>),
    ) -> Result<usize, StateError> {
        let mut left = 0;
        for (shard, state) in (0u32..).zip(&mut self.shards) {
            left += state.sequences.drain_changes(most, |part, bytes| {
                see(Piece::Sequences { shard, part }, bytes);
            });
            let pages = most.div_ceil(COST);
            left += state
                .spill
                .give(pages, |page, bytes| see(Piece::Open { shard, page }, Some(bytes)));
            for page in state.spill.drain_gone() {
                see(Piece::Open { shard, page }, None);
            }
        }
        let (items, users) = (self.shared.items.len(), self.shared.users.len());
        for piece in self.shared.stored.take(most, items, users) {
            see(piece, Some(&self.shared.piece(piece)?));
        }
        Ok(left + self.shared.stored.left(items, users))
    }

    /// Calls `see` with all pieces that have changed since the last time, `None` for one that is no more: with them a checkpoint has everything up
    /// to now.
    ///
    /// # Errors
    /// As [`Pipeline::drain_changes`].
    pub fn finish_changes(
        &mut self,
        mut see: impl FnMut(Piece, Option<&[u8]>),
    ) -> Result<(), StateError> {
        self.drain_changes(usize::MAX, &mut see)?;
        for (shard, state) in (0u32..).zip(&mut self.shards) {
            state.sequences.cut(|part, bytes| see(Piece::Sequences { shard, part }, bytes));
        }
        Ok(())
    }

    /// Calls `see` with all pieces of a state of its own that has everything that this one has, and returns what is not kept in pieces of it. Takes
    /// nothing as stored.
    ///
    /// # Errors
    /// When one cannot be encoded, or is out of reach.
    pub fn copy(&self, mut see: impl FnMut(Piece, &[u8])) -> Result<Picture, StateError> {
        let mut sequences = Vec::new();
        for (shard, state) in (0u32..).zip(&self.shards) {
            let copied = state.sequences.copy(|part, bytes| {
                see(Piece::Sequences { shard, part }, bytes);
            });
            state.sequences.check().map_err(StateError::Users)?;
            sequences.push(copied);
            let visited = state.spill.visit(|page, bytes| see(Piece::Open { shard, page }, bytes));
            visited.map_err(StateError::Spill)?;
        }
        let (items, users) = (self.shared.items.len(), self.shared.users.len());
        let features = |names: usize| 0..(names.div_ceil(FEATURES) as u32);
        let pieces = pages(0, items)
            .map(Piece::Items)
            .chain(pages(0, users).map(Piece::Users))
            .chain(pages(0, items).map(|page| Piece::Texts(Whose::Item, page)))
            .chain(pages(0, users).map(|page| Piece::Texts(Whose::User, page)))
            .chain(features(items).map(Piece::ItemFeatures))
            .chain(features(users).map(Piece::UserFeatures));
        for piece in pieces {
            see(piece, &self.shared.piece(piece)?);
        }
        Ok(self.picture_with(sequences))
    }
}

/// Features by id.
pub(super) type Features = Vec<(u64, Vec<Version>)>;

impl Shared {
    /// Returns a piece of names or features as bytes; nothing for other pieces.
    fn piece(&self, piece: Piece) -> Result<Vec<u8>, StateError> {
        match piece {
            Piece::Sequences { .. } | Piece::Open { .. } => Ok(Vec::new()),
            Piece::Items(page) => {
                let names = self.items.names(page);
                let first = self.first_seen.get(page as usize * NAMES..).unwrap_or_default();
                let first = &first[..names.len()];
                Ok(write_names(names, first))
            }
            Piece::Users(page) => Ok(write_names(self.users.names(page), &[])),
            Piece::Texts(whose, page) => {
                let piece = self.names.piece(self.dictionary(whose), whose, page);
                piece.map_err(StateError::Names)
            }
            Piece::ItemFeatures(page) => {
                let known = (0..self.items.len()).skip(page as usize * FEATURES).take(FEATURES);
                let ids = known.map(|number| self.items.id(number as u32));
                let features = ids.map(|id| (id, self.item_features.versions(id)));
                encode("features of items", &known_only(features))
            }
            Piece::UserFeatures(page) => {
                let known = (0..self.users.len()).skip(page as usize * FEATURES).take(FEATURES);
                let ids = known.map(|number| self.users.id(number as u32));
                let features = ids.map(|id| (id, self.user_features.versions(id)));
                encode("features of users", &known_only(features))
            }
        }
    }
}

fn known_only(features: impl Iterator<Item = (u64, Vec<Version>)>) -> Features {
    features.filter(|(_, versions)| !versions.is_empty()).collect()
}

/// Returns the pieces that hold the names from `from` to `to`.
fn pages(from: usize, to: usize) -> std::ops::Range<u32> {
    if from >= to {
        return 0..0;
    }
    (from / NAMES) as u32..to.div_ceil(NAMES) as u32
}

fn encode<T: Serialize + ?Sized>(what: &'static str, value: &T) -> Result<Vec<u8>, StateError> {
    postcard::to_allocvec(value).map_err(|source| StateError::Encode { what, source })
}

pub(super) fn decode<'a, T: Deserialize<'a>>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<T, StateError> {
    postcard::from_bytes(bytes).map_err(|source| StateError::Decode { what, source })
}
