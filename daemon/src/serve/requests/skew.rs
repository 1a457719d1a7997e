//! How far the clocks that date requests are from the own one: the median over the newest requests, so that few wrong ones say nothing.

use std::time::Duration;

use sluice_features::time::Span;

use crate::metrics::Metrics;
use crate::telemetry::RateLimit;

/// Requests of a window.
const WINDOW: usize = 101;
/// A clock that is further off is told.
const MUCH: Span = Span(1_000);

/// The differences of this window: stamp of the record less its arrival by the own clock.
#[derive(Debug, Default)]
pub(super) struct Skew {
    window: Vec<Span>,
    told: RateLimit,
}

impl Skew {
    /// Takes note of a request's difference; the last one of a window sets the metric, and is told where the median is much.
    pub(super) fn note(&mut self, difference: Span, metrics: &Metrics, now: Duration) {
        self.window.push(difference);
        if self.window.len() < WINDOW {
            return;
        }
        let (_, median, _) = self.window.select_nth_unstable(WINDOW / 2);
        let seconds = median.0 as f64 / 1000.0;
        let much = median.0.saturating_abs() > MUCH.0;
        self.window.clear();
        metrics.serve.clock_skew_seconds.set(seconds);
        if much && self.told.allows(now) {
            tracing::warn!(
                seconds,
                "most requests are dated by a clock that is not ours (below 0: behind): deadlines are counted by our own, but after a restart requests are as \
                 old as their stamps say; look at the clocks of askers, or of brokers where the topic has LogAppendTime"
            );
        }
    }
}
