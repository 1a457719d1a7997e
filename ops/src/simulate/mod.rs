//! `sluice simulate`: a shop with planted truth.
//!
//! Users with drifting tastes visit, see pages of items that a plausible policy chose, click, fill
//! carts and buy, by probabilities that are known ([`truth`](self)) and after delays. The stream is what
//! a real shop would log; the truth of each impression can be written beside it, so that what is learned
//! can be compared with what is true. The same configuration and seed give the same bytes.

mod bounds;
mod config;
mod delay;
mod item;
mod judge;
mod policy;
mod record;
mod shelf;
mod shop;
mod truth;
mod user;

use std::io::Write;
use std::iter;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::files::{self, Output, Stopped};
use sluice_daemon::say::note;
use sluice_daemon::shutdown::Shutdown;

pub use bounds::{Bounds, bounds};
pub use config::ShopConfig;
pub use judge::{Judge, TaskTruth};
pub use record::{Record, Truth};
pub use shop::{Shop, TASKS};
pub use truth::Probabilities;

/// Which shop, and where to write its records.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Another seed, another shop
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    shop: ShopConfig,
    /// The file to write the records to (`.gz` and `.zst` compress) instead of standard output
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// The file to write each impression's true probabilities to
    #[arg(long)]
    truth: Option<PathBuf>,
    /// Records a second, instead of as fast as possible
    #[arg(long)]
    rate: Option<f64>,
}

/// Runs the shop, writes its records, and reports its figures on standard error.
///
/// # Errors
/// When there can be no such shop, or its records cannot be written.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(rate) = arguments.rate {
        ensure!(rate.is_finite() && rate > 0.0, "rate: expected more than 0, found {rate}");
    }
    let shop = Shop::new(arguments.shop.clone(), arguments.seed)?;
    let (output, truth) = (arguments.output.as_deref(), arguments.truth.as_deref());
    if let Some(truth) = truth {
        files::ensure_apart(Some(truth), iter::empty(), &[output.unwrap_or(Path::new("-"))])?;
    }
    let stop = Shutdown::new();
    files::stop_clean(&[output, truth], &stop)?;
    let output = Output::create(output)?;
    let truth = truth.map(|path| Output::create(Some(path))).transpose()?;
    let mut judge = Judge::new(arguments.shop.impressions / 2);
    let ended = write(shop, arguments.rate, &stop, &mut judge, output, truth);
    note(&judge.to_string());
    ended
}

fn write(
    shop: Shop,
    rate: Option<f64>,
    stop: &Shutdown,
    judge: &mut Judge,
    mut output: Output,
    mut truth: Option<Output>,
) -> Result<()> {
    let begun = Instant::now();
    for (written, record) in shop.enumerate() {
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(written as f64 / rate);
            let early = due.saturating_sub(begun.elapsed());
            if !early.is_zero() {
                output.flush().context("output")?;
                stop.wait(early);
            }
        }
        ensure!(!stop.is_requested(), Stopped(format!("behind record {written}")));
        judge.take(&record);
        record.write(&mut output).context("output")?;
        if let (Some(out), Some(line)) = (&mut truth, &record.truth) {
            serde_json::to_writer(&mut *out, line).context("truth")?;
            out.write_all(b"\n").context("truth")?;
        }
    }
    // Both are whole before the first is in its place.
    let output = output.close().context("output")?;
    let truth = truth.map(Output::close).transpose().context("truth")?;
    output.publish().context("output")?;
    truth.map_or(Ok(()), |truth| truth.publish().context("truth"))
}

#[cfg(test)]
mod tests;
