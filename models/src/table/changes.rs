//! Which rows of a shard have changed since the newest checkpoint: what the next one has to write.
//!
//! A bit for each row, which every change of the row's words sets, and the keys that have lost their row. A row that came and went has its bit
//! set and no key: nothing is written of it.

/// Removed keys that are listed however few rows there are.
const LISTED: usize = 64;

/// What a shard has that the newest checkpoint has not.
#[derive(Debug)]
pub(super) struct Changes {
    /// No checkpoint has anything of the shard, or so many keys were removed that all of it is as soon written: all of it is to be.
    everything: bool,
    /// One bit for each row that was ever in use.
    rows: Vec<u64>,
    /// Keys that have lost their row, some of which may have got another since.
    removed: Vec<u64>,
}

impl Changes {
    /// Of a shard that is in no checkpoint.
    pub(super) fn everything(used: u32) -> Self {
        Self { everything: true, ..Self::none(used) }
    }

    /// Of a shard of `used` rows that is as in the newest checkpoint.
    pub(super) fn none(used: u32) -> Self {
        let rows = vec![0; used.div_ceil(u64::BITS) as usize];
        Self { everything: false, rows, removed: Vec::new() }
    }

    /// Makes sure that there is a bit for a row and those below it.
    pub(super) fn reserve(&mut self, row: u32) {
        let words = (row / u64::BITS) as usize + 1;
        if self.rows.len() < words {
            self.rows.resize(words, 0);
        }
    }

    /// Takes note that a row changes.
    #[inline(always)]
    pub(super) fn note(&mut self, row: u32) {
        self.rows[(row / u64::BITS) as usize] |= 1 << (row % u64::BITS);
    }

    /// Takes note that a key has lost its row, in a shard of `used` rows. A list that would take more than two bytes a row is given up.
    pub(super) fn note_removed(&mut self, key: u64, used: u32) {
        if self.everything {
            return;
        }
        self.removed.push(key);
        if self.removed.len() > LISTED.max(used as usize / 4) {
            self.everything = true;
            self.removed = Vec::new();
        }
    }

    /// Adds what had changed before, in the same shard, which has `used` rows by now.
    pub(super) fn add_earlier(&mut self, earlier: Self, used: u32) {
        self.everything |= earlier.everything;
        for (bits, earlier) in self.rows.iter_mut().zip(earlier.rows) {
            *bits |= earlier;
        }
        for key in earlier.removed {
            self.note_removed(key, used);
        }
        if self.everything {
            self.removed = Vec::new();
        }
    }

    /// Whether all of the shard is to be written.
    pub(super) fn is_everything(&self) -> bool {
        self.everything
    }

    /// Whether a row has changed.
    pub(super) fn has(&self, row: u32) -> bool {
        let bits = self.rows.get((row / u64::BITS) as usize);
        bits.is_some_and(|bits| bits >> (row % u64::BITS) & 1 == 1)
    }

    /// How many rows have changed, those that came and went among them.
    pub(super) fn rows(&self) -> usize {
        self.rows.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    /// The keys that have lost their row: ascending, each once.
    pub(super) fn removed(&self) -> Vec<u64> {
        let mut removed = self.removed.clone();
        removed.sort_unstable();
        removed.dedup();
        removed
    }

    /// How many keys that list names, some perhaps twice.
    pub(super) fn removals(&self) -> usize {
        self.removed.len()
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.rows[..]) + self.removed.capacity() * size_of::<u64>()
    }
}
