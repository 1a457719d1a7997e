//! Publishing what was learned: vectors of items and users, refreshed top lists; and keeping the retrieval index.
//!
//! ```text
//! every interval:  what has changed ──> vectors by the frozen towers ──> index, embeddings
//!                  users with new behaviour ──> waiting ──budget──> top lists
//! every refresh:   the newest towers ──> vectors of all items ──> a new index
//! ```
//!
//! Index and user tower change as one version: the towers stay frozen between two refreshes, while the rows below them go on being
//! learned. Refreshes are counted in steps of the towers and come early at first (`next_refresh`): the first index is one of towers that
//! have learned nothing. In the index are the items that the catalogue offers ([`sluice_features::catalogue::Catalogue::is_offered`]). A vector whose row has expired is taken back by a tombstone. Nothing is published while the guard is not sound; what has
//! changed meanwhile is published afterwards.

mod budget;
mod lists;
mod outlet;
mod vectors;
mod waiting;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use sluice_features::catalogue::Found;
use sluice_features::ids::{ItemId, UserId};
use sluice_features::time::EventTime;
use sluice_models::retrieval::Touched;

use crate::config;
use crate::error::Stop;
use crate::http::{Readiness, Wait};
use crate::metrics::Metrics;
use crate::serve::{Serving, Snapshot};
use crate::shutdown::Shutdown;

pub use outlet::{KafkaOutlet, Outlet, Output};

use lists::Lists;
use vectors::{Vectors, has_item_expired, is_offered};

/// Steps of the towers to the first refresh.
const FIRST_REFRESH: u64 = 16;
/// How often a daemon that waits for its index looks whether it can be made.
const LOOK: Duration = Duration::from_millis(500);

/// What the configuration says to the publisher.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A touched embedding is published at most once in so long.
    pub interval: Duration,
    /// After so many steps of the towers all item vectors are encoded anew; at first earlier.
    pub refresh: u64,
    /// Refreshed top lists.
    pub lists: config::Scores,
}

/// Takes the users and items whose rows were learned since the last call.
pub type Drain = Box<dyn FnMut() -> Touched + Send>;

/// Publishes, and keeps the index: one part of the daemon.
pub struct Publisher<O> {
    serving: Arc<Serving>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    outlet: O,
    drain: Drain,
    settings: Settings,
    vectors: Vectors,
    lists: Lists,
    stopped: bool,
}

impl<O: Outlet> Publisher<O> {
    /// Creates a publisher that has published nothing. The daemon waits for its index from here on.
    pub fn new(
        serving: Arc<Serving>,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
        outlet: O,
        drain: Drain,
        settings: Settings,
    ) -> Self {
        let vectors = Vectors::new(&serving);
        let lists = Lists::new(&serving, settings.lists);
        readiness.wait_for(Wait::Index, "the index of items is being made");
        Self {
            serving,
            metrics,
            readiness,
            outlet,
            drain,
            settings,
            vectors,
            lists,
            stopped: false,
        }
    }

    /// Publishes until told to stop.
    ///
    /// # Errors
    /// When Kafka refuses for good.
    pub fn run(mut self, shutdown: &Shutdown) -> Result<(), Stop> {
        // The first index is made as soon as there are items: until then answers do without.
        while !shutdown.wait(self.pause()) {
            self.round(shutdown)?;
        }
        self.outlet.finish();
        Ok(())
    }

    /// Returns how long to wait for the next round.
    fn pause(&self) -> Duration {
        let waits = self.readiness.waits_for(Wait::Index);
        if waits { self.settings.interval.min(LOOK) } else { self.settings.interval }
    }

    /// Publishes what has changed since the last round.
    ///
    /// The daemon waits for the index no longer when a round that began after the catalogue was read up has put all items known by then into
    /// it, or has found that there are none.
    ///
    /// # Errors
    /// When Kafka refuses for good.
    pub fn round(&mut self, shutdown: &Shutdown) -> Result<(), Stop> {
        let read_up = !self.readiness.waits_for(Wait::Catalogue);
        let all = self.publish(shutdown)?;
        if let Some(index) = &*self.serving.index.read() {
            self.metrics.publish.index_items.set(index.index.len() as f64);
            self.metrics.publish.index_steps.set(index.towers.version() as f64);
        }
        if read_up && all && !shutdown.is_requested() && self.readiness.clear(Wait::Index) {
            let index = self.serving.index.read();
            let items = index.as_ref().map_or(0, |index| index.index.len());
            tracing::info!(items, "the index holds all items");
        }
        Ok(())
    }

    /// Publishes what has changed. Returns whether the index holds all items that were known when it began.
    fn publish(&mut self, shutdown: &Shutdown) -> Result<bool, Stop> {
        let snapshot = self.serving.snapshot.load_full();
        self.tell(&snapshot);
        if !snapshot.sound {
            // Answers need an index all the same, if there is none yet.
            let made = self.indexed().is_none();
            if made {
                self.refresh(&snapshot, shutdown)?;
            }
            return Ok(made);
        }
        let changed = self.serving.pipeline.read().take_changed();
        let touched = (self.drain)();
        let mut items = merged(changed.items(), touched.items);
        if self.is_due(&snapshot) {
            self.refresh(&snapshot, shutdown)?;
            // All else has just been published.
            let pipeline = self.serving.pipeline.read();
            items.retain(|item| {
                let (towers, until) = (&snapshot.towers, snapshot.learned_until);
                has_item_expired(&pipeline, towers, *item, until)
                    || self.serving.items.as_of(item.0, EventTime::MAX, |found, features| {
                        matches!(found, Found::Gone | Found::Unknown)
                            && !is_offered(&self.serving, found, features)
                    })
            });
        } else if changed.all_items() || touched.all_items {
            self.vectors.forget_known();
        }
        let newest_first = changed.users();
        self.publish_items(&items, &snapshot, shutdown)?;
        if touched.all_users {
            self.publish_all_users(&snapshot, shutdown)?;
        } else {
            let users = merged(newest_first.clone(), touched.users);
            self.publish_users(&users, &snapshot, shutdown)?;
        }
        let Self { lists, serving, metrics, outlet, .. } = self;
        lists.round(&newest_first, serving, metrics, outlet, shutdown)?;
        Ok(true)
    }

    /// Says once that publishing has stopped, and that it goes on.
    fn tell(&mut self, snapshot: &Snapshot) {
        if self.stopped == snapshot.sound {
            self.stopped = !snapshot.sound;
            if self.stopped {
                tracing::warn!(
                    steps = snapshot.version,
                    "publishing stops: a guard has found the model unsound"
                );
            } else {
                tracing::info!(steps = snapshot.version, "publishing goes on");
            }
        }
    }

    /// Returns the version of the towers in use.
    fn indexed(&self) -> Option<u64> {
        self.serving.index.read().as_ref().map(|index| index.towers.version())
    }

    /// Tells whether the newest towers are to be adopted.
    fn is_due(&self, snapshot: &Snapshot) -> bool {
        let newest = snapshot.towers.version();
        self.indexed().is_none_or(|version| newest >= next_refresh(version, self.settings.refresh))
    }

    /// Encodes all items by the newest towers into a new index, and publishes them.
    fn refresh(&mut self, snapshot: &Snapshot, shutdown: &Shutdown) -> Result<(), Stop> {
        let Self { vectors, serving, metrics, outlet, .. } = self;
        let outlet = snapshot.sound.then_some(outlet);
        if let Some(published) = vectors.refresh(serving, snapshot, outlet, shutdown)? {
            metrics.publish.embeddings.increment(published);
        }
        Ok(())
    }

    fn publish_items(
        &mut self,
        items: &[ItemId],
        snapshot: &Snapshot,
        shutdown: &Shutdown,
    ) -> Result<(), Stop> {
        let Self { vectors, serving, metrics, outlet, .. } = self;
        let published = vectors.items(serving, items, snapshot.learned_until, outlet, shutdown)?;
        metrics.publish.embeddings.increment(published);
        Ok(())
    }

    fn publish_users(
        &mut self,
        users: &[UserId],
        snapshot: &Snapshot,
        shutdown: &Shutdown,
    ) -> Result<(), Stop> {
        let Self { vectors, serving, metrics, outlet, .. } = self;
        let published = vectors.users(serving, users, snapshot.learned_until, outlet, shutdown)?;
        metrics.publish.embeddings.increment(published);
        Ok(())
    }

    /// Publishes every user, in pieces.
    fn publish_all_users(&mut self, snapshot: &Snapshot, shutdown: &Shutdown) -> Result<(), Stop> {
        let mut from = 0;
        while !shutdown.is_requested() {
            let users = {
                let pipeline = self.serving.pipeline.read();
                let known = &pipeline.shared().users;
                let end = known.len().min(from + vectors::PIECE);
                (from..end)
                    .filter_map(|number| Some(UserId(known.id(u32::try_from(number).ok()?))))
                    .collect::<Vec<_>>()
            };
            if users.is_empty() {
                break;
            }
            from += users.len();
            self.publish_users(&users, snapshot, shutdown)?;
        }
        Ok(())
    }
}

/// Returns the step of the towers from which on towers of this version are replaced: the next of 16, 32, 64, ... up to the `interval`, from there on
/// an interval later each time.
fn next_refresh(version: u64, interval: u64) -> u64 {
    if version >= interval {
        return version.saturating_add(interval);
    }
    let doubled = version.saturating_add(1).checked_next_power_of_two().unwrap_or(u64::MAX);
    doubled.max(FIRST_REFRESH).min(version.saturating_add(interval))
}

/// Returns the ids of both, ascending, each once.
fn merged<T: Ord>(mut some: Vec<T>, more: Vec<T>) -> Vec<T> {
    some.extend(more);
    some.sort_unstable();
    some.dedup();
    some
}
