//! Optimiser steps over slices: Adam for dense blocks, row-wise Adagrad for embedding rows.
//!
//! The moments of a parameter without gradient decay for ever. Below 2⁻¹²⁶ numbers are subnormal: an operation on them takes the processor some hundred
//! cycles, and rounding keeps them there, for 0.9 times four of the smallest ones are four again. So Adam counts as nothing what is far too small to
//! matter beside an `ε` of 10⁻⁸: a gradient below 2⁻⁵⁰, which moves a parameter by less than 10⁻⁷ of the rate, and a moment below its square. Then
//! neither a moment nor what is added to one, `(1 - β₁) g` and `(1 - β₂) g²`, is ever subnormal.

use super::lanes::{Kernel, Lanes};
use super::path::Proof;
use super::real::AdamStep;

/// Gradients of smaller magnitude count as nothing: 2⁻⁵⁰.
const LEAST_GRADIENT: f32 = 1.0 / (1_u64 << 50) as f32;
/// Moments of smaller magnitude count as nothing: 2⁻¹⁰⁰.
const LEAST_MOMENT: f32 = LEAST_GRADIENT * LEAST_GRADIENT;

struct Adam<'a> {
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    step: &'a AdamStep<f32>,
}

impl Kernel for Adam<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let step = self.step;
        let (beta1, beta2) = (lanes.splat(step.beta1), lanes.splat(step.beta2));
        let (rest1, rest2) = (lanes.splat(1.0 - step.beta1), lanes.splat(1.0 - step.beta2));
        let rate = lanes.splat(step.rate / step.correction1);
        let scale = lanes.splat(1.0 / step.correction2.sqrt());
        let eps = lanes.splat(step.eps);
        let (least, least_moment) = (lanes.splat(LEAST_GRADIENT), lanes.splat(LEAST_MOMENT));
        let blocks = self
            .parameter
            .chunks_mut(L::WIDTH)
            .zip(self.gradient.chunks(L::WIDTH))
            .zip(self.m.chunks_mut(L::WIDTH).zip(self.v.chunks_mut(L::WIDTH)));
        for ((p, g), (m, v)) in blocks {
            let whole = p.len() == L::WIDTH;
            let gradient = lanes.flush(read(lanes, g, whole), least);
            let mean = lanes.mul_add(beta1, read(lanes, m, whole), lanes.mul(rest1, gradient));
            let mean = lanes.flush(mean, least_moment);
            let square = lanes.mul(gradient, gradient);
            let square = lanes.mul_add(beta2, read(lanes, v, whole), lanes.mul(rest2, square));
            let square = lanes.flush(square, least_moment);
            let size = lanes.mul_add(lanes.sqrt(square), scale, eps);
            let change = lanes.div(lanes.mul(rate, mean), size);
            let parameter = lanes.sub(read(lanes, p, whole), change);
            write(lanes, m, whole, mean);
            write(lanes, v, whole, square);
            write(lanes, p, whole, parameter);
        }
    }
}

#[inline(always)]
pub(super) fn read<L: Lanes>(lanes: L, from: &[f32], whole: bool) -> L::F {
    if whole { lanes.load(from) } else { lanes.load_part(from) }
}

#[inline(always)]
pub(super) fn write<L: Lanes>(lanes: L, to: &mut [f32], whole: bool, value: L::F) {
    if whole { lanes.store(to, value) } else { lanes.store_part(to, value) }
}

/// One step of Adam on slices of equal length.
pub(super) fn adam(
    proof: Proof,
    parameter: &mut [f32],
    gradient: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    step: &AdamStep<f32>,
) {
    proof.run(Adam { parameter, gradient, m, v, step });
}

/// The constants of row-wise Adagrad: `G += mean(g²)`, `row -= rate g / (sqrt(G) + ε)`
/// (Naumov et al. 2019, DLRM): one number of state for a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdagradStep {
    /// The learning rate.
    pub rate: f32,
    /// Keeps the quotient finite.
    pub eps: f32,
}

struct Adagrad<'a> {
    row: &'a mut [f32],
    gradient: &'a [f32],
    accumulator: &'a mut f32,
    step: AdagradStep,
}

impl Kernel for Adagrad<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        self.step(lanes);
    }
}

impl Adagrad<'_> {
    #[inline(always)]
    fn step<L: Lanes>(self, lanes: L) {
        let mut squares = lanes.splat(0.0);
        for g in self.gradient.chunks(L::WIDTH) {
            let g = read(lanes, g, g.len() == L::WIDTH);
            squares = lanes.mul_add(g, g, squares);
        }
        *self.accumulator += lanes.sum(squares) / self.row.len() as f32;
        let rate = lanes.splat(-self.step.rate / (self.accumulator.sqrt() + self.step.eps));
        for (row, g) in self.row.chunks_mut(L::WIDTH).zip(self.gradient.chunks(L::WIDTH)) {
            let whole = row.len() == L::WIDTH;
            let changed = lanes.mul_add(rate, read(lanes, g, whole), read(lanes, row, whole));
            write(lanes, row, whole, changed);
        }
    }
}

/// One step of row-wise Adagrad on one row, whose state is `accumulator`.
///
/// # Panics
/// When row and gradient differ in length, or are empty.
pub fn adagrad_row(row: &mut [f32], gradient: &[f32], accumulator: &mut f32, step: AdagradStep) {
    adagrad_row_on(Proof::current(), row, gradient, accumulator, step);
}

/// A row to change, its gradient and its accumulator.
pub type RowStep<'a> = (&'a mut [f32], &'a [f32], &'a mut f32);

/// Rows that take a step one after the other.
pub trait RowSteps {
    /// The next row, or none at the end.
    fn next(&mut self) -> Option<RowStep<'_>>;
}

struct Adagrads<'a, S> {
    rows: &'a mut S,
    step: AdagradStep,
}

impl<S: RowSteps> Kernel for Adagrads<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        while let Some((row, gradient, accumulator)) = self.rows.next() {
            assert!(row.len() == gradient.len() && !row.is_empty(), "lengths of row and gradient");
            Adagrad { row, gradient, accumulator, step: self.step }.step(lanes);
        }
    }
}

/// One step of row-wise Adagrad on each of many rows: the same as [`adagrad_row`] for one after the other, to the bit.
///
/// # Panics
/// When a row and its gradient differ in length, or are empty.
pub fn adagrad_rows(rows: &mut impl RowSteps, step: AdagradStep) {
    Proof::current().run(Adagrads { rows, step });
}

fn adagrad_row_on(
    proof: Proof,
    row: &mut [f32],
    gradient: &[f32],
    accumulator: &mut f32,
    step: AdagradStep,
) {
    assert_eq!(row.len(), gradient.len(), "lengths of row and gradient");
    assert!(!row.is_empty(), "a row has at least one number");
    proof.run(Adagrad { row, gradient, accumulator, step });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Real;

    fn numbers(length: usize, seed: f32) -> Vec<f32> {
        (0..length).map(|i| (i as f32 * 1.7 + seed).sin()).collect()
    }

    fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| f64::from(x)).collect()
    }

    fn assert_close(found: &[f32], expected: &[f64], what: &str) {
        for (&found, expected) in found.iter().zip(expected) {
            assert!((f64::from(found) - expected).abs() < 1e-5, "{what}: {found}, not {expected}");
        }
    }

    #[test]
    fn adam_agrees_with_double_precision_at_every_length() {
        for proof in Proof::all() {
            for length in 0..200 {
                let (mut p, mut m, mut v) =
                    (numbers(length, 0.1), vec![0.0; length], vec![0.0; length]);
                let (mut p64, mut m64, mut v64) = (wide(&p), wide(&m), wide(&v));
                for t in 1..4 {
                    let g = numbers(length, t as f32);
                    adam(proof, &mut p, &g, &mut m, &mut v, &step(t));
                    f64::adam(&mut p64, &wide(&g), &mut m64, &mut v64, &step(t));
                }
                let what = format!("{proof:?} {length}");
                assert_close(&p, &p64, &what);
                assert_close(&m, &m64, &what);
                assert_close(&v, &v64, &what);
            }
        }
    }

    /// The constants of step `t`.
    fn step<R: Real>(t: i32) -> AdamStep<R> {
        let [rate, beta1, beta2, eps] = [1e-3, 0.9, 0.999, 1e-8].map(R::from_f64);
        let [correction1, correction2] =
            [0.9_f64, 0.999].map(|beta| R::from_f64(1.0 - beta.powi(t)));
        AdamStep { rate, beta1, beta2, eps, correction1, correction2 }
    }

    #[test]
    fn no_moment_becomes_subnormal() {
        // Gradients of every magnitude, subnormal ones among them, then nothing for so long that all moments decay.
        let gradient: Vec<f32> = (0..301)
            .map(|i| if i % 2 == 0 { 1.0 } else { -1.0 } * 2.0_f32.powi(i % 149 - 148))
            .collect();
        let nothing = vec![0.0; gradient.len()];
        for proof in Proof::all() {
            let [mut p, mut m, mut v] = [&nothing; 3].map(Clone::clone);
            let [mut p64, mut m64, mut v64] = [&nothing; 3].map(|zeros| wide(zeros));
            for t in 1..=80_000 {
                let g = if t < 20 { &gradient } else { &nothing };
                adam(proof, &mut p, g, &mut m, &mut v, &step(t));
                let sound = |x: &f32| *x == 0.0 || x.is_normal();
                assert!(m.iter().chain(&v).all(sound), "{proof:?} step {t}");
                if t < 1000 {
                    f64::adam(&mut p64, &wide(g), &mut m64, &mut v64, &step(t));
                }
            }
            assert!(m.iter().chain(&v).all(|&x| x == 0.0), "{proof:?}");
            // What counted as nothing would have been next to nothing.
            for ((p, p64), g) in p.iter().zip(&p64).zip(&gradient) {
                let distance = (f64::from(*p) - p64).abs();
                assert!(distance < 1e-8 + 1e-5 * p64.abs(), "{proof:?} {g:e}: {p:e} {p64:e}");
            }
        }
    }

    #[test]
    fn a_gradient_that_is_no_number_stays_one_in_the_moments() {
        for proof in Proof::all() {
            let (mut p, mut m, mut v) = ([0.0; 3], [0.0; 3], [0.0; 3]);
            adam(proof, &mut p, &[f32::NAN, f32::INFINITY, 1.0], &mut m, &mut v, &step(1));
            assert!(m[0].is_nan() && v[0].is_nan() && m[1].is_infinite() && m[2].is_normal());
        }
    }

    #[test]
    fn adagrad_agrees_with_double_precision_at_every_width() {
        let step = AdagradStep { rate: 0.05, eps: 1e-3 };
        for proof in Proof::all() {
            for width in 1..200 {
                let (mut row, gradient) = (numbers(width, 0.3), numbers(width, 1.1));
                let (mut row64, gradient64, mut state) = (wide(&row), wide(&gradient), 0.25);
                adagrad_row_on(proof, &mut row, &gradient, &mut state, step);
                let mean = gradient64.iter().map(|g| g * g).sum::<f64>() / width as f64;
                let size = (0.25 + mean).sqrt() + f64::from(step.eps);
                for (row, g) in row64.iter_mut().zip(&gradient64) {
                    *row -= f64::from(step.rate) * g / size;
                }
                assert_close(&row, &row64, &format!("{proof:?} {width}"));
                assert!((f64::from(state) - 0.25 - mean).abs() < 1e-5, "{proof:?} {width}");
            }
        }
    }
}
