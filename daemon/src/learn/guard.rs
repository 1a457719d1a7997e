//! Guard rails of learning: what says whether the model may be published, and whether its parameters may be kept.
//!
//! | watched | a window | not sound | until | meanwhile |
//! |---|---|---|---|---|
//! | figures of each task | [`WINDOW`] final labels | log loss above 1.2 times that of the window's own rate, or calibration (sum of predictions over sum of labels) outside 0.5 to 2 | a window of that task is sound | nothing is published |
//! | refused batches | [`BATCHES`] batches with labels | more than 1 % refused | a window is sound | nothing is published, no checkpoint is made |
//!
//! Bad figures heal by learning on: what is true has changed, and older parameters would be worse. Refused batches do not: a batch is
//! refused because its loss or a gradient is not finite, and the parameters may be the cause. So they are not kept while that goes on, nor
//! within `CLEAN` batches of a refused one, and [`TOO_MANY`] refused ones without a sound window between them end the run: the
//! next start goes on from the checkpoint before, parameters and state together.

use serde::{Deserialize, Serialize};

/// Final labels of one task in a window.
pub const WINDOW: u32 = 10_000;
/// Positives that a window needs before its calibration says anything.
const POSITIVES: f64 = 50.0;
/// The largest sound quotient of log loss and entropy of the rate.
const WORST_ENTROPY: f64 = 1.2;
/// Sound calibration.
const CALIBRATION: std::ops::RangeInclusive<f64> = 0.5..=2.0;
/// Batches with labels in a window of refusals.
pub const BATCHES: u32 = 1_000;
/// More refused ones in a window are a breach: 1 %.
const REFUSED: u32 = 10;
/// So many refused ones without a sound window between them end the run.
pub const TOO_MANY: u32 = 100;
/// So many batches must have been taken since one was refused before parameters are kept. What makes a part of all batches fail, a row that is
/// far out or a layer, shows in fewer.
const CLEAN: u32 = 20;
/// The first windows of a new model teach it the rate: they are not judged.
const GRACE: u32 = 2;

/// What a window looked like when it was not sound.
#[derive(Clone, Debug, PartialEq)]
pub struct Breach {
    /// Index of the task.
    pub task: usize,
    /// Log loss over the entropy of the window's rate.
    pub normalised_entropy: f64,
    /// Predictions over labels.
    pub calibration: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Task {
    examples: u32,
    positives: f64,
    predicted: f64,
    loss: f64,
    windows: u32,
    /// Normalised entropy and calibration of the last window if it was not sound.
    breach: Option<(f64, f64)>,
}

/// What the batches refused so far mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusals {
    /// Nothing has changed.
    #[default]
    Quiet,
    /// With this one there are too many in a window.
    Breach,
    /// With this one learning ends.
    TooMany,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Batches {
    /// In this window.
    seen: u32,
    refused: u32,
    /// Refused since a window was sound.
    unsound: u32,
    /// The window before was a breach.
    breached: bool,
    /// Taken since one was refused, at most [`CLEAN`]; `None` before the first one.
    clean: Option<u32>,
}

impl Batches {
    fn record(&mut self, refused: bool) -> Refusals {
        let before = self.sound();
        self.seen += 1;
        if refused {
            self.refused += 1;
            self.unsound += 1;
            self.clean = Some(0);
        } else if let Some(clean) = &mut self.clean {
            *clean = (*clean + 1).min(CLEAN);
        }
        let outcome = match () {
            () if refused && self.unsound >= TOO_MANY => Refusals::TooMany,
            () if before && !self.sound() => Refusals::Breach,
            () => Refusals::Quiet,
        };
        if self.seen == BATCHES {
            self.breached = self.refused > REFUSED;
            self.unsound = if self.breached { self.unsound } else { 0 };
            (self.seen, self.refused) = (0, 0);
        }
        outcome
    }

    fn sound(&self) -> bool {
        !self.breached && self.refused <= REFUSED
    }

    fn told(&self) -> String {
        format!(
            "{} batches were refused since a window of {BATCHES} was sound (at most {REFUSED}), {} of the last {}; at {TOO_MANY} learning ends",
            self.unsound, self.refused, self.seen
        )
    }
}

/// The guard over all tasks and batches.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guard {
    tasks: Vec<Task>,
    batches: Batches,
}

impl Guard {
    /// Creates the guard of so many tasks.
    pub fn new(tasks: usize) -> Self {
        Self { tasks: vec![Task::default(); tasks], batches: Batches::default() }
    }

    /// Records a final label beside its prediction. Returns the breach when this label ends a window that is not sound.
    pub fn record(&mut self, task: usize, label: bool, p: f32) -> Option<Breach> {
        let state = &mut self.tasks[task];
        let p = f64::from(p).clamp(1e-7, 1.0 - 1e-7);
        state.examples += 1;
        state.positives += f64::from(u8::from(label));
        state.predicted += p;
        state.loss -= if label { p.ln() } else { (1.0 - p).ln() };
        if state.examples < WINDOW {
            return None;
        }
        let n = f64::from(state.examples);
        let rate = (state.positives / n).clamp(1e-7, 1.0 - 1e-7);
        let entropy = -(rate * rate.ln() + (1.0 - rate) * (1.0 - rate).ln());
        let normalised_entropy = state.loss / n / entropy;
        let calibration = state.predicted / state.positives.max(1.0);
        let judged = state.windows >= GRACE && state.positives >= POSITIVES;
        let sound = normalised_entropy <= WORST_ENTROPY && CALIBRATION.contains(&calibration);
        *state = Task {
            windows: state.windows.saturating_add(1),
            breach: (judged && !sound).then_some((normalised_entropy, calibration)),
            ..Task::default()
        };
        (judged && !sound).then_some(Breach { task, normalised_entropy, calibration })
    }

    /// Records a batch with labels, and whether it was refused.
    pub fn batch(&mut self, refused: bool) -> Refusals {
        self.batches.record(refused)
    }

    /// Tells whether every task's last window was sound and few batches are refused: only then is anything published.
    pub fn sound(&self) -> bool {
        self.verdicts() == [true; 2]
    }

    /// Tells whether the figures of the tasks' last windows, and the refused batches, are sound.
    pub fn verdicts(&self) -> [bool; 2] {
        [self.tasks.iter().all(|task| task.breach.is_none()), self.batches.sound()]
    }

    /// Tells why the parameters may not take the place of those that were kept last; `None` when they may.
    pub fn not_to_keep(&self) -> Option<String> {
        if !self.batches.sound() {
            return Some(self.batches.told());
        }
        let clean = self.batches.clean.filter(|clean| *clean < CLEAN)?;
        Some(format!("a batch was refused {clean} batches ago: expected {CLEAN} that are taken"))
    }

    /// Tells what is not sound; `None` when all is. `names` are those of the tasks.
    pub fn cause(&self, names: &[&str]) -> Option<String> {
        let figures = self.tasks.iter().zip(names).filter_map(|(task, name)| {
            let (entropy, calibration) = task.breach?;
            Some(format!(
                "{name}: over the last {WINDOW} labels the log loss was {entropy:.3} times that of their rate (at most {WORST_ENTROPY}), predictions over \
                 labels {calibration:.3} ({} to {})",
                CALIBRATION.start(),
                CALIBRATION.end()
            ))
        });
        let refused = (!self.batches.sound()).then(|| self.batches.told());
        let causes: Vec<String> = figures.chain(refused).collect();
        (!causes.is_empty()).then(|| causes.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(guard: &mut Guard, p: f32) -> Option<Breach> {
        (0..WINDOW).filter_map(|i| guard.record(0, i % 10 == 0, p)).next()
    }

    #[test]
    fn a_broken_calibration_stops_publishing_until_a_sound_window() {
        let mut guard = Guard::new(1);
        assert_eq!(feed(&mut guard, 0.9), None, "the first windows are not judged");
        assert_eq!(feed(&mut guard, 0.1), None);
        assert_eq!(feed(&mut guard, 0.1), None);
        let breach = feed(&mut guard, 0.3).expect("three times the rate is a breach");
        assert!((breach.calibration - 3.0).abs() < 0.01 && !guard.sound());
        assert_eq!(feed(&mut guard, 0.1), None);
        assert!(guard.sound());
    }

    #[test]
    fn more_than_a_hundredth_of_refused_batches_is_a_breach_until_a_sound_window() {
        let mut guard = Guard::new(1);
        // Ten in a thousand are borne for ever.
        for i in 0..20 * BATCHES {
            assert_eq!(guard.batch(i % 100 == 99), Refusals::Quiet);
            assert!(guard.sound());
        }
        for i in 0..11 {
            assert!(guard.sound(), "{i}");
            let wanted = if i == 10 { Refusals::Breach } else { Refusals::Quiet };
            assert_eq!(guard.batch(true), wanted);
        }
        let told = guard.cause(&["click"]).unwrap();
        assert!(told.contains("11 batches were refused") && !told.contains("click"), "{told}");
        assert_eq!((guard.sound(), guard.verdicts()), (false, [true, false]));
        // The window ends as a breach; the next one is sound at its end.
        for _ in 0..2 * BATCHES - 12 {
            assert_eq!(guard.batch(false), Refusals::Quiet);
            assert!(!guard.sound() && guard.not_to_keep().is_some());
        }
        guard.batch(false);
        assert!(
            guard.sound() && guard.cause(&["click"]).is_none() && guard.not_to_keep().is_none()
        );
    }

    #[test]
    fn too_many_refused_batches_end_learning() {
        // All of them, and two in a hundred.
        for every in [1, 50] {
            let mut guard = Guard::new(1);
            let refused = |i: u32| i.is_multiple_of(every);
            let last = (TOO_MANY - 1) * every;
            for i in 0..last {
                assert_ne!(guard.batch(refused(i)), Refusals::TooMany, "{i}");
            }
            assert_eq!(guard.batch(refused(last)), Refusals::TooMany, "one in {every}");
        }
    }

    #[test]
    fn parameters_are_not_kept_right_after_a_refused_batch() {
        let mut guard = Guard::new(1);
        assert_eq!(guard.not_to_keep(), None);
        guard.batch(true);
        assert!(guard.sound());
        for _ in 0..CLEAN {
            assert!(guard.not_to_keep().is_some());
            guard.batch(false);
        }
        assert_eq!(guard.not_to_keep(), None);
    }
}
