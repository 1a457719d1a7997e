//! Counters by the same subjects: one look finds what was counted of them, whatever the half-lives.
//!
//! ```text
//! key of the subjects --map--> slots: one for each group  --> entry of the group, in a slab of its own
//! ```
//!
//! The map's buckets are small and a group's entries lie close together, so that what is looked at often stays in the processor's caches; an
//! entry that has faded is given up without those of longer half-lives.

use serde::{Deserialize, Serialize};

use super::Subjects;
use super::as_of::AsOf;
use super::decayed::{Added, Progress};
use super::group::Group;
use super::overall::HalfLife;
use super::room::Room;
use super::weight::Weight;
use crate::attributes::{AttributeKey, Attributes};
use crate::ids::salted_key;
use crate::maps::most_bytes;
use crate::pages::PagedMap;
use crate::schema::Subject;
use crate::time::EventTime;

/// Groups that share a look; further ones get looks of their own, or all slots would be larger.
const GROUPS: usize = 6;
/// Counts below this are forgotten by a sweep.
const NEGLIGIBLE: f64 = 0.02;
/// The fewest new entries between two sweeps.
const SWEEP: usize = 1024;

/// Where a key's entries lie in the slabs of the groups; [`NONE`] where nothing was counted.
pub(super) type Slots = [u32; GROUPS];

const NONE: u32 = u32::MAX;

/// What an event adds to an entry: one or two of its sums.
pub(super) type Additions = [Option<Added>; 2];

/// Counters by the same subjects.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Keyed {
    by: Vec<Subject>,
    pub(super) groups: Vec<Group>,
    slots: PagedMap<Slots>,
    /// New entries until the next sweep.
    until_sweep: usize,
}

impl Keyed {
    /// Bytes of a key with its slots, at most.
    pub(super) const KEY_BYTES: usize = most_bytes(size_of::<(u64, Slots)>());

    /// Returns about how many bytes keys and slots take at most.
    pub(super) fn memory(&self) -> usize {
        self.slots.len() * Self::KEY_BYTES
    }

    /// No group yet.
    pub(super) fn new(by: Vec<Subject>) -> Self {
        Self { by, groups: Vec::new(), slots: PagedMap::new(), until_sweep: SWEEP }
    }

    /// Returns the place of the group that takes such a counter in, a new one where it must be; `None` where the counter belongs elsewhere.
    pub(super) fn place(
        &mut self,
        by: &[Subject],
        half_life: usize,
        task: usize,
        beside: Option<AttributeKey>,
    ) -> Option<usize> {
        if self.by != by {
            return None;
        }
        let fits = |group: &Group| group.fits(half_life, task, beside);
        if let Some(place) = self.groups.iter().position(fits) {
            return Some(place);
        }
        if self.groups.len() == GROUPS {
            return None;
        }
        self.groups.push(Group::new(half_life, beside));
        Some(self.groups.len() - 1)
    }

    /// Returns the slots of the subjects: `None` where one of these is missing.
    pub(super) fn find(&self, subjects: &Subjects) -> Option<Slots> {
        key(&self.by, subjects).map(|key| self.slots.get(key).copied().unwrap_or([NONE; GROUPS]))
    }

    /// Reads all counters of one group, or of all of them; `found` is what [`Keyed::find`] has found. Returns false where something was counted
    /// that cannot be told any more.
    pub(super) fn read(
        &self,
        only: Option<usize>,
        found: Option<Slots>,
        item: Option<&Attributes>,
        as_of: &AsOf<'_>,
        see: &mut impl FnMut(usize, Option<f32>),
    ) -> bool {
        let mut told = true;
        let slots = found.unwrap_or([NONE; GROUPS]);
        for (i, (group, slot)) in self.groups.iter().zip(slots).enumerate() {
            if only.is_none_or(|only| only == i) {
                let slot = found.map(|_| (slot != NONE).then_some(slot));
                told &= group.read(slot, item, as_of, see);
            }
        }
        told
    }

    /// Adds to the entries of the subjects what `added` says for each group, if anything.
    pub(super) fn add(
        &mut self,
        subjects: &Subjects,
        half_lives: &[HalfLife],
        (progress, room): (Progress, &mut Room),
        mut added: impl FnMut(&Group) -> Option<Additions>,
    ) {
        let Some(key) = key(&self.by, subjects) else { return };
        let known = self.slots.get(key).copied();
        let mut slots = known.unwrap_or([NONE; GROUPS]);
        for (group, slot) in self.groups.iter_mut().zip(&mut slots) {
            let Some(additions) = added(group) else { continue };
            if *slot == NONE {
                self.until_sweep = self.until_sweep.saturating_sub(1);
                let Some(begun) = group.begin(room) else { continue };
                *slot = begun;
            }
            let length = half_lives[group.half_life].length;
            let entry = group.entry(*slot);
            additions.into_iter().flatten().for_each(|added| entry.add(length, added, progress));
        }
        if known != Some(slots) && slots != [NONE; GROUPS] {
            self.slots.insert(key, slots);
        }
        if self.until_sweep == 0 {
            self.sweep(half_lives, progress.newest);
        }
    }

    /// Forgets negligible entries. The next sweep comes after as many new entries as there are, so it costs O(1) an entry.
    fn sweep(&mut self, half_lives: &[HalfLife], now: EventTime) {
        let weights: [Option<Weight>; GROUPS] = std::array::from_fn(|i| {
            let group = self.groups.get(i)?;
            Some(Weight::of(half_lives[group.half_life].length, now))
        });
        let groups = &mut self.groups;
        self.slots.retain(|_, slots| {
            for ((group, slot), weight) in groups.iter_mut().zip(&mut *slots).zip(&weights) {
                let Some(weight) = weight else { continue };
                if *slot != NONE && group.entry(*slot).most(*weight) < NEGLIGIBLE {
                    group.end(*slot);
                    *slot = NONE;
                }
            }
            *slots != [NONE; GROUPS]
        });
        self.groups.iter_mut().for_each(Group::settle);
        self.until_sweep = self.groups.iter().map(Group::len).sum::<usize>().max(SWEEP);
    }
}

/// Returns the key of a counter's subjects, `None` where one is missing.
fn key(by: &[Subject], subjects: &Subjects) -> Option<u64> {
    let mut key = 0;
    for subject in by {
        let id = match subject {
            Subject::Item => subjects.item,
            Subject::User => subjects.user,
            Subject::Category => subjects.category?,
            Subject::Surface => subjects.surface?,
        };
        key = salted_key(key, id);
    }
    Some(key)
}
