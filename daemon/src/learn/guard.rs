//! Guard rails of learning: figures over the newest judged examples of each task that say whether the model may be published.
//!
//! Every [`WINDOW`] final labels of a task the guard looks at the log loss and the calibration (sum of predictions over sum of
//! labels) of that window. A log loss above 1.2 times that of the window's own rate, or a calibration outside
//! 0.5 to 2, is a breach: publishing stops until a window of that task is sound again.

use serde::{Deserialize, Serialize};

/// Final labels of one task in a window.
pub const WINDOW: u32 = 10_000;
/// Positives that a window needs before its calibration says anything.
const POSITIVES: f64 = 50.0;
/// The largest sound quotient of log loss and entropy of the rate.
const WORST_ENTROPY: f64 = 1.2;
/// Sound calibration.
const CALIBRATION: std::ops::RangeInclusive<f64> = 0.5..=2.0;
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
    breached: bool,
}

/// The guard over all tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guard {
    tasks: Vec<Task>,
}

impl Guard {
    /// Creates the guard of so many tasks.
    pub fn new(tasks: usize) -> Self {
        Self { tasks: vec![Task::default(); tasks] }
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
            breached: judged && !sound,
            ..Task::default()
        };
        (judged && !sound).then_some(Breach { task, normalised_entropy, calibration })
    }

    /// Tells whether every task's last window was sound: only then is anything published.
    pub fn sound(&self) -> bool {
        self.tasks.iter().all(|task| !task.breached)
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
}
