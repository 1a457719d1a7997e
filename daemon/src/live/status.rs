//! The daemon's state as one JSON object, for `/status` and for the demonstration.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::Live;

impl Live {
    /// Returns counts, figures and sizes of this moment. Percentages and means are over the whole stream since the model began.
    pub fn status(&self) -> Value {
        let (counts, joined, open, items, behaviours) = {
            let pipeline = self.pipeline.read();
            let behaviours: usize =
                pipeline.shards().iter().map(|shard| shard.sequences.behaviours()).sum();
            (
                pipeline.counts().clone(),
                pipeline.join_counts(),
                pipeline.open_impressions(),
                pipeline.shared().items.len(),
                behaviours,
            )
        };
        let (late, orphaned) = crate::replay::late_and_orphaned(&joined);
        let trainer = self.trainer.lock();
        let judge = trainer.judge();
        let report = judge.progressive().report();
        let stats = trainer.learner().embeddings().stats();
        json!({
            "caught_up": self.is_caught_up(),
            "events": counts.events,
            "items": counts.items,
            "users": counts.users,
            "rejected": counts.all_rejected(),
            "replayed": counts.replayed,
            "skewed": counts.skewed,
            "split_users": self.split_users.load(Ordering::Relaxed),
            "undelivered": self.undelivered.load(Ordering::Relaxed),
            "impressions": joined.opened,
            "duplicates": joined.duplicate_impressions,
            "late_impressions": joined.late_impressions,
            "late": late,
            "orphaned": orphaned,
            "open": open,
            "examples": judge.judged(),
            "learned_examples": counts.examples,
            "learned_until": trainer.covered(),
            "steps": trainer.learner().steps(),
            "refused_batches": trainer.learner().refused(),
            "sound": judge.guard().sound(),
            "rows": stats.rows,
            "known_items": items,
            "behaviours": behaviours,
            "tasks": report.tasks,
            "sliding": report.sliding,
        })
    }
}
