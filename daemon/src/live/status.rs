//! The daemon's state as one JSON object, for `/status` and for the demonstration.

use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};
use sluice_features::reject::Reason;

use super::Live;
use super::lateness::Count;
use super::notices;
use super::refusals::Incident;
use crate::config::Part;

impl Live {
    /// Returns counts, figures and sizes of this moment. Percentages and means are over the whole stream since the model began, what was
    /// noticed of values (`noticed`) since the start.
    ///
    /// | name | what |
    /// |---|---|
    /// | `caught_up` | everything that Kafka had is taken, and nothing keeps what comes from being taken |
    /// | `events`, `records` | valid events; valid records by topic |
    /// | `items`, `users` | how many are known, by events or updates |
    /// | `examples` | examples handed to the learner, those that are only predicted included |
    /// | `judged` | impressions whose prediction was judged |
    /// | `names` | pages of names that were found in their cache or read from the store, and bytes of memory of the cache |
    /// | `memory` | the limit, and of what grows the bytes and the bound; `sequences`, `names`, `catalogue` and `index` share one |
    pub fn status(&self) -> Value {
        let (counts, joined, open, items, users, behaviours, noticed, mut memory, bounds, names) = {
            let pipeline = self.pipeline.read();
            let behaviours: usize =
                pipeline.shards().iter().map(|shard| shard.sequences.behaviours()).sum();
            (
                pipeline.counts().clone(),
                pipeline.join_counts(),
                pipeline.open_impressions(),
                pipeline.shared().items.len(),
                pipeline.shared().users.len(),
                behaviours,
                notices::object(pipeline.notes(), pipeline.counts()),
                pipeline.memory(),
                pipeline.rules().bounds,
                pipeline.names().counts(),
            )
        };
        let (late, orphaned) = crate::replay::late_and_orphaned(&joined);
        let rejected: Map<String, Value> = Reason::all()
            .iter()
            .zip(&counts.rejected)
            .filter(|(_, count)| **count > 0)
            .map(|(reason, count)| (reason.name().to_owned(), json!(count)))
            .collect();
        let unusual: Vec<Value> = {
            let (orphans, pipeline) = (self.orphans.lock(), self.pipeline.read());
            let name = |kind| pipeline.rules().funnel.behaviour_name(kind);
            orphans.unusual().map(|unusual| unusual.object(name(unusual.kind))).collect()
        };
        let too_late: Vec<Value> = {
            let (lateness, pipeline) = (self.lateness.lock(), self.pipeline.read());
            let name = |place| Count::name(&pipeline.rules().funnel, place);
            lateness.much().map(|(place, count)| count.object(name(place))).collect()
        };
        let refusals: Vec<Value> =
            self.refusals.lock().newest().iter().map(Incident::object).collect();
        let trainer = self.trainer.lock();
        let judge = trainer.judge();
        let report = judge.progressive().report();
        let stats = trainer.tables();
        memory[Part::Tables as usize] = stats.bytes as u64;
        let memory: Map<String, Value> = Part::ALL
            .into_iter()
            .zip(memory)
            .map(|(part, bytes)| {
                let bound = bounds.of(part.share());
                (part.name().to_owned(), json!({"bytes": bytes, "bound": bound}))
            })
            .chain([("limit".to_owned(), json!(bounds.limit))])
            .collect();
        json!({
            "caught_up": self.takes_everything(),
            "events": counts.events,
            "records": {"events": counts.events, "items": counts.items, "users": counts.users},
            "items": items,
            "users": users,
            "rejected": counts.all_rejected(),
            "rejected_by_reason": rejected,
            "most_refused": refusals,
            "replayed": counts.replayed,
            "skewed": counts.skewed,
            "jumped": counts.jumped,
            "split_users": self.split_users(),
            "undelivered": self.undelivered.load(Ordering::Relaxed),
            "impressions": joined.opened,
            "duplicates": joined.duplicate_impressions,
            "late_impressions": joined.late_impressions,
            "late": late,
            "orphaned": orphaned,
            "much_late": too_late,
            "orphans_unusual": unusual,
            "open": open,
            "examples": counts.examples,
            "judged": judge.judged(),
            "learned_until": trainer.covered(),
            "steps": trainer.learner().steps(),
            "refused_batches": trainer.learner().refused(),
            "sound": judge.guard().sound(),
            "rows": stats.rows,
            "behaviours": behaviours,
            "names": {"hits": names.hits, "misses": names.misses, "bytes": names.bytes},
            "memory": memory,
            "tasks": report.tasks,
            "sliding": report.sliding,
            "noticed": noticed,
        })
    }
}
