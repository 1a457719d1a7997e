//! How long a call takes: the shortest of many short runs.
//!
//! A run is shorter than the slices in which a busy system hands out its cores, so that the shortest one was not interrupted. Peers are
//! measured in the same way.

use std::time::{Duration, Instant};

/// Length of one run, at least.
pub(super) const RUN: Duration = Duration::from_millis(8);
/// Length of all runs of one figure. Tests look at rows, not at times.
pub(super) const ALL: Duration = Duration::from_millis(if cfg!(test) { 30 } else { 1200 });

/// Returns the seconds of one call.
pub(super) fn seconds(mut call: impl FnMut()) -> f64 {
    let mut shortest = f64::INFINITY;
    let begun = Instant::now();
    while begun.elapsed() < ALL {
        let (run, mut calls) = (Instant::now(), 0_u32);
        while run.elapsed() < RUN {
            call();
            calls += 1;
        }
        shortest = shortest.min(run.elapsed().as_secs_f64() / f64::from(calls));
    }
    shortest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_takes_as_long_as_it_sleeps() {
        let sleep = Duration::from_millis(3);
        let seconds = seconds(|| std::thread::sleep(sleep));
        assert!((0.003..0.1).contains(&seconds), "{seconds}");
    }
}
