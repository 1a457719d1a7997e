//! Rows of one number, each with its accumulator beside it: what logistic regression does with one example.
//!
//! The rows of the example's terms are taken out of the workspace once, worked on side by side, and put back once. `rows` is `[distinct]` pairs of a number
//! and its accumulator of row-wise Adagrad.

use super::lanes::{Kernel, Lanes};
use super::optimizer::{AdagradStep, read, write};
use super::path::Proof;
use super::terms::Terms;

/// Vectors that are summed side by side, so that no addition waits for the one before.
const CHAINS: usize = 4;
/// Numbers in the longest vector.
const LONGEST: usize = 16;

/// The rows of one example, in the order of its terms. Its memory is used again.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    numbers: Vec<f32>,
    states: Vec<f32>,
    rates: Vec<f32>,
}

impl Weights {
    /// Takes out the rows of an example. Returns `Σ_j share_j w_j` and `Σ_j share_j²`.
    ///
    /// # Panics
    /// When lengths differ, or a row is not there.
    pub fn take(&mut self, rows: &[[f32; 2]], terms: Terms<'_>) -> [f32; 2] {
        self.take_on(Proof::current(), rows, terms)
    }

    fn take_on(&mut self, proof: Proof, rows: &[[f32; 2]], terms: Terms<'_>) -> [f32; 2] {
        let count = terms.rows.len();
        assert_eq!(terms.shares.len(), count, "a share for each row");
        for buffer in [&mut self.numbers, &mut self.states, &mut self.rates] {
            buffer.resize(count, 0.0);
        }
        proof.run(Take { rows, terms, numbers: &mut self.numbers, states: &mut self.states })
    }

    /// Moves the accumulators on and makes the rates: `G_j += s_j`, `rate_j = rate / (sqrt(G_j) + ε)` with `s_j = share_j² square`, the squared norm of the
    /// row's gradient. Returns `Σ_j rate_j s_j`.
    ///
    /// # Panics
    /// When these are not as many shares as rows were taken.
    pub fn advance(&mut self, shares: &[f32], square: f32, step: AdagradStep) -> f32 {
        self.advance_on(Proof::current(), shares, square, step)
    }

    fn advance_on(&mut self, proof: Proof, shares: &[f32], square: f32, step: AdagradStep) -> f32 {
        assert_eq!(shares.len(), self.rates.len(), "a share for each row");
        let (states, rates) = (&mut self.states, &mut self.rates);
        proof.run(Advance { states, shares, square, step, rates })
    }

    /// Moves the numbers, `w_j -= rate_j share_j slope`, and puts the rows back.
    ///
    /// # Panics
    /// When these are not as many terms as were taken, or a row is not there.
    pub fn put(&self, rows: &mut [[f32; 2]], terms: Terms<'_>, slope: f32) {
        self.put_on(Proof::current(), rows, terms, slope);
    }

    fn put_on(&self, proof: Proof, rows: &mut [[f32; 2]], terms: Terms<'_>, slope: f32) {
        let found = (terms.rows.len(), terms.shares.len());
        assert_eq!(found, (self.rates.len(), self.rates.len()), "rows and shares of the example");
        proof.run(Put { rows, terms, weights: self, slope });
    }
}

struct Take<'a> {
    rows: &'a [[f32; 2]],
    terms: Terms<'a>,
    numbers: &'a mut [f32],
    states: &'a mut [f32],
}

impl Kernel for Take<'_> {
    type Output = [f32; 2];

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> [f32; 2] {
        let mut sums = [lanes.splat(0.0); CHAINS];
        let mut squares = lanes.splat(0.0);
        let terms = self.terms.rows.chunks(L::WIDTH).zip(self.terms.shares.chunks(L::WIDTH));
        let out = self.numbers.chunks_mut(L::WIDTH).zip(self.states.chunks_mut(L::WIDTH));
        for (block, ((rows, shares), (numbers, states))) in terms.zip(out).enumerate() {
            let whole = rows.len() == L::WIDTH;
            let (number, state) = lanes.gather_pairs(self.rows, rows);
            let (share, sum) = (read(lanes, shares, whole), &mut sums[block % CHAINS]);
            *sum = lanes.mul_add(number, share, *sum);
            squares = lanes.mul_add(share, share, squares);
            write(lanes, numbers, whole, number);
            write(lanes, states, whole, state);
        }
        let sum = lanes.add(lanes.add(sums[0], sums[1]), lanes.add(sums[2], sums[3]));
        [lanes.sum(sum), lanes.sum(squares)]
    }
}

struct Advance<'a> {
    states: &'a mut [f32],
    shares: &'a [f32],
    square: f32,
    step: AdagradStep,
    rates: &'a mut [f32],
}

impl Kernel for Advance<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> f32 {
        let (length, eps) = (lanes.splat(self.square), lanes.splat(self.step.eps));
        let rate = lanes.splat(self.step.rate);
        let mut change = lanes.splat(0.0);
        let shares = self.shares.chunks(L::WIDTH);
        let rows = self.states.chunks_mut(L::WIDTH).zip(self.rates.chunks_mut(L::WIDTH));
        for (share, (state, out)) in shares.zip(rows) {
            let whole = share.len() == L::WIDTH;
            let share = read(lanes, share, whole);
            let square = lanes.mul(lanes.mul(share, share), length);
            let new = lanes.add(square, read(lanes, state, whole));
            let quotient = lanes.div(rate, lanes.add(lanes.sqrt(new), eps));
            change = lanes.mul_add(quotient, square, change);
            write(lanes, state, whole, new);
            write(lanes, out, whole, quotient);
        }
        lanes.sum(change)
    }
}

struct Put<'a> {
    rows: &'a mut [[f32; 2]],
    terms: Terms<'a>,
    weights: &'a Weights,
    slope: f32,
}

impl Kernel for Put<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let slope = lanes.splat(self.slope);
        let Weights { numbers, states, rates } = self.weights;
        let terms = self.terms.rows.chunks(L::WIDTH).zip(self.terms.shares.chunks(L::WIDTH));
        let weights = numbers.chunks(L::WIDTH).zip(states.chunks(L::WIDTH));
        let weights = weights.zip(rates.chunks(L::WIDTH));
        for ((rows, share), ((number, state), rate)) in terms.zip(weights) {
            let whole = rows.len() == L::WIDTH;
            let factor = lanes.mul(read(lanes, rate, whole), read(lanes, share, whole));
            let moved = lanes.sub(read(lanes, number, whole), lanes.mul(factor, slope));
            // The pairs go out one by one: no processor writes scattered places faster.
            let mut pairs = [[0.0; 2]; LONGEST];
            let [low, high] = lanes.interleave(moved, read(lanes, state, whole));
            lanes.store(pairs.as_flattened_mut(), low);
            lanes.store(&mut pairs.as_flattened_mut()[L::WIDTH..], high);
            for (&row, &pair) in rows.iter().zip(&pairs) {
                self.rows[row as usize] = pair;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs, every second of which is a term, with shares of which some are not 1.
    fn case(terms: usize) -> (Vec<[f32; 2]>, Vec<u32>, Vec<f32>) {
        let wave = |i: usize| ((i * 37 % 101) as f32 * 0.61).sin();
        let rows = (0..2 * terms + 1).map(|i| [wave(i), wave(i + 50).abs()]).collect();
        let places = (0..terms).map(|j| ((j * 34 + 1) % (2 * terms + 1)) as u32);
        let mut places: Vec<u32> = places.collect();
        places.sort_unstable();
        places.dedup();
        places.reverse();
        let shares = (0..places.len()).map(|j| 1.0 / (1 + j % 3) as f32).collect();
        (rows, places, shares)
    }

    fn assert_close(found: f32, expected: f64) {
        let size = expected.abs().max(1.0);
        assert!((f64::from(found) - expected).abs() < 2e-5 * size, "{found}, not {expected}");
    }

    #[test]
    fn an_example_is_learned_by_the_formulas_in_double_precision() {
        let step = AdagradStep { rate: 0.08, eps: 1e-10 };
        let mut weights = Weights::default();
        for proof in Proof::all() {
            for terms in (0..70).chain([130]) {
                let (before, places, shares) = case(terms);
                let mut rows = before.clone();
                let terms = Terms { rows: &places, shares: &shares };
                let [sum, squares] = weights.take_on(proof, &rows, terms);
                let change = weights.advance_on(proof, &shares, 0.3, step);
                weights.put_on(proof, &mut rows, terms, -0.7);
                let mut expected = [0.0; 3];
                for (&place, share) in places.iter().zip(shares.iter().map(|&m| f64::from(m))) {
                    let [w, state] = before[place as usize].map(f64::from);
                    let new = state + share * share * f64::from(0.3_f32);
                    let rate = f64::from(step.rate) / new.sqrt();
                    let [moved, kept] = rows[place as usize];
                    assert_close(kept, new);
                    assert_close(moved, w + rate * share * f64::from(0.7_f32));
                    expected[0] += share * w;
                    expected[1] += share * share;
                    expected[2] += rate * share * share * f64::from(0.3_f32);
                }
                assert_close(sum, expected[0]);
                assert_close(squares, expected[1]);
                assert_close(change, expected[2]);
                let other = |row: &usize| !places.contains(&(*row as u32));
                for row in (0..rows.len()).filter(other) {
                    assert_eq!(rows[row].map(f32::to_bits), before[row].map(f32::to_bits));
                }
            }
        }
    }

    #[test]
    fn a_row_that_is_not_there_panics_on_every_path() {
        for proof in Proof::all() {
            for (rows, places) in [(0, vec![0]), (3, vec![0, 1, 3]), (3, vec![u32::MAX])] {
                let (rows, shares) = (vec![[1.0; 2]; rows], vec![1.0; places.len()]);
                let terms = Terms { rows: &places, shares: &shares };
                let take = || Weights::default().take_on(proof, &rows, terms);
                assert!(std::panic::catch_unwind(take).is_err(), "{proof:?} {places:?}");
            }
        }
    }
}
