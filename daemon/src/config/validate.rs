//! From what was written to what it means; every mistake is noted with its path and remedy.

use sluice_features::attributes::AttributeKey;
use sluice_features::funnel::{Entry, Funnel, LabelRule, Task};
use sluice_features::wire::MAX_CANDIDATES;
use sluice_models::executor::MOST_PIECES;
use sluice_models::model::row_bytes;
use sluice_models::retrieval::RetrieverSpec;
use sluice_models::spec::{EmbeddingSpec, FunnelSpec, LearningSpec, Method, ModelSpec};

use super::check::{one_of, within};
use super::expression::Expression;
use super::meaning::{
    Checkpoint, Config, Evaluate, Items, Joining, Kafka, Learn, Log, LogFormat, Model, Retrieval,
    Scores, Serve, Topics,
};
use super::memory::{Bounds, Given, LEAST, Memory};
use super::mistake::Mistakes;
use super::units::{Amount, Period, Size};
use super::{Machine, connection, file, schema};
use crate::kafka::Start;

/// Checks everything and says what it means. `mistakes` may hold some already.
pub(super) fn validate(
    file: &file::Config,
    machine: Machine,
    mut mistakes: Mistakes,
) -> Result<Config, Mistakes> {
    let m = &mut mistakes;
    let kafka = kafka(&file.kafka, m);
    let funnel = funnel(&file.funnel, m);
    within(m, "model.width", file.model.width, 1..=1024);
    let spec = model(file, m);
    let Some(funnel) = funnel else { return Err(mistakes) };
    let retrieval = retrieval(&file.retrieval, &funnel, m);
    let schema = schema::build(file, &funnel, spec.lookups(), m);
    for error in spec.validate(&schema, &funnel.parents()).err().into_iter().flatten() {
        let path = match error.place.split_once('.') {
            Some(("learning", key)) => format!("learn.{key}"),
            Some(("embeddings", key)) => format!("table.{key}"),
            _ => format!("model.{}", error.place),
        };
        m.add(path, error.problem);
    }
    within(m, "sequence.max_length", file.sequence.max_length, 1..=10_000_000);
    // Rows of all widths together, the retrieval model's among them.
    let row_bytes = row_bytes(&spec, &schema) + RetrieverSpec::default().row_bytes();
    let memory = memory(file, machine, row_bytes as u64, m);
    let bounds = memory.bounds;
    let config = Config {
        kafka,
        joining: Joining { lateness: file.funnel.lateness.span() },
        items: items(&file.items, m),
        sequence_length: file.sequence.max_length,
        schema,
        model: Model {
            spec,
            priors: (0..file.funnel.tasks.len()).map(|i| file.funnel.prior(i) as f32).collect(),
        },
        learn: learn(&file.learn, m),
        retrieval,
        serve: serve(&file.serve, &funnel, m),
        publish_interval: file.publish.interval.duration(),
        scores: scores(&file.scores, m),
        checkpoint: checkpoint(&file.checkpoint, m),
        memory,
        capture_bytes: within(m, "capture.max_bytes", file.capture.max_bytes, MEBIBYTE..=LARGEST)
            .get(),
        evaluate: evaluate(&file.evaluate, m),
        listen: listen(&file.http, m),
        log: log(&file.log, m),
        funnel,
    };
    mistakes.or(config.bounded(bounds))
}

const MEBIBYTE: Size = Size::mebibytes(1);
const LARGEST: Size = Size::mebibytes(1 << 30);
/// The fewest and the most rows of the tables of one width.
pub(super) const ROWS: (u64, u64) = (1000, 4_000_000_000);
const YEAR: Period = Period::seconds(366 * 86_400);

fn kafka(file: &file::Kafka, m: &mut Mistakes) -> Kafka {
    for (path, name) in [("kafka.group", &file.group), ("kafka.prefix", &file.prefix)] {
        topic_name(path, name, m);
    }
    for (i, name) in file.reply_topics.iter().enumerate() {
        topic_name(&format!("kafka.reply_topics.{i}"), name, m);
    }
    let starts = [("beginning", Start::Beginning), ("end", Start::End)];
    Kafka {
        connection: connection::build(file, m),
        group: file.group.clone(),
        topics: Topics::with_prefix(&file.prefix),
        reply_topics: file.reply_topics.clone(),
        start: one_of(m, "kafka.start", &file.start, &starts).unwrap_or(Start::Beginning),
        embedded: file.embedded,
    }
}

/// The longest name of a topic, less the longest of our endings (`.dead-letter`).
const MOST_NAME: usize = 249 - 12;

fn topic_name(path: &str, name: &str, m: &mut Mistakes) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > MOST_NAME || !name.chars().all(allowed) {
        m.add(
            path,
            format!(
                "expected 1 to {MOST_NAME} letters, digits, dots, underscores or dashes, found \"{name}\""
            ),
        );
    }
}

fn funnel(file: &file::Funnel, m: &mut Mistakes) -> Option<Funnel> {
    within(m, "funnel.lateness", file.lateness, Period::default()..=YEAR);
    let names: Vec<_> = file.tasks.iter().map(|task| task.name.as_str()).zip(0..).collect();
    let mut tasks = Vec::new();
    for (i, task) in file.tasks.iter().enumerate() {
        let path = format!("funnel.tasks.{i}");
        let parent = (!task.parent.is_empty())
            .then(|| one_of(m, &format!("{path}.parent"), &task.parent, &names))
            .flatten();
        let rules = [("wait", LabelRule::Wait), ("fnw", LabelRule::Fnw)];
        let labels = one_of(m, &format!("{path}.labels"), &task.labels, &rules);
        within(m, &format!("{path}.window"), task.window, Period::default()..=YEAR);
        if let Some(prior) = task.prior {
            within(m, &format!("{path}.prior"), prior, 1e-6..=1.0 - 1e-6);
        }
        tasks.push(Task {
            name: task.name.clone(),
            parent,
            window: task.window.span(),
            labels: labels.unwrap_or(LabelRule::Fnw),
        });
    }
    let entry = match file.entry.as_str() {
        "impression" => Entry::Impression,
        "" => {
            m.add("funnel.entry", "expected \"impression\" or the name of the view, found none");
            return None;
        }
        _ => Entry::View { negatives: file.negatives },
    };
    match Funnel::build(entry, &file.entry, tasks, file.behaviours.clone()) {
        Ok(funnel) => Some(funnel),
        Err(errors) => {
            for error in errors {
                m.add(format!("funnel.{}", error.place), error.problem);
            }
            None
        }
    }
}

fn items(file: &file::Items, m: &mut Mistakes) -> Items {
    for (path, name) in [("items.category", &file.category), ("items.available", &file.available)] {
        if name.is_empty() {
            m.add(path, "expected the name of an attribute, found none");
        }
    }
    Items {
        category: AttributeKey::of(&file.category),
        available: AttributeKey::of(&file.available),
        new_for: file.new_for.span(),
    }
}

fn model(file: &file::Config, m: &mut Mistakes) -> ModelSpec {
    let (model, learn) = (&file.model, &file.learn);
    if learn.method == Method::Bayes && matches!(model.funnel, FunnelSpec::Esmm { .. }) {
        // A head learns from its parent's outcome on, and by then a label that waits does not say whether there was one.
        let waits = |task: &file::Task| task.labels == "wait";
        for (i, _) in file.funnel.tasks.iter().enumerate().filter(|(_, task)| waits(task)) {
            let problem = "bayes learns the heads of esmm as outcomes come: expected fnw, found wait \
                           (or choose the funnel independent)";
            m.add(format!("funnel.tasks.{i}.labels"), problem);
        }
    }
    ModelSpec {
        interest: model.interest.clone(),
        crossing: model.crossing.clone(),
        sharing: model.sharing.clone(),
        funnel: model.funnel.clone(),
        learning: LearningSpec {
            dense_rate: learn.dense_rate,
            row_rate: learn.row_rate,
            linear_rate: learn.linear_rate,
            row_deviation: learn.row_deviation,
            clip: learn.clip,
            method: learn.method,
            prior: learn.prior.clone(),
        },
        embeddings: table(&file.table, m),
    }
}

fn learn(file: &file::Learn, m: &mut Mistakes) -> Learn {
    Learn {
        batch: within(m, "learn.batch", file.batch, 1..=65_536),
        max_age: within(
            m,
            "learn.max_age",
            file.max_age,
            Period::milliseconds(1)..=Period::seconds(3600),
        )
        .duration(),
        seed: file.seed,
        threads: within(m, "learn.threads", file.threads, 1..=MOST_PIECES),
    }
}

fn table(file: &file::Table, m: &mut Mistakes) -> EmbeddingSpec {
    EmbeddingSpec {
        admission: within(m, "table.admission", file.admission, 1..=u8::MAX),
        expiry: (file.expiry > Period::default()).then(|| file.expiry.span()),
        ..EmbeddingSpec::default()
    }
}

/// Divides the memory: a given bound stands, the others have their shares.
fn memory(file: &file::Config, machine: Machine, row_bytes: u64, m: &mut Mistakes) -> Memory {
    let open = (!file.open.max_bytes.is_empty()).then(|| {
        let size = file.open.max_bytes.parse().unwrap_or_else(|error: String| {
            m.add("open.max_bytes", format!("{error}; empty: a share of memory.limit"));
            MEBIBYTE
        });
        within(m, "open.max_bytes", size, MEBIBYTE..=LARGEST).get()
    });
    let rows = Some(file.table.max_rows).filter(|rows| *rows > 0);
    let rows = rows.map(|rows| within(m, "table.max_rows", rows, ROWS.0..=ROWS.1));
    let (limit, made_of, too_much) = limit(file.memory.limit, machine, m);
    Memory { bounds: Bounds::new(limit, Given { open, rows }, row_bytes), made_of, too_much }
}

/// Returns how much memory the process may use, of what that was made, and whether it is more than there is.
fn limit(limit: Amount, machine: Machine, m: &mut Mistakes) -> (u64, String, bool) {
    let mut too_much = false;
    let (bytes, made_of) = match limit {
        Amount::Size(size) => match machine() {
            Ok(there) if there.bytes < size.get() => {
                too_much = true;
                (size.get(), format!("as given, more than {}", there.words()))
            }
            _ => (size.get(), "as given".to_owned()),
        },
        Amount::Percent(percent) => match machine() {
            Ok(there) => {
                let bytes = u128::from(there.bytes) * u128::from(percent) / 100;
                // Whole MiB, so that it can be read.
                let bytes = u64::try_from(bytes).unwrap_or(u64::MAX) >> 20 << 20;
                (bytes, format!("{percent}% of {}", there.words()))
            }
            Err(error) => {
                let problem = format!(
                    "what this process may use cannot be told here ({error}): expected a size such as \"4GiB\", found \"{limit}\""
                );
                m.add("memory.limit", problem);
                return (LEAST.get(), String::new(), false);
            }
        },
    };
    if !(LEAST..=LARGEST).contains(&Size::bytes(bytes)) {
        let problem = format!(
            "expected {LEAST} to {LARGEST}, found {} ({made_of}): give the process more memory or another limit",
            Size::bytes(bytes)
        );
        m.add("memory.limit", problem);
        return (LEAST.get(), String::new(), false);
    }
    (bytes, made_of, too_much)
}

fn retrieval(file: &file::Retrieval, funnel: &Funnel, m: &mut Mistakes) -> Retrieval {
    let names: Vec<_> = funnel.tasks().iter().map(|task| task.name.as_str()).zip(0..).collect();
    let task = if file.task.is_empty() {
        0
    } else {
        one_of(m, "retrieval.task", &file.task, &names).unwrap_or(0)
    };
    Retrieval {
        width: within(m, "retrieval.width", file.width, 1..=1024),
        task,
        refresh: within(m, "retrieval.refresh", file.refresh, 1..=u64::MAX),
        temperature: within(m, "retrieval.temperature", file.temperature, 1e-3..=100.0) as f32,
    }
}

fn serve(file: &file::Serve, funnel: &Funnel, m: &mut Mistakes) -> Serve {
    let score = Expression::parse(&file.score, funnel).unwrap_or_else(|error| {
        m.add("serve.score", format!("\"{}\", {error}", file.score));
        Expression::of_task(0)
    });
    Serve {
        score,
        max_candidates: within(m, "serve.max_candidates", file.max_candidates, 1..=MAX_CANDIDATES),
        candidates: within(m, "serve.candidates", file.candidates, 1..=100_000),
        scorers: within(m, "serve.scorers", file.scorers, 1..=256),
        queue: within(m, "serve.queue", file.queue, 1..=1_000_000),
    }
}

fn scores(file: &file::Scores, m: &mut Mistakes) -> Scores {
    Scores {
        budget: within(m, "scores.budget", file.budget, 0.0..=1.0),
        k: within(m, "scores.k", file.k, 1..=MAX_CANDIDATES),
        interval: file.interval.duration(),
    }
}

fn checkpoint(file: &file::Checkpoint, m: &mut Mistakes) -> Checkpoint {
    if file.path.is_empty() {
        m.add("checkpoint.path", "expected a folder, found none");
    }
    Checkpoint {
        path: file.path.clone().into(),
        interval: within(
            m,
            "checkpoint.interval",
            file.interval,
            Period::milliseconds(100)..=Period::seconds(86_400),
        )
        .duration(),
        keep: within(m, "checkpoint.keep", file.keep, 2..=1000),
    }
}

fn evaluate(file: &file::Evaluate, m: &mut Mistakes) -> Evaluate {
    Evaluate {
        window: within(m, "evaluate.window", file.window, Period::seconds(1)..=YEAR).span(),
        share: within(m, "evaluate.share", file.share, 0.001..=1.0),
        from_impression: 0,
    }
}

fn listen(file: &file::Http, m: &mut Mistakes) -> std::net::SocketAddr {
    file.listen.parse().unwrap_or_else(|_| {
        m.add(
            "http.listen",
            format!(
                "expected an address and a port such as \"127.0.0.1:9464\", found \"{}\"",
                file.listen
            ),
        );
        std::net::SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

fn log(file: &file::Log, m: &mut Mistakes) -> Log {
    if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(&file.level) {
        m.add(
            "log.level",
            format!("expected error, warn, info, debug, trace or a filter: {error}"),
        );
    }
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    Log {
        filter: file.level.clone(),
        format: one_of(m, "log.format", &file.format, &formats).unwrap_or(LogFormat::Text),
    }
}
