//! The shop's thread: makes records, notes the truth beside them, and sends them at a rate through the ordinary producer.
//!
//! The embedded broker drops the oldest records of a partition beyond 5 MB or 100,000 records, so the thread waits while the daemon is
//! [`LIMIT`] records behind over all partitions: these fit in one partition, were they all of one user. Event time runs as fast as the
//! records come, until it has reached the present: from then on it keeps step with the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use parking_lot::Mutex;
use sluice_daemon::kafka::{Outgoing, Producer, ProducerSettings};
use sluice_daemon::live::Live;
use sluice_daemon::shutdown::Shutdown;
use sluice_features::wire::Topic;

use super::inside::Inside;
use crate::simulate::{Judge, Record, Shop, TASKS, TaskTruth};

/// Records that may be on their way to the daemon. A record has less than 400 bytes.
const LIMIT: u64 = 10_000;
/// How long the broker may take to accept a record.
const PATIENCE: Duration = Duration::from_secs(20);
/// What was missed by waiting is not made up for, beyond this.
const BEHIND: Duration = Duration::from_millis(200);
/// Shortest sleep.
const SLEEP: Duration = Duration::from_millis(2);
/// Truth is looked at once in so many impressions: its figures walk through all their buckets.
const LOOK: u64 = 1_000;

/// What the thread tells about itself.
#[derive(Default)]
pub(super) struct Told {
    sent: AtomicU64,
    throttled: AtomicBool,
    truth: Mutex<[TaskTruth; TASKS.len()]>,
    page: Mutex<Page>,
}

/// The newest page that was shown, for questions.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    /// Whom it was shown to.
    pub(super) user: String,
    /// What was on it.
    pub(super) items: Vec<String>,
}

/// A running shop.
pub(crate) struct Feed {
    told: Arc<Told>,
    stop: Shutdown,
    thread: JoinHandle<Result<()>>,
}

impl Feed {
    /// Opens the shop, `rate` impressions a second at most.
    ///
    /// # Errors
    /// When no producer or thread can be had.
    pub(crate) fn start(shop: Shop, rate: f64, daemon: &Inside) -> Result<Self> {
        let producer = Producer::open(&ProducerSettings::new(daemon.connection.clone()))?;
        let (told, stop) = (Arc::<Told>::default(), Shutdown::new());
        let feeder = Feeder {
            producer,
            topics: [Topic::Events, Topic::Items, Topic::Users]
                .map(|topic| (topic, daemon.topic(topic.name()))),
            shared: Arc::clone(&daemon.shared),
            told: Arc::clone(&told),
            stop: stop.clone(),
            interval: Duration::from_secs_f64(1.0 / rate),
        };
        let thread = std::thread::Builder::new()
            .name("shop".to_owned())
            .spawn(move || feeder.run(shop))
            .context("cannot start a thread")?;
        Ok(Self { told, stop, thread })
    }

    /// Returns the records sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.told.sent.load(Ordering::Acquire)
    }

    /// Tells whether the daemon's lag held the shop back since the last call.
    pub(super) fn was_throttled(&self) -> bool {
        self.told.throttled.swap(false, Ordering::AcqRel)
    }

    /// Returns the truth so far, in the order of [`TASKS`].
    pub(super) fn truth(&self) -> [TaskTruth; TASKS.len()] {
        *self.told.truth.lock()
    }

    /// Returns the newest page.
    pub(super) fn page(&self) -> Page {
        self.told.page.lock().clone()
    }

    /// Tells whether the thread has ended by itself: [`Self::stop`] says why.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Closes the shop, waits until all it sent is delivered, and returns how much that is.
    ///
    /// # Errors
    /// When not everything was delivered.
    pub(crate) fn stop(self) -> Result<u64> {
        self.stop.request();
        self.thread.join().map_err(|_| anyhow!("the shop's thread panicked"))??;
        Ok(self.told.sent.load(Ordering::Acquire))
    }
}

struct Feeder {
    producer: Producer,
    topics: [(Topic, String); 3],
    shared: Arc<Live>,
    told: Arc<Told>,
    stop: Shutdown,
    interval: Duration,
}

impl Feeder {
    fn run(self, shop: Shop) -> Result<()> {
        let mut judge = Judge::new(0);
        let (mut due, mut shown) = (Instant::now(), 0_u64);
        let (mut page, mut page_at) = (Page::default(), i64::MIN);
        for record in shop {
            if self.stop.is_requested() {
                break;
            }
            judge.take(&record);
            if let Some(truth) = &record.truth {
                if page.user != record.key || page_at != truth.ts {
                    *self.told.page.lock() = std::mem::take(&mut page);
                    (page.user, page_at) = (record.key.clone(), truth.ts);
                }
                page.items.push(format!("i{}", truth.item));
                shown += 1;
                if shown.is_multiple_of(LOOK) {
                    *self.told.truth.lock() = judge.so_far();
                }
                self.keep_pace(&mut due, truth.ts);
            }
            self.send(&record)?;
        }
        *self.told.truth.lock() = judge.so_far();
        self.producer.flush(PATIENCE)?;
        let (sent, counts) = (self.told.sent.load(Ordering::Acquire), self.producer.counts());
        ensure!(
            counts.delivered == sent,
            "{} of {sent} records were not delivered: {}",
            sent - counts.delivered,
            self.producer.last_complaint().unwrap_or_else(|| "no reason given".to_owned())
        );
        Ok(())
    }

    /// Waits for the impression's turn, for the daemon, and for the present.
    fn keep_pace(&self, due: &mut Instant, event_time: i64) {
        *due += self.interval;
        let now = Instant::now();
        if let Some(early) = due.checked_duration_since(now) {
            if early > SLEEP {
                self.stop.wait(early);
            }
        } else if now - *due > BEHIND {
            *due = now - BEHIND;
        }
        while self.told.sent.load(Ordering::Acquire) > self.shared.records() + LIMIT {
            self.told.throttled.store(true, Ordering::Release);
            if self.stop.wait(SLEEP) {
                return;
            }
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        if let Ok(ahead) = u64::try_from(i128::from(event_time) - wall as i128) {
            self.stop.wait(Duration::from_millis(ahead));
        }
    }

    fn send(&self, record: &Record) -> Result<()> {
        let topic = self.topics.iter().find(|(topic, _)| *topic == record.topic);
        let (_, topic) = topic.context("a shop sends no requests")?;
        let (key, value) = (Some(record.key.as_bytes()), Some(record.message.as_bytes()));
        self.producer.send(&Outgoing { topic, key, value, headers: &[] }, PATIENCE)?;
        self.told.sent.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}
