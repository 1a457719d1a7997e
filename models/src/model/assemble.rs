//! From rows to features and back: copies on the way in, sums on the way out.

use std::ops::Range;

use sluice_features::example::{Batch, Ragged};

use super::plan::Plan;
use super::rows::Rows;
use crate::kernels::Real;
use crate::layers::Grid;

/// Features of a slice of a batch; `n` is its length.
#[derive(Clone, Debug, Default)]
pub(crate) struct Features<R> {
    /// `[n, D]`
    pub(crate) x: Grid<R>,
    /// `[n, I]`: the candidate's item and category.
    pub(crate) target: Grid<R>,
    /// For each look, `[m, I]` or with ages `[m, I + G]`.
    pub(crate) behaviours: Vec<Grid<R>>,
}

impl<R: Real> Features<R> {
    /// Copies fields, target and behaviours; the interest's columns of `x` stay arbitrary.
    pub(crate) fn gather(
        &mut self,
        plan: &Plan,
        width: usize,
        batch: &Batch,
        slice: &Range<usize>,
        rows: &Rows<R>,
    ) {
        self.x.reshape(slice.len(), width);
        for (row, example) in slice.clone().enumerate() {
            let x = self.x.row_mut(row);
            for column in &plan.keys {
                let store = &rows.stores[column.store];
                let value = store.value(store.key(example, column.index));
                x[column.offset..column.offset + column.width].copy_from_slice(value);
            }
            for column in &plan.lists {
                let out = &mut x[column.offset..column.offset + column.width];
                out.fill(R::zero());
                let store = &rows.stores[column.store];
                let (entries, share) = entries(&batch.lists[column.index], example);
                for entry in entries {
                    R::axpy(share, store.value(store.list(column.index, entry)), out);
                }
            }
            let numbers = &batch.numbers[example * plan.numbers..(example + 1) * plan.numbers];
            let out = &mut x[plan.numbers_at..plan.numbers_at + plan.numbers];
            for (out, &number) in out.iter_mut().zip(numbers) {
                *out = R::from_f64(f64::from(number));
            }
        }
        self.gather_target(plan, slice, rows);
        self.behaviours.resize_with(plan.looks.len(), Grid::default);
        for (number, (look, out)) in plan.looks.iter().zip(&mut self.behaviours).enumerate() {
            let behaviours = behaviours(batch, number, slice);
            out.reshape(behaviours.len(), look.width());
            for (row, behaviour) in behaviours.enumerate() {
                let mut rest = out.row_mut(row);
                for (part, &(store, width)) in look.parts.iter().enumerate() {
                    let store = &rows.stores[store];
                    let (mine, others) = rest.split_at_mut(width);
                    mine.copy_from_slice(store.value(store.look(number, part, behaviour)));
                    rest = others;
                }
            }
        }
    }

    fn gather_target(&mut self, plan: &Plan, slice: &Range<usize>, rows: &Rows<R>) {
        let (item, _) = plan.behaviour();
        let Some(target) = plan.target else {
            // Only an encoder that does not look at the candidate goes without.
            self.target.zero(slice.len(), item);
            return;
        };
        self.target.reshape(slice.len(), item);
        for (row, example) in slice.clone().enumerate() {
            let mut rest = self.target.row_mut(row);
            for column in target.map(|column| &plan.keys[column]) {
                let store = &rows.stores[column.store];
                let (mine, others) = rest.split_at_mut(column.width);
                mine.copy_from_slice(store.value(store.key(example, column.index)));
                rest = others;
            }
        }
    }

    /// Adds the gradients of features to those of rows.
    pub(crate) fn scatter(
        gradient: &Self,
        plan: &Plan,
        batch: &Batch,
        slice: &Range<usize>,
        rows: &Rows<R>,
        out: &mut [Grid<R>],
    ) {
        let one = R::one();
        for (row, example) in slice.clone().enumerate() {
            let dx = gradient.x.row(row);
            for column in &plan.keys {
                let place = rows.stores[column.store].key(example, column.index);
                let part = &dx[column.offset..column.offset + column.width];
                R::axpy(one, part, out[column.store].row_mut(place));
            }
            for column in &plan.lists {
                let part = &dx[column.offset..column.offset + column.width];
                let (entries, share) = entries(&batch.lists[column.index], example);
                for entry in entries {
                    let place = rows.stores[column.store].list(column.index, entry);
                    R::axpy(share, part, out[column.store].row_mut(place));
                }
            }
            let mut rest = gradient.target.row(row);
            for column in plan.target.into_iter().flatten().map(|column| &plan.keys[column]) {
                let place = rows.stores[column.store].key(example, column.index);
                let (mine, others) = rest.split_at(column.width);
                R::axpy(one, mine, out[column.store].row_mut(place));
                rest = others;
            }
        }
        for (number, (look, grid)) in plan.looks.iter().zip(&gradient.behaviours).enumerate() {
            for (row, behaviour) in behaviours(batch, number, slice).enumerate() {
                let mut rest = grid.row(row);
                for (part, &(store, width)) in look.parts.iter().enumerate() {
                    let place = rows.stores[store].look(number, part, behaviour);
                    let (mine, others) = rest.split_at(width);
                    R::axpy(one, mine, out[store].row_mut(place));
                    rest = others;
                }
            }
        }
    }
}

/// The entries of an example's list, and the share of each in their mean.
pub(crate) fn entries<R: Real>(list: &Ragged, example: usize) -> (Range<usize>, R) {
    let range = list.starts[example] as usize..list.starts[example + 1] as usize;
    let share = R::one() / R::from_f64(range.len().max(1) as f64);
    (range, share)
}

/// The behaviours of a slice of examples.
fn behaviours(batch: &Batch, look: usize, slice: &Range<usize>) -> Range<usize> {
    let starts = &batch.histories[look].starts;
    starts[slice.start] as usize..starts[slice.end] as usize
}
