//! From an event's time to an answer that has learned it.
//!
//! Events come at an even rate with the time at which they were due. Small requests are asked all the time; each answer says until which
//! event time everything is learned, so every millisecond that it covers and the one before did not is a sample: this answer's arrival
//! less that time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::PATIENCE;
use super::site::{Site, wall};
use super::times::Times;
use crate::query::{Asker, Kind, fresh_id, question, readable};

/// How long events run before their times count, and how long these run.
const BEFORE: i64 = 2_000;
const LENGTH: i64 = 10_000;
/// Time between two questions.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Deserialize)]
struct Learned {
    learned_until: i64,
}

/// Asks while a load runs. Milliseconds, a sample for each millisecond of event time.
///
/// # Errors
/// When an answer is missing or an error.
pub(super) fn measure(site: &mut Site) -> Result<Times> {
    let (requests, responses) = (site.topic("requests"), site.topic("responses"));
    let mut asker = Asker::open(&site.connection(), &requests, &responses, PATIENCE)?;
    let first = wall() + BEFORE;
    let (mut samples, deadline) = (Samples::of(first, first + LENGTH), Instant::now() + PATIENCE);
    while !samples.are_complete() && Instant::now() < deadline {
        let id = fresh_id();
        let items = ["i1".to_owned(), "i2".to_owned()];
        let text = question(&id, Kind::Rank, Some("u1"), &items, 2, PATIENCE)?;
        let answer = asker.ask(&id, Some("u1"), &text, PATIENCE)?;
        let now = wall();
        readable(&answer)?;
        let learned: Learned =
            serde_json::from_str(&answer).context("the answer has no learned_until")?;
        samples.covered(learned.learned_until, now);
        site.pause(PAUSE)?;
    }
    Ok(samples.finish(wall()))
}

/// Milliseconds of event time, until each was covered.
struct Samples {
    next: i64,
    end: i64,
    took: Vec<f64>,
}

impl Samples {
    fn of(first: i64, end: i64) -> Self {
        Self { next: first, end, took: Vec::new() }
    }

    fn are_complete(&self) -> bool {
        self.next >= self.end
    }

    /// At `now` everything up to and with `until` is learned.
    fn covered(&mut self, until: i64, now: i64) {
        while self.next <= until && self.next < self.end {
            self.took.push((now - self.next) as f64);
            self.next += 1;
        }
    }

    /// What was never covered has waited until now at least.
    fn finish(mut self, now: i64) -> Times {
        self.covered(self.end, now);
        Times::sorted(self.took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_millisecond_waits_for_the_first_answer_that_covers_it() {
        let mut samples = Samples::of(100, 110);
        samples.covered(99, 120);
        assert!(samples.took.is_empty());
        samples.covered(103, 130);
        samples.covered(103, 140);
        assert_eq!(samples.took, [30.0, 29.0, 28.0, 27.0]);
        samples.covered(150, 160);
        assert!(samples.are_complete() && samples.took.len() == 10);
        assert!((Samples::of(0, 1).finish(500).at(1.0) - 500.0).abs() < 1e-9);
    }
}
