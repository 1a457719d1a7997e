use super::*;
use crate::attributes::{AttributeKey, Value};
use crate::schema::Subject;
use crate::time::Span;

fn counter(task: usize, by: &[Subject]) -> Counter {
    let (half_life, read) = (Span(1000), Reading::LogOdds);
    Counter { task, by: by.to_vec(), half_life, smoothing: 4.0, read }
}

fn subjects(item: u64, user: u64) -> Subjects {
    Subjects { item, user, category: None, surface: Some(1) }
}

#[test]
fn counts_equal_the_sum_over_the_log_in_any_order() {
    let log: Vec<(i64, u64, bool)> =
        (0..200).map(|i| ((i * 7919) % 5000, (i % 5) as u64 + 1, i % 3 == 0)).collect();
    let mut counters = Counters::new(&[counter(0, &[Subject::Item])], 1000);
    for &(time, item, outcome) in &log {
        counters.impression(&subjects(item, 9), None, EventTime(time));
        if outcome {
            counters.outcome(0, &subjects(item, 9), EventTime(time), EventTime(time));
        }
    }
    let now = 6000;
    let weight = |t: i64| (-((now - t) as f64) / 1000.0).exp2();
    for item in 1..=5 {
        let of_item = || log.iter().filter(move |e| e.1 == item);
        let n: f64 = of_item().map(|e| weight(e.0)).sum();
        let c: f64 = of_item().filter(|e| e.2).map(|e| weight(e.0)).sum();
        let all: f64 = log.iter().map(|e| weight(e.0)).sum();
        let hits: f64 = log.iter().filter(|e| e.2).map(|e| weight(e.0)).sum();
        let r = (hits + 1.0) / (all + 20.0);
        let want = ((c + 4.0 * r) / (n - c + 4.0 * (1.0 - r))).ln() - (r / (1.0 - r)).ln();
        let got = counters.read(0, &subjects(item, 9), None, EventTime(now)).unwrap();
        assert!((f64::from(got) - want).abs() < 1e-5, "item {item}: {got} != {want}");
    }
}

#[test]
fn the_unknown_counts_as_the_overall_rate_and_the_missing_as_missing() {
    let mut counters = Counters::new(
        &[counter(0, &[Subject::Item]), counter(0, &[Subject::User, Subject::Category])],
        10,
    );
    counters.impression(&subjects(1, 1), None, EventTime(0));
    assert_eq!(counters.read(0, &subjects(2, 1), None, EventTime(0)), Some(0.0));
    assert_eq!(counters.read(1, &subjects(1, 1), None, EventTime(0)), None);
}

#[test]
fn a_count_is_read_as_how_much_there_was() {
    let count = Counter { read: Reading::Count, ..counter(0, &[Subject::User]) };
    let mut counters = Counters::new(&[count], 10);
    for time in [0, 1000] {
        counters.impression(&subjects(1, 1), None, EventTime(time));
        counters.outcome(0, &subjects(1, 1), EventTime(time), EventTime(time));
    }
    let read = counters.read(0, &subjects(2, 1), None, EventTime(2000)).unwrap();
    assert!((read - 1.75f32.ln()).abs() < 1e-6, "{read}");
    assert_eq!(counters.read(0, &subjects(2, 2), None, EventTime(2000)), Some(0.0));
}

#[test]
fn an_interest_is_read_as_whether_there_was_any() {
    let any = Counter { read: Reading::Any, ..counter(0, &[Subject::User]) };
    let mut counters = Counters::new(&[any], 10);
    for outcomes in 1..=3 {
        counters.outcome(0, &subjects(1, 1), EventTime(0), EventTime(0));
        let read = |time| counters.read(0, &subjects(2, 1), None, EventTime(time)).unwrap();
        let c = f64::from(outcomes);
        assert!((f64::from(read(1)) - c / (1.0 + c)).abs() < 1e-3);
        assert!((f64::from(read(1000)) - c / (2.0 + c)).abs() < 1e-6);
    }
}

#[test]
fn a_number_is_read_beside_those_that_were_shown() {
    let price = AttributeKey::of("price");
    let beside = Counter { read: Reading::Beside(price), ..counter(0, &[Subject::Category]) };
    let mut counters = Counters::new(&[beside], 10);
    let item = |number: f64| {
        let mut item = Attributes::default();
        item.insert(price, Value::Number(number));
        item
    };
    let of = |category| Subjects { category: Some(category), ..subjects(1, 1) };
    let read = |counters: &Counters, category, number: f64, time| {
        counters.read(0, &of(category), Some(&item(number)), EventTime(time))
    };
    assert_eq!(read(&counters, 1, 5.0, 0), Some(0.0));
    // A price of 3 half a life before one of 15 and one without a price: the mean of the logarithms is 5/3 of ln 4.
    counters.impression(&of(1), Some(&item(3.0)), EventTime(0));
    counters.impression(&of(1), Some(&item(15.0)), EventTime(1000));
    counters.impression(&of(1), None, EventTime(1000));
    counters.impression(&of(2), Some(&item(1e6)), EventTime(1000));
    counters.outcome(0, &of(1), EventTime(1000), EventTime(1000));
    let wanted = 64.0f64.ln() - 5.0 / 3.0 * 4.0f64.ln();
    for time in [1001, 9000] {
        let found = read(&counters, 1, 63.0, time).unwrap();
        assert!((f64::from(found) - wanted).abs() < 1e-6, "{found} {wanted}");
    }
    assert_eq!(counters.read(0, &of(1), None, EventTime(1000)), None);
    assert_eq!(counters.read(0, &subjects(1, 1), Some(&item(1.0)), EventTime(1000)), None);
}

#[test]
fn other_tasks_do_not_count_and_pairs_are_apart() {
    let mut counters = Counters::new(&[counter(1, &[Subject::Item, Subject::User])], 10);
    for user in [1, 2] {
        counters.impression(&subjects(1, user), None, EventTime(0));
    }
    let zero = EventTime(0);
    counters.outcome(0, &subjects(1, 1), zero, zero);
    let before = counters.read(0, &subjects(1, 1), None, EventTime(1));
    assert_eq!(before, counters.read(0, &subjects(1, 2), None, EventTime(1)));
    counters.outcome(1, &subjects(1, 1), zero, zero);
    assert!(counters.read(0, &subjects(1, 1), None, EventTime(1)) > before);
    assert!(counters.read(0, &subjects(1, 2), None, EventTime(1)) < before);
}

#[test]
fn memory_is_bounded_and_old_entries_make_room() {
    let mut counters = Counters::new(&[counter(0, &[Subject::Item])], 2000);
    counters.advance(EventTime(0), EventTime(0));
    for item in 0..10_000 {
        counters.impression(&subjects(item + 1, 1), None, EventTime(0));
    }
    assert!(counters.len() <= 2000 && counters.refused() > 0);
    counters.advance(EventTime(1_000_000), EventTime(1_000_000));
    for item in 0..3_000 {
        counters.impression(&subjects(item + 100_000, 1), None, EventTime(1_000_000));
    }
    assert!(counters.read(0, &subjects(102_000, 1), None, EventTime(1_000_001)) != Some(0.0));
}

#[test]
fn many_keys_of_one_counter_leave_room_for_the_others_within_the_bound() {
    let by = [&[Subject::User, Subject::Item][..], &[Subject::Item], &[Subject::Surface]];
    let all: Vec<Counter> = by.iter().map(|by| counter(0, by)).collect();
    let most = 600;
    let mut counters = Counters::new(&all, most);
    counters.advance(EventTime(0), EventTime(0));
    for user in 0..2_000 {
        counters.impression(&subjects(1, 1 + user), None, EventTime(0));
    }
    // A sixth is kept apart for each of the two others.
    assert_eq!(counters.groups().next().map_or(0, Group::len), 400);
    assert!(counters.refused() >= 1_600);
    for item in 0..2_000 {
        counters.outcome(0, &subjects(2 + item, 1), EventTime(0), EventTime(0));
    }
    let lengths: Vec<usize> = counters.groups().map(Group::len).collect();
    assert_eq!(lengths, [400, 100, 1]);
    assert!(counters.len() <= most && counters.memory() <= counters.len() * Counters::ENTRY_BYTES);
    let read = |item| counters.read(1, &subjects(item, 1), None, EventTime(1));
    assert!(read(50) > Some(0.0), "an item that came when users had filled their room");
    let refused = counters.refused();
    let mut fewer = counters.bounded(30);
    fewer.impression(&subjects(9_000, 9_000), None, EventTime(0));
    assert_eq!((fewer.len(), fewer.refused()), (501, refused + 2), "what is there stays");
}

#[test]
fn what_has_faded_gives_its_place_up_by_itself_and_nobody_reads_what_stood_there() {
    let of = |half_life| {
        let read = Reading::Count;
        Counter { half_life: Span(half_life), read, ..counter(0, &[Subject::User]) }
    };
    let mut counters = Counters::new(&[of(10), of(1_000_000)], 1 << 20);
    let mut log = std::collections::BTreeMap::<u64, Vec<i64>>::new();
    let mut state = 5_u64;
    for time in 0..20_000_i64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Most users come once; some come back when only the longer half-life knows them.
        let user = if time % 3 == 0 { (state >> 33) % 500 } else { 1_000 + time as u64 };
        counters.advance(EventTime(time), EventTime(time));
        let of_user = subjects(1, user);
        for (number, half_life) in [(0, 10.0), (1, 1_000_000.0)] {
            let seen = log.get(&user).into_iter().flatten();
            let c: f64 = seen.map(|then| (-((time - then) as f64) / half_life).exp2()).sum();
            let read = counters.read(number, &of_user, None, EventTime(time)).unwrap();
            // A sweep forgets what is negligible.
            assert!((f64::from(read) - c.ln_1p()).abs() < 0.021, "{time}: {read} of {c}");
        }
        counters.impression(&of_user, None, EventTime(time));
        counters.outcome(0, &of_user, EventTime(time), EventTime(time));
        log.entry(user).or_default().push(time);
    }
    let [short, long] = [0, 1].map(|i| &counters.keyed[0].groups[i]);
    assert!(short.places() < long.len() / 2, "{} of {}", short.places(), long.len());
    assert_eq!(long.len(), log.len());
    assert!(counters.memory() < counters.len() * Counters::ENTRY_BYTES);
    let again: Counters = serde_json::from_str(&serde_json::to_string(&counters).unwrap()).unwrap();
    assert_eq!(again.len(), counters.len());
    assert!(again.memory() <= counters.memory());
}

#[test]
fn counters_together_are_read_as_each_one_alone() {
    let price = AttributeKey::of("price");
    let by = [&[Subject::Item][..], &[Subject::User], &[Subject::User, Subject::Category]];
    let reads = [Reading::LogOdds, Reading::Count, Reading::Any, Reading::Beside(price)];
    let mut all = Vec::new();
    for (i, (by, read)) in by.iter().flat_map(|by| reads.map(|read| (by, read))).enumerate() {
        for task in 0..6 {
            // Some share a half-life and some do not.
            let own = 500 + 10 * (6 * i + task) as i64;
            let half_life = Span(if i % 4 == 0 { own } else { [1000, 70][i % 2] });
            all.push(Counter { half_life, read, ..counter(task, by) });
        }
    }
    let mut together = Counters::new(&all, 1000);
    let groups = together.groups().count();
    assert!(together.keyed.len() > by.len() && groups < all.len());
    assert!(together.rated.len() > 16 && together.half_lives.len() > 16);
    let mut alone: Vec<Counters> =
        all.iter().map(|one| Counters::new(std::slice::from_ref(one), 1000)).collect();
    for i in 0..400_i64 {
        let time = EventTime(5 * i);
        let category = (i % 7 > 0).then_some(i as u64 % 3);
        let subjects = Subjects { category, ..subjects(i as u64 % 5 + 1, i as u64 % 11) };
        let mut item = Attributes::default();
        if i % 3 > 0 {
            item.insert(price, crate::attributes::Value::Number((i % 9) as f64));
        }
        let mut seen = 0;
        together.read_all(&subjects, Some(&item), time, |number, read| {
            let expected = alone[number].read(0, &subjects, Some(&item), time);
            assert_eq!(read.is_some(), expected.is_some(), "{:?}", all[number]);
            let (read, expected) = (read.unwrap_or(0.0), expected.unwrap_or(0.0));
            assert!((read - expected).abs() < 1e-5, "{read} {expected}: {:?}", all[number]);
            seen += 1;
        });
        assert_eq!(seen, all.len());
        for counters in alone.iter_mut().chain([&mut together]) {
            counters.impression(&subjects, Some(&item), time);
            if i % 4 == 0 {
                counters.outcome(i as usize / 4 % 6, &subjects, time, time + Span(3));
            }
        }
    }
}

#[test]
fn an_outcome_is_not_known_before_it_happened() {
    let mut counters = Counters::new(&[counter(0, &[Subject::Item])], 10);
    counters.impression(&subjects(1, 1), None, EventTime(0));
    let read = |counters: &Counters, time| {
        counters.read(0, &subjects(1, 2), None, EventTime(time)).unwrap()
    };
    let before = read(&counters, 60);
    counters.outcome(0, &subjects(1, 1), EventTime(0), EventTime(120));
    assert_eq!(read(&counters, 60).to_bits(), before.to_bits());
    assert!((read(&counters, 120) - read(&counters, 119)).abs() < 1e-3);
    assert!(read(&counters, 121) > before + 0.5);
}

#[test]
fn what_cannot_be_told_any_more_is_missing_and_said() {
    let mut counters = Counters::new(&[counter(0, &[Subject::Item])], 10);
    for time in [1000, 2000, 3000, 4000, 5000] {
        counters.advance(EventTime(time), EventTime(time));
        counters.impression(&subjects(1, 1), None, EventTime(time));
    }
    let told = |time| {
        let mut seen = None;
        let told = counters.read_all(&subjects(1, 1), None, EventTime(time), |_, n| seen = n);
        (told, seen.is_some())
    };
    assert_eq!(told(900), (false, false));
    assert_eq!(told(5001), (true, true));
}

/// Places of entries that were given up are used again; the map of keys has another seed in each process and gives up in another order.
#[test]
fn what_is_written_and_read_does_not_depend_on_the_seeds_of_maps() {
    let kinds = [
        counter(0, &[Subject::Item]),
        Counter { half_life: Span(40_000), ..counter(1, &[Subject::Item]) },
        counter(0, &[Subject::User, Subject::Surface]),
    ];
    let mut all: Vec<Counters> = (0..3).map(|_| Counters::new(&kinds, 3_000)).collect();
    let mut state = 11u64;
    for step in 0..30_000i64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let about = subjects(state >> 50, state >> 45 & 4095);
        let time = EventTime(step * 3);
        for counters in &mut all {
            counters.impression(&about, None, time);
            if state >> 20 & 3 == 0 {
                counters.outcome((state >> 30 & 1) as usize, &about, time, time);
            }
        }
    }
    let [first, others @ ..] = &all[..] else { unreachable!() };
    let written = serde_json::to_string(first).unwrap();
    for other in others {
        assert_eq!(first.refused(), other.refused());
        for item in 0..2_000 {
            for place in 0..kinds.len() {
                let read = |counters: &Counters| {
                    let about = subjects(item, item);
                    counters.read(place, &about, None, EventTime(90_000)).map(f32::to_bits)
                };
                assert_eq!(read(first), read(other), "{place} of {item}");
            }
        }
        assert!(written == serde_json::to_string(other).unwrap(), "other bytes");
    }
}
