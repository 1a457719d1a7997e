//! The rules one by one, and the joiner against brute force.

mod cases;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::reference::{Record, known, truth};
use super::*;
use crate::example::LabelMode;
use crate::funnel::{Entry, Funnel, LabelRule, Task};

/// The payload of the tests: the impression's number.
impl Payload for u64 {
    fn memory(&self) -> usize {
        8
    }
}

fn funnel(entry: Entry, tasks: &[(Option<usize>, i64, LabelRule)]) -> Funnel {
    let tasks: Vec<Task> = tasks
        .iter()
        .enumerate()
        .map(|(i, &(parent, window, labels))| Task {
            name: format!("t{i}"),
            // A view is nobody's parent.
            parent: parent.filter(|&task| task > 0 || entry == Entry::Impression),
            window: Span(window),
            labels,
        })
        .collect();
    let name = if entry == Entry::Impression { "impression" } else { "t0" };
    Funnel::build(entry, name, tasks, vec!["extra".into()]).unwrap()
}

fn impression(id: u64, user: u64, item: u64, time: i64) -> Opened<()> {
    let (id, user, item) = (EventId(id), UserId(user), ItemId(item));
    let time = EventTime(time);
    Opened { id, user, item, time, number: id.0, new_item: false, payload: () }
}

fn outcome(id: u64, kind: u8, user: u64, item: u64, time: i64) -> Outcome {
    Outcome {
        id: EventId(id),
        kind: BehaviourType(kind),
        user: UserId(user),
        item: ItemId(item),
        time: EventTime(time),
        impression: None,
    }
}

fn naming(impression: u64, outcome: Outcome) -> Outcome {
    Outcome { impression: Some(EventId(impression)), ..outcome }
}

/// What a joiner told to do, with the impression's event id in the place of its place, and labels as text: `1`, `0`, `n` and `p` for
/// `fnw` negative and positive, `-` for masked.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Positive(u64, Vec<usize>, i64),
    Example(u64, String),
    Closed(u64, String),
}

/// A joiner whose effects are handled at once.
struct Driven {
    funnel: Funnel,
    joiner: Joiner<u64>,
    effects: Vec<Effect>,
    /// What was put away, where that is done.
    away: Option<Vec<u64>>,
    told: Vec<Told>,
    /// Labels that have become final of impressions that are still open.
    finals: std::collections::HashMap<u64, Labels>,
}

impl Driven {
    fn new(funnel: &Funnel) -> Self {
        let joiner = Joiner::new(funnel, JoinLimits::default());
        Self {
            funnel: funnel.clone(),
            joiner,
            effects: Vec::new(),
            away: None,
            told: Vec::new(),
            finals: Default::default(),
        }
    }

    fn open(&mut self, impression: Opened<()>) -> bool {
        let number = impression.number;
        let place = self.joiner.impression(impression, || number, &mut self.effects);
        self.handle();
        place.is_some()
    }

    fn act(&mut self, outcome: Outcome) -> Fate {
        let fate = self.joiner.outcome(outcome, &mut self.effects);
        self.handle();
        fate
    }

    fn advance(&mut self, time: i64) {
        let mut more = true;
        while more {
            more = self.joiner.advance(EventTime(time), &mut self.effects);
            assert!(self.effects.len() <= 3 * MOST_CLOSINGS, "more than a portion");
            self.handle();
        }
    }

    fn finish(&mut self) -> Vec<Told> {
        self.advance(EventTime::MAX.0);
        assert_eq!(self.joiner.memory(), 0, "everything open is gone at the end");
        self.told()
    }

    fn told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    fn handle(&mut self) {
        let text = |labels: Labels| -> String {
            (0..self.funnel.tasks().len())
                .map(|task| match labels.mode(task) {
                    LabelMode::Masked => '-',
                    LabelMode::Final if labels.label(task) > 0.5 => '1',
                    LabelMode::Final => '0',
                    LabelMode::FnwNegative => 'n',
                    LabelMode::FnwPositive => 'p',
                })
                .collect()
        };
        let is_payload = |away: &Option<Vec<u64>>, opened: &Opened<Kept<u64>>| match opened.payload
        {
            Kept::Here(payload) => payload == opened.number,
            Kept::Away(at) => away.as_ref().unwrap()[at as usize] == opened.number,
        };
        for effect in self.effects.drain(..) {
            let told = match effect {
                Effect::Positive { place, tasks, time } => {
                    assert!(is_payload(&self.away, self.joiner.get(place)));
                    Told::Positive(self.joiner.get(place).id.0, tasks.iter().collect(), time.0)
                }
                Effect::Example { place, labels } => {
                    assert!(is_payload(&self.away, self.joiner.get(place)));
                    Told::Example(self.joiner.get(place).id.0, text(labels))
                }
                Effect::Waits { place } => {
                    if let Some(away) = &mut self.away {
                        let before = self.joiner.memory();
                        let number = away.len() as u64;
                        away.extend(self.joiner.put_away(place, number));
                        assert_eq!(self.joiner.memory(), before - 8);
                        assert_eq!(self.joiner.put_away(place, 0), None, "once");
                    }
                    continue;
                }
                Effect::Final { place, labels } => {
                    let id = self.joiner.get(place).id.0;
                    let known = self.finals.entry(id).or_default();
                    *known = known.and(labels);
                    continue;
                }
                Effect::Closed { place, labels } => {
                    let opened = self.joiner.take(place);
                    assert_eq!(
                        self.finals.remove(&opened.id.0),
                        Some(labels),
                        "told window by window"
                    );
                    assert!(is_payload(&self.away, &opened));
                    Told::Closed(opened.id.0, text(labels))
                }
            };
            self.told.push(told);
        }
    }
}

fn example(id: u64, labels: &str) -> Told {
    Told::Example(id, labels.into())
}

fn closed(id: u64, labels: &str) -> Told {
    Told::Closed(id, labels.into())
}

use LabelRule::{Fnw, Wait};

fn chain(windows: [i64; 3], labels: LabelRule) -> Funnel {
    let [a, b, c] = windows;
    funnel(Entry::Impression, &[(None, a, labels), (Some(0), b, labels), (Some(0), c, labels)])
}

#[test]
fn both_ends_of_a_window_count_and_it_closes_strictly_after_its_end() {
    let mut driven = Driven::new(&chain([10, 10, 10], Wait));
    driven.open(impression(1, 1, 1, 100));
    driven.open(impression(2, 2, 1, 100));
    assert!(matches!(driven.act(outcome(3, 0, 1, 1, 100)), Fate::Attributed(_)));
    driven.advance(110);
    assert!(matches!(driven.act(outcome(4, 0, 2, 1, 110)), Fate::Attributed(_)));
    assert_eq!(driven.told(), [Told::Positive(1, vec![0], 100), Told::Positive(2, vec![0], 110)]);
    driven.advance(111);
    let expected = [example(1, "100"), closed(1, "100"), example(2, "100"), closed(2, "100")];
    assert_eq!(driven.told(), expected);
    assert_eq!(driven.act(naming(2, outcome(5, 1, 2, 1, 110))), Fate::Waiting);
    driven.finish();
    assert_eq!(driven.joiner.counts().kinds[1].late, 1, "its impression had closed before");
}

#[test]
fn with_windows_of_zero_there_is_one_example_an_impression_in_the_order_of_arrival() {
    let mut driven = Driven::new(&chain([0, 0, 0], Wait));
    for (id, time) in [(5, 100), (3, 100), (4, 101)] {
        driven.advance(time);
        driven.open(impression(id, id, 1, time));
        for task in [0, 2] {
            driven.act(naming(id, outcome(10 * id + u64::from(task), task, id, 1, time)));
        }
    }
    let told = driven.finish();
    let examples: Vec<&Told> =
        told.iter().filter(|told| matches!(told, Told::Example(..))).collect();
    // Numbers are ids here, so 3 stands before 5 at the same deadline.
    assert_eq!(examples, [&example(3, "101"), &example(5, "101"), &example(4, "101")]);
}

#[test]
fn tasks_with_equal_windows_are_learned_together_and_others_at_their_own_time() {
    let mut driven = Driven::new(&chain([5, 20, 5], Wait));
    driven.open(impression(1, 1, 1, 0));
    driven.act(outcome(2, 0, 1, 1, 1));
    driven.told();
    driven.advance(6);
    assert_eq!(driven.told(), [example(1, "1-0")]);
    assert_eq!(driven.act(naming(1, outcome(3, 2, 1, 1, 4))), Fate::Late);
    driven.act(outcome(4, 1, 1, 1, 7));
    driven.told();
    assert_eq!(driven.finish(), [example(1, "-1-"), closed(1, "110")]);
}

#[test]
fn what_is_kept_may_be_put_away_after_the_first_of_several_windows() {
    let mut driven = Driven::new(&chain([5, 20, 5], Wait));
    driven.away = Some(Vec::new());
    for (id, time) in [(1, 0), (2, 1)] {
        driven.open(impression(id, id, 1, time));
    }
    driven.advance(6);
    assert_eq!(driven.away, Some(vec![1]), "its first window is over");
    driven.finish();
    assert_eq!(driven.away, Some(vec![1, 2]));
    let mut driven = Driven::new(&chain([5, 5, 5], Wait));
    driven.away = Some(Vec::new());
    driven.open(impression(1, 1, 1, 0));
    driven.finish();
    assert_eq!(driven.away, Some(Vec::new()), "nothing waits longer");
}

#[test]
fn fnw_learns_negatives_at_arrival_and_positives_when_they_are_seen() {
    let rules = [(None, 5, Fnw), (Some(0), 20, Fnw), (None, 5, Wait)];
    let mut driven = Driven::new(&funnel(Entry::Impression, &rules));
    driven.open(impression(1, 1, 1, 0));
    assert_eq!(driven.told(), [example(1, "nn-")]);
    driven.act(outcome(2, 1, 1, 1, 2));
    assert_eq!(driven.told(), [], "the parent was not seen yet");
    driven.act(outcome(3, 0, 1, 1, 3));
    assert_eq!(driven.told(), [Told::Positive(1, vec![0, 1], 3), example(1, "pp-")]);
    driven.advance(6);
    assert_eq!(driven.told(), [example(1, "--0")]);
    assert_eq!(driven.finish(), [closed(1, "110")]);
}

#[test]
fn a_child_without_its_parent_is_zero_and_counted() {
    let mut driven = Driven::new(&chain([5, 5, 5], Wait));
    driven.open(impression(1, 1, 1, 0));
    assert!(matches!(driven.act(outcome(2, 1, 1, 1, 2)), Fate::Attributed(_)));
    assert_eq!(driven.finish(), [example(1, "000"), closed(1, "000")]);
    assert_eq!(driven.joiner.counts().kinds[1].childless, 1);
}

#[test]
fn an_outcome_waits_for_its_impression_and_becomes_an_orphan_when_none_comes() {
    let mut driven = Driven::new(&chain([5, 5, 5], Fnw));
    assert_eq!(driven.act(outcome(2, 0, 1, 1, 12)), Fate::Waiting);
    assert_eq!(driven.act(naming(1, outcome(3, 1, 1, 1, 14))), Fate::Waiting);
    assert_eq!(driven.act(naming(1, outcome(4, 2, 1, 2, 14))), Fate::Waiting);
    assert_eq!(driven.act(outcome(5, 0, 1, 9, 12)), Fate::Waiting);
    driven.open(impression(1, 1, 1, 10));
    let turned = [
        example(1, "nnn"),
        // The one that names its impression is taken first and has no parent yet.
        Told::Positive(1, vec![0, 1], 12),
        example(1, "pp-"),
    ];
    assert_eq!(driven.told(), turned);
    driven.advance(17);
    assert_eq!(driven.joiner.counts().kinds[0].waiting, 1);
    driven.advance(18);
    let kinds = &driven.joiner.counts().kinds;
    assert_eq!(kinds[0].orphaned[Orphan::NoImpression as usize], 1);
    assert_eq!(kinds[2].orphaned[Orphan::OtherItem as usize], 1);
    assert_eq!((kinds[0].waiting, kinds[1].waiting, kinds[2].waiting), (0, 0, 0));
}

#[test]
fn a_named_impression_must_fit_in_item_and_time() {
    let mut driven = Driven::new(&chain([5, 5, 5], Wait));
    driven.open(impression(1, 1, 1, 10));
    let named = |id, item, time| naming(1, outcome(id, 0, 1, item, time));
    assert_eq!(driven.act(named(2, 2, 11)), Fate::Orphaned(Orphan::OtherItem));
    assert_eq!(driven.act(named(3, 1, 9)), Fate::Orphaned(Orphan::BeforeImpression));
    assert_eq!(driven.act(named(4, 1, 16)), Fate::Orphaned(Orphan::OutsideWindow));
    assert!(matches!(driven.act(named(5, 1, 15)), Fate::Attributed(_)));
}

#[test]
fn without_a_name_the_newest_impression_that_covers_it_is_meant() {
    let mut driven = Driven::new(&chain([5, 5, 5], Wait));
    for (id, time) in [(1, 10), (2, 12), (3, 20)] {
        driven.open(impression(id, 1, 1, time));
    }
    driven.act(outcome(4, 0, 1, 1, 13));
    assert_eq!(driven.told(), [Told::Positive(2, vec![0], 13)]);
    assert_eq!(driven.act(outcome(5, 0, 1, 1, 19)), Fate::Waiting);
}

#[test]
fn a_newer_impression_out_of_order_takes_over_what_is_its_own() {
    let mut driven = Driven::new(&chain([9, 9, 9], Fnw));
    driven.open(impression(1, 1, 1, 10));
    for (id, task, time) in [(3, 0, 11), (4, 0, 14), (5, 1, 15), (6, 2, 12)] {
        driven.act(outcome(id, task, 1, 1, time));
    }
    driven.told();
    driven.open(impression(2, 1, 1, 13));
    // Task 1 counted for the older impression already and is announced only once.
    let moved = [example(2, "nnn"), Told::Positive(2, vec![0], 15), example(2, "pp-")];
    assert_eq!(driven.told(), moved);
    assert_eq!(driven.finish(), [closed(1, "101"), closed(2, "110")]);
    let kinds = &driven.joiner.counts().kinds;
    assert_eq!((kinds[0].attributed, kinds[0].repeated, kinds[0].moved), (2, 0, 1));
    assert_eq!((kinds[1].attributed, kinds[1].repeated, kinds[1].moved), (1, 0, 1));
}

#[test]
fn a_second_copy_changes_nothing() {
    let mut driven = Driven::new(&chain([5, 5, 5], Wait));
    assert!(driven.open(impression(1, 1, 1, 10)));
    assert!(!driven.open(impression(1, 1, 1, 10)));
    assert!(matches!(driven.act(outcome(1, 0, 1, 1, 11)), Fate::Attributed(_)), "other space");
    assert_eq!(driven.act(outcome(1, 0, 1, 1, 11)), Fate::Duplicate);
    assert_eq!(driven.act(outcome(2, 0, 1, 1, 11)), Fate::Repeated);
    assert_eq!(driven.act(outcome(3, 3, 1, 1, 11)), Fate::Extra);
    assert_eq!(driven.act(outcome(3, 3, 1, 1, 11)), Fate::Duplicate);
    let counts = driven.joiner.counts();
    assert_eq!((counts.opened, counts.duplicate_impressions), (1, 1));
}

#[test]
fn a_late_action_does_not_change_a_closed_label() {
    let mut driven = Driven::new(&chain([5, 50, 5], Fnw));
    driven.open(impression(1, 1, 1, 10));
    driven.advance(16);
    // Without a name it may be one of an impression that is still to come.
    assert_eq!(driven.act(outcome(2, 0, 1, 1, 15)), Fate::Waiting);
    assert_eq!(driven.act(naming(1, outcome(3, 0, 1, 1, 15))), Fate::Late);
    assert!(matches!(driven.act(outcome(4, 1, 1, 1, 17)), Fate::Attributed(_)));
    assert_eq!(driven.finish(), [example(1, "nnn"), closed(1, "000")]);
    assert_eq!(driven.joiner.counts().kinds[0].late, 2);
    assert_eq!(driven.act(outcome(5, 0, 1, 1, 15)), Fate::Late, "far behind the watermark");
}

#[test]
fn an_impression_that_comes_after_its_windows_has_no_label_and_is_counted() {
    for rule in [Wait, Fnw] {
        let mut driven = Driven::new(&chain([5, 5, 5], rule));
        driven.act(naming(1, outcome(2, 0, 1, 1, 51)));
        driven.advance(56);
        assert!(!driven.open(impression(1, 1, 1, 50)));
        assert!(!driven.open(impression(1, 1, 1, 50)), "a second copy is a duplicate");
        assert_eq!(driven.act(naming(1, outcome(3, 1, 1, 1, 52))), Fate::Waiting);
        assert_eq!(driven.finish(), []);
        let counts = driven.joiner.counts();
        assert_eq!((counts.opened, counts.late_impressions, counts.closed), (0, 1, 0));
        assert_eq!(counts.unopened, 1);
        assert_eq!(counts.duplicate_impressions, 1);
        let kinds = &counts.kinds;
        assert_eq!([0, 1, 2].map(|task| kinds[task].late_impressions), [1, 1, 1]);
        assert_eq!([0, 1, 2].map(|task| kinds[task].late), [1, 1, 0]);
    }
}

#[test]
fn an_impression_that_comes_within_its_window_finds_all_its_outcomes() {
    // They wait for as long as it may take, named or not.
    let mut driven = Driven::new(&chain([5_000_000, 5_000_000, 5_000_000], Wait));
    driven.act(naming(1, outcome(2, 0, 1, 1, 10)));
    driven.act(outcome(3, 1, 1, 1, 20));
    driven.advance(5_000_000);
    assert!(driven.open(impression(1, 1, 1, 0)));
    assert_eq!(driven.told(), [Told::Positive(1, vec![0], 10), Told::Positive(1, vec![1], 20)]);
    assert_eq!(driven.finish(), [example(1, "110"), closed(1, "110")]);
}

#[test]
fn of_a_late_impression_only_tasks_that_hang_on_no_closed_window_are_learned() {
    for (rule, told) in [(Wait, vec![]), (Fnw, vec![example(1, "--n")])] {
        let tasks = [(None, 5, rule), (Some(0), 20, rule), (None, 20, rule)];
        let mut driven = Driven::new(&funnel(Entry::Impression, &tasks));
        driven.advance(10);
        assert!(driven.open(impression(1, 1, 1, 0)));
        assert_eq!(driven.told(), told);
        // The first has closed, and without it nothing is known of the second.
        assert_eq!(driven.act(naming(1, outcome(2, 0, 1, 1, 4))), Fate::Late);
        assert!(matches!(driven.act(naming(1, outcome(3, 1, 1, 1, 4))), Fate::Attributed(_)));
        assert!(matches!(driven.act(naming(1, outcome(4, 2, 1, 1, 4))), Fate::Attributed(_)));
        let learned = if rule == Wait { "--1" } else { "--p" };
        let told = [Told::Positive(1, vec![2], 4), example(1, learned), closed(1, "--1")];
        assert_eq!(driven.finish(), told);
        let kinds = &driven.joiner.counts().kinds;
        assert_eq!([0, 1, 2].map(|task| kinds[task].late_impressions), [1, 1, 0]);
    }
}

#[test]
fn an_impression_whose_outcomes_may_have_been_given_up_for_want_of_room_has_no_label() {
    let limits = JoinLimits { early_bytes: 2 * WAITING_BYTES, ..JoinLimits::default() };
    let mut driven = Driven::new(&chain([50, 50, 50], Wait));
    driven.joiner = Joiner::new(&driven.funnel, limits);
    for (id, time) in [(1, 10), (2, 11), (3, 12)] {
        assert_eq!(driven.act(naming(100 + id, outcome(id, 1, 1, 1, time))), Fate::Waiting);
    }
    assert_eq!(driven.joiner.counts().kinds[1].orphaned[Orphan::Overflow as usize], 1);
    for (id, time) in [(101, 10), (102, 11)] {
        assert!(driven.open(impression(id, 1, 1, time)));
    }
    let told = driven.finish();
    assert_eq!(told[0], example(101, "0-0"), "the outcome at 10 was its own");
    assert_eq!(told[2], example(102, "000"), "without a click");
    assert_eq!(driven.joiner.counts().kinds[1].late_impressions, 1);
}

#[test]
fn a_view_is_a_positive_of_its_own_task() {
    let view = Entry::View { negatives: 4 };
    let tasks = [(None, 0, Wait), (Some(0), 9, Wait)];
    let mut driven = Driven::new(&funnel(view, &tasks));
    driven.open(impression(1, 1, 1, 10));
    driven.act(outcome(2, 1, 1, 1, 12));
    driven.act(outcome(3, 1, 1, 7, 12));
    assert_eq!(driven.told(), [example(1, "1-"), Told::Positive(1, vec![1], 12)]);
    assert_eq!(driven.finish(), [example(1, "-1"), closed(1, "11")]);
    assert_eq!(driven.joiner.counts().kinds[1].orphaned[0], 1);

    let mut driven = Driven::new(&funnel(view, &[(None, 0, Fnw), (Some(0), 9, Fnw)]));
    driven.open(impression(1, 1, 1, 10));
    assert_eq!(driven.told(), [example(1, "1n")]);
}

#[test]
fn the_state_of_another_funnel_is_refused() {
    let state =
        serde_json::to_value(Driven::new(&chain([1, 1, 1], Wait)).joiner.picture()).unwrap();
    let other = funnel(Entry::Impression, &[(None, 1, Wait)]);
    let state = serde_json::from_value(state).unwrap();
    let error = Joiner::<u64>::restore(&other, JoinLimits::default(), state).unwrap_err();
    assert_eq!(error, OtherFunnel { expected: 2, found: 4 });
}

/// A log in the order of arrival. Unless it is a wild one, each record is at most `lateness` behind the newest time before it.
#[derive(Clone, Debug)]
struct Log {
    funnel: Funnel,
    limits: JoinLimits,
    lateness: i64,
    records: Vec<Record>,
    /// The watermark moves only after every so many records.
    stride: usize,
    /// The joiner is stored and restored after this record.
    pause: usize,
}

prop_compose! {
    fn funnels()(
        view in any::<bool>(),
        tasks in prop::collection::vec((any::<prop::sample::Index>(), 0..7i64, any::<bool>(), any::<bool>()), 1..5),
    ) -> Funnel {
        let entry = if view { Entry::View { negatives: 1 } } else { Entry::Impression };
        let mut built: Vec<(Option<usize>, i64, LabelRule)> = Vec::new();
        for (i, (parent, window, root, fnw)) in tasks.into_iter().enumerate() {
            let parent = (i > 0 && !root).then(|| parent.index(i));
            let window = window + parent.map_or(0, |parent| built[parent].1);
            built.push((parent, window, if fnw { Fnw } else { Wait }));
        }
        funnel(entry, &built)
    }
}

/// Logs of users and items that are each other's and their own, with second copies. A wild log has one user and item at times, records of
/// another age, and records that come at any time.
fn logs(wild: bool) -> impl Strategy<Value = Log> {
    drawn_logs(wild, if wild { 120 } else { 60 })
}

prop_compose! {
    fn drawn_logs(wild: bool, most: usize)(
        funnel in funnels(),
        lateness in prop::sample::select(vec![0, 1, 4, 12]),
        drawn in prop::collection::vec(
            (any::<bool>(), 0..2u64, 0..2u64, 0..40i64, any::<u8>(), any::<prop::sample::Index>(), any::<bool>()),
            1..most,
        ),
        hub in any::<bool>(),
        delays in prop::collection::vec((0..1000i64, any::<u16>()), 150),
        copies in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        stride in 1..5usize,
        pause in any::<prop::sample::Index>(),
    ) -> Log {
        let mut records = Vec::new();
        for (i, (shown, user, item, time, kind, named, names)) in drawn.iter().enumerate() {
            let id = i as u64 + 1;
            let (user, item) = if wild && hub { (&0, &0) } else { (user, item) };
            let time = &if wild && kind % 64 == 63 { time + 1_000_000 } else { *time };
            if *shown {
                records.push(Record::Impression(impression(id, *user, *item, *time)));
                continue;
            }
            let kind = kind % u8::try_from(funnel.behaviours()).unwrap();
            let mut action = outcome(id, kind, *user, *item, *time);
            let &(target_shown, target_user, target_item, ..) = named.get(&drawn);
            if *names && target_shown {
                action = naming(named.index(drawn.len()) as u64 + 1, action);
                // Mostly its own user and item.
                if kind != 0 {
                    (action.user, action.item) = (UserId(target_user), ItemId(target_item));
                }
            }
            records.push(Record::Outcome(action));
        }
        for copy in copies {
            let record = copy.get(&records).clone();
            records.push(record);
        }
        let mut keyed: Vec<(i64, u16, Record)> = records
            .into_iter()
            .zip(delays)
            .map(|(record, (delay, tie))| {
                let most = if wild && tie % 4 == 0 { 60 } else { lateness };
                (record.time() + delay % (most + 1), tie, record)
            })
            .collect();
        keyed.sort_by_key(|(arrival, tie, _)| (*arrival, *tie));
        let mut records: Vec<Record> = keyed.into_iter().map(|(_, _, record)| record).collect();
        for (number, record) in records.iter_mut().enumerate() {
            if let Record::Impression(impression) = record {
                impression.number = number as u64;
            }
        }
        let pause = pause.index(records.len());
        Log { funnel, limits: JoinLimits::default(), lateness, records, stride, pause }
    }
}

impl Log {
    /// Returns the records with the watermark after each.
    fn arrivals(&self) -> Vec<(Record, i64)> {
        let (mut newest, mut watermark) = (i64::MIN, EventTime::MIN.0);
        let after = |(i, record): (usize, &Record)| {
            newest = newest.max(record.time());
            if i % self.stride == 0 {
                watermark = watermark.max(newest - self.lateness);
            }
            (record.clone(), watermark)
        };
        self.records.iter().enumerate().map(after).collect()
    }

    /// Returns the same log without second copies.
    fn once(&self) -> Self {
        let mut seen = Vec::new();
        let mut first = |record: &Record| {
            let key = match record {
                Record::Impression(shown) => (shown.user, shown.id, usize::MAX),
                Record::Outcome(outcome) => (outcome.user, outcome.id, outcome.kind.0.into()),
            };
            let new = !seen.contains(&key);
            seen.push(key);
            new
        };
        let records = self.records.iter().filter(|record| first(record)).cloned().collect();
        Self { records, ..self.clone() }
    }
}

/// What was learned of each impression and task, and their final labels.
fn sorted(told: &[Told]) -> (BTreeMap<(u64, usize), String>, BTreeMap<u64, String>) {
    let (mut learned, mut finals) = (BTreeMap::<_, String>::new(), BTreeMap::new());
    for told in told {
        match told {
            Told::Closed(id, labels) => assert_eq!(finals.insert(*id, labels.clone()), None),
            Told::Example(id, labels) => {
                for (task, mode) in labels.chars().enumerate().filter(|(_, mode)| *mode != '-') {
                    learned.entry((*id, task)).or_default().push(mode);
                }
            }
            Told::Positive(..) => {}
        }
    }
    (learned, finals)
}

/// Plays a log, stored and restored once if so wished, and with what may be put away put away.
fn play(log: &Log, restored: bool, away: bool) -> (Vec<Told>, JoinCounts) {
    let mut driven = Driven::new(&log.funnel);
    driven.joiner = Joiner::new(&log.funnel, log.limits);
    driven.away = away.then(Vec::new);
    for (i, (record, watermark)) in log.arrivals().iter().enumerate() {
        match record {
            Record::Impression(impression) => {
                driven.open(impression.clone());
            }
            Record::Outcome(outcome) => {
                driven.act(*outcome);
            }
        }
        driven.advance(*watermark);
        if restored && i == log.pause {
            let text = serde_json::to_string(&driven.joiner.picture()).unwrap();
            let state = serde_json::from_str(&text).unwrap();
            driven.joiner = Joiner::restore(&log.funnel, log.limits, state).unwrap();
        }
        for kind in &driven.joiner.counts().kinds {
            assert_eq!(kind.fates(), kind.arrived);
        }
    }
    (driven.finish(), driven.joiner.counts().clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_arrival_within_the_lateness_gives_the_labels_of_brute_force(log in logs(false)) {
        let (told, counts) = play(&log, false, false);
        let truth = truth(&log.funnel, &log.records);
        prop_assert_eq!(counts.duplicate_impressions, truth.duplicate_impressions);
        for (mut kind, expected) in counts.kinds.iter().copied().zip(&truth.kinds) {
            kind.orphaned = [kind.orphaned.iter().sum(), 0, 0, 0, 0];
            kind.moved = 0;
            prop_assert_eq!(kind, *expected);
        }

        // Impressions have distinct ids in these logs.
        let labels: BTreeMap<u64, String> = truth
            .labels
            .iter()
            .map(|(key, labels)| {
                (key.1.0, labels.iter().map(|&label| if label { '1' } else { '0' }).collect())
            })
            .collect();
        let (learned, finals) = sorted(&told);
        prop_assert_eq!(&finals, &labels);
        let view = matches!(log.funnel.entry(), Entry::View { .. });
        for (id, labels) in labels {
            for (task, label) in labels.chars().enumerate() {
                let learned = learned.get(&(id, task)).map_or("", String::as_str);
                if log.funnel.tasks()[task].labels == Wait || (view && task == 0) {
                    prop_assert_eq!(learned, label.to_string());
                } else if label == '0' && counts.kinds.iter().any(|kind| kind.moved > 0) {
                    // An outcome that moved leaves what was learned of it.
                    prop_assert!(learned == "n" || learned == "np", "{}", learned);
                } else {
                    prop_assert_eq!(learned, if label == '1' { "np" } else { "n" });
                }
            }
        }
    }

    #[test]
    fn what_comes_too_late_has_no_label_and_all_others_are_those_of_brute_force(log in logs(true)) {
        let (told, counts) = play(&log, false, false);
        let (learned, finals) = sorted(&told);
        let view = matches!(log.funnel.entry(), Entry::View { .. });
        let moved = counts.kinds.iter().any(|kind| kind.moved > 0);
        let (mut late, mut unopened) = (vec![0; log.funnel.tasks().len()], 0);
        for ((_, EventId(id)), labels) in known(&log.funnel, &log.arrivals()) {
            let text = |label: &Option<bool>| label.map_or('-', |label| if label { '1' } else { '0' });
            let expected: String = labels.iter().map(text).collect();
            match finals.get(&id) {
                Some(labels) => prop_assert_eq!(labels, &expected, "of {}", id),
                None => prop_assert!(labels.iter().all(Option::is_none), "{} was not opened", id),
            }
            unopened += u64::from(!finals.contains_key(&id));
            for (task, label) in expected.chars().enumerate() {
                late[task] += u64::from(label == '-');
                let learned = learned.get(&(id, task)).map_or("", String::as_str);
                let wait = log.funnel.tasks()[task].labels == Wait || (view && task == 0);
                match label {
                    '-' => prop_assert_eq!(learned, ""),
                    _ if wait => prop_assert_eq!(learned, label.to_string()),
                    '1' => prop_assert_eq!(learned, "np"),
                    // An outcome that moved leaves what was learned of it.
                    _ => prop_assert!(learned == "n" || moved && learned == "np", "{}", learned),
                }
            }
        }
        let counted: Vec<u64> = counts.kinds.iter().map(|kind| kind.late_impressions).collect();
        prop_assert_eq!(&counted[..late.len()], &late);
        prop_assert_eq!(counts.unopened, unopened);
        let is_shown = |record: &&Record| matches!(record, Record::Impression(_));
        let shown = log.records.iter().filter(is_shown).count() as u64;
        prop_assert_eq!(counts.opened + unopened + counts.duplicate_impressions, shown);
    }

    #[test]
    fn a_copy_changes_no_label_even_when_its_id_is_forgotten(log in logs(true)) {
        let limits = JoinLimits { seen_for: Span::ZERO, ..JoinLimits::default() };
        // The watermark follows each record, for the steps are counted in records.
        let log = Log { limits, stride: 1, ..log };
        prop_assert_eq!(sorted(&play(&log, false, false).0), sorted(&play(&log.once(), false, false).0));
    }

    #[test]
    fn windows_close_in_the_order_of_deadline_and_arrival(log in logs(false)) {
        let (told, _) = play(&log, false, false);
        let longest = log.funnel.longest_window().0;
        let mut before = (i64::MIN, 0);
        for told in told {
            let Told::Closed(id, _) = told else { continue };
            let key = log.records.iter().find_map(|record| match record {
                Record::Impression(shown) if shown.id.0 == id => Some((shown.time.0 + longest, shown.number)),
                _ => None,
            });
            prop_assert!(key > Some(before));
            before = key.unwrap();
        }
    }

    #[test]
    fn a_restored_joiner_goes_on_as_if_nothing_had_happened(log in logs(true)) {
        prop_assert_eq!(play(&log, true, false), play(&log, false, false));
    }

    #[test]
    fn what_was_put_away_changes_nothing(log in logs(true), restored in any::<bool>()) {
        prop_assert_eq!(play(&log, restored, true), play(&log, false, false));
    }
}
