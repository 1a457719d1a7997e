//! The figures as they are shown and written: undefined ones are null.

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use sluice_features::time::EventTime;

/// The figures of one task over some examples; the rules are at [`super`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The number of examples.
    pub examples: u64,
    /// How many of them were positive.
    pub positives: u64,
    /// The area under the ROC curve.
    pub auc: Option<f64>,
    /// The mean logistic loss in nats.
    pub log_loss: Option<f64>,
    /// The log loss over the entropy of the rate.
    pub normalised_entropy: Option<f64>,
    /// The sum of predictions over the number of positives.
    pub calibration: Option<f64>,
    /// The mean AUC of users, weighted by their examples.
    pub grouped_auc: Option<f64>,
}

/// The figures of one task, and those of its warm and new items apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskFigures {
    /// All examples.
    pub all: Figures,
    /// Examples of items that had been learned from before.
    pub warm: Figures,
    /// Examples of items that had not.
    pub new: Figures,
}

/// Figures by the name of their task, in the order of the funnel. Serialised as one object:
/// `{"click": {"examples": .., .., "warm": {..}, "new": {..}}, ..}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ByTask(pub Vec<(String, TaskFigures)>);

impl ByTask {
    /// Returns the figures of the task of that name.
    pub fn task(&self, name: &str) -> Option<&TaskFigures> {
        self.0.iter().find(|(task, _)| task == name).map(|(_, figures)| figures)
    }
}

impl serde::Serialize for ByTask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            #[serde(flatten)]
            all: &'a Figures,
            warm: &'a Figures,
            new: &'a Figures,
        }
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (task, TaskFigures { all, warm, new }) in &self.0 {
            map.serialize_entry(task, &Flat { all, warm, new })?;
        }
        map.end()
    }
}

/// The figures of one window of event time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Window {
    /// The first instant of the window.
    pub start: EventTime,
    /// The first instant after it.
    pub end: EventTime,
    /// The figures of every task, also of those without an example here.
    pub tasks: ByTask,
}

/// All that is known about the quality of the predictions so far.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The whole stream.
    pub tasks: ByTask,
    /// The sliding window that ends with each task's newest example.
    pub sliding: ByTask,
    /// The windows of event time, oldest first.
    pub windows: Vec<Window>,
}
