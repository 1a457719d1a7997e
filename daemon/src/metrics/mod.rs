//! Metrics: handles that are registered once, so that counting in a hot loop looks nothing up.
//!
//! Every [`Metrics`] has a registry of its own: two daemons fit in one process.

mod catalogue;

#[cfg(test)]
mod tests;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use catalogue::{ALL, Description, Kind, as_markdown};

use catalogue::BUCKETS;

use crate::config::{Part, Share};

/// The closed sets that labels come from. A handle of a labelled metric stands at the label's place in its set.
#[derive(Clone, Debug, Default)]
pub struct LabelSets {
    /// The topics read, by role.
    pub topics: Vec<String>,
    /// The entry event, then all behaviours in the funnel's order.
    pub types: Vec<String>,
    /// The reasons of rejections.
    pub reasons: Vec<String>,
    /// The fields and rules that may find a value unusable.
    pub needs: Vec<String>,
    /// The fields whose values come with records.
    pub fields: Vec<String>,
    /// The tasks of the funnel.
    pub tasks: Vec<String>,
    /// The kinds of requests.
    pub kinds: Vec<String>,
    /// The outcomes of requests.
    pub outcomes: Vec<String>,
    /// The topics written, by part.
    pub outputs: Vec<String>,
    /// Why a record did not arrive.
    pub causes: Vec<String>,
    /// Why records are missing that were to be read.
    pub gaps: Vec<String>,
}

/// All metrics of one daemon.
pub struct Metrics {
    /// See the catalogue.
    pub daemon: Daemon,
    /// See the catalogue.
    pub consume: Consume,
    /// See the catalogue.
    pub events: Events,
    /// See the catalogue.
    pub join: Join,
    /// See the catalogue.
    pub learn: Learn,
    /// By task.
    pub evaluate: Vec<Evaluate>,
    /// Final labels without a kept prediction.
    pub unjudged: Counter,
    /// See the catalogue.
    pub serve: Serve,
    /// See the catalogue.
    pub publish: Publish,
    /// See the catalogue.
    pub checkpoint: Checkpoint,
    /// See the catalogue.
    pub table: Table,
    /// See the catalogue.
    pub memory: Memory,
    /// See the catalogue.
    pub state: State,
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

macro_rules! group {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[expect(missing_docs, reason = "each handle is described in the catalogue under its name")]
        pub struct $name { $(pub $field: $kind,)* }
    };
}

group! {
    /// `sluice_daemon_*`.
    Daemon { ready: Gauge, start_time_seconds: Gauge, rivals: Gauge, }
}
group! {
    /// `sluice_consume_*`. `records` and `bytes` by topic, `gaps` and `missing` by cause.
    Consume {
        records: Vec<Counter>, bytes: Vec<Counter>, poll_age_seconds: Gauge, queue_bytes: Gauge,
        paused: Gauge, connected: Gauge, commits_failed: Counter, gaps: Vec<Counter>,
        missing: Vec<Counter>,
    }
}
group! {
    /// `sluice_events_*`. `taken` by type, `rejected` by reason, `unusable` and `always_missing` by field.
    Events {
        taken: Vec<Counter>, rejected: Vec<Counter>, replayed: Counter, skewed: Counter,
        jumped: Counter, jumping_partitions: Gauge, untold_counters: Counter,
        unknown_fields: Counter, split_users: Gauge,
        unusable: Vec<Counter>, always_missing: Vec<Gauge>, later_features: Counter,
    }
}
group! {
    /// `sluice_join_*` and `sluice_open_*`. The counters by type.
    Join {
        duplicates: Vec<Counter>, late: Vec<Counter>, orphaned: Vec<Counter>, childless: Vec<Counter>,
        orphans_unusual: Vec<Gauge>,
        late_impressions: Vec<Counter>, forgotten_ids: Vec<Counter>,
        given_up: Vec<Counter>, early_behaviours: Gauge, open_impressions: Gauge,
    }
}
group! {
    /// `sluice_learn_*`.
    Learn {
        examples: Counter, steps: Counter, refused_batches: Counter, unsound: [Gauge; 2], step_seconds: Histogram,
        freshness_seconds: Histogram, waiting_batches: Gauge, until_seconds: Gauge,
    }
}
group! {
    /// `sluice_evaluate_*` of one task.
    Evaluate {
        judged: Counter, auc: Gauge, grouped_auc: Gauge, log_loss: Gauge, normalised_entropy: Gauge,
        calibration: Gauge, breaches: Counter,
    }
}
group! {
    /// `sluice_serve_*`. `requests` by kind, then outcome; `seconds` by kind.
    Serve {
        requests: Vec<Vec<Counter>>, seconds: Vec<Histogram>, waiting_requests: Gauge,
        scores_not_finite: Counter, clock_skew_seconds: Gauge,
    }
}
group! {
    /// `sluice_publish_*` and `sluice_dead_letters_total`. `delivered` by output topic, `undelivered` by output topic, then cause.
    Publish {
        index_items: Gauge, index_steps: Gauge,
        embeddings: Counter, scores: Counter, scores_put_off: Counter, delivered: Vec<Counter>,
        undelivered: Vec<Vec<Counter>>, dead_letters: Counter,
    }
}
group! {
    /// `sluice_checkpoint_*` and `sluice_store_bytes`.
    Checkpoint {
        seconds: Histogram, pause_seconds: Histogram, failures: Counter, bytes: Gauge, age_seconds: Gauge,
        store_bytes: Gauge,
    }
}
group! {
    /// `sluice_table_*`.
    Table { rows: Gauge, admitted: Counter, refused: Counter, expired: Counter, }
}
group! {
    /// `sluice_memory_*`. `bytes` by part, `bound_bytes` by share, `paused` by the shares that reading waits for.
    Memory { limit_bytes: Gauge, bytes: Vec<Gauge>, bound_bytes: Vec<Gauge>, paused: Vec<Gauge>, }
}
group! {
    /// `sluice_sequence_*`, `sluice_counters_*`, `sluice_catalogue_*`, `sluice_names_*`, `sluice_capture_bytes` and `sluice_journal_bytes`.
    State {
        sequence_users: Gauge, sequence_behaviours: Gauge, users_in_memory: Gauge, users_unstored_bytes: Gauge, users_hits: Counter,
        users_misses: Counter, users_segments_read: Counter, users_evicted_bytes: Counter, counter_entries: Gauge, counters_refused: Counter,
        catalogue_items: Gauge, catalogue_users: Gauge, catalogue_unknown_ends: Counter,
        catalogue_dropped: Counter, names_hits: Counter, names_misses: Counter, names_cache_bytes: Gauge, capture_bytes: Gauge, journal_bytes: Gauge,
    }
}

impl Metrics {
    /// Registers all metrics in a new registry.
    pub fn new(sets: &LabelSets) -> Self {
        let builder = PrometheusBuilder::new();
        // The only error is an empty list of buckets; without buckets a histogram would be a summary.
        let recorder = builder
            .set_buckets(&BUCKETS)
            .unwrap_or_else(|_| PrometheusBuilder::new())
            .build_recorder();
        for Description { name, kind, help, .. } in ALL {
            let (name, help) = ((*name).into(), (*help).into());
            match kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram => recorder.describe_histogram(name, None, help),
            }
        }
        let r = Registry(&recorder);
        Self {
            daemon: Daemon {
                ready: r.gauge("sluice_daemon_ready"),
                start_time_seconds: r.gauge("sluice_daemon_start_time_seconds"),
                rivals: r.gauge("sluice_daemon_rivals"),
            },
            consume: Consume {
                records: r.counters("sluice_consume_records_total", "topic", &sets.topics),
                bytes: r.counters("sluice_consume_bytes_total", "topic", &sets.topics),
                poll_age_seconds: r.gauge("sluice_consume_poll_age_seconds"),
                queue_bytes: r.gauge("sluice_consume_queue_bytes"),
                paused: r.gauge("sluice_consume_paused"),
                connected: r.gauge("sluice_consume_connected"),
                commits_failed: r.counter("sluice_consume_commits_failed_total"),
                gaps: r.counters("sluice_consume_gaps_total", "cause", &sets.gaps),
                missing: r.counters("sluice_consume_missing_records_total", "cause", &sets.gaps),
            },
            events: Events {
                taken: r.counters("sluice_events_taken_total", "type", &sets.types),
                rejected: r.counters("sluice_events_rejected_total", "reason", &sets.reasons),
                replayed: r.counter("sluice_events_replayed_total"),
                skewed: r.counter("sluice_events_skewed_total"),
                jumped: r.counter("sluice_events_jumped_total"),
                jumping_partitions: r.gauge("sluice_events_jumping_partitions"),
                untold_counters: r.counter("sluice_events_untold_counters_total"),
                unknown_fields: r.counter("sluice_events_unknown_fields_total"),
                split_users: r.gauge("sluice_events_split_users"),
                unusable: r.counters("sluice_events_unusable_total", "field", &sets.needs),
                always_missing: sets
                    .fields
                    .iter()
                    .map(|field| r.gauge_of("sluice_events_always_missing", &[("field", field)]))
                    .collect(),
                later_features: r.counter("sluice_events_later_features_total"),
            },
            join: Join {
                duplicates: r.counters("sluice_join_duplicates_total", "type", &sets.types),
                late: r.counters("sluice_join_late_total", "type", &sets.types),
                orphaned: r.counters("sluice_join_orphaned_total", "type", &sets.types),
                orphans_unusual: sets
                    .types
                    .iter()
                    .map(|name| r.gauge_of("sluice_join_orphans_unusual", &[("type", name)]))
                    .collect(),
                childless: r.counters("sluice_join_childless_total", "type", &sets.types),
                late_impressions: r.counters(
                    "sluice_join_late_impressions_total",
                    "type",
                    &sets.types,
                ),
                forgotten_ids: r.counters("sluice_join_forgotten_ids_total", "type", &sets.types),
                given_up: r.counters("sluice_join_given_up_total", "type", &sets.types),
                early_behaviours: r.gauge("sluice_join_early_behaviours"),
                open_impressions: r.gauge("sluice_open_impressions"),
            },
            learn: Learn {
                examples: r.counter("sluice_learn_examples_total"),
                steps: r.counter("sluice_learn_steps_total"),
                refused_batches: r.counter("sluice_learn_refused_batches_total"),
                unsound: ["figures", "refusals"]
                    .map(|cause| r.gauge_of("sluice_learn_unsound", &[("cause", cause)])),
                step_seconds: r.histogram("sluice_learn_step_seconds", &[]),
                freshness_seconds: r.histogram("sluice_learn_freshness_seconds", &[]),
                waiting_batches: r.gauge("sluice_learn_waiting_batches"),
                until_seconds: r.gauge("sluice_learn_until_seconds"),
            },
            evaluate: sets.tasks.iter().map(|task| evaluate(&r, task)).collect(),
            unjudged: r.counter("sluice_evaluate_unjudged_total"),
            serve: serve(&r, sets),
            publish: Publish {
                index_items: r.gauge("sluice_publish_index_items"),
                index_steps: r.gauge("sluice_publish_index_steps"),
                embeddings: r.counter("sluice_publish_embeddings_total"),
                scores: r.counter("sluice_publish_scores_total"),
                scores_put_off: r.counter("sluice_publish_scores_put_off_total"),
                delivered: r.counters("sluice_publish_delivered_total", "topic", &sets.outputs),
                undelivered: sets
                    .outputs
                    .iter()
                    .map(|topic| undelivered(&r, sets, topic))
                    .collect(),
                dead_letters: r.counter("sluice_dead_letters_total"),
            },
            checkpoint: Checkpoint {
                seconds: r.histogram("sluice_checkpoint_seconds", &[]),
                pause_seconds: r.histogram("sluice_checkpoint_pause_seconds", &[]),
                failures: r.counter("sluice_checkpoint_failures_total"),
                bytes: r.gauge("sluice_checkpoint_bytes"),
                age_seconds: r.gauge("sluice_checkpoint_age_seconds"),
                store_bytes: r.gauge("sluice_store_bytes"),
            },
            table: Table {
                rows: r.gauge("sluice_table_rows"),
                admitted: r.counter("sluice_table_admitted_total"),
                refused: r.counter("sluice_table_refused_total"),
                expired: r.counter("sluice_table_expired_total"),
            },
            memory: memory(&r),
            state: State {
                sequence_users: r.gauge("sluice_sequence_users"),
                users_in_memory: r.gauge("sluice_users_in_memory"),
                users_unstored_bytes: r.gauge("sluice_users_unstored_bytes"),
                users_hits: r.counter("sluice_users_hits_total"),
                users_misses: r.counter("sluice_users_misses_total"),
                users_segments_read: r.counter("sluice_users_segments_read_total"),
                users_evicted_bytes: r.counter("sluice_users_evicted_bytes_total"),
                sequence_behaviours: r.gauge("sluice_sequence_behaviours"),
                counter_entries: r.gauge("sluice_counters_entries"),
                counters_refused: r.counter("sluice_counters_refused_total"),
                catalogue_items: r.gauge("sluice_catalogue_items"),
                catalogue_users: r.gauge("sluice_catalogue_users"),
                catalogue_unknown_ends: r.counter("sluice_catalogue_unknown_ends_total"),
                catalogue_dropped: r.counter("sluice_catalogue_dropped_versions_total"),
                names_hits: r.counter("sluice_names_hits_total"),
                names_misses: r.counter("sluice_names_misses_total"),
                names_cache_bytes: r.gauge("sluice_names_cache_bytes"),
                capture_bytes: r.gauge("sluice_capture_bytes"),
                journal_bytes: r.gauge("sluice_journal_bytes"),
            },
            handle: recorder.handle(),
            recorder,
        }
    }

    /// Returns the lag of one partition: to be kept by the caller for as long as it has the partition.
    pub fn lag(&self, topic: &str, partition: i32) -> Gauge {
        let labels = [("topic", topic), ("partition", &partition.to_string())];
        Registry(&self.recorder).gauge_of("sluice_consume_lag_records", &labels)
    }

    /// Returns all metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds the newest samples of the histograms into their buckets. To be called every few seconds: samples take memory until then.
    pub fn fold(&self) {
        self.handle.run_upkeep();
    }
}

fn memory(r: &Registry<'_>) -> Memory {
    let of = |name: &'static str, shares: &[Share]| {
        shares.iter().map(|share| r.gauge_of(name, &[("share", share.name())])).collect()
    };
    let bytes = |part: &Part| {
        let labels = [("part", part.name()), ("share", part.share().name())];
        r.gauge_of("sluice_memory_bytes", &labels)
    };
    Memory {
        limit_bytes: r.gauge("sluice_memory_limit_bytes"),
        bytes: Part::ALL.iter().map(bytes).collect(),
        bound_bytes: of("sluice_memory_bound_bytes", &Share::ALL),
        paused: of("sluice_memory_paused", &[Share::Open, Share::State]),
    }
}

fn evaluate(r: &Registry<'_>, task: &str) -> Evaluate {
    let gauge = |name| r.gauge_of(name, &[("task", task)]);
    Evaluate {
        judged: r.counter_of("sluice_evaluate_judged_total", &[("task", task)]),
        auc: gauge("sluice_evaluate_auc"),
        grouped_auc: gauge("sluice_evaluate_grouped_auc"),
        log_loss: gauge("sluice_evaluate_log_loss"),
        normalised_entropy: gauge("sluice_evaluate_normalised_entropy"),
        calibration: gauge("sluice_evaluate_calibration"),
        breaches: r.counter_of("sluice_evaluate_breaches_total", &[("task", task)]),
    }
}

fn undelivered(r: &Registry<'_>, sets: &LabelSets, topic: &str) -> Vec<Counter> {
    let counter = |cause: &String| {
        r.counter_of("sluice_publish_undelivered_total", &[("topic", topic), ("cause", cause)])
    };
    sets.causes.iter().map(counter).collect()
}

fn serve(r: &Registry<'_>, sets: &LabelSets) -> Serve {
    let counter = |kind, outcome| {
        r.counter_of("sluice_serve_requests_total", &[("kind", kind), ("outcome", outcome)])
    };
    let of_kind = |kind| sets.outcomes.iter().map(|outcome| counter(kind, outcome)).collect();
    Serve {
        requests: sets.kinds.iter().map(|kind| of_kind(kind)).collect(),
        seconds: sets
            .kinds
            .iter()
            .map(|kind| r.histogram("sluice_serve_seconds", &[("kind", kind)]))
            .collect(),
        waiting_requests: r.gauge("sluice_serve_waiting_requests"),
        scores_not_finite: r.counter("sluice_serve_scores_not_finite_total"),
        clock_skew_seconds: r.gauge("sluice_serve_clock_skew_seconds"),
    }
}

/// Makes handles in a recorder.
struct Registry<'a>(&'a PrometheusRecorder);

const METADATA: Metadata<'static> = Metadata::new("sluice", Level::INFO, None);

impl Registry<'_> {
    fn counter(&self, name: &'static str) -> Counter {
        self.counter_of(name, &[])
    }

    fn counter_of(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.0.register_counter(&key(name, labels), &METADATA)
    }

    /// One counter for each value of a label.
    fn counters(&self, name: &'static str, label: &'static str, values: &[String]) -> Vec<Counter> {
        values.iter().map(|value| self.counter_of(name, &[(label, value)])).collect()
    }

    fn gauge(&self, name: &'static str) -> Gauge {
        self.gauge_of(name, &[])
    }

    fn gauge_of(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.0.register_gauge(&key(name, labels), &METADATA)
    }

    fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.0.register_histogram(&key(name, labels), &METADATA)
    }
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> =
        labels.iter().map(|(name, value)| Label::new(*name, String::from(*value))).collect();
    Key::from_parts(name, labels)
}
