//! Looks at everything once a second and writes it into metrics and readiness; nothing waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_features::attribution::{JoinCounts, Orphan};
use sluice_features::event::BehaviourType;

use super::Live;
use super::lateness::{Count, REMEDY};
use super::notices::{Notice, Notices};
use super::orphans::Unusual;
use super::outputs::Outputs;
use super::refusals::Incident;
use crate::config::{Part, Share};
use crate::error::Stop;
use crate::http::Wait;
use crate::kafka::{ConsumerGauges, Producer, ProducerCounts};
use crate::shutdown::Shutdown;

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// What is told of values and figures is looked at once in so many rounds.
const SLOW: u32 = 5;

/// A jump of event time that nobody confirms for so long is told.
const JUMP_LASTS: Duration = Duration::from_secs(60);

/// What is watched.
pub struct Watch {
    /// The threads' shared state.
    pub shared: Arc<Live>,
    /// The consumer of events, items and users.
    pub consumer: Box<dyn Fn() -> ConsumerGauges + Send>,
    /// The producers.
    pub producers: Vec<Arc<Producer>>,
    /// What is known of what they write.
    pub outputs: Outputs,
}

impl Watch {
    /// Runs until told to stop.
    ///
    /// # Errors
    /// When a producer has ended for good: nothing can be written any more.
    pub fn run(mut self, shutdown: &Shutdown) -> Result<(), Stop> {
        let (mut round, mut notices, mut jumping) = (0u32, Notices::default(), None);
        while !shutdown.wait(EVERY) {
            self.shared
                .metrics
                .daemon
                .ready
                .set(f64::from(u8::from(self.shared.readiness.is_ready())));
            self.consumer();
            self.pipeline();
            self.refusals();
            self.orphans();
            self.lateness();
            self.jumps(&mut jumping);
            if round.is_multiple_of(SLOW) {
                self.notices(&mut notices);
                self.figures();
            }
            self.producers()?;
            round = round.wrapping_add(1);
        }
        Ok(())
    }

    fn consumer(&self) {
        let (gauges, metrics) = ((self.consumer)(), &self.shared.metrics);
        metrics.consume.poll_age_seconds.set(gauges.poll_age.as_secs_f64());
        metrics.consume.queue_bytes.set(gauges.bytes_in_flight as f64);
        metrics.consume.paused.set(f64::from(u8::from(gauges.paused)));
        metrics.consume.connected.set(f64::from(u8::from(gauges.connected)));
        metrics.consume.commits_failed.absolute(gauges.commits_failed);
        for lane in &gauges.lanes {
            metrics.lag(lane.lane.role.name(), lane.lane.partition).set(lane.lag() as f64);
        }
    }

    /// Says when most records are refused: then nothing is learned of them.
    fn refusals(&self) {
        let incidents = self.shared.refusals.lock().look(self.shared.clock.steady());
        for Incident { topic, records, refused, reason, example, .. } in
            incidents.iter().filter(|incident| incident.tell)
        {
            let (topic, reason) = (topic.name(), reason.name());
            tracing::warn!(
                topic,
                records,
                refused,
                reason,
                example,
                "most records are refused: mend what sends them; they are in the dead-letter topic"
            );
        }
        if incidents.is_empty() {
            self.shared.readiness.clear(Wait::Rejects);
        } else {
            let texts: Vec<String> = incidents.iter().map(Incident::text).collect();
            self.shared.readiness.wait_for(Wait::Rejects, texts.join("; "));
        }
    }

    /// Says when more outcomes than usual have no impression.
    fn orphans(&self) {
        let (now, split_users) = (self.shared.clock.steady(), self.shared.split_users());
        let told: Vec<(Unusual, String)> = {
            let mut orphans = self.shared.orphans.lock();
            let pipeline = self.shared.pipeline.read();
            let counts: Vec<&JoinCounts> =
                pipeline.shards().iter().map(|shard| shard.joiner.counts()).collect();
            let told = orphans.look(&counts, split_users, now);
            let funnel = &pipeline.rules().funnel;
            let gauges = &self.shared.metrics.join.orphans_unusual;
            let behaviours = &gauges[gauges.len() - funnel.behaviours()..];
            for (kind, gauge) in (0..).map(BehaviourType).zip(behaviours) {
                let unusual = orphans.unusual().any(|unusual| unusual.kind == kind);
                gauge.set(f64::from(u8::from(unusual)));
            }
            let named = told.into_iter().map(|unusual| {
                let name = funnel.behaviour_name(unusual.kind).to_owned();
                (unusual, name)
            });
            named.collect()
        };
        told.iter().for_each(|(unusual, name)| unusual.tell(name));
    }

    /// Says when events come after their windows: they are not learned, or learned as having had no outcome.
    fn lateness(&self) {
        let (told, most) = {
            let (mut lateness, pipeline) =
                (self.shared.lateness.lock(), self.shared.pipeline.read());
            let named = |(place, count): (usize, Count)| {
                (Count::name(&pipeline.rules().funnel, place).to_owned(), count)
            };
            let told = lateness.look(&pipeline.join_counts(), self.shared.clock.steady());
            let told: Vec<(String, Count)> = told.into_iter().map(named).collect();
            (told, lateness.most().map(named).collect::<Vec<_>>())
        };
        for (name, Count { came, late }) in told {
            tracing::warn!(
                r#type = name,
                came,
                late,
                remedy = REMEDY,
                "events came after their windows: what is late is not learned"
            );
        }
        if most.is_empty() {
            self.shared.readiness.clear(Wait::Late);
        } else {
            let text = |(name, Count { came, late }): &(String, Count)| {
                format!(
                    "{late} of the newest {came} events of type {name} came after their windows: {REMEDY}"
                )
            };
            let texts: Vec<String> = most.iter().map(text).collect();
            self.shared.readiness.wait_for(Wait::Late, texts.join("; "));
        }
    }

    /// Says when the newest events of a partition lie far beyond those before them and nobody confirms it: its windows stay open meanwhile.
    fn jumps(&self, since: &mut Option<Duration>) {
        let jumping: Vec<usize> = {
            let pipeline = self.shared.pipeline.read();
            let shards = pipeline.shards().iter().enumerate();
            shards.filter(|(_, shard)| shard.watermark.is_jumping()).map(|(i, _)| i).collect()
        };
        self.shared.metrics.events.jumping_partitions.set(jumping.len() as f64);
        let now = self.shared.clock.steady();
        let begun = match *since {
            Some(begun) if !jumping.is_empty() => begun,
            _ => now,
        };
        *since = (!jumping.is_empty()).then_some(begun);
        if now.saturating_sub(begun) < JUMP_LASTS {
            self.shared.readiness.clear(Wait::Time);
            return;
        }
        let text = format!(
            "partitions {jumping:?}: the newest events lie hours beyond those before them, and no other users confirm it"
        );
        if self.shared.readiness.wait_for(Wait::Time, text) {
            tracing::warn!(
                ?jumping,
                "the newest events of these partitions lie hours beyond those before them: windows stay open until events of four users in a row, or the clock once the partition is silent, confirm it; look at the senders' clocks"
            );
        }
    }

    /// Says what was noticed of values and names.
    fn notices(&self, notices: &mut Notices) {
        let now = self.shared.clock.steady();
        let found = {
            let pipeline = self.shared.pipeline.read();
            let metrics = &self.shared.metrics.events;
            let (notes, counts) = (pipeline.notes(), pipeline.counts());
            for (counter, (_, unusable)) in metrics.unusable.iter().zip(notes.unusable()) {
                counter.absolute(unusable.count);
            }
            for (gauge, (_, missing)) in metrics.always_missing.iter().zip(notes.fields()) {
                gauge.set(f64::from(u8::from(missing)));
            }
            notices.look(notes, counts, now)
        };
        found.iter().for_each(Notice::tell);
    }

    fn pipeline(&self) {
        let metrics = &self.shared.metrics;
        let pipeline = self.shared.pipeline.read();
        let (counts, joined) = (pipeline.counts(), pipeline.join_counts());
        for (counter, count) in metrics.events.rejected.iter().zip(&counts.rejected) {
            counter.absolute(*count);
        }
        metrics.events.replayed.absolute(counts.replayed);
        metrics.events.skewed.absolute(counts.skewed);
        metrics.events.jumped.absolute(counts.jumped);
        metrics.events.untold_counters.absolute(counts.untold_counters);
        metrics.events.unknown_fields.absolute(counts.unknown_fields);
        metrics.events.later_features.absolute(counts.later_features);
        metrics.state.catalogue_unknown_ends.absolute(counts.unknown_ends);
        metrics.state.catalogue_dropped.absolute(counts.dropped_versions);
        // The entry event stands first: before the behaviours, or, where it is a view, as the first task, of which no behaviour comes.
        let shown = joined.opened + joined.unopened + joined.duplicate_impressions;
        metrics.events.taken[0].absolute(shown);
        metrics.join.duplicates[0].absolute(joined.duplicate_impressions);
        metrics.join.forgotten_ids[0].absolute(joined.forgotten_impressions);
        let behaviours = metrics.events.taken.len() - joined.kinds.len();
        for (i, kind) in joined.kinds.iter().enumerate() {
            let at = behaviours + i;
            metrics.events.taken[at].absolute(kind.arrived);
            metrics.join.duplicates[at].absolute(kind.duplicate + kind.repeated);
            metrics.join.late[at].absolute(kind.late);
            metrics.join.orphaned[at].absolute(kind.orphaned.iter().sum());
            metrics.join.given_up[at].absolute(kind.orphaned[Orphan::Overflow as usize]);
            metrics.join.childless[at].absolute(kind.childless);
            metrics.join.late_impressions[at].absolute(kind.late_impressions);
            metrics.join.forgotten_ids[at].absolute(kind.forgotten);
        }
        metrics
            .join
            .early_behaviours
            .set(joined.kinds.iter().map(|kind| kind.waiting).sum::<u64>() as f64);
        metrics.join.open_impressions.set(pipeline.open_impressions() as f64);
        let gauges = Part::ALL.into_iter().zip(&metrics.memory.bytes).zip(pipeline.memory());
        // Tables are the learner's.
        for ((_, gauge), bytes) in gauges.filter(|((part, _), _)| *part != Part::Tables) {
            gauge.set(bytes as f64);
        }
        let bounds = &pipeline.rules().bounds;
        metrics.memory.limit_bytes.set(bounds.limit as f64);
        for (share, gauge) in Share::ALL.into_iter().zip(&metrics.memory.bound_bytes) {
            gauge.set(bounds.of(share) as f64);
        }
        let shared = pipeline.shared();
        metrics.state.catalogue_items.set(shared.item_features.len() as f64);
        metrics.state.catalogue_users.set(shared.user_features.len() as f64);
        let names = pipeline.names().counts();
        metrics.state.names_hits.absolute(names.hits);
        metrics.state.names_misses.absolute(names.misses);
        metrics.state.names_cache_bytes.set(names.bytes as f64);
        let sum = |of: fn(&sluice_features::sequence::Sequences) -> usize| {
            pipeline.shards().iter().map(|shard| of(&shard.sequences)).sum::<usize>() as f64
        };
        metrics.state.sequence_users.set(sum(|sequences| sequences.users()));
        metrics.state.sequence_behaviours.set(sum(|sequences| sequences.behaviours()));
        metrics.state.users_in_memory.set(sum(|sequences| sequences.residents()));
        metrics.state.users_unstored_bytes.set(sum(|sequences| sequences.unstored_bytes()));
        let users = pipeline.user_counts();
        metrics.state.users_hits.absolute(users.hits);
        metrics.state.users_misses.absolute(users.misses);
        metrics.state.users_segments_read.absolute(users.segments);
        metrics.state.users_evicted_bytes.absolute(users.evicted_bytes);
        metrics.state.counter_entries.set(shared.counters.len() as f64);
        metrics.state.counters_refused.absolute(shared.counters.refused());
    }

    fn figures(&self) {
        let report = {
            let trainer = self.shared.trainer.lock();
            self.shared.metrics.unjudged.absolute(trainer.judge().unjudged());
            let progressive = trainer.judge().progressive();
            let tasks = self.shared.metrics.evaluate.len();
            (0..tasks)
                .map(|i| (progressive.whole(i).all.examples, progressive.sliding(i).all))
                .collect::<Vec<_>>()
        };
        for (metrics, (judged, figures)) in self.shared.metrics.evaluate.iter().zip(report) {
            metrics.judged.absolute(judged);
            let set =
                |gauge: &metrics::Gauge, value: Option<f64>| gauge.set(value.unwrap_or(f64::NAN));
            set(&metrics.auc, figures.auc);
            set(&metrics.grouped_auc, figures.grouped_auc);
            set(&metrics.log_loss, figures.log_loss);
            set(&metrics.normalised_entropy, figures.normalised_entropy);
            set(&metrics.calibration, figures.calibration);
        }
    }

    /// Looks at what became of what was sent.
    ///
    /// # Errors
    /// When a producer has ended for good.
    fn producers(&mut self) -> Result<(), Stop> {
        let mut counts = BTreeMap::<String, ProducerCounts>::new();
        for producer in &self.producers {
            producer.check().map_err(|trouble| Stop::kafka("writing", trouble))?;
            for (topic, more) in producer.counts_by_topic() {
                *counts.entry(topic).or_default() += more;
            }
        }
        self.outputs.look(&counts, &self.shared);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
