//! The way back from a product that was computed as its transpose.

use super::lanes::{Kernel, Lanes};
use super::matrix::MatrixMut;
use super::path::Proof;

/// Rows and columns that are transposed at a time.
const BLOCK: usize = 8;

struct Transpose<'a, 'y> {
    from: &'a [f32],
    stride: usize,
    add: bool,
    to: &'a mut MatrixMut<'y>,
}

impl Kernel for Transpose<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let (rows, columns) = (self.to.rows, self.to.columns);
        let mut block = [0.0; BLOCK * BLOCK];
        for column in (0..columns).step_by(BLOCK) {
            let width = BLOCK.min(columns - column);
            for row in (0..rows).step_by(BLOCK) {
                let height = BLOCK.min(rows - row);
                let from = &self.from[column * self.stride + row..];
                if width == BLOCK && from.len() > (BLOCK - 1) * self.stride + BLOCK - 1 {
                    // SAFETY: `from` has 8 rows of 8 numbers at this distance, by its length.
                    unsafe {
                        lanes.transpose_8x8(from.as_ptr(), self.stride, block.as_mut_ptr(), BLOCK);
                    }
                } else {
                    for j in 0..width {
                        for i in 0..height {
                            block[i * BLOCK + j] = from[j * self.stride + i];
                        }
                    }
                }
                for (i, numbers) in block.chunks_exact(BLOCK).enumerate().take(height) {
                    let to = &mut self.to.row(row + i)[column..column + width];
                    if self.add {
                        to.iter_mut().zip(numbers).for_each(|(to, x)| *to += x);
                    } else {
                        to.copy_from_slice(&numbers[..width]);
                    }
                }
            }
        }
    }
}

/// `to[i, j] = from[j, i]`, or `+=` when `add`; the rows of `from` are `stride` apart.
///
/// # Panics
/// When `from` is too short.
pub(super) fn transpose(proof: Proof, from: &[f32], stride: usize, add: bool, to: &mut MatrixMut) {
    assert!(stride >= to.rows && from.len() >= to.columns * stride, "a matrix and its transpose");
    proof.run(Transpose { from, stride, add, to });
}
