//! Attribution by brute force, written from the rules alone: what the joiner is compared with. [`truth`] looks at the whole log whatever its
//! order; [`known`] goes through it as it arrives, where what comes too late has no label.

use std::collections::{BTreeMap, BTreeSet};

use super::{KindCounts, Opened, Outcome};
use crate::funnel::{Entry, Funnel, Task};
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

/// An impression with what is known of its labels.
struct Shown<'a> {
    impression: &'a Opened<()>,
    /// By task: no label, because it came too late.
    masked: Vec<bool>,
    /// By task: closed, and whether an outcome of it had been seen.
    closed: Vec<Option<bool>>,
}

/// Returns the final labels of a log in the order of its arrival, each record with the watermark after it; `None` where there is no label.
pub(super) fn known(
    funnel: &Funnel,
    log: &[(Record, i64)],
) -> BTreeMap<(UserId, EventId), Vec<Option<bool>>> {
    let tasks = funnel.tasks();
    let view = matches!(funnel.entry(), Entry::View { .. });
    let mut ids = BTreeSet::new();
    let mut shown: Vec<Shown<'_>> = Vec::new();
    // Outcomes, and whether a closed label has taken each.
    let mut outcomes: Vec<(&Outcome, bool)> = Vec::new();
    let mut watermark = i64::MIN;
    for (record, after) in
        log.iter().map(|(record, after)| (Some(record), *after)).chain([(None, i64::MAX)])
    {
        match record {
            Some(Record::Impression(impression))
                if ids.insert((impression.user, 0, impression.id)) =>
            {
                let over = |task: &Task| impression.time.0 + task.window.0 < watermark;
                let mut masked: Vec<bool> = Vec::new();
                for (i, task) in tasks.iter().enumerate() {
                    let above = task.parent.is_some_and(|parent| masked[parent]);
                    masked.push((over(task) || above) && !(view && i == 0));
                }
                // The window of a view itself is over where it is late, and its label is certain.
                let closed = tasks.iter().map(|task| over(task).then_some(view)).collect();
                shown.push(Shown { impression, masked, closed });
            }
            Some(Record::Impression(_)) => {}
            Some(Record::Outcome(outcome)) => {
                let kind = usize::from(outcome.kind.0);
                if ids.insert((outcome.user, kind + 1, outcome.id)) && kind < tasks.len() {
                    outcomes.push((outcome, false));
                }
            }
            None => {}
        }
        watermark = watermark.max(after);
        let number = shown.len();
        for (task, i) in (0..tasks.len()).flat_map(|task| (0..number).map(move |i| (task, i))) {
            let end = shown[i].impression.time.0 + tasks[task].window.0;
            if shown[i].closed[task].is_some() || end >= watermark {
                continue;
            }
            let mut seen = view && task == 0;
            for (outcome, taken) in &mut outcomes {
                if *taken || usize::from(outcome.kind.0) != task {
                    continue;
                }
                // One without any label is as if it had not come.
                let target = shown
                    .iter()
                    .filter(|shown| shown.masked.contains(&false))
                    .map(|shown| shown.impression)
                    .filter(|i| i.user == outcome.user && i.item == outcome.item)
                    .filter(|i| outcome.impression.is_none_or(|id| id == i.id))
                    .filter(|i| (0..=tasks[task].window.0).contains(&(outcome.time.0 - i.time.0)))
                    .max_by_key(|i| (i.time, i.id));
                if target.is_some_and(|target| target.id == shown[i].impression.id) {
                    (*taken, seen) = (true, true);
                }
            }
            shown[i].closed[task] = Some(seen);
        }
    }
    let labels = |shown: Shown<'_>| {
        let mut labels: Vec<Option<bool>> = Vec::new();
        for (i, task) in tasks.iter().enumerate() {
            let above = task.parent.is_none_or(|parent| labels[parent] == Some(true));
            let label = shown.closed[i] == Some(true) && above;
            labels.push((!shown.masked[i]).then_some(label));
        }
        ((shown.impression.user, shown.impression.id), labels)
    };
    shown.into_iter().map(labels).collect()
}
