//! Vectors of items and users: encoded in pieces, written to the index, published.
//!
//! Vectors describe things as they are now: the newest version of features, all behaviours.
//!
//! An item or user whose row has expired has no published vector: a tombstone takes it back, and the next row or the next behaviour
//! brings it again. Item `i` has expired at `t` when the table has no row of it and it was first seen before `t - table.expiry`; user
//! `u` when the table has no row and the newest behaviour is before that. Items stay in the index all the same.

use sluice_features::assemble::{FieldValues, History};
use sluice_features::attributes::Attributes;
use sluice_features::catalogue::Found;
use sluice_features::example::Batch;
use sluice_features::ids::{ItemId, UserId};
use sluice_features::time::EventTime;
use sluice_features::wire::{Embedding, NotFinite, Role, encode_embedding};
use sluice_models::retrieval::{Index, Towers, VectorWork};

use super::{Outlet, Output};
use crate::error::Stop;
use crate::pipeline::Pipeline;
use crate::pipeline::names::NamesError;
use crate::serve::{Asker, ItemIndex, Serving, Snapshot, append};
use crate::shutdown::Shutdown;

/// Vectors that are encoded at a time; the pipeline is locked for no more.
pub(super) const PIECE: usize = 256;
/// Stands for nobody and nothing, where only the other side matters.
const NONE: u64 = 0;

/// What is to be done with a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Publish it and offer the item.
    Offered,
    /// Publish it; the item cannot be had.
    Hidden,
    /// There is none any more, or never was: the catalogue does not know the item.
    Gone,
}

/// Whether it is known that there is no vector where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tombstones {
    Said,
    ToSay,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    number: u32,
    /// The key of its message, once that is to be published.
    key: String,
    state: State,
    /// The row has expired: the vector is not published.
    expired: bool,
}

/// Encodes vectors. Its memory serves again.
#[derive(Debug)]
pub(super) struct Vectors {
    entries: Vec<Entry>,
    batch: Batch,
    values: FieldValues,
    work: VectorWork,
    /// `[entries that are not gone, width]`
    encoded: Vec<f32>,
    message: Vec<u8>,
    /// Items with a smaller number have been encoded by the towers in use.
    known: usize,
    /// Numbers that were not finite, over all pieces.
    bad: u64,
}

impl Vectors {
    pub(super) fn new(serving: &Serving) -> Self {
        Self {
            entries: Vec::new(),
            batch: serving.pipeline.read().assembler().batch(),
            values: FieldValues::default(),
            work: serving.snapshot.load().towers.work(),
            encoded: Vec::new(),
            message: Vec::new(),
            known: 0,
            bad: 0,
        }
    }

    /// Takes all items as changed.
    pub(super) fn forget_known(&mut self) {
        self.known = 0;
    }

    /// Makes a new index of all items by the towers of a snapshot. Returns how many vectors were published, `None` when there are no items
    /// yet or it was told to stop before it was through: the index stays as it was.
    pub(super) fn refresh(
        &mut self,
        serving: &Serving,
        snapshot: &Snapshot,
        mut outlet: Option<&mut impl Outlet>,
        shutdown: &Shutdown,
    ) -> Result<Option<u64>, Stop> {
        let towers = &snapshot.towers;
        let mut index = Index::new(towers.width());
        let (mut from, mut published) = (0, 0);
        loop {
            let ids = numbered(&serving.pipeline.read(), from);
            if ids.is_empty() {
                break;
            }
            if shutdown.is_requested() {
                return Ok(None);
            }
            from += ids.len();
            let until = snapshot.learned_until;
            self.encode_items(serving, towers, &ids, until);
            self.write(&mut index);
            if let Some(outlet) = &mut outlet {
                // What is gone or has expired was said then.
                let said = Tombstones::Said;
                let of = (serving, Role::Item);
                published += self.publish(of, towers, until, said, &mut **outlet, shutdown)?;
            }
        }
        self.tell();
        if from == 0 {
            return Ok(None);
        }
        self.known = from;
        let new = Some(ItemIndex { towers: towers.clone(), index });
        // Freed after the lock is.
        let old = std::mem::replace(&mut *serving.index.write(), new);
        drop(old);
        Ok(Some(published))
    }

    /// Encodes items that have changed and those that are new, by the towers in use; writes them to the index and publishes them.
    /// Returns how many were published.
    pub(super) fn items(
        &mut self,
        serving: &Serving,
        changed: &[ItemId],
        until: Option<EventTime>,
        outlet: &mut impl Outlet,
        shutdown: &Shutdown,
    ) -> Result<u64, Stop> {
        let Some(towers) = towers_in_use(serving) else { return Ok(0) };
        let mut published = 0;
        // New items come below, each once.
        let known: Vec<ItemId> = {
            let pipeline = serving.pipeline.read();
            let number = |item: &ItemId| pipeline.shared().items.number(item.0);
            let is_known = |item: &ItemId| number(item).is_some_and(|n| (n as usize) < self.known);
            changed.iter().copied().filter(is_known).collect()
        };
        for ids in known.chunks(PIECE) {
            published += self.piece(serving, &towers, ids, until, outlet, shutdown)?;
        }
        loop {
            let ids = numbered(&serving.pipeline.read(), self.known);
            if ids.is_empty() || shutdown.is_requested() {
                break;
            }
            self.known += ids.len();
            published += self.piece(serving, &towers, &ids, until, outlet, shutdown)?;
        }
        self.tell();
        Ok(published)
    }

    fn piece(
        &mut self,
        serving: &Serving,
        towers: &Towers,
        ids: &[ItemId],
        until: Option<EventTime>,
        outlet: &mut impl Outlet,
        shutdown: &Shutdown,
    ) -> Result<u64, Stop> {
        self.encode_items(serving, towers, ids, until);
        if let Some(index) = &mut *serving.index.write() {
            self.write(&mut index.index);
        }
        let of = (serving, Role::Item);
        self.publish(of, towers, until, Tombstones::ToSay, outlet, shutdown)
    }

    /// Encodes and publishes users by the towers in use. Returns how many were published.
    pub(super) fn users(
        &mut self,
        serving: &Serving,
        users: &[UserId],
        until: Option<EventTime>,
        outlet: &mut impl Outlet,
        shutdown: &Shutdown,
    ) -> Result<u64, Stop> {
        let Some(towers) = towers_in_use(serving) else { return Ok(0) };
        let mut published = 0;
        for users in users.chunks(PIECE) {
            self.encode_users(serving, &towers, users, until);
            let (of, said) = ((serving, Role::User), Tombstones::ToSay);
            published += self.publish(of, &towers, until, said, outlet, shutdown)?;
        }
        self.tell();
        Ok(published)
    }

    fn encode_items(
        &mut self,
        serving: &Serving,
        towers: &Towers,
        ids: &[ItemId],
        until: Option<EventTime>,
    ) {
        self.entries.clear();
        self.batch.clear();
        let context = Attributes::default();
        let time = EventTime::MAX;
        let asker = Asker { user: UserId(NONE), time, surface: None, context: &context };
        {
            let pipeline = serving.pipeline.read();
            for &id in ids {
                let Some(number) = pipeline.shared().items.number(id.0) else { continue };
                let state = serving.items.as_of(id.0, time, |found, features| match found {
                    _ if is_offered(serving, found, features) => State::Offered,
                    Found::Gone | Found::Unknown => State::Gone,
                    Found::AsOf | Found::Later => State::Hidden,
                });
                let expired = has_item_expired(&pipeline, towers, id, until);
                let (id, key) = (id.0, String::new());
                self.entries.push(Entry { id, number, key, state, expired });
                if state != State::Gone {
                    append(&pipeline, &asker, ItemId(id), &mut self.values, &mut self.batch);
                }
            }
        }
        towers.items(&self.batch, &mut self.work, &mut self.encoded);
    }

    fn encode_users(
        &mut self,
        serving: &Serving,
        towers: &Towers,
        users: &[UserId],
        until: Option<EventTime>,
    ) {
        self.entries.clear();
        self.batch.clear();
        let context = Attributes::default();
        {
            let pipeline = serving.pipeline.read();
            for &user in users {
                let Some(number) = pipeline.shared().users.number(user.0) else { continue };
                let expired = has_user_expired(&pipeline, towers, user, until);
                let (id, key, state) = (user.0, String::new(), State::Hidden);
                self.entries.push(Entry { id, number, key, state, expired });
                let asker = Asker { user, time: EventTime::MAX, surface: None, context: &context };
                append(&pipeline, &asker, ItemId(NONE), &mut self.values, &mut self.batch);
            }
        }
        towers.users(&self.batch, &mut self.work, &mut self.encoded);
    }

    /// Writes the items of a piece to an index: what can be had is in it, all else is not.
    fn write(&mut self, index: &mut Index) {
        let mut vectors = self.encoded.chunks_exact(index.width());
        for entry in &self.entries {
            let vector = if entry.state == State::Gone { None } else { vectors.next() };
            match (entry.state, vector) {
                (State::Offered, Some(vector)) => {
                    self.bad += u64::from(index.upsert(entry.id, vector).is_err());
                }
                _ => {
                    index.remove(entry.id);
                }
            }
        }
    }

    /// Publishes the vectors of a piece, and tombstones unless they were said before. Returns how many.
    fn publish(
        &mut self,
        (serving, whose): (&Serving, Role),
        towers: &Towers,
        until: Option<EventTime>,
        tombstones: Tombstones,
        outlet: &mut impl Outlet,
        shutdown: &Shutdown,
    ) -> Result<u64, Stop> {
        self.name(serving, whose, tombstones)?;
        let mut vectors = self.encoded.chunks_exact(towers.width());
        let mut published = 0;
        for entry in &self.entries {
            let vector = if entry.state == State::Gone { None } else { vectors.next() };
            let mut value = None;
            if let Some(vector) = vector.filter(|_| !entry.expired) {
                let embedding = Embedding {
                    id: entry.key.split_once(':').map_or("", |(_, id)| id),
                    vector,
                    version: towers.version(),
                    ts: until.unwrap_or_default(),
                };
                if let Err(NotFinite) = encode_embedding(&embedding, &mut self.message) {
                    self.bad += 1;
                    continue;
                }
                value = Some(&self.message[..]);
            } else if tombstones == Tombstones::Said {
                continue;
            }
            if !outlet.send(Output::Embeddings, &entry.key, value, shutdown)? {
                break;
            }
            published += 1;
        }
        Ok(published)
    }

    /// Fetches the names of what is to be published of a piece.
    fn name(
        &mut self,
        serving: &Serving,
        whose: Role,
        tombstones: Tombstones,
    ) -> Result<(), NamesError> {
        let (mut places, mut numbers) = (Vec::new(), Vec::new());
        for (place, entry) in self.entries.iter().enumerate() {
            let taken_back = entry.state == State::Gone || entry.expired;
            if !taken_back || tombstones == Tombstones::ToSay {
                places.push(place);
                numbers.push(entry.number);
            }
        }
        let (entries, field) = (&mut self.entries, whose.field());
        serving.names.find(&serving.pipeline, whose, &numbers, |at, name| {
            entries[places[at]].key = format!("{field}:{name}");
        })
    }

    fn tell(&mut self) {
        if self.bad > 0 {
            tracing::warn!(vectors = self.bad, "vectors that are not finite are not published");
            self.bad = 0;
        }
    }
}

/// Tells whether the published vector of an item is to be taken back because nothing was learned about it for long.
pub(super) fn has_item_expired(
    pipeline: &Pipeline,
    towers: &Towers,
    item: ItemId,
    until: Option<EventTime>,
) -> bool {
    let Some(before) = expired_before(towers, until).filter(|_| towers.lacks_item(item)) else {
        return false;
    };
    let shared = pipeline.shared();
    let first = shared.items.number(item.0).and_then(|n| shared.first_seen.get(n as usize));
    first.is_some_and(|first| *first < before)
}

fn has_user_expired(
    pipeline: &Pipeline,
    towers: &Towers,
    user: UserId,
    until: Option<EventTime>,
) -> bool {
    let Some(before) = expired_before(towers, until).filter(|_| towers.lacks_user(user)) else {
        return false;
    };
    let all = pipeline.shared().kinds.configured();
    let mut newest = None;
    pipeline.past(user).newest(EventTime::MAX, 1, &all, |past| newest = Some(past.time));
    newest.is_some_and(|newest| newest < before)
}

/// Returns the time before which a row must have been used last to have expired.
fn expired_before(towers: &Towers, until: Option<EventTime>) -> Option<EventTime> {
    Some(until? - towers.expiry()?)
}

/// Tells whether an item that was found with these features is offered.
pub(super) fn is_offered(serving: &Serving, found: Found, features: Option<&Attributes>) -> bool {
    serving.items.is_offered(found, features, serving.rules.available)
}

/// Returns the items of a piece by their numbers.
fn numbered(pipeline: &Pipeline, from: usize) -> Vec<ItemId> {
    let items = &pipeline.shared().items;
    let end = items.len().min(from.saturating_add(PIECE));
    (from..end).filter_map(|number| Some(ItemId(items.id(u32::try_from(number).ok()?)))).collect()
}

fn towers_in_use(serving: &Serving) -> Option<Towers> {
    serving.index.read().as_ref().map(|index| index.towers.clone())
}
