//! What an event costs the joiner, in usual streams and in hostile ones: `cargo bench -p sluice-features --bench joiner`.
//!
//! Each figure is nanoseconds an event, from arrival until all windows have closed. A hostile shape should cost about what a usual one of as
//! many open impressions does, whatever their number.

use std::hint::black_box;
use std::time::Instant;

use sluice_features::attribution::{Effect, JoinLimits, Joiner, Opened, Outcome, WAITING_BYTES};
use sluice_features::event::BehaviourType;
use sluice_features::funnel::{Entry, Funnel, LabelRule, Task};
use sluice_features::ids::{EventId, ItemId, UserId, stable_hash};
use sluice_features::time::{EventTime, Span};

const START: i64 = 1_650_812_741_436;
const WINDOW: Span = Span::seconds(1800);

/// A joiner whose effects are carried out at once.
struct Bench {
    joiner: Joiner<()>,
    effects: Vec<Effect>,
    events: u64,
}

impl Bench {
    /// A chain of so many tasks.
    fn new(tasks: usize) -> Self {
        let task = |i: usize| Task {
            name: format!("t{i}"),
            parent: i.checked_sub(1),
            window: WINDOW,
            labels: LabelRule::Wait,
        };
        let tasks = (0..tasks).map(task).collect();
        let funnel = Funnel::build(Entry::Impression, "impression", tasks, vec![]);
        let funnel = funnel.expect("a sound funnel");
        let limits = JoinLimits { early_bytes: 100_000 * WAITING_BYTES, ..JoinLimits::default() };
        Self { joiner: Joiner::new(&funnel, limits), effects: Vec::new(), events: 0 }
    }

    fn impression(&mut self, id: u64, user: u64, item: u64, time: i64) {
        let opened = Opened {
            id: event(id),
            user: UserId(hash(user)),
            item: ItemId(hash(item)),
            time: EventTime(START + time),
            number: self.events,
            new_item: false,
            payload: (),
        };
        self.joiner.impression(opened, || (), &mut self.effects);
        self.handle();
    }

    fn click(&mut self, id: u64, user: u64, item: u64, time: i64, names: Option<u64>) {
        self.outcome(0, id, user, item, time, names);
    }

    fn outcome(&mut self, kind: u8, id: u64, user: u64, item: u64, time: i64, names: Option<u64>) {
        let outcome = Outcome {
            id: event(id),
            kind: BehaviourType(kind),
            user: UserId(hash(user)),
            item: ItemId(hash(item)),
            time: EventTime(START + time),
            impression: names.map(event),
        };
        black_box(self.joiner.outcome(outcome, &mut self.effects));
        self.handle();
    }

    fn handle(&mut self) {
        self.events += 1;
        self.close();
    }

    fn close(&mut self) {
        for effect in self.effects.drain(..) {
            if let Effect::Closed { place, .. } = black_box(effect) {
                self.joiner.take(place);
            }
        }
    }

    fn advance(&mut self, time: EventTime) {
        while self.joiner.advance(time, &mut self.effects) {
            self.close();
        }
        self.close();
    }
}

fn hash(number: u64) -> u64 {
    stable_hash(&number.to_le_bytes())
}

fn event(number: u64) -> EventId {
    EventId(hash(number))
}

/// Plays a shape three times and prints the best.
fn measure(name: &str, play: impl Fn(&mut Bench)) {
    measure_chain(name, 1, play);
}

/// The same with a chain of so many tasks.
fn measure_chain(name: &str, tasks: usize, play: impl Fn(&mut Bench)) {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let mut bench = Bench::new(tasks);
        let begun = Instant::now();
        play(&mut bench);
        bench.advance(EventTime::MAX);
        best = best.min(begun.elapsed().as_secs_f64() * 1e9 / bench.events as f64);
    }
    println!("{name:<66} {best:>9.0} ns an event");
}

/// Impressions a millisecond apart, a fifth of them clicked after ten seconds; the watermark follows five minutes behind.
fn usual(bench: &mut Bench, count: u64, names: bool, who: impl Fn(u64) -> (u64, u64)) {
    for k in 0..count {
        let time = k as i64;
        let (user, item) = who(k);
        bench.impression(2 * k, user, item, time);
        if let Some(shown) = k.checked_sub(10_000).filter(|k| k % 5 == 0) {
            let (user, item) = who(shown);
            bench.click(2 * shown + 1, user, item, time, names.then_some(2 * shown));
        }
        bench.advance(EventTime(START + time - 300_000));
    }
}

fn main() {
    let shop = |k: u64| (hash(k) % 100_000, hash(k + 7) % 10_000);
    measure("400,000 open, clicks name their impression", |b| usual(b, 400_000, true, shop));
    measure("400,000 open, clicks name none", |b| usual(b, 400_000, false, shop));
    for count in [20_000, 40_000] {
        measure(&format!("{count} open, own profiles: user = item"), |b| {
            usual(b, count, true, |k| (k, k));
        });
        measure(&format!("{count} open, two look at each other"), |b| {
            usual(b, count, true, |k| (k, k ^ 1));
        });
        measure(
            &format!("{count} open of a robot's one item, in order, clicks of old ones"),
            |b| {
                for k in 0..count {
                    b.impression(k, 1, 1, k as i64);
                }
                for k in 0..count {
                    b.click(count + k, 1, 1, (hash(k) % count) as i64, None);
                }
            },
        );
        measure(&format!("{count} open of a robot's one item, in the opposite order"), |b| {
            for k in (0..count).rev() {
                b.impression(k, 1, 1, k as i64);
            }
        });
        measure(
            &format!("{count} clicks of a guest's one item wait, impressions after them"),
            |b| {
                for k in 0..count {
                    b.click(k, 1, 1, (hash(k) % count) as i64, None);
                }
                for k in 0..count {
                    b.impression(count + k, 1, 1, (count + k) as i64);
                }
            },
        );
        measure(&format!("{count} clicks of a guest's one item wait and find theirs"), |b| {
            let gap = WINDOW.0 / count as i64;
            for k in 0..count {
                b.click(2 * k, 1, 1, k as i64 * gap, None);
            }
            for k in (0..count).rev() {
                b.impression(2 * k + 1, 1, 1, k as i64 * gap);
            }
        });
    }
    // Each impression with an outcome of every type; ids that are different, then those of one round equal but for the type, then one id for all
    // that a user does.
    let rounds = |b: &mut Bench, id: &dyn Fn(u64, u64) -> u64| {
        for k in 0..100_000 {
            let (time, (user, item)) = (k as i64, shop(k));
            b.impression(id(k, 0), user, item, time);
            for kind in 0..4 {
                b.outcome(kind, id(k, 1 + u64::from(kind)), user, item, time + 1, None);
            }
            b.advance(EventTime(START + time - 300_000));
        }
    };
    measure_chain("100,000 times four outcomes, ids of their own", 4, |b| {
        rounds(b, &|k, event| 5 * k + event);
    });
    measure_chain("100,000 times four outcomes, ids equal but for the type", 4, |b| {
        rounds(b, &|k, _| k);
    });
    measure_chain("100,000 times four outcomes, one id for all", 4, |b| rounds(b, &|_, _| 1));
    measure("400,000 windows close at once", |b| {
        for k in 0..400_000 {
            let (user, item) = shop(k);
            b.impression(k, user, item, k as i64 % 1000);
        }
    });
}
