//! Guard rails of learning: what says whether the model may be published, and whether its parameters may be kept.
//!
//! | watched | a window | not sound | until | meanwhile |
//! |---|---|---|---|---|
//! | figures of each task | [`WINDOW`] final labels, and as many more until 50 of each class are observed or predicted | log loss above 1.2 times that of the window's own rate, or calibration (sum of predictions over sum of labels, of positives and of negatives) outside 0.5 to 2, or one of the two comes to nothing | a window of that task is sound | nothing is published |
//! | refused batches | [`BATCHES`] batches with labels | more than 1 % refused | a window is sound | nothing is published, no checkpoint is made |
//!
//! Bad figures heal by learning on: what is true has changed, and older parameters would be worse. Refused batches do not: a batch is
//! refused because its loss or a gradient is not finite, and the parameters may be the cause. So they are not kept while that goes on, nor
//! within `CLEAN` batches of a refused one, and [`TOO_MANY`] refused ones without a sound window between them end the run: the
//! next start goes on from the checkpoint before, parameters and state together.

mod window;

use serde::{Deserialize, Serialize};

pub use window::{Fault, Window};

/// Final labels of one task in a window, at least.
pub const WINDOW: u32 = 10_000;
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

/// A window that was not sound.
#[derive(Clone, Debug, PartialEq)]
pub struct Breach {
    /// Index of the task.
    pub task: usize,
    /// Its figures, in words.
    pub figures: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Task {
    /// The window that is being filled.
    window: Window,
    /// Windows before it, as far as that matters.
    windows: u32,
    /// The last window if it was not sound.
    breach: Option<Window>,
}

impl Task {
    fn breach(&self) -> Option<String> {
        let window = self.breach?;
        window.fault().map(|fault| window.told(fault))
    }
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
        state.window.add(label, p);
        if !state.window.is_full() {
            return None;
        }
        let window = state.window;
        let judged = state.windows >= GRACE;
        *state = Task {
            window: window.next(),
            windows: state.windows.saturating_add(1),
            breach: (judged && window.fault().is_some()).then_some(window),
        };
        state.breach().map(|figures| Breach { task, figures })
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
        let figures = self.tasks.iter().zip(names);
        let figures =
            figures.filter_map(|(task, name)| Some(format!("{name}: {}", task.breach()?)));
        let refused = (!self.batches.sound()).then(|| self.batches.told());
        let causes: Vec<String> = figures.chain(refused).collect();
        (!causes.is_empty()).then(|| causes.join("; "))
    }
}

#[cfg(test)]
mod tests;
