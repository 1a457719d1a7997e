//! The layers of a configuration: the built-in reference, the file, the environment; the later one wins key by key.
//!
//! ```text
//! reference.toml ─┐
//! file           ─┼─▶ one tree ─▶ file::Config, every value that does not fit reset to the reference's and noted
//! SLUICE__A__B   ─┘
//! ```

use serde_path_to_error::Segment;
use sluice_features::words::{listed, nearest};
use toml::{Table, Value};

use super::file;
use super::mistake::Mistakes;

/// The reference file: every key with its default, unit and meaning.
pub const REFERENCE: &str = include_str!("../../config/reference.toml");

/// What the names of environment variables begin with that stand for keys.
pub const PREFIX: &str = "SLUICE__";

/// Puts the layers over each other and reads the outcome, noting everything that does not fit.
pub(super) fn read(
    file: &str,
    environment: &[(String, String)],
    mistakes: &mut Mistakes,
) -> file::Config {
    let reference: Table = REFERENCE.parse().unwrap_or_default();
    let mut tree = reference.clone();
    merge(&mut tree, parse(file, mistakes));
    let mut above = Table::new();
    for (name, text) in environment.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        let path: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_lowercase).collect();
        set(&mut above, &tree, &path, text);
    }
    merge(&mut tree, above);
    loop {
        let error = match serde_path_to_error::deserialize(Value::Table(tree.clone())) {
            Ok(config) => return config,
            Err(error) => error,
        };
        let mut path: Vec<String> = error.path().iter().filter_map(segment).collect();
        let problem = error.inner().message().to_owned();
        // Inside a section that is told by its name serde loses the path: the message still has the key, or its value.
        let inside = table_at(&tree, &path);
        let key = between(&problem, "unknown field `").or_else(|| {
            let value = Value::String(between(&problem, "unknown variant `")?);
            inside?.iter().find(|(_, found)| **found == value).map(|(key, _)| key.clone())
        });
        path.extend(key.filter(|key| inside.is_some_and(|inside| inside.contains_key(key))));
        mistakes.add(path.join("."), in_words(&problem));
        if !reset(&mut tree, &reference, &path) {
            // Nothing left to take away: what remains are the defaults.
            return file::Config::default();
        }
    }
}

/// Returns the line, counted from 1, at which a key stands in the file, or its nearest section that does.
pub(super) fn line_of(file: &str, path: &str) -> Option<usize> {
    use toml::de::{DeTable, DeValue};

    let (root, _) = DeTable::parse_recoverable(file);
    let mut found = None;
    let mut table = Some(root.get_ref());
    let mut list: Option<&toml::de::DeArray<'_>> = None;
    for key in keys(path) {
        let (span, value) = if let Some(inside) = table {
            let Some((name, value)) = inside.iter().find(|(name, _)| *name.get_ref() == key) else {
                break;
            };
            (name.span(), value)
        } else if let Some(value) = list.and_then(|list| list.get(key.parse::<usize>().ok()?)) {
            (value.span(), value)
        } else {
            break;
        };
        found = Some(file[..span.start.min(file.len())].matches('\n').count() + 1);
        (table, list) = match value.get_ref() {
            DeValue::Table(inside) => (Some(inside), None),
            DeValue::Array(inside) => (None, Some(inside)),
            _ => (None, None),
        };
    }
    found
}

/// Splits a path into its keys; the options of librdkafka under `kafka.extra` hold dots themselves.
fn keys(path: &str) -> Vec<String> {
    const EXTRA: &str = "kafka.extra.";
    match path.strip_prefix(EXTRA) {
        Some(option) => vec!["kafka".into(), "extra".into(), option.into()],
        None => path.split('.').map(String::from).collect(),
    }
}

fn parse(file: &str, mistakes: &mut Mistakes) -> Table {
    /// Another kind of file has one in every line.
    const TOLD: usize = 5;
    let (_, errors) = toml::de::DeTable::parse_recoverable(file);
    if errors.len() > TOLD {
        let more = errors.len() - TOLD;
        mistakes.add_at(None, format!("not TOML in {more} places more: is it another file?"));
    }
    for error in errors.iter().take(TOLD) {
        let line =
            error.span().map(|span| file[..span.start.min(file.len())].matches('\n').count() + 1);
        mistakes.add_at(line, format!("not TOML: {}", error.message().replace('\n', ", ")));
    }
    file.parse().unwrap_or_default()
}

/// Puts one table over another: tables key by key, everything else as a whole. A table with another `name` is another thing, to
/// which the keys below do not belong.
fn merge(below: &mut Table, above: Table) {
    if above.get("name").is_some_and(|name| below.get("name") != Some(name)) {
        below.clear();
    }
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// Sets a key from a text. Where `below` has a text for the key it is taken as it stands, otherwise as TOML.
fn set(above: &mut Table, below: &Table, path: &[String], text: &str) {
    let Some((key, sections)) = path.split_last() else { return };
    let mut table = above;
    for section in sections {
        let inside = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
        if !inside.is_table() {
            *inside = Value::Table(Table::new());
        }
        let Value::Table(inside) = inside else { return };
        table = inside;
    }
    let as_text = Value::String(text.into());
    let value = match table_at(below, sections).and_then(|table| table.get(key)) {
        Some(Value::String(_)) => as_text,
        _ => format!("value = {text}")
            .parse::<Table>()
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or(as_text),
    };
    table.insert(key.clone(), value);
}

/// Gives a key the reference's value, or removes it where the reference has none. Returns false when there is nothing to change.
fn reset(tree: &mut Table, reference: &Table, path: &[String]) -> bool {
    // A place inside a list has no reference: from the first number on, keys are only removed, and lists of plain values go whole.
    let mut depth = path.len();
    while depth > 0 && path[depth - 1].parse::<usize>().is_ok() {
        depth -= 1;
    }
    while depth > 0 {
        let (key, sections) = (&path[depth - 1], &path[..depth - 1]);
        let default = table_at(reference, sections).and_then(|table| table.get(key)).cloned();
        if let Some(table) = table_at_mut(tree, sections)
            && table.contains_key(key)
        {
            let changed = table.get(key) != default.as_ref();
            match default {
                Some(default) => table.insert(key.clone(), default),
                None => table.remove(key),
            };
            if changed {
                return true;
            }
        }
        depth -= 1;
    }
    false
}

fn table_at<'a>(tree: &'a Table, path: &[String]) -> Option<&'a Table> {
    let mut table = tree;
    for key in path {
        table = table.get(key)?.as_table()?;
    }
    Some(table)
}

fn table_at_mut<'a>(tree: &'a mut Table, path: &[String]) -> Option<&'a mut Table> {
    let (first, rest) = match path {
        [] => return Some(tree),
        [first, rest @ ..] => (first, rest),
    };
    match tree.get_mut(first)? {
        Value::Table(table) => table_at_mut(table, rest),
        Value::Array(list) => {
            let (place, rest) = rest.split_first()?;
            match list.get_mut(place.parse::<usize>().ok()?)? {
                Value::Table(table) => table_at_mut(table, rest),
                _ => None,
            }
        }
        _ => None,
    }
}

fn segment(segment: &Segment) -> Option<String> {
    match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

/// Returns what stands in serde's message between `before` and the next backtick.
fn between(problem: &str, before: &str) -> Option<String> {
    let rest = problem.strip_prefix(before)?;
    Some(rest.split('`').next().unwrap_or(rest).to_owned())
}

/// Puts serde's words into ours: what was expected, what was found, and the nearest known key.
fn in_words(problem: &str) -> String {
    let known: Vec<&str> = problem.split('`').skip(3).step_by(2).collect();
    if let Some(name) = between(problem, "unknown field `") {
        return match nearest(&name, known.iter().copied()) {
            Some(nearest) => format!("no such key: did you mean {nearest}?"),
            None if known.is_empty() => "no such key: remove it".into(),
            None => format!("no such key: expected one of {}", known.join(", ")),
        };
    }
    if let Some(name) = between(problem, "unknown variant `") {
        return format!("expected {}, found \"{name}\"", listed(&known));
    }
    let rest =
        ["invalid type: ", "invalid value: "].iter().find_map(|begin| problem.strip_prefix(begin));
    let Some((found, expected)) = rest.and_then(|rest| rest.split_once(", expected ")) else {
        return problem.replace('`', "\"");
    };
    let expected = match expected {
        "u8" => "a whole number from 0 to 255",
        "u32" | "u64" | "usize" => "a whole number of 0 or more",
        "f64" => "a number",
        "a string" => "a text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        other => other,
    };
    format!("expected {expected}, found {}", found.replace('`', ""))
}
