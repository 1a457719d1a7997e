//! What differs between the lines of two identities, in words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sluice_features::words::shown;

/// The most differences that are told one by one.
const MOST: usize = 24;

/// What a line is about, and what it says of it.
type Parts = BTreeMap<String, Value>;

/// Returns what the lines of a checkpoint say otherwise than those of a configuration; empty when nothing does.
pub(super) fn told(checkpoint: &[String], configuration: &[String]) -> String {
    let (theirs, ours) = (parts(checkpoint), parts(configuration));
    let only = |these: &Parts, those: &Parts, place: &str| {
        let names: Vec<&str> =
            these.keys().filter(|name| !those.contains_key(*name)).map(String::as_str).collect();
        (!names.is_empty()).then(|| format!("only in the {place}: {}", few(&names, ", ")))
    };
    let mut differences: Vec<String> = Vec::new();
    for (name, was) in &theirs {
        if let Some(is) = ours.get(name) {
            compare(name, was, is, &mut differences);
        }
    }
    let differences: Vec<&str> = differences.iter().map(String::as_str).collect();
    let changed = (!differences.is_empty()).then(|| few(&differences, "; "));
    let parts =
        [only(&theirs, &ours, "checkpoint"), only(&ours, &theirs, "configuration"), changed];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn few(all: &[&str], between: &str) -> String {
    let told = all[..all.len().min(MOST)].join(between);
    match all.len().saturating_sub(MOST) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

/// Takes lines apart: `field {"name":"price",...}` is about the field `price`, `counter {...}` about the counter of its number.
fn parts(lines: &[String]) -> Parts {
    let mut parts = Parts::new();
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        let json = line.find(['{', '[']).and_then(|place| {
            let value: Value = serde_json::from_str(&line[place..]).ok()?;
            Some((line[..place].trim_end(), value))
        });
        let (name, value) = match json {
            Some((what, mut value)) => match value.get_mut("name").map(Value::take) {
                Some(Value::String(name)) => (format!("{what} {name}"), value),
                _ if matches!(what, "counter" | "look") => {
                    let number = numbers.entry(what).or_insert(0);
                    *number += 1;
                    (format!("{what} {number}"), value)
                }
                _ => (what.to_owned(), value),
            },
            None => match line.strip_prefix("task ").and_then(|task| task.split_once(' ')) {
                Some((name, rest)) => (format!("task {name}"), Value::String(rest.to_owned())),
                None => (line.clone(), Value::Null),
            },
        };
        parts.insert(name, value);
    }
    parts
}

/// Adds what differs between two values of one name.
fn compare(name: &str, was: &Value, is: &Value, differences: &mut Vec<String>) {
    if was == is {
        return;
    }
    if let (Value::Object(was), Value::Object(is)) = (was, is) {
        let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        for key in keys {
            let of = |object: &serde_json::Map<String, Value>| object.get(key).cloned();
            let (was, is) = (of(was).unwrap_or_default(), of(is).unwrap_or_default());
            compare(&format!("{name}, {key}"), &was, &is, differences);
        }
        return;
    }
    let (was, is) = (text(was), text(is));
    differences.push(format!("{name}: was {was}, is {is}"));
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => shown(text),
        value => shown(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| String::from(*line)).collect()
    }

    #[test]
    fn fields_tables_tasks_and_widths_are_told_by_their_names() {
        let old = lines(&[
            r#"task click below impression, labels "fnw""#,
            r#"task buy below click, labels "fnw""#,
            r#"field {"name":"price","kind":{"number":{"scale":1.0,"shift":0.0}},"table":0}"#,
            r#"field {"name":"brand","kind":"category","table":3}"#,
            r#"table {"name":"item","width":8}"#,
            r#"counter {"task":0,"half_life":60}"#,
            r#"model model {"sharing":{"ple":{"experts":2}}}"#,
        ]);
        let new = lines(&[
            r#"task click below impression, labels "wait""#,
            r#"field {"name":"price","kind":{"log":{"scale":1.0,"shift":0.0}},"table":0}"#,
            r#"field {"name":"colour","kind":"category","table":3}"#,
            r#"table {"name":"item","width":16}"#,
            r#"counter {"task":0,"half_life":90}"#,
            r#"model model {"sharing":{"ple":{"experts":4}}}"#,
        ]);
        assert_eq!(told(&old, &old), "");
        assert_eq!(
            told(&old, &new),
            "only in the checkpoint: field brand, task buy; only in the configuration: field colour; \
             counter 1, half_life: was 60, is 90; \
             field price, kind, log: was nothing, is {\"scale\":1.0,\"shift\":0.0}; \
             field price, kind, number: was {\"scale\":1.0,\"shift\":0.0}, is nothing; \
             model model, sharing, ple, experts: was 2, is 4; table item, width: was 8, is 16; \
             task click: was below impression, labels \"fnw\", is below impression, labels \"wait\""
        );
    }

    #[test]
    fn of_many_differences_some_are_told() {
        let old: Vec<String> = (0..100).map(|i| format!("field {i}")).collect();
        let said = told(&old, &[]);
        assert!(said.len() < 400 && said.ends_with(" and 76 more"), "{said}");
    }
}
