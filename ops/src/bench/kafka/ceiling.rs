//! The highest request rate that the scorer holds, without learning: some requests are always on their way.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sluice_daemon::kafka::{Outgoing, Producer, ProducerSettings, Reader, Start};

use super::requests::warm_up;
use super::site::Site;
use super::{GROUP, PATIENCE};
use crate::bench::askers::{CANDIDATES, request};
use crate::bench::limits::Limits;
use crate::bench::report::{Report, Row, Target};
use crate::bench::scoring::operations_of_an_answer;
use crate::query::{fresh_id, readable};

/// Requests on their way: the scorer never waits for one, and none waits for long.
const WINDOW: usize = 8;
/// How long answers come before they count, and while they do.
const BEFORE: Duration = Duration::from_secs(1);
const LENGTH: Duration = Duration::from_secs(6);

/// Share of what the peak of one thread allows that the scorer should hold, in percent.
const SHARE: f64 = 50.0;

/// Measures the rate, beside what the FMA peak of one thread would allow for the operations of an answer with what its candidates share
/// counted once.
///
/// # Errors
/// When an answer is missing or an error.
pub(super) fn measure(site: &mut Site, limits: &Limits, report: &mut Report) -> Result<()> {
    let most = limits.peak[0] * 1e9 / operations_of_an_answer()? as f64;
    warm_up(site)?;
    let rate = rate(site)?;
    let name = format!("rank of {CANDIDATES}, history 50 + 50, highest rate without learning");
    report.push(Row::new(GROUP, &*name, rate, "1/s").limit(most));
    let share =
        Row::new(GROUP, format!("{name}, share of what the peak allows"), 100.0 * rate / most, "%");
    report.push(share.limit(100.0).target(Target::AtLeast(SHARE)));
    Ok(())
}

/// Answers a second.
fn rate(site: &mut Site) -> Result<f64> {
    let producer = Producer::open(&ProducerSettings::for_responses(site.connection()))?;
    let (requests, responses) = (site.topic("requests"), site.topic("responses"));
    let mut answers = Reader::open(&site.connection(), &responses, Start::End, PATIENCE)?;
    let (run, mut number) = (fresh_id(), 0);
    let mut send = || -> Result<()> {
        let id = format!("{run}-{number}");
        let (user, text) = request(&id, number, PATIENCE)?;
        let (key, value) = (Some(user.as_bytes()), Some(text.as_bytes()));
        number += 1;
        let record = Outgoing { topic: &requests, key, value, headers: &[] };
        Ok(producer.send(&record, PATIENCE)?)
    };
    for _ in 0..WINDOW {
        send()?;
    }
    let (begun, mut counted) = (Instant::now(), 0_u32);
    while begun.elapsed() < BEFORE + LENGTH {
        let record = answers.next(PATIENCE)?.context("an answer did not come")?;
        let key = record.key.unwrap_or_default();
        if !key.starts_with(run.as_bytes()) {
            continue;
        }
        readable(&String::from_utf8(record.value.unwrap_or_default())?)?;
        counted += u32::from(begun.elapsed() >= BEFORE);
        send()?;
    }
    let seconds = (begun.elapsed() - BEFORE).as_secs_f64();
    site.pause(Duration::from_millis(500))?;
    Ok(f64::from(counted) / seconds)
}
