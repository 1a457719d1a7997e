//! Group `pipeline`: a simulated shop's records as JSON through decoding, looking up, joining, remembering and assembling, on one core,
//! without learning.
//!
//! The stream is long enough that as many impressions close as open; its last third is measured. Allocations are counted by the
//! allocator of the crate `allocation-counter`, which this program has and the daemon has not.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sluice_daemon::config::Config;
use sluice_daemon::parts;
use sluice_daemon::pipeline::Pipeline;
use sluice_daemon::pipeline::stages::Stage;
use sluice_features::wire::Topic;

use super::report::{Report, Row, Target};
use super::stream::{Stream, play, take};
use crate::simulate::{Shop, ShopConfig};

const GROUP: &str = "pipeline";
const IMPRESSIONS: u64 = 450_000;
/// Twelve days: the longest window of the default configuration is seven.
const PER_DAY: f64 = 37_500.0;
/// Runs of which the best counts.
const RUNS: usize = 3;
const TARGET: f64 = 300_000.0;
/// Working memory is used again; what remains is a table that becomes smaller now and then.
const WORKING: f64 = 0.001;
/// The configurations, by what reports call them.
const CONFIGS: [(&str, &str); 2] =
    [("default", ""), ("simulator.toml", include_str!("../../datasets/simulator.toml"))];

/// Measures the group.
///
/// # Errors
/// When the shop cannot be, a record of its is refused, or allocations are not counted.
pub(super) fn measure(report: &mut Report) -> Result<()> {
    let stream = shop(IMPRESSIONS, PER_DAY)?;
    for (name, text) in CONFIGS {
        let config = Config::build(text, &[])?;
        let mut best: Option<(f64, Pipeline)> = None;
        for _ in 0..RUNS {
            let (rate, pipeline) = run(&config, &stream)?;
            if best.as_ref().is_none_or(|(known, _)| rate > *known) {
                best = Some((rate, pipeline));
            }
        }
        if let Some((rate, pipeline)) = best {
            let row = Row::new(GROUP, format!("{name}, one core"), rate, "events/s");
            report.push(row.target(Target::AtLeast(TARGET)));
            let spent = pipeline.stages().spent();
            let all: Duration = spent.iter().sum();
            for ((_, stage), spent) in Stage::ALL.iter().zip(spent) {
                let share = 100.0 * spent.as_secs_f64() / all.as_secs_f64().max(1e-12);
                report.push(Row::new(GROUP, format!("{name}, {stage}"), share, "% of the time"));
            }
        }
        let Allocations { working, growing } = count(&config, &stream)?;
        let row = Row::new(GROUP, format!("{name}, working memory"), working, "allocations/event");
        report.push(row.target(Target::AtMost(WORKING)));
        let what = format!("{name}, growth of the state");
        report.push(Row::new(GROUP, what, growing, "allocations/event"));
    }
    Ok(())
}

fn shop(impressions: u64, per_day: f64) -> Result<Stream> {
    let config = ShopConfig { impressions, per_day, ..ShopConfig::default() };
    let mut stream = Stream::default();
    let mut open = 0;
    for record in Shop::new(config, 1)? {
        stream.push(record.topic, |text| text.push_str(&record.message));
        if record.truth.is_some() {
            open = stream.len();
        }
    }
    // What comes after the last impression is a shop that closes.
    stream.truncate(open);
    Ok(stream)
}

/// Returns where what is measured begins.
fn warm(stream: &Stream) -> usize {
    stream.len() / 3 * 2
}

/// Returns the records a second of the last third, and the pipeline that has measured its stages in it.
fn run(config: &Config, stream: &Stream) -> Result<(f64, Pipeline)> {
    let mut pipeline = parts::pipeline(config, 1);
    let warm = warm(stream);
    let (_, refused) = play(&mut pipeline, stream.records(0..warm, 0));
    ensure!(refused == 0, "expected valid records of the shop, found {refused} refused: a bug");
    let start = Instant::now();
    pipeline.watch(Box::new(move || start.elapsed()));
    let (time, _) = play(&mut pipeline, stream.records(warm..stream.len(), warm));
    Ok(((stream.len() - warm) as f64 / time.as_secs_f64(), pipeline))
}

/// Allocations by records, for each event of the last third.
struct Allocations {
    /// By records after which no more memory is in use than before: what a steady state does.
    working: f64,
    /// By records after which more is in use: new names, longer sequences, larger tables.
    growing: f64,
}

fn count(config: &Config, stream: &Stream) -> Result<Allocations> {
    let proof = allocation_counter::measure(|| drop(black_box(vec![0u8; 64])));
    ensure!(proof.count_total > 0, "allocations are not counted: another allocator is in force");
    let mut pipeline = parts::pipeline(config, 1);
    let warm = warm(stream);
    play(&mut pipeline, stream.records(0..warm, 0));
    let (mut working, mut growing) = (0, 0);
    for record in stream.records(warm..stream.len(), warm) {
        let used = allocation_counter::measure(|| {
            black_box(take(&mut pipeline, &record));
        });
        // What an update says is kept, or is what was known: either way it was copied.
        if used.bytes_current > 0 || record.topic != Topic::Events {
            growing += used.count_total;
        } else {
            working += used.count_total;
        }
    }
    let events = (stream.len() - warm) as f64;
    Ok(Allocations { working: working as f64 / events, growing: growing as f64 / events })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_daemon::config::Part;

    #[test]
    fn what_the_state_is_said_to_take_is_what_is_allocated() {
        let stream = shop(40_000, 2_000.0).unwrap();
        let config = Config::build("", &[]).unwrap();
        let mut pipeline = parts::pipeline(&config, 1);
        // The index of items is the publisher's.
        let said = |pipeline: &Pipeline| {
            let memory = pipeline.memory();
            memory.iter().sum::<u64>() - memory[Part::Index as usize]
        };
        let before = said(&pipeline);
        let used = allocation_counter::measure(|| {
            play(&mut pipeline, stream.records(0..stream.len(), 0));
        });
        let (said, used) = ((said(&pipeline) - before) as f64, used.bytes_current as f64);
        // What an allocator adds is not in what is counted here, and some of what is said is what it takes at most.
        let memory = pipeline.memory();
        assert!((0.95..1.4).contains(&(said / used)), "{said} said, {used} used: {memory:?}");
    }

    #[test]
    fn a_record_that_leaves_no_more_memory_in_use_allocates_next_to_nothing() {
        let stream = shop(12_000, 1_000.0).unwrap();
        for (name, text) in CONFIGS {
            let config = Config::build(text, &[]).unwrap();
            let Allocations { working, growing } = count(&config, &stream).unwrap();
            // The stream is short: a table that becomes smaller here and there is some thousandths of it, by the seeds of the maps.
            assert!(working < 1.0 / 128.0, "{name}: {working} allocations an event");
            assert!(growing < 1.0, "{name}: {growing} allocations an event");
        }
    }
}
