//! The size of a shop, its pace, and what goes wrong in it.
//!
//! The default shop is the one that models are judged on. It was fixed before any model was tuned.

use anyhow::{Result, ensure};
use clap::Args;

/// A page shows so many items.
pub(super) const PAGE: usize = 10;
/// Every category has at least so many items, or a page of one category could not be filled.
const MIN_PER_CATEGORY: usize = 2 * PAGE;

/// Everything about a shop that can be chosen.
#[derive(Clone, Debug, Args)]
pub struct ShopConfig {
    /// Users
    #[arg(long, default_value_t = 2_000)]
    pub users: usize,
    /// Items on offer at any time
    #[arg(long, default_value_t = 2_000)]
    pub items: usize,
    /// Categories of items
    #[arg(long, default_value_t = 40)]
    pub categories: usize,
    /// Impressions after which the shop closes
    #[arg(long, default_value_t = 2_000_000)]
    pub impressions: u64,
    /// Impressions a day of event time
    #[arg(long, default_value_t = 142_857.0)]
    pub per_day: f64,
    /// Event time at which the shop opens, milliseconds since 1970
    #[arg(long, default_value_t = 1_704_067_200_000)]
    pub start: i64,
    /// Share of the items replaced by new ones each day
    #[arg(long, default_value_t = 0.02)]
    pub turnover: f64,
    /// Share of events that are sent twice
    #[arg(long, default_value_t = 0.0)]
    pub duplicates: f64,
    /// Share of sessions that are those of bots, which click on nearly everything
    #[arg(long, default_value_t = 0.0)]
    pub bots: f64,
    /// Malformed records sent for each good event
    #[arg(long, default_value_t = 0.0)]
    pub malformed: f64,
}

impl Default for ShopConfig {
    fn default() -> Self {
        Self {
            users: 2_000,
            items: 2_000,
            categories: 40,
            impressions: 2_000_000,
            per_day: 142_857.0,
            start: 1_704_067_200_000,
            turnover: 0.02,
            duplicates: 0.0,
            bots: 0.0,
            malformed: 0.0,
        }
    }
}

impl ShopConfig {
    /// Checks that such a shop can be.
    ///
    /// # Errors
    /// Names the first value that cannot be, and what it must be.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.users > 0, "users: expected at least 1, found 0");
        ensure!(self.categories > 0, "categories: expected at least 1, found 0");
        let least = self.categories.saturating_mul(MIN_PER_CATEGORY);
        ensure!(
            self.items >= least,
            "items: expected at least {MIN_PER_CATEGORY} for each of {} categories ({least}), found {}",
            self.categories,
            self.items
        );
        ensure!(
            self.per_day.is_finite() && self.per_day >= 1.0,
            "per-day: expected at least 1 impression a day, found {}",
            self.per_day
        );
        let year_1990 = 631_152_000_000;
        ensure!(
            (year_1990..=i64::MAX / 2).contains(&self.start),
            "start: expected milliseconds since 1970 from 1990 on, found {}",
            self.start
        );
        for (name, share) in [
            ("turnover", self.turnover),
            ("duplicates", self.duplicates),
            ("bots", self.bots),
            ("malformed", self.malformed),
        ] {
            ensure!((0.0..=1.0).contains(&share), "{name}: expected 0 to 1, found {share}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        config: ShopConfig,
    }

    #[test]
    fn the_command_line_has_the_defaults_of_the_library() {
        let line = Line::parse_from(["x"]);
        assert_eq!(format!("{:?}", line.config), format!("{:?}", ShopConfig::default()));
    }

    #[test]
    fn a_shop_that_cannot_be_is_refused() {
        let standard = ShopConfig::default;
        standard().check().unwrap();
        for wrong in [
            ShopConfig { users: 0, ..standard() },
            ShopConfig { items: 799, ..standard() },
            ShopConfig { per_day: f64::NAN, ..standard() },
            ShopConfig { bots: 1.5, ..standard() },
            ShopConfig { start: 0, ..standard() },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
