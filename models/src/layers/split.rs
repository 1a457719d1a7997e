//! A product `Y = act(X W + b)` in which some columns of `X` are the same in all rows.
//!
//! With `X = [c; r_i; o_i]`, where few different `r` occur: `Y_i = act(o_i W_o + (r W_r)_i + (c W_c + b))`. The last part is computed once, that before it
//! once for each different `r`, and only the first, with the rows of `W` that meet a row's own columns, for each row.
//!
//! Shapes: `c` `[C]`, `r` `[different ones, width]`, `o` `[n, O]`, `W` `[C + widths + O, outputs]`.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::Grid;
use super::grid::numbers;
use crate::kernels::{Activation, Lookup, Real, sum_lookups};
use crate::params::view;
use crate::work::product;

/// Rows of features of which some columns stand once.
#[derive(Clone, Copy, Debug)]
pub struct SplitInput<'a> {
    /// `c` `[1, C]`
    pub common: ArrayView2<'a, f32>,
    /// The rows of `W` that `c` meets, in order.
    pub common_rows: &'a [Range<usize>],
    /// `o`
    pub own: ArrayView2<'a, f32>,
    /// The rows of `W` that `o` meets, in order.
    pub own_rows: &'a [Range<usize>],
    /// `r`
    pub narrow: &'a [Narrow],
}

/// Columns of which few different ones occur.
#[derive(Clone, Debug, Default)]
pub struct Narrow {
    /// The rows of `W` that they meet.
    rows: Range<usize>,
    /// `[different ones, width]`
    values: Vec<f32>,
    /// `[n]`: which one a row has.
    pub index: Vec<u32>,
}

impl Narrow {
    /// Begins anew, with nothing.
    pub fn start(&mut self, rows: Range<usize>) {
        self.rows = rows;
        self.values.clear();
        self.index.clear();
    }

    /// Adds a different one and returns its number.
    pub fn add(&mut self, value: &[f32]) -> u32 {
        let number = self.count();
        self.values.extend_from_slice(value);
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    /// Returns how many different ones there are.
    pub fn count(&self) -> usize {
        self.values.len() / self.rows.len().max(1)
    }
}

/// Memory of a product, which serves again.
#[derive(Clone, Debug, Default)]
pub struct SplitScratch {
    /// `[O, outputs]`: the rows of the weights that a row's own columns meet.
    weight: Vec<f32>,
    bias: Grid<f32>,
    /// For each narrow part `[different ones, outputs]`.
    products: Vec<Grid<f32>>,
}

impl SplitInput<'_> {
    /// Operations of a product with so many outputs.
    pub(crate) fn operations(&self, outputs: usize) -> u64 {
        let once = product(1, self.common.ncols(), outputs);
        let each = product(self.own.nrows(), self.own.ncols(), outputs);
        let narrow = |part: &Narrow| product(part.count(), part.rows.len(), outputs);
        once + each + self.narrow.iter().map(narrow).sum::<u64>()
    }

    /// The same were everything repeated.
    pub(crate) fn unshared_operations(&self, outputs: usize) -> u64 {
        let narrow: usize = self.narrow.iter().map(|part| part.rows.len()).sum();
        product(self.own.nrows(), self.common.ncols() + narrow + self.own.ncols(), outputs)
    }

    /// Writes `y`.
    ///
    /// # Panics
    /// When shapes do not fit.
    pub fn matmul(
        &self,
        weight: ArrayView2<'_, f32>,
        bias: &[f32],
        act: Activation,
        scratch: &mut SplitScratch,
        mut y: ArrayViewMut2<'_, f32>,
    ) {
        let outputs = weight.ncols();
        let rows = |range: &Range<usize>| weight.slice_move(s![range.clone(), ..]);
        scratch.bias.reshape(1, outputs);
        scratch.bias.values_mut().copy_from_slice(bias);
        let mut column = 0;
        for range in self.common_rows {
            let x = self.common.slice(s![.., column..column + range.len()]);
            f32::matmul_add(x, rows(range), scratch.bias.view_mut());
            column += range.len();
        }
        scratch.weight.clear();
        for range in self.own_rows {
            rows(range).rows().into_iter().for_each(|row| {
                scratch.weight.extend_from_slice(numbers(row));
            });
        }
        let own = view(&scratch.weight, self.own.ncols(), outputs);
        if self.narrow.is_empty() {
            f32::matmul(self.own, own, Some(scratch.bias.values()), act, y);
            return;
        }
        scratch.products.resize_with(self.narrow.len(), Grid::default);
        for (narrow, to) in self.narrow.iter().zip(&mut scratch.products) {
            to.reshape(narrow.count(), outputs);
            let values = view(&narrow.values, narrow.count(), narrow.rows.len());
            f32::matmul(values, rows(&narrow.rows), None, Activation::None, to.view_mut());
        }
        let lookups = self.narrow.iter().zip(&scratch.products);
        let lookups =
            lookups.map(|(n, products)| Lookup { rows: products.view(), index: &n.index });
        sum_lookups(scratch.bias.values(), lookups, y.view_mut());
        f32::matmul_onto(self.own, own, act, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_product_with_everything_repeated() {
        let number = |i: usize| (i as f32 * 1.7).sin();
        let grid = |rows: usize, columns: usize, from: usize| {
            let mut grid = Grid::default();
            grid.reshape(rows, columns);
            grid.values_mut().iter_mut().enumerate().for_each(|(i, x)| *x = number(i + from));
            grid
        };
        let (common, own, weight) = (grid(1, 3, 1), grid(5, 4, 9), grid(9, 6, 40));
        let (common_rows, own_rows) = ([1..3, 6..7], [0..1, 3..6]);
        let mut narrow = Narrow::default();
        narrow.start(7..9);
        assert_eq!([narrow.add(&[0.4, -0.3]), narrow.add(&[0.9, 0.2])], [0, 1]);
        narrow.index = vec![0, 1, 1, 0, 1];
        let split = SplitInput {
            common: common.view(),
            common_rows: &common_rows,
            own: own.view(),
            own_rows: &own_rows,
            narrow: &[narrow],
        };
        let mut whole = grid(5, 9, 0);
        for i in 0..5 {
            let (c, o) = (common.row(0), own.row(i));
            let r = if [0, 3].contains(&i) { [0.4, -0.3] } else { [0.9, 0.2] };
            let row = [o[0], c[0], c[1], o[1], o[2], o[3], c[2], r[0], r[1]];
            whole.row_mut(i).copy_from_slice(&row);
        }
        let bias = [0.1, -0.2, 0.3, 0.4, -0.5, 0.6];
        let (mut y, mut wanted) = (grid(5, 6, 0), grid(5, 6, 0));
        let act = Activation::Relu;
        let mut scratch = SplitScratch::default();
        split.matmul(weight.view(), &bias, act, &mut scratch, y.view_mut());
        f32::matmul(whole.view(), weight.view(), Some(&bias), act, wanted.view_mut());
        for (y, wanted) in y.values().iter().zip(wanted.values()) {
            assert!((y - wanted).abs() < 1e-5, "{y} {wanted}");
        }
    }
}
