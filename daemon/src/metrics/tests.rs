//! The catalogue against what is registered and what is documented.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn metrics() -> Metrics {
    let one = |word: &str| vec![word.to_owned()];
    Metrics::new(&LabelSets {
        topics: one("events"),
        types: vec!["impression".into(), "click".into()],
        reasons: one("invalid-json"),
        needs: one("price"),
        fields: one("surface"),
        tasks: one("click"),
        kinds: one("rank"),
        outcomes: vec!["answered".into(), "late".into()],
        outputs: one("responses"),
        causes: one("no-right"),
        gaps: one("deleted"),
    })
}

#[test]
fn what_is_registered_is_what_the_catalogue_says() {
    let metrics = metrics();
    metrics.lag("events", 3).set(7.0);
    let histograms = [
        &metrics.learn.step_seconds,
        &metrics.learn.freshness_seconds,
        &metrics.serve.seconds[0],
        &metrics.checkpoint.seconds,
        &metrics.checkpoint.pause_seconds,
    ];
    histograms.iter().for_each(|histogram| histogram.record(0.02));
    let text = metrics.render();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let kinds: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, labels) = line.split_once('{').unwrap_or((line.split(' ').next().unwrap(), ""));
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|end| name.strip_suffix(end))
            .find(|name| kinds.get(name) == Some(&"histogram"))
            .unwrap_or(name);
        let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
        let names =
            labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name);
        found
            .entry(name.into())
            .or_default()
            .extend(names.filter(|name| *name != "le").map(String::from));
    }
    let expected: BTreeMap<String, BTreeSet<String>> = ALL
        .iter()
        .map(|metric| {
            (metric.name.into(), metric.labels.iter().map(|label| String::from(*label)).collect())
        })
        .collect();
    assert_eq!(found, expected);
    for metric in ALL {
        assert_eq!(kinds[metric.name], metric.kind.name(), "{}", metric.name);
        assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)));
        assert_eq!(
            metric.kind == Kind::Counter,
            metric.name.ends_with("_total"),
            "{}",
            metric.name
        );
        assert!(
            metric.kind != Kind::Histogram || metric.name.ends_with("_seconds"),
            "{}",
            metric.name
        );
    }
}

#[test]
fn the_documentation_has_the_catalogue() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("the documentation is there");
    let table = as_markdown();
    let begin = readme.find("| metric | kind").expect("the documentation has the table");
    let rows = readme[begin..].lines().take_while(|line| line.starts_with('|'));
    let length: usize = rows.map(|row| row.len() + 1).sum();
    if std::env::var_os("APPROVE").is_some() {
        let (before, after) = (&readme[..begin], &readme[begin + length..]);
        std::fs::write(path, format!("{before}{table}{after}")).expect("the file can be written");
    } else {
        let found = &readme[begin..begin + length];
        assert_eq!(found, table, "APPROVE=1 writes the table of daemon/README.md anew");
    }
}

#[test]
fn two_daemons_do_not_share_counts() {
    let (a, b) = (metrics(), metrics());
    a.learn.examples.increment(3);
    b.learn.examples.absolute(5);
    a.fold();
    assert!(a.render().contains("sluice_learn_examples_total 3\n"));
    assert!(b.render().contains("sluice_learn_examples_total 5\n"));
}
