use super::*;

/// Rows, terms of some of them, and gradients that look random.
struct Case {
    rows: Vec<f32>,
    numbers: Vec<u32>,
    shares: Vec<f32>,
    slope: Vec<f32>,
}

impl Case {
    fn new(width: usize, terms: usize) -> Self {
        let wave = |i: usize| ((i * 37 % 101) as f32 * 0.61).sin();
        Self {
            rows: (0..(2 * terms + 1) * (width + 1)).map(wave).collect(),
            numbers: (0..terms).map(|j| ((j * 2 + 1) % (2 * terms + 1)) as u32).collect(),
            shares: (0..terms).map(|j| 1.0 / (1 + j % 3) as f32).collect(),
            slope: (0..width).map(|k| 0.7 - 0.1 * (k % 5) as f32).collect(),
        }
    }

    fn terms(&self) -> Terms<'_> {
        Terms { rows: &self.numbers, shares: &self.shares }
    }

    fn row(&self, j: usize) -> Vec<f64> {
        let width = self.slope.len();
        row(&self.rows, width, self.numbers[j]).iter().map(|&x| f64::from(x)).collect()
    }

    /// `Σ share row` and `Σ share row²` of a column.
    fn sums(&self, k: usize) -> (f64, f64) {
        let terms = self.shares.iter().enumerate().map(|(j, &m)| (f64::from(m), self.row(j)[k]));
        terms.fold((0.0, 0.0), |(sum, square), (m, e)| (sum + m * e, square + m * e * e))
    }
}

fn each(test: impl Fn(Proof, usize, usize)) {
    for proof in Proof::all() {
        for width in (1..20).chain([32, 33]) {
            for terms in [0, 1, 2, 3, 4, 5, 7, 16, 34, 63, 64, 65, 130] {
                test(proof, width, terms);
            }
        }
    }
}

fn assert_close(found: f32, expected: f64) {
    let size = expected.abs().max(1.0);
    assert!((f64::from(found) - expected).abs() < 2e-5 * size, "{found}, not {expected}");
}

#[test]
fn sums_agree_with_double_precision() {
    each(|proof, width, terms| {
        let case = Case::new(width, terms);
        let mut sum = vec![0.5; width];
        proof.run(Sum { rows: &case.rows, width, terms: case.terms(), sum: &mut sum });
        let (mut plain, mut pairs) = (vec![9.0; width], vec![9.0; width]);
        proof.run(Pairs {
            rows: &case.rows,
            width,
            terms: case.terms(),
            sum: &mut plain,
            pairs: &mut pairs,
        });
        for k in 0..width {
            let (expected, square) = case.sums(k);
            assert_close(sum[k], 0.5 + expected);
            assert_close(plain[k], expected);
            assert_close(pairs[k], 0.5 * (expected * expected - square));
        }
    });
}

#[test]
fn rates_and_states_agree_with_double_precision() {
    let step = AdagradStep { rate: 0.08, eps: 1e-10 };
    each(|proof, width, terms| {
        let case = Case::new(width, terms);
        let squares: Vec<f32> = case.shares.iter().map(|m| m * m).collect();
        let before: Vec<f32> = case.rows.iter().map(|x| x.abs()).collect();
        let (mut rows, mut rates) = (before.clone(), vec![0.0; terms]);
        let change = proof.run(Advance {
            rows: &mut rows,
            width,
            terms: &case.numbers,
            squares: &squares,
            step,
            rates: &mut rates,
        });
        let state = |number: u32| number as usize * (width + 1) + width;
        let mut expected = 0.0;
        for (j, &number) in case.numbers.iter().enumerate() {
            let mean = f64::from(squares[j]) / width as f64;
            let new = f64::from(before[state(number)]) + mean;
            assert_close(rows[state(number)], new);
            let rate = f64::from(step.rate) / new.sqrt();
            assert!((f64::from(rates[j]) / rate - 1.0).abs() < 1e-4);
            expected += rate * f64::from(squares[j]);
        }
        assert!((f64::from(change) - expected).abs() <= 1e-4 * expected);
        let moved: Vec<usize> = case.numbers.iter().map(|&number| state(number)).collect();
        for place in (0..rows.len()).filter(|place| !moved.contains(place)) {
            assert_eq!(rows[place].to_bits(), before[place].to_bits());
        }
    });
}

#[test]
fn rows_move_by_the_formula() {
    each(|proof, width, terms| {
        let case = Case::new(width, terms);
        let rates: Vec<f32> = (0..terms).map(|j| 0.1 + 0.01 * (j % 7) as f32).collect();
        let sum: Vec<f32> = (0..width).map(|k| case.sums(k).0 as f32).collect();
        let (slope, terms) = (&case.slope[..], case.terms());
        let (mut moved, mut paired) = (case.rows.clone(), case.rows.clone());
        let mut squares = vec![0.0; rates.len()];
        proof.run(Move { rows: &mut moved, width, terms, rates: &rates, gradient: slope });
        proof.run(PairSquares {
            rows: &case.rows,
            width,
            terms,
            sum: &sum,
            slope,
            squares: &mut squares,
        });
        proof.run(MovePairs { rows: &mut paired, width, terms, rates: &rates, sum: &sum, slope });
        for (j, &number) in case.numbers.iter().enumerate() {
            let factor = f64::from(rates[j]) * f64::from(case.shares[j]);
            let mut square = 0.0;
            for k in 0..width {
                let (e, slope) = (case.row(j)[k], f64::from(slope[k]));
                assert_close(row(&moved, width, number)[k], e - factor * slope);
                let gradient = (f64::from(sum[k]) - e) * slope;
                assert_close(row(&paired, width, number)[k], e - factor * gradient);
                square += (gradient * f64::from(case.shares[j])).powi(2);
            }
            assert_close(squares[j], square);
        }
    });
}
