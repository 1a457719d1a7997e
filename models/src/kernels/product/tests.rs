//! Products on every path against the textbook in double precision.

use ndarray::{Array2, ArrayView2, s};

use super::*;
use crate::kernels::Real;

/// Numbers between -1 and 1 that look random and are the same each time.
fn numbers(rows: usize, columns: usize, seed: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        let index = (i * 7919 + j * 104_729 + seed * 31 + 1) as u64;
        let hash = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((hash >> 40) as f32 + 0.5) / (1 << 23) as f32 - 1.0
    })
}

fn wide(x: ArrayView2<f32>) -> Array2<f64> {
    x.mapv(f64::from)
}

fn assert_close(found: ArrayView2<f32>, expected: &Array2<f64>, depth: usize, what: &str) {
    let tolerance = 1e-6 * (depth as f64).sqrt() + 1e-6;
    for (index, &expected) in expected.indexed_iter() {
        let found = f64::from(found[index]);
        let error = (found - expected).abs() / (1.0 + expected.abs());
        assert!(error < tolerance, "{what} at {index:?}: {found}, not {expected}");
    }
}

/// All three products for one shape, with operands cut out of larger matrices.
fn check(proof: Proof, m: usize, k: usize, n: usize, spare: usize) {
    let what = format!("{proof:?} {m} {k} {n} +{spare}");
    let (x, w, y) =
        (numbers(m, k + spare, 1), numbers(k, n + 2 * spare, 2), numbers(m, n + 3 * spare, 3));
    let x = x.slice(s![.., spare..]);
    let w = w.slice(s![.., spare..spare + n]);
    let y0 = y.slice(s![.., spare..spare + n]);
    let bias: Vec<f32> = (0..n).map(|j| (j as f32).sin()).collect();
    let bias64: Vec<f64> = bias.iter().map(|&b| f64::from(b)).collect();

    for (act, bias, add) in [
        (Activation::None, None, false),
        (Activation::None, None, true),
        (Activation::None, Some(&bias), false),
        (Activation::Relu, Some(&bias), false),
        (Activation::Sigmoid, None, false),
        (Activation::Silu, Some(&bias), false),
    ] {
        let mut found = y.clone();
        let inside = found.slice_mut(s![.., spare..spare + n]);
        let bias_given = bias.map(Vec::as_slice);
        matmul(proof, Matrix::new(x), Matrix::new(w), add, bias_given, act, MatrixMut::new(inside));
        let mut expected = wide(y0);
        if add {
            f64::matmul_add(wide(x).view(), wide(w).view(), expected.view_mut());
        } else {
            let bias64 = bias.map(|_| bias64.as_slice());
            f64::matmul(wide(x).view(), wide(w).view(), bias64, act, expected.view_mut());
        }
        assert_close(found.slice(s![.., spare..spare + n]), &expected, k, &what);
        assert_frame(found.view(), y.view(), spare, n, &what);
    }

    for add in [false, true] {
        let mut dw = numbers(k, n + 2 * spare, 4);
        let before = dw.clone();
        let mut expected = wide(dw.slice(s![.., spare..spare + n]));
        let inside = dw.slice_mut(s![.., spare..spare + n]);
        matmul_tn(proof, Matrix::new(x), Matrix::new(y0), add, MatrixMut::new(inside));
        f64::matmul_tn(wide(x).view(), wide(y0).view(), add, expected.view_mut());
        assert_close(dw.slice(s![.., spare..spare + n]), &expected, m, &what);
        assert_frame(dw.view(), before.view(), spare, n, &what);

        let mut dx = numbers(m, k + 2 * spare, 5);
        let before = dx.clone();
        let mut expected = wide(dx.slice(s![.., spare..spare + k]));
        let inside = dx.slice_mut(s![.., spare..spare + k]);
        matmul_nt(proof, Matrix::new(y0), Matrix::new(w), add, MatrixMut::new(inside));
        f64::matmul_nt(wide(y0).view(), wide(w).view(), add, expected.view_mut());
        assert_close(dx.slice(s![.., spare..spare + k]), &expected, n, &what);
        assert_frame(dx.view(), before.view(), spare, k, &what);
    }
}

/// Nothing beside the columns `from..from + count` has changed.
fn assert_frame(a: ArrayView2<f32>, b: ArrayView2<f32>, from: usize, count: usize, what: &str) {
    for ((i, j), a) in a.indexed_iter() {
        let inside = (from..from + count).contains(&j);
        assert!(inside || a.to_bits() == b[(i, j)].to_bits(), "{what}: wrote beside at {i}, {j}");
    }
}

#[test]
fn small_shapes_agree_with_double_precision() {
    let sizes = [0, 1, 2, 3, 5, 8, 9, 17];
    for proof in Proof::all() {
        for m in sizes {
            for k in sizes {
                for n in [0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 48, 50] {
                    check(proof, m, k, n, (m + k + n) % 3);
                }
            }
        }
    }
}

#[test]
fn many_rows_and_many_blocks_agree_with_double_precision() {
    for proof in Proof::all() {
        for (m, k, n) in [
            (47, 40, 33),
            (48, 40, 80),
            (33, 300, 24),
            (70, 674, 64),
            (17, 90, 70),
            (23, 161, 300),
            (330, 140, 67),
            (200, 257, 49),
            (401, 20, 5),
            (50, 8, 1100),
            (50, 1100, 9),
            (600, 30, 1),
        ] {
            check(proof, m, k, n, m % 2);
        }
    }
}

#[test]
fn repeated_rows_are_read_as_rows() {
    for proof in Proof::all() {
        let (row, w) = (numbers(1, 50, 1), numbers(50, 20, 2));
        let x = row.broadcast((60, 50)).unwrap();
        let mut y = Array2::zeros((60, 20));
        let none = Activation::None;
        let (left, right) = (Matrix::new(x), Matrix::new(w.view()));
        matmul(proof, left, right, false, None, none, MatrixMut::new(y.view_mut()));
        assert_close(y.view(), &wide(x).dot(&wide(w.view())), 50, "repeated");
    }
}

#[test]
fn what_is_not_finite_reaches_its_row_and_no_other() {
    for proof in Proof::all() {
        for m in [9, 70] {
            let (mut x, w) = (numbers(m, 20, 1), numbers(20, 40, 2).mapv(f32::abs));
            (x[(3, 4)], x[(5, 6)], x[(8, 1)]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
            for act in [Activation::None, Activation::Relu, Activation::Sigmoid] {
                let mut y = Array2::zeros((m, 40));
                let (left, right) = (Matrix::new(x.view()), Matrix::new(w.view()));
                matmul(proof, left, right, false, None, act, MatrixMut::new(y.view_mut()));
                assert!(y.row(3).iter().all(|y: &f32| y.is_nan()), "{proof:?} {act:?}");
                let top = if act == Activation::Sigmoid { 1.0 } else { f32::INFINITY };
                let low = if act == Activation::None { f32::NEG_INFINITY } else { 0.0 };
                assert!(y.row(5).iter().all(|y| y.total_cmp(&top).is_eq()), "{proof:?} {act:?}");
                // A sigmoid comes as near to 0 as normal numbers do.
                let is_low = |y: &f32| match act {
                    Activation::Sigmoid => (0.0..2e-38).contains(y),
                    _ => y.total_cmp(&low).is_eq(),
                };
                assert!(y.row(8).iter().all(is_low), "{proof:?} {act:?}");
                assert!(y.row(4).iter().all(|y| y.is_finite()), "{proof:?} {act:?}");
            }
        }
    }
}

#[test]
fn the_same_product_has_the_same_bits() {
    let run = |proof: Proof, offset: usize| {
        let (x, w) = (numbers(65, 130, 1), numbers(130, 70, 2));
        let mut padded = Array2::zeros((65, 130 + offset));
        padded.slice_mut(s![.., offset..]).assign(&x);
        let mut y = Array2::zeros((65, 70));
        let (left, right) = (Matrix::new(padded.slice(s![.., offset..])), Matrix::new(w.view()));
        let act = Activation::Silu;
        matmul(proof, left, right, false, None, act, MatrixMut::new(y.view_mut()));
        y.mapv(f32::to_bits)
    };
    for proof in Proof::all() {
        assert_eq!(run(proof, 0), run(proof, 3), "{proof:?}");
    }
}

#[test]
#[should_panic(expected = "rows must be contiguous")]
fn a_transposed_view_is_refused() {
    let x = numbers(4, 3, 1);
    Matrix::new(x.t());
}
