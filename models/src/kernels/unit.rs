//! DIN's activation unit over one history that many targets share, with the targets along the lanes.
//!
//! ```text
//! z_ij = t_i (W_t + W_d) + e_j (W_e - W_d) + t_i (diag(e_j) W_p) + b₁     (interest::din has the equations)
//! w_ij = σ(σ(z_ij) W₂ + b₂) w₃ + b₃        out_i = Σ_j w_ij e_j
//! ```
//!
//! The target's part is computed once for each target, the behaviour's once for each behaviour, and of the pair's part the weights
//! `diag(e_j) W_p` once for each behaviour. Everything is transposed: a register tile is a few hidden units by a few vectors of targets,
//! so that neither the length of the history nor the width of a layer leaves lanes idle, both layers of sigmoids are applied to
//! sums that have just been made, and the second layer is added up in registers without being stored.
//!
//! Shapes: `t` `[n, I]`, `e` `[m, I]`, `W_t`, `W_e`, `W_d`, `W_p` `[I, h₁]`, `W₂` `[h₁, h₂]`, `w₃` `[h₂]`, `out` `[n, I]`.

mod layer;

use layer::{Finish, Softmax, layer};
use ndarray::{ArrayView2, ArrayViewMut2};

use super::buffer::with_scratch;
use super::lanes::{Kernel, Lanes};
use super::matrix::{Matrix, MatrixMut};
use super::path::Proof;

/// Numbers in a cache line.
const LINE: usize = 16;

/// The unit's numbers, and what it is applied to.
#[derive(Clone, Copy, Debug)]
pub struct ActivationUnit<'a> {
    /// `t`
    pub targets: ArrayView2<'a, f32>,
    /// `e`
    pub behaviours: ArrayView2<'a, f32>,
    /// `W_t + W_d`
    pub of_target: ArrayView2<'a, f32>,
    /// `W_e - W_d`
    pub of_behaviour: ArrayView2<'a, f32>,
    /// `W_p`
    pub of_pair: ArrayView2<'a, f32>,
    /// `b₁`
    pub first_bias: &'a [f32],
    /// `W₂`
    pub second: ArrayView2<'a, f32>,
    /// `b₂`
    pub second_bias: &'a [f32],
    /// `w₃`
    pub last: &'a [f32],
    /// `b₃`
    pub last_bias: f32,
    /// Whether the weights of one target become positive with sum 1.
    pub softmax: bool,
}

/// Writes `out`. An empty history gives zeros.
///
/// # Panics
/// When shapes do not fit or rows are not contiguous.
pub fn activation_unit(unit: &ActivationUnit<'_>, out: ArrayViewMut2<'_, f32>) {
    apply(Proof::current(), unit, out);
}

fn apply(proof: Proof, unit: &ActivationUnit<'_>, mut out: ArrayViewMut2<'_, f32>) {
    let (width, h1) = unit.of_pair.dim();
    let h2 = unit.last.len();
    let fits = unit.targets.dim() == out.dim()
        && out.ncols() == width
        && unit.behaviours.ncols() == width
        && [unit.of_target.dim(), unit.of_behaviour.dim()] == [(width, h1); 2]
        && unit.second.dim() == (h1, h2)
        && (unit.first_bias.len(), unit.second_bias.len()) == (h1, h2);
    assert!(fits, "shapes of an activation unit do not fit: {width} {h1} {h2} {:?}", out.dim());
    if out.is_empty() || unit.behaviours.is_empty() {
        out.fill(0.0);
        return;
    }
    let unit = Operands {
        targets: Matrix::new(unit.targets),
        behaviours: Matrix::new(unit.behaviours),
        of_target: Matrix::new(unit.of_target),
        of_behaviour: Matrix::new(unit.of_behaviour),
        of_pair: Matrix::new(unit.of_pair),
        first_bias: unit.first_bias,
        second: Matrix::new(unit.second),
        second_bias: unit.second_bias,
        last: unit.last,
        last_bias: unit.last_bias,
        softmax: unit.softmax,
        out: MatrixMut::new(out),
    };
    proof.run(unit);
}

struct Operands<'a> {
    targets: Matrix<'a>,
    behaviours: Matrix<'a>,
    of_target: Matrix<'a>,
    of_behaviour: Matrix<'a>,
    of_pair: Matrix<'a>,
    first_bias: &'a [f32],
    second: Matrix<'a>,
    second_bias: &'a [f32],
    last: &'a [f32],
    last_bias: f32,
    softmax: bool,
    out: MatrixMut<'a>,
}

impl Kernel for Operands<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        // Rows and vectors of a tile: the sums, its inputs and one weight fit the registers, 32 of AVX-512, 16 of AVX2, and the sums
        // are enough to keep both multipliers busy.
        if L::TILE_ROWS == 8 { self.rows::<L, 8, 3>(lanes) } else { self.rows::<L, 5, 2>(lanes) }
    }
}

/// Where the operands lie in scratch memory, in the order in which tiles read them.
struct Room<'a> {
    /// Groups of rows (see [`groups`]): `W_t + W_d`, `W_p`, `diag(e_j) W_p` of the behaviour at hand, `W₂`, `e`.
    of_target: &'a mut [f32],
    of_pair: &'a mut [f32],
    scaled: &'a mut [f32],
    second: &'a mut [f32],
    behaviours: &'a mut [f32],
    /// `b₁ + e_j (W_e - W_d)`, `b₂`, `w₃`, with zeros up to whole groups.
    shift: &'a mut [f32],
    second_bias: &'a mut [f32],
    last: &'a mut [f32],
    /// The first hidden layer of one behaviour and block.
    hidden: &'a mut [f32],
    /// For each block `[I, lanes]`: targets.
    targets: &'a mut [f32],
    /// For each block `[h₁, lanes]`: `t (W_t + W_d)`.
    base: &'a mut [f32],
    /// For each block `[m, lanes]`.
    weights: &'a mut [f32],
}

impl Operands<'_> {
    #[inline(always)]
    fn rows<L: Lanes, const R: usize, const B: usize>(mut self, lanes: L) {
        let (n, width, m) = (self.targets.rows, self.targets.columns, self.behaviours.rows);
        let (h1, h2) = (self.second.rows, self.second.columns);
        let block = B * L::WIDTH;
        let blocks = n.div_ceil(block);
        let (tall, second, wide) = (up::<R>(h1), up::<R>(h2), up::<R>(width));
        let lengths = [
            tall * width,
            tall * width,
            tall * width,
            second * h1,
            wide * m,
            tall,
            second,
            second,
            tall.max(wide) * block,
            blocks * width * block,
            blocks * tall * block,
            blocks * m * block,
        ];
        let whole_lines = lengths.map(|length| length.next_multiple_of(LINE));
        with_scratch(|scratch| {
            let mut rest = scratch.left.take(whole_lines.iter().sum());
            let [
                of_target,
                of_pair,
                scaled,
                second,
                behaviours,
                shift,
                second_bias,
                last,
                hidden,
                targets,
                base,
                weights,
            ] = lengths.map(|length| {
                let line = length.next_multiple_of(LINE);
                let (part, others) = std::mem::take(&mut rest).split_at_mut(line);
                rest = others;
                &mut part[..length]
            });
            let mut room = Room {
                of_target,
                of_pair,
                scaled,
                second,
                behaviours,
                shift,
                second_bias,
                last,
                hidden,
                targets,
                base,
                weights,
            };
            self.prepare::<L, R, B>(lanes, &mut room);
            self.weigh::<L, R, B>(lanes, &mut room);
            if self.softmax {
                self.normalise::<L, B>(lanes, &mut room);
            }
            self.pool::<L, R, B>(lanes, &mut room);
        });
    }

    /// Copies the operands into the order of the tiles, and computes the targets' parts of the first layer.
    #[inline(always)]
    fn prepare<L: Lanes, const R: usize, const B: usize>(&self, lanes: L, room: &mut Room<'_>) {
        let (width, h1) = (self.targets.columns, self.second.rows);
        groups::<R>(&self.of_target, room.of_target);
        groups::<R>(&self.of_pair, room.of_pair);
        groups::<R>(&self.second, room.second);
        groups::<R>(&self.behaviours, room.behaviours);
        padded(self.second_bias, room.second_bias);
        padded(self.last, room.last);
        let block = B * L::WIDTH;
        let blocks = room.targets.chunks_exact_mut(width * block);
        for (number, targets) in blocks.enumerate().take(self.targets.rows.div_ceil(block)) {
            let start = number * block;
            let count = block.min(self.targets.rows - start);
            targets.fill(0.0);
            for lane in 0..count {
                let row = self.targets.row(start + lane).iter();
                targets[lane..].iter_mut().step_by(block).zip(row).for_each(|(to, &t)| *to = t);
            }
        }
        padded(&[], room.shift);
        self.each_block::<L, B>(|number, vectors| {
            let targets = &room.targets[number * width * block..][..width * block];
            let base = &mut room.base[number * up::<R>(h1) * block..][..up::<R>(h1) * block];
            layer::<L, R, B>(lanes, vectors, &*room.of_target, targets, Finish::Store(base));
        });
    }

    /// The weight of each behaviour for each target.
    #[inline(always)]
    fn weigh<L: Lanes, const R: usize, const B: usize>(&self, lanes: L, room: &mut Room<'_>) {
        let (width, h1, m) = (self.targets.columns, self.second.rows, self.behaviours.rows);
        let block = B * L::WIDTH;
        let tall = up::<R>(h1) * block;
        for j in 0..m {
            let e = self.behaviours.row(j);
            padded(self.first_bias, room.shift);
            for (k, &e) in e.iter().enumerate() {
                let row = self.of_behaviour.row(k).iter();
                room.shift.iter_mut().zip(row).for_each(|(shift, &w)| *shift += e * w);
            }
            let from = room.of_pair.chunks_exact(R * width);
            for (from, to) in from.zip(room.scaled.chunks_exact_mut(R * width)) {
                let steps = from.chunks_exact(R).zip(to.chunks_exact_mut(R));
                for ((from, to), &e) in steps.zip(e) {
                    to.iter_mut().zip(from).for_each(|(to, &w)| *to = w * e);
                }
            }
            self.each_block::<L, B>(|number, vectors| {
                let targets = &room.targets[number * width * block..][..width * block];
                let base = &room.base[number * tall..][..tall];
                let hidden = &mut room.hidden[..tall];
                let finish = Finish::Hidden { shift: &*room.shift, base, to: hidden };
                layer::<L, R, B>(lanes, vectors, &*room.scaled, targets, finish);
                let to = &mut room.weights[(number * m + j) * block..][..block];
                let (shift, last, bias) = (&*room.second_bias, &*room.last, self.last_bias);
                let finish = Finish::Weight { shift, last, bias, to };
                layer::<L, R, B>(lanes, vectors, &*room.second, &room.hidden[..h1 * block], finish);
            });
        }
    }

    /// The softmax of the weights of each target.
    #[inline(always)]
    fn normalise<L: Lanes, const B: usize>(&self, lanes: L, room: &mut Room<'_>) {
        let (m, block) = (self.behaviours.rows, B * L::WIDTH);
        let blocks = self.targets.rows.div_ceil(block);
        for weights in room.weights.chunks_exact_mut(m * block).take(blocks) {
            lanes.run(Softmax { weights, block });
        }
    }

    /// The sums of the behaviours by their weights.
    #[inline(always)]
    fn pool<L: Lanes, const R: usize, const B: usize>(&mut self, lanes: L, room: &mut Room<'_>) {
        let (width, m) = (self.targets.columns, self.behaviours.rows);
        let (n, block) = (self.targets.rows, B * L::WIDTH);
        for number in 0..n.div_ceil(block) {
            let start = number * block;
            let count = block.min(n - start);
            let weights = &room.weights[number * m * block..][..m * block];
            let pooled = &mut room.hidden[..up::<R>(width) * block];
            let vectors = count.div_ceil(L::WIDTH);
            layer::<L, R, B>(lanes, vectors, &*room.behaviours, weights, Finish::Store(pooled));
            for lane in 0..count {
                let out = self.out.row(start + lane).iter_mut();
                let lanes = room.hidden[lane..].iter().step_by(block);
                out.zip(lanes).for_each(|(out, &pooled)| *out = pooled);
            }
        }
    }

    /// Calls `work` with the number of each block of targets and how many vectors it fills.
    #[inline(always)]
    fn each_block<L: Lanes, const B: usize>(&self, mut work: impl FnMut(usize, usize)) {
        let (n, block) = (self.targets.rows, B * L::WIDTH);
        for number in 0..n.div_ceil(block) {
            work(number, block.min(n - number * block).div_ceil(L::WIDTH));
        }
    }
}

#[inline(always)]
fn up<const R: usize>(length: usize) -> usize {
    length.next_multiple_of(R)
}

/// Copies a matrix `[steps, rows]` as groups of `R` rows: all steps of the first, `R` numbers each, then those of the next. Rows that do
/// not exist are zero.
#[inline(always)]
fn groups<const R: usize>(from: &Matrix<'_>, to: &mut [f32]) {
    let groups = to.chunks_exact_mut(from.rows * R).take(from.columns.div_ceil(R));
    for (number, group) in groups.enumerate() {
        for (step, to) in group.chunks_exact_mut(R).enumerate() {
            padded(&from.row(step)[number * R..(number * R + R).min(from.columns)], to);
        }
    }
}

/// Copies numbers and fills up with zeros.
#[inline(always)]
fn padded(from: &[f32], to: &mut [f32]) {
    let (start, rest) = to.split_at_mut(from.len());
    start.copy_from_slice(from);
    rest.fill(0.0);
}

#[cfg(test)]
mod tests;
