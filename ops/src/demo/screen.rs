//! Where the live figures go: a table that is drawn anew each second on a terminal, a line every five seconds elsewhere.
//!
//! No colours are used, so `NO_COLOR` has nothing to switch off.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::figures::{Figures, LINE_HEADER};

/// After so many lines the names of the columns are repeated.
const LINES: u32 = 24;

/// A terminal, or something that keeps lines.
pub(super) enum Screen {
    /// The table is drawn in place.
    Terminal(ProgressBar),
    /// Lines are printed; so many were.
    Lines(u32),
}

impl Screen {
    /// Looks at standard output.
    pub(super) fn open() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if dumb || !stdout().is_terminal() {
            return Self::Lines(0);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
        let style = ProgressStyle::with_template("{msg}");
        Self::Terminal(style.map_or(bar.clone(), |style| bar.with_style(style)))
    }

    /// Returns how long to wait between two rounds.
    pub(super) fn round(&self) -> Duration {
        match self {
            Self::Terminal(_) => Duration::from_secs(1),
            Self::Lines(_) => Duration::from_secs(5),
        }
    }

    /// Shows the figures of this moment.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn show(&mut self, figures: &Figures, limit: Option<Duration>) -> Result<()> {
        match self {
            Self::Terminal(bar) => {
                bar.set_message(figures.table(limit));
                bar.tick();
            }
            Self::Lines(printed) => {
                let mut out = stdout().lock();
                if printed.is_multiple_of(LINES) {
                    writeln!(out, "{LINE_HEADER}")?;
                }
                *printed = printed.wrapping_add(1);
                writeln!(out, "{}", figures.line())?;
                out.flush()?;
            }
        }
        Ok(())
    }

    /// Removes the table, so that the closing words can follow.
    pub(super) fn close(self) {
        if let Self::Terminal(bar) = self {
            bar.finish_and_clear();
        }
    }
}
