//! Streams that once went wrong, at the size at which they did.

use super::*;

const MINUTE: i64 = 60_000;

/// A click window of 30 minutes.
fn clicks(rule: LabelRule) -> Funnel {
    funnel(Entry::Impression, &[(None, 30 * MINUTE, rule)])
}

/// Plays records with a lateness of 5 minutes. Returns how many impressions were learned as positives, how many of those opened were not,
/// and what was counted.
fn play(funnel: &Funnel, records: &[Record]) -> (usize, usize, JoinCounts) {
    let (mut driven, mut newest) = (Driven::new(funnel), i64::MIN);
    for record in records {
        match record {
            Record::Impression(impression) => drop(driven.open(impression.clone())),
            Record::Outcome(outcome) => drop(driven.act(*outcome)),
        }
        newest = newest.max(record.time());
        driven.advance(newest - 5 * MINUTE);
    }
    let told = driven.finish();
    let closed = |label: &str| {
        told.iter()
            .filter(|told| matches!(told, Told::Closed(_, labels) if labels == label))
            .count()
    };
    let (learned, _) = sorted(&told);
    for (_, label) in learned {
        assert!(["1", "np", "n", "0"].contains(&label.as_str()), "{label}");
    }
    (closed("1"), closed("0"), driven.joiner.counts().clone())
}

/// An impression that is clicked ten seconds later, and its click.
fn clicked(id: u64, user: u64, item: u64, time: i64, names: bool) -> (Record, Record) {
    let click = outcome(id, 0, user, item, time + 10_000);
    let click = if names { naming(id, click) } else { click };
    (Record::Impression(impression(id, user, item, time)), Record::Outcome(click))
}

/// All impressions are clicked. One in ten comes three quarters of an hour late, its click at once: what comes when its window is over has no
/// label, and all others are positive.
#[test]
fn impressions_that_are_sent_in_bulk_are_positive_or_without_a_label() {
    for (rule, names) in [(Wait, true), (Fnw, true), (Wait, false), (Fnw, false)] {
        let mut arrivals: Vec<(i64, Record)> = Vec::new();
        for k in 0..6_000 {
            let (time, bulk) = (k * 1_000, k % 10 == 0);
            let user = (k % 500 + if bulk { 1_000 } else { 0 }) as u64;
            // Without a name the items of a user differ, so that it is known which is meant.
            let item = if names { k as u64 % 50 } else { k as u64 };
            let (shown, click) = clicked(k as u64 + 1, user, item, time, names);
            arrivals.push((time + if bulk { 45 * MINUTE } else { 0 }, shown));
            arrivals.push((time + 10_000, click));
        }
        arrivals.sort_by_key(|(arrival, _)| *arrival);
        let records: Vec<Record> = arrivals.into_iter().map(|(_, record)| record).collect();
        let (positive, negative, counts) = play(&clicks(rule), &records);
        // The newest time is the arrival, up to the last click at 6,009 s: late are those until 6,009 - 5 * 60 - 30 * 60 s.
        let late = (0..6_000).step_by(10).filter(|k| *k < 6_009 - 35 * 60).count();
        assert_eq!((positive, negative), (6_000 - late, 0));
        assert_eq!(counts.kinds[0].late_impressions, late as u64);
        assert_eq!((counts.late_impressions, counts.unopened), (late as u64, late as u64));
        let without = counts.kinds[0].late + counts.kinds[0].orphaned.iter().sum::<u64>();
        assert_eq!(without, late as u64);
    }
}

/// Twenty users with six hundred clicked impressions each; then the producer sends the first half again.
#[test]
fn what_a_producer_sends_again_after_an_outage_changes_nothing() {
    let mut records: Vec<Record> = Vec::new();
    for k in 0..12_000 {
        let (shown, click) = clicked(k + 1, k % 20, k / 20 % 50, 500 * k as i64, true);
        records.extend([shown, click]);
    }
    records.sort_by_key(Record::time);
    let once = play(&clicks(Wait), &records);
    let again: Vec<Record> = records[..6_000].to_vec();
    let shown = again.iter().filter(|record| matches!(record, Record::Impression(_))).count();
    records.extend(again);
    let (positive, negative, counts) = play(&clicks(Wait), &records);
    assert_eq!((positive, negative), (12_000, 0));
    assert_eq!((once.0, once.1, once.2.opened), (12_000, 0, counts.opened));
    assert_eq!(counts.duplicate_impressions, shown as u64);
    assert_eq!(counts.kinds[0].duplicate, 6_000 - shown as u64);
    assert_eq!((counts.late_impressions, counts.kinds[0].late), (0, 0));
}
