//! What Kafka did with answers, embeddings, top lists and dead letters: counted by topic and cause, and told where it refuses for good.
//!
//! A refusal (no right, no topic, too large) is not retried, for it would be refused again. It is counted, and told with its remedy; while a
//! topic takes nothing, `/ready` says `output`. The first record that it takes again ends that. Refused dead letters end the daemon
//! (see [`crate::kafka::DeadLetters`]); here they are only counted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Live;
use crate::config::Topics;
use crate::http::Wait;
use crate::kafka::{ProducerCounts, Right, Undelivered};
use crate::telemetry::RateLimit;

/// The topics written, in metrics; reply topics count as responses.
pub const OUTPUTS: [&str; 4] = ["responses", "embeddings", "scores", "dead-letter"];
/// The place of dead letters in [`OUTPUTS`].
const DEAD_LETTERS: usize = 3;

/// What is known of what was written.
pub struct Outputs {
    names: Topics,
    topics: BTreeMap<String, Output>,
}

/// One topic, as the last look found it.
#[derive(Default)]
struct Output {
    counts: ProducerCounts,
    /// Why it takes nothing.
    failing: Option<Undelivered>,
    warned: RateLimit,
}

impl Outputs {
    /// Creates what is known at the start: nothing.
    pub fn new(names: &Topics) -> Self {
        Self { names: names.clone(), topics: BTreeMap::new() }
    }

    /// Takes over the counts of all topics since the start: metrics, warnings, readiness.
    pub(super) fn look(&mut self, counts: &BTreeMap<String, ProducerCounts>, shared: &Live) {
        let now = shared.clock.steady();
        let mut sums = [ProducerCounts::default(); OUTPUTS.len()];
        for (topic, counts) in counts {
            let class = self.class(topic);
            sums[class] += *counts;
            let output = self.topics.entry(topic.clone()).or_default();
            if class != DEAD_LETTERS
                && let Some((cause, lost)) = output.look(counts, now)
            {
                let (cause, remedy) = (cause.name(), remedy(cause, topic));
                tracing::warn!(topic, cause, lost, remedy, "kafka refuses what is written");
            }
        }
        let metrics = &shared.metrics.publish;
        for (class, sum) in sums.iter().enumerate() {
            metrics.delivered[class].absolute(sum.delivered);
            for (counter, lost) in metrics.undelivered[class].iter().zip(sum.undelivered) {
                counter.absolute(lost);
            }
        }
        shared.set_undelivered(sums.iter().map(ProducerCounts::failed).sum());
        match self.trouble() {
            Some(text) => _ = shared.readiness.wait_for(Wait::Output, text),
            None if shared.readiness.clear(Wait::Output) => {
                tracing::info!("kafka takes what is written again");
            }
            None => {}
        }
    }

    /// Returns the place of a topic in [`OUTPUTS`].
    fn class(&self, topic: &str) -> usize {
        match topic {
            _ if topic == self.names.embeddings => 1,
            _ if topic == self.names.scores => 2,
            _ if topic == self.names.dead_letter => DEAD_LETTERS,
            _ => 0,
        }
    }

    /// Says which topics take nothing, and why.
    fn trouble(&self) -> Option<String> {
        let failing = self.topics.iter().filter_map(|(topic, output)| {
            let cause = output.failing?;
            Some(format!("{topic} takes nothing ({}): {}", cause.name(), remedy(cause, topic)))
        });
        failing.reduce(|text, more| format!("{text}; {more}"))
    }
}

impl Output {
    /// Compares the counts with those of the last look. Returns why the most records were refused since then, and how many were refused in
    /// all, when that is to be told.
    fn look(&mut self, counts: &ProducerCounts, now: Duration) -> Option<(Undelivered, u64)> {
        let before = std::mem::replace(&mut self.counts, *counts);
        let refused = |cause: &Undelivered| {
            let at = *cause as usize;
            counts.undelivered[at].saturating_sub(before.undelivered[at])
        };
        let causes = Undelivered::ALL.into_iter().filter(|cause| cause.is_final());
        let commonest = causes.max_by_key(refused).filter(|cause| refused(cause) > 0);
        if counts.delivered > before.delivered {
            self.failing = None;
        } else if commonest.is_some() {
            self.failing = commonest;
        }
        let cause = commonest?;
        self.warned.allows(now).then(|| (cause, counts.failed()))
    }
}

/// Returns what ends a refusal.
fn remedy(cause: Undelivered, topic: &str) -> String {
    match cause {
        Undelivered::NoRight => {
            let right = Right::on_topic("Write", topic);
            format!("the user needs the right {right}: kafka-acls.sh --add ... {}", right.flags())
        }
        Undelivered::NoTopic => format!("create {topic}: sluice topics apply"),
        Undelivered::TooLarge => format!(
            "raise max.message.bytes of {topic}, and message.max.bytes in kafka.extra beside it"
        ),
        Undelivered::TimedOut | Undelivered::Refused => {
            format!("look at the settings of {topic} and at the brokers' logs")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(delivered: u64, no_right: u64, too_large: u64) -> ProducerCounts {
        ProducerCounts { delivered, undelivered: [7, no_right, 0, too_large, 0] }
    }

    #[test]
    fn a_topic_fails_while_it_takes_nothing_and_is_told_of_now_and_then() {
        let mut output = Output::default();
        let mut look = |counts, minute: u64| {
            let told = output.look(&counts, Duration::from_secs(60 * minute));
            (told, output.failing)
        };
        let (no_right, too_large) = (Undelivered::NoRight, Undelivered::TooLarge);
        assert_eq!(look(counts(5, 0, 0), 0), (None, None), "what timed out is no refusal");
        assert_eq!(look(counts(5, 2, 0), 1), (Some((no_right, 9)), Some(no_right)));
        // Nothing is sent: it is as it was.
        assert_eq!(look(counts(5, 2, 0), 2), (None, Some(no_right)));
        assert_eq!(look(counts(5, 9, 0), 3), (None, Some(no_right)), "not told again so soon");
        assert_eq!(look(counts(5, 9, 1), 20), (Some((too_large, 17)), Some(too_large)));
        assert_eq!(look(counts(6, 9, 1), 21), (None, None), "it takes records again");
        // One record too large among others: told, and no reason to be not ready.
        assert_eq!(look(counts(8, 9, 2), 40), (Some((too_large, 18)), None));
    }
}
