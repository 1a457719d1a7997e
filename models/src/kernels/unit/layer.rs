//! The layers of the activation unit: register tiles of a few hidden units by a few vectors of lanes, and what becomes of their sums.
//!
//! Weights stand in groups of `R` rows, all steps of a group one after the other; inputs and outputs are `[rows, block]` with `B` vectors in a
//! block, of which a tile computes `V`.

use crate::kernels::exponential::{exp, sigmoid};
use crate::kernels::lanes::{Kernel, Lanes};

/// What becomes of the sums of a layer, `[rows, block]`.
pub(super) enum Finish<'a> {
    /// They are stored.
    Store(&'a mut [f32]),
    /// `σ(sum + base + shift)` is stored; `base` like the sums, `shift` one number for each row.
    Hidden { shift: &'a [f32], base: &'a [f32], to: &'a mut [f32] },
    /// `Σ_rows σ(sum + shift) last + bias` is stored: one row.
    Weight { shift: &'a [f32], last: &'a [f32], bias: f32, to: &'a mut [f32] },
}

/// A layer over up to `B` vectors of lanes, at most three: `a` are its weights in groups of `R` rows, `b` `[steps, block]` its inputs.
#[inline(always)]
pub(super) fn layer<L: Lanes, const R: usize, const B: usize>(
    lanes: L,
    vectors: usize,
    a: &[f32],
    b: &[f32],
    finish: Finish<'_>,
) {
    match vectors {
        1 => lanes.run(Layer::<R, 1, B> { a, b, finish }),
        2 => lanes.run(Layer::<R, 2, B> { a, b, finish }),
        // No block has more.
        _ => lanes.run(Layer::<R, 3, B> { a, b, finish }),
    }
}

struct Layer<'a, const R: usize, const V: usize, const B: usize> {
    a: &'a [f32],
    b: &'a [f32],
    finish: Finish<'a>,
}

impl<const R: usize, const V: usize, const B: usize> Kernel for Layer<'_, R, V, B> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let block = B * L::WIDTH;
        let steps = self.b.len() / block;
        let groups = self.a.chunks_exact(R * steps);
        match self.finish {
            Finish::Store(to) => {
                for (a, to) in groups.zip(to.chunks_exact_mut(R * block)) {
                    let sums = tile::<L, R, V, B>(lanes, a, self.b);
                    for (sums, to) in sums.iter().zip(to.chunks_exact_mut(block)) {
                        for (v, &sum) in sums.iter().enumerate() {
                            lanes.store(&mut to[v * L::WIDTH..], sum);
                        }
                    }
                }
            }
            Finish::Hidden { shift, base, to } => {
                let places = base.chunks_exact(R * block).zip(to.chunks_exact_mut(R * block));
                for ((a, shift), (base, to)) in groups.zip(shift.chunks_exact(R)).zip(places) {
                    let sums = tile::<L, R, V, B>(lanes, a, self.b);
                    let rows = base.chunks_exact(block).zip(to.chunks_exact_mut(block));
                    for ((sums, &shift), (base, to)) in sums.iter().zip(shift).zip(rows) {
                        let shift = lanes.splat(shift);
                        for (v, &sum) in sums.iter().enumerate() {
                            let base = lanes.add(lanes.load(&base[v * L::WIDTH..]), shift);
                            let hidden = sigmoid(lanes, lanes.add(sum, base));
                            lanes.store(&mut to[v * L::WIDTH..], hidden);
                        }
                    }
                }
            }
            Finish::Weight { shift, last, bias, to } => {
                let mut weight = [lanes.splat(bias); V];
                let rows = shift.chunks_exact(R).zip(last.chunks_exact(R));
                for (a, (shift, last)) in groups.zip(rows) {
                    let sums = tile::<L, R, V, B>(lanes, a, self.b);
                    for (sums, (&shift, &last)) in sums.iter().zip(shift.iter().zip(last)) {
                        let (shift, last) = (lanes.splat(shift), lanes.splat(last));
                        for (weight, &sum) in weight.iter_mut().zip(sums) {
                            let hidden = sigmoid(lanes, lanes.add(sum, shift));
                            *weight = lanes.mul_add(hidden, last, *weight);
                        }
                    }
                }
                for (v, weight) in weight.into_iter().enumerate() {
                    lanes.store(&mut to[v * L::WIDTH..], weight);
                }
            }
        }
    }
}

/// Sums of `R` rows by `V` vectors: a group of `a`, and `b` `[steps, block]`.
#[inline(always)]
fn tile<L: Lanes, const R: usize, const V: usize, const B: usize>(
    lanes: L,
    a: &[f32],
    b: &[f32],
) -> [[L::F; V]; R] {
    let block = B * L::WIDTH;
    let steps = a.len() / R;
    assert!(V <= B && b.len() >= steps * block, "a tile's operands");
    let mut sums = [[lanes.splat(0.0); V]; R];
    let (mut a, mut b) = (a.as_ptr(), b.as_ptr());
    for _ in 0..steps {
        // SAFETY: `a` has `R` numbers and `b` `block` numbers, at least `V` vectors, for each step.
        unsafe {
            let mut inputs = [lanes.splat(0.0); V];
            for (v, input) in inputs.iter_mut().enumerate() {
                *input = lanes.load_at(b.add(v * L::WIDTH));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let weight = lanes.splat(*a.add(i));
                for (sum, &input) in sums.iter_mut().zip(&inputs) {
                    *sum = lanes.mul_add(weight, input, *sum);
                }
            }
            (a, b) = (a.add(R), b.add(block));
        }
    }
    sums
}

/// The softmax down each lane of `[m, block]`.
pub(super) struct Softmax<'a> {
    pub(super) weights: &'a mut [f32],
    pub(super) block: usize,
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        for at in (0..self.block).step_by(L::WIDTH) {
            let mut top = lanes.splat(f32::NEG_INFINITY);
            for row in self.weights.chunks_exact(self.block) {
                top = lanes.max(top, lanes.load(&row[at..]));
            }
            let mut total = lanes.splat(0.0);
            for row in self.weights.chunks_exact_mut(self.block) {
                let power = exp(lanes, lanes.sub(lanes.load(&row[at..]), top));
                total = lanes.add(total, power);
                lanes.store(&mut row[at..], power);
            }
            let share = lanes.div(lanes.splat(1.0), total);
            for row in self.weights.chunks_exact_mut(self.block) {
                let power = lanes.load(&row[at..]);
                lanes.store(&mut row[at..], lanes.mul(power, share));
            }
        }
    }
}
