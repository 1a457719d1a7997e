//! One answer: candidates, examples, probabilities, the ranking score, the order, the message.
//!
//! ```text
//! rank        the given items ────────────────┐
//! recommend   index, categories, new, popular ┴─> examples ─> p ─> score = expression(p) ─> the best k
//! similar     the item's vector ─> index ──────────────────────────────────────────────────> the best k
//! ```

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use sluice_features::attributes::Attributes;
use sluice_features::candidates::Candidates as Examples;
use sluice_features::ids::{ItemId, UserId, stable_hash};
use sluice_features::reject::{Reason, Rejection};
use sluice_features::time::{EventTime, Span};
use sluice_features::wire::{
    ErrorBody, ErrorResponse, Filter, NotFinite, Probabilities, Request, RequestKind, Response,
    Scored, Scores, encode_error, encode_response, encode_scores,
};
use sluice_models::model::Scoring;
use sluice_models::retrieval::IndexError;

use super::candidates::Candidates;
use super::finder::Finder;
use super::gather::{add, start};
use super::joint::Joint;
use super::{Asker, Code, Serving, Snapshot, Unanswered};
use crate::pipeline::Pipeline;
use crate::pipeline::names::NamesError;

/// The score of a candidate whose own is not finite: it stands last.
const LOWEST: f32 = f32::MIN;

/// Makes answers on one thread. All its memory serves again.
pub struct Scorer {
    serving: Arc<Serving>,
    finder: Finder,
    candidates: Candidates,
    examples: Examples,
    work: Scoring,
    /// What the model's probabilities become.
    joint: Joint,
    /// `[candidates, tasks]`, on the candidates; empty for `similar`.
    p: Vec<f32>,
    scores: Vec<f32>,
    /// Candidates of the newest answer whose score is not finite.
    without_score: usize,
    order: Vec<usize>,
    /// What went wrong with names on disk.
    trouble: Option<NamesError>,
    model: String,
    output: Vec<u8>,
}

/// What is said about an answer as a whole.
#[derive(Clone, Copy, Debug, Default)]
struct Unknown {
    user: bool,
    item: bool,
}

/// Until when an answer is wanted.
struct Due {
    deadline: Option<Span>,
    asked: EventTime,
    arrived: Duration,
}

impl Scorer {
    /// Creates a scorer.
    pub fn new(serving: Arc<Serving>) -> Self {
        let finder = Finder::new(&serving.pipeline.read(), &serving.snapshot.load().towers);
        let examples = Examples::new(&serving.rules.schema);
        Self {
            serving,
            finder,
            candidates: Candidates::default(),
            examples,
            work: Scoring::default(),
            joint: Joint::default(),
            p: Vec::new(),
            scores: Vec::new(),
            without_score: 0,
            order: Vec::new(),
            trouble: None,
            model: String::new(),
            output: Vec::new(),
        }
    }

    /// Makes the message that answers a request, to be read from [`Scorer::output`]. `asked` is when its record arrived in Kafka, `arrived` when
    /// it was taken from Kafka ([`Clock::steady`](crate::clock::Clock::steady)): its deadline counts from the earlier of both.
    ///
    /// # Errors
    /// When there is no answer; [`Scorer::refuse`] makes the message then.
    pub fn answer(
        &mut self,
        request: &Request,
        asked: EventTime,
        arrived: Duration,
    ) -> Result<(), Unanswered> {
        self.without_score = 0;
        let due = Due { deadline: request.deadline, asked, arrived };
        due.check(&self.serving)?;
        let snapshot = self.serving.snapshot.load_full();
        let asker = Asker {
            user: UserId::of(request.user.as_deref().unwrap_or_default()),
            time: request.time.unwrap_or(asked),
            surface: request.surface.as_ref().map(|text| stable_hash(text.as_bytes())),
            context: &request.context,
        };
        let unknown = match request.kind {
            RequestKind::Rank => {
                let unknown = self.gather_given(request, &asker)?;
                due.check(&self.serving)?;
                self.score(&snapshot)?;
                unknown
            }
            RequestKind::Recommend => {
                let unknown = self.gather_found(request, &asker)?;
                due.check(&self.serving)?;
                self.score(&snapshot)?;
                unknown
            }
            RequestKind::Similar => self.gather_similar(request, &asker)?,
        };
        self.rank(request.limit)?;
        self.name_model(&snapshot);
        let mut output = std::mem::take(&mut self.output);
        let took = self.serving.clock.steady().saturating_sub(arrived).as_micros();
        let response = Response {
            id: &request.id,
            items: &self.items(),
            learned_until: snapshot.learned_until.unwrap_or_default(),
            model: &self.model,
            took_us: u64::try_from(took).unwrap_or(u64::MAX),
            unknown_user: unknown.user,
            unknown_item: unknown.item,
        };
        let encoded = encode_response(&response, &mut output);
        self.output = output;
        encoded.map_err(|NotFinite| not_finite())
    }

    /// Makes the message of a user's top list, to be read from [`Scorer::output`].
    ///
    /// # Errors
    /// When the model's numbers are not finite.
    pub fn top_list(
        &mut self,
        user: &str,
        time: EventTime,
        limit: usize,
    ) -> Result<(), Unanswered> {
        self.without_score = 0;
        let snapshot = self.serving.snapshot.load_full();
        let context = Attributes::default();
        let asker = Asker { user: UserId::of(user), time, surface: None, context: &context };
        self.finder.sieve.start(&[], &Filter::default());
        self.find(&asker, true, limit)?;
        self.score(&snapshot)?;
        self.rank(limit)?;
        self.name_model(&snapshot);
        let mut output = std::mem::take(&mut self.output);
        let scores = Scores {
            user,
            items: &self.items(),
            learned_until: snapshot.learned_until.unwrap_or_default(),
            model: &self.model,
        };
        let encoded = encode_scores(&scores, &mut output);
        self.output = output;
        encoded.map_err(|NotFinite| not_finite())
    }

    /// Makes the message of an error answer, to be read from [`Scorer::output`].
    pub fn refuse(&mut self, id: Option<&str>, unanswered: &Unanswered) {
        refuse(id, unanswered, &mut self.output);
    }

    /// Counts the operations behind the answer that was made last ([`Scoring::operations`]), with the parameters now in force.
    pub fn operations(&self) -> u64 {
        self.work.operations(&self.serving.snapshot.load().model, &self.examples)
    }

    /// Returns how many candidates of the newest answer stand last in it because their score is not finite.
    pub fn without_score(&self) -> usize {
        self.without_score
    }

    /// Makes sure that no names were out of reach so far. Otherwise what was to name them was refused, and the daemon is to stop.
    ///
    /// # Errors
    /// Why they were.
    pub fn check(&self) -> Result<(), NamesError> {
        self.trouble.clone().map_or(Ok(()), Err)
    }

    /// Returns the message that was made last.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// Gathers the candidates of a `rank`: those that are given.
    fn gather_given(
        &mut self,
        request: &Request,
        asker: &Asker<'_>,
    ) -> Result<Unknown, Unanswered> {
        let most = self.serving.settings.max_candidates;
        if request.items.len() > most {
            let rejection = Rejection::field(Reason::TooMany, "items");
            let found = request.items.len();
            let message = format!("items: expected at most {most} candidates, found {found}");
            return Err(Unanswered { message, ..Unanswered::from(&rejection) });
        }
        self.clear();
        let sieve = &mut self.finder.sieve;
        sieve.start(&request.exclude, &request.filter);
        let pipeline = self.serving.pipeline.read();
        if request.filter.seen == Some(false) {
            sieve.exclude_seen(&pipeline, asker.user, asker.time);
        }
        self.joint = Joint::of(&pipeline);
        start(&pipeline, asker, &mut self.examples);
        for name in &request.items {
            let item = ItemId::of(name);
            if sieve.lets(&self.serving, item, asker.time) {
                self.candidates.push_named(&pipeline, item, name);
                add(&pipeline, asker, item, &mut self.examples);
            }
        }
        Ok(Unknown { user: !knows_user(&pipeline, request), item: false })
    }

    /// Finds and gathers the candidates of a `recommend`.
    fn gather_found(
        &mut self,
        request: &Request,
        asker: &Asker<'_>,
    ) -> Result<Unknown, Unanswered> {
        self.finder.sieve.start(&request.exclude, &request.filter);
        self.find(asker, request.filter.seen != Some(true), request.limit)?;
        let user = !knows_user(&self.serving.pipeline.read(), request);
        Ok(Unknown { user, item: false })
    }

    /// Finds candidates for who asks, after the sieve was set up, and gathers their examples.
    fn find(&mut self, asker: &Asker<'_>, unseen: bool, limit: usize) -> Result<(), Unanswered> {
        let count = self.serving.settings.candidates.max(limit);
        self.clear();
        {
            let pipeline = self.serving.pipeline.read();
            if unseen {
                self.finder.sieve.exclude_seen(&pipeline, asker.user, asker.time);
            }
            self.finder.gather(&pipeline, asker, count);
        }
        let found = self.finder.recommend(&self.serving, asker, count).map_err(of_index)?;
        let pipeline = self.serving.pipeline.read();
        for &item in found {
            self.candidates.push_known(&pipeline, item);
        }
        self.joint = Joint::of(&pipeline);
        start(&pipeline, asker, &mut self.examples);
        for place in 0..self.candidates.len() {
            add(&pipeline, asker, self.candidates.id(place), &mut self.examples);
        }
        Ok(())
    }

    /// Finds the items nearest to one; where nothing is known of that one, what is popular.
    fn gather_similar(
        &mut self,
        request: &Request,
        asker: &Asker<'_>,
    ) -> Result<Unknown, Unanswered> {
        let name = request.items.first().map(String::as_str).unwrap_or_default();
        let item = ItemId::of(name);
        self.finder.sieve.start(&request.exclude, &request.filter);
        self.finder.sieve.exclude(item);
        self.clear();
        let unknown = {
            let pipeline = self.serving.pipeline.read();
            if request.filter.seen == Some(false) {
                self.finder.sieve.exclude_seen(&pipeline, asker.user, asker.time);
            }
            self.finder.gather_item(&pipeline, asker, item);
            Unknown {
                user: request.user.is_some() && !knows_user(&pipeline, request),
                item: !pipeline.shared().items.knows(item.0, name),
            }
        };
        let hits = if unknown.item {
            let pipeline = self.serving.pipeline.read();
            self.finder.popular(&pipeline, &self.serving, asker, request.limit)
        } else {
            self.finder.similar(&self.serving, asker, item, request.limit).map_err(of_index)?
        };
        let pipeline = self.serving.pipeline.read();
        for hit in hits {
            if self.candidates.push_known(&pipeline, ItemId(hit.id)) {
                self.scores.push(hit.score);
            }
        }
        Ok(unknown)
    }

    /// Computes the probabilities on all candidates, and their scores.
    fn score(&mut self, snapshot: &Snapshot) -> Result<(), Unanswered> {
        let tasks = snapshot.model.tasks();
        self.p.resize(self.candidates.len() * tasks, 0.0);
        let (model, rows) = (&snapshot.model, &self.serving.embeddings);
        model.score_candidates(rows, &self.examples, &mut self.work, &mut self.p);
        if self.p.iter().any(|p| !p.is_finite()) {
            return Err(not_finite());
        }
        self.joint.apply(&mut self.p, tasks);
        let score = &self.serving.settings.score;
        let values = self.p.chunks_exact(tasks).map(|p| score.value(p));
        let without = &mut self.without_score;
        self.scores.extend(values.map(|value| {
            *without += usize::from(value.is_none());
            value.unwrap_or(LOWEST)
        }));
        if self.without_score > 0 && self.without_score == self.candidates.len() {
            let message =
                "serve.score is finite for no candidate: it divides by what is 0 for these";
            return Err(Unanswered::new(Code::NotFinite, message));
        }
        Ok(())
    }

    /// Brings the best candidates into their order and fetches their names.
    fn rank(&mut self, limit: usize) -> Result<(), Unanswered> {
        let Self { candidates, serving, scores, order, trouble, .. } = self;
        candidates.rank(serving, scores, limit, order).map_err(|error| {
            let message = "names of items cannot be read from the state on disk";
            *trouble = Some(error);
            Unanswered::new(Code::OutOfReach, message)
        })
    }

    fn clear(&mut self) {
        self.candidates.clear();
        self.examples.clear();
        self.p.clear();
        self.scores.clear();
    }

    fn name_model(&mut self, snapshot: &Snapshot) {
        self.model.clear();
        // Writing to a string cannot fail.
        let _written: Result<(), std::fmt::Error> =
            write!(self.model, "{}/{}", self.serving.model, snapshot.version);
    }

    /// Returns the items of the answer, best first.
    fn items(&self) -> Vec<Scored<'_>> {
        let funnel = &self.serving.rules.funnel;
        let tasks = if self.p.is_empty() { 0 } else { funnel.tasks().len() };
        let item = |&place: &usize| Scored {
            item: self.candidates.name(place),
            score: self.scores[place],
            p: Probabilities { funnel, values: &self.p[place * tasks..(place + 1) * tasks] },
            unknown: self.candidates.is_unknown(place),
        };
        self.order.iter().map(item).collect()
    }
}

impl Due {
    fn check(&self, serving: &Serving) -> Result<(), Unanswered> {
        let Some(deadline) = self.deadline else { return Ok(()) };
        let waited = serving.clock.steady().saturating_sub(self.arrived).as_millis();
        let waited = Span(i64::try_from(waited).unwrap_or(i64::MAX));
        let age = serving.clock.wall() - self.asked;
        if waited.max(age) < deadline {
            return Ok(());
        }
        let message = format!(
            "the answer was wanted within {} ms, {} ms have passed: allow more, or ask less at a time",
            deadline.0,
            waited.max(age).0
        );
        Err(Unanswered::new(Code::Deadline, message))
    }
}

/// Replaces `output` by an error answer.
pub(super) fn refuse(id: Option<&str>, unanswered: &Unanswered, output: &mut Vec<u8>) {
    let error = ErrorBody { code: unanswered.code.name(), message: &unanswered.message };
    encode_error(&ErrorResponse { id, error }, output);
}

fn knows_user(pipeline: &Pipeline, request: &Request) -> bool {
    let name = request.user.as_deref();
    name.is_some_and(|name| pipeline.shared().users.knows(UserId::of(name).0, name))
}

fn of_index(error: IndexError) -> Unanswered {
    Unanswered::new(Code::NotFinite, error.to_string())
}

fn not_finite() -> Unanswered {
    Unanswered::new(Code::NotFinite, NotFinite.to_string())
}
