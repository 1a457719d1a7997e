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
    Expression::parse(text, &shown()).unwrap().value(&[0.5, 0.25, 0.125, 0.0, 0.75]).unwrap()
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
    assert_eq!(value("8 / 2 / 2 - 3 - 2 + p.click"), -2.5);
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
    let of =
        |text: &str, p: [f32; 4]| Expression::parse(text, &viewed()).unwrap().value(&p).unwrap();
    assert_eq!(of("p.purchase|cart", [0.5, 0.25, 0.125, 0.5]), 0.5);
    assert_eq!(of("p.purchase|view", [0.5, 0.25, 0.125, 0.5]), 0.25);
    assert_eq!(of("p.purchase|cart", [0.5, 0.25, 0.5, 0.5]), 1.0, "heads that disagree");
    assert_eq!(of("p.purchase|cart", [0.5, 0.0, 0.0, 0.5]), 0.0, "nothing of nothing");
    assert_eq!(of("p.purchase|cart", [0.5, 0.0, 0.25, 0.5]), 1.0);
    assert_eq!(of("p.purchase|cart", [0.5, 1e-45, 0.25, 0.5]), 1.0);
}

#[test]
fn a_value_that_is_not_finite_is_none() {
    let of = |text: &str, p: [f32; 4]| Expression::parse(text, &viewed()).unwrap().value(&p);
    assert_eq!(of("p.cart / p.favourite", [0.5, 0.25, 0.0, 0.5]), Some(0.5));
    assert_eq!(of("p.cart / p.favourite", [0.5, 0.25, 0.0, 0.0]), None);
    assert_eq!(of("p.cart / p.favourite", [0.5, 0.0, 0.0, 0.0]), None);
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
    let deep = (0..40).fold(String::from("p.add"), |inner, _| format!("1 + ({inner})"));
    assert!(Expression::parse(&deep, &shown()).is_err());
    assert!(Expression::parse(&["p.add"; 1000].join(" + "), &shown()).is_ok());
    assert!(Expression::parse(&["p.add|click"; 1000].join(" + "), &shown()).is_ok());
}

/// Expressions that order something and add up.
#[test]
fn what_makes_sense_is_taken() {
    for text in [
        "p.view",
        "-p.view",
        "p.cart|view",
        "p.view + 5 * p.cart + 20 * p.purchase",
        "p.view * (1 + 5 * p.cart|view + 20 * p.purchase|view)",
        "p.view * (1 + 5 * p.cart|view * (1 + 4 * p.purchase|cart))",
        "p.view * (1 + 5 * p.cart|view) + 20 * p.purchase",
        "p.view * p.cart|view * p.purchase|cart + p.favourite",
        "p.purchase|cart * p.cart|view * p.view - p.favourite / 2",
        "p.cart|view * (1 + 4 * p.purchase|cart) + p.favourite|view",
        "p.cart|view + 20 * p.purchase|view - 0.5",
        "1 - p.cart|view + p.favourite|view",
        "p.cart / p.view + p.favourite|view",
        "p.purchase|view / p.cart|view + p.purchase|cart",
        "p.cart + p.favourite - p.cart * p.favourite / p.view",
        "p.cart + p.favourite - p.cart * p.favourite",
        "2 * p.cart * p.favourite / (p.cart + p.favourite) + p.purchase",
        "p.view / (1 - p.view) + p.cart",
        "p.cart|view / (1.01 - p.cart|view) + p.favourite|view",
        "p.purchase / (p.cart + 0.001)",
        "p.cart|view + p.favourite / (p.view + 0.001)",
        "p.view + p.cart / (1 + p.view)",
        "p.view + p.cart / (0.5 + p.view)",
        "p.purchase / (p.view - p.purchase)",
        "p.purchase / p.view / p.cart",
        "(1 + p.view) * (1 + 20 * p.purchase|view)",
        "(p.view + 0.001) * (1 + 5 * p.cart|view)",
        "p.view * p.cart|view * p.favourite|view + p.cart",
        "p.purchase * 1000000 + p.view",
        "1 / (1 + p.view) - p.cart",
        "100 / p.purchase",
        "p.view * p.view / p.view + p.cart",
    ] {
        let parsed = Expression::parse(text, &viewed());
        assert!(parsed.is_ok(), "{text}: {parsed:?}");
    }
    for text in [
        "p.click + 20 * p.add + p.like + p.share",
        "p.click + p.click * p.add|click",
        "p.click * (1 + p.like|click + p.add|click * p.add-to-cart|add)",
        "(1 - p.click) * p.share + p.click",
        "p.click + p.share - p.click * p.share",
        "(p.click * p.share) * (p.like|click + p.add|click)",
    ] {
        let parsed = Expression::parse(text, &shown());
        assert!(parsed.is_ok(), "{text}: {parsed:?}");
    }
}

#[test]
fn what_orders_nothing_or_has_no_value_is_refused_with_place_and_remedy() {
    for (text, column, problem) in [
        ("1", 1, "names no probability, so it orders nothing: expected one such as p.view"),
        ("1/0", 1, "names no probability"),
        ("20 * (3 - 2)", 1, "names no probability"),
        ("p.view - p.view", 1, "is the same whatever the probabilities are"),
        ("0 * p.cart", 1, "is the same"),
        ("p.view / p.view", 1, "is the same"),
        ("p.purchase|view - p.purchase / p.view", 1, "is the same"),
        ("p.view * p.cart|view - p.cart", 1, "is the same"),
        ("p.view + p.cart - p.cart - p.view", 1, "is the same"),
        ("1000000000 + p.view", 1, "is the same"),
        ("1/(p.view-p.view)", 3, "divides by \"(p.view-p.view)\", which can be 0: expected what"),
        ("p.view / 0", 10, "divides by \"0\""),
        ("p.cart + p.view / (p.view - 0.5)", 19, "divides by \"(p.view - 0.5)\""),
        ("p.cart / (p.view * (p.cart - p.favourite))", 10, "which can be 0"),
        ("p.view / (-p.cart + p.favourite)", 10, "which can be 0"),
        (&format!("{0} * p.view / p.purchase * {0}", "9".repeat(36)), 1, "becomes too large"),
    ] {
        let found = mistake(text, &viewed());
        assert!(found.0 == column && found.1.contains(problem), "{text}: {found:?}");
    }
}

#[test]
fn a_sum_of_what_is_on_the_item_and_what_is_given_something_is_refused() {
    for (text, column, problem) in [
        (
            "p.view + 5 * p.cart|view",
            10,
            "\"5 * p.cart|view\" is given view and \"p.view\" is on the item, which do not add up: expected \
             p.view * (1 + 5 * p.cart|view) or p.view + 5 * p.cart",
        ),
        (
            "5 * p.cart | view + p.view",
            21,
            "expected p.view * (5 * p.cart | view + 1) or 5 * p.cart + p.view",
        ),
        ("p.view - p.cart|view", 10, "expected p.view * (1 - p.cart|view) or p.view - p.cart"),
        ("2 * p.view + 5 * p.cart|view", 14, "expected 2 * p.view + 5 * p.cart"),
        ("p.favourite + 5 * p.cart|view", 15, "expected p.favourite + 5 * p.cart"),
        (
            "p.view + p.cart + 5 * (p.favourite|view + p.purchase|view)",
            19,
            "expected p.view + p.cart + 5 * (p.favourite + p.purchase)",
        ),
        (
            "p.cart|view + 4 * p.purchase|cart",
            15,
            "is given cart and \"p.cart|view\" is given view, which do not add up: expected \
             p.cart|view * (1 + 4 * p.purchase|cart) or p.cart + 4 * p.purchase",
        ),
        ("2 * (p.view + 0.5 * p.cart|view)", 15, "p.view * (1 + 0.5 * p.cart|view)"),
        ("p.view + (1 - p.cart|view)", 10, "is given view and \"p.view\" is on the item"),
        ("(1 - p.view) + p.cart|view", 16, "is given view and \"(1 - p.view)\" is on the item"),
        ("1 - p.view + p.cart|view", 14, "expected 1 - p.view + p.cart"),
        (
            "p.cart + p.purchase / p.view",
            10,
            "expected terms that are all on the item or all given the same task; p.A * p.B|A is on",
        ),
        ("p.view + p.cart / p.view", 10, "expected p.view * (1 + p.cart / p.view)"),
        ("p.view + 5 * p.cart / (p.view + 0.000001)", 10, "is given view"),
        ("p.view + p.cart / (p.view * 1 + 0)", 10, "is given view"),
        ("p.view + p.cart / (1 - (1 - p.view))", 10, "is given view"),
        ("p.view + p.cart / (p.cart + p.favourite)", 10, "is divided by a sum"),
        ("p.cart + p.purchase|cart * (1 + p.favourite|view)", 10, "is given view and cart"),
        ("p.view + 1 / p.cart", 10, "is given cart"),
        ("(p.view + 0.001) * p.cart|view + p.cart", 34, "is on the item and"),
    ] {
        let found = mistake(text, &viewed());
        assert!(found.0 == column && found.1.contains(problem), "{text}: {found:?}");
    }
}

/// Whatever is advised is taken.
#[test]
fn what_is_advised_is_right() {
    let advised = |text: &str| -> Vec<String> {
        let (_, problem) = mistake(text, &viewed());
        let (_, advice) = problem.split_once(" do not add up: expected ").unwrap();
        advice.split(" or ").map(str::to_owned).collect()
    };
    for text in [
        "p.view + 5 * p.cart|view",
        "p.cart|view + p.purchase|cart",
        "p.purchase | view * 2 - p.view",
        "p.favourite + p.view * (2 + p.cart|view) - 3 * p.purchase|cart",
    ] {
        for advice in advised(text) {
            assert!(Expression::parse(&advice, &viewed()).is_ok(), "{text}: {advice}");
        }
    }
}
