//! Which items may stand in an answer.

use sluice_features::attributes::{AttributeKey, Attributes};
use sluice_features::ids::{CategoryId, ItemId, UserId};
use sluice_features::maps::Set;
use sluice_features::time::EventTime;
use sluice_features::wire::Filter;

use super::Serving;
use crate::pipeline::Pipeline;

/// The newest behaviours of a user that say what the user has seen.
const SEEN: usize = 1_000;

/// The conditions of one request.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    excluded: Set<u64>,
    categories: Option<Vec<CategoryId>>,
}

impl Sieve {
    /// Takes the conditions of a request.
    pub(super) fn start(&mut self, exclude: &[String], filter: &Filter) {
        self.excluded.clear();
        self.excluded.extend(exclude.iter().map(|name| ItemId::of(name).0));
        self.categories.clone_from(&filter.categories);
    }

    /// Leaves an item out.
    pub(super) fn exclude(&mut self, item: ItemId) {
        self.excluded.insert(item.0);
    }

    /// Leaves out what a user has had to do with before a time, by any type of behaviour.
    pub(super) fn exclude_seen(&mut self, pipeline: &Pipeline, user: UserId, time: EventTime) {
        let all = pipeline.shared().kinds.configured();
        let past = pipeline.past(user);
        past.sequence.newest(time, SEEN, &all, |entry| {
            self.excluded.insert(past.items.id(entry.item));
        });
    }

    /// Returns the categories that alone are wanted.
    pub(super) fn categories(&self) -> Option<&[CategoryId]> {
        self.categories.as_deref()
    }

    /// Tells whether an item that was asked for by name may stand in the answer.
    pub(super) fn lets(&self, serving: &Serving, item: ItemId, time: EventTime) -> bool {
        !self.excluded.contains(&item.0)
            && (self.categories.is_none()
                || serving.items.as_of(item.0, time, |_, features| {
                    self.has_category(features, serving.rules.category)
                }))
    }

    /// Tells whether an item may be a candidate: as [`Sieve::lets`], and it is offered.
    pub(super) fn passes(&self, serving: &Serving, item: ItemId, time: EventTime) -> bool {
        !self.excluded.contains(&item.0)
            && serving.items.as_of(item.0, time, |found, features| {
                serving.items.is_offered(found, features, serving.rules.available)
                    && self.has_category(features, serving.rules.category)
            })
    }

    fn has_category(&self, features: Option<&Attributes>, key: AttributeKey) -> bool {
        let Some(wanted) = &self.categories else { return true };
        let category = features.and_then(|features| features.get(key)?.category());
        category.is_some_and(|category| wanted.contains(&CategoryId(category)))
    }
}
