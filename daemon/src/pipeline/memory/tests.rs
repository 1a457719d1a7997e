//! Each bound reached: what goes, that it is counted, and that it is one bound for all partitions.

use sluice_features::attribution::{Orphan, WAITING_BYTES};
use sluice_features::counters::Counters;
use sluice_features::funnel::{Entry, LabelRule};
use sluice_features::time::EventTime;
use sluice_features::wire::Topic;

use super::*;
use crate::pipeline::record::Record;
use crate::testing::{bounds, stream};

const START: i64 = 1_650_000_000_000;

fn bounded(share: Share, most: u64) -> Rules {
    let rules = stream::rules(Entry::Impression, LabelRule::Wait);
    Rules { bounds: bounds().with(share, most), ..rules }
}

/// A pipeline that is fed one event after the other.
struct Fed {
    pipeline: Pipeline,
    offsets: Vec<i64>,
}

impl Fed {
    fn new(rules: Rules, partitions: usize) -> Self {
        Self { pipeline: Pipeline::new(rules, partitions), offsets: vec![0; partitions] }
    }

    fn event(&mut self, partition: usize, text: &str) {
        let arrived = EventTime(START);
        let record = Record {
            topic: Topic::Events,
            partition: partition as u32,
            offset: self.offsets[partition],
            arrived,
            key: None,
            value: Some(text.as_bytes()),
        };
        self.offsets[partition] += 1;
        self.pipeline.take(&record).unwrap();
        while self.pipeline.next_batch().is_some() {}
    }

    fn shown(&mut self, partition: usize, id: u64, item: u64) {
        self.event(
            partition,
            &format!(
                r#"{{"type":"impression","id":"r{id}","ts":{START},"user":"u{partition}","item":"i{item}"}}"#
            ),
        );
    }

    /// A click without any impression.
    fn click(&mut self, partition: usize, id: u64) {
        self.event(
            partition,
            &format!(
                r#"{{"type":"click","id":"c{id}","ts":{START},"user":"u{partition}","item":"i1","impression":"n{id}"}}"#
            ),
        );
    }

    fn bytes(&self, part: Part) -> u64 {
        self.pipeline.memory()[part as usize]
    }
}

#[test]
fn all_partitions_share_the_bound_of_ids_and_each_may_have_what_others_leave() {
    let most = 200_000;
    let forgotten = |partition_of: fn(u64) -> usize| {
        let mut fed = Fed::new(bounded(Share::Ids, most), 4);
        for id in 0..12_000 {
            fed.shown(partition_of(id), id, id % 50);
            assert!(fed.bytes(Part::Ids) <= most, "{} bytes", fed.bytes(Part::Ids));
        }
        let counts = fed.pipeline.join_counts();
        assert_eq!(counts.opened, 12_000, "{counts:?}");
        assert!(fed.bytes(Part::Ids) > most * 9 / 10);
        counts.forgotten_impressions
    };
    // About 20 bytes an id: the bound holds some 9,500.
    let evenly = forgotten(|id| id as usize % 4);
    let alone = forgotten(|_| 2);
    assert!((1_000..6_000).contains(&evenly), "{evenly}");
    assert!(alone.abs_diff(evenly) < 600, "{alone} of one, {evenly} of four");
    // One that has few is not robbed by one that has many.
    let mut fed = Fed::new(bounded(Share::Ids, most), 4);
    (0..100).for_each(|id| fed.shown(0, id, 1));
    (100..12_000).for_each(|id| fed.shown(1, id, 1));
    (0..100).for_each(|id| fed.shown(0, id, 1));
    assert_eq!(fed.pipeline.join_counts().duplicate_impressions, 100);
}

#[test]
fn all_partitions_share_the_bound_of_waiting_outcomes_and_those_given_up_are_counted() {
    let most = 640 * WAITING_BYTES as u64;
    let mut fed = Fed::new(bounded(Share::Waiting, most), 4);
    for id in 0..4_000 {
        fed.click(id as usize % 4, id);
        assert!(fed.bytes(Part::Waiting) <= most);
    }
    let click = fed.pipeline.join_counts().kinds[0];
    assert!((630..=640).contains(&click.waiting), "{click:?}");
    assert_eq!(click.orphaned[Orphan::Overflow as usize], 4_000 - click.waiting);
    assert_eq!(click.arrived, click.fates());
    // Alone, a partition has all of it.
    let mut fed = Fed::new(bounded(Share::Waiting, most), 4);
    (0..640).for_each(|id| fed.click(3, id));
    assert_eq!(fed.pipeline.join_counts().kinds[0].waiting, 640);
}

#[test]
fn new_keys_of_full_counters_are_refused_and_counted() {
    let most = 400 * Counters::ENTRY_BYTES as u64;
    let mut fed = Fed::new(bounded(Share::Counters, most), 2);
    for id in 0..3_000 {
        fed.shown(id as usize % 2, id, id);
        assert!(fed.bytes(Part::Counters) <= most);
    }
    let counters = &fed.pipeline.shared().counters;
    assert!(counters.len() >= 200 && counters.refused() > 2_000, "{}", counters.len());
}

#[test]
fn every_part_grows_with_what_is_in_it_and_open_impressions_are_given_back() {
    let rules = stream::rules(Entry::Impression, LabelRule::Wait);
    let (mut pipeline, mut batches) = (Pipeline::new(rules.clone(), 3), Vec::new());
    let nothing = pipeline.memory();
    let records = stream::stream(5, 4_000, 3, &rules);
    stream::take(&mut pipeline, &records, &mut batches);
    let some = pipeline.memory();
    for part in Part::ALL.into_iter().filter(|part| *part != Part::Tables) {
        assert!(some[part as usize] > nothing[part as usize], "{part:?}: {some:?}");
    }
    pipeline.finish();
    stream::fetch(&mut pipeline, &mut batches);
    let left = pipeline.memory()[Part::Open as usize];
    assert!(left <= nothing[Part::Open as usize], "{left} bytes of nothing");
}
