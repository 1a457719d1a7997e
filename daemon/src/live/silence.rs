//! How long a partition has certainly been silent: read up, and nothing new in it that says how far event time has come.
//!
//! A clock alone cannot tell. Records may lie in Kafka while the process sleeps or the network is cut; where a broker was away, producers still
//! hold what they could not send. So only time counts that is covered by answers: at the moment of each question everything that had come was
//! taken, and questions followed each other closely. A gap begins the count anew.

use std::time::Duration;

use sluice_features::time::{EventTime, Span};

use super::ingest::{Ingest, State};
use crate::capture::Decision;
use crate::error::Stop;
use crate::kafka::TopicRole;

/// A partition that is silent for so long does not hold the others back: event time goes on there as the clock does.
const SILENT: Duration = Duration::from_secs(30);
/// Proofs that lie further apart say nothing of the time between them.
const GAP: Duration = Duration::from_secs(5);

/// The silence of one partition, by the steady clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    since: Duration,
    /// Up to when it is proven.
    until: Duration,
}

impl Silence {
    /// Begins at `now`: an event has moved time, or nothing is known yet.
    pub(super) fn begin(now: Duration) -> Self {
        Self { since: now, until: now }
    }

    /// Takes note that at a moment everything was taken. Returns how long it has been silent, where that is long enough and was not known before.
    pub(super) fn proven(&mut self, moment: Duration) -> Option<Duration> {
        if moment <= self.until {
            return None;
        }
        if moment - self.until > GAP {
            self.since = moment;
        }
        self.until = moment;
        let silent = moment - self.since;
        (silent >= SILENT).then_some(silent)
    }
}

impl Ingest {
    /// Moves the watermark of partitions that are read up and silent: event time goes on there as the clock does.
    pub(super) fn look_for_silence(&mut self, state: &mut State) -> Result<(), Stop> {
        for (partition, moment) in self.read_up() {
            let silent =
                state.silences.get_mut(partition).and_then(|silence| silence.proven(moment));
            let Some(silent) = silent else { continue };
            let time = {
                let pipeline = self.shared.pipeline.read();
                let watermark = &pipeline.shards()[partition].watermark;
                if watermark.newest() == EventTime::MIN {
                    continue;
                }
                let silent = Span(i64::try_from(silent.as_millis()).unwrap_or(i64::MAX));
                // Not beyond where an event of this moment would move it: an event that was ahead must not take the clock along.
                let most = self.shared.clock.wall() - pipeline.rules().lateness;
                (watermark.value() + silent).min(most)
            };
            let partition = u32::try_from(partition).unwrap_or(u32::MAX);
            self.decide(Decision::Quiet { partition, time }, state)?;
        }
        Ok(())
    }

    /// Returns the partitions of which everything that had come by some moment is taken, with that moment.
    pub(super) fn read_up(&self) -> Vec<(usize, Duration)> {
        let lanes = self.consumer.gauges().lanes;
        let events = lanes.iter().filter(|status| status.lane.role == TopicRole::Events);
        let read_up = events.filter_map(|status| {
            Some((usize::try_from(status.lane.partition).ok()?, status.read_up_to()?))
        });
        read_up.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(moments: impl IntoIterator<Item = u64>) -> Vec<Option<u64>> {
        let mut silence = Silence::begin(Duration::from_secs(100));
        let mut proven = |moment| silence.proven(Duration::from_secs(100 + moment));
        moments.into_iter().map(|moment| proven(moment).map(|silent| silent.as_secs())).collect()
    }

    #[test]
    fn only_what_is_proven_without_a_gap_is_silence() {
        let all = silence(1..=40);
        assert!(all[..29].iter().all(Option::is_none));
        assert_eq!(all[29..32], [Some(30), Some(31), Some(32)]);
        assert_eq!(
            silence((1..=29).chain([29, 12, 33])).last(),
            Some(&Some(33)),
            "not twice, not back"
        );
        // A process that sleeps, a network that is cut: whatever the clock says afterwards, it begins anew.
        for asleep in [6, 60, 100_000] {
            let awake = 20 + asleep;
            let told = silence((1..=20).chain(awake..=awake + 30));
            assert!(told[..told.len() - 1].iter().all(Option::is_none), "{told:?}");
            assert_eq!(told.last(), Some(&Some(30)));
        }
        assert!(silence([100_000]).iter().all(Option::is_none));
    }
}
