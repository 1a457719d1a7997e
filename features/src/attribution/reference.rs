//! Attribution by brute force over the whole log, written from the rules alone: what the joiner is compared with.

use std::collections::{BTreeMap, BTreeSet};

use super::{KindCounts, Opened, Outcome};
use crate::funnel::{Entry, Funnel};
use crate::ids::{EventId, UserId};

/// A record of the log.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    /// An impression.
    Impression(Opened<()>),
    /// A behaviour.
    Outcome(Outcome),
}

impl Record {
    pub(super) fn time(&self) -> i64 {
        match self {
            Self::Impression(impression) => impression.time.0,
            Self::Outcome(outcome) => outcome.time.0,
        }
    }
}

/// What holds once everything is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Truth {
    /// Final labels of each impression, by task.
    pub(super) labels: BTreeMap<(UserId, EventId), Vec<bool>>,
    /// Impressions that came again.
    pub(super) duplicate_impressions: u64,
    /// Counts by behaviour. All orphans stand in the first place.
    pub(super) kinds: Vec<KindCounts>,
}

/// Attributes a log whose order does not matter, save that each record's first copy counts.
pub(super) fn truth(funnel: &Funnel, log: &[Record]) -> Truth {
    let tasks = funnel.tasks();
    let mut kinds = vec![KindCounts::default(); funnel.behaviours()];
    let mut known = BTreeSet::new();
    let mut impressions: Vec<&Opened<()>> = Vec::new();
    let mut outcomes: Vec<&Outcome> = Vec::new();
    let mut duplicate_impressions = 0;
    for record in log {
        match record {
            Record::Impression(impression) => {
                if known.insert((impression.user, 0, impression.id)) {
                    impressions.push(impression);
                } else {
                    duplicate_impressions += 1;
                }
            }
            Record::Outcome(outcome) => {
                let kind = usize::from(outcome.kind.0);
                kinds[kind].arrived += 1;
                if !known.insert((outcome.user, kind + 1, outcome.id)) {
                    kinds[kind].duplicate += 1;
                } else if kind >= tasks.len() {
                    kinds[kind].extra += 1;
                } else {
                    outcomes.push(outcome);
                }
            }
        }
    }

    let view = matches!(funnel.entry(), Entry::View { .. });
    let mut seen: BTreeMap<(UserId, EventId), Vec<bool>> = impressions
        .iter()
        .map(|i| ((i.user, i.id), (0..tasks.len()).map(|task| view && task == 0).collect()))
        .collect();
    for outcome in outcomes {
        let task = usize::from(outcome.kind.0);
        let target = impressions
            .iter()
            .filter(|i| i.user == outcome.user && i.item == outcome.item)
            .filter(|i| outcome.impression.is_none_or(|id| id == i.id))
            .filter(|i| (0..=tasks[task].window.0).contains(&(outcome.time.0 - i.time.0)))
            .max_by_key(|i| (i.time, i.id));
        let count = &mut kinds[task];
        match target.map(|i| (i.user, i.id)).and_then(|key| seen.get_mut(&key)) {
            Some(seen) if seen[task] => count.repeated += 1,
            Some(seen) => {
                seen[task] = true;
                count.attributed += 1;
            }
            None => count.orphaned[0] += 1,
        }
    }

    let labels = seen
        .into_iter()
        .map(|(key, seen)| {
            let label = |mut task: usize| loop {
                if !seen[task] {
                    return false;
                }
                match tasks[task].parent {
                    Some(parent) => task = parent,
                    None => return true,
                }
            };
            let labels: Vec<bool> = (0..tasks.len()).map(label).collect();
            for task in 0..tasks.len() {
                kinds[task].childless += u64::from(seen[task] && !labels[task]);
            }
            (key, labels)
        })
        .collect();
    Truth { labels, duplicate_impressions, kinds }
}
