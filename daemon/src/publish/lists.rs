//! Top lists of users with new behaviour, within their budget.

use std::sync::Arc;

use sluice_features::ids::UserId;
use sluice_features::time::{EventTime, Span};
use sluice_features::wire::Role;

use super::budget::Budget;
use super::waiting::Waiting;
use super::{Outlet, Output};
use crate::config;
use crate::error::Stop;
use crate::metrics::Metrics;
use crate::pipeline::shard::Shard;
use crate::serve::{Scorer, Serving};
use crate::shutdown::Shutdown;

/// Makes top lists.
pub(super) struct Lists {
    settings: config::Scores,
    scorer: Scorer,
    waiting: Waiting,
    budget: Budget,
}

impl Lists {
    pub(super) fn new(serving: &Arc<Serving>, settings: config::Scores) -> Self {
        Self {
            settings,
            scorer: Scorer::new(Arc::clone(serving)),
            waiting: Waiting::new(settings.interval),
            budget: Budget::new(settings.budget, serving.clock.steady()),
        }
    }

    /// Makes and publishes the lists that the budget allows. `users` have new behaviour, the newest first.
    pub(super) fn round(
        &mut self,
        users: &[UserId],
        serving: &Serving,
        metrics: &Metrics,
        outlet: &mut impl Outlet,
        shutdown: &Shutdown,
    ) -> Result<(), Stop> {
        if self.settings.budget <= 0.0 {
            return Ok(());
        }
        users.iter().rev().for_each(|user| self.waiting.add(*user));
        let time = now(serving);
        let mut unanswered = 0;
        while !shutdown.is_requested() {
            let begun = serving.clock.steady();
            if !self.budget.allows(begun) {
                break;
            }
            let Some(user) = self.waiting.next(begun) else { break };
            let number = serving.pipeline.read().shared().users.number(user.0);
            let Some(number) = number else { continue };
            let name = serving.names.text(&serving.pipeline, Role::User, number)?;
            let made = self.scorer.top_list(&name, time, self.settings.k);
            self.budget.spend(serving.clock.steady().saturating_sub(begun));
            metrics.serve.scores_not_finite.increment(self.scorer.without_score() as u64);
            self.scorer.check()?;
            if made.is_err() {
                unanswered += 1;
                continue;
            }
            if outlet.send(Output::Scores, &name, Some(self.scorer.output()), shutdown)? {
                metrics.publish.scores.increment(1);
            }
        }
        if unanswered > 0 {
            tracing::warn!(lists = unanswered, "top lists that are not finite are not published");
        }
        metrics.publish.scores_put_off.increment(self.waiting.count_put_off());
        Ok(())
    }
}

/// Returns the moment after the newest event, so that the lists know of it; where there was none, the wall time.
fn now(serving: &Serving) -> EventTime {
    let pipeline = serving.pipeline.read();
    let newest = pipeline.shards().iter().filter_map(Shard::newest).max();
    newest.map_or_else(|| serving.clock.wall(), |newest| newest + Span(1))
}
