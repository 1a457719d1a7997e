//! The store: 64 shards, each under its own lock.
//!
//! A call takes the locks of all shards in ascending order, for at most [`LOCKED`] keys at a time.
//! Within them keys go in groups of [`GROUP`]: first the slots of all are asked for, then the rows,
//! then the work is done, so that the waits for memory overlap.

use std::iter::Zip;
use std::ops::Deref;
use std::slice::{ChunksExact, Iter};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use sluice_features::time::{EventTime, Span};

use super::hash;
use super::image::{ImageError, ShardImage};
use super::shard::Shard;
use crate::kernels::{AdagradStep, RowStep, RowSteps, adagrad_row, adagrad_rows};

const SHARD_BITS: u32 = 6;
pub(super) const SHARDS: usize = 1 << SHARD_BITS;
/// Keys for which the locks are held at a time.
pub(super) const LOCKED: usize = 1024;
/// Keys whose memory is asked for at a time.
pub(super) const GROUP: usize = 64;
/// How often a shard is looked through for rows to expire within the time that they live.
const TURNS: u32 = 16;
/// Bytes of keys, after which a look through shards waits for the next call: less than a millisecond.
const LOOKED: usize = if cfg!(test) { 4 << 10 } else { 256 << 10 };
/// Rows that are looked at before a step goes on, when room is wanted: some milliseconds.
const SWEPT: usize = 500_000;
/// No row.
pub(super) const NONE: u32 = u32::MAX;

/// What the rows of a store are like.
#[derive(Clone, Debug, PartialEq)]
pub struct RowStoreConfig {
    /// Numbers in a row, at least 1.
    pub width: usize,
    /// Decides the first numbers of all rows.
    pub seed: u64,
    /// The deviation of the first numbers.
    pub initial_scale: f32,
    /// The occurrence from which on an id has a row; 0 and 1 both mean the first. Counted by a
    /// sketch in bounded memory, so an id may rarely be early.
    pub admission: u8,
    /// Most rows at a time. Ids that would need more are refused and counted.
    pub max_rows: usize,
    /// How long a row is kept without being used; for ever when absent.
    pub expiry: Option<Span>,
    /// The update of row-wise Adagrad.
    pub step: AdagradStep,
}

/// What a store holds and what happened in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowStoreStats {
    /// Rows at present.
    pub rows: usize,
    /// Bytes of memory.
    pub bytes: usize,
    /// Rows ever created.
    pub admitted: u64,
    /// Occurrences of ids that were due a row when there was no room.
    pub refused: u64,
    /// Rows removed because they were not used for long.
    pub expired: u64,
}

/// Embedding rows by key, see the module. All methods take `&self`: readers may be many, and one
/// writer at a time keeps results reproducible.
#[derive(Debug)]
pub struct RowStore {
    config: RowStoreConfig,
    pub(super) shards: [RwLock<Shard>; SHARDS],
    length: AtomicUsize,
    /// Somebody reads an image of what it was.
    pub(super) frozen: AtomicBool,
    /// How often rows may have been removed.
    removals: AtomicU64,
}

/// The shard of a key with this hash.
#[inline(always)]
pub(super) fn shard_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARD_BITS)) as usize
}

impl RowStore {
    /// How many shards a store has, see [`Self::export`].
    pub const SHARDS: usize = SHARDS;

    /// Creates an empty store.
    ///
    /// # Panics
    /// When the width is 0.
    pub fn new(config: RowStoreConfig) -> Self {
        assert!(config.width > 0, "a row has at least one number");
        let rows = config.max_rows / SHARDS;
        let shards = std::array::from_fn(|_| RwLock::new(Shard::new(&config, rows, 0)));
        let (length, frozen, removals) = Default::default();
        Self { config, shards, length, frozen, removals }
    }

    /// What the store was made with.
    pub fn config(&self) -> &RowStoreConfig {
        &self.config
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.config.width
    }

    /// Rows at present.
    pub fn len(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts rows, bytes and what happened so far.
    pub fn stats(&self) -> RowStoreStats {
        self.shards.iter().map(RwLock::read).fold(RowStoreStats::default(), |sum, shard| {
            RowStoreStats {
                rows: sum.rows + shard.index.len(),
                bytes: sum.bytes + shard.bytes(),
                admitted: sum.admitted + shard.admitted,
                refused: sum.refused + shard.refused,
                expired: sum.expired + shard.expired,
            }
        })
    }

    /// Whether the key has a row.
    pub fn contains(&self, key: u64) -> bool {
        let hash = hash(key);
        self.shards[shard_of(hash)].read().index.find(key, hash).is_some()
    }

    /// Reads the rows of `keys` into `out` `[keys, width]`, for serving: a key without a row reads as
    /// zeros (models.md 6.1), and nothing is counted.
    ///
    /// # Panics
    /// When `out` does not fit.
    pub fn gather(&self, keys: &[u64], out: &mut [f32]) {
        self.check(keys, out.len());
        let width = self.config.width;
        for (keys, out) in keys.chunks(LOCKED).zip(out.chunks_mut(LOCKED * width)) {
            let shards: [RwLockReadGuard<Shard>; SHARDS] = self.each(RwLock::read);
            for (keys, out) in keys.chunks(GROUP).zip(out.chunks_mut(GROUP * width)) {
                let places = locate(&shards, keys);
                copy(&shards, &places, width, out);
            }
        }
    }

    /// Like [`Self::gather`] for learning: counts one occurrence of each key, gives it a row when it
    /// is due one, and marks the row as used at `now`. Keys that are not admitted read as zeros and
    /// take no gradient.
    ///
    /// # Panics
    /// When `out` does not fit.
    pub fn gather_or_insert(&self, keys: &[u64], now: EventTime, out: &mut [f32]) {
        self.learn(keys, None, now, out);
    }

    /// Like [`Self::gather_or_insert`] for keys that stand for `counts` occurrences each, as
    /// [`Grouping`](super::Grouping) finds them.
    ///
    /// # Panics
    /// When `counts` or `out` does not fit.
    pub fn gather_or_insert_counted(
        &self,
        keys: &[u64],
        counts: &[u32],
        now: EventTime,
        out: &mut [f32],
    ) {
        assert_eq!(counts.len(), keys.len(), "lengths of keys and counts");
        self.learn(keys, Some(counts), now, out);
    }

    fn learn(&self, keys: &[u64], counts: Option<&[u32]>, now: EventTime, out: &mut [f32]) {
        self.check(keys, out.len());
        let (width, now) = (self.config.width, seconds(now.0));
        let mut start = 0;
        for (keys, out) in keys.chunks(LOCKED).zip(out.chunks_mut(LOCKED * width)) {
            let mut shards: [RwLockWriteGuard<Shard>; SHARDS] = self.each(RwLock::write);
            self.make_room(&mut shards, keys.len(), now);
            for (keys, out) in keys.chunks(GROUP).zip(out.chunks_mut(GROUP * width)) {
                let mut places = locate(&shards, keys);
                for (i, &key) in keys.iter().enumerate().filter(|(_, key)| **key != 0) {
                    let occurrences = counts.map_or(1, |counts| counts[start + i]);
                    let place = &mut places[i];
                    let shard = &mut *shards[place.shard as usize];
                    place.row = self.occur(shard, key, now, occurrences);
                }
                copy(&shards, &places, width, out);
                start += keys.len();
            }
        }
    }

    /// Counts occurrences of a key and returns its row, if it has or gets one.
    pub(super) fn occur(&self, shard: &mut Shard, key: u64, now: u32, occurrences: u32) -> u32 {
        let hash = hash(key);
        shard.keep(key);
        if let Some(slot) = shard.index.find_mut(key, hash) {
            slot.last_used = slot.last_used.max(now);
            let row = slot.row;
            let count = shard.row_mut(row).count;
            *count = count.saturating_add(occurrences);
            return row;
        }
        let count = match &mut shard.filter {
            Some(filter) => {
                let count = filter.add(hash, occurrences);
                if count < self.config.admission {
                    return NONE;
                }
                occurrences.max(count.into())
            }
            None => occurrences,
        };
        if self.len() >= self.config.max_rows {
            shard.refused += u64::from(occurrences);
            return NONE;
        }
        self.length.fetch_add(1, Ordering::Relaxed);
        shard.admit(&self.config, key, now, count)
    }

    /// Where `rows` more might not fit, removes rows that are due to expire: shard after shard, each
    /// at most `TURNS` times in a span, and no more at a time than is soon done.
    fn make_room(&self, shards: &mut [RwLockWriteGuard<Shard>; SHARDS], rows: usize, now: u32) {
        let Some(span) = self.config.expiry.map(|span| seconds(span.0)) else { return };
        let mut looked_at = 0;
        for shard in shards {
            if self.len().saturating_add(rows) <= self.config.max_rows || looked_at > SWEPT {
                return;
            }
            if now.saturating_sub(shard.swept) > span / TURNS {
                self.removals.fetch_add(1, Ordering::Relaxed);
                shard.swept = now;
                looked_at += shard.index.len();
                let mut removed = std::mem::take(&mut shard.unreported);
                let before = removed.len();
                shard.expire(now, span, &mut removed);
                self.length.fetch_sub(removed.len() - before, Ordering::Relaxed);
                shard.unreported = removed;
            }
        }
    }

    /// Applies one step of row-wise Adagrad to each key: `gradients` `[keys, width]`, already summed
    /// over the occurrences of a key. Keys without a row are skipped.
    ///
    /// # Panics
    /// When `gradients` does not fit.
    pub fn apply(&self, unique_keys: &[u64], gradients: &[f32]) {
        self.apply_part(unique_keys, gradients, 0, 1);
    }

    /// Like [`Self::apply`] for the keys of one part of the shards. Calls for different parts may run at the same time: none waits
    /// for the locks of another, and together they do what one call does.
    ///
    /// # Panics
    /// When `gradients` does not fit, or when there is no such part.
    pub fn apply_part(&self, unique_keys: &[u64], gradients: &[f32], part: usize, parts: usize) {
        assert!(part < parts, "found part {part} of {parts}");
        if parts == 1 {
            return self.apply_all(unique_keys, gradients);
        }
        self.check(unique_keys, gradients.len());
        let width = self.config.width;
        let mine = part * SHARDS / parts..(part + 1) * SHARDS / parts;
        for (keys, gradients) in unique_keys.chunks(LOCKED).zip(gradients.chunks(LOCKED * width)) {
            let mut shards: [Option<RwLockWriteGuard<Shard>>; SHARDS] =
                std::array::from_fn(|k| mine.contains(&k).then(|| self.shards[k].write()));
            let mut group = [(0, 0); GROUP];
            let mut rest = keys.iter().map(|&key| hash(key)).enumerate();
            loop {
                let mut count = 0;
                for (i, hash) in rest.by_ref().filter(|&(_, h)| mine.contains(&shard_of(h))) {
                    if let Some(shard) = &shards[shard_of(hash)] {
                        shard.index.prefetch(hash);
                    }
                    group[count] = (i, hash);
                    count += 1;
                    if count == GROUP {
                        break;
                    }
                }
                if count == 0 {
                    break;
                }
                let mut rows = [NONE; GROUP];
                for (row, &(i, hash)) in rows.iter_mut().zip(&group[..count]) {
                    let Some(shard) = &shards[shard_of(hash)] else { continue };
                    if let Some(slot) = shard.index.find(keys[i], hash) {
                        *row = slot.row;
                        shard.prefetch_row(slot.row);
                    }
                }
                for (&row, &(i, hash)) in rows.iter().zip(&group[..count]) {
                    if let Some(shard) = shards[shard_of(hash)].as_mut().filter(|_| row != NONE) {
                        let gradient = &gradients[i * width..(i + 1) * width];
                        shard.keep(keys[i]);
                        let row = shard.row_mut(row);
                        adagrad_row(row.numbers, gradient, row.accumulator, self.config.step);
                    }
                }
            }
        }
    }

    fn apply_all(&self, unique_keys: &[u64], gradients: &[f32]) {
        self.check(unique_keys, gradients.len());
        let width = self.config.width;
        for (keys, gradients) in unique_keys.chunks(LOCKED).zip(gradients.chunks(LOCKED * width)) {
            let mut shards: [RwLockWriteGuard<Shard>; SHARDS] = self.each(RwLock::write);
            for (keys, gradients) in keys.chunks(GROUP).zip(gradients.chunks(GROUP * width)) {
                let places = locate(&shards, keys);
                let mut steps = Steps {
                    shards: &mut shards,
                    places: keys.iter().zip(places.iter()),
                    gradients: gradients.chunks_exact(width),
                };
                adagrad_rows(&mut steps, self.config.step);
            }
        }
    }

    /// Sets the numbers of a key's row, which is created when there is room, past admission: for
    /// parameters that come from elsewhere. Returns whether the key has a row now.
    ///
    /// # Panics
    /// When `numbers` is not one row.
    pub fn set(&self, key: u64, numbers: &[f32], now: EventTime) -> bool {
        self.check(&[key], numbers.len());
        let (hash, now) = (hash(key), seconds(now.0));
        let shard = &mut *self.shards[shard_of(hash)].write();
        shard.keep(key);
        let row = match shard.index.find(key, hash) {
            Some(slot) => slot.row,
            None if key != 0 && self.len() < self.config.max_rows => {
                self.length.fetch_add(1, Ordering::Relaxed);
                shard.admit(&self.config, key, now, 0)
            }
            None => return false,
        };
        shard.row_mut(row).numbers.copy_from_slice(numbers);
        true
    }

    /// Looks through shards whose turn has come, those that were looked through longest ago first: each has one `TURNS` times in the
    /// configured span. Their rows that were not used for the span before `now` are removed, so a row lives for the span and at most a
    /// sixteenth of it. Calls `removed` with their keys and with those that a shard lost for want of room.
    ///
    /// One call looks through one shard, or through several small ones (`LOOKED`), so that it may follow every step.
    pub fn sweep(&self, now: EventTime, mut removed: impl FnMut(u64)) {
        let Some(span) = self.config.expiry.map(|span| seconds(span.0)) else { return };
        let now = seconds(now.0);
        let mut looked = 0;
        while looked < LOOKED {
            let swept = self.shards.iter().map(|shard| shard.read().swept).enumerate();
            let longest_ago = swept.min_by_key(|&(number, swept)| (swept, number));
            let due = |&(_, swept): &(usize, u32)| now.saturating_sub(swept) > span / TURNS;
            let Some((number, _)) = longest_ago.filter(due) else { return };
            let shard = &mut *self.shards[number].write();
            self.removals.fetch_add(1, Ordering::Relaxed);
            shard.swept = now;
            looked += shard.index.bytes();
            let mut keys = std::mem::take(&mut shard.unreported);
            let before = keys.len();
            shard.expire(now, span, &mut keys);
            self.length.fetch_sub(keys.len() - before, Ordering::Relaxed);
            keys.into_iter().for_each(&mut removed);
        }
    }

    /// Removes all rows that were not used for the configured span before `now`: the plain twin of
    /// [`Self::sweep`]. Returns their keys and those that lost their row for want of room since the last
    /// call, ascending.
    #[cfg(test)]
    pub(crate) fn expire(&self, now: EventTime) -> Vec<u64> {
        let span = self.config.expiry.map(|span| seconds(span.0));
        self.removals.fetch_add(1, Ordering::Relaxed);
        let mut keys = Vec::new();
        for shard in &self.shards {
            let shard = &mut *shard.write();
            keys.append(&mut shard.unreported);
            if let Some(span) = span {
                let before = keys.len();
                shard.expire(seconds(now.0), span, &mut keys);
                self.length.fetch_sub(keys.len() - before, Ordering::Relaxed);
            }
        }
        keys.sort_unstable();
        keys
    }

    /// Copies one of the [`Self::SHARDS`] shards, its keys in ascending order. With no writer
    /// meanwhile all of them are one picture.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn export(&self, shard: usize) -> ShardImage {
        ShardImage::of(&self.shards[shard].read())
    }

    /// Replaces one of the [`Self::SHARDS`] shards.
    ///
    /// # Errors
    /// When the image does not fit itself, this store or this shard; nothing is changed then.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn import(&self, shard: usize, image: ShardImage) -> Result<(), ImageError> {
        let rows = self.config.max_rows / SHARDS;
        let built = image.build(&self.config, rows, shard)?;
        let place = &mut *self.shards[shard].write();
        self.removals.fetch_add(1, Ordering::Relaxed);
        self.length.fetch_add(built.index.len(), Ordering::Relaxed);
        self.length.fetch_sub(place.index.len(), Ordering::Relaxed);
        *place = built;
        Ok(())
    }

    /// A number that two stores share when they hold the same: rows, state of the optimiser,
    /// counts, times, filter.
    pub fn checksum(&self) -> u64 {
        let shards = self.shards.iter().map(|shard| shard.read().checksum());
        shards.fold(0, |sum, shard| hash(sum.wrapping_add(shard)))
    }

    pub(super) fn removals(&self) -> &AtomicU64 {
        &self.removals
    }

    fn check(&self, keys: &[u64], numbers: usize) {
        assert_eq!(numbers, keys.len() * self.config.width, "numbers for all rows");
    }

    /// Takes all locks in ascending order, which all calls keep to.
    pub(super) fn each<'a, G>(&'a self, lock: impl Fn(&'a RwLock<Shard>) -> G) -> [G; SHARDS] {
        std::array::from_fn(|shard| lock(&self.shards[shard]))
    }
}

/// Where a key's row is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) shard: u32,
    pub(super) row: u32,
}

/// The rows of a group and their gradients; keys without a row are passed over.
struct Steps<'a, 'b> {
    shards: &'a mut [RwLockWriteGuard<'b, Shard>; SHARDS],
    places: Zip<Iter<'a, u64>, Iter<'a, Place>>,
    gradients: ChunksExact<'a, f32>,
}

impl RowSteps for Steps<'_, '_> {
    #[inline(always)]
    fn next(&mut self) -> Option<RowStep<'_>> {
        let mut steps = self.places.by_ref().zip(self.gradients.by_ref());
        let ((&key, place), gradient) = steps.find(|((_, place), _)| place.row != NONE)?;
        let shard = &mut *self.shards[place.shard as usize];
        shard.keep(key);
        let row = shard.row_mut(place.row);
        Some((row.numbers, gradient, row.accumulator))
    }
}

/// Finds the rows of up to [`GROUP`] keys and asks for their memory.
#[inline]
pub(super) fn locate<G: Deref<Target = Shard>>(
    shards: &[G; SHARDS],
    keys: &[u64],
) -> [Place; GROUP] {
    let mut hashes = [0; GROUP];
    for (hashed, &key) in hashes.iter_mut().zip(keys) {
        *hashed = hash(key);
        shards[shard_of(*hashed)].index.prefetch(*hashed);
    }
    let mut places = [Place { shard: 0, row: NONE }; GROUP];
    for ((place, &key), &hash) in places.iter_mut().zip(keys).zip(&hashes) {
        place.shard = shard_of(hash) as u32;
        let shard = &shards[place.shard as usize];
        if let Some(slot) = shard.index.find(key, hash) {
            place.row = slot.row;
            shard.prefetch_row(slot.row);
        }
    }
    places
}

/// Copies the rows of a group, or zeros.
#[inline]
fn copy<G: Deref<Target = Shard>>(
    shards: &[G; SHARDS],
    places: &[Place; GROUP],
    width: usize,
    out: &mut [f32],
) {
    for (out, place) in out.chunks_exact_mut(width).zip(places) {
        if place.row == NONE {
            out.fill(0.0);
        } else {
            out.copy_from_slice(shards[place.shard as usize].numbers(place.row));
        }
    }
}

/// Milliseconds as whole seconds; what is outside 1970 to 2106 goes to the ends.
pub(crate) fn seconds(milliseconds: i64) -> u32 {
    let seconds = (milliseconds / 1000).max(0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
