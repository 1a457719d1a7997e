//! Sets of tasks, what is known of an impression's labels, and when each task is learned.

use serde::{Deserialize, Serialize};

use crate::event::BehaviourType;
use crate::example::LabelMode;
use crate::funnel::{Entry, Funnel, LabelRule};
use crate::time::Span;

/// A set of tasks of a funnel (at most [`crate::funnel::MAX_TASKS`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskSet(u16);

impl TaskSet {
    /// No task.
    pub const EMPTY: Self = Self(0);

    /// Tells whether there is no task in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Tells whether a task is in it.
    pub fn contains(self, task: usize) -> bool {
        self.0 >> task & 1 == 1
    }

    /// Returns the set with a task more.
    #[must_use]
    pub const fn with(self, task: usize) -> Self {
        Self(self.0 | 1 << task)
    }

    /// Returns the tasks that are in this set or the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the tasks that are in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the tasks of this set that are not in the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns the tasks in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..16).filter(move |&task| self.contains(task))
    }
}

impl FromIterator<usize> for TaskSet {
    fn from_iter<I: IntoIterator<Item = usize>>(tasks: I) -> Self {
        tasks.into_iter().fold(Self::EMPTY, Self::with)
    }
}

/// The labels of one example: for each task its value and what it means for the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    positive: TaskSet,
    known: TaskSet,
    fnw_negative: TaskSet,
    fnw_positive: TaskSet,
}

impl Labels {
    /// Returns final labels of `tasks`: 1 for those in `positive`, 0 for the others.
    pub fn known(tasks: TaskSet, positive: TaskSet) -> Self {
        Self { positive: positive.and(tasks), known: tasks, ..Self::default() }
    }

    /// Returns FNW's immediate negatives of `tasks`.
    pub fn fnw_negative(tasks: TaskSet) -> Self {
        Self { fnw_negative: tasks, ..Self::default() }
    }

    /// Returns FNW's later positives of `tasks`.
    pub fn fnw_positive(tasks: TaskSet) -> Self {
        Self { positive: tasks, fnw_positive: tasks, ..Self::default() }
    }

    /// Returns these labels and those of other tasks together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            positive: self.positive.or(other.positive),
            known: self.known.or(other.known),
            fnw_negative: self.fnw_negative.or(other.fnw_negative),
            fnw_positive: self.fnw_positive.or(other.fnw_positive),
        }
    }

    /// Returns these labels with further tasks masked.
    #[must_use]
    pub fn masking(self, tasks: TaskSet) -> Self {
        Self {
            positive: self.positive.without(tasks),
            known: self.known.without(tasks),
            fnw_negative: self.fnw_negative.without(tasks),
            fnw_positive: self.fnw_positive.without(tasks),
        }
    }

    /// Returns the label of a task, 0 or 1; 0 where it is masked.
    pub fn label(self, task: usize) -> f32 {
        f32::from(u8::from(self.positive.contains(task)))
    }

    /// Returns what the label of a task means for the loss.
    pub fn mode(self, task: usize) -> LabelMode {
        if self.known.contains(task) {
            LabelMode::Final
        } else if self.fnw_negative.contains(task) {
            LabelMode::FnwNegative
        } else if self.fnw_positive.contains(task) {
            LabelMode::FnwPositive
        } else {
            LabelMode::Masked
        }
    }

    /// Tells whether all tasks are masked.
    pub fn is_empty(self) -> bool {
        self.known.or(self.fnw_negative).or(self.fnw_positive).is_empty()
    }
}

/// A moment of an impression's life at which windows close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stage {
    /// How long after the impression.
    pub(super) window: Span,
    /// The tasks whose windows close then.
    pub(super) closed: TaskSet,
    /// Those of them that are learned then.
    pub(super) learned: TaskSet,
}

/// What the funnel says about labels.
#[derive(Clone, Debug)]
pub(super) struct LabelRules {
    parents: Vec<Option<usize>>,
    windows: Vec<Span>,
    fnw: TaskSet,
    at_once: TaskSet,
    stages: Vec<Stage>,
    behaviours: usize,
}

impl LabelRules {
    pub(super) fn new(funnel: &Funnel) -> Self {
        let tasks = funnel.tasks();
        let with_rule = |rule| -> TaskSet {
            (0..tasks.len()).filter(|&task| tasks[task].labels == rule).collect()
        };
        let at_once = match funnel.entry() {
            Entry::Impression => TaskSet::EMPTY,
            Entry::View { .. } => TaskSet::EMPTY.with(0),
        };
        let windows: Vec<Span> = tasks.iter().map(|task| task.window).collect();
        let wait = with_rule(LabelRule::Wait).without(at_once);
        let stage = |&window: &Span| {
            let closed: TaskSet =
                (0..tasks.len()).filter(|&task| tasks[task].window == window).collect();
            Stage { window, closed, learned: closed.and(wait) }
        };
        let mut ends = windows.clone();
        ends.sort_unstable();
        ends.dedup();
        let stages = ends.iter().map(stage).collect();
        Self {
            parents: funnel.parents(),
            windows,
            fnw: with_rule(LabelRule::Fnw).without(at_once),
            at_once,
            stages,
            behaviours: funnel.behaviours(),
        }
    }

    /// Returns the task of a behaviour, unless it is an extra one.
    pub(super) fn task(&self, kind: BehaviourType) -> Option<usize> {
        (usize::from(kind.0) < self.windows.len()).then_some(usize::from(kind.0))
    }

    pub(super) fn window(&self, task: usize) -> Span {
        self.windows[task]
    }

    pub(super) fn behaviours(&self) -> usize {
        self.behaviours
    }

    pub(super) fn tasks(&self) -> TaskSet {
        (0..self.windows.len()).collect()
    }

    pub(super) fn fnw(&self) -> TaskSet {
        self.fnw
    }

    /// Returns the tasks whose label is 1 from the start: the view where views open the funnel.
    pub(super) fn at_once(&self) -> TaskSet {
        self.at_once
    }

    /// Returns the moments at which windows close, in order; the last one closes the impression.
    pub(super) fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Returns what is learned of an impression when it arrives: `fnw` negatives save the masked ones, and what is certain, for which no rule
    /// has to wait.
    pub(super) fn arrival(&self, masked: TaskSet) -> Labels {
        let certain = Labels::known(self.at_once, self.at_once);
        Labels::fnw_negative(self.fnw.without(masked)).and(certain)
    }

    /// Returns the tasks whose label cannot be known where outcomes of the `missing` tasks may be missing: those tasks and all below them,
    /// save what is certain from the start. A child whose own outcomes are all there is masked too: without its parent's it could only be
    /// found to be 0.
    pub(super) fn unknown(&self, missing: TaskSet) -> TaskSet {
        let mut unknown = missing;
        for (task, parent) in self.parents.iter().enumerate() {
            if parent.is_some_and(|parent| unknown.contains(parent)) {
                unknown = unknown.with(task);
            }
        }
        unknown.without(self.at_once)
    }

    /// Returns how long after an impression the outcomes of each task count.
    pub(super) fn windows(&self) -> &[Span] {
        &self.windows
    }

    /// Returns the tasks whose outcome and whose ancestors' outcomes were all seen.
    pub(super) fn positive(&self, seen: TaskSet) -> TaskSet {
        let mut positive = TaskSet::EMPTY;
        for task in seen.iter() {
            if self.parents[task].is_none_or(|parent| positive.contains(parent)) {
                positive = positive.with(task);
            }
        }
        positive
    }
}
