//! The client code against the embedded broker. No test shares anything with another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn broker(topics: &[(&str, i32)]) -> EmbeddedBroker {
    let broker = EmbeddedBroker::start().unwrap();
    for (name, partitions) in topics {
        broker.create_topic(name, *partitions).unwrap();
    }
    broker
}

fn producer(broker: &EmbeddedBroker) -> Producer {
    Producer::open(&ProducerSettings::new(broker.connection())).unwrap()
}

fn events_source() -> Vec<Source> {
    vec![Source::new(TopicRole::Events, "t.events")]
}

fn settings(broker: &EmbeddedBroker, sources: Vec<Source>) -> ConsumerSettings {
    let mut settings = ConsumerSettings::new(broker.connection(), "test", sources);
    settings.caught_up_within = 0;
    settings
}

/// Sends the numbers as values, the keys being numbers below 50, and waits for their delivery.
fn send_numbers(producer: &Producer, topic: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let key = (number % 50).to_string();
        let value = number.to_string();
        let record = Outgoing {
            topic,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        producer.send(&record, PATIENCE).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// What came out of a consumer.
#[derive(Default)]
struct Seen {
    numbers: Vec<u32>,
    offsets: BTreeMap<Lane, Vec<i64>>,
    states: Vec<String>,
}

impl Seen {
    fn note(&mut self, event: &ConsumerEvent) {
        match event {
            ConsumerEvent::Batch(batch) => {
                for record in batch.records() {
                    let text = std::str::from_utf8(record.value.unwrap_or_default()).unwrap();
                    self.numbers.extend(text.parse::<u32>());
                    self.offsets.entry(record.lane).or_default().push(record.offset);
                }
            }
            other => {
                let text = format!("{other:?}");
                let end = text.find([' ', '(']).unwrap_or(text.len());
                self.states.push(text[..end].to_owned());
            }
        }
    }

    fn has(&self, state: &str) -> bool {
        self.states.iter().any(|seen| seen == state)
    }

    fn assert_numbers_once(&self, range: std::ops::Range<u32>) {
        let mut sorted = self.numbers.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, range.collect::<Vec<_>>());
        for (lane, offsets) in &self.offsets {
            assert!(offsets.is_sorted_by(|a, b| a < b), "{lane:?}: {offsets:?}");
        }
    }
}

/// Takes events, dropping each batch at once, until the condition holds.
fn watch(consumer: &Consumer, seen: &mut Seen, until: impl Fn(&Seen) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !until(seen) {
        match consumer.events().recv_deadline(deadline) {
            Ok(event) => seen.note(&event),
            Err(error) => {
                panic!("{error}; states {:?}, {} numbers", seen.states, seen.numbers.len())
            }
        }
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn read_all(broker: &EmbeddedBroker, topic: &str) -> Vec<OwnedRecord> {
    let mut reader = Reader::open(&broker.connection(), topic, Start::Beginning, PATIENCE).unwrap();
    reader.read_to_end(PATIENCE).unwrap()
}

#[test]
fn an_option_that_we_set_ourselves_is_refused_among_the_extra_ones() {
    let all = |connection: &Connection| {
        let settings = ConsumerSettings::new(connection.clone(), "g", events_source());
        [
            consumer::poll::options(&settings),
            producer::options(&ProducerSettings::new(connection.clone())),
            producer::options(&ProducerSettings::for_responses(connection.clone())),
        ]
    };
    let plain = Connection::plain("a:1");
    let mut owned = 0;
    for (i, options) in all(&plain).iter().enumerate() {
        for key in options.config_map().keys() {
            let mut connection = plain.clone();
            connection.extra.insert((*key).to_owned(), "theirs".into());
            let kept = all(&connection)[i].get(key).is_some_and(|value| value.contains("theirs"));
            if !kept {
                let place = format!("extra.{key}");
                let mistakes = connection.mistakes();
                let mistake = mistakes.iter().find(|mistake| mistake.key == place);
                let told = &mistake.unwrap_or_else(|| panic!("{key} is overridden silently")).text;
                assert!(told.contains("remove it") || told.contains("instead"), "{told}");
                owned += 1;
            }
        }
    }
    assert!(owned > 20, "{owned}");
}

#[test]
fn records_arrive_as_they_were_sent() {
    let broker = broker(&[("t.requests", 1)]);
    let producer = producer(&broker);
    let mut source = Source::new(TopicRole::Requests, "t.requests");
    source.start = Start::Beginning;
    let headers: &[Header<'_>] =
        &[("reply-topic", b"answers"), ("other", b"x"), ("correlation-id", &[0, 200])];
    let records = [
        Outgoing { topic: "t.requests", key: Some(b"k"), value: Some(b"v"), headers },
        Outgoing { topic: "t.requests", key: Some(b"gone"), value: None, headers: &[] },
        Outgoing { topic: "t.requests", key: None, value: Some(b""), headers: &[] },
    ];
    for record in &records {
        producer.send(record, PATIENCE).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    assert_eq!(producer.counts(), ProducerCounts { delivered: 3, undelivered: [0; 5] });
    assert_eq!(producer.counts_by_topic()["t.requests"].delivered, 3);

    let consumer = Consumer::start(settings(&broker, vec![source])).unwrap();
    let mut found = 0;
    while found < 3 {
        let ConsumerEvent::Batch(batch) = consumer.events().recv_timeout(PATIENCE).unwrap() else {
            continue;
        };
        for record in batch.records() {
            let sent = &records[found];
            assert_eq!(
                (record.key, record.value, record.offset),
                (sent.key, sent.value, found as i64)
            );
            assert!(record.timestamp.is_some_and(|time| time > 1_600_000_000_000));
            let wanted = if found == 0 { Some(&b"answers"[..]) } else { None };
            assert_eq!(record.reply_topic, wanted);
            assert_eq!(record.correlation_id.is_some(), found == 0);
            found += 1;
        }
    }
    consumer.stop(PATIENCE).unwrap();
}

#[test]
fn every_partition_is_read_once_and_in_order() {
    let broker = broker(&[("t.events", 4)]);
    let producer = producer(&broker);
    send_numbers(&producer, "t.events", 0..5000);
    let consumer = Consumer::start(settings(&broker, events_source())).unwrap();
    let mut seen = Seen::default();
    watch(&consumer, &mut seen, |seen| seen.has("CaughtUp"));
    seen.assert_numbers_once(0..5000);
    assert_eq!(seen.offsets.len(), 4);
    send_numbers(&producer, "t.events", 5000..6000);
    watch(&consumer, &mut seen, |seen| seen.numbers.len() >= 6000);
    seen.assert_numbers_once(0..6000);
    let gauges = consumer.gauges();
    assert_eq!((gauges.records, gauges.bytes_in_flight, gauges.lanes.len()), (6000, 0, 4));
    assert!(gauges.connected && !gauges.paused && gauges.poll_age < Duration::from_secs(5));
    consumer.stop(PATIENCE).unwrap();
}

#[test]
fn reading_continues_at_the_callers_offsets() {
    let broker = broker(&[("t.events", 2)]);
    let producer = producer(&broker);
    send_numbers(&producer, "t.events", 0..1000);
    let mut settings = settings(&broker, events_source());
    let lane = |partition| Lane { role: TopicRole::Events, partition };
    settings.offsets.insert(lane(0), NextOffset(100));
    let consumer = Consumer::start(settings).unwrap();
    let mut seen = Seen::default();
    watch(&consumer, &mut seen, |seen| seen.has("CaughtUp"));
    assert_eq!(seen.offsets[&lane(0)][0], 100);
    assert_eq!(seen.offsets[&lane(1)][0], 0);
    assert_eq!(seen.numbers.len(), 900);
}

#[test]
fn an_offset_that_is_not_in_the_log_stops_the_consumer() {
    let broker = broker(&[("t.events", 1)]);
    let mut settings = settings(&broker, events_source());
    settings.offsets.insert(Lane { role: TopicRole::Events, partition: 0 }, NextOffset(7));
    let consumer = Consumer::start(settings).unwrap();
    match consumer.events().recv_timeout(PATIENCE).unwrap() {
        ConsumerEvent::Fatal(Trouble::OutOfRange { wanted: 7, low: 0, high: 0, .. }) => {}
        other => panic!("{other:?}"),
    }
    wait_until("the end of the thread", || {
        matches!(consumer.events().try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected))
    });
}

/// Reads what a topic of one partition holds and returns where to go on, with the mark of the last record.
fn read_up(broker: &EmbeddedBroker, numbers: usize) -> (Lane, NextOffset, Mark) {
    let consumer = Consumer::start(settings(broker, events_source())).unwrap();
    let (mut left, mut last) = (numbers, None);
    while left > 0 {
        if let ConsumerEvent::Batch(batch) = consumer.events().recv_timeout(PATIENCE).unwrap() {
            left -= batch.len();
            last = Some((batch.lane(), batch.next_offset(), batch.mark().unwrap()));
        }
    }
    consumer.stop(PATIENCE).unwrap();
    last.unwrap()
}

#[test]
fn another_topic_under_the_same_name_is_known_by_its_records() {
    let first = broker(&[("t.events", 1)]);
    send_numbers(&producer(&first), "t.events", 0..20);
    let (lane, next, mark) = read_up(&first, 20);
    // Longer than the other one, as long, shorter; the same topic at last.
    let others = [30, 20, 10].map(|count| {
        let other = broker(&[("t.events", 1)]);
        send_numbers(&producer(&other), "t.events", 100..100 + count);
        other
    });
    let began = |broker: &EmbeddedBroker, accept| {
        let mut settings = settings(broker, events_source());
        settings.offsets.insert(lane, next);
        settings.marks.insert(lane, mark);
        settings.accept_gaps = accept;
        Consumer::start(settings).unwrap()
    };
    for other in &others {
        let refused = began(other, false);
        match refused.events().recv_timeout(PATIENCE).unwrap() {
            ConsumerEvent::Fatal(trouble) => {
                let told = trouble.to_string();
                assert!(told.contains("made anew") && told.contains("--accept-gap"), "{told}");
            }
            event => panic!("{event:?}"),
        }
        let accepted = began(other, true);
        let mut seen = Seen::default();
        watch(&accepted, &mut seen, |seen| seen.has("CaughtUp"));
        assert_eq!((seen.offsets[&lane][0], seen.has("Gap")), (0, true), "from its beginning");
    }
    send_numbers(&producer(&first), "t.events", 20..25);
    let same = began(&first, false);
    let mut seen = Seen::default();
    watch(&same, &mut seen, |seen| seen.has("CaughtUp"));
    assert_eq!((seen.offsets[&lane].len(), seen.has("Gap")), (5, false));
}

#[test]
fn catalogue_topics_are_read_to_their_end_before_events() {
    let broker = broker(&[("t.items", 2), ("t.users", 1), ("t.events", 1)]);
    let producer = producer(&broker);
    send_numbers(&producer, "t.events", 0..100);
    send_numbers(&producer, "t.items", 1000..3000);
    let sources = vec![
        Source::new(TopicRole::Events, "t.events"),
        Source::new(TopicRole::Items, "t.items"),
        Source::new(TopicRole::Users, "t.users"),
    ];
    let consumer = Consumer::start(settings(&broker, sources)).unwrap();
    let mut seen = Seen::default();
    watch(&consumer, &mut seen, |seen| seen.has("ReadUp"));
    seen.assert_numbers_once(1000..3000);
    watch(&consumer, &mut seen, |seen| seen.has("CaughtUp"));
    assert_eq!(seen.numbers.len(), 2100);
    send_numbers(&producer, "t.items", 3000..3010);
    send_numbers(&producer, "t.events", 100..110);
    watch(&consumer, &mut seen, |seen| seen.numbers.len() >= 2120);
    assert_eq!(seen.states.iter().filter(|state| *state == "ReadUp").count(), 1);
}

#[test]
fn a_full_owner_pauses_reading_and_loses_nothing() {
    for role in [TopicRole::Events, TopicRole::Requests] {
        a_full_owner_pauses(role);
    }
}

/// Questions like events: a flood of them waits in Kafka.
fn a_full_owner_pauses(role: TopicRole) {
    let broker = broker(&[("t", 3)]);
    let producer = producer(&broker);
    send_numbers(&producer, "t", 0..20_000);
    let mut source = Source::new(role, "t");
    source.start = Start::Beginning;
    let mut settings = settings(&broker, vec![source]);
    settings.queue_high = 64 << 10;
    settings.queue_low = 16 << 10;
    let (high, slack) = (settings.queue_high, 3 * settings.batch.records * 64);
    let consumer = Consumer::start(settings).unwrap();
    let mut seen = Seen::default();
    let mut held = Vec::new();
    let mut pauses = 0;
    let deadline = Instant::now() + PATIENCE;
    while seen.numbers.len() < 20_000 {
        match consumer.events().recv_timeout(Duration::from_millis(20)) {
            Ok(event) => {
                seen.note(&event);
                held.push(event);
            }
            // Nothing comes while everything is held: the owner lets go.
            Err(_) if consumer.gauges().paused => {
                pauses += 1;
                assert!(consumer.gauges().bytes_in_flight <= high + slack);
                held.clear();
            }
            Err(_) => assert!(Instant::now() < deadline, "{} numbers", seen.numbers.len()),
        }
    }
    assert!(pauses > 3, "{pauses} pauses");
    seen.assert_numbers_once(0..20_000);
}

#[test]
fn an_owner_who_takes_nothing_does_not_block_the_thread() {
    let broker = broker(&[("t.events", 1)]);
    send_numbers(&producer(&broker), "t.events", 0..5000);
    let mut settings = settings(&broker, events_source());
    settings.queue_batches = 2;
    let consumer = Consumer::start(settings).unwrap();
    wait_until("a pause", || consumer.gauges().paused);
    let age = (0..50).map(|_| {
        std::thread::sleep(Duration::from_millis(2));
        consumer.gauges().poll_age
    });
    assert!(age.max().unwrap() < Duration::from_secs(5));
    let mut seen = Seen::default();
    watch(&consumer, &mut seen, |seen| seen.numbers.len() >= 5000);
    seen.assert_numbers_once(0..5000);
    consumer.stop(PATIENCE).unwrap();
}

#[test]
fn reading_goes_on_after_the_broker_was_away() {
    let broker = broker(&[("t.events", 2)]);
    let producer = producer(&broker);
    send_numbers(&producer, "t.events", 0..500);
    let consumer = Consumer::start(settings(&broker, events_source())).unwrap();
    let mut seen = Seen::default();
    watch(&consumer, &mut seen, |seen| seen.numbers.len() >= 500);
    broker.down().unwrap();
    watch(&consumer, &mut seen, |seen| seen.has("BrokersDown"));
    assert!(!consumer.gauges().connected);
    broker.up().unwrap();
    send_numbers(&producer, "t.events", 500..1000);
    watch(&consumer, &mut seen, |seen| seen.numbers.len() >= 1000 && seen.has("BrokersBack"));
    seen.assert_numbers_once(0..1000);
    assert!(consumer.gauges().connected);
}

#[test]
fn a_broker_that_is_away_at_the_start_is_waited_for() {
    let broker = broker(&[("t.events", 1)]);
    send_numbers(&producer(&broker), "t.events", 0..10);
    broker.down().unwrap();
    let consumer = Consumer::start(settings(&broker, events_source())).unwrap();
    let mut seen = Seen::default();
    watch(&consumer, &mut seen, |seen| seen.has("BrokersDown"));
    broker.up().unwrap();
    watch(&consumer, &mut seen, |seen| seen.numbers.len() >= 10);
    assert_eq!(seen.states[..3], ["BrokersDown", "BrokersBack", "Assigned"]);
}

#[test]
fn stopping_does_not_wait_for_a_dead_broker() {
    let broker = broker(&[("t.events", 2)]);
    send_numbers(&producer(&broker), "t.events", 0..100);
    let consumer = Consumer::start(settings(&broker, events_source())).unwrap();
    let mut seen = Seen::default();
    watch(&consumer, &mut seen, |seen| seen.numbers.len() >= 100);
    broker.down().unwrap();
    watch(&consumer, &mut seen, |seen| seen.has("BrokersDown"));
    assert!(consumer.commit(vec![(Lane { role: TopicRole::Events, partition: 0 }, NextOffset(1))]));
    consumer.stop(Duration::from_secs(5)).unwrap();
}

#[test]
fn commits_are_answered() {
    let broker = broker(&[("t.events", 1)]);
    send_numbers(&producer(&broker), "t.events", 0..100);
    let consumer = Consumer::start(settings(&broker, events_source())).unwrap();
    let mut seen = Seen::default();
    watch(&consumer, &mut seen, |seen| seen.numbers.len() >= 100);
    let lane = Lane { role: TopicRole::Events, partition: 0 };
    assert!(consumer.commit(vec![(lane, NextOffset(100))]));
    let committed =
        || Probe::committed(&broker.connection(), "test", "t.events", PATIENCE).unwrap();
    wait_until("the commit", || committed() == [Some(NextOffset(100))]);
    assert_eq!(consumer.gauges().commits_failed, 0);
    consumer.stop(PATIENCE).unwrap();
}

#[test]
fn a_commit_that_is_refused_is_counted_and_reading_goes_on() {
    let broker = broker(&[("t.events", 1)]);
    let producer = producer(&broker);
    send_numbers(&producer, "t.events", 0..100);
    let consumer = Consumer::start(settings(&broker, events_source())).unwrap();
    let mut seen = Seen::default();
    watch(&consumer, &mut seen, |seen| seen.numbers.len() >= 100);
    let lane = Lane { role: TopicRole::Events, partition: 0 };
    broker.refuse_commits(1);
    assert!(consumer.commit(vec![(lane, NextOffset(100))]));
    wait_until("the refusal", || consumer.gauges().commits_failed == 1);
    send_numbers(&producer, "t.events", 100..200);
    watch(&consumer, &mut seen, |seen| seen.numbers.len() >= 200);
    assert!(consumer.commit(vec![(lane, NextOffset(200))]));
    let committed =
        || Probe::committed(&broker.connection(), "test", "t.events", PATIENCE).unwrap();
    wait_until("the commit", || committed() == [Some(NextOffset(200))]);
    assert_eq!(consumer.gauges().commits_failed, 1);
    consumer.stop(PATIENCE).unwrap();
}

#[test]
fn a_full_queue_is_told_and_everything_arrives_later() {
    let broker = broker(&[("t.events", 1)]);
    let mut settings = ProducerSettings::new(broker.connection());
    settings.queue_records = 100;
    let producer = Producer::open(&settings).unwrap();
    broker.down().unwrap();
    let record = Outgoing { topic: "t.events", key: None, value: Some(b"x"), headers: &[] };
    let mut sent = 0;
    let trouble = loop {
        match producer.send(&record, Duration::from_millis(30)) {
            Ok(()) => sent += 1,
            Err(trouble) => break trouble,
        }
    };
    assert_eq!(trouble, Trouble::QueueFull { waited: Duration::from_millis(30) });
    assert_eq!((sent, producer.in_flight()), (100, 100));
    let late = producer.flush(Duration::from_millis(100)).unwrap_err();
    assert!(matches!(late, Trouble::Undelivered { left: 100, .. }), "{late}");
    broker.up().unwrap();
    producer.send(&record, PATIENCE).unwrap();
    producer.flush(PATIENCE).unwrap();
    assert_eq!(producer.counts().delivered, 101);
    let range = Probe::open(&broker.connection()).unwrap().range("t.events", 0, PATIENCE).unwrap();
    assert_eq!(range, PartitionRange { low: 0, high: 101 });
}

#[test]
fn a_record_that_cannot_be_delivered_in_time_is_counted() {
    let broker = broker(&[("t.events", 1)]);
    let mut settings = ProducerSettings::for_responses(broker.connection());
    settings.delivery_timeout = Some(Duration::from_millis(200));
    let producer = Producer::open(&settings).unwrap();
    broker.down().unwrap();
    let record = Outgoing { topic: "t.events", key: None, value: Some(b"x"), headers: &[] };
    producer.send(&record, Duration::ZERO).unwrap();
    producer.flush(PATIENCE).unwrap();
    assert_eq!(producer.counts(), ProducerCounts { delivered: 0, undelivered: [1, 0, 0, 0, 0] });
    let failure = producer.take_failure().unwrap();
    assert_eq!((failure.cause, &*failure.topic), (Undelivered::TimedOut, "t.events"));
    assert_eq!(producer.take_failure(), None);
}

#[test]
fn dead_letters_are_settled_when_they_are_written_and_not_before() {
    let broker = broker(&[("t.dead-letter", 1)]);
    let origin = Origin { topic: "t.events", partition: 3, offset: 42, timestamp: None };
    let letter = DeadLetter {
        origin,
        key: None,
        value: Some(b"{"),
        reason: "json",
        field: None,
        detail: None,
    };
    let through = |delivery_timeout| {
        let settings =
            ProducerSettings { delivery_timeout, ..ProducerSettings::new(broker.connection()) };
        DeadLetters::new(Arc::new(Producer::open(&settings).unwrap()), "t.dead-letter")
    };
    let (patient, hasty) = (through(None), through(Some(Duration::from_millis(200))));
    patient.settle(Duration::ZERO).unwrap();
    broker.down().unwrap();
    [&patient, &hasty].iter().for_each(|letters| letters.send(&letter, PATIENCE).unwrap());
    let away = patient.settle(Duration::from_millis(50)).unwrap_err();
    assert!(away.is_retriable(), "{away}");
    let lost = hasty.settle(PATIENCE).unwrap_err();
    assert!(!lost.is_retriable() && lost.to_string().contains("1 dead letters"), "{lost}");
    broker.up().unwrap();
    patient.settle(PATIENCE).unwrap();
    assert_eq!(read_all(&broker, "t.dead-letter").len(), 1);
    assert!(hasty.settle(PATIENCE).is_err(), "what is lost stays lost");
}

#[test]
fn a_dead_letter_carries_the_record_and_its_reason() {
    let broker = broker(&[("t.requests", 1)]);
    let producer = Arc::new(producer(&broker));
    let letters = DeadLetters::new(Arc::clone(&producer), "t.requests");
    let huge = vec![b'x'; VALUE_LIMIT + 1];
    let origin = Origin { topic: "t.events", partition: 3, offset: 42, timestamp: Some(5) };
    let letter = DeadLetter {
        origin,
        key: Some(b"712"),
        value: Some(&huge),
        reason: "too_long",
        field: Some("item"),
        detail: Some("found 300 bytes"),
    };
    letters.send(&letter, PATIENCE).unwrap();
    letters
        .send(&DeadLetter { value: Some(b"{"), field: None, detail: None, ..letter }, PATIENCE)
        .unwrap();
    producer.flush(PATIENCE).unwrap();

    let found = read_all(&broker, "t.requests");
    let header = |index: usize, key: &str| found[index].header(key);
    assert_eq!(found[0].value.as_deref().map(<[u8]>::len), Some(VALUE_LIMIT));
    assert_eq!(found[0].key.as_deref(), Some(&b"712"[..]));
    assert_eq!(header(0, "topic"), Some("t.events"));
    assert_eq!((header(0, "partition"), header(0, "offset")), (Some("3"), Some("42")));
    assert_eq!((header(0, "reason"), header(0, "field")), (Some("too_long"), Some("item")));
    assert_eq!((header(0, "detail"), header(1, "detail")), (Some("found 300 bytes"), None));
    assert_eq!((header(0, "value-length"), header(0, "timestamp")), (Some("65537"), Some("5")));
    let hash = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&huge));
    assert_eq!(header(0, "value-xxh3"), Some(hash.as_str()));
    assert_eq!(found[1].value.as_deref(), Some(&b"{"[..]));
    assert_eq!((header(1, "field"), header(1, "value-length")), (None, None));
}

#[test]
fn partitioners_choose_what_the_library_chooses() {
    let own = |connection: Connection| {
        let producer = Producer::open(&ProducerSettings::new(connection)).unwrap();
        Box::new(move |key: &[u8]| {
            let record =
                Outgoing { topic: "t.events", key: Some(key), value: Some(b"1"), headers: &[] };
            producer.send(&record, PATIENCE).unwrap();
            producer.flush(PATIENCE).unwrap();
        }) as Box<dyn Fn(&[u8])>
    };
    let other = |name: &'static str| {
        move |connection: Connection| {
            let stranger = Stranger::open(&connection, name);
            Box::new(move |key: &[u8]| stranger.send("t.events", key, b"1", None))
                as Box<dyn Fn(&[u8])>
        }
    };
    // Our producers choose as Java's do.
    choose_alike(Partitioner::Murmur2, own);
    choose_alike(Partitioner::Murmur2, other("murmur2_random"));
    choose_alike(Partitioner::Crc32, other("consistent_random"));
    choose_alike(Partitioner::Fnv1a, other("fnv1a_random"));
}

/// Sends keys of all lengths, and finds each where the rule puts it.
fn choose_alike(rule: Partitioner, sender: impl Fn(Connection) -> Box<dyn Fn(&[u8])>) {
    let broker = broker(&[("t.events", 7)]);
    let send = sender(broker.connection());
    let text = b"user-7012\xc3\xbc\xff\x00 4711";
    (1..=text.len()).for_each(|length| send(&text[..length]));
    let found = read_all(&broker, "t.events");
    assert_eq!(found.len(), text.len());
    for record in found {
        let key = record.key.unwrap();
        assert_eq!(rule.partition(&key, 7), record.partition as u32, "{rule:?} {key:?}");
    }
}

/// A port that answers whatever comes with these bytes, and closes.
fn port_that_answers(answer: &'static [u8]) -> String {
    use std::io::{Read, Write};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = move || {
        for mut stream in listener.incoming().flatten() {
            drop(stream.read(&mut [0; 4096]));
            drop(stream.write_all(answer));
        }
    };
    std::thread::Builder::new().name("port".into()).spawn(serve).unwrap();
    address
}

#[test]
fn a_port_that_speaks_another_protocol_is_told_in_words() {
    const ALERT: &[u8] = b"\x15\x03\x03\x00\x02\x02\x46";
    let mut cases = vec![
        (Security::Plaintext, ALERT, "set security to ssl or sasl_ssl"),
        (
            Security::Plaintext,
            b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76",
            "the port speaks TLS and we do not",
        ),
        (Security::Plaintext, b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP and not Kafka"),
    ];
    if cfg!(any(feature = "tls", feature = "tls-vendored")) {
        // Kafka closes; others answer.
        cases.push((Security::Ssl, b"", "we speak TLS and the port does not"));
        cases.push((
            Security::Ssl,
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "we speak TLS and the port does not",
        ));
    }
    for (security, answer, told) in cases {
        let mut connection = Connection::plain(port_that_answers(answer));
        connection.security = security;
        // Again where the machine is too busy to have spoken with the port in time.
        let start = Instant::now();
        loop {
            let probe = Probe::open(&connection).unwrap();
            let trouble = probe.partitions("t", Duration::from_secs(1)).unwrap_err();
            assert!(trouble.is_retriable(), "{trouble}");
            if trouble.to_string().contains(told) {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "{told}: {trouble}");
        }
    }
}
