//! Appends, newest-N and search by category in long sequences: `cargo bench -p sluice-features --bench sequence`.

use std::hint::black_box;
use std::time::Instant;

use sluice_features::event::BehaviourType;
use sluice_features::funnel::{self, Funnel, LabelRule, Task};
use sluice_features::ids::UserId;
use sluice_features::sequence::{Entry, KindNumbers, Kinds, Sequences};
use sluice_features::time::{EventTime, Span};

const ROUNDS: u32 = 2_000;
const CATEGORIES: u32 = 400;

fn main() -> Result<(), String> {
    let user = UserId(1);
    let task = |name: &str| Task {
        name: name.into(),
        parent: None,
        window: Span::ZERO,
        labels: LabelRule::Wait,
    };
    let tasks = ["view", "click", "cart", "purchase"].map(task).to_vec();
    let funnel = Funnel::build(funnel::Entry::Impression, "impression", tasks, vec![])
        .map_err(|mistakes| format!("{mistakes:?}"))?;
    let kinds = KindNumbers::new(&funnel);
    let (read, none) = (kinds.configured(), kinds.among(&[]));
    for length in [1_000usize, 10_000, 50_000] {
        let mut best = f64::INFINITY;
        let mut sequences = Sequences::new(0, length, &kinds);
        for _ in 0..3 {
            sequences = Sequences::new(0, length, &kinds);
            let (mut time, mut state) = (1_650_812_741_436, 1u64);
            let start = Instant::now();
            for _ in 0..length {
                // Knuth's 64-bit linear congruential generator: good enough for a load.
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let number = (state >> 33) as u32;
                time += i64::from(number % 300_000);
                // Half of the behaviours fall in a few categories.
                let category =
                    if number & 1 == 0 { number / 2 % 16 } else { number / 2 % CATEGORIES };
                let entry = Entry {
                    item: number % 100_000,
                    category,
                    kind: kinds.number(BehaviourType((number % 4) as u8)),
                    time: EventTime(time),
                };
                black_box(sequences.append(user, entry, EventTime::MAX));
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        let per_behaviour = (sequences.memory() - sequences.fixed_memory()) as f64 / length as f64;
        let now = EventTime::MAX;
        let newest = micros(|sum| {
            sequences.of(user).newest(now, 50, &read, |entry| *sum += u64::from(entry.item));
        });
        let search = |category: u32, limit: usize, read: &Kinds| {
            micros(|sum| {
                sequences.of(user).matching(category, now, limit, read, |entry| {
                    *sum += u64::from(entry.item);
                });
            })
        };
        println!(
            "sequence of {length}: append {:.1} M/s, {per_behaviour:.1} bytes each; newest 50 {newest:.2} us; \
             search 50 of a common category {:.2} us, of a rare one {:.2} us, of none {:.2} us, of types that a common one has not {:.2} us, all of a common one {:.2} us",
            length as f64 / best / 1e6,
            search(3, 50, &read),
            search(CATEGORIES - 1, 50, &read),
            search(CATEGORIES + 1, 50, &read),
            search(3, 50, &none),
            search(3, usize::MAX, &read),
        );
    }
    Ok(())
}

/// Returns the median time of a look in microseconds, warm.
fn micros(mut look: impl FnMut(&mut u64)) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (mut sum, start) = (0, Instant::now());
            look(&mut sum);
            black_box(sum);
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
