//! Lines that a run did not take: how many, why, and which.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

/// So many are described one by one.
const DESCRIBED: usize = 5;

/// Counts what was not taken.
#[derive(Clone, Debug, Default)]
pub struct Untaken {
    by_reason: BTreeMap<String, Reason>,
    described: Vec<String>,
    count: u64,
}

#[derive(Clone, Debug)]
struct Reason {
    count: u64,
    /// The first of them: its place, and what is wrong with it.
    example: String,
}

impl Untaken {
    /// Counts a line under a reason, of which there are few. Says whether it is one of the first, which are described.
    pub fn add(&mut self, reason: &str, describe: impl Fn() -> String) -> bool {
        self.count += 1;
        if let Some(known) = self.by_reason.get_mut(reason) {
            known.count += 1;
        } else {
            let first = Reason { count: 1, example: describe() };
            self.by_reason.insert(reason.to_owned(), first);
        }
        let is_described = self.described.len() < DESCRIBED;
        if is_described {
            self.described.push(describe());
        }
        is_described
    }

    /// Returns how many were not taken.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the places of the first, and what is wrong with them.
    pub fn described(&self) -> &[String] {
        &self.described
    }

    /// Returns the reasons with their numbers.
    pub fn reasons(&self) -> impl Iterator<Item = (&str, u64)> {
        self.by_reason.iter().map(|(reason, known)| (reason.as_str(), known.count))
    }

    /// Says how many of `all` were not taken, and why most of them, where there are any. `fate` is what became of them.
    pub fn summary(&self, fate: &str, all: u64) -> Option<String> {
        let (reason, most) = self.by_reason.iter().max_by_key(|(_, known)| known.count)?;
        Some(format!(
            "{} of {all} {fate}: most of them ({}) for the reason {reason:?}, such as {}",
            self.count, most.count, most.example
        ))
    }

    /// Refuses a run that did not take more than half of what it read.
    ///
    /// # Errors
    /// Says how many of how many.
    pub fn ensure_few(&self, fate: &str, all: u64) -> Result<()> {
        let share = if self.count == all { "all" } else { "more than half" };
        ensure!(self.count <= all / 2, "{share} of the {all} {fate}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commonest_reason_is_told_with_its_first_example_and_more_than_half_is_an_error() {
        let mut untaken = Untaken::default();
        assert_eq!(untaken.summary("lines were refused", 10), None);
        for line in 1..=20 {
            let reason = if line % 3 == 0 { "rare" } else { "usual" };
            let described = untaken.add(reason, || format!("f:{line}: bad"));
            assert_eq!(described, line <= DESCRIBED);
        }
        let told = untaken.summary("lines were refused", 40).unwrap();
        let expected = "20 of 40 lines were refused: most of them (14) for the reason \"usual\", such as f:1: bad";
        assert_eq!(told, expected);
        assert!(untaken.ensure_few("lines were refused", 40).is_ok());
        let error = |all| untaken.ensure_few("lines were refused", all).unwrap_err().to_string();
        assert_eq!(error(39), "more than half of the 39 lines were refused");
        assert_eq!(error(20), "all of the 20 lines were refused");
    }
}
