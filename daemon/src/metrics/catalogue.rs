//! Every metric: name, kind, labels, meaning. A test compares this list with the table in `daemon/README.md`.
//!
//! Names are `sluice_<part>_<what>_<unit>`, with `_total` behind what only grows. Labels come from closed sets, never from ids.

/// What a metric does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds, in buckets.
    Histogram,
}

impl Kind {
    /// Returns the name of the kind in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Description {
    Description { name, kind: Kind::Counter, labels, help }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Description {
    Description { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Description {
    Description { name, kind: Kind::Histogram, labels, help }
}

/// All metrics, in the order of the documentation.
pub const ALL: &[Description] = &[
    gauge("sluice_daemon_ready", &[], "1 when the daemon is ready: caught up, writing, publishing"),
    gauge("sluice_daemon_start_time_seconds", &[], "when the process started, seconds since 1970"),
    gauge(
        "sluice_daemon_rivals",
        &[],
        "1 while another daemon works in this group: requests are answered and outputs published twice",
    ),
    counter("sluice_consume_records_total", &["topic"], "records read from Kafka"),
    counter("sluice_consume_bytes_total", &["topic"], "bytes of keys and values read from Kafka"),
    gauge(
        "sluice_consume_lag_records",
        &["topic", "partition"],
        "records between the position and the end of the partition",
    ),
    gauge("sluice_consume_poll_age_seconds", &[], "time since the poll thread last asked Kafka"),
    gauge("sluice_consume_queue_bytes", &[], "bytes of records that are read and not yet taken"),
    gauge(
        "sluice_consume_paused",
        &[],
        "1 while reading is paused because a later stage is behind",
    ),
    gauge("sluice_consume_connected", &[], "1 while brokers can be reached"),
    counter(
        "sluice_consume_commits_failed_total",
        &[],
        "offset commits that Kafka refused; only lag tools miss them",
    ),
    counter(
        "sluice_consume_gaps_total",
        &["cause"],
        "places where records are missing and reading went on knowingly (`--accept-gap`)",
    ),
    counter(
        "sluice_consume_missing_records_total",
        &["cause"],
        "records missing there, where their number is known",
    ),
    counter("sluice_events_taken_total", &["type"], "valid events by type"),
    counter("sluice_events_rejected_total", &["reason"], "records refused, by reason"),
    counter("sluice_events_replayed_total", &[], "records at or below the applied offset, skipped"),
    counter(
        "sluice_events_skewed_total",
        &[],
        "events too far ahead of their record's arrival to move the watermark",
    ),
    counter(
        "sluice_events_jumped_total",
        &[],
        "events whose time lies far beyond their partition's and is not confirmed: they move nothing",
    ),
    gauge(
        "sluice_events_jumping_partitions",
        &[],
        "partitions whose newest events lie far beyond those before them and wait to be confirmed",
    ),
    counter(
        "sluice_events_untold_counters_total",
        &[],
        "impressions that came so late that counters as of their time cannot be told: these are missing",
    ),
    counter("sluice_events_unknown_fields_total", &[], "unknown fields in valid records, ignored"),
    gauge(
        "sluice_events_split_users",
        &[],
        "users whose events lie in more than one partition, since the start: their outcomes do not find their impressions",
    ),
    counter(
        "sluice_events_unusable_total",
        &["field"],
        "values that the field cannot use: missing, or no where they say whether an item can be had",
    ),
    gauge(
        "sluice_events_always_missing",
        &["field"],
        "1 while a declared field is missing in all impressions that are looked at",
    ),
    counter(
        "sluice_events_later_features_total",
        &[],
        "impressions of an item or user of whom only later features are known, which were read",
    ),
    counter("sluice_join_duplicates_total", &["type"], "events whose id was seen before"),
    counter("sluice_join_late_total", &["type"], "events that came after their window had closed"),
    counter("sluice_join_orphaned_total", &["type"], "behaviours without an impression"),
    gauge(
        "sluice_join_orphans_unusual",
        &["type"],
        "1 while clearly more behaviours than usual have no impression",
    ),
    counter(
        "sluice_join_childless_total",
        &["type"],
        "outcomes without their parent outcome, label 0",
    ),
    counter(
        "sluice_join_late_impressions_total",
        &["type"],
        "impressions that came too late to have a label of this task",
    ),
    counter(
        "sluice_join_forgotten_ids_total",
        &["type"],
        "ids forgotten for want of room: later copies are no longer known",
    ),
    counter(
        "sluice_join_given_up_total",
        &["type"],
        "behaviours given up for want of room while they waited for their impression: orphans too",
    ),
    gauge("sluice_join_early_behaviours", &[], "behaviours that wait for their impression"),
    gauge("sluice_open_impressions", &[], "impressions that wait for labels"),
    counter("sluice_learn_examples_total", &[], "examples learned"),
    counter("sluice_learn_steps_total", &[], "steps made"),
    counter(
        "sluice_learn_refused_batches_total",
        &[],
        "batches refused because loss or gradient was not finite",
    ),
    gauge(
        "sluice_learn_unsound",
        &["cause"],
        "1 while the guard lets nothing be published, because of the figures or of refused batches",
    ),
    histogram("sluice_learn_step_seconds", &[], "time of a step"),
    histogram(
        "sluice_learn_freshness_seconds",
        &[],
        "from the arrival of an event's record to the step that learned it",
    ),
    gauge("sluice_learn_waiting_batches", &[], "batches that wait for the learner"),
    gauge(
        "sluice_learn_until_seconds",
        &[],
        "event time up to which every final example is learned, seconds since 1970",
    ),
    counter(
        "sluice_evaluate_judged_total",
        &["task"],
        "final labels judged against the prediction on arrival",
    ),
    counter("sluice_evaluate_unjudged_total", &[], "final labels without a kept prediction"),
    gauge("sluice_evaluate_auc", &["task"], "progressive AUC over the window"),
    gauge("sluice_evaluate_grouped_auc", &["task"], "progressive AUC within users over the window"),
    gauge("sluice_evaluate_log_loss", &["task"], "progressive log loss over the window"),
    gauge(
        "sluice_evaluate_normalised_entropy",
        &["task"],
        "log loss over the entropy of the rate, over the window",
    ),
    gauge(
        "sluice_evaluate_calibration",
        &["task"],
        "sum of predictions over sum of labels, over the window",
    ),
    counter(
        "sluice_evaluate_breaches_total",
        &["task"],
        "windows that the guard found unsound: publishing stops",
    ),
    counter(
        "sluice_serve_requests_total",
        &["kind", "outcome"],
        "requests by kind and outcome, counted once Kafka has taken the answer, or has not",
    ),
    histogram("sluice_serve_seconds", &["kind"], "from taking a request to handing its answer on"),
    gauge("sluice_serve_waiting_requests", &[], "requests that wait for a scorer"),
    counter(
        "sluice_serve_scores_not_finite_total",
        &[],
        "candidates that stand last because serve.score is not finite for them: it divides by what is 0",
    ),
    gauge(
        "sluice_serve_clock_skew_seconds",
        &[],
        "how far the clocks that date requests are ahead of ours, below 0 behind: the median of a hundred",
    ),
    gauge("sluice_publish_index_items", &[], "items in the retrieval index"),
    gauge(
        "sluice_publish_index_steps",
        &[],
        "steps of the retrieval model behind the index and the user tower in use",
    ),
    counter("sluice_publish_embeddings_total", &[], "embeddings sent to Kafka"),
    counter("sluice_publish_scores_total", &[], "refreshed top lists sent to Kafka"),
    counter(
        "sluice_publish_scores_put_off_total",
        &[],
        "top lists put off because the budget was used up",
    ),
    counter("sluice_publish_delivered_total", &["topic"], "records that Kafka took"),
    counter(
        "sluice_publish_undelivered_total",
        &["topic", "cause"],
        "records that Kafka did not take",
    ),
    counter("sluice_dead_letters_total", &[], "records written to the dead-letter topic"),
    histogram(
        "sluice_checkpoint_seconds",
        &[],
        "time of a checkpoint, written while everything else goes on",
    ),
    histogram(
        "sluice_checkpoint_pause_seconds",
        &[],
        "how long a checkpoint held up reading, learning or answering, added up",
    ),
    counter("sluice_checkpoint_failures_total", &[], "checkpoints that could not be written"),
    gauge("sluice_checkpoint_bytes", &[], "size of the newest parameter file"),
    gauge(
        "sluice_checkpoint_age_seconds",
        &[],
        "time since the last checkpoint, or since the start",
    ),
    gauge("sluice_store_bytes", &[], "size of the store on disk"),
    gauge("sluice_table_rows", &[], "rows of all embedding tables"),
    counter("sluice_table_admitted_total", &[], "ids that got a row"),
    counter(
        "sluice_table_refused_total",
        &[],
        "ids that got none: not seen often enough, or the cap is reached",
    ),
    counter("sluice_table_expired_total", &[], "rows dropped because they were not used for long"),
    gauge("sluice_memory_limit_bytes", &[], "what the process may use: memory.limit"),
    gauge("sluice_memory_bytes", &["part", "share"], "memory of what grows, by part"),
    gauge("sluice_memory_bound_bytes", &["share"], "its bounds: parts of one share have one"),
    gauge(
        "sluice_memory_paused",
        &["share"],
        "1 while reading waits because that bound is reached",
    ),
    gauge("sluice_sequence_users", &[], "users with a sequence"),
    gauge("sluice_sequence_behaviours", &[], "behaviours in all sequences"),
    gauge("sluice_users_in_memory", &[], "users whose sequence is in memory"),
    gauge(
        "sluice_users_unstored_bytes",
        &[],
        "users in memory who have changed since the checkpoint in force",
    ),
    counter("sluice_users_hits_total", &[], "users that were needed and in memory"),
    counter("sluice_users_misses_total", &[], "users that were needed and read from the store"),
    counter("sluice_users_segments_read_total", &[], "segments of sequences read from the store"),
    counter("sluice_users_evicted_bytes_total", &[], "bytes of users that made room for others"),
    gauge("sluice_counters_entries", &[], "keys of all counters"),
    counter("sluice_counters_refused_total", &[], "counts of new keys refused for want of room"),
    gauge("sluice_catalogue_items", &[], "items with features"),
    gauge("sluice_catalogue_users", &[], "users with features"),
    counter(
        "sluice_catalogue_unknown_ends_total",
        &[],
        "ends of items and users that are not known: nothing was changed",
    ),
    counter(
        "sluice_catalogue_dropped_versions_total",
        &[],
        "versions dropped though they may be asked for, because their id has too many",
    ),
    counter("sluice_names_hits_total", &[], "pages of names that were found in their cache"),
    counter("sluice_names_misses_total", &[], "pages of names that were read from the store"),
    gauge(
        "sluice_names_cache_bytes",
        &[],
        "memory of pages of names in their cache, a part of `names`",
    ),
    gauge("sluice_capture_bytes", &[], "bytes captured"),
    gauge(
        "sluice_journal_bytes",
        &[],
        "bytes of the journal since the checkpoint in force; 0 while it cannot be written",
    ),
];

/// Upper ends of the buckets of all histograms, in seconds.
pub(super) const BUCKETS: [f64; 17] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 60.0,
];

/// Returns the documentation's table of all metrics.
pub fn as_markdown() -> String {
    let mut text = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for Description { name, kind, labels, help } in ALL {
        text += &format!("| `{name}` | {} | {} | {help} |\n", kind.name(), labels.join(", "));
    }
    text
}
