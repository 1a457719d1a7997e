use sluice_features::funnel::{LabelRule, Task};
use sluice_features::time::Span;

use super::*;

fn funnel(entry: Entry, entry_name: &str, tasks: &[(&str, Option<usize>)]) -> Funnel {
    let task = |&(name, parent): &(&str, _)| Task {
        name: name.to_owned(),
        parent,
        window: Span::ZERO,
        labels: LabelRule::Wait,
    };
    Funnel::build(entry, entry_name, tasks.iter().map(task).collect(), vec![]).unwrap()
}

/// Click, then cart, then purchase; a like after the click, a share beside it.
fn shown() -> Funnel {
    let tasks = [
        ("click", None),
        ("add", Some(0)),
        ("add-to-cart", Some(1)),
        ("like", Some(0)),
        ("share", None),
    ];
    funnel(Entry::Impression, "impression", &tasks)
}

/// A view; a cart, then a purchase; a favourite.
fn viewed() -> Funnel {
    let tasks = [("view", None), ("cart", None), ("purchase", Some(1)), ("favourite", None)];
    funnel(Entry::View { negatives: 4 }, "view", &tasks)
}

fn value(text: &str) -> f32 {
    Expression::parse(text, &shown()).unwrap().value(&[0.5, 0.25, 0.125, 0.0, 0.75])
}

fn mistake(text: &str, funnel: &Funnel) -> (usize, String) {
    let error = Expression::parse(text, funnel).unwrap_err();
    (error.column, error.problem)
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
#[expect(clippy::float_cmp, reason = "the numbers are exact in binary")]
fn a_condition_binds_tightest() {
    assert_eq!(value("p.add|click"), 0.5);
    assert_eq!(value("p.add-to-cart|click"), 0.25);
    assert_eq!(value("p.add-to-cart | add"), 0.5);
    assert_eq!(value("-p.add| click * 8 / p.add-to-cart |add + 1"), -7.0);
    assert_eq!(value("p.like|click"), 0.0);
}

#[test]
#[expect(clippy::float_cmp, reason = "the bounds are exact in binary")]
fn what_follows_a_condition_is_a_probability_whatever_the_model_says() {
    let of = |text: &str, p: [f32; 4]| Expression::parse(text, &viewed()).unwrap().value(&p);
    assert_eq!(of("p.purchase|cart", [0.5, 0.25, 0.125, 0.5]), 0.5);
    assert_eq!(of("p.purchase|view", [0.5, 0.25, 0.125, 0.5]), 0.25);
    assert_eq!(of("p.purchase|cart", [0.5, 0.25, 0.5, 0.5]), 1.0, "heads that disagree");
    assert_eq!(of("p.purchase|cart", [0.5, 0.0, 0.0, 0.5]), 0.0, "nothing of nothing");
    assert_eq!(of("p.purchase|cart", [0.5, 0.0, 0.25, 0.5]), 1.0);
    assert_eq!(of("p.purchase|cart", [0.5, 1e-45, 0.25, 0.5]), 1.0);
}

#[test]
#[expect(clippy::float_cmp, reason = "the lowest score is one number")]
fn a_value_without_a_number_is_the_lowest_score() {
    assert_eq!(value("1 / (p.click - 0.5)"), f32::MIN);
    assert_eq!(value("0 / 0"), f32::MIN);
}

#[test]
fn mistakes_have_their_column() {
    let column = |text: &str| mistake(text, &shown()).0;
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
fn a_condition_is_what_comes_before() {
    let told = [
        ("p.add-to-cart|like", 15, "before \"add-to-cart\": click or add, found \"like\""),
        ("p.add-to-cart | p.add", 17, "before \"add-to-cart\": click or add, found \"p.add\""),
        ("2 * p.add|add", 11, "before \"add\": click, found \"add\""),
        ("p.add|impression", 7, "before \"add\": click, found \"impression\""),
        ("p.add|", 7, "before \"add\": click, found nothing"),
        ("p.add|(p.click)", 7, "before \"add\": click, found nothing"),
        ("p.click|impression", 9, "nothing comes before \"click\": expected p.click alone"),
        ("(p.add + p.like)|click", 17, "expected + - * / or the end, found \"|\""),
        ("p.add|click|click", 12, "expected + - * / or the end, found \"|\""),
    ];
    for (text, column, problem) in told {
        let found = mistake(text, &shown());
        assert!(found.0 == column && found.1.contains(problem), "{text}: {found:?}");
    }
    let told = [
        ("p.purchase|favourite", 12, "before \"purchase\": view or cart, found \"favourite\""),
        ("p.cart|purchase", 8, "before \"cart\": view, found \"purchase\""),
        ("p.view|view", 8, "nothing comes before \"view\": expected p.view alone"),
    ];
    for (text, column, problem) in told {
        let found = mistake(text, &viewed());
        assert!(found.0 == column && found.1.contains(problem), "{text}: {found:?}");
    }
}

#[test]
fn a_deep_expression_is_refused_and_a_long_one_is_not() {
    let deep = (0..40).fold(String::from("1"), |inner, _| format!("1 + ({inner})"));
    assert!(Expression::parse(&deep, &shown()).is_err());
    assert!(Expression::parse(&["1"; 1000].join(" + "), &shown()).is_ok());
    assert!(Expression::parse(&["p.add|click"; 1000].join(" + "), &shown()).is_ok());
}
