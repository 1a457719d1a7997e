//! Requests at a fixed rate, and their echo.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use sluice_daemon::kafka::{Outgoing, Producer, ProducerSettings, Reader, Start};
use sluice_daemon::shutdown::Shutdown;

use super::PATIENCE;
use super::site::{ECHO, Site};
use super::times::Times;
use crate::bench::askers::request;
use crate::query::{Asker, fresh_id, readable};

/// How many requests are sent, beside as many echoes, at most.
const REQUESTS: u32 = 2_500;
/// How long they are sent, at most.
const SECONDS: u32 = 25;
/// Time between two looks whether all have come.
const LOOK: Duration = Duration::from_millis(50);
/// Asked before the clock counts.
const WARM_UP: usize = 20;

/// What was measured, in milliseconds.
pub(super) struct Asked {
    /// From a request's turn to its answer.
    pub(super) answers: Times,
    /// From an echo's turn to its answer.
    pub(super) echoes: Times,
    /// From a request's arrival in the daemon to its answer's encoding, as the daemon says.
    pub(super) inside: Times,
}

/// Sends `rate` requests a second and as many echoes.
///
/// # Errors
/// When an answer is missing or an error.
pub(super) fn measure(site: &mut Site, rate: u32) -> Result<Asked> {
    let answer_bytes = warm_up(site)?;
    let run = Run::open(site, answer_bytes)?;
    let sent = run.send(site, rate);
    let (answers, echoes) = run.finish()?;
    let due = sent?;
    let mut inside = Vec::with_capacity(answers.len());
    for (_, answer) in answers.values() {
        inside.push(took(answer)?);
    }
    Ok(Asked {
        answers: since(&due.requests, &answers, "answers")?,
        echoes: since(&due.echoes, &echoes, "echoes")?,
        inside: Times::sorted(inside),
    })
}

#[derive(Deserialize)]
struct Took {
    took_us: u64,
}

/// Milliseconds that an answer took inside the daemon.
fn took(answer: &str) -> Result<f64> {
    readable(answer)?;
    let took: Took = serde_json::from_str(answer).context("the answer has no took_us")?;
    Ok(took.took_us as f64 / 1000.0)
}

/// Asks one after the other, and returns the bytes of an answer.
pub(super) fn warm_up(site: &Site) -> Result<usize> {
    let (requests, responses) = (site.topic("requests"), site.topic("responses"));
    let mut asker = Asker::open(&site.connection(), &requests, &responses, PATIENCE)?;
    let mut bytes = 0;
    for number in 0..WARM_UP {
        let id = fresh_id();
        let (user, text) = request(&id, number, PATIENCE)?;
        let answer = asker.ask(&id, Some(&user), &text, PATIENCE)?;
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
    /// Answers and echoes that have come.
    came: Arc<AtomicUsize>,
    answers: JoinHandle<Result<Came>>,
    echoes: JoinHandle<Result<Came>>,
    echo: JoinHandle<Result<()>>,
}

impl Run {
    fn open(site: &Site, answer_bytes: usize) -> Result<Self> {
        let (id, stop) = (fresh_id(), Shutdown::new());
        let open = |topic: &str| {
            Reader::open(&site.connection(), &site.topic(topic), Start::End, PATIENCE)
        };
        let producer = Producer::open(&ProducerSettings::for_responses(site.connection()))?;
        let came = Arc::<AtomicUsize>::default();
        let answers = collect("answers", open("responses")?, &id, &stop, &came)?;
        let echoes = collect("echoes", open(ECHO[1])?, &id, &stop, &came)?;
        let (mut asked, stopped) = (open(ECHO[0])?, stop.clone());
        let back = Producer::open(&ProducerSettings::for_responses(site.connection()))?;
        let (topic, value) = (site.topic(ECHO[1]), vec![b'x'; answer_bytes]);
        let echo = thread("echo", move || {
            while !stopped.is_requested() {
                if let Some(record) = asked.next(Duration::from_millis(100))? {
                    let (key, value) = (record.key.as_deref(), Some(value.as_slice()));
                    back.send(&Outgoing { topic: &topic, key, value, headers: &[] }, PATIENCE)?;
                }
            }
            Ok(())
        })?;
        Ok(Self { id, producer, stop, came, answers, echoes, echo })
    }

    /// Sends requests and echoes in turn at their times, and waits for the last.
    fn send(&self, site: &mut Site, rate: u32) -> Result<Due> {
        let (requests, scratch) = (site.topic("requests"), site.topic(ECHO[0]));
        let interval = Duration::from_secs(1) / rate;
        let begun = Instant::now() + interval;
        let mut due = Due { requests: Vec::new(), echoes: Vec::new() };
        for number in 0..(rate * SECONDS).min(REQUESTS) {
            let id = format!("{}-{number}", self.id);
            let (user, text) = request(&id, number as usize, PATIENCE)?;
            let value = Some(text.as_bytes());
            let times = [begun + interval * number, begun + interval * number + interval / 2];
            for (time, topic, key) in
                [(times[0], &requests, user.as_str()), (times[1], &scratch, id.as_str())]
            {
                let early = time.saturating_duration_since(Instant::now());
                ensure!(!site.ctrl_c.wait(early), "stopped by a signal");
                let key = Some(key.as_bytes());
                self.producer.send(&Outgoing { topic, key, value, headers: &[] }, PATIENCE)?;
            }
            due.requests.push(times[0]);
            due.echoes.push(times[1]);
        }
        let deadline = Instant::now() + PATIENCE;
        let all = due.requests.len() + due.echoes.len();
        while self.came.load(Ordering::Relaxed) < all && Instant::now() < deadline {
            site.pause(LOOK)?;
        }
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
    all: &Arc<AtomicUsize>,
) -> Result<JoinHandle<Result<Came>>> {
    let (run, stop, all) = (format!("{run}-"), stop.clone(), Arc::clone(all));
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
                all.fetch_add(1, Ordering::Relaxed);
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

/// Milliseconds from when each was due to when it came.
fn since(due: &[Instant], came: &Came, what: &str) -> Result<Times> {
    let missing = due.len() - came.len().min(due.len());
    if missing > 0 {
        bail!("{missing} of {} {what} did not come", due.len());
    }
    let took = |(number, (at, _)): (&usize, &(Instant, String))| {
        at.saturating_duration_since(due[*number]).as_secs_f64() * 1000.0
    };
    Ok(Times::sorted(came.iter().map(took).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_come_is_told() {
        let due = vec![Instant::now(); 2];
        let came = Came::from([(1, (due[0] + Duration::from_millis(3), String::new()))]);
        let told = since(&due, &came, "answers").err().unwrap().to_string();
        assert_eq!(told, "1 of 2 answers did not come");
        let one = Came::from([(0, (due[0] + Duration::from_millis(3), String::new()))]);
        assert!((since(&due[..1], &one, "answers").unwrap().at(0.5) - 3.0).abs() < 1e-9);
    }
}
