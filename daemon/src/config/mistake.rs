//! Mistakes in a configuration: all of them, each with its place and what would be right.

use std::fmt;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key with its sections, such as `kafka.sasl.mechanism` or `fields.3.kind`; empty for a mistake of the whole file.
    pub path: String,
    /// The line of the file where it stands, counted from 1, where it stands in the file.
    pub line: Option<usize>,
    /// What was expected, what was found, and the remedy.
    pub problem: String,
}

/// All mistakes of a configuration, at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Creates an empty list to collect into.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds a mistake, unless its key, or a section around it, has one already.
    pub(super) fn add(&mut self, path: impl Into<String>, problem: impl Into<String>) {
        let path = path.into();
        let covered = |known: &Mistake| {
            path.strip_prefix(&known.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if !self.0.iter().any(covered) {
            self.0.push(Mistake { path, line: None, problem: problem.into() });
        }
    }

    /// Adds a mistake that has no key, at a line.
    pub(super) fn add_at(&mut self, line: Option<usize>, problem: String) {
        self.0.push(Mistake { path: String::new(), line, problem });
    }

    /// Finds the line of each mistake and sorts them as they stand in the file, those outside of it last.
    pub(super) fn place(&mut self, line_of: impl Fn(&str) -> Option<usize>) {
        for mistake in self.0.iter_mut().filter(|mistake| mistake.line.is_none()) {
            mistake.line = line_of(&mistake.path);
        }
        self.0.sort_by(|a, b| {
            let line = |mistake: &Mistake| mistake.line.unwrap_or(usize::MAX);
            line(a).cmp(&line(b)).then_with(|| a.path.cmp(&b.path))
        });
    }

    /// Returns the mistakes.
    pub fn list(&self) -> &[Mistake] {
        &self.0
    }

    /// Returns the outcome: the mistakes, if there are any.
    pub(super) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_hides_those_that_follow_from_it() {
        let mut mistakes = Mistakes::none();
        mistakes.add("model.interest", "a");
        mistakes.add("model.interest.newest", "b");
        mistakes.add("model.interesting", "c");
        assert_eq!(mistakes.list().len(), 2);
    }
}
