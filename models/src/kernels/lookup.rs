//! Rows that are sums of rows looked up in tables: what few different inputs contribute to a product, each computed once.

use ndarray::{ArrayView2, ArrayViewMut2};

use super::lanes::{Kernel, Lanes};
use super::matrix::{Matrix, MatrixMut};
use super::path::Proof;

/// Most tables that are summed in one go; more take several.
const MOST: usize = 8;

/// A table and which of its rows each row of the result takes.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// `[different ones, columns]`
    pub rows: ArrayView2<'a, f32>,
    /// `[n]`
    pub index: &'a [u32],
}

/// Writes `y_i = bias + Σ_k P_k[index_k[i]]`, `y` `[n, columns]`, for the lookups `P_k` in order.
///
/// # Panics
/// When shapes do not fit, rows are not contiguous, or an index is out of range.
pub fn sum_lookups<'a>(
    bias: &[f32],
    lookups: impl Iterator<Item = Lookup<'a>>,
    y: ArrayViewMut2<'_, f32>,
) {
    apply(Proof::current(), bias, lookups, y);
}

fn apply<'a>(
    proof: Proof,
    bias: &[f32],
    mut lookups: impl Iterator<Item = Lookup<'a>>,
    mut y: ArrayViewMut2<'_, f32>,
) {
    assert_eq!(bias.len(), y.ncols(), "columns of y, and biases");
    let mut bias = Some(bias);
    loop {
        let mut tables = [None; MOST];
        for (table, lookup) in tables.iter_mut().zip(lookups.by_ref()) {
            let fits = (lookup.index.len(), lookup.rows.ncols()) == y.dim();
            assert!(fits, "a lookup of {:?} does not fit {:?}", lookup.rows.dim(), y.dim());
            *table = Some((Matrix::new(lookup.rows), lookup.index));
        }
        let more = tables[MOST - 1].is_some();
        proof.run(Sum { bias: bias.take(), tables, y: MatrixMut::new(y.view_mut()) });
        if !more {
            return;
        }
    }
}

struct Sum<'a> {
    /// The rows begin with these numbers, or with what they are.
    bias: Option<&'a [f32]>,
    /// The first are there, the others are not.
    tables: [Option<(Matrix<'a>, &'a [u32])>; MOST],
    y: MatrixMut<'a>,
}

impl Kernel for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self, lanes: L) {
        for i in 0..self.y.rows {
            let mut rows: [&[f32]; MOST] = [&[]; MOST];
            let mut count = 0;
            for (table, index) in self.tables.iter().flatten() {
                rows[count] = table.row(index[i] as usize);
                count += 1;
            }
            let (y, rows) = (self.y.row(i), &rows[..count]);
            let whole = y.len() / L::WIDTH * L::WIDTH;
            for at in (0..whole).step_by(L::WIDTH) {
                let mut sum = lanes.load(self.bias.map_or(&y[at..], |bias| &bias[at..]));
                for row in rows {
                    sum = lanes.add(sum, lanes.load(&row[at..]));
                }
                lanes.store(&mut y[at..], sum);
            }
            for at in whole..y.len() {
                let start = self.bias.map_or(y[at], |bias| bias[at]);
                y[at] = rows.iter().fold(start, |sum, row| sum + row[at]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    #[test]
    fn sums_are_those_of_the_rows_for_any_number_of_tables() {
        for proof in Proof::all() {
            for count in [0, 1, 3, 8, 9, 17] {
                for columns in [1, 9, 16, 50] {
                    let table = |k: usize| {
                        Array2::from_shape_fn((3, columns), |(i, j)| {
                            ((i * 31 + j * 7 + k) as f32).sin()
                        })
                    };
                    let tables: Vec<Array2<f32>> = (0..count).map(table).collect();
                    let index = |k: usize| (0..5).map(|i| ((i * k) % 3) as u32).collect();
                    let indices: Vec<Vec<u32>> = (0..count).map(index).collect();
                    let lookups = tables.iter().zip(&indices);
                    let lookups = lookups.map(|(t, index)| Lookup { rows: t.view(), index });
                    let bias: Vec<f32> = (0..columns).map(|j| j as f32 * 0.1).collect();
                    let mut y = Array2::from_elem((5, columns), f32::NAN);
                    apply(proof, &bias, lookups, y.view_mut());
                    for ((i, j), &y) in y.indexed_iter() {
                        let rows = tables.iter().zip(&indices);
                        let sum: f32 = rows.map(|(t, index)| t[[index[i] as usize, j]]).sum();
                        assert!((y - bias[j] - sum).abs() < 1e-5, "{proof:?} {count} {columns}");
                    }
                }
            }
        }
    }
}
