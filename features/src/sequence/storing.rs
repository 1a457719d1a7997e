//! What checkpoints write of sequences, and how they are put back.
//!
//! | part | written |
//! |---|---|
//! | packs of users | whoever has changed, once |
//! | packs of segments | each segment once, when it is full |
//! | pages and logs of the index | see [`super::index`] |
//!
//! A pack goes when nothing in it counts any more. One of which less counts than half a full one is tidied up: what is left of it is written
//! anew, a few packs with each portion.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Sequences;
use super::history::{History, Spot};
use super::index::{IndexPart, IndexState, UserIndex};
use crate::ids::UserId;
use crate::maps::Map;
use crate::pack::{MOST, PackKind, Packing};

/// Bytes of a full pack of users: about what a disk reads at once.
const USERS: usize = if cfg!(test) { 300 } else { 16 << 10 };
/// Bytes of a full pack of segments.
const SEGMENTS: usize = if cfg!(test) { 4_000 } else { 32 << 10 };
/// For so many users of a portion, a pack is tidied up.
const TIDY: usize = 64;

/// A part of sequences that is stored under a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SequencePart {
    /// A part of the index.
    Index(IndexPart),
    /// A pack.
    Pack(PackKind, u64),
}

/// What a checkpoint keeps of sequences as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SequencesState {
    users: usize,
    behaviours: usize,
    index: IndexState,
    shelves: [ShelfState; 2],
}

impl SequencesState {
    /// Returns the numbers of the packs of users and of segments that would come next.
    pub fn next(&self) -> [u64; 2] {
        [self.shelves[0].next, self.shelves[1].next]
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct ShelfState {
    next: u64,
    packs: Vec<(u64, Stock)>,
}

/// How many values a pack has, how many of them count, and its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stock {
    all: u16,
    live: u16,
    bytes: u32,
}

impl Stock {
    /// About how many bytes of it count.
    fn live_bytes(self) -> u64 {
        u64::from(self.bytes) * u64::from(self.live) / u64::from(self.all.max(1))
    }
}

/// The packs of one kind.
#[derive(Clone, Debug)]
struct Shelf {
    kind: PackKind,
    /// Bytes of a full pack.
    full: usize,
    /// The number of the pack that fills.
    next: u64,
    filling: Packing,
    stocks: BTreeMap<u64, Stock>,
    /// Packs of which less than half a full one counts.
    untidy: BTreeSet<u64>,
    /// Packs below this one belong to checkpoints that were cut, and below the second to one that is in force.
    cut: u64,
    in_force: u64,
    /// Packs in which nothing counts, to be removed with the next checkpoint.
    gone: Vec<u64>,
}

impl Shelf {
    fn new(kind: PackKind, full: usize) -> Self {
        let (stocks, untidy, gone) = Default::default();
        Self {
            kind,
            full,
            next: 1,
            filling: Packing::default(),
            stocks,
            untidy,
            cut: 1,
            in_force: 1,
            gone,
        }
    }

    /// Adds a value, and shows the pack that is full with it.
    fn put(
        &mut self,
        owner: UserId,
        write: impl FnOnce(&mut Vec<u8>),
        see: &mut impl FnMut(SequencePart, Option<&[u8]>),
    ) -> Spot {
        let place = self.filling.push(owner.0, write);
        let stock = self.stocks.entry(self.next).or_default();
        (stock.all, stock.live) = (stock.all + 1, stock.live + 1);
        let spot = Spot { pack: self.next, place };
        if self.filling.bytes() >= self.full || self.filling.len() >= MOST {
            self.end(see);
        }
        spot
    }

    /// Shows the pack that fills, if there is anything in it, and begins the next.
    fn end(&mut self, see: &mut impl FnMut(SequencePart, Option<&[u8]>)) {
        if self.filling.is_empty() {
            return;
        }
        let (number, bytes) = (self.next, self.filling.end());
        self.next += 1;
        let Some(stock) = self.stocks.get_mut(&number) else { return };
        if stock.live == 0 {
            // Another run may have left one of this number.
            see(SequencePart::Pack(self.kind, number), None);
            self.stocks.remove(&number);
            return;
        }
        stock.bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        see(SequencePart::Pack(self.kind, number), Some(&bytes));
        self.judge(number);
    }

    /// Takes a value as one that does not count any more.
    fn remove(&mut self, pack: u64) {
        if let Some(stock) = self.stocks.get_mut(&pack) {
            stock.live = stock.live.saturating_sub(1);
            self.judge(pack);
        }
    }

    fn judge(&mut self, pack: u64) {
        let Some(&stock) = self.stocks.get(&pack) else { return };
        if pack == self.next {
            return;
        }
        if stock.live == 0 {
            self.stocks.remove(&pack);
            self.untidy.remove(&pack);
            self.gone.push(pack);
        } else if stock.live_bytes() < self.full as u64 / 2 {
            self.untidy.insert(pack);
        }
    }

    fn state(&self) -> ShelfState {
        let packs = self.stocks.iter().map(|(pack, stock)| (*pack, *stock)).collect();
        ShelfState { next: self.next, packs }
    }

    fn begin(&mut self, state: ShelfState) {
        (self.next, self.stocks) = (state.next, state.packs.into_iter().collect());
        (self.cut, self.in_force) = (self.next, self.next);
        let packs: Vec<u64> = self.stocks.keys().copied().collect();
        packs.into_iter().for_each(|pack| self.judge(pack));
    }
}

/// What of sequences is stored, and what is to be.
#[derive(Clone, Debug)]
pub(super) struct Storing {
    users: Shelf,
    segments: Shelf,
    /// Users with changes, in the order of their first change.
    changed: Vec<UserId>,
    /// Users that the checkpoint to come was given.
    given: Vec<UserId>,
    /// Users of checkpoints that are not in force yet.
    writing: Vec<UserId>,
}

impl Default for Storing {
    fn default() -> Self {
        Self {
            users: Shelf::new(PackKind::Users, USERS),
            segments: Shelf::new(PackKind::Segments, SEGMENTS),
            changed: Vec::new(),
            given: Vec::new(),
            writing: Vec::new(),
        }
    }
}

impl Storing {
    /// Takes note of a user's first change since a checkpoint was given it.
    pub(super) fn changed(&mut self, user: UserId) {
        self.changed.push(user);
    }

    /// Takes note that a stored segment does not count any more.
    pub(super) fn remove(&mut self, spot: Spot) {
        self.segments.remove(spot.pack);
    }

    /// Returns about how many bytes of memory it takes.
    pub(super) fn memory(&self) -> usize {
        let users = self.changed.capacity() + self.given.capacity() + self.writing.capacity();
        let packs = self.users.stocks.len() + self.segments.stocks.len();
        let filling = self.users.filling.bytes() + self.segments.filling.bytes();
        users * size_of::<UserId>() + packs * 2 * size_of::<(u64, Stock)>() + filling
    }

    /// Puts a user's history into packs. Returns its pack.
    fn put(
        &mut self,
        user: UserId,
        history: &mut History,
        see: &mut impl FnMut(SequencePart, Option<&[u8]>),
    ) -> u64 {
        let Self { users, segments, .. } = self;
        history
            .store(|segment| segments.put(user, |to| to.extend_from_slice(segment.bytes()), see));
        users.put(user, |to| history.write(to), see).pack
    }
}

impl Sequences {
    /// Shows what has changed of at most `most` users since the last time, `None` for what is to be removed, and takes it as given to the
    /// checkpoint to come. Returns how many users with changes are left. What is shown counts once [`Self::cut`] has shown the rest.
    pub fn drain_changes(
        &mut self,
        most: usize,
        mut see: impl FnMut(SequencePart, Option<&[u8]>),
    ) -> usize {
        // Not while somebody waits for the end.
        if most < usize::MAX {
            self.tidy_up(most.div_ceil(TIDY));
        }
        self.give(most, &mut see);
        self.storing.changed.len()
    }

    /// Shows all that is left of what has changed: with it the checkpoint to come has everything up to now, and what changes from here on belongs
    /// to the one behind it.
    pub fn cut(&mut self, mut see: impl FnMut(SequencePart, Option<&[u8]>)) {
        self.give(usize::MAX, &mut see);
        let Self { storing, index, residents, .. } = self;
        for shelf in [&mut storing.users, &mut storing.segments] {
            shelf.end(&mut see);
            shelf.cut = shelf.next;
            let kind = shelf.kind;
            shelf.gone.drain(..).for_each(|pack| see(SequencePart::Pack(kind, pack), None));
        }
        index.give(|part, bytes| see(SequencePart::Index(part), bytes));
        storing.writing.append(&mut storing.given);
        residents.cut();
    }

    /// Says that the checkpoint that was cut last is in force: whoever has not changed since need not stay in memory.
    pub fn stored(&mut self) {
        let Self { storing, residents, .. } = self;
        residents.stored(storing.writing.drain(..));
        for shelf in [&mut storing.users, &mut storing.segments] {
            shelf.in_force = shelf.cut;
        }
    }

    /// Returns what a checkpoint keeps as a whole, right after [`Self::cut`].
    pub fn state(&self) -> SequencesState {
        SequencesState {
            users: self.users,
            behaviours: self.behaviours,
            index: self.index.state(),
            shelves: [self.storing.users.state(), self.storing.segments.state()],
        }
    }

    /// Begins with a state; [`Self::restore`] puts back the index.
    pub fn begin(&mut self, state: SequencesState) {
        (self.users, self.behaviours) = (state.users, state.behaviours);
        self.index.begin(state.index);
        let [users, segments] = state.shelves;
        self.storing.users.begin(users);
        self.storing.segments.begin(segments);
    }

    /// Puts back a part of the index: pages first, then logs in their order. Returns false where the bytes are none.
    pub fn restore(&mut self, part: IndexPart, bytes: &[u8]) -> bool {
        self.index.restore(part, bytes)
    }

    /// Tells whether the index that was put back belongs to the state: it has all users, each in a pack that there is.
    pub fn is_whole(&self) -> bool {
        let mut live: Map<u64, u16> = Map::default();
        for (_, pack) in self.index.iter() {
            let count = live.entry(pack).or_default();
            *count = count.saturating_add(1);
        }
        let stocks = &self.storing.users.stocks;
        let users: usize = live.values().map(|live| usize::from(*live)).sum();
        users == self.users
            && live.len() == stocks.len()
            && live.iter().all(|(pack, live)| stocks.get(pack).is_some_and(|it| it.live == *live))
    }

    /// Shows all parts of sequences of their own that have everything that these have, and returns what is to be kept of them as a whole.
    pub fn copy(&self, mut see: impl FnMut(SequencePart, &[u8])) -> SequencesState {
        let mut storing = Storing::default();
        let mut users: Vec<(u64, UserId)> =
            self.index.iter().map(|(user, pack)| (pack, user)).collect();
        // In the order in which they lie.
        users.sort_unstable();
        let away = users.into_iter().filter(|(_, user)| !self.residents.has(*user));
        let away = away.filter_map(|(pack, user)| Some((user, self.reader.user(user, pack)?)));
        let resident = self.residents.iter().map(|(user, history)| (user, history.clone()));
        let mut index = Vec::new();
        for (user, mut history) in away.chain(resident) {
            history.unstore(&self.reader, |_| true, |_| {});
            let pack = storing.put(user, &mut history, &mut |part, bytes| {
                bytes.into_iter().for_each(|bytes| see(part, bytes));
            });
            index.push((user, pack));
        }
        for shelf in [&mut storing.users, &mut storing.segments] {
            shelf.end(&mut |part, bytes| bytes.into_iter().for_each(|bytes| see(part, bytes)));
        }
        let index =
            UserIndex::copy(index.into_iter(), |part, bytes| see(SequencePart::Index(part), bytes));
        let shelves = [storing.users.state(), storing.segments.state()];
        SequencesState { users: self.users, behaviours: self.behaviours, index, shelves }
    }

    fn give(&mut self, most: usize, see: &mut impl FnMut(SequencePart, Option<&[u8]>)) {
        let Self { storing, index, residents, .. } = self;
        let changed: Vec<UserId> =
            storing.changed.drain(..most.min(storing.changed.len())).collect();
        for user in changed {
            let pack = residents.give(user, |history| storing.put(user, history, see));
            let Some(pack) = pack else { continue };
            let before = index.set(user, pack);
            before.into_iter().for_each(|before| storing.users.remove(before));
            storing.given.push(user);
        }
    }

    /// Takes what counts of so many packs of each kind, in which little does, as changed: it goes into new ones.
    fn tidy_up(&mut self, packs: usize) {
        for kind in [PackKind::Users, PackKind::Segments] {
            for _ in 0..packs {
                let shelf = match kind {
                    PackKind::Users => &mut self.storing.users,
                    PackKind::Segments => &mut self.storing.segments,
                };
                let Some(&pack) = shelf.untidy.first() else { break };
                // Alone it would only be written again as it is.
                if shelf.untidy.len() == 1 && self.storing.changed.is_empty() {
                    break;
                }
                // One that no checkpoint in force has cannot be read yet.
                if pack >= shelf.in_force {
                    break;
                }
                shelf.untidy.remove(&pack);
                for owner in self.reader.owners(kind, pack) {
                    self.move_on(kind, pack, UserId(owner));
                }
            }
        }
    }

    fn move_on(&mut self, kind: PackKind, pack: u64, owner: UserId) {
        if kind == PackKind::Users && self.index.get(owner) != Some(pack) || !self.bring(owner) {
            return;
        }
        let Self { residents, reader, storing, .. } = self;
        let is = |spot: Spot| kind == PackKind::Segments && spot.pack == pack;
        if kind == PackKind::Segments && !residents.get(owner).is_some_and(|found| found.has(is)) {
            return;
        }
        let moved = residents.change(owner, |history| {
            history.unstore(reader, is, |spot| storing.remove(spot));
        });
        if let Some(((), true)) = moved {
            self.storing.changed(owner);
        }
    }
}
