//! The funnel: a tree of tasks below the entry event, as configured, and the extra behaviours beside it.
//!
//! Tasks stand in an order in which a parent comes before its children, so that loops over the tree need no recursion.

use serde::{Deserialize, Serialize};

use crate::event::BehaviourType;
use crate::time::Span;

/// Which event opens the funnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// What was shown is known: an impression without outcome is a negative.
    Impression,
    /// Only views are known: each view is a positive of the first task, against `negatives` sampled items; the other tasks are
    /// learned on the views.
    View {
        /// Sampled items for each view.
        negatives: usize,
    },
}

/// When a task's label is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelRule {
    /// Positives and negatives alike when the window closes.
    Wait,
    /// At once as a negative, again as a positive when the outcome arrives; weights correct for the false negatives
    /// (Ktena et al., RecSys 2019).
    Fnw,
}

/// One task: an event type, its parent in the tree, its attribution window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The event type, which is also the task's name everywhere.
    pub name: String,
    /// Index of the parent task; `None` directly below the entry event.
    pub parent: Option<usize>,
    /// An outcome counts when it happens at most this long after the impression.
    pub window: Span,
    /// When the label is learned.
    pub labels: LabelRule,
}

/// The tree of tasks and the extra behaviours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funnel {
    entry: Entry,
    entry_name: String,
    tasks: Vec<Task>,
    extras: Vec<String>,
}

/// What is wrong with a funnel, with the place of the mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct FunnelError {
    /// Path below the funnel's section, such as `tasks.2.parent`.
    pub place: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// The most tasks that a funnel may have.
pub const MAX_TASKS: usize = 16;
/// The most types of behaviour that a funnel may have, tasks included.
pub const MAX_BEHAVIOURS: usize = 200;

impl Funnel {
    /// Builds the funnel, checking that it is a tree whose parents come first and that no two event types share a name.
    ///
    /// With [`Entry::View`] the task 0 is the entry event itself (its name is `entry_name`), without a parent. It is nobody's parent:
    /// what is learned of it is its probability among one view and its negatives, of the others that of an outcome given the view.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn build(
        entry: Entry,
        entry_name: &str,
        tasks: Vec<Task>,
        extras: Vec<String>,
    ) -> Result<Self, Vec<FunnelError>> {
        let mut errors = Vec::new();
        let mut wrong =
            |place: String, problem: String| errors.push(FunnelError { place, problem });
        if tasks.is_empty() || tasks.len() > MAX_TASKS {
            wrong(
                "tasks".into(),
                format!("expected 1 to {MAX_TASKS} tasks, found {}", tasks.len()),
            );
        }
        if tasks.len() + extras.len() > MAX_BEHAVIOURS {
            wrong(
                "behaviours".into(),
                format!("expected at most {MAX_BEHAVIOURS} event types in total"),
            );
        }
        let mut names: Vec<&str> = vec!["impression", "search", "erase"];
        let typed =
            tasks.iter().enumerate().map(|(i, task)| (format!("tasks.{i}.name"), &task.name));
        let extra = extras.iter().enumerate().map(|(i, name)| (format!("behaviours.{i}"), name));
        for (place, name) in typed.chain(extra) {
            if name.is_empty() || names.contains(&name.as_str()) {
                wrong(
                    place,
                    format!(
                        "\"{name}\" is empty, reserved or used twice: choose another event type"
                    ),
                );
            }
            names.push(name);
        }
        for (i, task) in tasks.iter().enumerate() {
            if task.parent.is_some_and(|parent| parent >= i) {
                wrong(
                    format!("tasks.{i}.parent"),
                    "a parent must stand before its children".into(),
                );
            }
            if task.window < Span::ZERO {
                wrong(format!("tasks.{i}.window"), "expected a window of 0 or more".into());
            }
            if let Some(parent) = task.parent.and_then(|parent| tasks.get(parent))
                && parent.window > task.window
            {
                wrong(
                    format!("tasks.{i}.window"),
                    format!(
                        "must not be shorter than the window of its parent \"{}\"",
                        parent.name
                    ),
                );
            }
        }
        if let Entry::View { negatives } = entry {
            if tasks.first().is_some_and(|task| task.name != entry_name || task.parent.is_some()) {
                wrong(
                    "tasks.0".into(),
                    format!(
                        "with entry = \"{entry_name}\" the first task must be \"{entry_name}\" itself, without a parent"
                    ),
                );
            }
            for (i, task) in tasks.iter().enumerate() {
                if task.parent == Some(0) {
                    wrong(
                        format!("tasks.{i}.parent"),
                        format!(
                            "leave it out: every task beside \"{entry_name}\" is learned on its events already"
                        ),
                    );
                }
            }
            if negatives == 0 || negatives > 100 {
                wrong(
                    "negatives".into(),
                    format!("expected 1 to 100 sampled items a view, found {negatives}"),
                );
            }
        }
        if errors.is_empty() {
            Ok(Self { entry, entry_name: entry_name.to_owned(), tasks, extras })
        } else {
            Err(errors)
        }
    }

    /// Returns which event opens the funnel.
    pub fn entry(&self) -> Entry {
        self.entry
    }

    /// Returns the event type that opens the funnel: `impression`, or the name of the view.
    pub fn entry_name(&self) -> &str {
        &self.entry_name
    }

    /// Returns the tasks, parents first.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// Returns the parents of all tasks.
    pub fn parents(&self) -> Vec<Option<usize>> {
        self.tasks.iter().map(|task| task.parent).collect()
    }

    /// Returns the longest window: an impression is open for so long.
    pub fn longest_window(&self) -> Span {
        self.tasks.iter().map(|task| task.window).max().unwrap_or(Span::ZERO)
    }

    /// Returns the type of a behaviour's name, or `None` when it is neither a task nor an extra behaviour.
    pub fn behaviour_type(&self, name: &str) -> Option<BehaviourType> {
        self.behaviour_names()
            .zip(0u8..)
            .find_map(|(known, number)| (known == name).then_some(BehaviourType(number)))
    }

    /// Returns the task of a behaviour, unless it is an extra one.
    pub fn task_of(&self, kind: BehaviourType) -> Option<usize> {
        (usize::from(kind.0) < self.tasks.len()).then_some(usize::from(kind.0))
    }

    /// Returns the name of a behaviour.
    pub fn behaviour_name(&self, kind: BehaviourType) -> &str {
        let number = usize::from(kind.0);
        self.tasks
            .get(number)
            .map_or_else(|| self.extras[number - self.tasks.len()].as_str(), |task| &task.name)
    }

    /// Returns the names of all types of behaviour, tasks first.
    pub fn behaviour_names(&self) -> impl Iterator<Item = &str> {
        let tasks = self.tasks.iter().map(|task| task.name.as_str());
        tasks.chain(self.extras.iter().map(String::as_str))
    }

    /// Returns how many types of behaviour there are, tasks included.
    pub fn behaviours(&self) -> usize {
        self.tasks.len() + self.extras.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str, parent: Option<usize>, window: i64) -> Task {
        Task { name: name.into(), parent, window: Span(window), labels: LabelRule::Wait }
    }

    #[test]
    fn names_and_numbers_agree() {
        let tasks = vec![task("click", None, 1), task("purchase", Some(0), 2)];
        let funnel =
            Funnel::build(Entry::Impression, "impression", tasks, vec!["share".into()]).unwrap();
        for (number, name) in ["click", "purchase", "share"].iter().enumerate() {
            let kind = funnel.behaviour_type(name).unwrap();
            assert_eq!((usize::from(kind.0), funnel.behaviour_name(kind)), (number, *name));
        }
        assert_eq!(funnel.task_of(BehaviourType(2)), None);
        assert_eq!(funnel.behaviour_type("hover"), None);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let tasks = vec![task("click", Some(1), 5), task("click", Some(0), 2)];
        let errors = Funnel::build(Entry::Impression, "impression", tasks, vec!["erase".into()])
            .unwrap_err();
        let places: Vec<&str> = errors.iter().map(|error| error.place.as_str()).collect();
        assert_eq!(places, ["tasks.1.name", "behaviours.0", "tasks.0.parent", "tasks.1.window"]);
    }

    #[test]
    fn a_shop_without_impressions_starts_with_its_view() {
        let view = Entry::View { negatives: 4 };
        assert!(
            Funnel::build(
                view,
                "view",
                vec![task("view", None, 0), task("cart", Some(0), 1)],
                vec![]
            )
            .is_err()
        );
        assert!(
            Funnel::build(view, "view", vec![task("view", None, 0), task("cart", None, 1)], vec![])
                .is_ok()
        );
        assert!(Funnel::build(view, "view", vec![task("cart", None, 1)], vec![]).is_err());
    }
}
