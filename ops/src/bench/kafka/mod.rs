//! Group `kafka`: the daemon from end to end, on a broker inside this process or on given ones.
//!
//! A simulated shop feeds a daemon with the default model. Events are stamped with the time at which they were due; requests leave when
//! they are due, whether or not answers have come, and their clocks start then: waiting counts. Beside the requests, half an interval
//! later, the same bytes go to a scratch topic, from which a thread of this process sends as many bytes as an answer has. Both ways use
//! the same client code, so what lies between them is the daemon's.
//!
//! Everything runs on the cores of this machine: broker, shop and asker take theirs beside the daemon.

mod ceiling;
mod freshness;
mod load;
mod requests;
mod site;
mod times;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sluice_daemon::shutdown::Shutdown;

use super::askers::CANDIDATES;
use super::limits::Limits;
use super::report::{Report, Row, Target};
use load::Load;
use site::Site;

const GROUP: &str = "kafka";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long events are taken as fast as the daemon can, and how long before that counts.
const SUSTAINED: Duration = Duration::from_secs(8);
const WARM_UP: Duration = Duration::from_secs(3);
/// Events a second while freshness is measured, and seconds that the slowest hundredth may take.
const FRESH_RATE: f64 = 10_000.0;
const FRESH: f64 = 1.0;
/// Requests a second, and events a second that are learned meanwhile.
const REQUEST_RATE: u32 = 100;
const LEARNING_RATE: f64 = 2_000.0;
/// Requests a second of the run without learning.
const QUIET_RATE: u32 = 20;
/// Milliseconds that the slowest answers may take beyond the slowest echoes.
const BEYOND_ECHO: f64 = 10.0;

/// Measures the group.
///
/// # Errors
/// When Kafka or the daemon does not answer, or an answer is an error.
pub(super) fn measure(brokers: Option<&str>, limits: &Limits, report: &mut Report) -> Result<()> {
    let ctrl_c = Shutdown::new();
    let mut site = Site::open(brokers, ctrl_c)?;
    let measured = phases(&mut site, limits, report);
    let closed = site.close();
    measured.and(closed)
}

fn phases(site: &mut Site, limits: &Limits, report: &mut Report) -> Result<()> {
    site.introduce_askers()?;
    sustained(site, report)?;
    fresh(site, report)?;
    asked(site, report, QUIET_RATE, None)?;
    asked(site, report, REQUEST_RATE, Some(LEARNING_RATE))?;
    ceiling::measure(site, limits, report)
}

/// Events a second, as fast as the daemon takes them.
fn sustained(site: &mut Site, report: &mut Report) -> Result<()> {
    let load = Load::start(site, None)?;
    site.pause(WARM_UP)?;
    let (begun, before) = (Instant::now(), site.records());
    site.pause(SUSTAINED)?;
    let taken = (site.records() - before) as f64 / begun.elapsed().as_secs_f64();
    load.stop(site)?;
    report.push(Row::new(GROUP, "events sustained, learning on", taken, "1/s"));
    Ok(())
}

fn fresh(site: &mut Site, report: &mut Report) -> Result<()> {
    let load = Load::start(site, Some(FRESH_RATE))?;
    let measured = freshness::measure(site);
    let late = load.stop(site)?;
    let times = measured?;
    for (what, share) in [("p50", 0.5), ("p99", 0.99)] {
        let name = format!("freshness at {FRESH_RATE} events/s, produced to answer: {what}");
        let mut row = Row::new(GROUP, name, times.at(share) / 1000.0, "s");
        if share > 0.9 {
            row = row.target(Target::AtMost(FRESH));
        }
        if late.seconds > FRESH {
            let taken = late.rate;
            row.note =
                Some(format!("the daemon took only {taken:.0} events/s: they waited for it"));
        }
        report.push(row);
    }
    Ok(())
}

/// Requests at a fixed rate beside their echo, with or without learning.
fn asked(site: &mut Site, report: &mut Report, rate: u32, learning: Option<f64>) -> Result<()> {
    let load = learning.map(|events| Load::start(site, Some(events))).transpose()?;
    let asked = requests::measure(site, rate);
    if let Some(load) = load {
        let late = load.stop(site)?;
        ensure!(
            late.seconds < PATIENCE.as_secs_f64(),
            "expected {LEARNING_RATE} events/s to be taken meanwhile, found {:.0}",
            late.rate
        );
    }
    let asked = asked?;
    let doing = match learning {
        Some(events) => format!("learning {events} events/s"),
        None => "no learning".to_owned(),
    };
    let name =
        |what: &str| format!("rank of {CANDIDATES}, history 50 + 50, {rate}/s, {doing}: {what}");
    for (what, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let (answer, echo) = (asked.answers.at(share), asked.echoes.at(share));
        let mut row = Row::new(GROUP, name(what), answer, "ms").limit(echo);
        if what == "p99" && learning.is_some() {
            row = row.target(Target::AtMost(echo + BEYOND_ECHO));
        }
        report.push(row);
    }
    for (what, share) in [("in the daemon, p50", 0.5), ("in the daemon, p99", 0.99)] {
        report.push(Row::new(GROUP, name(what), asked.inside.at(share), "ms"));
    }
    Ok(())
}
