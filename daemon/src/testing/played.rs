//! Messages played through a pipeline and a trainer as they are configured, over any number of partitions: what is learned of them.

use serde_json::Value;
use sluice_features::time::EventTime;
use sluice_features::wire::Topic;
use sluice_models::evaluate::TaskFigures;

use crate::config::Config;
use crate::learn::trainer::Trainer;
use crate::parts;
use crate::pipeline::Pipeline;
use crate::pipeline::record::Record;

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) topic: Topic,
    pub(crate) partition: u32,
    /// When it was appended; long after all of them where a log of the past is played.
    pub(crate) arrived: i64,
    pub(crate) message: Value,
}

/// Long after every message: the wall clock at which a log is played.
pub(crate) const PLAYED: i64 = 1_900_000_000_000;

impl Sent {
    /// An event of the log of one partition.
    pub(crate) fn event(message: Value) -> Self {
        Self { topic: Topic::Events, partition: 0, arrived: PLAYED, message }
    }

    /// An update of an item.
    pub(crate) fn item(message: Value) -> Self {
        Self { topic: Topic::Items, ..Self::event(message) }
    }
}

/// What is left after everything was played.
pub(crate) struct Played {
    pub(crate) pipeline: Pipeline,
    pub(crate) trainer: Trainer,
}

impl Played {
    /// Plays messages in this order, then closes all windows.
    pub(crate) fn new(config: &str, partitions: usize, sent: &[Sent]) -> Self {
        let config = Config::build(config, &[]).expect("a configuration without mistakes");
        let mut pipeline = parts::pipeline(&config, partitions);
        let mut trainer = parts::trainer(&config).expect("a model");
        for (offset, sent) in (0..).zip(sent) {
            let value = serde_json::to_vec(&sent.message).unwrap();
            let record = Record {
                topic: sent.topic,
                partition: sent.partition,
                offset,
                arrived: EventTime(sent.arrived),
                key: None,
                value: Some(&value),
            };
            pipeline.take(&record).unwrap_or_else(|refused| panic!("{refused}: {}", sent.message));
            learn(&mut pipeline, &mut trainer);
        }
        pipeline.finish();
        learn(&mut pipeline, &mut trainer);
        Self { pipeline, trainer }
    }

    /// Returns the figures of a task over everything.
    pub(crate) fn figures(&self, task: &str) -> TaskFigures {
        let progressive = self.trainer.judge().progressive();
        let number = progressive.tasks().position(|name| name == task).expect("a task");
        progressive.whole(number)
    }

    /// Returns the AUC of a task over everything.
    pub(crate) fn auc(&self, task: &str) -> f64 {
        self.figures(task).all.auc.unwrap_or(f64::NAN)
    }

    /// Fails unless a task's AUC is within three standard errors of one half (that of Mann and Whitney's statistic).
    pub(crate) fn assert_noise(&self, task: &str, what: &str) {
        let figures = self.figures(task).all;
        let positives = figures.positives as f64;
        let negatives = figures.examples as f64 - positives;
        let error = ((positives + negatives + 1.0) / (12.0 * positives * negatives)).sqrt();
        let auc = figures.auc.unwrap_or(f64::NAN);
        assert!(
            (auc - 0.5).abs() < 3.0 * error,
            "{what}, {task}: AUC {auc} of {positives} positives and {negatives} negatives, error {error}"
        );
    }
}

fn learn(pipeline: &mut Pipeline, trainer: &mut Trainer) {
    while let Some(batch) = pipeline.next_batch() {
        trainer.work(&batch);
        pipeline.recycle(batch);
    }
}
