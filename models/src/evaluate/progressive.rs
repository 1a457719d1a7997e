//! Predict, record, then learn: the figures of every task of a funnel.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sluice_features::time::{EventTime, Span};

use super::grouped::{Entry, Newest};
use super::period::Split;
use super::report::{ByTask, Report, TaskFigures, Window};
use super::series::Series;
use super::tally::Tally;

/// The steps in which a sliding window moves: an eighth of its length.
const PANES: usize = 8;

/// How long and how fine the figures are kept; with the number of tasks this bounds the memory.
///
/// A histogram takes at most 256 KiB and in practice a quarter of that; a task has two for the
/// whole stream, 16 for the sliding window, and two for each open window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The length of a window of event time, at least a millisecond. Windows begin at its multiples.
    pub window: Span,
    /// How many windows of a task stay open for labels that come late, the newest included. An
    /// example of a closed window counts in the whole stream only (see [`Progressive::late`]).
    pub open_windows: usize,
    /// How many closed windows are remembered with their figures; the oldest go first.
    pub closed_windows: usize,
    /// The length of the sliding window, at least eight milliseconds. It moves in eighths, so it
    /// covers between seven eighths of this and all of it.
    pub sliding: Span,
    /// Over how many of the newest examples of a task the grouped AUC is computed, 24 bytes each.
    pub grouped: usize,
}

impl Default for Settings {
    /// Windows of a day of which nine are open (a week of delay), a thousand remembered; a sliding
    /// window of an hour; 131,072 examples for the grouped AUC (3 MiB a task).
    fn default() -> Self {
        Self {
            window: Span::seconds(24 * 3600),
            open_windows: 9,
            closed_windows: 1000,
            sliding: Span::seconds(3600),
            grouped: 1 << 17,
        }
    }
}

/// A final label beside the prediction that was made before it was known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// What happened.
    pub label: bool,
    /// The predicted probability.
    pub probability: f32,
    /// When the impression was, which decides its window.
    pub at: EventTime,
    /// Whose ranking it belongs to: the user's id.
    pub group: u64,
    /// Whether nothing had been learned of the item before.
    pub new_item: bool,
}

/// The progressive evaluation of all tasks. Serialisable for checkpoints: restored from a binary
/// format it continues with the same bits. (JSON as `serde_json` reads it may lose a last bit.)
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progressive {
    settings: Settings,
    tasks: Vec<Task>,
    refused: u64,
}

/// What is kept of one task.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Task {
    name: String,
    whole: Split,
    panes: Series,
    windows: Series,
    closed: BTreeMap<EventTime, TaskFigures>,
    newest: Newest,
    late: u64,
}

impl Progressive {
    /// Creates an evaluation of the named tasks, in the order of the funnel.
    pub fn new(tasks: &[&str], settings: Settings) -> Self {
        let pane = Span(settings.sliding.0 / PANES as i64);
        let task = |name: &&str| Task {
            name: (*name).to_owned(),
            whole: Split::default(),
            panes: Series::new(pane, PANES),
            windows: Series::new(settings.window, settings.open_windows),
            closed: BTreeMap::new(),
            newest: Newest::new(settings.grouped),
            late: 0,
        };
        Self { tasks: tasks.iter().map(task).collect(), settings, refused: 0 }
    }

    /// Records a final label of the task with that number. A probability outside `[0, 1]`, NaN
    /// included, is refused: counted, and part of no figure.
    ///
    /// # Panics
    /// When there is no such task.
    pub fn record(&mut self, task: usize, judgement: &Judgement) {
        let Judgement { label, probability, at, group, new_item } = *judgement;
        if !(0.0..=1.0).contains(&probability) {
            self.refused += 1;
            return;
        }
        self.tasks[task].record(
            Entry { at, group, probability, label, new_item },
            self.settings.closed_windows,
        );
    }

    /// Returns the names of the tasks, in order.
    pub fn tasks(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().map(|task| task.name.as_str())
    }

    /// Returns the settings that this evaluation was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns how many predictions were no probability.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Returns how many examples of a task came after their window had been closed.
    ///
    /// # Panics
    /// When there is no such task.
    pub fn late(&self, task: usize) -> u64 {
        self.tasks[task].late
    }

    /// Returns the figures of a task over the whole stream; its grouped AUC is that of the newest
    /// [`Settings::grouped`] examples.
    ///
    /// # Panics
    /// When there is no such task.
    pub fn whole(&self, task: usize) -> TaskFigures {
        let task = &self.tasks[task];
        task.figures(&task.whole, |_| true)
    }

    /// Returns the figures of a task over the sliding window that ends with its newest example.
    ///
    /// # Panics
    /// When there is no such task.
    pub fn sliding(&self, task: usize) -> TaskFigures {
        let task = &self.tasks[task];
        let mut sum = Split::default();
        task.panes.open().for_each(|(_, pane)| sum.merge(pane));
        task.figures(&sum, |entry| task.panes.begin().is_some_and(|begin| entry.at >= begin))
    }

    /// Returns the sums of a task over the sliding window: log loss and calibration, cheap enough
    /// to be asked after every step.
    ///
    /// # Panics
    /// When there is no such task.
    pub fn sliding_tally(&self, task: usize) -> Tally {
        let mut sum = Tally::default();
        for (_, pane) in self.tasks[task].panes.open() {
            sum.merge(pane.warm.tally());
            sum.merge(pane.new.tally());
        }
        sum
    }

    /// The length of a window, as the tasks count it.
    fn span(&self) -> Span {
        Span(self.settings.window.0.max(1))
    }

    /// Returns the windows of event time in which any task has examples, oldest first.
    pub fn windows(&self) -> Vec<Window> {
        let by_task: Vec<_> = self.tasks.iter().map(Task::windows).collect();
        let starts: BTreeSet<EventTime> =
            by_task.iter().flat_map(BTreeMap::keys).copied().collect();
        let window = |start: EventTime| {
            let figures = by_task.iter().map(|windows| windows.get(&start).cloned());
            let named = self.tasks().map(str::to_owned);
            Window {
                start,
                end: start + self.span(),
                tasks: ByTask(named.zip(figures.map(Option::unwrap_or_default)).collect()),
            }
        };
        starts.into_iter().map(window).collect()
    }

    /// Returns all figures.
    pub fn report(&self) -> Report {
        let by_task = |figures: &dyn Fn(usize) -> TaskFigures| {
            let named = self.tasks().map(str::to_owned).enumerate();
            ByTask(named.map(|(i, name)| (name, figures(i))).collect())
        };
        Report {
            tasks: by_task(&|task| self.whole(task)),
            sliding: by_task(&|task| self.sliding(task)),
            windows: self.windows(),
        }
    }
}

impl Task {
    fn record(&mut self, entry: Entry, remembered: usize) {
        let Entry { at, probability, label, new_item, .. } = entry;
        let probability = f64::from(probability);
        self.whole.record(label, probability, new_item);
        if let Some(pane) = self.panes.slot(at, |_, _| ()) {
            pane.record(label, probability, new_item);
        }

        let Self { windows, closed, newest, .. } = self;
        let span = windows.span();
        let slot = windows.slot(at, |start, split| {
            closed.insert(start, figures(split, newest, |e| e.at >= start && e.at < start + span));
            if closed.len() > remembered {
                closed.pop_first();
            }
        });
        match slot {
            Some(window) => window.record(label, probability, new_item),
            None => self.late += 1,
        }
        self.newest.push(entry);
    }

    fn figures(&self, split: &Split, pass: impl Fn(&Entry) -> bool) -> TaskFigures {
        figures(split, &self.newest, pass)
    }

    fn windows(&self) -> BTreeMap<EventTime, TaskFigures> {
        let span = self.windows.span();
        let open = self.windows.open().map(|(start, split)| {
            (start, self.figures(split, |e| e.at >= start && e.at < start + span))
        });
        self.closed.iter().map(|(&start, figures)| (start, figures.clone())).chain(open).collect()
    }
}

/// Completes the figures of `split` by the grouped AUC of those kept examples that pass.
fn figures(split: &Split, newest: &Newest, pass: impl Fn(&Entry) -> bool) -> TaskFigures {
    let mut figures = split.figures();
    figures.all.grouped_auc = newest.auc(&pass);
    figures.warm.grouped_auc = newest.auc(|entry| !entry.new_item && pass(entry));
    figures.new.grouped_auc = newest.auc(|entry| entry.new_item && pass(entry));
    figures
}

#[cfg(test)]
mod tests;
