//! The request topic: records in, answers out.
//!
//! ```text
//! request consumer -> Intake: decode -> bounded queue -> Answering, one a scorer -> producer -> responses or the reply topic
//!                        └ malformed, overloaded: answered at once
//! ```
//!
//! A request counts once Kafka has taken its answer, or has not: under its outcome, or as undelivered. Every record gets one answer, under the request's id as key (where that cannot be read, under the record's key), with its
//! correlation id. A queue that is full, by number or by bytes, answers `overloaded` at once: an answer that comes too late costs as much as one in
//! time. What comes faster than it can be refused waits in Kafka: its partitions are paused.
//!
//! A start goes on after the requests that were answered (`answered`), and not before those for which somebody may still wait (`resume`).

mod answered;
mod resume;
mod skew;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use sluice_features::time::EventTime;
use sluice_features::wire::{ArrivalTime, Request, decode_request};

use self::answered::{Answered, Ticket};
use self::skew::Skew;
use super::answer::refuse;
use super::{Code, OUTCOMES, Outcome, Scorer, Serving, Unanswered, kind_number};
use crate::clock::Clock;
use crate::error::{Stop, chain};
use crate::http::{Readiness, Wait};
use crate::kafka::{
    Connection, Consumer, ConsumerEvent, ConsumerSettings, Header, Outgoing, Producer,
    ProducerSettings, Record, Source, TopicRole, Trouble,
};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::telemetry::RateLimit;

/// How long an answer waits for room in the producer before it is given up: who asked has given up by then.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the last answers have to be delivered.
const FLUSH: Duration = Duration::from_secs(2);
/// How long the poll thread has to end.
const STOP: Duration = Duration::from_secs(2);
/// Bytes of requests that may wait for a scorer.
const WAITING: usize = 64 << 20;
/// Bytes of records in the intake's hands above which reading pauses; below an eighth it goes on, for each pause throws away what was fetched ahead.
const IN_HAND: usize = 48 << 20;
/// Bytes that the client may fetch ahead, not counting what decompression adds to one fetch.
const AHEAD: usize = 16 << 20;
/// Bytes that an id in a list of a request takes besides its text.
const ID: usize = size_of::<String>() + 16;
/// How long the last requests have to be answered, and their answers to be delivered, before they may be answered again by the next start.
const LAST: Duration = Duration::from_secs(1);
/// The longest that the thread sleeps.
const TICK: Duration = Duration::from_millis(100);
/// The header that an answer repeats.
const CORRELATION: &str = "correlation-id";

/// A request that waits for a scorer.
struct Job {
    request: Request,
    asked: EventTime,
    arrived: Duration,
    reply: Reply,
    _held: Held,
    /// Given back once the answer is handed on.
    _ticket: Ticket,
}

/// Bytes that are counted as waiting as long as this lives.
struct Held {
    bytes: usize,
    waiting: Arc<AtomicUsize>,
}

impl Held {
    /// Counts the bytes of a request that came as so many.
    fn count(waiting: &Arc<AtomicUsize>, request: &Request, came: usize) -> Self {
        let bytes = came + ID * (request.items.len() + request.exclude.len());
        waiting.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, waiting: Arc::clone(waiting) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Where an answer goes.
#[derive(Default)]
struct Reply {
    /// The place in the list of allowed topics; the standard topic otherwise.
    topic: Option<usize>,
    correlation: Option<Box<[u8]>>,
}

/// Sends answers, and counts what became of requests.
#[derive(Clone)]
struct Outbox {
    producer: Arc<Producer>,
    responses: Arc<str>,
    allowed: Arc<[String]>,
    metrics: Arc<Metrics>,
    /// How long an answer waits for room in the producer.
    patience: Duration,
}

/// Takes requests from Kafka: one part of the daemon.
pub struct Intake {
    serving: Arc<Serving>,
    /// When this run began: what was asked before may be answered already.
    started: EventTime,
    readiness: Arc<Readiness>,
    consumer: Consumer,
    queue: Sender<Job>,
    /// Bytes in the queue.
    waiting: Arc<AtomicUsize>,
    outbox: Outbox,
    output: Vec<u8>,
    answered: Answered,
    skew: Skew,
}

/// Answers the requests that wait: a part of the daemon for each scorer.
pub struct Answering {
    scorer: Scorer,
    serving: Arc<Serving>,
    queue: Receiver<Job>,
    outbox: Outbox,
    /// When scores that are not finite were told last.
    told: RateLimit,
    /// Shared by all scorers that run.
    company: Arc<()>,
}

/// Starts the consumer of the request topic, behind the requests that were answered or that nobody waits for any more. Where Kafka does not tell
/// which these are it begins at the end.
///
/// # Errors
/// When the client library refuses the settings.
pub fn consumer(
    connection: Connection,
    clock: Clock,
    group: &str,
    name: &str,
    topic: &str,
) -> Result<Consumer, Trouble> {
    let sources = vec![Source::new(TopicRole::Requests, topic)];
    let mut settings = ConsumerSettings::new(connection, group, sources);
    settings.offsets =
        resume::offsets(&settings.connection, group, topic, clock.wall()).unwrap_or_else(|trouble| {
            tracing::warn!(
                %trouble,
                "it cannot be seen which requests are answered: those that were asked while nobody answered are not"
            );
            BTreeMap::new()
        });
    settings.clock = clock;
    settings.thread = "kafka-requests".to_owned();
    settings.name = name.to_owned();
    (settings.queue_high, settings.queue_low) = (IN_HAND, IN_HAND / 8);
    settings.fetch_ahead = AHEAD;
    Consumer::start(settings)
}

/// Opens the producer of answers. It counts each request as what it was answered, once the answer is delivered.
///
/// # Errors
/// When the client library refuses the settings.
pub fn producer(connection: Connection, metrics: &Arc<Metrics>) -> Result<Producer, Trouble> {
    let metrics = Arc::clone(metrics);
    let on_fate = move |tag: usize, delivered| {
        let (kind, outcome) = (tag / OUTCOMES.len(), tag % OUTCOMES.len());
        count(&metrics, kind, if delivered { outcome } else { Outcome::Undelivered as usize });
    };
    Producer::open_with(&ProducerSettings::for_responses(connection), Box::new(on_fate))
}

/// Connects consumer, queue, scorers and the producer of answers ([`producer`]). Answers go to the topic `responses`, or to the one of `reply_topics` that a request names.
/// The parts run until they are told to stop; the [`Intake`] is to be stopped first.
pub fn build(
    serving: &Arc<Serving>,
    metrics: &Arc<Metrics>,
    responses: &str,
    reply_topics: &[String],
    consumer: Consumer,
    producer: &Arc<Producer>,
    readiness: &Arc<Readiness>,
) -> (Intake, Vec<Answering>) {
    let (queue, jobs) = bounded(serving.settings.queue.max(1));
    let outbox = Outbox {
        producer: Arc::clone(producer),
        responses: responses.into(),
        allowed: reply_topics.into(),
        metrics: Arc::clone(metrics),
        patience: PATIENCE,
    };
    let company = Arc::new(());
    let answering = (0..serving.settings.scorers.max(1)).map(|_| Answering {
        scorer: Scorer::new(Arc::clone(serving)),
        serving: Arc::clone(serving),
        queue: jobs.clone(),
        outbox: outbox.clone(),
        told: RateLimit::default(),
        company: Arc::clone(&company),
    });
    let answering = answering.collect();
    drop(company);
    let serving = Arc::clone(serving);
    let intake = Intake {
        started: serving.clock.wall(),
        serving,
        readiness: Arc::clone(readiness),
        consumer,
        queue,
        waiting: Arc::default(),
        outbox,
        output: Vec::new(),
        answered: Answered::default(),
        skew: Skew::default(),
    };
    (intake, answering)
}

impl Intake {
    /// Takes requests until told to stop.
    ///
    /// # Errors
    /// When the consumer cannot go on.
    pub fn run(mut self, shutdown: &Shutdown) -> Result<(), Stop> {
        loop {
            let event = crossbeam_channel::select! {
                recv(self.consumer.events()) -> event => event,
                recv(shutdown.channel()) -> _ => break,
                default(TICK) => {
                    self.commit();
                    continue;
                }
            };
            match event {
                Ok(ConsumerEvent::Batch(batch)) => {
                    batch.records().for_each(|record| self.take(&record));
                    self.answered.took(batch.lane(), batch.next_offset());
                    self.commit();
                }
                Ok(ConsumerEvent::Assigned(_)) => {
                    self.readiness.clear(Wait::Requests);
                }
                Ok(ConsumerEvent::Fatal(trouble)) => {
                    return Err(Stop::kafka("reading requests", trouble));
                }
                Ok(event) => tracing::debug!(?event, "request consumer"),
                Err(_) => return Err(Stop::fault("the thread that reads requests has ended")),
            }
        }
        self.finish();
        if let Err(trouble) = self.consumer.stop(STOP) {
            tracing::warn!(error = chain(&trouble), "the request consumer did not stop in time");
        }
        Ok(())
    }

    /// Tells Kafka up to where requests are answered.
    fn commit(&mut self) {
        if let Some(offsets) = self.answered.look(self.serving.clock.steady()) {
            // One that is not taken is covered by the next.
            self.consumer.commit(offsets);
        }
    }

    /// Waits shortly until what was taken is answered, and tells Kafka: the next start has nothing to answer again.
    fn finish(&mut self) {
        let clock = &self.serving.clock;
        let begun = clock.steady();
        while !self.answered.is_all_answered() && clock.steady() - begun < LAST {
            std::thread::sleep(TICK);
        }
        let delivered = self.outbox.producer.flush(LAST).is_ok();
        let answered = std::mem::take(&mut self.answered);
        if delivered && answered.is_all_answered() {
            self.consumer.commit(answered.finish());
        }
    }

    fn take(&mut self, record: &Record<'_>) {
        let arrived = self.serving.clock.steady();
        let asked = record.arrived;
        if let Some(stamp) = record.timestamp {
            self.skew.note(EventTime(stamp) - asked, &self.outbox.metrics, arrived);
        }
        let (mut reply, allowed) = self.outbox.reply(record);
        let bytes = record.value.unwrap_or_default();
        let request = match decode_request(bytes, ArrivalTime(Some(asked))) {
            Ok(request) => request,
            Err(refused) => {
                let unanswered = Unanswered::from(&refused.rejection);
                let id = refused.id.as_deref();
                let key = id.map_or(record.key, |id| Some(id.as_bytes()));
                refuse(id, &unanswered, &mut self.output);
                let (kind, outcome) = (kind_number(None), unanswered.code.outcome());
                self.outbox.send(key, &self.output, &reply, kind, outcome);
                return;
            }
        };
        let over = |deadline| asked + deadline <= self.serving.clock.wall();
        if asked < self.started && request.deadline.is_some_and(over) {
            // Nobody waits for it any more, and where the run before has answered it this would take the place of that.
            let outcome = Code::Deadline.outcome() as usize;
            count(&self.outbox.metrics, kind_number(Some(request.kind)), outcome);
            return;
        }
        let (request, unanswered) = if allowed {
            let is_full = self.waiting.load(Ordering::Relaxed) > WAITING;
            let _held = Held::count(&self.waiting, &request, bytes.len());
            let _ticket = self.answered.ticket();
            let job = Job { request, asked, arrived, reply, _held, _ticket };
            let sent =
                if is_full { Err(TrySendError::Full(job)) } else { self.queue.try_send(job) };
            let job = match sent {
                Ok(()) => {
                    self.outbox.metrics.serve.waiting_requests.set(self.queue.len() as f64);
                    return;
                }
                Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => job,
            };
            let waiting = self.queue.len();
            let message = format!("{waiting} requests are waiting already: ask again later");
            reply = job.reply;
            (job.request, Unanswered::new(Code::Overloaded, message))
        } else {
            let named = String::from_utf8_lossy(record.reply_topic.unwrap_or_default());
            (request, refused_topic(&named))
        };
        refuse(Some(&request.id), &unanswered, &mut self.output);
        let (kind, outcome) = (kind_number(Some(request.kind)), unanswered.code.outcome());
        self.outbox.send(Some(request.id.as_bytes()), &self.output, &reply, kind, outcome);
    }
}

impl Answering {
    /// Answers requests until told to stop; those that wait then are answered still.
    ///
    /// # Errors
    /// When names on disk are out of reach, after the request that needs them was refused.
    pub fn run(mut self, shutdown: &Shutdown) -> Result<(), Stop> {
        let queue = self.queue.clone();
        loop {
            crossbeam_channel::select! {
                recv(queue) -> job => match job {
                    Ok(job) => self.answer(&job)?,
                    Err(_) => break,
                },
                recv(shutdown.channel()) -> _ => break,
            }
        }
        self.outbox.patience = Duration::ZERO;
        queue.try_iter().try_for_each(|job| self.answer(&job))?;
        // The last one waits for the answers of all.
        if Arc::strong_count(&self.company) > 1 {
            return Ok(());
        }
        if let Err(trouble) = self.outbox.producer.flush(FLUSH) {
            tracing::warn!(error = chain(&trouble), "the last answers were not delivered");
        }
        Ok(())
    }

    fn answer(&mut self, job: &Job) -> Result<(), Stop> {
        let metrics = Arc::clone(&self.outbox.metrics);
        metrics.serve.waiting_requests.set(self.queue.len() as f64);
        let kind = kind_number(Some(job.request.kind));
        let outcome = match self.scorer.answer(&job.request, job.asked, job.arrived) {
            Ok(()) => Outcome::Answered,
            Err(unanswered) => {
                self.scorer.refuse(Some(&job.request.id), &unanswered);
                unanswered.code.outcome()
            }
        };
        self.tell(&metrics);
        let key = Some(job.request.id.as_bytes());
        self.outbox.send(key, self.scorer.output(), &job.reply, kind, outcome);
        if let Some(seconds) = metrics.serve.seconds.get(kind) {
            seconds.record(self.serving.clock.steady().saturating_sub(job.arrived).as_secs_f64());
        }
        Ok(self.scorer.check()?)
    }

    /// Tells of scores that are not finite.
    fn tell(&mut self, metrics: &Metrics) {
        let (candidates, now) = (self.scorer.without_score(), self.serving.clock.steady());
        metrics.serve.scores_not_finite.increment(candidates as u64);
        if candidates > 0 && self.told.allows(now) {
            tracing::warn!(
                candidates,
                "serve.score is not finite for candidates of an answer, which stand last in it: divide by what stays above 0, such as 0.001 + p.click"
            );
        }
    }
}

impl Outbox {
    /// Returns where the answer to a record goes, and whether the topic that it names is allowed.
    fn reply(&self, record: &Record<'_>) -> (Reply, bool) {
        let correlation = record.correlation_id.map(Into::into);
        let Some(named) = record.reply_topic else {
            return (Reply { topic: None, correlation }, true);
        };
        let topic = self.allowed.iter().position(|allowed| allowed.as_bytes() == named);
        (Reply { topic, correlation }, topic.is_some() || named == self.responses.as_bytes())
    }

    /// Sends an answer; what becomes of it is counted.
    fn send(&self, key: Option<&[u8]>, value: &[u8], reply: &Reply, kind: usize, outcome: Outcome) {
        let topic = reply.topic.and_then(|place| self.allowed.get(place));
        let header: [Header<'_>; 1];
        let mut headers: &[Header<'_>] = &[];
        if let Some(correlation) = &reply.correlation {
            header = [(CORRELATION, correlation)];
            headers = &header;
        }
        let topic = topic.map_or(&*self.responses, String::as_str);
        let record = Outgoing { topic, key, value: Some(value), headers };
        let tag = kind * OUTCOMES.len() + outcome as usize;
        if let Err(trouble) = self.producer.send_tagged(&record, tag, self.patience) {
            tracing::debug!(topic, error = chain(&trouble), "an answer was not sent");
            count(&self.metrics, kind, Outcome::Undelivered as usize);
        }
    }
}

fn count(metrics: &Metrics, kind: usize, outcome: usize) {
    let outcomes = metrics.serve.requests.get(kind);
    if let Some(counter) = outcomes.and_then(|outcomes| outcomes.get(outcome)) {
        counter.increment(1);
    }
}

fn refused_topic(named: &str) -> Unanswered {
    // The name comes from outside: it may be long.
    let shown: Cow<'_, str> = match named.char_indices().nth(100) {
        Some((end, _)) => format!("{}...", &named[..end]).into(),
        None => named.into(),
    };
    let message = format!(
        "reply-topic: \"{shown}\" is not allowed, add it to kafka.reply_topics or leave the header out"
    );
    Unanswered::new(Code::ReplyTopicRefused, message)
}

#[cfg(test)]
mod tests;
