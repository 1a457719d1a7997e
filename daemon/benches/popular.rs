//! What an outcome costs the popular lists, in a usual stream and in hostile ones: `cargo bench -p sluice-daemon --bench popular`.
//!
//! Each figure is nanoseconds an outcome. A hostile shape should cost about what the usual one does, whatever the number of items.

use std::hint::black_box;
use std::time::Instant;

use sluice_daemon::pipeline::popular::Popular;
use sluice_features::ids::stable_hash;
use sluice_features::time::{EventTime, Span};

const START: i64 = 1_650_812_741_436;
const HALF_LIFE: Span = Span::seconds(24 * 3600);
const CATEGORIES: u32 = 1_000;

fn random(number: u64, below: u32) -> u32 {
    (stable_hash(&number.to_le_bytes()) % u64::from(below)) as u32
}

/// Plays outcomes `(item, category, milliseconds)` of so many items three times and prints the best.
fn measure(name: &str, items: u32, outcomes: u64, outcome: impl Fn(u64) -> (u32, u32, i64)) {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let mut popular = Popular::new(HALF_LIFE);
        (0..items).for_each(|item| popular.appeared(item, item % CATEGORIES));
        let begun = Instant::now();
        for k in 0..outcomes {
            let (item, category, time) = outcome(k);
            popular.observe(item, category, EventTime(START + time));
        }
        black_box(popular.overall());
        best = best.min(begun.elapsed().as_secs_f64() * 1e9 / outcomes as f64);
    }
    println!("{name:<66} {best:>9.0} ns an outcome");
}

fn main() {
    for items in [100_000, 1_000_000] {
        let outcomes = 2 * u64::from(items);
        measure(&format!("{items} items, few of them with most outcomes"), items, outcomes, |k| {
            let hit = random(k, 10) < 9;
            let item = if hit { random(k + 1, 2_000) } else { random(k + 1, items) };
            (item, item % CATEGORIES, k as i64)
        });
        measure(&format!("{items} items, all touched one after the other"), items, outcomes, |k| {
            let item = (k % u64::from(items)) as u32;
            (item, item % CATEGORIES, k as i64)
        });
        // Each becomes the first, or the last that is listed, of one and the same category.
        measure(
            &format!("{items} items, each rises to the top of one list"),
            items,
            outcomes,
            |k| ((k % u64::from(items)) as u32, 0, 600 * k as i64),
        );
        measure(&format!("{items} items, all weigh the same"), items, outcomes, |k| {
            ((k % u64::from(items)) as u32, 0, 0)
        });
        measure(&format!("{items} items that change their category"), items, outcomes, |k| {
            (random(k, items), random(k + 1, CATEGORIES), k as i64)
        });
    }
}
