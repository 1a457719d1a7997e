//! `sluice demo`: sluice at work, without anything beside this process.
//!
//! ```text
//! simulated shop ──► embedded broker ──► daemon: joins, predicts, judges, learns, answers
//!       └── truth ──────────── beside ──────────┘
//! ```
//!
//! The shop's days pass in seconds, so that windows of days close while one looks on. Its figures stand beside those of its own truth,
//! which nothing can beat, and of the items' popularity, which is what a shop without a model has.

pub(crate) mod feed;
mod figures;
pub(crate) mod inside;
mod questions;
mod screen;

use std::io::{Write, stdout};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice_daemon::kafka::EmbeddedBroker;
use sluice_daemon::shutdown::Shutdown;

use crate::simulate::{Shop, ShopConfig, TASKS};
use feed::Feed;
use figures::{Figures, Meter, TABLE_HEADER, count};
use inside::Inside;
use questions::Answered;
use screen::Screen;

/// The daemon's configuration, without what differs from run to run.
pub(crate) const CONFIGURATION: &str = include_str!("demo/demo.toml");
/// A day of the shop takes so many seconds at the full rate.
const DAY: f64 = 5.0;
/// What is not taken so long after the shop has closed is lost.
const CATCH_UP: Duration = Duration::from_secs(60);
const MILLIS_A_DAY: i64 = 86_400_000;
/// The earliest event time that is accepted is 1990; a day after it.
const EARLIEST: i64 = 631_152_000_000 + MILLIS_A_DAY;

/// How long, and how much.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: sluice demo --seconds 120 --rate 1000")]
pub struct Arguments {
    /// Goes on until Ctrl-C
    #[arg(long, conflicts_with = "seconds")]
    forever: bool,
    /// How long the shop is open, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Impressions a second, at most: the shop waits where the daemon cannot keep up
    #[arg(long, default_value_t = 2_500.0, value_parser = parse_rate)]
    rate: f64,
    /// Another seed, another shop
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the subcommand.
///
/// # Errors
/// When a part fails, an event is lost, or a question gets no answer.
pub fn run(arguments: &Arguments) -> Result<()> {
    let limit = (!arguments.forever).then(|| Duration::from_secs(arguments.seconds));
    let shop = shop(arguments, limit);
    let outcome = show(Shop::new(shop.clone(), arguments.seed)?, &shop, arguments.rate, limit)?;
    stdout().lock().write_all(outcome.text().as_bytes())?;
    Ok(())
}

/// Returns a shop whose days pass in seconds: small, so that a user comes about once a day.
fn shop(arguments: &Arguments, limit: Option<Duration>) -> ShopConfig {
    // A shop that closes opened so long ago that it ends before now; one that does not, as long ago as can be.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let start = limit.map_or(EARLIEST, |limit| {
        let days = (limit.as_secs_f64() / DAY).ceil() as i64 + 1;
        (now / MILLIS_A_DAY - days) * MILLIS_A_DAY
    });
    ShopConfig {
        users: 250,
        items: 400,
        categories: 20,
        impressions: u64::MAX,
        per_day: arguments.rate * DAY,
        start: start.max(EARLIEST),
        ..ShopConfig::default()
    }
}

/// How a demonstration went.
struct Outcome {
    figures: Figures,
    status: Value,
    sent: u64,
    answers: Vec<Answered>,
}

fn show(shop: Shop, config: &ShopConfig, rate: f64, limit: Option<Duration>) -> Result<Outcome> {
    let ctrl_c = Shutdown::new();
    let mut daemon = Inside::start(CONFIGURATION, &[], &ctrl_c)?;
    introduce(&daemon, config, limit)?;
    let mut screen = Screen::open();
    let feed = Feed::start(shop, rate, &daemon)?;
    let (mut meter, begun) = (Meter::new(config.start), Instant::now());
    loop {
        let left = limit.map_or(Duration::MAX, |limit| limit.saturating_sub(begun.elapsed()));
        let asked = ctrl_c.wait(screen.round().min(left));
        daemon.check()?;
        screen.show(&meter.measure(&daemon.shared, &feed), limit)?;
        if asked || feed.has_ended() || left <= screen.round() {
            break;
        }
    }
    let page = feed.page();
    let mut figures = meter.measure(&daemon.shared, &feed);
    screen.close();
    let sent = feed.stop()?;
    daemon.catch_up(sent, CATCH_UP)?;
    let answers = questions::ask(&daemon, &page).context("the questions at the end")?;
    let status = daemon.shared.status();
    figures.elapsed = begun.elapsed();
    daemon.stop()?;
    let taken = ["events", "items", "users"].map(|name| count(&status["records"], name));
    let taken = taken.iter().sum::<u64>() + count(&status, "rejected");
    ensure!(
        taken == sent,
        "{sent} records were sent and {taken} taken: the embedded broker keeps {} records a partition",
        EmbeddedBroker::RETENTION_RECORDS
    );
    Ok(Outcome { figures, status, sent, answers })
}

fn introduce(daemon: &Inside, config: &ShopConfig, limit: Option<Duration>) -> Result<()> {
    let ends = limit.map_or("until Ctrl-C is pressed".to_owned(), |limit| {
        format!("for {} s; Ctrl-C ends it sooner", limit.as_secs())
    });
    let mut out = stdout().lock();
    write!(
        out,
        "sluice demo: a shop, a Kafka broker and the daemon in one process,\n\
         {ends}\n\n\
         shop     {} users, {} items; one of its days takes {DAY} s\n\
         broker   {}, librdkafka's mock cluster, real protocol.\n\
         \x20        It has NO DURABILITY: all in memory, gone at the end.\n\
         pages    http://{}/status, /metrics, /ready\n\
         state    {}, removed at the end\n\n\
         The truth's AUC is the best there can be, its calibration is 1.\n\n",
        config.users,
        config.items,
        daemon.connection.brokers,
        daemon.address,
        daemon.folder().display(),
    )?;
    Ok(out.flush()?)
}

impl Outcome {
    /// Returns the answers and the summary, in at most 80 columns.
    fn text(&self) -> String {
        let mut text = String::from("\nQuestions, asked and answered over Kafka:\n");
        for Answered { question, answer, took } in &self.answers {
            let took = took.as_secs_f64() * 1000.0;
            text.push_str(&format!("\n{question}\n{answer}there and back in {took:.0} ms\n"));
        }
        let count = |name| count(&self.status, name);
        text.push_str(&format!(
            "\nIn {:.0} s: {} records sent, all taken: {} events, {} rejected,\n\
             {} examples learned in {} steps, {} late, {} orphaned; {} questions answered.\n\n\
             {TABLE_HEADER}\n{}\n",
            self.figures.elapsed.as_secs_f64(),
            self.sent,
            count("events"),
            count("rejected"),
            count("examples"),
            count("steps"),
            count("late"),
            count("orphaned"),
            self.answers.len(),
            self.figures.rows(),
        ));
        for (name, task) in TASKS.iter().zip(&self.figures.tasks) {
            if let Some(closed) = task.closed() {
                text.push_str(&format!(
                    "{name}: {:.0} % of the way from item popularity to the truth, beginnings included\n",
                    closed * 100.0
                ));
            }
        }
        text.push_str("The daemon has stopped in order, and its state is removed.\n");
        text
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 1.0 => Ok(rate),
        _ => Err(format!("expected at least 1 impression a second, found {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_demonstration_learns_answers_and_ends() {
        let arguments = Arguments { forever: false, seconds: 5, rate: 300.0, seed: 1 };
        let limit = Some(Duration::from_secs(arguments.seconds));
        // Short days, so that windows close within the test.
        let config =
            ShopConfig { users: 20, items: 400, per_day: 150.0, ..shop(&arguments, limit) };
        let config = ShopConfig { start: config.start - 30 * MILLIS_A_DAY, ..config };
        let shop = Shop::new(config.clone(), arguments.seed).unwrap();
        let outcome = show(shop, &config, arguments.rate, limit).unwrap();
        assert!(count(&outcome.status, "examples") > 0);
        assert!(count(&outcome.status, "steps") > 0);
        assert_eq!(count(&outcome.status, "rejected"), 0);
        let click = outcome.figures.tasks[0];
        assert!(click.judged > 0, "{click:?}");
        assert!(click.auc.is_some() && click.truth.is_some() && click.calibration.is_some());
        assert_eq!(outcome.answers.len(), 3);
        let text = outcome.text();
        assert!(text.contains("learned until"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        }
    }

    #[test]
    fn a_shop_that_closes_does_not_reach_the_present() {
        let arguments = Arguments { forever: false, seconds: 60, rate: 1_500.0, seed: 1 };
        let config = shop(&arguments, Some(Duration::from_secs(60)));
        let days = 60.0 / DAY;
        let end = config.start + (days * MILLIS_A_DAY as f64) as i64;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        assert!(end < now && now - end < 3 * MILLIS_A_DAY);
        assert_eq!(shop(&arguments, None).start, EARLIEST);
    }
}
