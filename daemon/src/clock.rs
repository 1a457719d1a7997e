//! The clock: the only place that asks the system for the time. Tests turn a clock by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluice_features::time::EventTime;

/// A clock that all parts of one daemon share.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { start: Instant },
    Manual { start: i64, passed: Arc<AtomicU64> },
}

impl Clock {
    /// Returns the system's clock.
    pub fn system() -> Self {
        Self(Source::System { start: Instant::now() })
    }

    /// Returns a clock that stands at a wall time until it is turned.
    pub fn manual(wall: EventTime) -> Self {
        Self(Source::Manual { start: wall.0, passed: Arc::new(AtomicU64::new(0)) })
    }

    /// Returns the time since the clock was made, for measuring lengths of time. It never goes back.
    pub fn steady(&self) -> Duration {
        match &self.0 {
            Source::System { start } => start.elapsed(),
            Source::Manual { passed, .. } => Duration::from_micros(passed.load(Ordering::Acquire)),
        }
    }

    /// Returns the wall time, for timestamps that leave the process. It may jump.
    pub fn wall(&self) -> EventTime {
        EventTime(match &self.0 {
            Source::System { .. } => {
                let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
            }
            Source::Manual { start, passed } => {
                start + i64::try_from(passed.load(Ordering::Acquire) / 1000).unwrap_or(i64::MAX)
            }
        })
    }

    /// Turns a manual clock forward; the system's clock turns itself.
    pub fn turn(&self, duration: Duration) {
        if let Source::Manual { passed, .. } = &self.0 {
            let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
            passed.fetch_add(micros, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_until_it_is_turned() {
        let clock = Clock::manual(EventTime(1_000_000));
        let shared = clock.clone();
        let before = clock.steady();
        assert_eq!(shared.steady(), before);
        shared.turn(Duration::from_millis(1500));
        assert_eq!(clock.steady() - before, Duration::from_millis(1500));
        assert_eq!(clock.wall(), EventTime(1_001_500));
    }

    #[test]
    fn the_systems_clock_does_not_go_back() {
        let clock = Clock::system();
        let first = clock.steady();
        assert!(clock.steady() >= first);
        assert!(clock.wall() > EventTime(1_600_000_000_000));
    }
}
