//! The live figures: measured once a round, shown as a table or as a line.

use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_daemon::live::Live;

use super::feed::Feed;
use crate::simulate::TASKS;

const DAY: f64 = 86_400_000.0;

/// The figures of one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figures {
    /// Since the shop opened.
    pub(super) elapsed: Duration,
    /// Days of event time up to which everything due is learned.
    pub(super) day: Option<f64>,
    /// Events taken a second, since the round before.
    pub(super) events: f64,
    /// Examples learned a second, since the round before.
    pub(super) examples: f64,
    /// Records sent and not yet taken.
    pub(super) lag: u64,
    /// The shop waited for the daemon.
    pub(super) throttled: bool,
    /// Mean milliseconds from the arrival of a batch's oldest record to its step, since the round before.
    pub(super) freshness: Option<f64>,
    /// By task, in the order of the funnel.
    pub(super) tasks: [Task; TASKS.len()],
}

/// The figures of one task.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Task {
    /// Impressions judged so far.
    pub(super) judged: u64,
    /// AUC of the predictions so far, and over the sliding window.
    pub(super) auc: Option<f64>,
    /// AUC of the predictions over the sliding window.
    pub(super) auc_lately: Option<f64>,
    /// AUC of the true probabilities so far.
    pub(super) truth: Option<f64>,
    /// AUC of the items' popularity so far.
    pub(super) popularity: Option<f64>,
    /// Predicted over observed positives so far; the truth's is 1.
    pub(super) calibration: Option<f64>,
    /// Predicted over observed positives over the sliding window.
    pub(super) calibration_lately: Option<f64>,
}

/// What was counted at some moment.
#[derive(Clone, Copy, Default)]
struct Counts {
    events: u64,
    examples: u64,
    /// Seconds waited, and by how many batches.
    waited: (f64, f64),
}

/// Measures rounds.
pub(super) struct Meter {
    start: Instant,
    opening: i64,
    before: (Instant, Counts),
}

impl Meter {
    /// Begins to measure a shop that opened at this event time.
    pub(super) fn new(opening: i64) -> Self {
        let start = Instant::now();
        Self { start, opening, before: (start, Counts::default()) }
    }

    /// Returns the figures of this moment.
    pub(super) fn measure(&mut self, shared: &Live, feed: &Feed) -> Figures {
        let now = Instant::now();
        let (sent, taken) = (feed.sent(), shared.records());
        let status = shared.status();
        let waited = sum_and_count(&shared.metrics.render(), "sluice_learn_freshness_seconds");
        let count = |name: &str| status[name].as_u64().unwrap_or_default();
        let counts = Counts { events: count("events"), examples: count("examples"), waited };
        let (then, before) = std::mem::replace(&mut self.before, (now, counts));
        let seconds = (now - then).as_secs_f64().max(1e-3);
        let batches = counts.waited.1 - before.waited.1;
        let covered = status["learned_until"].as_i64();
        let truth = feed.truth();
        Figures {
            elapsed: now - self.start,
            day: covered.map(|covered| (covered - self.opening) as f64 / DAY),
            events: counts.events.saturating_sub(before.events) as f64 / seconds,
            examples: counts.examples.saturating_sub(before.examples) as f64 / seconds,
            lag: sent.saturating_sub(taken),
            throttled: feed.was_throttled(),
            freshness: (batches > 0.0)
                .then(|| (counts.waited.0 - before.waited.0) / batches * 1000.0),
            tasks: std::array::from_fn(|i| {
                let of = |span: &str, figure: &str| status[span][TASKS[i]][figure].as_f64();
                let defined = |figure: f64| Some(figure).filter(|figure| figure.is_finite());
                Task {
                    judged: status["tasks"][TASKS[i]]["examples"].as_u64().unwrap_or_default(),
                    auc: of("tasks", "auc"),
                    auc_lately: of("sliding", "auc"),
                    truth: defined(truth[i].truth),
                    popularity: defined(truth[i].popularity),
                    calibration: of("tasks", "calibration"),
                    calibration_lately: of("sliding", "calibration"),
                }
            }),
        }
    }
}

/// Finds a histogram's sum and count in the text format of Prometheus.
fn sum_and_count(text: &str, name: &str) -> (f64, f64) {
    let find = |suffix: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(suffix));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
    };
    (find("_sum"), find("_count"))
}

impl Task {
    /// Returns the share of the way from popularity to truth that the predictions have covered.
    pub(super) fn closed(&self) -> Option<f64> {
        let (auc, truth, popularity) = (self.auc?, self.truth?, self.popularity?);
        (truth > popularity).then(|| (auc - popularity) / (truth - popularity))
    }
}

/// The names of the columns of [`Figures::line`].
pub(super) const LINE_HEADER: &str = concat!(
    "                                click           cart            purchase\n",
    "   s  ev/s  ex/s   lag    ms   AUC true  cal   AUC true  cal   AUC true  cal"
);

impl Figures {
    /// Returns everything in at most 80 columns.
    pub(super) fn line(&self) -> String {
        let mut text = format!(
            "{:>4} {:>5.0} {:>5.0} {:>5} {:>5}",
            self.elapsed.as_secs(),
            self.events,
            self.examples,
            self.lag,
            shown(self.freshness, 0)
        );
        for task in &self.tasks {
            text.push_str(&format!(
                "  {} {} {:>4}",
                short(task.auc),
                short(task.truth),
                shown(task.calibration, 2)
            ));
        }
        text
    }

    /// Returns everything as a table of at most 80 columns.
    pub(super) fn table(&self, limit: Option<Duration>) -> String {
        let of = limit.map_or(String::new(), |limit| format!(" of {}", limit.as_secs()));
        let held = if self.throttled { "  (the shop waits)" } else { "" };
        let mut text = format!(
            "second {}{of}, day {} of the shop\n\
             events/s {:>7.0}   examples/s {:>7.0}   lag {:>6}{held}\n\
             freshness: learned {} ms after the broker had it\n\n{TABLE_HEADER}\n",
            self.elapsed.as_secs(),
            shown(self.day, 1),
            self.events,
            self.examples,
            self.lag,
            shown(self.freshness, 0),
        );
        text.push_str(&self.rows());
        text
    }

    /// Returns the table's rows, one a task.
    pub(super) fn rows(&self) -> String {
        let mut text = String::new();
        for (name, task) in TASKS.iter().zip(&self.tasks) {
            text.push_str(&format!(
                "{name:<9}{:>9}{:>9}{:>9}{:>9}{:>11}{:>13}{:>9}\n",
                task.judged,
                shown(task.auc, 4),
                shown(task.auc_lately, 4),
                shown(task.truth, 4),
                shown(task.popularity, 4),
                shown(task.calibration, 3),
                shown(task.calibration_lately, 3),
            ));
        }
        text
    }
}

/// The names of the columns of [`Figures::rows`]; lately is the sliding window of two days of the shop.
pub(super) const TABLE_HEADER: &str = "\
task        judged      AUC   lately    truth popularity  calibration   lately";

/// Writes a number that may not be defined yet.
fn shown(number: Option<f64>, digits: usize) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
}

/// Writes an AUC in four columns, as `.712`.
fn short(auc: Option<f64>) -> String {
    let text = shown(auc, 3);
    format!("{:>4.4}", text.strip_prefix('0').unwrap_or(&text))
}

/// Returns a count of the status.
pub(super) fn count(status: &Value, name: &str) -> u64 {
    status[name].as_u64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let task = Task {
            judged: 123_456,
            auc: Some(0.71234),
            auc_lately: Some(0.7),
            truth: Some(0.75),
            popularity: Some(0.6),
            calibration: Some(1.0123),
            calibration_lately: None,
        };
        Figures {
            elapsed: Duration::from_secs(3599),
            day: Some(12.34),
            events: 98_765.4,
            examples: 12_345.6,
            lag: 10_000,
            throttled: true,
            freshness: Some(1234.5),
            tasks: [task, task, Task::default()],
        }
    }

    #[test]
    fn eighty_columns_are_enough() {
        let figures = figures();
        let table = figures.table(Some(Duration::from_secs(3600)));
        for line in table.lines().chain(LINE_HEADER.lines()).chain([figures.line().as_str()]) {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        }
        assert!(table.contains("0.7123") && table.contains("1.012"), "{table}");
    }

    #[test]
    fn columns_stand_below_their_names() {
        let figures = figures();
        let ends = |line: &str, word: &str| line.find(word).unwrap() + word.len();
        let header = LINE_HEADER.lines().last().unwrap();
        assert_eq!(header.len(), figures.line().len());
        assert_eq!(ends(header, "AUC"), ends(&figures.line(), ".712"));
        assert_eq!(ends(TABLE_HEADER, "popularity"), ends(&figures.rows(), "0.6000"));
    }

    #[test]
    fn the_distance_closed_needs_all_three() {
        let [click, _, nothing] = figures().tasks;
        assert!((click.closed().unwrap() - 0.11234 / 0.15).abs() < 1e-9);
        assert_eq!(nothing.closed(), None);
    }

    #[test]
    fn a_histogram_is_found_in_the_metrics() {
        let text = "# TYPE a_seconds histogram\na_seconds_bucket{le=\"1\"} 3\n\
                    a_seconds_sum 1.5\na_seconds_count 3\n";
        assert_eq!(sum_and_count(text, "a_seconds"), (1.5, 3.0));
        assert_eq!(sum_and_count(text, "b_seconds"), (0.0, 0.0));
    }
}
