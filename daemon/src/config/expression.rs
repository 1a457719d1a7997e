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

use sluice_features::funnel::{Entry, Funnel};
use sluice_features::words::listed;

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
        let mut parser = Parser { text, at: 0, funnel, steps: Vec::new(), nesting: 0, held: 0 };
        parser.sum()?;
        match parser.peek() {
            None => Ok(Self { steps: parser.steps }),
            Some(found) => parser.wrong(format!("expected + - * / or the end, found \"{found}\"")),
        }
    }

    /// Creates the expression that is one task's probability.
    pub fn of_task(task: usize) -> Self {
        Self { steps: vec![Step::Task(task)] }
    }

    /// Returns the value for the probabilities of all tasks on a candidate, in the funnel's order.
    ///
    /// Always finite: a division by zero and the like count as the lowest score.
    ///
    /// # Panics
    /// When there are fewer probabilities than tasks that the expression names.
    pub fn value(&self, p: &[f32]) -> f32 {
        let mut stack = [0.0f32; DEPTH];
        let mut top = 0;
        for step in &self.steps {
            match *step {
                Step::Number(number) => {
                    stack[top] = number;
                    top += 1;
                }
                Step::Task(task) => {
                    stack[top] = p[task];
                    top += 1;
                }
                Step::Given(task, before) => {
                    stack[top] = given(p[task], p[before]);
                    top += 1;
                }
                Step::Negate => stack[top - 1] = -stack[top - 1],
                Step::Add | Step::Subtract | Step::Multiply | Step::Divide => {
                    top -= 1;
                    let (x, y) = (stack[top - 1], stack[top]);
                    stack[top - 1] = match step {
                        Step::Add => x + y,
                        Step::Subtract => x - y,
                        Step::Multiply => x * y,
                        _ => x / y,
                    };
                }
            }
        }
        if stack[0].is_finite() { stack[0] } else { f32::MIN }
    }
}

/// Returns the probability of a task once another has happened, between 0 and 1; 0 where neither can.
fn given(task: f32, before: f32) -> f32 {
    if task > 0.0 { (task / before).clamp(0.0, 1.0) } else { 0.0 }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    funnel: &'a Funnel,
    steps: Vec<Step>,
    nesting: usize,
    held: usize,
}

impl Parser<'_> {
    fn sum(&mut self) -> Result<(), ExpressionError> {
        self.product()?;
        while let Some(operator @ ('+' | '-')) = self.peek() {
            self.at += 1;
            self.product()?;
            self.join(if operator == '+' { Step::Add } else { Step::Subtract });
        }
        Ok(())
    }

    fn product(&mut self) -> Result<(), ExpressionError> {
        self.factor()?;
        while let Some(operator @ ('*' | '/')) = self.peek() {
            self.at += 1;
            self.factor()?;
            self.join(if operator == '*' { Step::Multiply } else { Step::Divide });
        }
        Ok(())
    }

    fn factor(&mut self) -> Result<(), ExpressionError> {
        if self.nesting >= DEPTH {
            return self.wrong(format!("nested deeper than {DEPTH}: write it flatter"));
        }
        self.nesting += 1;
        match self.peek() {
            Some('(') => {
                self.at += 1;
                self.sum()?;
                match self.peek() {
                    Some(')') => self.at += 1,
                    Some(found) => return self.wrong(format!("expected ), found \"{found}\"")),
                    None => return self.wrong("expected ), found the end".into()),
                }
            }
            Some('-') => {
                self.at += 1;
                self.factor()?;
                self.steps.push(Step::Negate);
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number()?,
            Some('p') if self.text[self.at..].starts_with("p.") => self.task()?,
            Some(found) => {
                return self.wrong(format!("expected a number, p.TASK, - or (, found \"{found}\""));
            }
            None => {
                return self.wrong("expected a number, p.TASK, - or (, found the end".into());
            }
        }
        self.nesting -= 1;
        Ok(())
    }

    fn number(&mut self) -> Result<(), ExpressionError> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        match rest[..end].parse::<f32>() {
            Ok(number) if number.is_finite() => {
                self.push(Step::Number(number))?;
                self.at += end;
                Ok(())
            }
            _ => self
                .wrong(format!("expected a number such as 20 or 0.5, found \"{}\"", &rest[..end])),
        }
    }

    /// Reads `p.TASK`, or `p.TASK | BEFORE`.
    fn task(&mut self) -> Result<(), ExpressionError> {
        let start = self.at;
        self.at += "p.".len();
        let Some(task) = self.name() else {
            let known: Vec<&str> = self.funnel.tasks().iter().map(|t| t.name.as_str()).collect();
            let (found, known) = (self.word(), known.join(", "));
            self.at = start;
            return self.wrong(format!("no task \"{found}\" in the funnel: it has {known}"));
        };
        let step = match self.peek() {
            Some('|') => {
                self.at += 1;
                Step::Given(task, self.before(task)?)
            }
            _ => Step::Task(task),
        };
        self.push(step)
    }

    /// Reads what comes before a task.
    fn before(&mut self, task: usize) -> Result<usize, ExpressionError> {
        self.peek();
        let start = self.at;
        let (found, above) = (self.word(), above(self.funnel, task));
        match self.name() {
            Some(before) if above.contains(&before) => Ok(before),
            _ => {
                self.at = start;
                let name = &self.funnel.tasks()[task].name;
                let found =
                    if found.is_empty() { "nothing".into() } else { format!("\"{found}\"") };
                self.wrong(if above.is_empty() {
                    format!(
                        "nothing comes before \"{name}\": expected p.{name} alone, found | {found}"
                    )
                } else {
                    let name_of = |&task: &usize| self.funnel.tasks()[task].name.as_str();
                    let known: Vec<&str> = above.iter().rev().map(name_of).collect();
                    let known = listed(&known);
                    format!("expected what comes before \"{name}\": {known}, found {found}")
                })
            }
        }
    }

    /// Reads a task's name. Names may hold `-`, so the longest that fits is meant.
    fn name(&mut self) -> Option<usize> {
        let rest = &self.text[self.at..];
        let fits =
            |name: &str| rest.strip_prefix(name).is_some_and(|behind| !behind.starts_with(is_word));
        let tasks = self.funnel.tasks();
        let task = (0..tasks.len())
            .filter(|&task| fits(&tasks[task].name))
            .max_by_key(|&task| tasks[task].name.len())?;
        self.at += tasks[task].name.len();
        Some(task)
    }

    /// Returns what stands where a name was expected.
    fn word(&self) -> String {
        let rest = &self.text[self.at..];
        let end = rest.find(|c| !is_word(c) && !"-.".contains(c)).unwrap_or(rest.len());
        rest[..end].to_owned()
    }

    fn push(&mut self, value: Step) -> Result<(), ExpressionError> {
        if self.held == DEPTH {
            return self.wrong(format!("more than {DEPTH} values at once: write it flatter"));
        }
        self.held += 1;
        self.steps.push(value);
        Ok(())
    }

    fn join(&mut self, operator: Step) {
        self.held -= 1;
        self.steps.push(operator);
    }

    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn wrong<T>(&self, problem: String) -> Result<T, ExpressionError> {
        let column = self.text[..self.at].chars().count() + 1;
        Err(ExpressionError { column, problem })
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
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

#[cfg(test)]
mod tests;
