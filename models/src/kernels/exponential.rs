//! `eᶻ` and what is made of it, a vector at a time.
//!
//! A sigmoid is wanted by the million, and its error matters beside 1: it takes the shorter way of `e⁻ᶻ = 2ⁿ 2ᶠ` with `f = -z log₂ e - n`.
//!
//! `z = n ln 2 + r` with integral `n` and `|r| <= ln 2 / 2`, so `eᶻ = 2ⁿ eʳ`, and `eʳ` is a
//! polynomial (Cephes `expf`). The relative error is below 3e-7; subnormal results are rounded.

use std::marker::PhantomData;

use super::lanes::{Kernel, Lanes};
use super::path::Proof;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// `ln 2` in two parts; the first has few bits, so that `n` times it is exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// The coefficients of `(eʳ - 1 - r) / r²`, the highest power first.
const COEFFICIENTS: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
/// Beyond these the result is 0 or infinite.
const LOWEST: f32 = -104.0;
const HIGHEST: f32 = 89.0;

/// The coefficients of `2ᶠ` for `|f| <= 1/2`, the highest power first: relative error about 1e-7, exact at 0.
const POWERS: [f32; 6] =
    [1.330_060_5e-3, 9.669_691e-3, 5.550_558_5e-2, 2.402_228_3e-1, std::f32::consts::LN_2, 1.0];
/// Beyond it a sigmoid differs from its limit by less than 2e-38.
const FARTHEST: f32 = 87.3;

/// `eᶻ`; NaN stays NaN.
#[inline(always)]
pub(super) fn exp<L: Lanes>(lanes: L, z: L::F) -> L::F {
    let z = lanes.max(lanes.splat(LOWEST), lanes.min(lanes.splat(HIGHEST), z));
    let n = lanes.round(lanes.mul(z, lanes.splat(LOG2_E)));
    let r = lanes.mul_add(n, lanes.splat(-LN_2[0]), z);
    let r = lanes.mul_add(n, lanes.splat(-LN_2[1]), r);
    let mut series = lanes.splat(COEFFICIENTS[0]);
    for c in &COEFFICIENTS[1..] {
        series = lanes.mul_add(series, r, lanes.splat(*c));
    }
    let power = lanes.mul_add(series, lanes.mul(r, r), lanes.add(r, lanes.splat(1.0)));
    lanes.scale(power, n)
}

/// `1 / (1 + e⁻ᶻ)`, within 2e-7, and within 4e-6 of its size; NaN stays NaN.
#[inline(always)]
pub(super) fn sigmoid<L: Lanes>(lanes: L, z: L::F) -> L::F {
    let (one, rate) = (lanes.splat(1.0), lanes.splat(-LOG2_E));
    let z = lanes.max(lanes.splat(-FARTHEST), lanes.min(lanes.splat(FARTHEST), z));
    let n = lanes.round(lanes.mul(z, rate));
    let f = lanes.mul_add(z, rate, lanes.sub(lanes.splat(0.0), n));
    let mut power = lanes.splat(POWERS[0]);
    for c in &POWERS[1..] {
        power = lanes.mul_add(power, f, lanes.splat(*c));
    }
    lanes.div(one, lanes.add(one, lanes.scale_near(power, n)))
}

/// `z / (1 + e⁻ᶻ)`.
#[inline(always)]
pub(super) fn silu<L: Lanes>(lanes: L, z: L::F) -> L::F {
    lanes.mul(z, sigmoid(lanes, z))
}

/// A function of one number; a type and not a closure, because it must be inlined.
trait Function {
    fn apply<L: Lanes>(lanes: L, z: L::F) -> L::F;
}

struct Exp;

impl Function for Exp {
    #[inline(always)]
    fn apply<L: Lanes>(lanes: L, z: L::F) -> L::F {
        exp(lanes, z)
    }
}

struct Sigmoid;

impl Function for Sigmoid {
    #[inline(always)]
    fn apply<L: Lanes>(lanes: L, z: L::F) -> L::F {
        sigmoid(lanes, z)
    }
}

/// Replaces each number by its function.
struct InPlace<'a, F>(&'a mut [f32], PhantomData<F>);

impl<F: Function> Kernel for InPlace<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let mut chunks = self.0.chunks_exact_mut(L::WIDTH);
        for chunk in &mut chunks {
            lanes.store(chunk, F::apply(lanes, lanes.load(chunk)));
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            lanes.store_part(rest, F::apply(lanes, lanes.load_part(rest)));
        }
    }
}

/// Replaces each `z` by `eᶻ`.
pub(super) fn exp_in_place(proof: Proof, z: &mut [f32]) {
    proof.run(InPlace(z, PhantomData::<Exp>));
}

/// Replaces each `z` by `1 / (1 + e⁻ᶻ)`.
pub(super) fn sigmoid_in_place(proof: Proof, z: &mut [f32]) {
    proof.run(InPlace(z, PhantomData::<Sigmoid>));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(apply: fn(Proof, &mut [f32]), exact: fn(f64) -> f64, range: f32, most: f64) {
        for proof in Proof::all() {
            for length in 0..200 {
                let step = 2.0 * range / 199.0;
                let z: Vec<f32> = (0..length).map(|i| i as f32 * step - range).collect();
                let mut found = z.clone();
                apply(proof, &mut found);
                for (&z, &found) in z.iter().zip(&found) {
                    let expected = exact(f64::from(z));
                    let error = (f64::from(found) - expected).abs() / expected;
                    assert!(error < most, "{proof:?}: {z} gives {found}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn vectors_agree_with_double_precision() {
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        check(exp_in_place, f64::exp, 87.0, 1e-6);
        check(sigmoid_in_place, sigmoid, 87.0, 4e-6);
        check(sigmoid_in_place, sigmoid, 10.0, 1e-6);
    }

    #[test]
    fn every_binade_agrees_with_double_precision() {
        for proof in Proof::all() {
            for bits in (0..u32::MAX).step_by(65_521) {
                let z = f32::from_bits(bits);
                if z.is_nan() || !(-87.0..88.7).contains(&z) {
                    continue;
                }
                let mut found = [z; 17];
                exp_in_place(proof, &mut found);
                let expected = f64::from(z).exp();
                let error = (f64::from(found[16]) - expected).abs() / expected;
                assert!(error < 1e-6, "{proof:?}: e^{z} gives {}, not {expected}", found[16]);
            }
        }
    }

    #[test]
    fn limits_are_kept() {
        let z = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 89.5, -110.0, 0.0, -0.0, 1e-40];
        for proof in Proof::all() {
            let (mut e, mut s) = (z.to_vec(), z.to_vec());
            exp_in_place(proof, &mut e);
            sigmoid_in_place(proof, &mut s);
            assert!(e[0].is_infinite() && e[3].is_infinite() && e[2].is_nan(), "{proof:?} {e:?}");
            assert_eq!(vec![e[1], e[4], e[5], e[6], e[7]], vec![0.0, 0.0, 1.0, 1.0, 1.0]);
            assert!(s[2].is_nan(), "{proof:?} {s:?}");
            assert_eq!(vec![s[0], s[3]], vec![1.0; 2]);
            assert!(s[1] < 2e-38 && s[4] < 2e-38, "{proof:?} {s:?}");
            assert_eq!(vec![s[5], s[6], s[7]], vec![0.5; 3]);
            let mut tiny = [-100.0_f32; 9];
            exp_in_place(proof, &mut tiny);
            assert!(tiny.iter().all(|t| t.is_subnormal() && (t / 3.8e-44 - 1.0).abs() < 0.1));
        }
    }
}
