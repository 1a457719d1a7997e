//! The watermark against clocks of every kind.

use proptest::prelude::*;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Long after every record: the log of a file.
const PLAYED: EventTime = EventTime(4000 * DAY);

fn begun(lateness: Span) -> Watermark {
    let mut watermark = Watermark::new(lateness);
    for user in 0..4 {
        let time = EventTime(1000 * DAY + user);
        assert!(watermark.observe(time, UserId(user as u64), PLAYED));
    }
    watermark
}

fn later(span: i64) -> EventTime {
    EventTime(1000 * DAY + 3 + span)
}

#[test]
fn a_watermark_never_goes_back_and_lags_by_the_lateness() {
    let mut watermark = begun(Span::seconds(5));
    assert_eq!(watermark.value(), later(-5000));
    assert!(watermark.observe(later(-10_000), UserId(1), PLAYED));
    assert_eq!(watermark.value(), later(-5000));
    assert!(watermark.observe(later(4000), UserId(1), PLAYED));
    assert_eq!(watermark.value(), later(-1000));
}

#[test]
fn a_jump_waits_for_three_other_users_and_an_absurd_one_does_not_count() {
    let mut watermark = begun(Span::ZERO);
    let before = watermark.value();
    assert!(!watermark.observe(later(365 * DAY), UserId(1), PLAYED));
    for _ in 0..10 {
        assert!(!watermark.observe(later(366 * DAY), UserId(1), PLAYED), "the same user");
    }
    assert!(!watermark.observe(later(DAY), UserId(2), PLAYED));
    assert!(!watermark.observe(later(DAY + 5), UserId(3), PLAYED));
    assert!(watermark.is_jumping() && watermark.value() == before);
    assert!(watermark.observe(later(DAY + 9), UserId(4), PLAYED));
    assert_eq!((watermark.value(), watermark.is_jumping()), (later(DAY + 9), true));
    assert!(watermark.observe(later(DAY + 10), UserId(5), PLAYED));
    assert_eq!((watermark.value(), watermark.is_jumping()), (later(DAY + 10), false));
}

#[test]
fn wrong_clocks_among_right_ones_never_add_up_to_a_jump() {
    let mut watermark = begun(Span::seconds(60));
    for step in 1..1000 {
        assert!(!watermark.observe(later(100 * DAY), UserId(step as u64), PLAYED));
        assert!(watermark.observe(later(step * 1000 - 30_000), UserId(3), PLAYED));
        assert!(watermark.observe(later(step * 1000), UserId(9), PLAYED));
    }
    assert_eq!(watermark.newest(), later(999_000));
}

#[test]
fn where_few_events_come_far_apart_a_step_like_those_before_it_is_no_jump() {
    let mut watermark = begun(Span::ZERO);
    for user in 1..6 {
        let time = later(user * 5 * HOUR);
        assert_eq!(watermark.observe(time, UserId(user as u64), PLAYED), user == 5);
    }
    // Each user comes some hours after the one before and does a hundred things.
    let mut time = 25 * HOUR;
    for user in 6..200 {
        time += 3 * HOUR + user % 7 * HOUR;
        for step in 0..100 {
            let believed = watermark.observe(later(time + step), UserId(user as u64), PLAYED);
            assert!(believed, "{user}");
        }
    }
    assert!(!watermark.observe(later(time + 365 * DAY), UserId(1), PLAYED));
    // And after an hour of an event a second, of other users in turn, it is one again.
    for second in 0..3600 {
        assert!(watermark.observe(later(time + second * 1000), UserId(second as u64 % 5), PLAYED));
    }
    assert!(!watermark.observe(later(time + 3 * HOUR), UserId(1), PLAYED));
}

#[test]
fn a_live_stream_believes_a_time_that_its_record_confirms() {
    let mut watermark = Watermark::new(Span::ZERO);
    assert!(watermark.observe(later(0), UserId(1), later(20)));
    assert_eq!(watermark.value(), later(0), "one event is enough");
    assert!(watermark.observe(later(9 * HOUR), UserId(1), later(9 * HOUR + 5)));
    assert_eq!(watermark.value(), later(9 * HOUR));
    // An event that claims now, in a log of the past.
    let mut past = begun(Span::ZERO);
    assert!(!past.observe(PLAYED, UserId(1), PLAYED));
    assert_eq!(past.newest(), later(0));
}

#[test]
fn a_first_event_of_the_far_future_gives_way() {
    let mut watermark = Watermark::new(Span::ZERO);
    assert!(watermark.observe(later(365 * DAY), UserId(1), PLAYED));
    for step in 0..4 {
        assert_eq!(watermark.value(), EventTime::MIN);
        assert!(watermark.observe(later(step), UserId(step as u64), PLAYED));
    }
    assert_eq!(watermark.value(), later(3));
    // Nor does one that is minutes ahead close windows of those after it.
    let mut watermark = Watermark::new(Span::seconds(60));
    for (step, ahead) in [50 * MINUTE, 0, 0, 0, 0].into_iter().enumerate() {
        let user = UserId(step as u64);
        assert!(watermark.observe(later(step as i64 + ahead), user, PLAYED));
    }
    assert_eq!(watermark.value(), later(4 - MINUTE));
    // However often its user says so; and where there is only one user, it is believed in the end.
    for wrong in [2, i64::from(ALONE) - 1, i64::from(ALONE)] {
        let mut watermark = Watermark::new(Span::ZERO);
        for step in 0..wrong {
            assert!(watermark.observe(later(365 * DAY + step), UserId(1), PLAYED));
        }
        let believed = watermark.value() > EventTime::MIN;
        assert_eq!(believed, wrong == i64::from(ALONE));
        watermark.observe(later(0), UserId(2), PLAYED);
        assert_eq!(watermark.newest() == later(0), !believed);
    }
}

/// One user among many whose clock is ahead by more and more: at most the lateness beyond the others.
#[test]
fn one_user_alone_moves_time_no_further_than_the_lateness() {
    for growth in [1.0, 1.1, 1.9, 3.0, 10.0] {
        let (mut watermark, mut ahead) = (begun(Span::seconds(300)), 50.0f64);
        for second in 1..2000 {
            let good = UserId(10 + second as u64 % 50);
            assert!(watermark.observe(later(second * 1000), good, PLAYED));
            if second % 7 == 0 {
                let time = later(second * 1000 + (ahead * 60_000.0) as i64);
                watermark.observe(time, UserId(1), PLAYED);
                ahead = (ahead * growth).min(1e6);
            }
            let most = later(second * 1000) + Span::seconds(300);
            assert!(watermark.newest() <= most, "{growth}: {second}");
        }
    }
}

/// A log of two users, one after the other: what is no later than the newest is no jump, and time goes on with either.
#[test]
fn events_far_behind_the_newest_hold_nothing_up() {
    let mut watermark = Watermark::new(Span::ZERO);
    for user in [1, 2] {
        for minute in 0..5000 {
            let time = later(minute * MINUTE);
            assert!(watermark.observe(time, UserId(user), PLAYED), "{user}: {minute}");
        }
    }
    assert!(watermark.observe(later(DAY), UserId(2), PLAYED));
    for minute in 5000..6000 {
        assert!(watermark.observe(later(minute * MINUTE), UserId(1), PLAYED), "{minute}");
    }
    assert_eq!(watermark.value(), later(5999 * MINUTE));
}

/// The same where nobody comes between its events: each goes an hour at most.
#[test]
fn steps_that_nobody_has_followed_are_not_what_is_usual() {
    let mut watermark = begun(Span::ZERO);
    assert!(watermark.observe(later(50 * MINUTE), UserId(9), PLAYED));
    assert!(!watermark.observe(later(150 * MINUTE), UserId(9), PLAYED));
    assert!(!watermark.observe(later(400 * MINUTE), UserId(9), PLAYED));
    assert_eq!(watermark.newest(), later(0));
}

#[test]
fn a_silent_partition_that_is_read_up_lets_the_clock_decide() {
    let mut watermark = begun(Span::ZERO);
    assert!(!watermark.observe(later(9 * HOUR), UserId(7), PLAYED));
    watermark.settle();
    assert_eq!(watermark.value(), later(9 * HOUR));
    let mut single = Watermark::new(Span::ZERO);
    assert!(single.observe(later(0), UserId(1), PLAYED));
    single.settle();
    assert_eq!(single.value(), later(0));
}

/// Ways in which a clock is wrong, by how far it is ahead at each of its events.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Constant(i64),
    Growing(i64, f64),
    Random(i64),
}

fn wrong() -> impl Strategy<Value = Wrong> {
    let span = prop_oneof![
        2 * MINUTE..HOUR,
        HOUR - 5..HOUR + 5,
        HOUR..30 * DAY,
        Just(365 * DAY),
        Just(40_000 * DAY)
    ];
    prop_oneof![
        span.clone().prop_map(Wrong::Constant),
        (span.clone(), 1.0..5.0f64).prop_map(|(span, growth)| Wrong::Growing(span, growth)),
        span.prop_map(Wrong::Random),
    ]
}

proptest! {
    /// Some users' clocks are ahead, more and more, up to a seventh of all events, one by one or in bursts as a page brings them: event time goes no further than a step beyond
    /// that of the others, and is not held up by them.
    #[test]
    fn wrong_clocks_neither_move_event_time_nor_hold_it_up(
        wrong in wrong(),
        seed in any::<u64>(),
        share in 0.0..0.15f64,
        burst in 1..8u64,
        wrong_users in 1..60u64,
        lateness in prop_oneof![Just(0), 1..120i64],
        every in prop_oneof![Just(1), 20..3_000i64],
        late in 0..60_000i64,
    ) {
        let lateness = Span::seconds(lateness);
        let late = late.min(lateness.0);
        // Two that say anything at all in turn may build on one another.
        let wrong_users = if matches!(wrong, Wrong::Random(_)) { 1 } else { wrong_users };
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut watermark = begun(lateness);
        let (mut truth, mut ahead, mut latest) = (0, 0, later(0));
        let mut step = 0;
        for event in 0..4_000u64 {
            let gap = random.random_range(0..=2 * every);
            (truth, step) = (truth + gap, step.max(gap));
            if random.random_bool(share * event as f64 / 4_000.0 / burst as f64) {
                let user = UserId(1_000_000 + random.random_range(0..wrong_users));
                for _ in 0..burst {
                    ahead = match wrong {
                        Wrong::Constant(span) => span,
                        Wrong::Growing(span, growth) => ((ahead as f64 * growth) as i64).clamp(span, 40_000 * DAY),
                        Wrong::Random(span) => random.random_range(0..=span),
                    };
                    watermark.observe(later(truth + ahead), user, PLAYED);
                }
            } else {
                let time = later(truth - random.random_range(0..=late));
                watermark.observe(time, UserId(event % 97), PLAYED);
                latest = latest.max(time);
            }
            let most = Span(4 * LEAST.0.max(lateness.0).max(40 * every));
            prop_assert!(watermark.newest() <= latest + most, "{event}: {:?} beyond", watermark.newest() - latest);
            prop_assert!(event < 200 || watermark.newest() + Span(late + 200 * step) >= latest, "{event}: {:?} behind", latest - watermark.newest());
        }
    }
}

/// Whoever is alone goes on, a gap of a night and clocks of one moment included.
#[test]
fn few_users_go_on_alone() {
    for users in 1..4u64 {
        let mut watermark = Watermark::new(Span::ZERO);
        let mut time = 0;
        for event in 0..3_000u64 {
            time += if event % 500 == 499 { 9 * HOUR } else { 1 + (event % 7) as i64 * MINUTE };
            let believed = watermark.observe(later(time), UserId(event % users), PLAYED);
            assert!(believed || event > 498, "{users}: {event}, before any gap");
            if event % 500 == 498 {
                assert!(watermark.newest() + Span(20 * MINUTE) >= later(time), "{users}: {event}");
            }
        }
    }
}

/// Steps of half an hour and less are plausible while they wait.
#[test]
fn one_user_whose_events_are_far_apart_is_believed() {
    let mut watermark = Watermark::new(Span::ZERO);
    for event in 0..100 {
        assert!(watermark.observe(later(event * 25 * MINUTE), UserId(1), PLAYED), "{event}");
    }
    assert!(watermark.value() >= later(75 * 25 * MINUTE));
}

/// Two users in turn are no four, however often they say so; nor does one build on what another has moved.
#[test]
fn users_who_are_ahead_do_not_add_up() {
    let mut watermark = begun(Span::ZERO);
    for turn in 0..50 {
        assert!(!watermark.observe(later(365 * DAY), UserId(turn % 2), PLAYED));
    }
    let mut watermark = begun(Span::seconds(300));
    for turn in 1..2_000 {
        // Wrong clocks, each nearly a step beyond the one before; the first ones in a row.
        if turn % 4 == 0 || turn < 3 {
            let ahead = watermark.newest() + Span::seconds(290);
            watermark.observe(ahead, UserId(10_000 + turn as u64), PLAYED);
        }
        watermark.observe(later(turn * 1000), UserId(turn as u64 % 50), PLAYED);
        assert!(watermark.newest() <= later(turn * 1000) + Span::seconds(600), "{turn}");
    }
}

/// Where clocks are often wrong, four in a row are no news.
#[test]
fn the_more_clocks_are_wrong_the_more_must_agree() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut watermark = begun(Span::seconds(60));
    for second in 1..10_000i64 {
        let wrong = random.random_bool(if second < 500 { 0.02 } else { 0.2 });
        let ahead = if wrong { 365 * DAY } else { 0 };
        let user = UserId(random.random_range(0..5_000) + if wrong { 10_000 } else { 0 });
        watermark.observe(later(second * 1000 + ahead), user, PLAYED);
        assert!(watermark.newest() <= later(second * 1000), "{second}");
    }
}

/// Two users in sessions of five events, hours apart; and one in sessions of a thousand, a month apart.
#[test]
fn few_users_go_on_after_every_pause() {
    for (sessions, events, pause, lost) in [(120, 5, 6 * HOUR, 60), (6, 1_000, 30 * DAY, 2)] {
        let (mut watermark, mut time) = (Watermark::new(Span::seconds(300)), 0);
        for session in 0..sessions {
            for _ in 0..events {
                time += 1_000;
                watermark.observe(later(time), UserId(session % 2), PLAYED);
            }
            let behind = later(time) - watermark.newest();
            assert!(session < lost || behind < Span(events * 1_000), "{session}: {behind:?}");
            time += pause;
        }
    }
}

/// One of several users goes on alone: its steps are plausible while they wait, and one absurd event among them moves nothing.
#[test]
fn who_goes_on_alone_takes_nobody_along_who_is_absurd() {
    let mut watermark = begun(Span::ZERO);
    for event in 1..100 {
        assert!(watermark.observe(later(event * 25 * MINUTE), UserId(9), PLAYED), "{event}");
    }
    assert!(watermark.newest() > later(50 * 25 * MINUTE));
    let mut watermark = begun(Span::ZERO);
    for event in 0..15 {
        watermark.observe(later((5 + event) * MINUTE), UserId(9), PLAYED);
    }
    watermark.observe(later(365 * DAY), UserId(9), PLAYED);
    assert!(watermark.newest() < later(DAY));
}
