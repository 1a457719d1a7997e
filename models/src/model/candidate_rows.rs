//! The embedding rows that candidates need: each distinct one once.
//!
//! A store's occurrences are, end to end: key columns and lists of what is common, those of each candidate, the parts of the histories.

use sluice_features::candidates::{Candidates, Columns};

use super::plan::Plan;
use super::rows::Embeddings;
use super::split::{Side, Split};
use crate::layers::Grid;
use crate::table::Grouping;

/// Where the occurrences of one side begin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    keys: usize,
    /// How many key columns a row has in the store.
    pub(crate) columns: usize,
    lists: Vec<usize>,
}

/// The rows of one store.
#[derive(Clone, Debug, Default)]
pub(crate) struct CandidateStore {
    occurrences: Vec<u64>,
    grouping: Grouping,
    /// `[distinct, width]`
    values: Grid<f32>,
    pub(crate) common: Places,
    pub(crate) own: Places,
    /// Where the parts of each look begin.
    looks: Vec<[usize; 3]>,
}

impl CandidateStore {
    /// The row of a key column.
    #[inline]
    pub(crate) fn key(&self, places: &Places, row: usize, column: usize) -> &[f32] {
        self.row(self.key_row(places, row, column))
    }

    /// Which distinct row a key column is.
    #[inline]
    pub(crate) fn key_row(&self, places: &Places, row: usize, column: usize) -> usize {
        self.grouping.index()[places.keys + row * places.columns + column] as usize
    }

    /// A distinct row.
    #[inline]
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        self.values.row(row)
    }

    /// How many distinct rows there are.
    pub(crate) fn distinct(&self) -> usize {
        self.grouping.keys().len()
    }

    /// The row of an entry of a list.
    #[inline]
    pub(crate) fn list(&self, places: &Places, list: usize, entry: usize) -> &[f32] {
        self.occurrence(places.lists[list] + entry)
    }

    /// The row of a part of a behaviour.
    #[inline]
    pub(crate) fn look(&self, look: usize, part: usize, behaviour: usize) -> &[f32] {
        self.occurrence(self.looks[look][part] + behaviour)
    }

    #[inline]
    fn occurrence(&self, place: usize) -> &[f32] {
        self.row(self.grouping.index()[place] as usize)
    }

    fn prepare(&mut self, plan: &Plan, split: &Split, store: usize, candidates: &Candidates) {
        self.occurrences.clear();
        let occurrences = &mut self.occurrences;
        push_side(occurrences, plan, &split.common, store, &candidates.common, &mut self.common);
        push_side(occurrences, plan, &split.own, store, &candidates.own, &mut self.own);
        self.looks.clear();
        for (look, history) in plan.looks.iter().zip(&candidates.histories) {
            let columns = [&history.items, &history.categories, &history.gaps];
            let mut begins = [0; 3];
            for (part, &(of, _)) in look.parts.iter().enumerate() {
                begins[part] = occurrences.len();
                if of == store {
                    occurrences.extend_from_slice(columns[part]);
                }
            }
            self.looks.push(begins);
        }
        self.grouping.group(&self.occurrences);
        self.values.reshape(self.grouping.keys().len(), plan.stores[store].width);
    }
}

/// Adds the occurrences of one side of a store's columns.
fn push_side(
    occurrences: &mut Vec<u64>,
    plan: &Plan,
    side: &Side,
    store: usize,
    columns: &Columns,
    places: &mut Places,
) {
    let mine = &side.places[store];
    (places.keys, places.columns) = (occurrences.len(), mine.len());
    if mine.len() == side.row {
        occurrences.extend_from_slice(&columns.keys);
    } else {
        for row in columns.keys.chunks_exact(side.row) {
            occurrences.extend(mine.iter().map(|&place| row[place]));
        }
    }
    places.lists.clear();
    for (number, list) in columns.lists.iter().enumerate() {
        places.lists.push(occurrences.len());
        let embedded = side.lists.get(number).is_some_and(|column| column.store == store);
        if plan.stores[store].linear || embedded {
            occurrences.extend_from_slice(&list.keys);
        }
    }
}

/// The rows of all stores.
#[derive(Clone, Debug, Default)]
pub(crate) struct CandidateRows {
    pub(crate) stores: Vec<CandidateStore>,
}

impl CandidateRows {
    /// Reads the rows that candidates need; what is not there is zero.
    pub(crate) fn read(
        &mut self,
        plan: &Plan,
        split: &Split,
        embeddings: &Embeddings,
        candidates: &Candidates,
    ) {
        self.stores.resize_with(plan.stores.len(), CandidateStore::default);
        for (number, rows) in self.stores.iter_mut().enumerate() {
            rows.prepare(plan, split, number, candidates);
            let store = &embeddings.stores()[number];
            store.gather(rows.grouping.keys(), rows.values.values_mut());
        }
    }
}
