//! How long the stages of a record take, by a sample: the caller gives the clock, and without one nothing is measured.

use std::time::Duration;

/// Every so many records one is measured. A prime, so that no rhythm of the input is in step with it.
const EVERY: u32 = 61;

/// A part of what becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Bytes become a valid event.
    Decode,
    /// Names, features and counters are looked up, and counted on.
    Look,
    /// Outcomes find their impressions, behaviours are remembered, windows close.
    Join,
    /// Rows of a batch are made, histories included.
    Assemble,
}

impl Stage {
    /// All stages with what they are called in reports, in the order of a record's life.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Decode, "decoding"),
        (Self::Look, "looking up"),
        (Self::Join, "joining"),
        (Self::Assemble, "assembling"),
    ];
}

/// A clock that never goes back.
pub type SteadyClock = Box<dyn Fn() -> Duration + Send + Sync>;

/// Time by stage.
#[derive(Default)]
pub struct Stages {
    clock: Option<SteadyClock>,
    records: u64,
    measured: u64,
    until: u32,
    /// The record at hand is measured.
    on: bool,
    last: Duration,
    spent: [Duration; Stage::ALL.len()],
}

impl Stages {
    /// Begins anew, with a clock.
    pub(super) fn watch(&mut self, clock: SteadyClock) {
        *self = Self { clock: Some(clock), ..Self::default() };
    }

    /// Begins a record.
    pub(super) fn begin(&mut self) {
        let Some(clock) = &self.clock else { return };
        self.records += 1;
        self.on = self.until == 0;
        if self.on {
            (self.until, self.last) = (EVERY, clock());
            self.measured += 1;
        }
        self.until -= 1;
    }

    /// Adds the time since the last call to a stage.
    #[inline]
    pub(super) fn lap(&mut self, stage: Stage) {
        if self.on {
            self.add(stage);
        }
    }

    /// Ends a record; what is left of it belongs to a stage.
    pub(super) fn end(&mut self, stage: Stage) {
        self.lap(stage);
        self.on = false;
    }

    /// Returns how long all records together have taken in each stage, by the order of [`Stage::ALL`], as the sample says.
    pub fn spent(&self) -> [Duration; Stage::ALL.len()] {
        let scale = self.records as f64 / self.measured.max(1) as f64;
        self.spent.map(|spent| spent.mul_f64(scale))
    }

    #[cold]
    fn add(&mut self, stage: Stage) {
        if let Some(clock) = &self.clock {
            let now = clock();
            self.spent[stage as usize] += now.saturating_sub(self.last);
            self.last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_sample_stands_for_all_records() {
        let ticks = AtomicU64::new(0);
        let mut stages = Stages::default();
        stages
            .watch(Box::new(move || Duration::from_micros(ticks.fetch_add(1, Ordering::Relaxed))));
        for _ in 0..10 * EVERY {
            stages.begin();
            stages.lap(Stage::Decode);
            stages.lap(Stage::Join);
            stages.end(Stage::Assemble);
        }
        let each = Duration::from_micros(10 * u64::from(EVERY));
        assert_eq!(stages.spent(), [each, Duration::ZERO, each, each]);
    }

    #[test]
    fn without_a_clock_nothing_is_measured() {
        let mut stages = Stages::default();
        stages.begin();
        stages.end(Stage::Join);
        assert_eq!(stages.spent(), [Duration::ZERO; 4]);
    }
}
