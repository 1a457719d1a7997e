//! New pages of names and features and new packs of users come to the store ahead of the checkpoint that knows of them first, in portions: in one
//! batch with it, a million new items would take sled eight times their bytes of memory.
//!
//! A page is new when all its numbers lie beyond those that the checkpoint in force has, a pack when its own does. Whoever starts from that
//! checkpoint passes them over; pages are removed with its next one, packs overwritten when their numbers come again. So nothing that counts is touched. All
//! other changes wait for the batch of the commit. Before the first commit there is a mark beside new pages that tells them from a store that has
//! lost its commits.

use super::pieces::piece_of;
use super::{Changes, Checkpoint};
use crate::error::Stop;
use crate::store::Batch;
use crate::store::keys::Meta;

/// So many bytes of changes are put into the batch of the commit, whatever they are; of more, new pages are written ahead in portions of so many.
pub(super) const PORTION: usize = 4 << 20;

impl Checkpoint {
    /// Takes changes of the next checkpoint before its cut. What is a new page of them goes to the store now where there is much of it.
    ///
    /// # Errors
    /// When the disk fails. The checkpoint in force stays so.
    pub fn ahead(&mut self, changes: Changes) -> Result<(), Stop> {
        self.waiting.append(changes.0);
        // On a full disk all waits for the checkpoint, which says so.
        if self.waiting.bytes() > self.portion && self.lacks_room()?.is_none() {
            self.write_new()?;
        }
        Ok(())
    }

    /// Writes the new pages of what waits, where there is much.
    pub(super) fn write_new(&mut self) -> Result<(), Stop> {
        if self.waiting.bytes() <= self.portion {
            return Ok(());
        }
        let reach = &self.reach;
        let is_new = |key: &[u8]| piece_of(key).is_some_and(|piece| piece.is_beyond(reach));
        let new = self.waiting.split_off(is_new);
        for mut portion in new.portions(self.portion) {
            if self.number == 0 {
                portion.put(Meta::Ahead.key(), []);
            }
            self.store.apply(portion)?;
        }
        Ok(())
    }

    /// Takes note of pages in the store that the checkpoint in force does not know.
    pub(super) fn remove_later(&mut self, keys: Vec<Vec<u8>>) {
        let mut gone = Batch::default();
        keys.into_iter().for_each(|key| gone.delete(key));
        self.waiting.append(gone);
    }
}
