//! What the terms of an expression are probabilities of: how many probabilities on the item each is made of, and given which tasks.
//!
//! A probability on the item is about as small as it is seldom that the item is shown, or viewed among all; one that is given a task is not. So
//! a sum of both is nearly the latter alone. Each product is a monomial in the tasks: `p.cart` is `cart`, `p.cart|view` is `cart / view`, and
//! `p.view * p.cart|view` is `cart` again. Its degree says how many probabilities on the item it is made of.
//!
//! | degree | is | example |
//! |---|---|---|
//! | 1 or more | on the item | `p.cart`, `p.view * p.cart\|view`, `p.click * p.like` |
//! | 0 or less | given what it is divided by | `p.cart\|view`, `p.purchase / p.cart` |
//!
//! The terms of a sum are all on the item or all given the same; a number stands beside either.

use sluice_features::funnel::MAX_TASKS;

/// A number below this beside probabilities that divide keeps them above 0, and does no more.
const SMOOTHING: f64 = 0.1;

/// A product of powers of tasks, and of sums of tasks where it is not known of which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Monomial {
    tasks: [i32; MAX_TASKS],
    /// Sums that it is multiplied and divided by.
    sums: [i32; 2],
}

/// What a part of an expression is: a number, products of tasks, or both (`1 + p.cart`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Kind {
    /// The sum of the numbers among its terms, `None` without any.
    number: Option<f64>,
    /// What its other terms are.
    rest: Option<Monomial>,
}

/// Given what a term is a probability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Nothing: it is on the item.
    Nothing,
    /// These tasks, and with `sum` a sum of tasks.
    Tasks {
        /// By their place in the funnel.
        tasks: Vec<usize>,
        /// A sum is among them.
        sum: bool,
    },
}

impl Monomial {
    const ONE: Self = Self { tasks: [0; MAX_TASKS], sums: [0; 2] };

    fn degree(&self) -> i32 {
        let tasks = self.tasks.iter().fold(0, |sum: i32, power| sum.saturating_add(*power));
        tasks.saturating_add(self.sums[0]).saturating_sub(self.sums[1])
    }

    fn times(mut self, other: &Self) -> Self {
        for (power, other) in self.tasks.iter_mut().zip(other.tasks) {
            *power = power.saturating_add(other);
        }
        for (power, other) in self.sums.iter_mut().zip(other.sums) {
            *power = power.saturating_add(other);
        }
        self
    }

    fn inverse(mut self) -> Self {
        self.tasks.iter_mut().for_each(|power| *power = -*power);
        self.sums.swap(0, 1);
        self
    }

    /// Returns what two terms have in common, with a sum in place of the rest and the lower degree.
    fn common(self, other: Self) -> Self {
        let degree = self.degree().min(other.degree());
        let tasks = std::array::from_fn(|task| self.tasks[task].min(other.tasks[task]));
        let under = self.sums[1].max(other.sums[1]);
        let common = Self { tasks, sums: [0, under] };
        let over = degree.saturating_sub(common.degree());
        Self { sums: [over, under], ..common }
    }

    fn given(&self) -> Given {
        if self.degree() > 0 {
            return Given::Nothing;
        }
        let tasks = (0..MAX_TASKS).filter(|&task| self.tasks[task] < 0).collect();
        Given::Tasks { tasks, sum: self.sums[1] > 0 }
    }
}

impl Kind {
    /// A number.
    pub(super) fn of_number(number: f32) -> Self {
        Self { number: Some(number.into()), rest: None }
    }

    /// Returns what the probability of a task is, on the item or given another one.
    pub(super) fn of_task(task: usize, before: Option<usize>) -> Self {
        let mut tasks = [0; MAX_TASKS];
        tasks[task] = 1;
        if let Some(before) = before {
            tasks[before] = -1;
        }
        Self { number: None, rest: Some(Monomial { tasks, ..Monomial::ONE }) }
    }

    /// Returns given what its terms are, beside numbers.
    pub(super) fn given(&self) -> Option<Given> {
        self.rest.map(|rest| rest.given())
    }

    /// Returns what a sum is, unless its terms are given different things.
    pub(super) fn plus(self, other: Self) -> Option<Self> {
        let rest = match (self.rest, other.rest) {
            (Some(one), Some(two)) if one.given() != two.given() => return None,
            (Some(one), Some(two)) => Some(one.common(two)),
            (one, two) => one.or(two),
        };
        let number = match (self.number, other.number) {
            (Some(one), Some(two)) => Some(one + two),
            (one, two) => one.or(two),
        };
        Some(Self { number, rest })
    }

    /// Returns what a product is: of the terms that it has when it is written out, those count that are largest.
    pub(super) fn times(self, other: Self) -> Self {
        let both = self.rest.zip(other.rest).map(|(one, two)| one.times(&two));
        let both_numbers = self.number.zip(other.number).map(|(one, two)| one * two);
        let number = both_numbers.or((both == Some(Monomial::ONE)).then_some(1.0));
        let terms = [
            both.filter(|both| *both != Monomial::ONE),
            self.rest.filter(|_| other.number.is_some()),
            other.rest.filter(|_| self.number.is_some()),
        ];
        let degree = terms.iter().flatten().map(Monomial::degree).min();
        let largest = terms.into_iter().flatten().filter(|term| Some(term.degree()) == degree);
        Self { number, rest: largest.reduce(Monomial::common) }
    }

    /// Returns what it is with the other sign.
    pub(super) fn negated(self) -> Self {
        Self { number: self.number.map(|number| -number), ..self }
    }

    /// Returns what a quotient is. `1 / (1 + p)` is about `1 - p`; a number that only keeps what divides above 0, as in `p / (0.001 + p)`, does
    /// not count.
    pub(super) fn over(self, other: Self) -> Self {
        let counts = |number: f64| number.abs() >= SMOOTHING;
        match (other.rest, other.number) {
            (Some(rest), number) if !number.is_some_and(counts) => {
                self.times(Self { number: None, rest: Some(rest.inverse()) })
            }
            (_, number) => self.times(Self { number: number.map(f64::recip), ..other }),
        }
    }
}
