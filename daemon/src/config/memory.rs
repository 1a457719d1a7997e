//! How much memory what grows may take: stated shares of one limit, unless a key gives a bound of its own.
//!
//! First a tenth of the limit, at least [`SET_ASIDE`], is set aside for what does not grow: queues, requests, the store's cache, dense parameters and
//! their copies, rows put aside during a checkpoint, the client library. The shares are of what is left. What happens at each bound stands in
//! the daemon's page.

use serde::{Deserialize, Serialize};

use super::units::Size;

/// The least that is set aside for what does not grow.
pub const SET_ASIDE: Size = Size::mebibytes(256);

/// The smallest limit: the shares have as much as is set aside.
pub(super) const LEAST: Size = Size::mebibytes(512);

/// What grows, by whose bound it shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// Open impressions with their predictions.
    Open,
    /// Ids of events, by which second copies are known.
    Ids,
    /// Outcomes that wait for their impression.
    Waiting,
    /// Entries of counters.
    Counters,
    /// Sequences, names, first sights, popularity, features of items and users, the index of items.
    State,
    /// Rows of the embedding tables.
    Tables,
}

impl Share {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Open, Self::Ids, Self::Waiting, Self::Counters, Self::State, Self::Tables];

    /// Returns the name in metrics and in the configuration in force.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Ids => "ids",
            Self::Waiting => "waiting",
            Self::Counters => "counters",
            Self::State => "state",
            Self::Tables => "tables",
        }
    }

    /// Returns the share in per cent.
    pub const fn percent(self) -> u64 {
        match self {
            Self::Open => 22,
            Self::Ids => 6,
            Self::Waiting => 3,
            Self::Counters => 14,
            Self::State => 33,
            Self::Tables => 22,
        }
    }
}

/// What grows, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Open impressions with their predictions.
    Open,
    /// Ids of events.
    Ids,
    /// Outcomes that wait for their impression.
    Waiting,
    /// Entries of counters.
    Counters,
    /// Behaviours of users.
    Sequences,
    /// Names of items, users and categories; first sights, standing and popularity of items.
    Names,
    /// Features of items and users.
    Catalogue,
    /// Vectors of offered items, twice: the index is made anew beside the one in use.
    Index,
    /// Rows of the embedding tables.
    Tables,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Open,
        Self::Ids,
        Self::Waiting,
        Self::Counters,
        Self::Sequences,
        Self::Names,
        Self::Catalogue,
        Self::Index,
        Self::Tables,
    ];

    /// Returns the name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sequences => "sequences",
            Self::Names => "names",
            Self::Catalogue => "catalogue",
            Self::Index => "index",
            Self::Open | Self::Ids | Self::Waiting | Self::Counters | Self::Tables => {
                self.share().name()
            }
        }
    }

    /// Returns whose bound it shares.
    pub fn share(self) -> Share {
        match self {
            Self::Open => Share::Open,
            Self::Ids => Share::Ids,
            Self::Waiting => Share::Waiting,
            Self::Counters => Share::Counters,
            Self::Sequences | Self::Names | Self::Catalogue | Self::Index => Share::State,
            Self::Tables => Share::Tables,
        }
    }
}

/// The bounds in force, in bytes. A captured run keeps them: some decide what is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// What the process may use all together.
    pub limit: u64,
    /// By [`Share`]: of all partitions together.
    most: [u64; Share::ALL.len()],
    /// Most rows of the tables of one width.
    pub rows: u64,
}

/// Bounds that keys give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// `open.max_bytes`
    pub(super) open: Option<u64>,
    /// `table.max_rows`
    pub(super) rows: Option<u64>,
}

impl Bounds {
    /// Divides a limit. A row of every table of the model takes `row_bytes`.
    pub(super) fn new(limit: u64, given: Given, row_bytes: u64) -> Self {
        let left = limit.saturating_sub(SET_ASIDE.get().max(limit / 10));
        let mut most = Share::ALL.map(|share| left / 100 * share.percent());
        let row_bytes = row_bytes.max(1);
        let rows = given.rows.unwrap_or(most[Share::Tables as usize] / row_bytes);
        let rows = rows.clamp(super::validate::ROWS.0, super::validate::ROWS.1);
        most[Share::Tables as usize] = rows * row_bytes;
        if let Some(open) = given.open {
            most[Share::Open as usize] = open;
        }
        Self { limit, most, rows }
    }

    /// Returns the most bytes of what shares a bound.
    pub fn of(&self, share: Share) -> u64 {
        self.most[share as usize]
    }

    /// The same with another bound, for tests of what happens at it.
    #[cfg(test)]
    pub(crate) fn with(mut self, share: Share, most: u64) -> Self {
        self.most[share as usize] = most;
        self
    }
}

/// The memory of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The bounds in force.
    pub bounds: Bounds,
    /// Of what the limit was made, in words.
    pub(super) made_of: String,
    /// The limit is more than what the process may use here.
    pub(super) too_much: bool,
}

impl Memory {
    /// Says in the log what the limit is.
    pub fn tell(&self) {
        let (limit, made_of) = (self.bounds.limit, &self.made_of);
        if self.too_much {
            tracing::warn!(limit, made_of, "memory.limit is more than this process may use");
        } else {
            tracing::info!(limit, made_of, "what grows has its share of memory.limit");
        }
    }

    /// Returns limit and bounds in words, a line each.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let shown = |bytes: u64| Size::bytes(bytes >> 20 << 20).to_string();
        let limit = format!("memory.limit = {}: {}", shown(self.bounds.limit), self.made_of);
        let shares = Share::ALL.into_iter().map(move |share| {
            let rows = match share {
                Share::Tables => format!(" ({} rows of a width)", self.bounds.rows),
                _ => String::new(),
            };
            format!("  {} {}{rows}", share.name(), shown(self.bounds.of(share)))
        });
        std::iter::once(limit).chain(shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_all_that_is_not_set_aside() {
        assert_eq!(Share::ALL.iter().map(|share| share.percent()).sum::<u64>(), 100);
        for (place, share) in Share::ALL.into_iter().enumerate() {
            assert_eq!(share as usize, place);
        }
        for gibibytes in [1, 4, 64, 1 << 14] {
            let limit = gibibytes << 30;
            let bounds = Bounds::new(limit, Given::default(), 319);
            let sum: u64 = Share::ALL.iter().map(|share| bounds.of(*share)).sum();
            let left = limit - SET_ASIDE.get().max(limit / 10);
            assert!(sum <= left && sum >= left / 100 * 77, "{sum} of {left}");
            assert!(bounds.rows * 319 <= bounds.of(Share::Tables));
        }
        assert_eq!(Bounds::new(4 << 30, Given::default(), 319).rows, 2_665_841);
    }

    #[test]
    fn what_is_given_stands_and_leaves_the_other_shares_alone() {
        let shares = Bounds::new(4 << 30, Given::default(), 100);
        let given = Given { open: Some(7 << 30), rows: Some(5_000) };
        let bounds = Bounds::new(4 << 30, given, 100);
        assert_eq!((bounds.of(Share::Open), bounds.rows), (7 << 30, 5_000));
        assert_eq!(bounds.of(Share::Tables), 500_000);
        for share in [Share::Ids, Share::Waiting, Share::Counters, Share::State] {
            assert_eq!(bounds.of(share), shares.of(share));
        }
    }

    #[test]
    fn the_page_has_every_part_with_its_share() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let page = std::fs::read_to_string(page).unwrap();
        let mut told = Vec::new();
        for part in Part::ALL {
            let (name, share) = (part.name(), part.share());
            let first = if told.contains(&share) {
                format!("| `{name}` | `{}`", share.name())
            } else {
                format!("| `{name}` | `{}` {} %", share.name(), share.percent())
            };
            told.push(share);
            assert_eq!(page.matches(&first).count(), 1, "{first}");
        }
        let set_aside = format!("at least {} MiB, is set aside", SET_ASIDE.get() >> 20);
        assert!(page.contains(&set_aside), "{set_aside}");
    }

    #[test]
    fn the_smallest_limit_leaves_something_for_everything() {
        let bounds = Bounds::new(LEAST.get(), Given::default(), 600);
        assert!(Share::ALL.iter().all(|share| bounds.of(*share) >= 7 << 20), "{bounds:?}");
        assert!(bounds.rows >= 98_000, "{bounds:?}");
    }
}
