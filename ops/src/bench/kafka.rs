//! Group `kafka`: from a request's turn to its answer, beside an echo of the same bytes.
//!
//! Requests leave at fixed times, whether or not answers have come, and the clock of each starts when it was due: waiting counts. Half
//! an interval later the same bytes go to a scratch topic, from which a thread of this process sends as many bytes as an answer has.
//! Both ways use the same client code, so what lies between them is the daemon's.

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use sluice_daemon::kafka::{
    Admin, Connection, Outgoing, Probe, Producer, ProducerSettings, Reader, Start, TopicSpec,
};
use sluice_daemon::shutdown::Shutdown;
use sluice_features::wire::Topic;

use super::report::{Report, Row, Target};
use crate::demo::feed::Feed;
use crate::demo::inside::Inside;
use crate::query::{Asker, Kind, fresh_id, question, readable};
use crate::simulate::{Shop, ShopConfig};

/// The default model behind the embedded broker.
const CONFIGURATION: &str = "[kafka]\nembedded = true\n[log]\nlevel = \"error\"\n";
/// Candidates of a request.
const CANDIDATES: usize = 200;
/// Behaviours that a user of the simulated shop has at least.
const HISTORY: usize = 50;
/// Requests a second.
const RATE: u32 = 20;
/// How long requests are sent.
const SECONDS: u32 = 20;
/// Asked before the clock counts.
const WARM_UP: usize = 20;
/// Milliseconds that the slowest answers may take beyond the slowest echoes.
const BEYOND_ECHO: f64 = 10.0;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Scratch topics of the echo, behind the prefix.
const ECHO: [&str; 2] = ["bench-echo", "bench-echo-answers"];

/// Where to ask, and about whom.
struct Stage {
    connection: Connection,
    prefix: String,
    users: Vec<String>,
    items: Vec<String>,
    history: &'static str,
}

/// Measures the group.
///
/// # Errors
/// When Kafka or the daemon does not answer, or an answer is an error.
pub(super) fn measure(brokers: Option<&str>, prefix: &str, report: &mut Report) -> Result<()> {
    let ctrl_c = Shutdown::new();
    match brokers {
        Some(brokers) => rows(&cluster(brokers, prefix)?, &ctrl_c, report),
        None => {
            let topics = ECHO.map(|topic| format!("sluice.{topic}"));
            let mut daemon = Inside::start(CONFIGURATION, &[&topics[0], &topics[1]], &ctrl_c)?;
            let stage = simulated(&mut daemon, &ctrl_c)?;
            rows(&stage, &ctrl_c, report)?;
            daemon.stop()
        }
    }
}

/// Fills the daemon from a simulated shop of few users, so that they have long histories.
fn simulated(daemon: &mut Inside, ctrl_c: &Shutdown) -> Result<Stage> {
    let config = ShopConfig {
        users: 30,
        items: 400,
        categories: 20,
        impressions: 20_000,
        per_day: 4_000.0,
        ..ShopConfig::default()
    };
    let feed = Feed::start(Shop::new(config.clone(), 1)?, 1e6, daemon)?;
    while !feed.has_ended() {
        daemon.check()?;
        ensure!(!ctrl_c.wait(Duration::from_millis(50)), "stopped by a signal");
    }
    daemon.catch_up(feed.stop()?, PATIENCE)?;
    // The same shop again says what was sent.
    let (mut behaviours, mut items) = (BTreeMap::<String, usize>::new(), Vec::new());
    for record in Shop::new(config, 1)? {
        match record.topic {
            Topic::Items => items.push(record.key),
            _ if record.outcome.is_some() => *behaviours.entry(record.key).or_default() += 1,
            _ => {}
        }
    }
    let long = behaviours.into_iter().filter(|(_, count)| *count >= HISTORY);
    let users: Vec<String> = long.map(|(user, _)| user).collect();
    items.dedup();
    Ok(Stage {
        connection: daemon.connection.clone(),
        prefix: daemon.prefix.clone(),
        users,
        items,
        history: "history 50",
    })
}

/// Takes users and items from the topics of a running daemon.
fn cluster(brokers: &str, prefix: &str) -> Result<Stage> {
    let connection = Connection::plain(brokers);
    let keys = |name: &str| -> Result<Vec<String>> {
        let topic = format!("{prefix}.{name}");
        let mut reader = Reader::open(&connection, &topic, Start::Beginning, PATIENCE)?;
        let records = reader.read_to_end(PATIENCE)?.into_iter();
        let mut keys: Vec<String> =
            records.filter_map(|record| String::from_utf8(record.key?).ok()).collect();
        keys.sort();
        keys.dedup();
        Ok(keys)
    };
    let (users, items) = (keys("users")?, keys("items")?);
    let (probe, admin) = (Probe::open(&connection)?, Admin::open(&connection, PATIENCE)?);
    for name in ECHO.map(|topic| format!("{prefix}.{topic}")) {
        if probe.partitions(&name, PATIENCE)?.is_none() {
            let (needed, initial) = (Vec::new(), vec![("retention.ms", "600000")]);
            admin.create(&[&TopicSpec { name, partitions: 1, replication: 1, needed, initial }])?;
        }
    }
    let prefix = prefix.to_owned();
    Ok(Stage { connection, prefix, users, items, history: "its users' histories" })
}

impl Stage {
    fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Returns the user and the bytes of a request.
    fn request(&self, id: &str, number: usize) -> Result<(&str, String)> {
        let user = &self.users[number % self.users.len()];
        let items = self.items.iter().cycle().skip(number * 7 % self.items.len());
        let items: Vec<String> = items.take(CANDIDATES).cloned().collect();
        let k = u32::try_from(CANDIDATES)?;
        Ok((user, question(id, Kind::Rank, Some(user), &items, k, PATIENCE)?))
    }
}

fn rows(stage: &Stage, ctrl_c: &Shutdown, report: &mut Report) -> Result<()> {
    ensure!(!stage.users.is_empty(), "expected users with a history, found none");
    let found = stage.items.len();
    ensure!(found >= CANDIDATES, "expected at least {CANDIDATES} items, found {found}");
    let answer_bytes = warm_up(stage)?;
    let run = Run::open(stage, answer_bytes)?;
    let sent = run.send(stage, ctrl_c);
    let (answers, echoes) = run.finish()?;
    let due = sent?;
    let rank = Times::of(&due.requests, &answers, "answers")?;
    let echo = Times::of(&due.echoes, &echoes, "echoes")?;
    let mut inside = Vec::with_capacity(answers.len());
    for (_, answer) in answers.values() {
        readable(answer)?;
        let took: Took = serde_json::from_str(answer).context("the answer has no took_us")?;
        inside.push(took.took_us as f64 / 1000.0);
    }
    let inside = Times::sorted(inside);
    let name =
        |what: &str| format!("rank {CANDIDATES} candidates, {}, {RATE}/s: {what}", stage.history);
    let row = |what: &str, value: f64| Row::new("kafka", name(what), value, "ms");
    report.push(row("p50", rank.at(0.5)).limit(echo.at(0.5)));
    let bound = Target::AtMost(echo.at(0.99) + BEYOND_ECHO);
    report.push(row("p99", rank.at(0.99)).limit(echo.at(0.99)).target(bound));
    report.push(row("in the daemon, p50", inside.at(0.5)));
    report.push(row("in the daemon, p99", inside.at(0.99)));
    Ok(())
}

#[derive(Deserialize)]
struct Took {
    took_us: u64,
}

/// Asks one after the other, and returns the bytes of an answer.
fn warm_up(stage: &Stage) -> Result<usize> {
    let (requests, responses) = (stage.topic("requests"), stage.topic("responses"));
    let mut asker = Asker::open(&stage.connection, &requests, &responses, PATIENCE)?;
    let mut bytes = 0;
    for number in 0..WARM_UP {
        let id = fresh_id();
        let (user, text) = stage.request(&id, number)?;
        let answer = asker.ask(&id, Some(user), &text, PATIENCE)?;
        readable(&answer)?;
        bytes = answer.len();
    }
    Ok(bytes)
}

/// When what was due, by number.
struct Due {
    requests: Vec<Instant>,
    echoes: Vec<Instant>,
}

/// What came, and when, by number.
type Came = BTreeMap<usize, (Instant, String)>;

/// The threads of one measurement.
struct Run {
    id: String,
    producer: Producer,
    stop: Shutdown,
    answers: JoinHandle<Result<Came>>,
    echoes: JoinHandle<Result<Came>>,
    echo: JoinHandle<Result<()>>,
}

impl Run {
    fn open(stage: &Stage, answer_bytes: usize) -> Result<Self> {
        let (id, stop) = (fresh_id(), Shutdown::new());
        let open = |topic: &str| {
            Reader::open(&stage.connection, &stage.topic(topic), Start::End, PATIENCE)
        };
        let producer = Producer::open(&ProducerSettings::for_responses(stage.connection.clone()))?;
        let answers = collect("answers", open("responses")?, &id, &stop)?;
        let echoes = collect("echoes", open(ECHO[1])?, &id, &stop)?;
        let (mut asked, stopped) = (open(ECHO[0])?, stop.clone());
        let back = Producer::open(&ProducerSettings::for_responses(stage.connection.clone()))?;
        let (topic, value) = (stage.topic(ECHO[1]), vec![b'x'; answer_bytes]);
        let echo = thread("echo", move || {
            while !stopped.is_requested() {
                if let Some(record) = asked.next(Duration::from_millis(100))? {
                    let (key, value) = (record.key.as_deref(), Some(value.as_slice()));
                    back.send(&Outgoing { topic: &topic, key, value, headers: &[] }, PATIENCE)?;
                }
            }
            Ok(())
        })?;
        Ok(Self { id, producer, stop, answers, echoes, echo })
    }

    /// Sends requests and echoes in turn at their times, and waits for the last.
    fn send(&self, stage: &Stage, ctrl_c: &Shutdown) -> Result<Due> {
        let (requests, scratch) = (stage.topic("requests"), stage.topic(ECHO[0]));
        let interval = Duration::from_secs(1) / RATE;
        let begun = Instant::now() + interval;
        let mut due = Due { requests: Vec::new(), echoes: Vec::new() };
        for number in 0..(RATE * SECONDS) {
            let id = format!("{}-{number}", self.id);
            let (user, text) = stage.request(&id, number as usize)?;
            let value = Some(text.as_bytes());
            let times = [begun + interval * number, begun + interval * number + interval / 2];
            for (time, topic, key) in
                [(times[0], &requests, user), (times[1], &scratch, id.as_str())]
            {
                let early = time.saturating_duration_since(Instant::now());
                ensure!(!ctrl_c.wait(early), "stopped by a signal");
                let key = Some(key.as_bytes());
                self.producer.send(&Outgoing { topic, key, value, headers: &[] }, PATIENCE)?;
            }
            due.requests.push(times[0]);
            due.echoes.push(times[1]);
        }
        ensure!(!ctrl_c.wait(Duration::from_secs(2)), "stopped by a signal");
        Ok(due)
    }

    fn finish(self) -> Result<(Came, Came)> {
        self.stop.request();
        join(self.echo)?;
        Ok((join(self.answers)?, join(self.echoes)?))
    }
}

/// Notes when each record of this run comes.
fn collect(
    name: &str,
    mut reader: Reader,
    run: &str,
    stop: &Shutdown,
) -> Result<JoinHandle<Result<Came>>> {
    let (run, stop) = (format!("{run}-"), stop.clone());
    thread(name, move || {
        let mut came = Came::new();
        while !stop.is_requested() {
            let Some(record) = reader.next(Duration::from_millis(100))? else {
                continue;
            };
            let now = Instant::now();
            let key = String::from_utf8(record.key.unwrap_or_default()).unwrap_or_default();
            if let Some(number) = key.strip_prefix(&run).and_then(|text| text.parse().ok()) {
                let value = String::from_utf8(record.value.unwrap_or_default())?;
                came.entry(number).or_insert((now, value));
            }
        }
        Ok(came)
    })
}

fn thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).context("cannot start a thread")
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// Milliseconds, the shortest first.
struct Times(Vec<f64>);

impl Times {
    fn of(due: &[Instant], came: &Came, what: &str) -> Result<Self> {
        let missing = due.len() - came.len().min(due.len());
        if missing > 0 {
            bail!("{missing} of {} {what} did not come", due.len());
        }
        let took = |(number, (at, _)): (&usize, &(Instant, String))| {
            at.saturating_duration_since(due[*number]).as_secs_f64() * 1000.0
        };
        Ok(Self::sorted(came.iter().map(took).collect()))
    }

    fn sorted(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    /// Returns the smallest time that a share of all does not exceed.
    fn at(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_times_are_times_that_were_measured() {
        let times = Times::sorted((1..=200).rev().map(f64::from).collect());
        assert_eq!((times.at(0.5), times.at(0.99), times.at(1.0)), (100.0, 198.0, 200.0));
        assert!(Times(Vec::new()).at(0.5).is_nan());
    }

    #[test]
    fn what_did_not_come_is_told() {
        let due = vec![Instant::now(); 2];
        let came = Came::from([(1, (due[0] + Duration::from_millis(3), String::new()))]);
        let told = Times::of(&due, &came, "answers").err().unwrap().to_string();
        assert_eq!(told, "1 of 2 answers did not come");
        let one = Came::from([(0, (due[0] + Duration::from_millis(3), String::new()))]);
        assert!((Times::of(&due[..1], &one, "answers").unwrap().at(0.5) - 3.0).abs() < 1e-9);
    }
}
