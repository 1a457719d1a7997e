//! What is written in a configuration file: one struct for each section, with the defaults.
//!
//! Every value here is still a wish: `validate` says what it means. Keys that are texts may be empty where "none" makes sense, so that
//! every key has a default which the reference file shows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_models::spec::{CrossingSpec, FunnelSpec, InterestSpec, Method, PriorSpec, SharingSpec};

use super::units::{Amount, Period, Size};

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section! {
    /// The whole file.
    Config {
        /// `[kafka]`
        kafka: Kafka = Kafka::default(),
        /// `[funnel]`
        funnel: Funnel = Funnel::default(),
        /// `[items]`
        items: Items = Items::default(),
        /// `[sequence]`
        sequence: Sequence = Sequence::default(),
        /// `[features]`
        features: Features = Features::default(),
        /// `[[fields]]`
        fields: Vec<Field> = Vec::new(),
        /// `[[counters]]`
        counters: Vec<Counter> = default_counters(),
        /// `[model]`
        model: Model = Model::default(),
        /// `[learn]`
        learn: Learn = Learn::default(),
        /// `[table]`
        table: Table = Table::default(),
        /// `[retrieval]`
        retrieval: Retrieval = Retrieval::default(),
        /// `[serve]`
        serve: Serve = Serve::default(),
        /// `[publish]`
        publish: Publish = Publish::default(),
        /// `[scores]`
        scores: Scores = Scores::default(),
        /// `[checkpoint]`
        checkpoint: Checkpoint = Checkpoint::default(),
        /// `[memory]`
        memory: Memory = Memory::default(),
        /// `[open]`
        open: Open = Open::default(),
        /// `[capture]`
        capture: Capture = Capture::default(),
        /// `[evaluate]`
        evaluate: Evaluate = Evaluate::default(),
        /// `[http]`
        http: Http = Http::default(),
        /// `[log]`
        log: Log = Log::default(),
    }
}

section! {
    /// `[kafka]`: how to reach the cluster and what the topics are called.
    Kafka {
        /// `host:port`, several separated by commas.
        brokers: String = "localhost:9092".into(),
        /// The consumer group, which is also the name under which lag tools see the daemon.
        group: String = "sluice".into(),
        /// What all topics' names begin with: `PREFIX.events`, `PREFIX.items` and so on.
        prefix: String = "sluice".into(),
        /// The name under which the brokers log the daemon.
        client_id: String = "sluice".into(),
        /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
        security: String = "plaintext".into(),
        /// Topics that a request may name in its `reply-topic` header.
        reply_topics: Vec<String> = Vec::new(),
        /// Where a daemon without checkpoint starts: `beginning` or `end`.
        start: String = "beginning".into(),
        /// Runs a broker inside the process instead of connecting to one: for trying out, nothing survives.
        embedded: bool = false,
        /// `[kafka.sasl]`
        sasl: Sasl = Sasl::default(),
        /// `[kafka.tls]`
        tls: Tls = Tls::default(),
        /// Further librdkafka options by their own names.
        extra: BTreeMap<String, toml::Value> = BTreeMap::new(),
    }
}

section! {
    /// `[kafka.sasl]`: who the daemon is, where `security` says SASL.
    Sasl {
        /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; empty without SASL.
        mechanism: String = String::new(),
        /// The user.
        username: String = String::new(),
        /// The file that holds the password.
        password_file: String = String::new(),
    }
}

section! {
    /// `[kafka.tls]`: certificates, where `security` says TLS; all PEM.
    Tls {
        /// File of the authorities to trust; empty: the system's.
        ca: String = String::new(),
        /// File of the daemon's own certificate; empty: none.
        certificate: String = String::new(),
        /// File of its key.
        key: String = String::new(),
        /// File of the password of the key; empty: the key has none.
        key_password_file: String = String::new(),
    }
}

section! {
    /// `[funnel]`: which events are learned, and how long to wait for them.
    Funnel {
        /// The event that opens the funnel: `impression`, or the name of the view for a shop without impressions.
        entry: String = "impression".into(),
        /// Sampled items for each view; not used with impressions.
        negatives: usize = 4,
        /// How much later than the newest event an event of its partition may come and still be in time.
        lateness: Period = Period::seconds(300),
        /// Further event types that only enter the sequences.
        behaviours: Vec<String> = Vec::new(),
        /// `[[funnel.tasks]]`
        tasks: Vec<Task> = default_tasks(),
    }
}

section! {
    /// `[[funnel.tasks]]`: one task.
    Task {
        /// The event type, which is the task's name everywhere.
        name: String = String::new(),
        /// The task that comes before it; empty: it follows the entry event.
        parent: String = String::new(),
        /// An outcome counts when it happens at most this long after the impression.
        window: Period = Period::seconds(1800),
        /// `fnw`: learned at once and corrected; `wait`: learned when the window closes.
        labels: String = "fnw".into(),
        /// The probability that is expected before anything is learned, see [`Funnel::prior`].
        prior: Option<f64> = None,
    }
}

impl Funnel {
    /// Returns the probability that is expected of a task before anything is learned; where none is given, a view as entry has its share of the
    /// sample, other tasks have 1 in 20.
    ///
    /// # Panics
    /// When there is no such task.
    pub fn prior(&self, task: usize) -> f64 {
        let view = task == 0 && self.entry != "impression";
        let usual = if view { 1.0 / (1.0 + self.negatives as f64) } else { 0.05 };
        self.tasks[task].prior.unwrap_or(usual)
    }
}

section! {
    /// `[items]`: what the daemon has to know of an item's attributes.
    Items {
        /// The attribute that holds the category.
        category: String = "category".into(),
        /// The attribute that says whether an item may be recommended; an item without it may.
        available: String = "available".into(),
        /// An item counts as new for so long after it was first seen.
        new_for: Period = Period::seconds(86_400),
    }
}

section! {
    /// `[sequence]`: the memory of each user.
    Sequence {
        /// The most behaviours that are kept of a user; the oldest go first.
        max_length: usize = 50_000,
        /// The behaviours that the model reads; empty: all tasks.
        read: Vec<String> = Vec::new(),
    }
}

section! {
    /// `[features]`: fields that every impression has.
    Features {
        /// Which of `user`, `item`, `category`, `surface`, `position`, `hour`, `weekday` the model reads.
        standard: Vec<String> =
            ["user", "item", "category", "surface", "position", "hour"].map(String::from).to_vec(),
    }
}

section! {
    /// `[[fields]]`: one further field of the model.
    Field {
        /// Its name in reports; with the name of a standard field it takes that one's place.
        name: String = String::new(),
        /// `event`, `context`, `item`, `user` or `counter`.
        source: String = String::new(),
        /// Instead of a source: the names of other fields, for each combination of which there is a category.
        cross: Vec<String> = Vec::new(),
        /// The attribute; of an event: `user`, `item`, `category`, `surface`, `position` or `time`; of a counter: the name of its field, whose number
        /// is put in steps. Empty: the name.
        key: String = String::new(),
        /// `category`, `list`, `number`, `log`, `log-bucket`, `steps`, `hour`, `weekday` or `age`.
        kind: String = "category".into(),
        /// The embedding table; fields of one table share its rows. Empty: the name.
        table: String = String::new(),
        /// Width of the table's rows; absent: `model.width`; 0: only the crossing `linear` reads the field.
        width: Option<usize> = None,
        /// What a number, or its logarithm, is multiplied by (`number`, `log`, `log-bucket`, `steps`).
        scale: Option<f64> = None,
        /// What is added to a number then (`number`, `log`).
        shift: Option<f64> = None,
        /// How many buckets (`log-bucket`, `steps`).
        buckets: Option<u32> = None,
        /// The unit of an age (`age`).
        unit: Option<Period> = None,
        /// The largest age in units (`age`).
        most: Option<u32> = None,
        /// What a missing value means: `"own"`, `"zero"` or, for numbers, a number.
        missing: Option<toml::Value> = None,
    }
}

section! {
    /// `[[counters]]`: decayed counts of outcomes and of the impressions behind them.
    Counter {
        /// The task whose outcomes are counted; empty: one counter for each task (not with `beside`, which counts none).
        task: String = String::new(),
        /// By what: one or several of `item`, `user`, `category`, `surface`.
        by: Vec<String> = Vec::new(),
        /// After so much event time a count is worth half.
        half_life: Period = Period::seconds(3 * 86_400),
        /// How many impressions at the overall rate stand in front of the counts (`log-odds`).
        smoothing: f64 = 20.0,
        /// What the model reads: `log-odds`, `count`, `any` or `beside`.
        read: String = "log-odds".into(),
        /// The item's attribute whose number is read beside the usual one (`beside`).
        value: String = String::new(),
    }
}

section! {
    /// `[model]`: what is learned.
    Model {
        /// Width of the rows of every table that has no width of its own.
        width: usize = 16,
        /// `[model.interest]`: what the history says about the candidate.
        interest: InterestSpec = InterestSpec::default(),
        /// `[model.crossing]`: what pairs of fields, or single ones, add to the logits.
        crossing: CrossingSpec = CrossingSpec::default(),
        /// `[model.sharing]`: what the tasks share.
        sharing: SharingSpec = SharingSpec::default(),
        /// `[model.funnel]`: how the tasks hang together.
        funnel: FunnelSpec = FunnelSpec::default(),
    }
}

section! {
    /// `[learn]`: how it is learned.
    Learn {
        /// Examples in a step; without a deep part each is a step of its own, and this many are handed over at a time.
        batch: usize = 256,
        /// A step is made with fewer examples when the oldest has waited for so long.
        max_age: Period = Period::milliseconds(200),
        /// What a step is: `gradient` or `bayes`.
        method: Method = Method::Gradient,
        /// Learning rate of the layers (Adam).
        dense_rate: f64 = 0.001,
        /// Learning rate of the rows (row-wise Adagrad).
        row_rate: f64 = 0.05,
        /// Learning rate of the rows of the crossing `linear` (row-wise Adagrad), divided by the root of the number of fields without numbers.
        linear_rate: f64 = 0.5,
        /// Standard deviation of the numbers of a new row.
        row_deviation: f64 = 0.01,
        /// The largest norm of a step's gradient; larger ones are scaled down to it. 0: no limit.
        clip: f64 = 10.0,
        /// From what the first parameters are drawn.
        seed: u64 = 1,
        /// Threads of a step, the learner's own included. The same number gives the same bits. A second one makes steps of 64 or more examples
        /// 1.9 times as fast where a core is free for it; 1 leaves the other cores to joining, scoring and publishing.
        threads: usize = 1,
        /// `[learn.prior]`: what `bayes` expects of the weights.
        prior: PriorSpec = PriorSpec::default(),
    }
}

section! {
    /// `[table]`: the embedding tables.
    Table {
        /// How often an id must have been seen before it gets a row of its own.
        admission: u8 = 1,
        /// The most rows of all tables of one width; 0: as many as the tables' share of the memory holds.
        max_rows: u64 = 0,
        /// A row that was not used for so long of event time is dropped; `0s`: never.
        expiry: Period = Period::seconds(90 * 86_400),
    }
}

section! {
    /// `[retrieval]`: the two-tower model behind `recommend`, `similar` and the published embeddings.
    Retrieval {
        /// Width of the published vectors.
        width: usize = 32,
        /// The task whose positives train it; empty: the first task.
        task: String = String::new(),
        /// After so many steps of this model all item vectors are encoded anew; at first earlier, after 16, 32, 64, ... of them.
        refresh: u64 = 2000,
        /// Divides the similarities in the softmax.
        temperature: f64 = 0.1,
    }
}

section! {
    /// `[serve]`: answers to requests.
    Serve {
        /// The ranking score over the tasks' probabilities.
        score: String = "p.click + 20 * p.purchase".into(),
        /// The most items of a `rank` request.
        max_candidates: usize = 1000,
        /// Candidates that a `recommend` request scores.
        candidates: usize = 200,
        /// Threads that score.
        scorers: usize = 1,
        /// Requests that may wait; further ones are answered `overloaded` at once.
        queue: usize = 1000,
    }
}

section! {
    /// `[publish]`: embeddings of items and users.
    Publish {
        /// A touched embedding is published at most once in so long.
        interval: Period = Period::seconds(1),
    }
}

section! {
    /// `[scores]`: refreshed top lists of users with new behaviour.
    Scores {
        /// The share of one core that they may take; 0: none are made.
        budget: f64 = 0.1,
        /// Items in a list.
        k: usize = 50,
        /// A user gets at most one list in so long.
        interval: Period = Period::seconds(10),
    }
}

section! {
    /// `[checkpoint]`: the state on disk.
    Checkpoint {
        /// The folder of the state, made when it is missing.
        path: String = "sluice-data".into(),
        /// How often a checkpoint is made.
        interval: Period = Period::seconds(60),
        /// Of how many checkpoints the parameter files are kept.
        keep: usize = 2,
    }
}

section! {
    /// `[memory]`: how much of it there is for all that grows.
    Memory {
        /// What the process may use: a size, or a part of what its control group or machine has.
        limit: Amount = Amount::Percent(80),
    }
}

section! {
    /// `[open]`: impressions that wait for labels.
    Open {
        /// The most memory that they take; reading pauses there. Empty: their share of the memory.
        max_bytes: String = String::new(),
    }
}

section! {
    /// `[capture]`: what `run --capture` writes.
    Capture {
        /// The most bytes; capturing stops there.
        max_bytes: Size = Size::mebibytes(1024),
    }
}

section! {
    /// `[evaluate]`: progressive validation.
    Evaluate {
        /// The length of the sliding windows in event time.
        window: Period = Period::seconds(86_400),
        /// The share of impressions that are predicted on arrival.
        share: f64 = 1.0,
    }
}

section! {
    /// `[http]`: metrics, probes, status.
    Http {
        /// Address and port; port 0: a free one.
        listen: String = "127.0.0.1:9464".into(),
    }
}

section! {
    /// `[log]`: what the daemon says on standard error.
    Log {
        /// `error`, `warn`, `info`, `debug` or `trace`; or a filter such as `info,sluice_daemon::kafka=debug`.
        level: String = "info".into(),
        /// `text` or `json`.
        format: String = "text".into(),
    }
}

/// The funnel of a generic shop.
fn default_tasks() -> Vec<Task> {
    let task = |name: &str, parent: &str, hours: i64, prior: f64| Task {
        name: name.into(),
        parent: parent.into(),
        window: Period::seconds(hours * 3600),
        prior: Some(prior),
        ..Task::default()
    };
    vec![
        Task { window: Period::seconds(1800), ..task("click", "", 0, 0.1) },
        task("cart", "click", 24, 0.02),
        task("purchase", "cart", 7 * 24, 0.005),
    ]
}

fn default_counters() -> Vec<Counter> {
    let by = |subjects: &[&str]| Counter {
        by: subjects.iter().map(|&subject| subject.into()).collect(),
        ..Counter::default()
    };
    vec![
        by(&["item"]),
        by(&["user"]),
        by(&["category"]),
        by(&["surface"]),
        by(&["user", "category"]),
    ]
}
