//! Checks of single values.

use std::fmt::Display;
use std::ops::RangeInclusive;

use sluice_features::words::{listed, nearest};

use super::mistake::Mistakes;

/// Returns the value of a name among choices; an unknown name is a mistake, and the nearest known one is suggested.
pub(super) fn one_of<T: Copy>(
    m: &mut Mistakes,
    path: &str,
    text: &str,
    choices: &[(&str, T)],
) -> Option<T> {
    let found = choices.iter().find(|(name, _)| *name == text);
    if found.is_none() {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let hint = nearest(text, names.iter().copied())
            .map(|name| format!(": did you mean {name}?"))
            .unwrap_or_default();
        m.add(path, format!("expected {}, found \"{text}\"{hint}", listed(&names)));
    }
    found.map(|(_, value)| *value)
}

/// Returns the value; one out of its range is a mistake.
pub(super) fn within<N: PartialOrd + Display + Copy>(
    m: &mut Mistakes,
    path: &str,
    value: N,
    range: RangeInclusive<N>,
) -> N {
    if !range.contains(&value) {
        m.add(path, format!("expected {} to {}, found {value}", range.start(), range.end()));
    }
    value
}
