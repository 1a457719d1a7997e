//! `linear`: a weight for each id and task, and for each number and task: the logistic regression that click models began with.
//!
//! `logit_t += Σ_fields w_t(key) + Σ_lists mean w_t(key) + Σ_numbers x w_t`. The weights of an id are one row of `T` numbers in a
//! store of its own, zero at first, under the same key as its embedding: fields that share a table share the weight. Where weights have variances
//! ([`super::Variances`]) the row has `T` more, which are no weights.

use std::ops::Range;

use sluice_features::candidates::{Candidates, Columns};
use sluice_features::example::Batch;

use crate::kernels::Real;
use crate::layers::Grid;
use crate::model::{CandidateRows, CandidateStore, Places, Plan, Rows, Side, Split, entries};
use crate::params::{Block, Layout, Params, Start};
use crate::work::product;

/// The weights of numbers, and where those of ids are.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    numbers: Block,
    store: usize,
    columns: usize,
}

impl Linear {
    /// Adds the block `crossing.linear` `[numbers, T]`, zero at first.
    pub(crate) fn new(layout: &mut Layout, plan: &Plan, store: usize, tasks: usize) -> Self {
        let numbers = layout.add("crossing.linear", plan.numbers, tasks, Start::Constant(0.0));
        Self { numbers, store, columns: plan.stores[store].columns }
    }

    /// Operations for so many examples: a weight for each field or number, and task.
    pub(crate) fn operations(&self, examples: usize) -> u64 {
        product(examples, self.columns + self.numbers.rows(), self.numbers.columns())
    }

    /// Adds to `logits` `[n, T]`.
    pub(crate) fn forward<R: Real>(
        &self,
        params: &Params<R>,
        batch: &Batch,
        slice: &Range<usize>,
        rows: &Rows<R>,
        logits: &mut Grid<R>,
    ) {
        let store = &rows.stores[self.store];
        for (row, example) in slice.clone().enumerate() {
            let out = logits.row_mut(row);
            for column in 0..self.columns {
                add(R::one(), store.value(store.key(example, column)), out);
            }
            for (number, list) in batch.lists.iter().enumerate() {
                let (entries, share) = entries(list, example);
                for entry in entries {
                    add(share, store.value(store.list(number, entry)), out);
                }
            }
            self.add_numbers(params, batch, example, out);
        }
    }

    /// Writes `logits` `[n, T]` of candidates, which stand in `order`; there is at least one.
    pub(crate) fn score(
        &self,
        params: &Params<f32>,
        candidates: &Candidates,
        order: &[u32],
        split: &Split,
        rows: &CandidateRows,
        logits: &mut Grid<f32>,
    ) {
        let store = &rows.stores[self.store];
        logits.zero(order.len(), logits.columns());
        let (side, columns) = (&split.common, &candidates.common);
        self.score_side(params, side, columns, store, &store.common, 0, logits.row_mut(0));
        let (first, others) = logits.values_mut().split_at_mut(self.numbers.columns());
        others.chunks_exact_mut(first.len()).for_each(|row| row.copy_from_slice(first));
        let (side, columns) = (&split.own, &candidates.own);
        for (row, &candidate) in order.iter().enumerate() {
            let (candidate, out) = (candidate as usize, logits.row_mut(row));
            self.score_side(params, side, columns, store, &store.own, candidate, out);
        }
    }

    /// Adds the part of one row of the columns of one side.
    fn score_side(
        &self,
        params: &Params<f32>,
        side: &Side,
        columns: &Columns,
        store: &CandidateStore,
        places: &Places,
        row: usize,
        out: &mut [f32],
    ) {
        for column in 0..places.columns {
            add(1.0, store.key(places, row, column), out);
        }
        for (number, list) in columns.lists.iter().enumerate() {
            let (entries, share) = entries(list, row);
            for entry in entries {
                add(share, store.list(places, number, entry), out);
            }
        }
        let weights = params.matrix(self.numbers);
        let values = &columns.numbers[row * side.numbers.len()..];
        for (&number, &x) in side.numbers.iter().zip(values) {
            for (out, &w) in out.iter_mut().zip(weights.row(number)) {
                *out += x * w;
            }
        }
    }

    /// Given `dlogits`, overwrites its `grads` and adds to the gradients of rows.
    pub(crate) fn backward<R: Real>(
        &self,
        batch: &Batch,
        slice: &Range<usize>,
        rows: &Rows<R>,
        dlogits: &Grid<R>,
        grads: &mut Params<R>,
        drows: &mut [Grid<R>],
    ) {
        grads.zeroed(self.numbers);
        let (store, out) = (&rows.stores[self.store], &mut drows[self.store]);
        for (row, example) in slice.clone().enumerate() {
            let dlogits = dlogits.row(row);
            for column in 0..self.columns {
                add(R::one(), dlogits, out.row_mut(store.key(example, column)));
            }
            for (number, list) in batch.lists.iter().enumerate() {
                let (entries, share) = entries(list, example);
                for entry in entries {
                    add(share, dlogits, out.row_mut(store.list(number, entry)));
                }
            }
            self.differentiate_numbers(batch, example, dlogits, grads);
        }
    }

    /// Adds what the numbers of an example say to its `logits` `[T]`.
    pub(crate) fn add_numbers<R: Real>(
        &self,
        params: &Params<R>,
        batch: &Batch,
        example: usize,
        logits: &mut [R],
    ) {
        let count = self.numbers.rows();
        let numbers = &batch.numbers[example * count..(example + 1) * count];
        for (&x, w) in numbers.iter().zip(params.slice(self.numbers).chunks_exact(logits.len())) {
            add(R::from_f64(f64::from(x)), w, logits);
        }
    }

    /// The numbers of an example.
    pub(crate) fn inputs<'a>(&self, batch: &'a Batch, example: usize) -> &'a [f32] {
        let count = self.numbers.rows();
        &batch.numbers[example * count..(example + 1) * count]
    }

    /// Moves the weights of all numbers for a task by `step` times `direction`.
    pub(crate) fn move_numbers(
        &self,
        params: &mut Params<f32>,
        task: usize,
        step: f32,
        direction: &[f32],
    ) {
        let rows = params.slice_mut(self.numbers).chunks_exact_mut(self.numbers.columns());
        rows.zip(direction).for_each(|(row, &by)| row[task] += step * by);
    }

    /// Given `dlogits` `[T]` of an example, adds to `grads`.
    pub(crate) fn differentiate_numbers<R: Real>(
        &self,
        batch: &Batch,
        example: usize,
        dlogits: &[R],
        grads: &mut Params<R>,
    ) {
        let count = self.numbers.rows();
        let numbers = &batch.numbers[example * count..(example + 1) * count];
        let dw = grads.slice_mut(self.numbers).chunks_exact_mut(dlogits.len());
        for (&x, dw) in numbers.iter().zip(dw) {
            add(R::from_f64(f64::from(x)), dlogits, dw);
        }
    }
}

/// `out += share x`, for rows of a few numbers.
fn add<R: Real>(share: R, x: &[R], out: &mut [R]) {
    out.iter_mut().zip(x).for_each(|(out, &x)| *out += share * x);
}
