//! Sums over slices: dot product, `y += alpha x`, column sums.

use super::lanes::{Kernel, Lanes};
use super::matrix::Matrix;
use super::path::Proof;

/// Vectors that are summed side by side, so that no addition waits for the one before.
const CHAINS: usize = 4;

struct Dot<'a>(&'a [f32], &'a [f32]);

impl Kernel for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> f32 {
        product(lanes, self.0, self.1)
    }
}

/// `Σ a[i] b[i]`.
#[inline(always)]
pub(super) fn product<L: Lanes>(lanes: L, a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [lanes.splat(0.0); CHAINS];
    let (mut a, mut b) = (a.chunks_exact(CHAINS * L::WIDTH), b.chunks_exact(CHAINS * L::WIDTH));
    for (a, b) in (&mut a).zip(&mut b) {
        for (v, sum) in sums.iter_mut().enumerate() {
            let at = v * L::WIDTH;
            *sum = lanes.mul_add(lanes.load(&a[at..]), lanes.load(&b[at..]), *sum);
        }
    }
    let (a, b) = (a.remainder().chunks(L::WIDTH), b.remainder().chunks(L::WIDTH));
    for ((a, b), sum) in a.zip(b).zip(&mut sums) {
        *sum = lanes.mul_add(lanes.load_part(a), lanes.load_part(b), *sum);
    }
    lanes.sum(lanes.add(lanes.add(sums[0], sums[1]), lanes.add(sums[2], sums[3])))
}

/// `Σ a[i] b[i]` for equal lengths.
pub(super) fn dot(proof: Proof, a: &[f32], b: &[f32]) -> f32 {
    proof.run(Dot(a, b))
}

struct Axpy<'a>(f32, &'a [f32], &'a mut [f32]);

impl Kernel for Axpy<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self(alpha, x, y) = self;
        let alpha = lanes.splat(alpha);
        let (mut x, mut y) = (x.chunks_exact(L::WIDTH), y.chunks_exact_mut(L::WIDTH));
        for (x, y) in (&mut x).zip(&mut y) {
            lanes.store(y, lanes.mul_add(alpha, lanes.load(x), lanes.load(y)));
        }
        let (x, y) = (x.remainder(), y.into_remainder());
        if !y.is_empty() {
            lanes.store_part(y, lanes.mul_add(alpha, lanes.load_part(x), lanes.load_part(y)));
        }
    }
}

/// `y += alpha x` for equal lengths.
pub(super) fn axpy(proof: Proof, alpha: f32, x: &[f32], y: &mut [f32]) {
    proof.run(Axpy(alpha, x, y));
}

struct ColumnSums<'a>(Matrix<'a>, &'a mut [f32]);

impl Kernel for ColumnSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self(dy, out) = self;
        for (block, out) in out.chunks_mut(CHAINS * L::WIDTH).enumerate() {
            let start = block * CHAINS * L::WIDTH;
            let mut sums = [lanes.splat(0.0); CHAINS];
            if out.len() == CHAINS * L::WIDTH {
                for i in 0..dy.rows {
                    let row = &dy.row(i)[start..start + CHAINS * L::WIDTH];
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = lanes.add(*sum, lanes.load(&row[v * L::WIDTH..]));
                    }
                }
            } else {
                for i in 0..dy.rows {
                    let row = &dy.row(i)[start..start + out.len()];
                    for (part, sum) in row.chunks(L::WIDTH).zip(&mut sums) {
                        *sum = lanes.add(*sum, lanes.load_part(part));
                    }
                }
            }
            for (out, sum) in out.chunks_mut(L::WIDTH).zip(sums) {
                lanes.store_part(out, lanes.add(lanes.load_part(out), sum));
            }
        }
    }
}

/// `out[j] += Σ_i dy[i, j]` for as many sums as columns.
pub(super) fn column_sums_add(proof: Proof, dy: Matrix, out: &mut [f32]) {
    proof.run(ColumnSums(dy, out));
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, s};

    use super::*;

    fn numbers(length: usize, seed: f32) -> Vec<f32> {
        (0..length).map(|i| (i as f32 * 1.7 + seed).sin()).collect()
    }

    #[test]
    fn sums_agree_with_double_precision_at_every_length_and_start() {
        for proof in Proof::all() {
            for length in 0..200 {
                let start = length % 5;
                let (a, b) = (numbers(length + start, 0.1), numbers(length + start, 0.7));
                let (a, b) = (&a[start..], &b[start..]);
                let exact: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                let found = f64::from(dot(proof, a, b));
                assert!((found - exact).abs() < 1e-5, "{proof:?} {length}: {found}, not {exact}");

                let mut y = b.to_vec();
                axpy(proof, -0.3, a, &mut y);
                for ((y, &a), &b) in y.iter().zip(a).zip(b) {
                    let exact = f64::from(b) + f64::from(-0.3_f32) * f64::from(a);
                    assert!((f64::from(*y) - exact).abs() < 1e-6, "{proof:?} {length}");
                }
            }
        }
    }

    #[test]
    fn column_sums_agree_with_double_precision() {
        for proof in Proof::all() {
            for (rows, columns) in [(0, 3), (1, 1), (7, 15), (9, 64), (300, 70), (5, 200)] {
                let dy = Array2::from_shape_fn((rows, columns + 2), |(i, j)| {
                    ((i * 31 + j) as f32).sin()
                });
                let dy = dy.slice(s![.., 1..=columns]);
                let mut out = vec![1.5; columns];
                column_sums_add(proof, Matrix::new(dy), &mut out);
                for (out, column) in out.iter().zip(dy.columns()) {
                    let exact: f64 = 1.5 + column.iter().map(|&d| f64::from(d)).sum::<f64>();
                    assert!((f64::from(*out) - exact).abs() < 1e-4, "{proof:?} {rows} {columns}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for proof in Proof::all() {
            for at in [0, 40, 99] {
                let mut a = numbers(100, 0.0);
                a[at] = f32::NAN;
                assert!(dot(proof, &a, &[1.0; 100]).is_nan());
                a[at] = f32::INFINITY;
                assert!(dot(proof, &a, &[1.0; 100]).is_infinite());
                let mut y = vec![0.0; 100];
                axpy(proof, 2.0, &a, &mut y);
                assert!(y[at].is_infinite() && y.iter().filter(|y| !y.is_finite()).count() == 1);
            }
        }
    }
}
