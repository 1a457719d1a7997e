//! The rows of one store that a batch reads, and what an example does with them.

use std::ops::Range;

use sluice_features::example::Batch;

use crate::crossing::TermList;
use crate::kernels::{Real, Terms, Weights, advance_rows, move_rows, sum_rows};
use crate::table::{Loan, RowStore};

/// The rows of one store. Its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) loan: Loan,
    /// For each term its share, or 0 where its id has no row yet.
    pub(super) shares: Vec<f32>,
    /// Of one example's terms: squared norms of gradients, and rates.
    pub(super) squares: Vec<f32>,
    pub(super) rates: Vec<f32>,
    /// One example's rows of one number.
    weights: Weights,
}

impl Side {
    /// Takes out the rows of a slice of a batch.
    pub(super) fn lend(
        &mut self,
        store: &RowStore,
        list: &TermList,
        batch: &Batch,
        slice: &Range<usize>,
    ) {
        self.shares.clear();
        self.shares.extend_from_slice(list.shares());
        store.lend(&list.uses, &mut self.loan);
        if self.loan.is_whole() {
            return;
        }
        for (number, example) in slice.clone().enumerate() {
            let time = batch.about[example].time;
            for term in list.range(number) {
                let row = list.rows()[term] as usize;
                if self.loan.is_late(row) {
                    store.occur_late(list.uses[row].key, time, row, &mut self.loan);
                }
                if !self.loan.has_row(row) {
                    self.shares[term] = 0.0;
                }
            }
        }
    }

    /// The terms of the `number`-th example of the slice.
    pub(super) fn terms<'a>(&'a self, list: &'a TermList, number: usize) -> Terms<'a> {
        terms(list, &self.shares, number)
    }

    /// Moves the accumulators of an example's rows on, whose gradients have the norms `squares`, cut by a factor. Returns the sum of rates times squared norms.
    pub(super) fn advance(
        &mut self,
        list: &TermList,
        number: usize,
        store: &RowStore,
        factor: f32,
    ) -> f32 {
        if factor < 1.0 {
            self.squares.iter_mut().for_each(|square| *square *= factor * factor);
        }
        let rows = &list.rows()[list.range(number)];
        self.rates.resize(rows.len(), 0.0);
        let (width, step) = (store.width(), store.config().step);
        advance_rows(&mut self.loan.rows, width, rows, &self.squares, step, &mut self.rates)
    }

    /// Adds an example's rows to `sum`, which is as wide as they are. Returns the sum of squared shares.
    pub(super) fn add(&mut self, list: &TermList, number: usize, sum: &mut [f32]) -> f32 {
        let Self { loan, shares, weights, .. } = self;
        let terms = terms(list, shares, number);
        if let [sum] = sum {
            let [added, squares] = weights.take(bytemuck::cast_slice(&loan.rows), terms);
            *sum += added;
            return squares;
        }
        sum_rows(&loan.rows, sum.len(), terms, sum);
        f32::dot(terms.shares, terms.shares)
    }

    /// Moves on the accumulators of the rows that were just added, whose gradients are their share of one of squared norm `square`. Returns the sum of
    /// rates times squared norms.
    pub(super) fn advance_added(
        &mut self,
        list: &TermList,
        number: usize,
        store: &RowStore,
        square: f32,
    ) -> f32 {
        let shares = &self.shares[list.range(number)];
        if store.width() == 1 {
            return self.weights.advance(shares, square, store.config().step);
        }
        self.squares.clear();
        self.squares.extend(shares.iter().map(|share| share * share * square));
        self.advance(list, number, store, 1.0)
    }

    /// Moves these rows against their share of `steps`, which is as wide as they are.
    pub(super) fn move_added(&mut self, list: &TermList, number: usize, steps: &[f32]) {
        let Self { loan, shares, rates, weights, .. } = self;
        let terms = terms(list, shares, number);
        match steps {
            [step] => weights.put(bytemuck::cast_slice_mut(&mut loan.rows), terms, *step),
            steps => move_rows(&mut loan.rows, steps.len(), terms, rates, steps),
        }
    }
}

/// The terms of the `number`-th example with these shares.
pub(super) fn terms<'a>(list: &'a TermList, shares: &'a [f32], number: usize) -> Terms<'a> {
    let range = list.range(number);
    Terms { rows: &list.rows()[range.clone()], shares: &shares[range] }
}
