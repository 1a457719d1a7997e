//! Open impressions: by place, by id, and chained by user and item from newest to oldest.
//!
//! Most chains are a few impressions long and searched by walking. One that was walked too far is put into a tree ([`LongChains`]) and stays
//! there until it is empty, so a search costs O(log n) whatever the order in which impressions come, and memory only where it is needed.

use super::chains::{LongChains, Rank};
use super::links::Links;
use super::{Kept, Opened, Orphan, Outcome, Payload, Place, TaskSet};
use crate::ids::{EventId, ItemId, UserId, pair_key};
use crate::pages::PagedSlab;
use crate::time::{EventTime, Span};

const NONE: u32 = u32::MAX;

/// Impressions, or outcomes, that are copied together where a checkpoint is being written.
const PAGE: usize = 32;

/// At most so many outcomes without a named impression are kept with one impression, so that a robot cannot fill the memory. Further
/// repeated ones are only counted: they do not move to an impression that arrives out of order.
const MOST_OUTCOMES: u8 = 64;

/// Impressions of a chain that are walked over before it is put into a tree.
const WALK: usize = if cfg!(test) { 3 } else { 16 };

/// An open impression with what was seen of it.
#[derive(Clone, Debug)]
pub(super) struct Open<T> {
    pub(super) opened: Opened<Kept<T>>,
    /// Tasks with an outcome that names this impression, and those known from the start.
    pub(super) named: TaskSet,
    /// Tasks with any outcome.
    pub(super) seen: TaskSet,
    /// Tasks whose ancestors were seen too.
    pub(super) positive: TaskSet,
    /// Tasks that ever were positive: what was announced and learned of them is not repeated after an outcome moved away.
    pub(super) turned: TaskSet,
    /// Tasks whose label is not known, because outcomes may be missing: neither learned nor announced nor judged.
    pub(super) masked: TaskSet,
    kept: u8,
    /// Its chain is long.
    long: bool,
    outcomes: u32,
    newer: u32,
    older: u32,
}

impl<T> Open<T> {
    fn of(&self) -> (UserId, ItemId) {
        (self.opened.user, self.opened.item)
    }

    fn rank(&self) -> Rank {
        (self.opened.time, self.opened.id)
    }
}

/// An outcome without a named impression, kept because a newer impression may yet arrive out of order.
#[derive(Clone, Copy, Debug)]
struct Unnamed {
    task: u8,
    time: EventTime,
    next: u32,
}

/// All open impressions of a shard.
#[derive(Clone, Debug)]
pub(super) struct OpenSet<T> {
    opens: PagedSlab<Open<T>, PAGE>,
    ids: Links,
    newest: Links,
    long: LongChains,
    outcomes: PagedSlab<Unnamed, PAGE>,
    payload_bytes: usize,
}

impl<T: Payload> OpenSet<T> {
    pub(super) fn new() -> Self {
        Self {
            opens: PagedSlab::new(),
            ids: Links::default(),
            newest: Links::default(),
            long: LongChains::default(),
            outcomes: PagedSlab::new(),
            payload_bytes: 0,
        }
    }

    pub(super) fn get(&self, place: Place) -> &Open<T> {
        &self.opens[place.0]
    }

    pub(super) fn get_mut(&mut self, place: Place) -> &mut Open<T> {
        &mut self.opens[place.0]
    }

    /// Returns about how many bytes impressions and outcomes take: for each its own size, its entries of two maps, its deadline, and what
    /// is kept with it here.
    pub(super) fn memory(&self) -> usize {
        self.opens.len() * (size_of::<Open<T>>() + 2 * Links::BYTES + 24)
            + self.outcomes.len() * size_of::<Unnamed>()
            + self.long.memory()
            + self.payload_bytes
    }

    /// Returns the open impression of this id.
    pub(super) fn by_id(&self, user: UserId, id: EventId) -> Option<Place> {
        let is = |place: u32| {
            let opened = &self.opens[place as usize].opened;
            opened.user == user && opened.id == id
        };
        self.ids.find(pair_key(user.0, id.0), is).map(|place| Place(place as usize))
    }

    /// Returns the newest open impression of a user and item that is not later than `time`.
    pub(super) fn newest(&mut self, user: UserId, item: ItemId, time: EventTime) -> Option<Place> {
        let newest = self.newest_of(user, item);
        if newest == NONE {
            return None;
        }
        // No id ranks below 0, so all of `time` itself do.
        let (_, place) = self.around(newest, (time + Span(1), EventId(0)));
        (place != NONE).then_some(Place(place as usize))
    }

    /// Returns the open impression of the same user and item that is the next older one.
    pub(super) fn older(&self, place: Place) -> Option<Place> {
        let older = self.opens[place.0].older;
        (older != NONE).then_some(Place(older as usize))
    }

    /// Adds an impression of which `known` tasks are seen already, and `masked` ones will not be known.
    pub(super) fn insert(
        &mut self,
        opened: Opened<Kept<T>>,
        known: TaskSet,
        masked: TaskSet,
    ) -> Place {
        self.payload_bytes += opened.payload.memory();
        let (user, item, id, time) = (opened.user, opened.item, opened.id, opened.time);
        let newest = self.newest_of(user, item);
        let (newer, older) =
            if newest == NONE { (NONE, NONE) } else { self.around(newest, (time, id)) };
        let long = newest != NONE && self.opens[newest as usize].long;
        let open = Open {
            opened,
            named: known,
            seen: known,
            positive: known,
            turned: known,
            masked,
            kept: 0,
            long,
            outcomes: NONE,
            newer,
            older,
        };
        let place = self.opens.insert(open);
        let number = u32::try_from(place).unwrap_or(NONE);
        self.ids.insert(pair_key(user.0, id.0), number);
        if long {
            self.long.insert((user, item), (time, id), number);
        }
        if older != NONE {
            self.opens[older as usize].newer = number;
        }
        if newer != NONE {
            self.opens[newer as usize].older = number;
        } else if newest == NONE {
            self.newest.insert(pair_key(user.0, item.0), number);
        } else {
            self.newest.replace(pair_key(user.0, item.0), newest, number);
        }
        Place(place)
    }

    /// Keeps an outcome that does not name its impression with the impression it was attributed to.
    pub(super) fn keep(&mut self, place: Place, task: usize, time: EventTime) {
        let open = &mut self.opens[place.0];
        if open.kept >= MOST_OUTCOMES && open.seen.contains(task) {
            return;
        }
        let task_number = u8::try_from(task).unwrap_or(u8::MAX);
        let kept = Unnamed { task: task_number, time, next: open.outcomes };
        open.outcomes = u32::try_from(self.outcomes.insert(kept)).unwrap_or(NONE);
        open.kept += 1;
    }

    /// Moves the kept outcomes that `wanted` accepts (task, time) from one impression to another and calls `moved` with each.
    pub(super) fn move_outcomes(
        &mut self,
        from: Place,
        to: Place,
        wanted: impl Fn(usize, EventTime) -> bool,
        mut moved: impl FnMut(usize, EventTime),
    ) {
        let mut place = std::mem::replace(&mut self.opens[from.0].outcomes, NONE);
        self.opens[from.0].kept = 0;
        self.opens[from.0].seen = self.opens[from.0].named;
        while place != NONE {
            let kept = self.outcomes[place as usize];
            let task = usize::from(kept.task);
            let goes = wanted(task, kept.time);
            let open = &mut self.opens[if goes { to.0 } else { from.0 }];
            self.outcomes[place as usize].next = open.outcomes;
            open.outcomes = place;
            open.kept += 1;
            open.seen = open.seen.with(task);
            if goes {
                moved(task, kept.time);
            }
            place = kept.next;
        }
    }

    /// Returns the outcomes kept with an impression, newest arrival first.
    pub(super) fn kept(&self, place: Place) -> impl Iterator<Item = (usize, EventTime)> {
        chain(&self.outcomes, self.opens[place.0].outcomes)
    }

    /// Takes an impression out of maps and chains: no outcome finds it any more. It keeps its place until [`Self::take`].
    pub(super) fn close(&mut self, place: Place) {
        let open = &mut self.opens[place.0];
        let (newer, older) = (open.newer, open.older);
        let mut next = std::mem::replace(&mut open.outcomes, NONE);
        let number = u32::try_from(place.0).unwrap_or(NONE);
        let (user, item) = open.of();
        let of = pair_key(user.0, item.0);
        if open.long {
            self.long.remove((user, item), open.rank());
        }
        self.ids.remove(pair_key(user.0, open.opened.id.0), number);
        while next != NONE {
            next = self.outcomes.remove(next as usize).next;
        }
        if older != NONE {
            self.opens[older as usize].newer = newer;
        }
        if newer != NONE {
            self.opens[newer as usize].older = older;
        } else if older != NONE {
            self.newest.replace(of, number, older);
        } else {
            self.newest.remove(of, number);
        }
    }

    /// Gives out what is kept with an impression, unless that was put away before.
    pub(super) fn put_away(&mut self, place: Place, number: u64) -> Option<T> {
        let payload = &mut self.opens[place.0].opened.payload;
        if matches!(payload, Kept::Away(_)) {
            return None;
        }
        self.payload_bytes -= payload.memory();
        match std::mem::replace(payload, Kept::Away(number)) {
            Kept::Here(payload) => Some(payload),
            Kept::Away(_) => None,
        }
    }

    /// Frees the place of a closed impression.
    pub(super) fn take(&mut self, place: Place) -> Opened<Kept<T>> {
        let open = self.opens.remove(place.0);
        self.payload_bytes -= open.opened.payload.memory();
        open.opened
    }

    fn newest_of(&self, user: UserId, item: ItemId) -> u32 {
        let is = |place: u32| {
            let opened = &self.opens[place as usize].opened;
            opened.user == user && opened.item == item
        };
        self.newest.find(pair_key(user.0, item.0), is).unwrap_or(NONE)
    }

    /// Returns the neighbours in the chain of which `newest` is the newest: the oldest member that does not rank below `rank`, and the newest
    /// that does.
    fn around(&mut self, newest: u32, rank: Rank) -> (u32, u32) {
        let (mut newer, mut older) = (NONE, newest);
        for _ in 0..WALK {
            if older == NONE || self.opens[older as usize].rank() < rank {
                return (newer, older);
            }
            (newer, older) = (older, self.opens[older as usize].older);
        }
        let of = self.opens[newest as usize].of();
        if !self.opens[newest as usize].long {
            self.lengthen(newest);
        }
        match self.long.below(of, rank) {
            Some(older) => (self.opens[older as usize].newer, older),
            None => (self.long.oldest(of).unwrap_or(NONE), NONE),
        }
    }

    /// Puts a chain into a tree.
    fn lengthen(&mut self, newest: u32) {
        let mut place = newest;
        while place != NONE {
            let open = &mut self.opens[place as usize];
            open.long = true;
            self.long.insert(open.of(), open.rank(), place);
            place = open.older;
        }
    }

    /// Returns the impressions in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Open<T>> {
        self.opens.iter().map(|(_, open)| open)
    }

    /// Returns the impressions as they are now.
    pub(super) fn picture(&self) -> OpenPicture<T> {
        OpenPicture { opens: self.opens.clone(), outcomes: self.outcomes.clone() }
    }
}

/// All open impressions of a shard as they were.
#[derive(Clone, Debug)]
pub(super) struct OpenPicture<T> {
    opens: PagedSlab<Open<T>, PAGE>,
    outcomes: PagedSlab<Unnamed, PAGE>,
}

impl<T: Payload> OpenPicture<T> {
    /// Returns the impressions in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Open<T>> {
        self.opens.iter().map(|(_, open)| open)
    }

    /// Returns the outcomes kept with an impression, newest arrival first.
    pub(super) fn kept(&self, open: &Open<T>) -> impl Iterator<Item = (usize, EventTime)> {
        chain(&self.outcomes, open.outcomes)
    }
}

/// The outcomes of one impression from one on.
fn chain(
    outcomes: &PagedSlab<Unnamed, PAGE>,
    first: u32,
) -> impl Iterator<Item = (usize, EventTime)> {
    let mut next = first;
    std::iter::from_fn(move || {
        let kept = outcomes.get(next as usize)?;
        next = kept.next;
        Some((usize::from(kept.task), kept.time))
    })
}

impl<T: Payload> Payload for Kept<T> {
    fn memory(&self) -> usize {
        match self {
            Self::Here(payload) => payload.memory(),
            Self::Away(_) => 0,
        }
    }
}

/// Returns why an outcome cannot belong to an impression whose window ends at `end`.
pub(super) fn mismatch<T>(outcome: &Outcome, opened: &Opened<T>, end: EventTime) -> Option<Orphan> {
    if outcome.item != opened.item {
        Some(Orphan::OtherItem)
    } else if outcome.time < opened.time {
        Some(Orphan::BeforeImpression)
    } else if outcome.time > end {
        Some(Orphan::OutsideWindow)
    } else {
        None
    }
}
