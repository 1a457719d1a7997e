//! The ranking score: an expression of probabilities, such as `p.click + 20 * p.purchase`.
//!
//! `p.TASK` is the task's probability on the candidate, `p.TASK | BEFORE` its probability once `BEFORE` has happened, which is a task above it in the
//! funnel or the view that opens the funnel: `p.purchase = p.click * p.cart|click * p.purchase|cart`.
//!
//! ```text
//! sum     = product (("+" | "-") product)*
//! product = factor (("*" | "/") factor)*
//! factor  = number | "p." task ["|" task] | "-" factor | "(" sum ")"
//! ```
//!
//! The terms of a sum are all probabilities on the candidate or all given the same task ([`kind`]), and the value is one that depends on some
//! probability ([`probe`]).

mod kind;
mod parse;
mod probe;

use sluice_features::funnel::{Entry, Funnel};
use sluice_features::words::shown;

use parse::Parser;
use probe::{Divisor, Fault, probe};

/// An expression in postfix order: it is evaluated on a stack, without recursion.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    steps: Vec<Step>,
}

/// Why a text is no expression, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {problem}")]
pub struct ExpressionError {
    /// Which character of the text, counted from 1.
    pub column: usize,
    /// What was expected and what was found.
    pub problem: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Number(f32),
    Task(usize),
    /// The first task's probability once the second has happened.
    Given(usize, usize),
    Negate,
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// How many values an expression may hold at once while it is evaluated, and how deep it may nest.
const DEPTH: usize = 32;

impl Expression {
    /// Reads an expression over the tasks of a funnel.
    ///
    /// # Errors
    /// The first mistake in the text.
    pub fn parse(text: &str, funnel: &Funnel) -> Result<Self, ExpressionError> {
        let read = Parser::new(text, funnel).read()?;
        let expression = Self { steps: read.steps };
        probe(&expression, funnel, &read.divisors)
            .map_err(|fault| fault_in(text, funnel, fault))?;
        Ok(expression)
    }

    /// Creates the expression that is one task's probability.
    pub fn of_task(task: usize) -> Self {
        Self { steps: vec![Step::Task(task)] }
    }

    /// Returns the value for the probabilities of all tasks on a candidate, in the funnel's order, unless it is not finite.
    ///
    /// # Panics
    /// When there are fewer probabilities than tasks that the expression names.
    pub fn value(&self, p: &[f32]) -> Option<f32> {
        let value = self.run(p, |_| {}) as f32;
        value.is_finite().then_some(value)
    }

    /// Returns the value, and shows what stands on top of the stack after each step.
    fn run(&self, p: &[f32], mut see: impl FnMut(f64)) -> f64 {
        let mut stack = [0.0f64; DEPTH];
        let mut top = 0;
        for step in &self.steps {
            let value = match *step {
                Step::Number(number) => Some(f64::from(number)),
                Step::Task(task) => Some(f64::from(p[task])),
                Step::Given(task, before) => Some(given(p[task].into(), p[before].into())),
                _ => None,
            };
            if let Some(value) = value {
                stack[top] = value;
                top += 1;
            } else if *step == Step::Negate {
                stack[top - 1] = -stack[top - 1];
            } else {
                top -= 1;
                let (x, y) = (stack[top - 1], stack[top]);
                stack[top - 1] = match step {
                    Step::Add => x + y,
                    Step::Subtract => x - y,
                    Step::Multiply => x * y,
                    _ => x / y,
                };
            }
            see(stack[top - 1]);
        }
        stack[0]
    }
}

/// Returns the probability of a task once another has happened, between 0 and 1; 0 where neither can.
fn given(task: f64, before: f64) -> f64 {
    if task > 0.0 { (task / before).clamp(0.0, 1.0) } else { 0.0 }
}

/// Returns what comes before a task, the nearest first: the tasks above it, and the view where that opens the funnel.
fn above(funnel: &Funnel, task: usize) -> Vec<usize> {
    let parent = |&task: &usize| funnel.tasks()[task].parent;
    let mut above: Vec<usize> = std::iter::successors(parent(&task), parent).collect();
    if task > 0 && matches!(funnel.entry(), Entry::View { .. }) {
        above.push(0);
    }
    above
}

/// Says what is wrong with an expression as a whole, or with a divisor in it.
fn fault_in(text: &str, funnel: &Funnel, fault: Fault) -> ExpressionError {
    let first = &funnel.tasks()[0].name;
    let whole = |problem: String| ExpressionError { column: 1, problem };
    match fault {
        Fault::Constant => whole(format!(
            "names no probability, so it orders nothing: expected one such as p.{first}"
        )),
        Fault::Unmoved => whole(format!(
            "is the same whatever the probabilities are, so it orders nothing: expected a score such as p.{first}"
        )),
        Fault::NotFinite => {
            whole("becomes too large for a score: expected smaller numbers".to_owned())
        }
        Fault::Zero(Divisor { start, end, .. }) => ExpressionError {
            column: text[..start].chars().count() + 1,
            problem: format!(
                "divides by \"{}\", which can be 0: expected what stays above 0, such as p.{first}",
                shown(text[start..end].trim())
            ),
        },
    }
}

#[cfg(test)]
mod tests;
