//! A run without Kafka: records from files or from a capture through the same pipeline and the same trainer as the live daemon.
//!
//! The pipeline runs on the caller's thread, the trainer on another; batches pass between them in order, so the outcome depends on
//! neither's speed.

use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use sluice_features::attribution::JoinCounts;
use sluice_features::reject::Rejection;
use sluice_features::time::EventTime;

use crate::capture::{Captured, Entry};
use crate::checkpoint::Checkpoint;
use crate::clock::Clock;
use crate::config::{Config, Share};
use crate::error::Stop;
use crate::learn::guard::Breach;
use crate::learn::trainer::Trainer;
use crate::parts;
use crate::pipeline::Pipeline;
use crate::pipeline::counts::Counts;
use crate::pipeline::memory::Over;
use crate::pipeline::record::Record;
use crate::pipeline::work::LearnBatch;

/// Batches that wait between the two threads.
const QUEUE: usize = 16;

/// How a replay ended.
pub struct Outcome {
    /// The state of the pipeline: counts, sequences, what is still open.
    pub pipeline: Pipeline,
    /// The parameters and the figures.
    pub trainer: Trainer,
    /// Batches refused because something was not finite.
    pub refused_batches: u64,
    /// What the guard found.
    pub breaches: Vec<Breach>,
    /// How long the trainer was busy.
    pub learning: Duration,
    /// How long the whole took.
    pub elapsed: Duration,
    /// How long the pipeline waited for the trainer.
    pub waiting: Duration,
}

/// What the source of records may do to the pipeline.
pub struct Feed<'a> {
    pipeline: Pipeline,
    work: Sender<LearnBatch>,
    used: Receiver<LearnBatch>,
    clock: &'a Clock,
    waiting: Duration,
}

impl Feed<'_> {
    /// Applies a record.
    ///
    /// # Errors
    /// The rejection, when the record is refused; it is counted.
    pub fn take(&mut self, record: &Record<'_>) -> Result<(), Rejection> {
        let taken = self.pipeline.take(record);
        self.hand_on();
        taken
    }

    /// Counts a record that was refused before it could be told where it belongs.
    pub fn reject(&mut self, rejection: &Rejection) {
        self.pipeline.reject(rejection);
    }

    /// Does something to the pipeline that a capture says.
    pub fn decide(&mut self, decide: impl FnOnce(&mut Pipeline)) {
        decide(&mut self.pipeline);
        self.hand_on();
    }

    /// Refuses to go on where open impressions, or what is known of users and items, take all the memory that they may. Live, reading waits
    /// then until windows close or someone gives more; here nothing would become less by waiting.
    ///
    /// # Errors
    /// Says what takes how much, and what to do.
    pub fn ensure_room(&self) -> Result<(), Stop> {
        let Some(Over { share, found, most }) = self.pipeline.over() else { return Ok(()) };
        Err(Stop::config(match share {
            Share::Open => format!(
                "open impressions take {found} bytes, more than open.max_bytes = {most}: give it more, or the tasks shorter windows"
            ),
            _ => format!(
                "what is known of users and items takes {found} bytes, more than the {most} of its share of memory.limit: give a \
                 larger memory.limit, or a smaller sequence.max_length"
            ),
        }))
    }

    /// Returns what was counted so far.
    pub fn counts(&self) -> &Counts {
        self.pipeline.counts()
    }

    fn hand_on(&mut self) {
        while let Some(batch) = self.pipeline.next_batch() {
            let begun = self.clock.steady();
            // The trainer goes away only with a fault or a panic, which the end passes on.
            if self.work.send(batch).is_err() {
                return;
            }
            self.waiting += self.clock.steady() - begun;
            while let Ok(used) = self.used.try_recv() {
                self.pipeline.recycle(used);
            }
        }
    }
}

/// Runs a replay from nothing over files: `feed` gives the records; at the end all windows close and the last partial batch is learned.
///
/// # Errors
/// Those of `feed`, and what keeps the model from being built.
pub fn files(
    config: &Config,
    clock: &Clock,
    feed: impl FnOnce(&mut Feed<'_>) -> Result<(), Stop>,
) -> Result<Outcome, Stop> {
    run(parts::pipeline(config, 1), parts::trainer(config)?, clock, |source| {
        feed(source)?;
        source.decide(Pipeline::finish);
        Ok(())
    })
}

/// Repeats a captured run: its records and what the clock decided, from what it began with.
///
/// # Errors
/// When the capture cannot be read, or belongs to another configuration.
pub fn captured(config: &Config, folder: &Path, clock: &Clock) -> Result<Outcome, Stop> {
    let capture = Captured::open(folder)?;
    let start = capture.start().clone();
    let mut config = config.clone().bounded(start.bounds);
    (config.learn.seed, config.learn.threads) = (start.seed, start.threads as usize);
    let setup = |folder: &Path| parts::setup(&config, start.partitions as usize, folder, false);
    let identity = setup(folder).identity.fingerprint();
    if identity != start.fingerprint {
        return Err(Stop::config(format!(
            "the run in {} was captured with another funnel, other fields or another model: replay it with its own configuration",
            folder.display()
        )));
    }
    let mut trainer = parts::trainer(&config)?;
    let pipeline = match capture.start_folder() {
        None => parts::pipeline(&config, start.partitions as usize),
        Some(copy) => {
            let opening = Checkpoint::open(setup(&copy), parts::rules(&config), clock)?;
            parts::restore(&config, &mut trainer, opening.parameters)?;
            let mut pipeline = opening.pipeline;
            // The capture stays as it is.
            pipeline.stop_spilling();
            pipeline
        }
    };
    run(pipeline, trainer, clock, |source| {
        for entry in capture {
            match entry? {
                // A refused record was refused in the run too; it is counted.
                Entry::Record(recorded) => drop(source.take(&recorded.record())),
                Entry::Decided(decision) => source.decide(|pipeline| decision.apply(pipeline)),
                Entry::Start(_) | Entry::End => {}
            }
        }
        Ok(())
    })
}

fn run(
    mut pipeline: Pipeline,
    mut trainer: Trainer,
    clock: &Clock,
    feed: impl FnOnce(&mut Feed<'_>) -> Result<(), Stop>,
) -> Result<Outcome, Stop> {
    let begun = clock.steady();
    let stages = clock.clone();
    pipeline.watch(Box::new(move || stages.steady()));
    let (work, batches) = bounded::<LearnBatch>(QUEUE);
    let (give_back, used) = bounded::<LearnBatch>(2 * QUEUE);
    let mut source = Feed { pipeline, work, used, clock, waiting: Duration::ZERO };
    std::thread::scope(|scope| {
        let learner =
            std::thread::Builder::new().name("learner".into()).spawn_scoped(scope, || {
                let (mut refused, mut breaches, mut busy) = (0, Vec::new(), Duration::ZERO);
                for batch in batches {
                    let begun = clock.steady();
                    let report = trainer.work(&batch);
                    refused += u64::from(report.refused);
                    busy += clock.steady() - begun;
                    if let Some(stop) = report.end() {
                        return Err(stop);
                    }
                    breaches.extend(report.breaches);
                    // When nobody takes it back, its memory is simply freed.
                    drop(give_back.try_send(batch));
                }
                Ok((trainer, refused, breaches, busy))
            });
        let learner =
            learner.map_err(|error| Stop::fault("no thread for the learner").because(error))?;
        feed(&mut source)?;
        let Feed { pipeline, work, waiting, .. } = source;
        pipeline.check()?;
        drop(work);
        let (trainer, refused_batches, breaches, learning) =
            learner.join().map_err(|_| Stop::fault("the learner panicked: this is a bug"))??;
        let elapsed = clock.steady() - begun;
        Ok(Outcome { pipeline, trainer, refused_batches, breaches, learning, elapsed, waiting })
    })
}

/// Sums up over behaviours: late ones, and orphaned ones.
pub fn late_and_orphaned(counts: &JoinCounts) -> (u64, u64) {
    let late = counts.kinds.iter().map(|kind| kind.late).sum();
    let orphaned = counts.kinds.iter().map(|kind| kind.orphaned.iter().sum::<u64>()).sum();
    (late, orphaned)
}

/// Returns the event time up to which everything due has been learned, 1970 before the first event.
pub fn learned_until(trainer: &Trainer) -> EventTime {
    trainer.covered().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluice_features::wire::Topic;

    use super::*;

    /// The checksum after 400 impressions, every third of them clicked.
    fn learned(threads: usize) -> u64 {
        let text = format!("[learn]\nbatch = 64\nthreads = {threads}\n");
        let config = Config::build(&text, &[]).unwrap();
        let start = 1_700_000_000_000_i64;
        let outcome = files(&config, &Clock::system(), |feed| {
            for k in 0..400_i64 {
                let time = start + k * 1000;
                let (user, item) = (format!("u{}", k % 17), format!("i{}", k * k % 23));
                let shown = json!({"type": "impression", "id": format!("{k}"), "ts": time,
                    "user": user, "item": item, "surface": "home"});
                let clicked = json!({"type": "click", "id": format!("click {k}"), "ts": time + 100,
                    "user": user, "item": item, "impression": format!("{k}")});
                let events = [Some(shown), Some(clicked).filter(|_| k % 3 == 0)];
                for (n, event) in (0..).zip(events.into_iter().flatten()) {
                    let value = serde_json::to_vec(&event).unwrap();
                    let record = Record {
                        topic: Topic::Events,
                        partition: 0,
                        offset: 2 * k + n,
                        arrived: EventTime(time + 1000),
                        key: Some(user.as_bytes()),
                        value: Some(&value),
                    };
                    feed.take(&record).unwrap();
                }
            }
            feed.decide(Pipeline::finish);
            Ok(())
        })
        .unwrap();
        assert!(outcome.trainer.learner().steps() > 5);
        outcome.trainer.checksum()
    }

    #[test]
    fn the_same_number_of_threads_learns_the_same_bits() {
        assert_eq!(learned(1), learned(1));
        assert_eq!(learned(2), learned(2));
        assert_ne!(learned(1), learned(2), "two slices are summed in another order");
    }

    /// Of each share on its own: the record at which there is no room, and what is said.
    #[test]
    fn a_replay_ends_where_a_bound_is_reached_that_only_reading_less_could_keep() {
        for (share, told) in [
            (Share::Open, "open impressions take "),
            (Share::State, "what is known of users and items takes "),
        ] {
            let config = Config::build("", &[]).unwrap();
            let bounds = config.memory.bounds.with(share, 200_000);
            let mut stopped = None;
            files(&config.bounded(bounds), &Clock::system(), |feed| {
                for k in 0..20_000_i64 {
                    let time = 1_700_000_000_000 + k;
                    let shown = json!({"type": "impression", "id": format!("{k}"), "ts": time,
                        "user": format!("u{k}"), "item": format!("i{}", k % 7)});
                    let value = serde_json::to_vec(&shown).unwrap();
                    let (topic, arrived) = (Topic::Events, EventTime(time));
                    let value = Some(&value[..]);
                    feed.take(&Record {
                        topic,
                        partition: 0,
                        offset: k,
                        arrived,
                        key: None,
                        value,
                    })
                    .unwrap();
                    if let Err(stop) = feed.ensure_room() {
                        stopped = Some((k, stop.to_string()));
                        break;
                    }
                }
                Ok(())
            })
            .unwrap();
            let (place, text) = stopped.unwrap();
            assert!(place > 100 && text.starts_with(told), "{place}: {text}");
            assert!(text.contains("200000") && text.contains("give "), "{text}");
        }
    }

    #[test]
    fn a_replay_that_cannot_learn_ends_with_a_fault() {
        let config = Config::build("[learn]\nbatch = 4\n", &[]).unwrap();
        let mut trainer = parts::trainer(&config).unwrap();
        trainer.spoil();
        let outcome = run(parts::pipeline(&config, 1), trainer, &Clock::system(), |feed| {
            for k in 0..2_000_i64 {
                let time = 1_700_000_000_000 + k * 60_000;
                let shown = json!({"type": "impression", "id": format!("{k}"), "ts": time,
                    "user": "u", "item": format!("i{}", k % 7)});
                let value = serde_json::to_vec(&shown).unwrap();
                let (topic, arrived) = (Topic::Events, EventTime(time));
                let value = Some(&value[..]);
                feed.take(&Record { topic, partition: 0, offset: k, arrived, key: None, value })
                    .unwrap();
            }
            feed.decide(Pipeline::finish);
            Ok(())
        });
        let stop = outcome.map(|outcome| outcome.refused_batches).unwrap_err();
        assert_eq!(stop.exit(), crate::error::Exit::Fault);
        assert!(stop.to_string().contains("100 batches were refused"), "{stop}");
    }
}
