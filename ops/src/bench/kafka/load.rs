//! The shop's thread: its events, stamped with the time at which they are due.
//!
//! At a rate, what could not be sent in time is sent as soon as it can be, and its stamp stays the time at which it was due. The
//! embedded broker drops the oldest records of a partition beyond 5 MB or 100,000 records, so the thread waits while the daemon is
//! [`LIMIT`] records behind.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use sluice_daemon::kafka::{Outgoing, Producer, ProducerSettings};
use sluice_daemon::live::Live;
use sluice_daemon::shutdown::Shutdown;
use sluice_features::wire::Topic;

use super::PATIENCE;
use super::site::{Site, stamped, wall};
use crate::simulate::Shop;

/// Records that may be on their way to the daemon. A record has less than 400 bytes.
pub(super) const LIMIT: u64 = 10_000;
/// Shortest sleep.
const SLEEP: Duration = Duration::from_millis(1);

/// A shop at work.
pub(super) struct Load {
    stop: Shutdown,
    thread: JoinHandle<Result<(Shop, Late)>>,
}

/// How well the rate was kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    /// Events a second that were sent.
    pub(super) rate: f64,
    /// By how much the last event was late.
    pub(super) seconds: f64,
}

impl Load {
    /// Sends the shop's next events at a rate, or as fast as the daemon takes them.
    ///
    /// # Errors
    /// When no producer or thread can be had.
    pub(super) fn start(site: &mut Site, rate: Option<f64>) -> Result<Self> {
        let shop = site.shop.take().context("the shop is at work already")?;
        let stop = Shutdown::new();
        let sender = Sender {
            producer: Producer::open(&ProducerSettings::new(site.connection()))?,
            topics: [Topic::Events, Topic::Items, Topic::Users]
                .map(|topic| (topic, site.topic(topic.name()))),
            shared: Arc::clone(&site.daemon.shared),
            stop: stop.clone(),
            interval: rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            taken_before: site.records(),
        };
        let thread = std::thread::Builder::new()
            .name("shop".to_owned())
            .spawn(move || sender.run(shop))
            .context("cannot start a thread")?;
        Ok(Self { stop, thread })
    }

    /// Closes the shop until the next load, and waits until the daemon has all it sent.
    ///
    /// # Errors
    /// When an event was not delivered, or not taken in time.
    pub(super) fn stop(self, site: &mut Site) -> Result<Late> {
        self.stop.request();
        let (shop, late) =
            self.thread.join().map_err(|_| anyhow!("the shop's thread panicked"))??;
        site.shop = Some(shop);
        Ok(late)
    }
}

struct Sender {
    producer: Producer,
    topics: [(Topic, String); 3],
    shared: Arc<Live>,
    stop: Shutdown,
    interval: Option<Duration>,
    taken_before: u64,
}

impl Sender {
    fn run(self, mut shop: Shop) -> Result<(Shop, Late)> {
        let (begun, begun_at) = (Instant::now(), wall());
        let (mut due, mut sent) = (Duration::ZERO, 0_u64);
        for record in shop.by_ref() {
            let Some(time) = self.turn(begun, &mut due, sent) else { break };
            let time = begun_at + i64::try_from(time.as_millis())?;
            let topic = self.topics.iter().find(|(topic, _)| *topic == record.topic);
            let (_, topic) = topic.context("a shop sends no requests")?;
            let message = stamped(&record.message, time);
            let (key, value) = (Some(record.key.as_bytes()), Some(message.as_bytes()));
            self.producer.send(&Outgoing { topic, key, value, headers: &[] }, PATIENCE)?;
            sent += 1;
        }
        let elapsed = begun.elapsed();
        let rate = sent as f64 / elapsed.as_secs_f64();
        let late = self.interval.map_or(Duration::ZERO, |_| elapsed.saturating_sub(due));
        self.producer.flush(PATIENCE)?;
        let deadline = Instant::now() + PATIENCE;
        while self.taken() < sent {
            let taken = self.taken();
            anyhow::ensure!(
                Instant::now() < deadline,
                "expected the daemon to take {sent} records within {PATIENCE:?}, found {taken}"
            );
            std::thread::sleep(SLEEP);
        }
        Ok((shop, Late { rate, seconds: late.as_secs_f64() }))
    }

    /// Waits for the next event's turn and returns when it was due after the beginning; none when asked to stop.
    fn turn(&self, begun: Instant, due: &mut Duration, sent: u64) -> Option<Duration> {
        while sent > self.taken() + LIMIT {
            if self.stop.wait(SLEEP) {
                return None;
            }
        }
        let now = begun.elapsed();
        let Some(interval) = self.interval else {
            return (!self.stop.is_requested()).then_some(now);
        };
        *due += interval;
        let early = due.saturating_sub(now);
        let stopped = if early > SLEEP { self.stop.wait(early) } else { self.stop.is_requested() };
        (!stopped).then_some(*due)
    }

    fn taken(&self) -> u64 {
        self.shared.records() - self.taken_before
    }
}
