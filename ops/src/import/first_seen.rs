//! Features of items that a log of events carries in its rows: as they stood at the earliest row.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::Result;
use foldhash::fast::FixedState;

use super::stream::Stream;
use crate::wire::Fields;

/// The earliest features `F` of each item.
#[derive(Debug)]
pub(super) struct FirstSeen<F> {
    items: HashMap<Box<str>, (i64, F), FixedState>,
}

impl<F> Default for FirstSeen<F> {
    fn default() -> Self {
        Self { items: HashMap::default() }
    }
}

impl<F> FirstSeen<F> {
    /// Takes the features of an item at a time; of equal times the first is kept.
    pub(super) fn see(&mut self, item: &str, ts: i64, features: impl FnOnce() -> F) {
        if self.items.get(item).is_none_or(|(seen, _)| ts < *seen) {
            match self.items.entry(item.into()) {
                Entry::Occupied(mut entry) => drop(entry.insert((ts, features()))),
                Entry::Vacant(entry) => drop(entry.insert((ts, features()))),
            }
        }
    }

    /// Writes the items in the order of their ids.
    pub(super) fn write(
        &mut self,
        stream: &mut Stream,
        mut fields: impl FnMut(F) -> Fields,
    ) -> Result<()> {
        let mut items: Vec<_> = self.items.drain().collect();
        items.sort_by(|a, b| a.0.cmp(&b.0));
        items
            .into_iter()
            .try_for_each(|(item, (_, features))| stream.item(&item, &fields(features)))
    }
}
