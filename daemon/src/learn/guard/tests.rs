//! The guard by plain arithmetic: windows of so many labels, with so many positives, beside predictions that are all the same.

use sluice_features::ids::stable_hash;

use super::*;

const N: u32 = WINDOW;

/// Records `n` labels of which one in `every` is positive (none for 0), each with the prediction `p`; returns the breaches.
fn feed(guard: &mut Guard, n: u32, every: u32, p: f32) -> Vec<Breach> {
    let positive = |i: u32| every > 0 && i % every == every - 1;
    (0..n).filter_map(|i| guard.record(0, positive(i), p)).collect()
}

/// A guard of one task that has seen windows with a positive in `every`, well predicted.
fn taught(every: u32) -> Guard {
    let mut guard = Guard::new(1);
    assert_eq!(feed(&mut guard, 3 * N, every, 1.0 / every as f32), []);
    assert!(guard.sound());
    guard
}

fn cause(guard: &Guard) -> String {
    guard.cause(&["click"]).unwrap_or_default()
}

#[test]
fn a_broken_calibration_stops_publishing_until_a_sound_window() {
    let mut guard = Guard::new(1);
    assert_eq!(feed(&mut guard, N, 10, 0.9), [], "the first windows are not judged");
    assert_eq!(feed(&mut guard, N, 10, 0.1), []);
    assert_eq!(feed(&mut guard, N, 10, 0.1), []);
    let breach = feed(&mut guard, N, 10, 0.3);
    assert_eq!(breach.len(), 1, "0.3 * 10,000 / 1,000 = 3");
    assert!(breach[0].figures.contains("of a class are 3.000"), "{breach:?}");
    assert!(!guard.sound());
    assert_eq!(feed(&mut guard, N, 10, 0.1), []);
    assert!(guard.sound());
}

#[test]
fn positives_that_are_expected_and_do_not_come_are_a_breach() {
    // Three clicks in ten, then none: 3,000 are predicted in each window while the model has not learned of it.
    let mut guard = taught(3);
    let breaches = feed(&mut guard, 3 * N, 0, 1.0 / 3.0);
    assert_eq!(breaches.len(), 3);
    assert!(breaches[0].figures.contains("of 10000 labels 0 were positive, 3333.3 were predicted"));
    assert!(cause(&guard).contains("do its events still come"), "{}", cause(&guard));
    // Even where the model expects none any more the rate before does: 10,000 / 3.
    let mut guard = taught(3);
    let breach = feed(&mut guard, N, 0, 1e-6);
    assert!(
        breach[0].figures.contains("of a class were to be expected by the rate before"),
        "{breach:?}"
    );
}

#[test]
fn what_says_nothing_clears_nothing() {
    let mut guard = taught(3);
    assert_eq!(feed(&mut guard, N, 0, 0.3).len(), 1);
    // No clicks and none predicted, for long: 200,000 * 0.0002 = 40.
    assert_eq!(feed(&mut guard, 20 * N, 0, 0.0002), []);
    assert!(!guard.sound());
    // They come again, and the model still says there are none: 3,333 observed, 42 predicted.
    assert_eq!(feed(&mut guard, N, 3, 0.0002).len(), 1);
    assert_eq!(feed(&mut guard, N, 3, 0.33), []);
    assert!(guard.sound());
}

#[test]
fn a_rare_task_is_judged_as_soon_as_enough_are_observed_or_predicted() {
    // One in a thousand: ten in ten thousand, so a window has 50,000 labels, and the first four, in which the rate is not known yet, 10,000.
    let mut guard = Guard::new(1);
    assert_eq!(feed(&mut guard, 14 * N, 1000, 0.001), []);
    // Ten times too many are predicted: 50 of them after 5,000, and the window ends at 10,000 with 100 for 10.
    let breach = feed(&mut guard, N, 1000, 0.01);
    assert!(breach[0].figures.contains("10.000"), "{breach:?}");
    // Ten times too few: 50 have come after 50,000 labels, with 5 predicted.
    assert_eq!(feed(&mut guard, 5 * N - 1, 1000, 0.0001), []);
    assert!(!guard.sound(), "unknown until then");
    assert_eq!(feed(&mut guard, 1, 1, 0.0001).len(), 1);
    assert_eq!(feed(&mut guard, 5 * N, 1000, 0.001), []);
    assert!(guard.sound());
}

#[test]
fn a_rate_that_falls_with_the_predictions_is_sound() {
    // From one in ten to one in a hundred, and to one in 500: 100 and 20 positives.
    let mut guard = taught(10);
    assert_eq!(feed(&mut guard, N, 100, 0.01), []);
    assert_eq!(feed(&mut guard, 3 * N, 500, 0.002), []);
    assert!(guard.sound());
}

#[test]
fn negatives_count_as_positives_do() {
    // All positive, and the model says so: no negative was ever seen, so there is no rate of them.
    let mut guard = Guard::new(1);
    assert_eq!(feed(&mut guard, 10 * N, 1, 0.99), []);
    // All positive where one in ten was negative before, and the model still says it: 1,000 negatives of 0.
    let mut guard = Guard::new(1);
    for i in 0..3 * N {
        assert_eq!(guard.record(0, i % 10 > 0, 0.9), None);
    }
    assert_eq!(feed(&mut guard, N, 1, 0.9).len(), 1);
    assert!(!guard.sound());
}

#[test]
fn a_task_without_labels_or_without_positives_says_nothing_and_holds_up_nothing() {
    let mut guard = Guard::new(2);
    assert_eq!(feed(&mut guard, 3 * N, 10, 0.1), []);
    assert!(guard.sound(), "the other task has not one label");
    // The events of a task are not sent yet: 10,000 * 0.05 = 500 are predicted, and nobody knows its rate.
    for _ in 0..5 * N {
        assert_eq!(guard.record(1, false, 0.05), None);
    }
    assert!(guard.sound());
}

#[test]
fn tasks_have_windows_of_their_own() {
    let mut guard = Guard::new(2);
    for i in 0..3 * N {
        guard.record(0, i % 10 == 0, 0.1);
        if i % 7 == 0 {
            guard.record(1, i % 2 == 0, 0.5);
        }
    }
    assert_eq!(feed(&mut guard, N, 10, 0.5).len(), 1);
    for i in 0..3 * N {
        assert_eq!(guard.record(1, i % 2 == 0, 0.5), None);
    }
    assert_eq!(guard.verdicts(), [false, true], "the other task's windows clear nothing");
    assert_eq!(feed(&mut guard, N, 10, 0.1), []);
    assert!(guard.sound());
}

#[test]
fn predictions_that_are_no_numbers_are_a_breach() {
    // They count as the worst ones: every negative as a sure positive. 9,000 for 1,000.
    let mut guard = taught(10);
    let breach = feed(&mut guard, N, 10, f32::NAN);
    assert!(breach[0].figures.contains("9.000"), "{breach:?}");
    assert_eq!(feed(&mut guard, N, 10, 0.1), []);
    assert!(guard.sound());
    // One of them among ten thousand is not: 16 / 10,000 of log loss beside 0.325.
    guard.record(0, true, f32::NAN);
    assert_eq!(feed(&mut guard, N, 10, 0.1), []);
    for p in [f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(feed(&mut guard, N, 10, p).len(), 1, "{p}");
    }
}

#[test]
fn scores_in_the_wrong_order_are_a_breach_though_they_are_calibrated() {
    // 0.9 for one in ten, and these are negative; 0.0111 for all others: 1,000 are predicted of 1,000, at a log loss of about 2 times the rate's.
    let mut guard = taught(10);
    let breaches: Vec<_> = (0..N)
        .filter_map(|i| guard.record(0, i % 10 == 0, if i % 10 == 5 { 0.9 } else { 0.0111 }))
        .collect();
    assert!(breaches[0].figures.contains("log loss"), "{breaches:?}");
}

#[test]
fn a_breach_outlives_a_restart() {
    let mut guard = taught(10);
    feed(&mut guard, N, 10, 0.5);
    feed(&mut guard, N / 2, 10, 0.1);
    let bytes = postcard::to_allocvec(&guard).unwrap();
    let mut again: Guard = postcard::from_bytes(&bytes).unwrap();
    assert_eq!((again.sound(), cause(&again)), (false, cause(&guard)));
    feed(&mut again, N / 2 - 1, 10, 0.1);
    assert!(!again.sound());
    feed(&mut again, 1, 10, 0.1);
    assert!(again.sound());
}

/// Whatever comes, a breach goes away only by a window whose figures are sound, counted by hand.
#[test]
fn only_a_sound_window_clears() {
    let mut cleared = 0;
    for seed in 0u64..200 {
        let draw = |i: u64, n: u64| stable_hash([seed, i].map(u64::to_le_bytes).as_flattened()) % n;
        let mut guard = taught(10);
        feed(&mut guard, N, 10, 0.5);
        let (mut n, mut positives, mut predicted) = (0.0, 0.0, 0.0);
        for run in 0..8 {
            let labels = 1 + draw(4 * run, 3 * u64::from(N));
            let rate = 0.5_f64.powi(draw(4 * run + 1, 14) as i32);
            // Right, or up to eight times too high or too low.
            let p = (rate * 2_f64.powi(draw(4 * run + 2, 7) as i32 - 3)).min(0.999) as f32;
            for i in 0..labels {
                let label = ((i + 1) as f64 * rate).floor() > (i as f64 * rate).floor();
                let before = guard.sound();
                guard.record(0, label, p);
                n += 1.0;
                positives += f64::from(u8::from(label));
                predicted += f64::from(p);
                if guard.tasks[0].window.labels > 0 {
                    assert_eq!(guard.sound(), before, "within a window nothing changes");
                    continue;
                }
                if !before && guard.sound() {
                    let (most, least) = (predicted.max(positives), predicted.min(positives));
                    assert!(n >= f64::from(N) && most > 49.9, "{n} {positives} {predicted}");
                    assert!(most <= 2.001 * least, "{n} {positives} {predicted}");
                    cleared += 1;
                }
                (n, positives, predicted) = (0.0, 0.0, 0.0);
            }
        }
    }
    assert!(cleared > 50, "{cleared}");
}

#[test]
fn more_than_a_hundredth_of_refused_batches_is_a_breach_until_a_sound_window() {
    let mut guard = Guard::new(1);
    // Ten in a thousand are borne for ever.
    for i in 0..20 * BATCHES {
        assert_eq!(guard.batch(i % 100 == 99), Refusals::Quiet);
        assert!(guard.sound());
    }
    for i in 0..11 {
        assert!(guard.sound(), "{i}");
        let wanted = if i == 10 { Refusals::Breach } else { Refusals::Quiet };
        assert_eq!(guard.batch(true), wanted);
    }
    let told = guard.cause(&["click"]).unwrap();
    assert!(told.contains("11 batches were refused") && !told.contains("click"), "{told}");
    assert_eq!((guard.sound(), guard.verdicts()), (false, [true, false]));
    // The window ends as a breach; the next one is sound at its end.
    for _ in 0..2 * BATCHES - 12 {
        assert_eq!(guard.batch(false), Refusals::Quiet);
        assert!(!guard.sound() && guard.not_to_keep().is_some());
    }
    guard.batch(false);
    assert!(guard.sound() && guard.cause(&["click"]).is_none() && guard.not_to_keep().is_none());
}

#[test]
fn too_many_refused_batches_end_learning() {
    // All of them, and two in a hundred.
    for every in [1, 50] {
        let mut guard = Guard::new(1);
        let refused = |i: u32| i.is_multiple_of(every);
        let last = (TOO_MANY - 1) * every;
        for i in 0..last {
            assert_ne!(guard.batch(refused(i)), Refusals::TooMany, "{i}");
        }
        assert_eq!(guard.batch(refused(last)), Refusals::TooMany, "one in {every}");
    }
}

#[test]
fn parameters_are_not_kept_right_after_a_refused_batch() {
    let mut guard = Guard::new(1);
    assert_eq!(guard.not_to_keep(), None);
    guard.batch(true);
    assert!(guard.sound());
    for _ in 0..CLEAN {
        assert!(guard.not_to_keep().is_some());
        guard.batch(false);
    }
    assert_eq!(guard.not_to_keep(), None);
}
