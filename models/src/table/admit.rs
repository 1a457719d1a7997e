//! Counts how often ids without a row have occurred, in bounded memory: a count-min sketch with
//! conservative update.
//!
//! Four cells belong to an id, the smallest is its count: never too low, too high only when
//! other ids share all four. After an eighth as many occurrences as there are cells all counts are
//! halved, so that the sketch never fills up: an id must come often enough within that time.

/// The counts of one shard.
#[derive(Debug)]
pub(super) struct Filter {
    cells: Vec<u8>,
    additions: u32,
}

const PROBES: usize = 4;
/// The fewest cells and the most.
const LEAST: usize = 1 << 10;
const MOST: usize = 1 << 17;

impl Filter {
    /// Creates a filter for a shard of up to `rows` rows.
    pub(super) fn new(rows: usize) -> Self {
        let cells = rows.saturating_mul(2).clamp(LEAST, MOST).next_power_of_two();
        Self { cells: vec![0; cells], additions: 0 }
    }

    /// Tells whether a filter, of a shard of however many rows, has so many cells.
    pub(super) fn is_of(cells: usize) -> bool {
        cells.is_power_of_two() && (LEAST..=MOST).contains(&cells)
    }

    /// Creates a filter from what [`Self::cells`] and [`Self::additions`] have shown.
    pub(super) fn restore(cells: Vec<u8>, additions: u32) -> Self {
        Self { cells, additions }
    }

    pub(super) fn cells(&self) -> &[u8] {
        &self.cells
    }

    pub(super) fn additions(&self) -> u32 {
        self.additions
    }

    /// Counts `occurrences` of the id with this hash and returns how often it has occurred, at most
    /// 255 times.
    pub(super) fn add(&mut self, hash: u64, occurrences: u32) -> u8 {
        let quarter = self.cells.len() / PROBES;
        let places: [usize; PROBES] = std::array::from_fn(|probe| {
            let bits = hash.rotate_left(16 * probe as u32).wrapping_mul(0xd6e8_feb8_6659_fd93);
            probe * quarter + (bits >> 40) as usize % quarter
        });
        let least = places.iter().map(|&place| self.cells[place]).min().unwrap_or(0);
        let count = least.saturating_add(u8::try_from(occurrences).unwrap_or(u8::MAX));
        for place in places {
            self.cells[place] = self.cells[place].max(count);
        }
        self.additions += 1;
        if self.additions as usize >= self.cells.len() / 8 {
            self.additions = 0;
            self.cells.iter_mut().for_each(|cell| *cell /= 2);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash;
    use super::*;

    #[test]
    fn counts_are_never_too_low_and_seldom_too_high() {
        let mut filter = Filter::new(100_000);
        let mut too_high = 0;
        for round in 1..=3 {
            for key in 1..5000 {
                let count = filter.add(hash(key), 1);
                assert!(count >= round);
                too_high += usize::from(count > round);
            }
        }
        assert!(too_high < 15_000 / 50, "{too_high} of 15,000 counts are too high");
    }

    #[test]
    fn ids_that_come_once_do_not_fill_it() {
        let mut filter = Filter::new(0);
        let seen_before = (1..1_000_000).filter(|&key| filter.add(hash(key), 1) > 1).count();
        assert!(seen_before < 50_000, "{seen_before} of a million ids seem to have come before");
    }

    #[test]
    fn counts_stop_at_the_top() {
        let mut filter = Filter::new(0);
        assert_eq!(filter.add(hash(1), 250), 250);
        assert_eq!(filter.add(hash(1), 250), 255);
        assert_eq!(filter.add(hash(2), 100_000), 255);
    }
}
