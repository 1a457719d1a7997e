//! Reading what is away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::history::{History, Spot};
use super::segment::View;
use crate::ids::UserId;
use crate::pack::{OutOfReach, Pack, PackKind, Packs};

/// Reads users and segments of a shard from packs. What cannot be read is as if it were not there, and is remembered: nothing that comes after
/// it counts.
pub(super) struct Reader {
    shard: u32,
    packs: Option<Arc<dyn Packs>>,
    /// Types of behaviour that have a number.
    pub(super) kinds: usize,
    trouble: OnceLock<OutOfReach>,
    users: AtomicU64,
    segments: AtomicU64,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new(shard: u32, kinds: usize) -> Self {
        let (users, segments) = Default::default();
        Self { shard, packs: None, kinds, trouble: OnceLock::new(), users, segments }
    }

    pub(super) fn read_from(&mut self, packs: Arc<dyn Packs>) {
        self.packs = Some(packs);
    }

    pub(super) fn packs(&self) -> Option<&Arc<dyn Packs>> {
        self.packs.as_ref()
    }

    /// Returns a user of a pack.
    pub(super) fn user(&self, user: UserId, pack: u64) -> Option<History> {
        self.users.fetch_add(1, Ordering::Relaxed);
        let kinds = self.kinds;
        self.look(PackKind::Users, pack, |pack| History::parse(pack.of(user.0)?, kinds))
    }

    /// Calls `look` with a segment.
    pub(super) fn segment<R>(&self, spot: Spot, look: impl FnOnce(View<'_>) -> R) -> Option<R> {
        self.segments.fetch_add(1, Ordering::Relaxed);
        let kinds = self.kinds;
        self.look(PackKind::Segments, spot.pack, |pack| {
            let bytes = pack.get(usize::from(spot.place))?;
            View::parse(bytes, kinds).ok().map(look)
        })
    }

    /// Returns the owners of a pack, by place.
    pub(super) fn owners(&self, kind: PackKind, pack: u64) -> Vec<u64> {
        let owners = |pack: Pack<'_>| Some((0..pack.len()).filter_map(|i| pack.owner(i)).collect());
        self.look(kind, pack, owners).unwrap_or_default()
    }

    /// Returns the bytes of a pack.
    pub(super) fn pack(&self, kind: PackKind, number: u64) -> Option<Arc<[u8]>> {
        let found = self.packs.as_ref().map(|packs| packs.get(kind, self.shard, number));
        let wrong = match found.transpose().map(Option::flatten) {
            Ok(Some(bytes)) => return Some(bytes),
            Ok(None) => self.wrong(kind, number, "is not there"),
            Err(trouble) => trouble,
        };
        let _earlier = self.trouble.set(wrong);
        None
    }

    /// Returns what went wrong first.
    pub(super) fn trouble(&self) -> Option<&OutOfReach> {
        self.trouble.get()
    }

    /// Returns how many users and segments were read.
    pub(super) fn reads(&self) -> (u64, u64) {
        (self.users.load(Ordering::Relaxed), self.segments.load(Ordering::Relaxed))
    }

    fn look<R>(
        &self,
        kind: PackKind,
        number: u64,
        look: impl FnOnce(Pack<'_>) -> Option<R>,
    ) -> Option<R> {
        let bytes = self.pack(kind, number)?;
        let found = Pack::parse(&bytes).and_then(look);
        if found.is_none() {
            let wrong = self.wrong(kind, number, "does not hold what was put there");
            let _earlier = self.trouble.set(wrong);
        }
        found
    }

    fn wrong(&self, kind: PackKind, number: u64, wrong: &'static str) -> OutOfReach {
        OutOfReach::Wrong { what: kind.name(), shard: self.shard, number, wrong }
    }
}
