//! What a joiner has counted. Plain numbers: the daemon turns them into metrics.

use serde::{Deserialize, Serialize};

use super::Orphan;

/// Counts of impressions and of behaviours by fate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinCounts {
    /// Impressions that were opened.
    pub opened: u64,
    /// Impressions whose event id was seen before.
    pub duplicate_impressions: u64,
    /// Impressions that came too late for at least one of their labels.
    pub late_impressions: u64,
    /// Those of them that were not opened, because they came too late for all.
    pub unopened: u64,
    /// Ids of impressions that were forgotten for want of room before their time was over.
    pub forgotten_impressions: u64,
    /// Impressions all of whose windows have closed.
    pub closed: u64,
    /// Behaviours by [`crate::event::BehaviourType`]: tasks first, then the extra ones.
    pub kinds: Vec<KindCounts>,
}

/// Counts of one type of behaviour. Each that came is counted in `arrived` and in exactly one of the fates: `arrived = attributed +
/// repeated + duplicate + late + orphaned + waiting + extra`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindCounts {
    /// All that came.
    pub arrived: u64,
    /// First of their task for their impression.
    pub attributed: u64,
    /// Their impression had an outcome of their task already.
    pub repeated: u64,
    /// Their event id was seen before.
    pub duplicate: u64,
    /// They came after their window had closed, or their impression did, or, when no impression can be told, after the watermark had passed
    /// their time.
    pub late: u64,
    /// Without an impression, by [`Orphan::ALL`].
    pub orphaned: [u64; Orphan::ALL.len()],
    /// Waiting for their impression now.
    pub waiting: u64,
    /// No task.
    pub extra: u64,
    /// Beside the fates: attributed outcomes whose label was closed as 0 because an ancestor's outcome was missing.
    pub childless: u64,
    /// Beside the fates: outcomes that moved to an impression that arrived out of order.
    pub moved: u64,
    /// Beside the fates: impressions that came too late to have a label of this task.
    pub late_impressions: u64,
    /// Beside the fates: ids that were forgotten for want of room before their time was over.
    pub forgotten: u64,
}

impl KindCounts {
    /// Returns the sum of all fates, which is [`Self::arrived`].
    pub fn fates(&self) -> u64 {
        let orphaned: u64 = self.orphaned.iter().sum();
        self.attributed
            + self.repeated
            + self.duplicate
            + self.late
            + orphaned
            + self.waiting
            + self.extra
    }
}

impl JoinCounts {
    /// Adds what another joiner of the same funnel has counted.
    pub fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.duplicate_impressions += other.duplicate_impressions;
        self.late_impressions += other.late_impressions;
        self.unopened += other.unopened;
        self.forgotten_impressions += other.forgotten_impressions;
        self.closed += other.closed;
        for (kind, more) in self.kinds.iter_mut().zip(&other.kinds) {
            kind.arrived += more.arrived;
            kind.attributed += more.attributed;
            kind.repeated += more.repeated;
            kind.duplicate += more.duplicate;
            kind.late += more.late;
            kind.waiting += more.waiting;
            kind.extra += more.extra;
            kind.childless += more.childless;
            kind.moved += more.moved;
            kind.late_impressions += more.late_impressions;
            kind.forgotten += more.forgotten;
            for (sum, more) in kind.orphaned.iter_mut().zip(more.orphaned) {
                *sum += more;
            }
        }
    }

    /// Counts ids of a log that were forgotten too early: of impressions, or of a type of behaviour from 1 on.
    pub(super) fn forgot(&mut self, log: usize, ids: u64) {
        match log.checked_sub(1) {
            Some(kind) => self.kinds[kind].forgotten += ids,
            None => self.forgotten_impressions += ids,
        }
    }

    pub(super) fn new(behaviours: usize) -> Self {
        Self { kinds: vec![KindCounts::default(); behaviours], ..Self::default() }
    }
}
