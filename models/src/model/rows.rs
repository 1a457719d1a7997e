//! The embedding rows that a batch needs: each distinct one once, and for each occurrence which one it is.

use std::sync::Arc;

use sluice_features::example::Batch;
use sluice_features::time::EventTime;

use super::plan::Plan;
use crate::kernels::{AdagradStep, Real};
use crate::layers::Grid;
use crate::spec::ModelSpec;
use crate::table::{Grouping, RowStore, RowStoreConfig, RowStoreStats};

/// The rows of one store.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoreRows<R> {
    occurrences: Vec<u64>,
    grouping: Grouping,
    /// `[distinct, width]`
    values: Grid<R>,
    columns: usize,
    /// Where the occurrences of each list begin.
    lists: Vec<usize>,
    /// Where those of each part of each look begin.
    looks: Vec<[usize; 3]>,
}

impl<R: Real> StoreRows<R> {
    /// Which distinct row the key column `column` of `example` is.
    #[inline]
    pub(crate) fn key(&self, example: usize, column: usize) -> usize {
        self.grouping.index()[example * self.columns + column] as usize
    }

    /// Which distinct row an entry of a list is.
    #[inline]
    pub(crate) fn list(&self, list: usize, entry: usize) -> usize {
        self.grouping.index()[self.lists[list] + entry] as usize
    }

    /// Which distinct row a part of a behaviour is.
    #[inline]
    pub(crate) fn look(&self, look: usize, part: usize, behaviour: usize) -> usize {
        self.grouping.index()[self.looks[look][part] + behaviour] as usize
    }

    /// A distinct row.
    #[inline]
    pub(crate) fn value(&self, row: usize) -> &[R] {
        self.values.row(row)
    }

    /// How many distinct rows there are.
    pub(crate) fn distinct(&self) -> usize {
        self.grouping.keys().len()
    }

    /// How many occurrences there are.
    pub(crate) fn occurrences(&self) -> usize {
        self.occurrences.len()
    }

    /// Numbers in a row.
    pub(crate) fn width(&self) -> usize {
        self.values.columns()
    }

    fn prepare(&mut self, plan: &Plan, store: usize, batch: &Batch) {
        let shape = &plan.stores[store];
        let fields = if batch.is_empty() { 0 } else { batch.keys.len() / batch.size() };
        self.columns = shape.columns;
        self.occurrences.clear();
        self.lists.clear();
        self.looks.clear();
        if shape.columns == fields {
            self.occurrences.extend_from_slice(&batch.keys);
        } else {
            let mine = || plan.keys.iter().filter(|column| column.store == store);
            for keys in batch.keys.chunks_exact(fields) {
                self.occurrences.extend(mine().map(|column| keys[column.field]));
            }
        }
        for (list, ragged) in batch.lists.iter().enumerate() {
            self.lists.push(self.occurrences.len());
            if shape.linear || plan.lists.get(list).is_some_and(|c| c.store == store) {
                self.occurrences.extend_from_slice(&ragged.keys);
            }
        }
        for (look, history) in plan.looks.iter().zip(&batch.histories) {
            let columns = [&history.items, &history.categories, &history.gaps];
            let mut begins = [0; 3];
            for (part, &(of, _)) in look.parts.iter().enumerate() {
                begins[part] = self.occurrences.len();
                if of == store {
                    self.occurrences.extend_from_slice(columns[part]);
                }
            }
            self.looks.push(begins);
        }
        self.grouping.group(&self.occurrences);
        self.values.reshape(self.grouping.keys().len(), shape.width);
    }
}

/// The rows of all stores.
#[derive(Clone, Debug, Default)]
pub struct Rows<R> {
    pub(crate) stores: Vec<StoreRows<R>>,
}

impl<R: Real> Rows<R> {
    /// Finds out which rows a batch needs; their numbers are arbitrary then.
    pub(crate) fn prepare(&mut self, plan: &Plan, batch: &Batch) {
        self.stores.resize_with(plan.stores.len(), StoreRows::default);
        for (store, rows) in self.stores.iter_mut().enumerate() {
            rows.prepare(plan, store, batch);
        }
    }

    /// Makes gradients of all rows zero.
    pub(crate) fn clear_gradients(&self, gradients: &mut Vec<Grid<R>>) {
        gradients.resize_with(self.stores.len(), Grid::default);
        for (gradient, rows) in gradients.iter_mut().zip(&self.stores) {
            gradient.zero(rows.distinct(), rows.values.columns());
        }
    }

    /// Takes away what would go to key 0, which is no row.
    pub(crate) fn drop_nothing(&self, gradients: &mut [Grid<R>]) {
        for (gradient, rows) in gradients.iter_mut().zip(&self.stores) {
            if let Some(row) = rows.grouping.keys().iter().position(|&key| key == 0) {
                gradient.row_mut(row).fill(R::zero());
            }
        }
    }

    /// Sets the numbers of every row: for tests of gradients, where there is no store.
    #[cfg(test)]
    pub(crate) fn fill(&mut self, mut value: impl FnMut(usize, u64, usize) -> R) {
        for (store, rows) in self.stores.iter_mut().enumerate() {
            for (row, &key) in rows.grouping.keys().iter().enumerate() {
                for (k, number) in rows.values.row_mut(row).iter_mut().enumerate() {
                    *number = if key == 0 { R::zero() } else { value(store, key, k) };
                }
            }
        }
    }

    /// The distinct keys of a store.
    #[cfg(test)]
    pub(crate) fn keys(&self, store: usize) -> &[u64] {
        self.stores[store].grouping.keys()
    }

    /// All numbers of a store's rows.
    #[cfg(test)]
    pub(crate) fn numbers(&mut self, store: usize) -> &mut [R] {
        self.stores[store].values.values_mut()
    }

    /// Where among them the numbers of key 0 are.
    #[cfg(test)]
    pub(crate) fn nothing(&self, store: usize) -> Option<std::ops::Range<usize>> {
        let store = &self.stores[store];
        let row = store.grouping.keys().iter().position(|&key| key == 0)?;
        let width = store.values.columns();
        Some(row * width..(row + 1) * width)
    }
}

/// The stores of a model: one for each distinct width of its tables, and one for the rows of `linear`.
///
/// The learner is the only writer; scorers read at the same time.
#[derive(Debug)]
pub struct Embeddings {
    stores: Vec<Arc<RowStore>>,
}

impl Embeddings {
    pub(crate) fn new(plan: &Plan, spec: &ModelSpec, seed: u64) -> Self {
        let rules = &spec.embeddings;
        let store = |(number, shape): (usize, &super::plan::StoreShape)| {
            let learning = &spec.learning;
            let rate = if shape.linear {
                learning.linear_rate / (plan.terms.max(1) as f64).sqrt()
            } else {
                learning.row_rate
            };
            let deviation = if shape.linear { 0.0 } else { learning.row_deviation };
            Arc::new(RowStore::new(RowStoreConfig {
                width: shape.width,
                seed: sluice_features::ids::salted_hash(seed, &(number as u64).to_le_bytes()),
                initial_scale: deviation as f32,
                admission: rules.admission,
                max_rows: rules.max_rows,
                expiry: rules.expiry,
                step: AdagradStep { rate: rate as f32, eps: 1e-10 },
            }))
        };
        Self { stores: plan.stores.iter().enumerate().map(store).collect() }
    }

    /// The stores: widths ascending, then that of `linear`.
    pub fn stores(&self) -> &[Arc<RowStore>] {
        &self.stores
    }

    /// Reads rows; what is not there is zero.
    pub(crate) fn read(&self, rows: &mut Rows<f32>) {
        for (store, rows) in self.stores.iter().zip(&mut rows.stores) {
            store.gather(rows.grouping.keys(), rows.values.values_mut());
        }
    }

    /// Reads rows for learning: ids are counted and get a row when they are due one.
    pub(crate) fn learn(&self, rows: &mut Rows<f32>, now: EventTime) {
        for (store, rows) in self.stores.iter().zip(&mut rows.stores) {
            let (keys, counts) = (rows.grouping.keys(), rows.grouping.counts());
            store.gather_or_insert_counted(keys, counts, now, rows.values.values_mut());
        }
    }

    /// One step of row-wise Adagrad with gradients already summed by id, for one part of the rows: together all parts are all rows, and they may
    /// be applied side by side.
    pub(crate) fn apply(
        &self,
        rows: &Rows<f32>,
        gradients: &[Grid<f32>],
        part: usize,
        parts: usize,
    ) {
        for ((store, rows), gradient) in self.stores.iter().zip(&rows.stores).zip(gradients) {
            store.apply_part(rows.grouping.keys(), gradient.values(), part, parts);
        }
    }

    /// Removes rows that were not used for the configured time before `now`, some at each call; see [`RowStore::sweep`].
    pub fn sweep(&self, now: EventTime) {
        self.stores.iter().for_each(|store| store.sweep(now, |_| {}));
    }

    /// Rows, bytes and what happened, of all stores together.
    pub fn stats(&self) -> RowStoreStats {
        let stats = self.stores.iter().map(|store| store.stats());
        stats.fold(RowStoreStats::default(), |sum, stats| sum + stats)
    }

    /// Bytes of rows that are put aside for an image ([`RowStore::put_aside`]).
    pub fn put_aside(&self) -> usize {
        self.stores.iter().map(|store| store.put_aside()).sum()
    }

    /// A number that two hold in common when their rows, counts and optimiser states are equal.
    pub fn checksum(&self) -> u64 {
        let sums: Vec<u8> = self.stores.iter().flat_map(|s| s.checksum().to_le_bytes()).collect();
        sluice_features::ids::stable_hash(&sums)
    }
}
