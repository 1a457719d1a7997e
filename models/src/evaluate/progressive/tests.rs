//! The judge is a textbook version over the list of all judgements.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::*;
use crate::evaluate::grouped::sorted_auc;
use crate::evaluate::{Figures, Period};

const DAY: i64 = 24 * 3600 * 1000;

/// The figures by their definitions: exact ranks, sums in double precision.
fn textbook(judged: &[Judgement]) -> Figures {
    let n = judged.len() as f64;
    let positives = judged.iter().filter(|j| j.label).count();
    let both = positives > 0 && positives < judged.len();
    let loss = |j: &Judgement| {
        let p = f64::from(j.probability).clamp(1e-7, 1.0 - 1e-7);
        if j.label { -p.ln() } else { -(1.0 - p).ln() }
    };
    let log_loss = judged.iter().map(loss).sum::<f64>() / n;
    let rate = positives as f64 / n;
    let entropy = -rate * rate.ln() - (1.0 - rate) * (1.0 - rate).ln();
    let predicted: f64 = judged.iter().map(|j| f64::from(j.probability)).sum();
    Figures {
        examples: judged.len() as u64,
        positives: positives as u64,
        auc: rank_auc(judged),
        log_loss: (!judged.is_empty()).then_some(log_loss),
        normalised_entropy: both.then(|| log_loss / entropy),
        calibration: (positives > 0).then(|| predicted / positives as f64),
        grouped_auc: grouped(judged),
    }
}

/// The share of pairs in the right order.
fn rank_auc(judged: &[Judgement]) -> Option<f64> {
    let mut entries: Vec<_> = judged
        .iter()
        .map(|j| Entry {
            at: j.at,
            group: 0,
            probability: j.probability,
            label: j.label,
            new_item: false,
        })
        .collect();
    entries.sort_by(|a, b| a.probability.total_cmp(&b.probability));
    sorted_auc(&entries)
}

fn grouped(judged: &[Judgement]) -> Option<f64> {
    let mut users: BTreeMap<u64, Vec<Judgement>> = BTreeMap::new();
    judged.iter().for_each(|j| users.entry(j.group).or_default().push(*j));
    let scored = users.values().filter_map(|u| Some((u.len() as f64, pairs_auc(u)?)));
    let (sum, weight) = scored.fold((0.0, 0.0), |(s, w), (n, auc)| (s + n * auc, w + n));
    (weight > 0.0).then(|| sum / weight)
}

/// AUC by looking at every pair.
fn pairs_auc(judged: &[Judgement]) -> Option<f64> {
    let (mut won, mut pairs) = (0.0, 0.0);
    for yes in judged.iter().filter(|j| j.label) {
        for no in judged.iter().filter(|j| !j.label) {
            pairs += 1.0;
            if yes.probability > no.probability {
                won += 1.0;
            } else if yes.probability.total_cmp(&no.probability).is_eq() {
                won += 0.5;
            }
        }
    }
    (pairs > 0.0).then(|| won / pairs)
}

#[track_caller]
fn assert_close(found: &Figures, expected: &Figures) {
    let close = |name: &str, found: Option<f64>, expected: Option<f64>, tolerance: f64| {
        let fits = match (found, expected) {
            (Some(a), Some(b)) => (a - b).abs() <= tolerance,
            (None, None) => true,
            _ => false,
        };
        assert!(fits, "{name}: found {found:?}, expected {expected:?}");
    };
    assert_eq!((found.examples, found.positives), (expected.examples, expected.positives));
    close("auc", found.auc, expected.auc, 1e-4);
    close("log loss", found.log_loss, expected.log_loss, 1e-9);
    close("entropy", found.normalised_entropy, expected.normalised_entropy, 1e-9);
    close("calibration", found.calibration, expected.calibration, 1e-9);
    close("grouped auc", found.grouped_auc, expected.grouped_auc, 1e-12);
}

#[track_caller]
fn assert_task(found: &TaskFigures, judged: &[Judgement]) {
    let (new, warm): (Vec<_>, Vec<_>) = judged.iter().partition(|j| j.new_item);
    assert_close(&found.all, &textbook(judged));
    assert_close(&found.warm, &textbook(&warm));
    assert_close(&found.new, &textbook(&new));
}

/// A calibrated stream over five days: users with own rates, 300 of them; `round` makes ties.
fn stream(seed: u64, count: usize, base: f64, round: Option<f32>) -> Vec<Judgement> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|i| {
            let normal: f64 = StandardNormal.sample(&mut random);
            let probability = 1.0 / (1.0 + (-(base + 1.2 * normal)).exp());
            let label = random.random_bool(probability);
            let probability =
                round.map_or(probability as f32, |r| (probability as f32 * r).round() / r);
            Judgement {
                label,
                probability,
                at: EventTime(5 * DAY * i as i64 / count as i64),
                group: random.random_range(0..300),
                new_item: random.random_bool(0.2),
            }
        })
        .collect()
}

fn recorded(judged: &[Judgement], settings: Settings) -> Progressive {
    let mut progressive = Progressive::new(&["click"], settings);
    judged.iter().for_each(|j| progressive.record(0, j));
    progressive
}

#[test]
fn four_examples_computed_by_hand() {
    let judged: Vec<_> = [(0.1, false), (0.4, false), (0.35, true), (0.8, true)]
        .into_iter()
        .map(|(probability, label)| Judgement {
            label,
            probability,
            at: EventTime(0),
            group: 7,
            new_item: false,
        })
        .collect();
    let all = recorded(&judged, Settings::default()).whole(0).all;
    assert_eq!((all.examples, all.positives), (4, 2));
    assert_eq!((all.auc, all.grouped_auc), (Some(0.75), Some(0.75)));
    // -(ln 0.9 + ln 0.6 + ln 0.35 + ln 0.8) / 4, over ln 2; (0.1 + 0.4 + 0.35 + 0.8) / 2
    assert!((all.log_loss.unwrap() - 0.472_287_95).abs() < 1e-7);
    assert!((all.normalised_entropy.unwrap() - 0.681_367_48).abs() < 1e-7);
    assert!((all.calibration.unwrap() - 0.825).abs() < 1e-7);
}

#[test]
fn all_figures_are_those_of_the_textbook() {
    for (seed, base, round) in
        [(1, -2.0, None), (2, 0.3, None), (3, -5.0, None), (4, -1.0, Some(50.0))]
    {
        let judged = stream(seed, 40_000, base, round);
        let progressive = recorded(&judged, Settings::default());
        assert_task(&progressive.whole(0), &judged);
        let calibration = progressive.whole(0).all.calibration.unwrap();
        assert!((calibration - 1.0).abs() < 0.1, "the stream is calibrated, not {calibration}");
    }
}

#[test]
fn windows_are_the_figures_of_their_days_open_or_closed() {
    let judged = stream(5, 20_000, -1.0, None);
    for open_windows in [1, 3, 10] {
        let progressive = recorded(&judged, Settings { open_windows, ..Settings::default() });
        let windows = progressive.windows();
        assert_eq!(windows.len(), 5);
        for (day, window) in windows.iter().enumerate() {
            assert_eq!(window.start, EventTime(day as i64 * DAY));
            assert_eq!(window.end, EventTime((day as i64 + 1) * DAY));
            let of_day = |j: &&Judgement| (window.start..window.end).contains(&j.at);
            let judged: Vec<_> = judged.iter().filter(of_day).copied().collect();
            assert_task(window.tasks.task("click").unwrap(), &judged);
        }
        assert_eq!(progressive.late(0), 0);
    }
}

#[test]
fn a_late_label_counts_in_its_own_window_while_that_is_open() {
    let mut judged = stream(6, 5_000, -1.0, None);
    judged.rotate_left(1_000); // the first day comes last
    let open = recorded(&judged, Settings::default());
    assert_eq!(open.late(0), 0);
    assert_eq!(open.windows()[0].tasks.task("click").unwrap().all.examples, 1_000);

    let closed = recorded(&judged, Settings { open_windows: 2, ..Settings::default() });
    assert_eq!(closed.late(0), 1_000);
    assert_eq!(closed.windows().len(), 4);
    assert_task(&closed.whole(0), &judged);
}

#[test]
fn each_task_has_its_own_newest_time() {
    let settings = Settings { open_windows: 2, ..Settings::default() };
    let mut progressive = Progressive::new(&["click", "purchase"], settings);
    let at = |day: i64| Judgement {
        label: true,
        probability: 0.5,
        at: EventTime(day * DAY),
        group: 1,
        new_item: false,
    };
    progressive.record(0, &at(8));
    progressive.record(1, &at(1));
    assert_eq!((progressive.late(0), progressive.late(1)), (0, 0));
    let windows = progressive.windows();
    let counts: Vec<_> = windows
        .iter()
        .map(|w| w.tasks.0.iter().map(|t| t.1.all.examples).collect::<Vec<_>>())
        .collect();
    assert_eq!(counts, [[0, 1], [1, 0]]);
    assert_eq!(progressive.sliding(1).all.examples, 1);
}

#[test]
fn the_number_of_windows_is_bounded() {
    let settings = Settings {
        window: Span::seconds(60),
        closed_windows: 3,
        open_windows: 2,
        ..Settings::default()
    };
    let judged = stream(7, 5_000, -1.0, None);
    let progressive = recorded(&judged, settings);
    let windows = progressive.windows();
    assert_eq!(windows.len(), 5);
    assert!(windows[4].end > judged[4_999].at);
}

#[test]
fn the_sliding_window_forgets() {
    let judged = stream(8, 20_000, -1.0, None);
    let progressive = recorded(&judged, Settings { sliding: Span(DAY), ..Settings::default() });
    let pane = DAY / 8;
    let begin = EventTime((5 * DAY - 1) / pane * pane - 7 * pane);
    let recent: Vec<_> = judged.iter().filter(|j| j.at >= begin).copied().collect();
    assert!(recent.len() > 3_000 && recent.len() <= 4_000);
    assert_task(&progressive.sliding(0), &recent);
    let tally = progressive.sliding_tally(0);
    assert_eq!(tally.examples(), recent.len() as u64);
    assert_eq!(tally.calibration(), progressive.sliding(0).all.calibration);
}

#[test]
fn undefined_figures_are_null() {
    let progressive = Progressive::new(&["click"], Settings::default());
    assert_eq!(progressive.whole(0), TaskFigures::default());

    let one =
        Judgement { label: false, probability: 0.0, at: EventTime(-1), group: 1, new_item: true };
    let progressive = recorded(&[one], Settings::default());
    let text = serde_json::to_string(&progressive.report()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let click = &json["tasks"]["click"];
    assert_eq!(click["examples"], 1);
    for name in ["auc", "normalised_entropy", "calibration", "grouped_auc"] {
        assert!(click[name].is_null(), "{name} is {}", click[name]);
    }
    assert!(click["log_loss"].as_f64().unwrap() < 1e-6);
    assert_eq!(click["warm"]["examples"], 0);
    assert!(click["warm"]["log_loss"].is_null());
    assert_eq!(json["windows"][0]["start"], -DAY);
    assert_eq!(json["windows"][0]["end"], 0);
    assert_eq!(json["windows"][0]["tasks"]["click"]["new"]["examples"], 1);
}

#[test]
fn certainty_costs_a_finite_loss() {
    let judge = |label, probability| Judgement {
        label,
        probability,
        at: EventTime(0),
        group: 1,
        new_item: false,
    };
    let all = recorded(&[judge(true, 0.0), judge(false, 1.0)], Settings::default()).whole(0).all;
    assert!((all.log_loss.unwrap() - -(1e-7f64.ln())).abs() < 1e-6);
    assert_eq!((all.auc, all.calibration), (Some(0.0), Some(1.0)));
}

#[test]
fn what_is_no_probability_is_refused() {
    let mut progressive = Progressive::new(&["click"], Settings::default());
    for probability in [f32::NAN, f32::INFINITY, -0.1, 1.1] {
        let at = EventTime(0);
        progressive
            .record(0, &Judgement { label: true, probability, at, group: 1, new_item: false });
    }
    assert_eq!((progressive.refused(), progressive.whole(0).all.examples), (4, 0));
}

#[test]
fn a_restored_evaluation_continues_with_the_same_bits() {
    let judged = stream(9, 3_000, -1.0, None);
    let settings = Settings { open_windows: 2, grouped: 700, ..Settings::default() };
    let straight = recorded(&judged, settings.clone());
    let half = recorded(&judged[..1_700], settings);
    let stored = postcard::to_allocvec(&half).unwrap();
    let mut restored: Progressive = postcard::from_bytes(&stored).unwrap();
    assert_eq!(restored.report(), half.report());
    judged[1_700..].iter().for_each(|j| restored.record(0, j));
    assert_eq!(restored.report(), straight.report());
    assert_eq!(
        postcard::to_allocvec(&restored).unwrap(),
        postcard::to_allocvec(&straight).unwrap()
    );
}

#[test]
fn the_order_of_examples_and_merges_changes_no_bit() {
    let judged = stream(10, 3_000, -1.0, None);
    let period = |judged: &mut dyn Iterator<Item = &Judgement>| {
        let mut period = Period::default();
        judged.for_each(|j| period.record(j.label, f64::from(j.probability)));
        period
    };
    let whole = period(&mut judged.iter());
    let mut merged = period(&mut judged[2_000..].iter().rev());
    merged.merge(&period(&mut judged[..500].iter()));
    merged.merge(&period(&mut judged[500..2_000].iter().rev()));
    assert_eq!(merged.figures(), whole.figures());
    assert_eq!(merged, whole);
}

#[test]
fn a_damaged_histogram_is_not_restored() {
    let error = serde_json::from_str::<crate::evaluate::Histogram>("[[16384,1,0]]").unwrap_err();
    assert!(error.to_string().contains("found 16384"), "{error}");
}
