//! The learner's thread: batches in, parameters and figures out.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::{Live, Work};
use crate::checkpoint::NotSound;
use crate::config::Part;
use crate::error::Stop;
use crate::http::Wait;
use crate::learn::guard::Refusals;
use crate::learn::trainer::{COLD, Trainer, TrainerImage, WorkReport};
use crate::pipeline::work::LearnBatch;
use crate::serve::{Serving, Snapshot};
use crate::shutdown::Shutdown;

/// While batches follow each other, readers get new dense parameters at most this often; at once when the queue is empty.
const SNAPSHOT: Duration = Duration::from_millis(50);
/// How often the tables' figures are told.
const TABLES: Duration = Duration::from_secs(60);
/// Bytes of rows that may be put aside while a checkpoint is written. Beyond, learning waits for it.
const PUT_ASIDE: usize = 256 << 20;
/// How long learning waits before it looks again.
const MOMENT: Duration = Duration::from_millis(1);
/// How often refused batches are said at most.
const REFUSED: Duration = Duration::from_secs(60);
/// The longest the thread sleeps.
const TICK: Duration = Duration::from_millis(100);

/// What the learner is made of.
pub struct Learner {
    /// What it shares with the ingest thread.
    pub shared: Arc<Live>,
    /// Where its snapshots go.
    pub serving: Arc<Serving>,
    /// What to do.
    pub work: Receiver<Work>,
    /// Batches to be filled again.
    pub used: Sender<LearnBatch>,
}

/// Returns what readers get of a trainer's state.
pub fn snapshot(trainer: &Trainer) -> Snapshot {
    Snapshot {
        model: trainer.learner().model().clone(),
        towers: trainer.retriever().towers(),
        learned_until: trainer.covered(),
        version: trainer.learner().steps(),
        sound: trainer.judge().guard().sound(),
    }
}

/// Says in `/ready` and in metrics whether the model is sound, and whether it has learned enough to say anything.
pub fn tell(shared: &Live, trainer: &Trainer) {
    let (judge, readiness) = (trainer.judge(), &shared.readiness);
    for (gauge, sound) in shared.metrics.learn.unsound.iter().zip(judge.guard().verdicts()) {
        gauge.set(f64::from(u8::from(!sound)));
    }
    match judge.cause() {
        Some(cause) => readiness.wait_for(Wait::Guard, cause),
        None => readiness.clear(Wait::Guard),
    };
    let learned = judge.learned();
    if learned >= COLD {
        readiness.clear(Wait::Cold);
    } else {
        let text =
            format!("{learned} of {COLD} examples are learned: answers are noise until then");
        readiness.wait_for(Wait::Cold, text);
    }
}

/// Refused batches that were not yet said.
#[derive(Default)]
struct Unsaid {
    batches: u64,
    said: Option<Duration>,
}

impl Learner {
    /// Runs until the ingest thread has ended and all its work is done.
    ///
    /// # Errors
    /// When too many batches are refused. Nothing is kept then: the next start goes on from the checkpoint before.
    pub fn run(self, _shutdown: &Shutdown) -> Result<(), Stop> {
        let (clock, mut unsaid) = (&self.shared.clock, Unsaid::default());
        let (mut published, mut told, mut stale) = (clock.steady(), clock.steady(), false);
        loop {
            let work = self.work.recv_timeout(TICK);
            match work {
                Ok(Work::Learn(batch)) => {
                    self.learn(*batch, &mut unsaid)?;
                    stale = true;
                }
                Ok(Work::Freeze(to)) => self.freeze(&to),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.publish();
                    return Ok(());
                }
            }
            let now = clock.steady();
            if stale && (self.work.is_empty() || now - published >= SNAPSHOT) {
                self.publish();
                (published, stale) = (now, false);
            }
            if now - told >= TABLES {
                told = now;
                self.report_tables();
            }
        }
    }

    /// Takes the image of the parameters for a checkpoint.
    fn freeze(&self, to: &Sender<Result<TrainerImage, NotSound>>) {
        let begun = self.shared.clock.steady();
        let image = {
            let trainer = self.shared.trainer.lock();
            trainer
                .judge()
                .guard()
                .not_to_keep()
                .map_or_else(|| Ok(trainer.image()), |why| Err(NotSound(why)))
        };
        self.shared.hold(self.shared.clock.steady() - begun);
        if to.send(image).is_err() {
            tracing::debug!("nobody waits for the parameters: the checkpoint was given up");
        }
    }

    /// Waits while too many rows are put aside for a checkpoint that is being written.
    fn wait_for_checkpoint(&self) {
        while self.shared.trainer.lock().put_aside() > PUT_ASIDE {
            std::thread::sleep(MOMENT);
            self.shared.hold(MOMENT);
        }
    }

    fn learn(&self, batch: LearnBatch, unsaid: &mut Unsaid) -> Result<(), Stop> {
        self.wait_for_checkpoint();
        let (clock, metrics) = (&self.shared.clock, &self.shared.metrics.learn);
        let begun = clock.steady();
        let report = self.shared.trainer.lock().work(&batch);
        metrics.step_seconds.record((clock.steady() - begun).as_secs_f64());
        metrics.examples.increment(report.examples as u64);
        metrics.steps.increment(u64::from(report.labelled > 0 && !report.refused));
        metrics.waiting_batches.set(self.work.len() as f64);
        if let Some(oldest) = batch.oldest_record {
            let waited = clock.wall() - oldest;
            metrics.freshness_seconds.record(waited.0.max(0) as f64 / 1000.0);
        }
        if let Some(covered) = batch.covered {
            metrics.until_seconds.set(covered.0 as f64 / 1000.0);
        }
        self.judge(&report, unsaid);
        // When the ingest thread has enough of them, the memory is freed.
        drop(self.used.try_send(batch));
        report.end().map_or(Ok(()), Err)
    }

    fn judge(&self, report: &WorkReport, unsaid: &mut Unsaid) {
        if report.refused {
            self.shared.metrics.learn.refused_batches.increment(1);
            self.say_refused(report, unsaid);
        }
        for breach in &report.breaches {
            if let Some(task) = self.shared.metrics.evaluate.get(breach.task) {
                task.breaches.increment(1);
            }
            tracing::warn!(
                task = breach.task,
                figures = breach.figures,
                "the guard found a window unsound: nothing is published until one is sound again"
            );
        }
    }

    /// Says at most once a minute, and at once when there are too many, that batches were refused.
    fn say_refused(&self, report: &WorkReport, unsaid: &mut Unsaid) {
        unsaid.batches += 1;
        let now = self.shared.clock.steady();
        let rests = unsaid.said.is_some_and(|said| now - said < REFUSED);
        if rests && report.refusals == Refusals::Quiet {
            return;
        }
        tracing::warn!(
            batches = std::mem::take(&mut unsaid.batches),
            "batches were refused because their loss or a gradient was not finite, and their examples are not learned: the parameters grow beyond all bounds; \
             start with lower rates or a lower clip in [learn] and --new-model"
        );
        unsaid.said = Some(now);
    }

    fn publish(&self) {
        let snapshot = {
            let trainer = self.shared.trainer.lock();
            tell(&self.shared, &trainer);
            snapshot(&trainer)
        };
        self.serving.snapshot.store(Arc::new(snapshot));
    }

    fn report_tables(&self) {
        let stats = self.shared.trainer.lock().tables();
        let table = &self.shared.metrics.table;
        table.rows.set(stats.rows as f64);
        self.shared.metrics.memory.bytes[Part::Tables as usize].set(stats.bytes as f64);
        table.admitted.absolute(stats.admitted);
        table.refused.absolute(stats.refused);
        table.expired.absolute(stats.expired);
    }
}

#[cfg(test)]
mod tests;
