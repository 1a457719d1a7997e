//! The ranking score: an expression of task probabilities, such as `p.click + 20 * p.purchase`.
//!
//! ```text
//! sum     = product (("+" | "-") product)*
//! product = factor (("*" | "/") factor)*
//! factor  = number | "p." task | "-" factor | "(" sum ")"
//! ```

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
    Negate,
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// How many values an expression may hold at once while it is evaluated, and how deep it may nest.
const DEPTH: usize = 32;

impl Expression {
    /// Reads an expression over the tasks of these names.
    ///
    /// # Errors
    /// The first mistake in the text.
    pub fn parse(text: &str, tasks: &[&str]) -> Result<Self, ExpressionError> {
        let mut parser = Parser { text, at: 0, tasks, steps: Vec::new(), nesting: 0, held: 0 };
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

    /// Returns the value for the probabilities of all tasks, in the funnel's order.
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

struct Parser<'a> {
    text: &'a str,
    at: usize,
    tasks: &'a [&'a str],
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

    /// Reads `p.TASK`. Names may hold `-`, so the longest task that fits is meant.
    fn task(&mut self) -> Result<(), ExpressionError> {
        let rest = &self.text[self.at + 2..];
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let fits =
            |name: &str| rest.strip_prefix(name).is_some_and(|behind| !behind.starts_with(is_word));
        let task = (0..self.tasks.len())
            .filter(|&task| fits(self.tasks[task]))
            .max_by_key(|&task| self.tasks[task].len());
        match task {
            Some(task) => {
                self.push(Step::Task(task))?;
                self.at += 2 + self.tasks[task].len();
                Ok(())
            }
            None => {
                let end = rest.find(|c| !is_word(c) && c != '-').unwrap_or(rest.len());
                let known = self.tasks.join(", ");
                self.wrong(format!("no task \"{}\" in the funnel: it has {known}", &rest[..end]))
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> f32 {
        let tasks = ["click", "add", "add-to-cart"];
        Expression::parse(text, &tasks).unwrap().value(&[0.5, 0.25, 0.125])
    }

    fn column(text: &str) -> usize {
        Expression::parse(text, &["click"]).unwrap_err().column
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "the numbers are exact in binary")]
    fn operators_bind_as_in_school() {
        assert_eq!(value("p.click + 20 * p.add"), 5.5);
        assert_eq!(value("(p.click+20)*-p.add"), -5.125);
        assert_eq!(value("8 / 2 / 2 - 3 - 2"), -3.0);
        assert_eq!(value("p.add-to-cart"), 0.125);
        assert_eq!(value("p.add - 1"), -0.75);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "the lowest score is one number")]
    fn a_value_without_a_number_is_the_lowest_score() {
        assert_eq!(value("1 / (p.click - 0.5)"), f32::MIN);
        assert_eq!(value("0 / 0"), f32::MIN);
    }

    #[test]
    fn mistakes_have_their_column() {
        assert_eq!(column(""), 1);
        assert_eq!(column("p.click + p.buy"), 11);
        assert_eq!(column("p.click p.click"), 9);
        assert_eq!(column("2 * (p.click"), 13);
        assert_eq!(column("é"), 1);
        assert_eq!(column("1.2.3"), 1);
        assert_eq!(column(&"(".repeat(100)), 33);
        assert_eq!(column(&"-".repeat(100)), 33);
    }

    #[test]
    fn a_deep_expression_is_refused_and_a_long_one_is_not() {
        let deep = (0..40).fold(String::from("1"), |inner, _| format!("1 + ({inner})"));
        assert!(Expression::parse(&deep, &[]).is_err());
        assert!(Expression::parse(&["1"; 1000].join(" + "), &[]).is_ok());
    }
}
