//! How many events a core decodes in a second: `cargo bench -p sluice-features --bench decode`.

use std::hint::black_box;
use std::time::Instant;

use sluice_features::funnel::{Entry, Funnel, LabelRule, Task};
use sluice_features::time::{EventTime, Span};
use sluice_features::wire::{ArrivalTime, Scratch, decode_event, decode_request};

const EVENTS: usize = 2_000;
const ROUNDS: usize = 1_000;

fn main() {
    let task = Task {
        name: "click".into(),
        parent: None,
        window: Span::seconds(60),
        labels: LabelRule::Wait,
    };
    let Ok(funnel) = Funnel::build(Entry::Impression, "impression", vec![task], vec![]) else {
        return;
    };
    // Every reader of messages is part of the program, as in the daemon: what the compiler inlines depends on it.
    let request = br#"{"id":"q","kind":"recommend","user":"7"}"#;
    black_box(decode_request(black_box(request), ArrivalTime(None)).is_ok());
    let clock = ArrivalTime(Some(EventTime(1_650_812_800_000)));
    let impression = |i: usize| {
        format!(
            r#"{{"v":1,"type":"impression","id":"r{i}/3","ts":{},"user":"{}","item":"{}","request":"r{i}","position":3,"surface":"home","context":{{"device":"ios","tab":7}}}}"#,
            1_650_812_741_436 + i,
            i % 7919,
            i % 15_383
        )
    };
    let click = |i: usize| {
        format!(
            r#"{{"type":"click","id":"c{i}","ts":{},"user":"{}","item":"{}","impression":"r{i}/3"}}"#,
            1_650_812_741_436 + i,
            i % 7919,
            i % 15_383
        )
    };
    let kinds: [(&str, &dyn Fn(usize) -> String); 2] =
        [("impression", &impression), ("click", &click)];
    for (name, make) in kinds {
        let messages: Vec<String> = (0..EVENTS).map(make).collect();
        let bytes: usize = messages.iter().map(String::len).sum();
        let mut scratch = Scratch::default();
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for message in &messages {
                let decoded = decode_event(message.as_bytes(), &funnel, clock, &mut scratch);
                black_box(decoded.is_ok());
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!(
            "decode {name} ({} bytes): {:.2} M events/s, {:.0} MB/s",
            bytes / EVENTS,
            EVENTS as f64 / best / 1e6,
            bytes as f64 / best / 1e6
        );
    }
}
