//! Open impressions: by place, by id, and chained by user and item from newest to oldest.

use super::links::Links;
use super::{Kept, Opened, Orphan, Outcome, Payload, Place, TaskSet};
use crate::ids::{EventId, ItemId, UserId, salted_key};
use crate::pages::PagedSlab;
use crate::time::EventTime;

const NONE: u32 = u32::MAX;

/// Impressions, or outcomes, that are copied together where a checkpoint is being written.
const PAGE: usize = 32;

/// At most so many outcomes without a named impression are kept with one impression, so that a robot cannot fill the memory. Further
/// repeated ones are only counted: they do not move to an impression that arrives out of order.
const MOST_OUTCOMES: u16 = 64;

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
    outcomes: u32,
    kept: u16,
    newer: u32,
    older: u32,
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
    outcomes: PagedSlab<Unnamed, PAGE>,
    payload_bytes: usize,
}

impl<T: Payload> OpenSet<T> {
    pub(super) fn new() -> Self {
        Self {
            opens: PagedSlab::new(),
            ids: Links::default(),
            newest: Links::default(),
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
            + self.payload_bytes
    }

    /// Returns the open impression of this id.
    pub(super) fn by_id(&self, user: UserId, id: EventId) -> Option<Place> {
        let is = |place: u32| {
            let opened = &self.opens[place as usize].opened;
            opened.user == user && opened.id == id
        };
        self.ids.find(by_id(user, id), is).map(|place| Place(place as usize))
    }

    /// Returns the newest open impression of a user and item that is not later than `time`.
    pub(super) fn newest(&self, user: UserId, item: ItemId, time: EventTime) -> Option<Place> {
        let mut place = self.newest_of(user, item);
        while place != NONE && self.opens[place as usize].opened.time > time {
            place = self.opens[place as usize].older;
        }
        (place != NONE).then_some(Place(place as usize))
    }

    /// Returns the open impression of the same user and item that is the next older one.
    pub(super) fn older(&self, place: Place) -> Option<Place> {
        let older = self.opens[place.0].older;
        (older != NONE).then_some(Place(older as usize))
    }

    /// Adds an impression of which `known` tasks are seen already.
    pub(super) fn insert(&mut self, opened: Opened<Kept<T>>, known: TaskSet) -> Place {
        self.payload_bytes += opened.payload.memory();
        let (user, item, id, time) = (opened.user, opened.item, opened.id, opened.time);
        let mut newer = NONE;
        let newest = self.newest_of(user, item);
        let mut older = newest;
        while older != NONE {
            let other = &self.opens[older as usize];
            if (other.opened.time, other.opened.id) < (time, id) {
                break;
            }
            (newer, older) = (older, other.older);
        }
        let open = Open {
            opened,
            named: known,
            seen: known,
            positive: known,
            turned: known,
            outcomes: NONE,
            kept: 0,
            newer,
            older,
        };
        let place = self.opens.insert(open);
        let number = u32::try_from(place).unwrap_or(NONE);
        self.ids.insert(by_id(user, id), number);
        if older != NONE {
            self.opens[older as usize].newer = number;
        }
        if newer != NONE {
            self.opens[newer as usize].older = number;
        } else if newest == NONE {
            self.newest.insert(by_item(user, item), number);
        } else {
            self.newest.replace(by_item(user, item), newest, number);
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
        let of = by_item(open.opened.user, open.opened.item);
        self.ids.remove(by_id(open.opened.user, open.opened.id), number);
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
        self.newest.find(by_item(user, item), is).unwrap_or(NONE)
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

fn by_id(user: UserId, id: EventId) -> u64 {
    salted_key(user.0, id.0)
}

fn by_item(user: UserId, item: ItemId) -> u64 {
    salted_key(user.0, item.0)
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
