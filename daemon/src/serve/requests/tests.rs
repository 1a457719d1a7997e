//! Requests and answers over the embedded broker.

use std::time::Instant;

use serde_json::{Value, json};
use sluice_features::time::Span;

use super::*;
use crate::kafka::{EmbeddedBroker, OwnedRecord, Reader, Start};
use crate::metrics::LabelSets;
use crate::serve::KINDS;
use crate::testing::shop::Shop;

const PATIENT: Duration = Duration::from_secs(60);

/// A broker, a shop behind it, and who asks.
struct Stand {
    broker: EmbeddedBroker,
    producer: Arc<Producer>,
    metrics: Arc<Metrics>,
    parts: Option<(Intake, Vec<Answering>)>,
    responses: Reader,
    replies: Reader,
}

impl Stand {
    fn open() -> Self {
        Self::open_with(Clock::system())
    }

    fn open_with(clock: Clock) -> Self {
        let broker = EmbeddedBroker::start().unwrap();
        for topic in ["t.requests", "t.responses", "t.replies"] {
            broker.create_topic(topic, 1).unwrap();
        }
        let shop = Shop::open_with(clock.clone());
        let words = |words: &[&str]| words.iter().map(|word| String::from(*word)).collect();
        let metrics = Arc::new(Metrics::new(&LabelSets {
            topics: words(&["requests"]),
            types: words(&["impression"]),
            reasons: words(&["invalid-json"]),
            tasks: words(&["click"]),
            kinds: words(&KINDS),
            outcomes: words(&OUTCOMES),
            outputs: words(&["responses"]),
            causes: words(&["no-right"]),
            ..LabelSets::default()
        }));
        let producer = Arc::new(producer(broker.connection(), &metrics).unwrap());
        let consumer = consumer(broker.connection(), clock, "test", "", "t.requests").unwrap();
        // Requests are read from the end on: what is sent from here on counts.
        while !matches!(
            consumer.events().recv_timeout(PATIENT).unwrap(),
            ConsumerEvent::Assigned(_)
        ) {}
        let reader =
            |topic| Reader::open(&broker.connection(), topic, Start::Beginning, PATIENT).unwrap();
        let (responses, replies) = (reader("t.responses"), reader("t.replies"));
        let allowed = ["t.replies".to_owned()];
        let readiness = Arc::default();
        let parts = build(
            &shop.serving,
            &metrics,
            "t.responses",
            &allowed,
            consumer,
            &producer,
            &readiness,
        );
        Self { broker, producer, metrics, parts: Some(parts), responses, replies }
    }

    fn ask(&self, value: &[u8], headers: &[Header<'_>]) {
        self.send([value], headers);
    }

    fn ask_all(&self, messages: &[Value]) {
        let messages: Vec<_> = messages.iter().map(|m| serde_json::to_vec(m).unwrap()).collect();
        self.send(messages.iter().map(Vec::as_slice), &[]);
    }

    fn send<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>, headers: &[Header<'_>]) {
        let producer =
            Producer::open(&ProducerSettings::for_responses(self.broker.connection())).unwrap();
        for value in values {
            let record =
                Outgoing { topic: "t.requests", key: Some(b"asker"), value: Some(value), headers };
            producer.send(&record, PATIENT).unwrap();
        }
        producer.flush(PATIENT).unwrap();
    }

    fn ask_json(&self, message: &Value, headers: &[Header<'_>]) {
        self.ask(&serde_json::to_vec(message).unwrap(), headers);
    }
}

fn next(reader: &mut Reader) -> (OwnedRecord, Value) {
    let deadline = Instant::now() + PATIENT;
    loop {
        if let Some(record) = reader.next(Duration::from_millis(50)).unwrap() {
            let value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
            return (record, value);
        }
        assert!(Instant::now() < deadline, "no answer");
    }
}

fn rank(id: &str) -> Value {
    json!({"id": id, "kind": "rank", "user": "u1", "items": ["i01", "i02", "i03"]})
}

#[test]
fn every_request_gets_its_answer_where_it_wants_it() {
    let mut stand = Stand::open();
    let (intake, answering) = stand.parts.take().unwrap();
    let shutdown = Shutdown::new();
    let threads: Vec<_> = answering
        .into_iter()
        .map(|part| {
            let shutdown = shutdown.clone();
            let thread = std::thread::Builder::new().name("answering".into());
            thread.spawn(move || part.run(&shutdown)).unwrap()
        })
        .collect();
    let told = shutdown.clone();
    let intake =
        std::thread::Builder::new().name("intake".into()).spawn(move || intake.run(&told)).unwrap();

    stand.ask_json(&rank("plain"), &[("correlation-id", &[0, 200])]);
    let (record, answer) = next(&mut stand.responses);
    assert_eq!(record.key.as_deref(), Some(&b"plain"[..]));
    assert_eq!(record.headers, [("correlation-id".to_owned(), vec![0, 200])]);
    assert_eq!((&answer["id"], answer["items"].as_array().unwrap().len()), (&json!("plain"), 3));

    stand.ask_json(&rank("elsewhere"), &[("reply-topic", b"t.replies")]);
    let (record, answer) = next(&mut stand.replies);
    assert_eq!((&answer["id"], record.headers.len()), (&json!("elsewhere"), 0));

    stand.ask_json(&rank("stolen"), &[("reply-topic", b"t.requests")]);
    let (_, answer) = next(&mut stand.responses);
    assert_eq!(answer["id"], json!("stolen"));
    assert_eq!(answer["error"]["code"], json!("reply-topic-refused"));

    stand.ask(b"{\"id\":\"bent\",\"kind\":\"guess\"}", &[]);
    let (record, answer) = next(&mut stand.responses);
    assert_eq!((record.key.as_deref(), &answer["id"]), (Some(&b"bent"[..]), &json!("bent")));
    assert_eq!(answer["error"]["code"], json!("unknown-kind"));

    stand.ask(b"not json", &[("correlation-id", b"c7")]);
    let (record, answer) = next(&mut stand.responses);
    assert_eq!((record.key.as_deref(), &answer["id"]), (Some(&b"asker"[..]), &Value::Null));
    assert_eq!(answer["error"]["code"], json!("invalid-json"));
    assert_eq!(record.header("correlation-id"), Some("c7"));

    let mut late = rank("late");
    late["deadline_ms"] = json!(0);
    stand.ask_json(&late, &[]);
    let (_, answer) = next(&mut stand.responses);
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("late"), &json!("deadline")));

    shutdown.request();
    intake.join().unwrap().unwrap();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    let text = stand.metrics.render();
    let count = |kind: &str, outcome: &str, n: u64| {
        let line = format!("requests_total{{kind=\"{kind}\",outcome=\"{outcome}\"}} {n}\n");
        assert!(text.contains(&line), "no {line} in {text}");
    };
    count("rank", "answered", 2);
    count("rank", "refused", 1);
    count("rank", "late", 1);
    count("other", "refused", 2);
    assert_eq!(stand.producer.counts().failed(), 0);
}

#[test]
fn the_daemon_is_not_ready_until_it_reads_requests() {
    let mut stand = Stand::open();
    let (mut intake, _answering) = stand.parts.take().unwrap();
    let connection = stand.broker.connection();
    intake.consumer = consumer(connection, Clock::system(), "again", "", "t.requests").unwrap();
    let readiness = Arc::clone(&intake.readiness);
    readiness.wait_for(Wait::Requests, "requests are not read yet");
    let shutdown = Shutdown::new();
    let told = shutdown.clone();
    let intake = std::thread::Builder::new().spawn(move || intake.run(&told)).unwrap();
    let deadline = Instant::now() + PATIENT;
    while readiness.waits_for(Wait::Requests) {
        assert!(Instant::now() < deadline, "never ready");
        std::thread::sleep(Duration::from_millis(10));
    }
    shutdown.request();
    intake.join().unwrap().unwrap();
}

#[test]
fn a_full_queue_answers_at_once_and_what_waits_is_answered_at_the_end() {
    let mut stand = Stand::open();
    let (mut intake, mut answering) = stand.parts.take().unwrap();
    for i in 0..6 {
        stand.ask_json(&rank(&format!("q{i}")), &[]);
    }
    let mut taken = 0;
    while taken < 6 {
        let event = intake.consumer.events().recv_timeout(PATIENT).unwrap();
        if let ConsumerEvent::Batch(batch) = event {
            taken += batch.len();
            batch.records().for_each(|record| intake.take(&record));
        }
    }
    for i in 4..6 {
        let (_, answer) = next(&mut stand.responses);
        assert_eq!(answer["id"], json!(format!("q{i}")), "the queue holds four");
        assert_eq!(answer["error"]["code"], json!("overloaded"));
    }
    let shutdown = Shutdown::new();
    shutdown.request();
    answering.pop().unwrap().run(&shutdown).unwrap();
    for i in 0..4 {
        let (_, answer) = next(&mut stand.responses);
        assert_eq!((&answer["id"], &answer["error"]), (&json!(format!("q{i}")), &Value::Null));
    }
}

#[test]
fn an_askers_clock_that_is_wrong_spends_no_deadline_and_is_measured() {
    for seconds in [-3600, -60, 60, 3600] {
        let now = Clock::system().wall();
        // Ours stands so far ahead of the asker's, and is not turned: whatever is late here is so by the asker's clock.
        let mut stand = Stand::open_with(Clock::manual(now + Span::seconds(seconds)));
        let (mut intake, mut answering) = stand.parts.take().unwrap();
        let requests: Vec<Value> = (0..101)
            .map(|i| {
                let mut request = rank(&format!("q{i}"));
                request["deadline_ms"] = json!(100);
                request
            })
            .collect();
        stand.ask_all(&requests);
        let mut taken = 0;
        while taken < 101 {
            let event = intake.consumer.events().recv_timeout(PATIENT).unwrap();
            if let ConsumerEvent::Batch(batch) = event {
                taken += batch.len();
                batch.records().for_each(|record| intake.take(&record));
                answering[0]
                    .queue
                    .clone()
                    .try_iter()
                    .try_for_each(|job| answering[0].answer(&job))
                    .unwrap();
            }
        }
        for _ in 0..101 {
            let (_, answer) = next(&mut stand.responses);
            let code = &answer["error"]["code"];
            assert!(*code == Value::Null || *code == json!("overloaded"), "{answer}");
        }
        let page = stand.metrics.render();
        let line = page.lines().find(|line| line.starts_with("sluice_serve_clock_skew_seconds "));
        let skew: f64 = line.unwrap().split(' ').next_back().unwrap().parse().unwrap();
        assert!((skew + seconds as f64).abs() < 30.0, "{skew} for {seconds}");
        assert_eq!(skew < 0.0, seconds > 0, "{skew} for {seconds}");
    }
}
