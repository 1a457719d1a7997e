//! `sluice query rank|recommend|similar`: asks the running daemon over Kafka and prints its answer.
//!
//! The request goes to the request topic under a fresh id; the response topic is read from its end, which is
//! fixed *before* the request is sent, until the answer with that id comes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sluice_daemon::kafka::{Connection, Outgoing, Producer, ProducerSettings, Reader, Start};

use crate::connect::{ConnectArguments, parse_duration};
use crate::import::calendar;
use sluice_daemon::say::tell;

/// What to ask.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// rank: score the given items; recommend: the best items for a user; similar: the nearest of an item
    #[arg(value_enum)]
    kind: Kind,
    /// The user
    #[arg(long, required_if_eq_any([("kind", "rank"), ("kind", "recommend")]))]
    user: Option<String>,
    /// Items, separated by commas: the candidates of a rank, the one item of a similar
    #[arg(long, value_delimiter = ',', required_if_eq_any([("kind", "rank"), ("kind", "similar")]))]
    items: Vec<String>,
    /// The most items of the answer; without it all of a rank and 20 of another
    #[arg(long)]
    k: Option<u32>,
    /// Items that must not stand in the answer, separated by commas
    #[arg(long, value_delimiter = ',')]
    exclude: Vec<String>,
    /// Only items of these categories, separated by commas
    #[arg(long, value_delimiter = ',')]
    category: Vec<String>,
    /// Page or place of the product
    #[arg(long)]
    surface: Option<String>,
    /// A circumstance as NAME=VALUE; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    context: Vec<String>,
    /// How long to wait for the answer
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    /// Print the answer as it came
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArguments,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Score the given items for a user.
    Rank,
    /// The best items for a user.
    Recommend,
    /// The items nearest to an item.
    Similar,
}

/// Runs the subcommand.
///
/// # Errors
/// When nobody answers in time, or the answer is an error.
pub fn run(arguments: &Arguments) -> Result<()> {
    let target = arguments.connect.target()?;
    let mut asker = Asker::open(
        &target.connection,
        &target.topic("requests"),
        &target.topic("responses"),
        Duration::from_secs(10),
    )?;
    let id = fresh_id();
    let question = arguments.question(&id)?;
    let answer = asker.ask(&id, arguments.user.as_deref(), &question, arguments.timeout)?;
    if arguments.json {
        tell(&format!("{answer}\n"))?;
    }
    let readable = readable(&answer)?;
    if !arguments.json {
        tell(&readable)?;
    }
    Ok(())
}

/// Returns an answer as a table for people.
///
/// # Errors
/// When it is an error, or no answer at all.
pub fn readable(answer: &str) -> Result<String> {
    let answer: Answer = serde_json::from_str(answer).context("the answer is not readable")?;
    match answer.error {
        Some(error) => bail!("the daemon answered: {} ({})", error.message, error.code),
        None => Ok(table(&answer)),
    }
}

impl Arguments {
    fn question(&self, id: &str) -> Result<String> {
        let mut context = Map::new();
        for pair in &self.context {
            let Some((name, value)) = pair.split_once('=') else {
                bail!("--context: expected NAME=VALUE, found {pair:?}");
            };
            // Numbers and truth values as such, everything else as text.
            let parsed = serde_json::from_str(value).ok();
            let simple = parsed.filter(|value: &Value| value.is_number() || value.is_boolean());
            context.insert(name.to_owned(), simple.unwrap_or_else(|| Value::from(value)));
        }
        let question = Question {
            id,
            kind: self.kind,
            user: self.user.as_deref(),
            items: &self.items,
            k: self.k,
            exclude: &self.exclude,
            filter: Filter { category: &self.category },
            surface: self.surface.as_deref(),
            context,
            deadline_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
        };
        Ok(serde_json::to_string(&question)?)
    }
}

/// Returns a request without any of the options.
///
/// # Errors
/// None today: texts and numbers can always be written.
pub fn question(
    id: &str,
    kind: Kind,
    user: Option<&str>,
    items: &[String],
    k: u32,
    deadline: Duration,
) -> Result<String> {
    Ok(serde_json::to_string(&Question {
        id,
        kind,
        user,
        items,
        k: Some(k),
        exclude: &[],
        filter: Filter { category: &[] },
        surface: None,
        context: Map::new(),
        deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
    })?)
}

#[derive(Serialize)]
struct Question<'a> {
    id: &'a str,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    items: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<u32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    exclude: &'a [String],
    #[serde(skip_serializing_if = "Filter::is_empty")]
    filter: Filter<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    surface: Option<&'a str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    context: Map<String, Value>,
    deadline_ms: u64,
}

#[derive(Serialize)]
struct Filter<'a> {
    category: &'a [String],
}

impl Filter<'_> {
    fn is_empty(&self) -> bool {
        self.category.is_empty()
    }
}

/// Asks requests over Kafka, one at a time.
pub struct Asker {
    producer: Producer,
    answers: Reader,
    requests: String,
}

impl Asker {
    /// Connects and fixes the place from which answers are read.
    ///
    /// # Errors
    /// When Kafka cannot be reached or a topic is missing.
    pub fn open(
        connection: &Connection,
        requests: &str,
        responses: &str,
        patience: Duration,
    ) -> Result<Self> {
        // First the producer: it introduces itself to the brokers while the reader looks for its place.
        let producer = Producer::open(&ProducerSettings::for_responses(connection.clone()))?;
        let answers = Reader::open(connection, responses, Start::End, patience)?;
        Ok(Self { producer, answers, requests: requests.to_owned() })
    }

    /// Sends one request and returns the answer with its id, as it came.
    ///
    /// # Errors
    /// When no answer comes in time, or the request cannot be sent.
    pub fn ask(
        &mut self,
        id: &str,
        user: Option<&str>,
        question: &str,
        timeout: Duration,
    ) -> Result<String> {
        let deadline = Instant::now() + timeout;
        let record = Outgoing {
            topic: &self.requests,
            key: user.map(str::as_bytes),
            value: Some(question.as_bytes()),
            headers: &[],
        };
        self.producer.send(&record, timeout)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.answers.next(left)? {
                Some(record) if record.key.as_deref() == Some(id.as_bytes()) => {
                    let value = record.value.context("the answer is empty")?;
                    return String::from_utf8(value).context("the answer is not text");
                }
                Some(_) => {}
                None => bail!(self.silence(timeout)),
            }
        }
    }

    fn silence(&self, timeout: Duration) -> String {
        let sent = self.producer.counts().delivered > 0;
        let remedy = if sent {
            "is sluiced running on this cluster and prefix, and ready (its /ready page)?"
        } else {
            "the request itself was not accepted by kafka: is it reachable, may we write?"
        };
        format!("no answer within {timeout:?} to a request on {}; {remedy}", self.requests)
    }
}

/// Returns an id that no other request has.
pub fn fresh_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("query-{:x}-{:x}", now.as_nanos(), std::process::id())
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    items: Vec<Scored>,
    learned_until: Option<i64>,
    model: Option<String>,
    took_us: Option<u64>,
    #[serde(default)]
    unknown_user: bool,
    #[serde(default)]
    unknown_item: bool,
    error: Option<ErrorBody>,
}

#[derive(Deserialize)]
struct Scored {
    item: String,
    score: f64,
    /// By task, in alphabetical order.
    #[serde(default)]
    p: Map<String, Value>,
    #[serde(default, rename = "new")]
    unknown: bool,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: String,
    message: String,
}

fn table(answer: &Answer) -> String {
    let width = answer.items.iter().map(|item| item.item.chars().count()).max().unwrap_or(0).max(4);
    let tasks: Vec<&String> =
        answer.items.first().map_or(Vec::new(), |item| item.p.keys().collect());
    let mut text = format!("{:>4}  {:width$}  {:>10}", "rank", "item", "score");
    for task in &tasks {
        text.push_str(&format!("  {task:>10}"));
    }
    text.push('\n');
    for (rank, item) in answer.items.iter().enumerate() {
        let score = shown_number(item.score);
        text.push_str(&format!("{:>4}  {:width$}  {score:>10}", rank + 1, item.item));
        for task in &tasks {
            let probability = item.p.get(*task).and_then(Value::as_f64).unwrap_or(f64::NAN);
            text.push_str(&format!("  {:>10}", shown_number(probability)));
        }
        text.push_str(if item.unknown { "  new\n" } else { "\n" });
    }
    if answer.items.is_empty() {
        text.push_str("no items\n");
    }
    if answer.unknown_user {
        text.push_str("the user is unknown: the answer rests on the items and the circumstances\n");
    }
    if answer.unknown_item {
        text.push_str("the item is unknown: the answer is what is popular\n");
    }
    let mut notes = Vec::new();
    notes.extend(answer.model.as_ref().map(|model| format!("model {model}")));
    notes.extend(answer.learned_until.map(|time| format!("learned until {}", shown_time(time))));
    notes.extend(answer.took_us.map(|took| format!("took {:.1} ms", took as f64 / 1000.0)));

    text.push_str(&notes.join(", "));
    text.push('\n');
    text
}

/// Returns a number with five digits behind the point, or where they would hide it by its power of ten.
fn shown_number(number: f64) -> String {
    match number.abs() {
        small if small > 0.0 && small < 1e-3 => format!("{number:.2e}"),
        _ => format!("{number:.5}"),
    }
}

/// Returns milliseconds since 1970 as a date and time in UTC.
fn shown_time(millis: i64) -> String {
    let (day, in_day) = (calendar::written(millis), millis.rem_euclid(86_400_000));
    let (hour, minute, second) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1000 % 60);
    format!("{day} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use sluice_daemon::kafka::EmbeddedBroker;
    use sluice_features::wire::{ArrivalTime, RequestKind, decode_request};

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        query: Arguments,
    }

    fn parse(flags: &[&str]) -> Result<Arguments, clap::Error> {
        Flags::try_parse_from(std::iter::once(&"x").chain(flags)).map(|flags| flags.query)
    }

    #[test]
    fn a_question_is_one_that_the_daemon_understands() {
        let flags =
            ["rank", "--user", "712", "--items", "a,b", "--exclude", "b", "--category", "39"];
        let more =
            ["--context", "device=ios", "--context", "hour=7", "--surface", "home", "--k", "5"];
        let question = parse(&[&flags[..], &more].concat()).unwrap().question("q1").unwrap();
        let request = decode_request(question.as_bytes(), ArrivalTime(None)).unwrap();
        assert_eq!((request.id.as_str(), request.kind), ("q1", RequestKind::Rank));
        assert_eq!((request.items.len(), request.limit, request.ignored), (2, 5, 0));
        assert_eq!(request.exclude, ["b"]);
        assert_eq!(request.filter.categories.map(|all| all.len()), Some(1));
        assert_eq!(request.surface.as_deref(), Some("home"));
        assert!(question.contains(r#""context":{"device":"ios","hour":7}"#), "{question}");
        // Without --k the daemon decides: all of a rank, some of the others.
        let limits = [&flags[..], &["similar", "--items", "a"]].map(|flags| {
            let question = parse(flags).unwrap().question("q2").unwrap();
            decode_request(question.as_bytes(), ArrivalTime(None)).unwrap().limit
        });
        assert_eq!(limits, [2, 20]);
    }

    #[test]
    fn what_a_kind_needs_is_asked_for() {
        assert!(parse(&["recommend"]).is_err());
        assert!(parse(&["rank", "--user", "u"]).is_err());
        assert!(parse(&["similar"]).is_err());
    }

    #[test]
    fn an_answer_is_shown_as_a_table() {
        let answer = include_str!("../../features/examples_wire/response.json");
        let text = table(&serde_json::from_str(answer).unwrap());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "rank  item       score       click    purchase");
        assert_eq!(lines[1], "   1  5239     0.75000     0.25000     0.02500");
        assert_eq!(lines[2], "   2  1204     0.12500     0.06250     0.00313  new");
        assert_eq!(
            lines[3],
            "model default/17, learned until 2022-04-24 15:06:39 UTC, took 0.8 ms"
        );
    }

    #[test]
    fn one_item_among_millions_is_not_shown_as_nothing() {
        let shown = [0.25, 0.001, -0.5, 0.0, 3.21e-7, -4.2e-9].map(shown_number);
        assert_eq!(shown, ["0.25000", "0.00100", "-0.50000", "0.00000", "3.21e-7", "-4.20e-9"]);
    }

    #[test]
    fn the_answer_with_our_id_is_returned_and_silence_is_told() {
        let patience = Duration::from_secs(20);
        let broker = EmbeddedBroker::start().unwrap();
        for topic in ["q", "a"] {
            broker.create_topic(topic, 2).unwrap();
        }
        let connection = broker.connection();
        let answerer = Producer::open(&ProducerSettings::new(connection.clone())).unwrap();
        let answer = |id: &str, value: &str| {
            let (key, value) = (Some(id.as_bytes()), Some(value.as_bytes()));
            answerer.send(&Outgoing { topic: "a", key, value, headers: &[] }, patience).unwrap();
            answerer.flush(patience).unwrap();
        };
        answer("mine", "too old");
        let mut asker = Asker::open(&connection, "q", "a", patience).unwrap();
        answer("other", "no");
        answer("mine", "yes");
        assert_eq!(asker.ask("mine", Some("u"), "{}", patience).unwrap(), "yes");
        let told =
            asker.ask("next", None, "{}", Duration::from_millis(300)).unwrap_err().to_string();
        assert!(told.starts_with("no answer within 300ms") && told.contains("sluiced"), "{told}");
        let mut asked = Reader::open(&connection, "q", Start::Beginning, patience).unwrap();
        assert_eq!(asked.read_to_end(patience).unwrap().len(), 2);
    }
}
