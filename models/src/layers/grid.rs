//! A matrix whose memory is kept between batches: it grows to the largest one and stays.

use std::ops::Range;

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, s};

use crate::kernels::Real;
use crate::params::{view, view_mut};

/// A matrix `[rows, columns]`, row by row.
#[derive(Clone, Debug, Default)]
pub struct Grid<R> {
    values: Vec<R>,
    rows: usize,
    columns: usize,
}

impl<R: Real> Grid<R> {
    /// Takes a shape. What it contains is then arbitrary.
    pub fn reshape(&mut self, rows: usize, columns: usize) {
        self.values.resize(rows * columns, R::zero());
        (self.rows, self.columns) = (rows, columns);
    }

    /// Takes a shape and becomes zero.
    pub fn zero(&mut self, rows: usize, columns: usize) {
        self.reshape(rows, columns);
        self.values.fill(R::zero());
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[R] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// One row to write to.
    pub fn row_mut(&mut self, row: usize) -> &mut [R] {
        &mut self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// All numbers, row by row.
    pub fn values(&self) -> &[R] {
        &self.values
    }

    /// All numbers to write to.
    pub fn values_mut(&mut self) -> &mut [R] {
        &mut self.values
    }

    /// The whole matrix.
    pub fn view(&self) -> ArrayView2<'_, R> {
        view(&self.values, self.rows, self.columns)
    }

    /// The whole matrix to write to.
    pub fn view_mut(&mut self) -> ArrayViewMut2<'_, R> {
        view_mut(&mut self.values, self.rows, self.columns)
    }

    /// Some columns of all rows.
    pub fn part(&self, columns: Range<usize>) -> ArrayView2<'_, R> {
        self.view().slice_move(s![.., columns])
    }

    /// Some columns of all rows to write to.
    pub fn part_mut(&mut self, columns: Range<usize>) -> ArrayViewMut2<'_, R> {
        self.view_mut().slice_move(s![.., columns])
    }
}

/// The numbers of a matrix's row, which loops run over faster than over the row.
pub(crate) fn numbers<R>(row: ArrayView1<'_, R>) -> &[R] {
    row.to_slice().expect("rows of a grid are contiguous")
}

/// The numbers of a matrix's row to write to.
pub(crate) fn numbers_mut<R>(row: ArrayViewMut1<'_, R>) -> &mut [R] {
    row.into_slice().expect("rows of a grid are contiguous")
}
