//! The reader of an expression.

use std::ops::Range;

use sluice_features::funnel::Funnel;
use sluice_features::words::{listed, shown};

use super::kind::{Given, Kind};
use super::probe::Divisor;
use super::{DEPTH, ExpressionError, Step, above};

/// A longer part of an expression is not written anew for a message.
const REWRITTEN: usize = 200;

/// An expression as it was read.
pub(super) struct Read {
    pub(super) steps: Vec<Step>,
    pub(super) divisors: Vec<Divisor>,
}

/// A part of the text, and what it is.
struct Part {
    place: Range<usize>,
    kind: Kind,
}

/// A `p.TASK|BEFORE` in the text.
#[derive(Clone, Copy)]
struct Condition {
    start: usize,
    /// Where `|BEFORE` stands.
    bar: usize,
    end: usize,
    task: usize,
}

/// Reads from the beginning of the text to its end.
pub(super) struct Parser<'a> {
    text: &'a str,
    at: usize,
    funnel: &'a Funnel,
    steps: Vec<Step>,
    divisors: Vec<Divisor>,
    conditions: Vec<Condition>,
    nesting: usize,
    held: usize,
    /// Mistakes are told with what would be right.
    advises: bool,
}

impl<'a> Parser<'a> {
    /// Starts to read a text.
    pub(super) fn new(text: &'a str, funnel: &'a Funnel) -> Self {
        Self {
            text,
            at: 0,
            funnel,
            steps: Vec::new(),
            divisors: Vec::new(),
            conditions: Vec::new(),
            nesting: 0,
            held: 0,
            advises: true,
        }
    }

    /// Reads the whole text.
    pub(super) fn read(mut self) -> Result<Read, ExpressionError> {
        self.sum()?;
        match self.peek() {
            None => Ok(Read { steps: self.steps, divisors: self.divisors }),
            Some(found) => self.wrong(format!("expected + - * / or the end, found \"{found}\"")),
        }
    }

    fn sum(&mut self) -> Result<Part, ExpressionError> {
        let mut sum = self.product()?;
        while let Some(operator @ ('+' | '-')) = self.peek() {
            self.at += 1;
            let term = self.product()?;
            self.join(if operator == '+' { Step::Add } else { Step::Subtract });
            let added = if operator == '+' { term.kind } else { term.kind.negated() };
            let Some(kind) = sum.kind.plus(added) else {
                let problem = self.mixed(&sum, operator, &term);
                self.at = term.place.start;
                return self.wrong(problem);
            };
            sum = Part { place: sum.place.start..term.place.end, kind };
        }
        Ok(sum)
    }

    fn product(&mut self) -> Result<Part, ExpressionError> {
        let mut product = self.factor()?;
        while let Some(operator @ ('*' | '/')) = self.peek() {
            self.at += 1;
            let factor = self.factor()?;
            let kind = if operator == '*' {
                self.join(Step::Multiply);
                product.kind.times(factor.kind)
            } else {
                let Range { start, end } = factor.place;
                self.divisors.push(Divisor { step: self.steps.len(), start, end });
                self.join(Step::Divide);
                product.kind.over(factor.kind)
            };
            product = Part { place: product.place.start..factor.place.end, kind };
        }
        Ok(product)
    }

    fn factor(&mut self) -> Result<Part, ExpressionError> {
        if self.nesting >= DEPTH {
            return self.wrong(format!("nested deeper than {DEPTH}: write it flatter"));
        }
        self.nesting += 1;
        let next = self.peek();
        let start = self.at;
        let kind = match next {
            Some('(') => {
                self.at += 1;
                let inner = self.sum()?;
                match self.peek() {
                    Some(')') => self.at += 1,
                    Some(found) => return self.wrong(format!("expected ), found \"{found}\"")),
                    None => return self.wrong("expected ), found the end".into()),
                }
                inner.kind
            }
            Some('-') => {
                self.at += 1;
                let negated = self.factor()?;
                self.steps.push(Step::Negate);
                negated.kind.negated()
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number()?,
            Some('p') if self.text[self.at..].starts_with("p.") => self.task()?,
            Some(found) => {
                return self.wrong(format!("expected a number, p.TASK, - or (, found \"{found}\""));
            }
            None => {
                return self.wrong("expected a number, p.TASK, - or (, found the end".into());
            }
        };
        self.nesting -= 1;
        Ok(Part { place: start..self.at, kind })
    }

    fn number(&mut self) -> Result<Kind, ExpressionError> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        match rest[..end].parse::<f32>() {
            Ok(number) if number.is_finite() => {
                self.push(Step::Number(number))?;
                self.at += end;
                Ok(Kind::of_number(number))
            }
            _ => self
                .wrong(format!("expected a number such as 20 or 0.5, found \"{}\"", &rest[..end])),
        }
    }

    /// Reads `p.TASK`, or `p.TASK | BEFORE`.
    fn task(&mut self) -> Result<Kind, ExpressionError> {
        let start = self.at;
        self.at += "p.".len();
        let Some(task) = self.name() else {
            let known: Vec<&str> = self.funnel.tasks().iter().map(|t| t.name.as_str()).collect();
            let (found, known) = (self.word(), known.join(", "));
            self.at = start;
            return self.wrong(format!("no task \"{found}\" in the funnel: it has {known}"));
        };
        let bar = self.at;
        let (step, before) = match self.peek() {
            Some('|') => {
                self.at += 1;
                let before = self.before(task)?;
                self.conditions.push(Condition { start, bar, end: self.at, task });
                (Step::Given(task, before), Some(before))
            }
            _ => (Step::Task(task), None),
        };
        // White space behind belongs to what follows.
        if before.is_none() {
            self.at = bar;
        }
        self.push(step)?;
        Ok(Kind::of_task(task, before))
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

    /// Says that the terms of a sum are given different things, and how to write it.
    fn mixed(&self, sum: &Part, operator: char, term: &Part) -> String {
        let said = |part: &Part| {
            let text = shown(&self.text[part.place.clone()]);
            format!("\"{text}\" is {}", self.given(part.kind.given().as_ref()))
        };
        let fault = format!("{} and {}", said(term), said(sum));
        let advice = if self.advises { self.advice(sum, operator, term) } else { Vec::new() };
        match &advice[..] {
            [] => format!(
                "{fault}: expected terms that are all on the item or all given the same task; p.A * p.B|A is on the item"
            ),
            advice => format!("{fault}, which do not add up: expected {}", advice.join(" or ")),
        }
    }

    fn given(&self, given: Option<&Given>) -> String {
        let Some(Given::Tasks { tasks, sum }) = given else { return "on the item".into() };
        let names = tasks.iter().map(|&task| self.funnel.tasks()[task].name.as_str());
        let names: Vec<&str> = names.collect();
        match (names.is_empty(), sum) {
            (true, _) => "divided by a sum".to_owned(),
            (false, true) => format!("given {} and divided by a sum", names.join(" and ")),
            (false, false) => format!("given {}", names.join(" and ")),
        }
    }

    /// Returns what may have been meant by a sum, as long as it would be taken.
    fn advice(&self, sum: &Part, operator: char, term: &Part) -> Vec<String> {
        if term.place.end - sum.place.start > REWRITTEN {
            return Vec::new();
        }
        let [left, right] = [sum, term].map(|part| &self.text[part.place.clone()]);
        let [all_left, all_right] = [sum, term].map(|part| self.unconditioned(part));
        let mut advice = Vec::new();
        if self.opens(sum, term) {
            advice.push(format!("{left} * (1 {operator} {right})"));
        } else if operator == '+' && self.opens(term, sum) {
            advice.push(format!("{right} * ({left} + 1)"));
        }
        advice.push(format!("{all_left} {operator} {all_right}"));
        let right = |text: &String| {
            let parser = Parser { advises: false, ..Parser::new(text, self.funnel) };
            parser.read().is_ok()
        };
        advice.retain(right);
        advice
    }

    /// Tells whether a part is nothing but the probability of the task that another part is given.
    fn opens(&self, part: &Part, other: &Part) -> bool {
        let text = &self.text[part.place.clone()];
        let condition = self.conditions.iter().find(|condition| condition.place() == part.place);
        let name = match condition {
            Some(condition) => Some(condition.task),
            None => self
                .funnel
                .tasks()
                .iter()
                .position(|task| text.strip_prefix("p.").is_some_and(|name| name == task.name)),
        };
        let Some(Given::Tasks { tasks, sum: false }) = other.kind.given() else { return false };
        name.is_some_and(|task| tasks == [task])
    }

    /// Returns a part with all its probabilities on the item, unless it is on the item already.
    fn unconditioned(&self, part: &Part) -> String {
        let mut text = String::new();
        let mut from = part.place.start;
        if let Some(Given::Tasks { .. }) = part.kind.given() {
            let within = |condition: &&Condition| {
                part.place.start <= condition.start && condition.end <= part.place.end
            };
            for condition in self.conditions.iter().filter(within) {
                text.push_str(&self.text[from..condition.bar]);
                from = condition.end;
            }
        }
        text + &self.text[from..part.place.end]
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

impl Condition {
    fn place(&self) -> Range<usize> {
        self.start..self.end
    }
}
