//! Products with a single column of weights, such as the last layer of a tower or of attention: a
//! dot product for each row, where a tile would leave all lanes but one idle.

use super::lanes::{Kernel, Lanes};
use super::matrix::{Matrix, MatrixMut};
use super::path::Proof;
use super::real::Activation;
use super::tile::activate;
use super::vector::product;

/// Rows that are finished together: a whole number of vectors on every path.
const ROWS: usize = 16;

struct Column<'a> {
    x: Matrix<'a>,
    w: &'a [f32],
    add: bool,
    bias: f32,
    act: Activation,
    y: MatrixMut<'a>,
}

impl Kernel for Column<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let mut y = self.y;
        for start in (0..self.x.rows).step_by(ROWS) {
            let rows = ROWS.min(self.x.rows - start);
            let mut sums = [0.0; ROWS];
            for (i, sum) in sums.iter_mut().enumerate().take(rows) {
                let before = if self.add { y.row(start + i)[0] } else { 0.0 };
                *sum = before + self.bias + product(lanes, self.x.row(start + i), self.w);
            }
            for sums in sums.chunks_exact_mut(L::WIDTH) {
                lanes.store(sums, activate(lanes, self.act, lanes.load(sums)));
            }
            for (i, sum) in sums.into_iter().enumerate().take(rows) {
                y.row(start + i)[0] = sum;
            }
        }
    }
}

/// `y = act(x w + bias)`, or `y = act(y + x w + bias)` when `add`, for a `y` of one column.
pub(super) fn matmul(
    proof: Proof,
    x: Matrix,
    w: &[f32],
    add: bool,
    bias: f32,
    act: Activation,
    y: MatrixMut,
) {
    assert_eq!((x.columns, x.rows, 1), (w.len(), y.rows, y.columns), "shapes of a product");
    proof.run(Column { x, w, add, bias, act, y });
}
