//! Sums over a few rows of a workspace, and their update: what a linear model or a factorisation machine does with one example.
//!
//! An example is a list of *terms*: row numbers, all different, and a share of each. `rows` is `[distinct, width + 1]`: `width` numbers, then the row's
//! accumulator of row-wise Adagrad. Rows of one number have kernels of their own, see [`Weights`](super::Weights).

use super::lanes::{Kernel, Lanes};
use super::optimizer::{AdagradStep, read, write};
use super::path::Proof;

/// Rows that are summed side by side, so that no addition waits for the one before.
const CHAINS: usize = 4;
/// Numbers of rows that are collected before they are worked on as vectors.
const BLOCK: usize = 64;

/// An example's rows and their shares: equal lengths, no row twice.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Row numbers.
    pub rows: &'a [u32],
    /// What each row is multiplied by.
    pub shares: &'a [f32],
}

#[inline(always)]
fn row(rows: &[f32], width: usize, row: u32) -> &[f32] {
    &rows[row as usize * (width + 1)..][..width]
}

#[inline(always)]
fn row_mut(rows: &mut [f32], width: usize, row: u32) -> &mut [f32] {
    &mut rows[row as usize * (width + 1)..][..width]
}

struct Sum<'a> {
    rows: &'a [f32],
    width: usize,
    terms: Terms<'a>,
    sum: &'a mut [f32],
}

impl Kernel for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Terms { rows, shares } = self.terms;
        for (block, sum) in self.sum.chunks_mut(L::WIDTH).enumerate() {
            let (start, count) = (block * L::WIDTH, sum.len());
            let whole = count == L::WIDTH;
            let mut sums = [lanes.splat(0.0); CHAINS];
            for (rows, shares) in rows.chunks(CHAINS).zip(shares.chunks(CHAINS)) {
                for ((&number, &share), sum) in rows.iter().zip(shares).zip(&mut sums) {
                    let part = &row(self.rows, self.width, number)[start..start + count];
                    *sum = lanes.mul_add(lanes.splat(share), read(lanes, part, whole), *sum);
                }
            }
            let total = lanes.add(lanes.add(sums[0], sums[1]), lanes.add(sums[2], sums[3]));
            write(lanes, sum, whole, lanes.add(read(lanes, sum, whole), total));
        }
    }
}

/// `sum[k] += Σ_j share_j row_j[k]`
///
/// # Panics
/// When a length does not fit.
pub fn sum_rows(rows: &[f32], width: usize, terms: Terms<'_>, sum: &mut [f32]) {
    check(terms, [sum.len(), width]);
    Proof::current().run(Sum { rows, width, terms, sum });
}

struct Pairs<'a> {
    rows: &'a [f32],
    width: usize,
    terms: Terms<'a>,
    sum: &'a mut [f32],
    pairs: &'a mut [f32],
}

impl Kernel for Pairs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Terms { rows, shares } = self.terms;
        let half = lanes.splat(0.5);
        let blocks = self.sum.chunks_mut(L::WIDTH).zip(self.pairs.chunks_mut(L::WIDTH));
        for (block, (sum, pairs)) in blocks.enumerate() {
            let (start, count) = (block * L::WIDTH, sum.len());
            let whole = count == L::WIDTH;
            let mut sums = [lanes.splat(0.0); 2];
            let mut squares = [lanes.splat(0.0); 2];
            for (rows, shares) in rows.chunks(2).zip(shares.chunks(2)) {
                let chains = sums.iter_mut().zip(&mut squares);
                for ((&number, &share), (sum, square)) in rows.iter().zip(shares).zip(chains) {
                    let part = &row(self.rows, self.width, number)[start..start + count];
                    let e = read(lanes, part, whole);
                    let shared = lanes.mul(lanes.splat(share), e);
                    *sum = lanes.add(*sum, shared);
                    *square = lanes.mul_add(shared, e, *square);
                }
            }
            let total = lanes.add(sums[0], sums[1]);
            let square = lanes.add(squares[0], squares[1]);
            write(lanes, sum, whole, total);
            let c = lanes.mul(half, lanes.sub(lanes.mul(total, total), square));
            write(lanes, pairs, whole, c);
        }
    }
}

/// A factorisation machine's forward pass: `sum[k] = Σ_j m_j e_j[k]` and `pairs[k] = ½ (sum[k]² - Σ_j m_j e_j[k]²)`, the shares being how often a
/// row stands in the example.
///
/// # Panics
/// When a length does not fit.
pub fn sum_pairs(rows: &[f32], width: usize, terms: Terms<'_>, sum: &mut [f32], pairs: &mut [f32]) {
    check(terms, [sum.len(), width]);
    assert_eq!(pairs.len(), width, "a number for each column");
    Proof::current().run(Pairs { rows, width, terms, sum, pairs });
}

struct PairSquares<'a> {
    rows: &'a [f32],
    width: usize,
    terms: Terms<'a>,
    sum: &'a [f32],
    slope: &'a [f32],
    squares: &'a mut [f32],
}

impl Kernel for PairSquares<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let terms = self.terms.rows.iter().zip(self.terms.shares);
        for ((&number, &share), square) in terms.zip(self.squares) {
            let e = row(self.rows, self.width, number);
            let mut total = lanes.splat(0.0);
            let columns = self.sum.chunks(L::WIDTH).zip(self.slope.chunks(L::WIDTH));
            for ((sum, slope), e) in columns.zip(e.chunks(L::WIDTH)) {
                let whole = e.len() == L::WIDTH;
                let rest = lanes.sub(read(lanes, sum, whole), read(lanes, e, whole));
                let g = lanes.mul(read(lanes, slope, whole), rest);
                total = lanes.mul_add(g, g, total);
            }
            *square = share * share * lanes.sum(total);
        }
    }
}

/// The squared norms `squares[j] = |m_j (sum - e_j) slope|²` of the gradients of a factorisation machine's rows; `slope` is that of the loss by `pairs`.
///
/// # Panics
/// When a length does not fit.
pub fn pair_squares(
    rows: &[f32],
    width: usize,
    terms: Terms<'_>,
    sum: &[f32],
    slope: &[f32],
    squares: &mut [f32],
) {
    check(terms, [sum.len(), width]);
    assert_eq!((slope.len(), squares.len()), (width, terms.rows.len()), "slopes, squares");
    Proof::current().run(PairSquares { rows, width, terms, sum, slope, squares });
}

struct Advance<'a> {
    rows: &'a mut [f32],
    width: usize,
    terms: &'a [u32],
    squares: &'a [f32],
    step: AdagradStep,
    rates: &'a mut [f32],
}

impl Kernel for Advance<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> f32 {
        let (scale, eps) = (lanes.splat(1.0 / self.width as f32), lanes.splat(self.step.eps));
        let rate = lanes.splat(self.step.rate);
        let mut change = lanes.splat(0.0);
        let mut collected = [0.0; BLOCK];
        let state = |row: u32| row as usize * (self.width + 1) + self.width;
        let blocks = self.terms.chunks(BLOCK).zip(self.squares.chunks(BLOCK));
        for ((terms, squares), rates) in blocks.zip(self.rates.chunks_mut(BLOCK)) {
            let states = &mut collected[..terms.len()];
            for (collected, &row) in states.iter_mut().zip(terms) {
                *collected = self.rows[state(row)];
            }
            let vectors = states.chunks_mut(L::WIDTH).zip(squares.chunks(L::WIDTH));
            for ((state, square), out) in vectors.zip(rates.chunks_mut(L::WIDTH)) {
                let whole = state.len() == L::WIDTH;
                let square = read(lanes, square, whole);
                let new = lanes.mul_add(scale, square, read(lanes, state, whole));
                let size = lanes.add(lanes.sqrt(new), eps);
                let quotient = lanes.div(rate, size);
                change = lanes.mul_add(quotient, square, change);
                write(lanes, state, whole, new);
                write(lanes, out, whole, quotient);
            }
            for (&collected, &row) in states.iter().zip(terms) {
                self.rows[state(row)] = collected;
            }
        }
        lanes.sum(change)
    }
}

/// The accumulators and rates of row-wise Adagrad for an example's rows `terms`, whose gradients have these squared norms: `G_j += squares[j] / width`,
/// `rates[j] = rate / (sqrt(G_j) + ε)`. Returns `Σ_j rates[j] squares[j]`.
///
/// # Panics
/// When a length does not fit.
pub fn advance_rows(
    rows: &mut [f32],
    width: usize,
    terms: &[u32],
    squares: &[f32],
    step: AdagradStep,
    rates: &mut [f32],
) -> f32 {
    assert_eq!((squares.len(), rates.len()), (terms.len(), terms.len()), "squares and rates");
    Proof::current().run(Advance { rows, width, terms, squares, step, rates })
}

struct Move<'a> {
    rows: &'a mut [f32],
    width: usize,
    terms: Terms<'a>,
    rates: &'a [f32],
    gradient: &'a [f32],
}

impl Kernel for Move<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let terms = self.terms.rows.iter().zip(self.terms.shares).zip(self.rates);
        for ((&number, &share), &rate) in terms {
            let factor = lanes.splat(-rate * share);
            let row = row_mut(self.rows, self.width, number).chunks_mut(L::WIDTH);
            for (row, gradient) in row.zip(self.gradient.chunks(L::WIDTH)) {
                let whole = row.len() == L::WIDTH;
                let gradient = read(lanes, gradient, whole);
                let moved = lanes.mul_add(factor, gradient, read(lanes, row, whole));
                write(lanes, row, whole, moved);
            }
        }
    }
}

/// `row_j -= rates[j] share_j gradient`
///
/// # Panics
/// When a length does not fit.
pub fn move_rows(
    rows: &mut [f32],
    width: usize,
    terms: Terms<'_>,
    rates: &[f32],
    gradient: &[f32],
) {
    check(terms, [gradient.len(), width]);
    assert_eq!(rates.len(), terms.rows.len(), "a rate for each row");
    Proof::current().run(Move { rows, width, terms, rates, gradient });
}

struct MovePairs<'a> {
    rows: &'a mut [f32],
    width: usize,
    terms: Terms<'a>,
    rates: &'a [f32],
    sum: &'a [f32],
    slope: &'a [f32],
}

impl Kernel for MovePairs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let terms = self.terms.rows.iter().zip(self.terms.shares).zip(self.rates);
        for ((&number, &share), &rate) in terms {
            let factor = lanes.splat(-rate * share);
            let columns = self.sum.chunks(L::WIDTH).zip(self.slope.chunks(L::WIDTH));
            let row = row_mut(self.rows, self.width, number).chunks_mut(L::WIDTH);
            for ((sum, slope), row) in columns.zip(row) {
                let whole = row.len() == L::WIDTH;
                let e = read(lanes, row, whole);
                let rest = lanes.sub(read(lanes, sum, whole), e);
                let slope = lanes.mul(factor, read(lanes, slope, whole));
                write(lanes, row, whole, lanes.mul_add(slope, rest, e));
            }
        }
    }
}

/// `e_j -= rates[j] m_j (sum - e_j) slope`: the update whose squared norms [`pair_squares`] gave.
///
/// # Panics
/// When a length does not fit.
pub fn move_pairs(
    rows: &mut [f32],
    width: usize,
    terms: Terms<'_>,
    rates: &[f32],
    sum: &[f32],
    slope: &[f32],
) {
    check(terms, [sum.len(), width]);
    assert_eq!((slope.len(), rates.len()), (width, terms.rows.len()), "slopes and rates");
    Proof::current().run(MovePairs { rows, width, terms, rates, sum, slope });
}

fn check(terms: Terms<'_>, [columns, width]: [usize; 2]) {
    assert_eq!(terms.rows.len(), terms.shares.len(), "a share for each row");
    assert!(width > 0 && columns == width, "expected {width} columns, found {columns}");
}

#[cfg(test)]
mod tests;
