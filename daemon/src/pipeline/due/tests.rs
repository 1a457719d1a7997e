//! However many windows close at once, few batches wait; and they are the same.

use sluice_features::attribution::MOST_CLOSINGS;
use sluice_features::funnel::{Entry, LabelRule};
use sluice_features::wire::Topic;

use super::*;
use crate::pipeline::record::Record;
use crate::pipeline::{Pipeline, Rules};
use crate::testing::stream::{assert_same, fetch, rules, settle};

const IMPRESSIONS: i64 = 3_000;

/// Opens impressions, then lets days pass by one record of another user.
fn storm(pipeline: &mut Pipeline) {
    let start = 1_650_000_000_000;
    let entry = pipeline.rules().funnel.entry_name().to_owned();
    for offset in 0..=IMPRESSIONS {
        let days = if offset == IMPRESSIONS { 9 } else { 0 };
        let time = start + 2 * offset + days * 86_400_000;
        let value = format!(
            r#"{{"type":"{entry}","id":"e{offset}","ts":{time},"user":"u{}","item":"i{}"}}"#,
            offset % 40,
            offset % 7
        );
        let record = Record {
            topic: Topic::Events,
            partition: 0,
            offset,
            arrived: EventTime(time),
            key: None,
            value: Some(value.as_bytes()),
        };
        pipeline.take(&record).unwrap();
        assert!(offset == IMPRESSIONS || !pipeline.is_behind());
        if offset < IMPRESSIONS {
            while pipeline.batcher.waiting() > 0 {
                assert!(pipeline.next_batch().is_some());
            }
        }
    }
}

fn storm_rules(labels: LabelRule) -> Rules {
    Rules { share: 1.0, ..rules(Entry::Impression, labels) }
}

#[test]
fn as_many_batches_wait_as_a_portion_brings() {
    for labels in [LabelRule::Wait, LabelRule::Fnw] {
        let rules = storm_rules(labels);
        let mut pipeline = Pipeline::new(rules.clone(), 1);
        storm(&mut pipeline);
        assert!(pipeline.is_behind() && !pipeline.is_settled());
        let (mut examples, mut steps) = (0, 0);
        loop {
            assert!(pipeline.batcher.waiting() <= MOST_CLOSINGS / rules.batch + 1);
            match pipeline.hand_on() {
                Next::Batch(batch) => examples += batch.roles.len(),
                Next::Due => {}
                Next::Nothing => break,
            }
            steps += 1;
        }
        let stages = 2 * IMPRESSIONS as usize;
        // The first portion was carried out with the record, and the last one brings nothing more.
        assert!(steps + 2 >= stages / MOST_CLOSINGS, "{steps} steps");
        if labels == LabelRule::Wait {
            assert!(examples > stages - rules.batch, "{examples} examples");
        }
        assert_eq!(pipeline.open_impressions(), 1);
    }
}

#[test]
fn who_fetches_late_gets_the_same_batches() {
    let run = |fetches: bool| {
        let (mut pipeline, mut batches) =
            (Pipeline::new(storm_rules(LabelRule::Wait), 1), Vec::new());
        storm(&mut pipeline);
        if fetches {
            fetch(&mut pipeline, &mut batches);
        }
        pipeline.quiet(0, EventTime(1_700_000_000_000));
        settle(&mut pipeline, &mut batches);
        assert!(pipeline.is_settled());
        batches
    };
    assert_same(&run(true), &run(false));
}
