//! Rows lent for a while: taken out of the store once for many examples, changed outside by whoever has the loan, and put back once.
//!
//! Between the two nothing may remove a row; readers see the rows as they were until they are put back.

use std::ops::DerefMut;
use std::sync::atomic::Ordering;

use parking_lot::{RwLock, RwLockWriteGuard};
use sluice_features::time::EventTime;

use super::ahead::{Ahead, Turn};
use super::hash;
use super::shard::Shard;
use super::store::{NONE, RowStore, SHARDS, seconds, shard_of};

/// Keys for which the locks are held at a time: some ten microseconds.
const LENT: usize = 2048;

/// A key, and how it is used by those who ask for its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// The key, not 0.
    pub key: u64,
    /// How many of them there are.
    pub count: u32,
    /// The time of the newest, in seconds of event time since 1970.
    pub seconds: u32,
}

/// Where a key's row is.
#[derive(Clone, Copy, Debug)]
struct Place {
    shard: u32,
    row: u32,
}

/// Rows of a store by the place of their key in the list that was asked for. Its memory is used again.
#[derive(Clone, Debug, Default)]
pub struct Loan {
    /// `[keys, width + 1]`: a row's numbers and then its accumulator of row-wise Adagrad; zeros where there is no row.
    pub rows: Vec<f32>,
    places: Vec<Place>,
    /// Which keys had no row when they were asked for.
    late: Vec<bool>,
    removals: u64,
}

impl Loan {
    /// Whether the key at this place had no row when it was asked for, and each of its occurrences is to be told.
    pub fn is_late(&self, place: usize) -> bool {
        self.late[place]
    }

    /// Whether the key at this place has a row by now.
    pub fn has_row(&self, place: usize) -> bool {
        self.places[place].row != NONE
    }

    /// Whether all keys have a row.
    pub fn is_whole(&self) -> bool {
        self.places.iter().all(|place| place.row != NONE)
    }

    fn fill(&mut self, place: usize, shard: &Shard, row: u32) {
        let lent = shard.lent(row);
        copy(lent, &mut self.rows[place * lent.len()..][..lent.len()]);
    }
}

/// Copies a row; the smallest ones without a call.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32]) {
    match (from, to) {
        ([number, state], [to_number, to_state]) => (*to_number, *to_state) = (*number, *state),
        (from, to) => to.copy_from_slice(from),
    }
}

impl RowStore {
    /// Takes out the rows of distinct keys, counts their uses and marks the rows as used. New ids get their row at once, unless admission or want of room
    /// makes it a question of order: then they are [late](Loan::is_late), nothing of theirs is counted, and each of their occurrences is told to
    /// [`Self::occur_late`]. Where there is no room at all there is no such question: their occurrences are refused at once.
    pub fn lend(&self, uses: &[Use], loan: &mut Loan) {
        let stride = self.width() + 1;
        loan.rows.resize(uses.len() * stride, 0.0);
        loan.places.clear();
        loan.late.clear();
        loan.removals = self.removals().load(Ordering::Relaxed);
        let (plain, most) = (self.config().admission <= 1, self.config().max_rows);
        let at_once = plain && self.len().saturating_add(uses.len()) <= most;
        let full = plain && self.len() >= most;
        let parts = uses.chunks(LENT).zip(loan.rows.chunks_mut(LENT * stride));
        for (uses, rows) in parts {
            let mut shards: [RwLockWriteGuard<Shard>; SHARDS] = self.each(RwLock::write);
            let mut ahead = Ahead::new(uses.iter().map(|used| hash(used.key)).enumerate());
            let search = |shard: &mut RwLockWriteGuard<Shard>, turn: Turn| {
                let used = uses[turn.number];
                shard.keep(used.key);
                let Some(slot) = shard.index.find_mut(used.key, turn.hash) else { return NONE };
                slot.last_used = slot.last_used.max(used.seconds);
                let row = slot.row;
                shard.prefetch_row(row);
                row
            };
            for row in rows.chunks_exact_mut(stride) {
                let Some(turn) = ahead.next(&mut shards, search) else { break };
                let (shard, used) = (&mut *shards[turn.shard()], uses[turn.number]);
                let absent = turn.row == NONE && !at_once;
                let (mut place, late) = (turn.row, absent && !full);
                if absent {
                    row.fill(0.0);
                    shard.refused += if full { used.count.into() } else { 0 };
                } else if place == NONE {
                    place = self.occur(shard, used.key, used.seconds, used.count);
                    copy(shard.lent(place), row);
                } else {
                    copy(shard.count(place, used.count), row);
                }
                loan.places.push(Place { shard: turn.shard() as u32, row: place });
                loan.late.push(late);
            }
        }
    }

    /// One occurrence of a late key. Returns whether it has a row from here on.
    pub fn occur_late(&self, key: u64, time: EventTime, place: usize, loan: &mut Loan) -> bool {
        let number = shard_of(hash(key));
        let mut guard = self.shards[number].write();
        let shard = guard.deref_mut();
        let row = self.occur(shard, key, seconds(time.0), 1);
        loan.places[place] = Place { shard: number as u32, row };
        if row != NONE {
            loan.fill(place, shard, row);
        }
        row != NONE
    }

    /// Puts the rows of a loan of these keys back as they are now.
    ///
    /// # Panics
    /// When rows were removed in between, or when a length was changed.
    pub fn take_back(&self, uses: &[Use], loan: &Loan) {
        let stride = self.width() + 1;
        assert_eq!(uses.len(), loan.places.len(), "keys of a loan");
        assert_eq!(loan.rows.len(), loan.places.len() * stride, "rows of a loan");
        assert_eq!(
            self.removals().load(Ordering::Relaxed),
            loan.removals,
            "rows were removed during a loan"
        );
        let rows = loan.rows.chunks(LENT * stride);
        for ((uses, places), rows) in uses.chunks(LENT).zip(loan.places.chunks(LENT)).zip(rows) {
            let mut shards: [RwLockWriteGuard<Shard>; SHARDS] = self.each(RwLock::write);
            for ((used, place), row) in uses.iter().zip(places).zip(rows.chunks_exact(stride)) {
                if place.row != NONE {
                    let shard = &mut *shards[place.shard as usize];
                    shard.keep(used.key);
                    copy(row, shard.lent_mut(place.row));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
