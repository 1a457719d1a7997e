//! What is told of event time and of outcomes, on records of a log and a clock that is turned by hand.

use parking_lot::RwLock;
use serde_json::{Value, json};
use sluice_features::time::EventTime;
use sluice_features::wire::Topic;

use super::*;
use crate::app::labels;
use crate::clock::Clock;
use crate::config::Config;
use crate::http::Readiness;
use crate::metrics::Metrics;
use crate::parts;
use crate::pipeline::record::Record;
use crate::testing::small;

const START: i64 = 1_650_000_000_000;
const HOUR: i64 = 3_600_000;

/// Who watches a pipeline whose records come one by one.
struct Stand {
    watch: Watch,
    clock: Clock,
    jumping: Option<Duration>,
    offset: i64,
}

impl Stand {
    fn new(partitions: usize) -> Self {
        let config = Config::build(&small("1d"), &[]).unwrap();
        let clock = Clock::manual(EventTime(START + 1000 * HOUR));
        let shared = Live::new(
            Arc::new(RwLock::new(parts::pipeline(&config, partitions))),
            parts::trainer(&config).unwrap(),
            clock.clone(),
            Arc::new(Metrics::new(&labels(&config))),
            Arc::new(Readiness::default()),
            config.kafka.topics.clone(),
        );
        let watch = Watch {
            shared: Arc::new(shared),
            consumer: Box::new(|| panic!("nobody asks the consumer")),
            producers: Vec::new(),
            outputs: Outputs::new(&config.kafka.topics),
        };
        Self { watch, clock, jumping: None, offset: 0 }
    }

    fn take(&mut self, partition: u32, message: &Value) {
        let value = message.to_string();
        let record = Record {
            topic: Topic::Events,
            partition,
            offset: self.offset,
            arrived: EventTime(START + 1000 * HOUR),
            key: None,
            value: Some(value.as_bytes()),
        };
        self.offset += 1;
        self.watch.shared.pipeline.write().take(&record).unwrap();
    }

    fn show(&mut self, partition: u32, user: &str, time: i64) {
        let id = format!("r{}", self.offset);
        let shown = json!({"type": "impression", "id": id, "ts": time, "user": user, "item": "i1"});
        self.take(partition, &shown);
    }

    /// Looks so many seconds later. Returns what `/ready` says of event time.
    fn look(&mut self, seconds: u64) -> Option<String> {
        self.clock.turn(Duration::from_secs(seconds));
        self.watch.pipeline();
        self.watch.orphans();
        self.watch.lateness();
        self.watch.jumps(&mut self.jumping);
        let reasons = self.watch.shared.readiness.reasons().into_iter();
        reasons.filter(|(wait, _)| *wait == Wait::Time).map(|(_, text)| text).next()
    }

    /// Returns a metric as it is exported.
    fn metric(&self, name: &str) -> u64 {
        let text = self.watch.shared.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

#[test]
fn a_jump_that_nobody_confirms_is_counted_at_once_and_after_a_minute_a_reason_not_to_be_ready() {
    let mut stand = Stand::new(3);
    for partition in 0..3 {
        for second in 0..10 {
            stand.show(partition, &format!("u{second}"), START + second * 1000);
        }
    }
    assert_eq!(stand.look(0), None);
    assert_eq!(stand.metric("sluice_events_jumping_partitions"), 0);
    assert_eq!(stand.metric("sluice_events_jumped_total"), 0);
    stand.show(1, "u1", START + 20 * HOUR);
    stand.show(1, "u1", START + 20 * HOUR);
    assert_eq!(stand.look(0), None);
    assert_eq!(stand.metric("sluice_events_jumping_partitions"), 1);
    assert_eq!(stand.metric("sluice_events_jumped_total"), 2);
    stand.show(2, "u2", START + 30 * HOUR);
    assert_eq!(stand.look(59), None, "not yet a minute");
    assert_eq!(stand.metric("sluice_events_jumping_partitions"), 2);
    assert!(
        stand.look(1).unwrap().starts_with("partitions [1, 2]: the newest events lie hours beyond")
    );
    assert_eq!(Wait::Time.name(), "time");
    assert!(stand.look(600).is_some());
    // Both go on where they were: the jumps were wrong clocks.
    stand.show(1, "u3", START + 11_000);
    assert!(stand.look(1).unwrap().starts_with("partitions [2]"));
    stand.show(2, "u3", START + 11_000);
    assert_eq!(stand.look(0), None);
    assert_eq!(stand.metric("sluice_events_jumping_partitions"), 0);
    assert_eq!(stand.metric("sluice_events_jumped_total"), 3);
    // The next one is given its minute again, and is confirmed within.
    stand.show(0, "u1", START + 20 * HOUR);
    assert_eq!(stand.look(1), None);
    for user in ["u2", "u3", "u4"] {
        stand.show(0, user, START + 20 * HOUR);
    }
    assert_eq!(stand.look(59), None);
    assert_eq!(stand.metric("sluice_events_jumping_partitions"), 0);
    assert_eq!(stand.metric("sluice_events_jumped_total"), 6, "the fourth is believed");
    assert_eq!(stand.watch.shared.status()["jumped"], 6);
}

#[test]
fn impressions_too_late_for_their_counters_are_counted() {
    let mut stand = Stand::new(1);
    for second in 0..600 {
        stand.show(0, &format!("u{}", second % 7), START + second * 1000);
    }
    stand.look(0);
    assert_eq!(stand.metric("sluice_events_untold_counters_total"), 0);
    // An hour late: its window is open still, and what was counted since cannot be told apart from what was known then.
    for user in ["a", "b", "c"] {
        stand.show(0, user, START - HOUR);
    }
    stand.show(0, "d", START + 600_000);
    stand.look(0);
    assert_eq!(stand.metric("sluice_events_untold_counters_total"), 3);
}

#[test]
fn outcomes_that_find_no_impression_any_more_are_told_by_their_type() {
    let mut stand = Stand::new(1);
    let unusual = "sluice_join_orphans_unusual{type=\"click\"}";
    stand.look(0);
    for second in 0..1000 {
        let (user, time) = (format!("u{}", second % 50), START + second * 1000);
        let shown = format!("r{}", stand.offset);
        // From now on what sends impressions gives them ids that their clicks do not name.
        let named = if second < 600 { shown } else { format!("x{second}") };
        stand.show(0, &user, time);
        let click = json!({"type": "click", "id": format!("c{second}"), "ts": time + 1, "user": user,
            "item": "i1", "impression": named});
        stand.take(0, &click);
        stand.look(1);
        assert!(second > 600 || stand.metric(unusual) == 0, "{second}");
    }
    assert_eq!(stand.metric(unusual), 1);
    assert_eq!(stand.metric("sluice_join_orphans_unusual{type=\"impression\"}"), 0);
    let told = &stand.watch.shared.status()["orphans_unusual"][0];
    assert_eq!((&told["type"], &told["reason"]), (&json!("click"), &json!("no_impression")));
    assert_eq!((&told["outcomes"], &told["orphans"]), (&json!(200), &json!(200)));
}

#[test]
fn events_that_come_after_their_windows_are_told_and_most_of_them_are_a_reason_not_to_be_ready() {
    let mut stand = Stand::new(1);
    // Event time is four days on, in small steps; then senders whose clocks are two days behind come up.
    for minute in 0..4 * 24 * 60 {
        stand.show(0, &format!("u{}", minute % 9), START + minute * 60_000);
    }
    stand.look(0);
    let late = |stand: &Stand| {
        let reasons = stand.watch.shared.readiness.reasons().into_iter();
        reasons.filter(|(wait, _)| *wait == Wait::Late).map(|(_, text)| text).next()
    };
    for second in 0..120 {
        stand.show(0, &format!("u{second}"), START + 48 * HOUR + second * 1000);
    }
    stand.look(1);
    let text = late(&stand).unwrap();
    assert!(
        text.starts_with("120 of the newest 120 events of type impression came after"),
        "{text}"
    );
    assert!(
        text.ends_with("look at the senders' clocks and at the order in which events are sent")
    );
    let told = &stand.watch.shared.status()["much_late"][0];
    assert_eq!((&told["type"], &told["late"]), (&json!("impression"), &json!(120)));
    for second in 0..400 {
        stand.show(0, &format!("u{second}"), START + 96 * HOUR + second * 1000);
    }
    stand.look(1);
    assert_eq!(late(&stand), None);
    assert_eq!(stand.watch.shared.status()["much_late"][0]["came"], 520);
}
