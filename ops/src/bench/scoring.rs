//! Group `scoring`: the candidates of one user on one thread, and the answers of one scorer.
//!
//! Operations are those of the products that are made, with what candidates share counted once ([`Scoring::operations`]); sigmoids, gathers and
//! the rest come on top, so the share of the peak says what is lost to them too. The same candidates as so many examples stand beside
//! (`unshared`). The ratio to PyTorch stands in group `peers`.
//!
//! An answer is all that a scorer does between a decoded request and the encoded answer: names, features, histories, scores, order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use parking_lot::RwLock;
use sluice_daemon::clock::Clock;
use sluice_daemon::config::Config;
use sluice_daemon::parts::{pipeline, retriever_spec};
use sluice_daemon::pipeline::Pipeline;
use sluice_daemon::pipeline::record::Record;
use sluice_daemon::serve::{Scorer, Serving, Snapshot};
use sluice_features::example::Batch;
use sluice_features::time::EventTime;
use sluice_features::wire::{ArrivalTime, Request, decode_request};
use sluice_models::learner::{Learner, default_priors};
use sluice_models::model::{Scoring, Workspace};
use sluice_models::retrieval::Retriever;
use sluice_models::spec::ModelSpec;
use sluice_models::synthetic::Synthetic;

use super::askers::{ASKERS, CANDIDATES, SHOP, introduce, request};
use super::clock;
use super::limits::Limits;
use super::report::{Report, Row, Target};

const GROUP: &str = "scoring";
/// Candidates of one user, and their histories.
const SIZES: [usize; 3] = [500, 50, 50];
/// Share of the peak that a scorer should hold, in percent.
const SHARE: f64 = 50.0;
/// More than it takes: the requests are answered for as long as the measurement lasts.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures the group.
///
/// # Errors
/// When a model cannot be built or an answer is an error.
pub(super) fn measure(limits: &Limits, report: &mut Report) -> Result<()> {
    for (model, spec) in [("reference", ModelSpec::reference()), ("default", ModelSpec::default())]
    {
        candidates(model, &spec, limits, report)?;
    }
    answers(limits, report)
}

/// Scores the same candidates again and again.
fn candidates(model: &str, spec: &ModelSpec, limits: &Limits, report: &mut Report) -> Result<()> {
    let [size, newest, matching] = SIZES;
    let mut source = Synthetic::new(spec, 7);
    let mut learner = source.learner(spec, 1).map_err(|mistakes| anyhow!("{mistakes:?}"))?;
    let request = source.request(size, newest, matching);
    let mut examples = Batch::new(0, source.schema().lookups.len());
    request.expand(source.schema(), &mut examples);
    // Every id gets its row.
    learner.step(&examples);

    let (rows, tasks) = (Arc::clone(learner.embeddings()), learner.model().tasks());
    let (mut work, mut out) = (Scoring::default(), vec![0.0; size * tasks]);
    let shared =
        clock::seconds(|| learner.model().score_candidates(&rows, &request, &mut work, &mut out));
    let mut workspace = Workspace::default();
    let unshared =
        clock::seconds(|| learner.model().score(&rows, &examples, &mut workspace, &mut out));
    let operations = work.operations(learner.model(), &request) as f64;

    let name =
        |what: &str| format!("{model}, {size} candidates, history {newest} + {matching}{what}");
    let least = operations / limits.peak[0] / 1e3;
    report.push(Row::new(GROUP, name(""), shared * 1e6, "us").limit(least));
    report.push(Row::new(GROUP, name(": candidates"), size as f64 / shared, "1/s"));
    report.push(Row::new(GROUP, name(": unshared"), unshared * 1e6, "us"));
    let each = operations / size as f64 / 1e6;
    report.push(Row::new(GROUP, name(": operations of a candidate"), each, "MFLOP"));
    let share = 100.0 * least / (shared * 1e6);
    report.push(Row::new(GROUP, name(": share of the peak"), share, "%"));
    Ok(())
}

/// Lets one scorer answer one request after the other.
fn answers(limits: &Limits, report: &mut Report) -> Result<()> {
    let (mut scorer, requests) = prepare()?;
    let asked = EventTime(SHOP.start + 10 * 86_400_000);
    let (mut next, mut failed) = (requests.iter().cycle(), None);
    let mut answer = || {
        let Some(request) = next.next() else { return };
        if let Err(unanswered) = scorer.answer(request, asked, Duration::ZERO) {
            failed = Some(unanswered.message);
        }
    };
    (0..requests.len()).for_each(|_| answer());
    let seconds = clock::seconds(answer);
    if let Some(message) = failed {
        return Err(anyhow!("expected answers, found an error: {message}"));
    }
    let most = limits.peak[0] * 1e9 / scorer.operations() as f64;
    let name = format!("default fields, one scorer without Kafka, rank of {CANDIDATES}");
    let row = Row::new(GROUP, format!("{name}: answers"), 1.0 / seconds, "1/s");
    report.push(row.limit(most));
    let share = 100.0 / seconds / most;
    let row = Row::new(GROUP, format!("{name}: share of what the peak allows"), share, "%");
    report.push(row.target(Target::AtLeast(SHARE)));
    Ok(())
}

/// Returns the operations of one answer to a request of [`CANDIDATES`] candidates, history 50 + 50.
///
/// # Errors
/// When the model cannot be built or the answer is an error.
pub(super) fn operations_of_an_answer() -> Result<u64> {
    let (mut scorer, requests) = prepare()?;
    let asked = EventTime(SHOP.start + 10 * 86_400_000);
    for request in &requests {
        let answered = scorer.answer(request, asked, Duration::ZERO);
        answered.map_err(|unanswered| anyhow!("{}", unanswered.message))?;
    }
    Ok(scorer.operations())
}

/// A scorer on the default configuration, in a shop whose askers have long histories, and its requests.
fn prepare() -> Result<(Scorer, Vec<Request>)> {
    let config = Config::build("", &[]).map_err(|mistakes| anyhow!("{mistakes}"))?;
    let mut pipeline = pipeline(&config, 1);
    fill(&mut pipeline)?;
    let parents = config.funnel.parents();
    let spec = &config.model.spec;
    let priors = default_priors(&parents);
    let mut learner = Learner::new(spec, &config.schema, &parents, &priors, 1)
        .map_err(|mistakes| anyhow!("{mistakes:?}"))?;
    let retriever = Retriever::new(retriever_spec(&config), &config.schema, 1);
    pipeline.finish();
    pipeline.cut();
    while let Some(work) = pipeline.next_batch() {
        learner.step(&work.batch);
    }
    let snapshot = Snapshot {
        model: learner.model().clone(),
        towers: retriever.towers(),
        learned_until: Some(EventTime(SHOP.start)),
        version: learner.steps(),
        sound: true,
    };
    let (rows, settings) = (Arc::clone(learner.embeddings()), config.serve.clone());
    let pipeline = Arc::new(RwLock::new(pipeline));
    let serving = Serving::new(pipeline, snapshot, rows, settings, "default", Clock::system());
    let requests = (0..ASKERS).map(|asker| {
        let (_, text) = request(&format!("q{asker}"), asker, PATIENCE)?;
        let mut request = decode_request(text.as_bytes(), ArrivalTime(None))
            .map_err(|refused| anyhow!("{}", refused.rejection))?;
        // The requests are answered for as long as it takes.
        request.deadline = None;
        Ok(request)
    });
    Ok((Scorer::new(Arc::new(serving)), requests.collect::<Result<_>>()?))
}

/// Describes the shop's items and users, and gives those who ask their histories.
fn fill(pipeline: &mut Pipeline) -> Result<()> {
    let mut offset = 0;
    introduce(|topic, key, message, time| {
        offset += 1;
        let (key, value) = (Some(key.as_bytes()), Some(message.as_bytes()));
        let arrived = EventTime(time);
        let record = Record { topic, partition: 0, offset, arrived, key, value };
        pipeline.take(&record).map_err(|rejection| anyhow!("{key:?}: {rejection}"))
    })
}
