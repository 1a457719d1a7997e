//! The client code of the daemon, and the tools, against a real Apache Kafka.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluice_daemon::kafka::{
    Admin, Connection, Consumer, ConsumerEvent, ConsumerSettings, Header, Lane, NextOffset,
    Outgoing, Probe, Reader, Secret, Source, Start, TopicRole, Trouble,
};

use crate::Test;
use crate::expect_eq;
use crate::harness::real_kafka::{Door, RealKafka, shared};
use crate::harness::records::{Collected, producer, send_numbers};
use crate::harness::{Outcome, PATIENCE, process, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("records_tombstones_and_headers_arrive_as_they_were_sent", records_arrive_as_sent),
    ("reading_continues_at_the_callers_offsets_and_commits_are_visible", offsets_and_commits),
    ("a_compacted_topic_is_read_up_before_events", a_compacted_topic_is_read_up),
    ("nothing_is_lost_or_doubled_over_restarts_of_the_broker", restarts_of_the_broker),
    ("tls_and_passwords_work_and_a_wrong_one_is_told", tls_and_passwords),
    ("a_missing_topic_is_named", a_missing_topic_is_named),
    ("a_produced_file_arrives_and_a_question_is_answered", produce_and_query),
    ("topics_are_created_once_and_compared_afterwards", topics_are_created_and_compared),
    ("a_deleted_topic_is_gone_and_one_that_never_was_is_no_trouble", a_deleted_topic_is_gone),
];

fn lane(role: TopicRole, partition: i32) -> Lane {
    Lane { role, partition }
}

fn settings(kafka: &RealKafka, group: &str, sources: Vec<Source>) -> ConsumerSettings {
    let mut settings = ConsumerSettings::new(kafka.connection(), group, sources);
    settings.caught_up_within = 0;
    settings
}

fn records_arrive_as_sent() -> Outcome {
    let kafka = shared()?;
    kafka.create_topic("round.requests", 1, &[])?;
    let producer = producer(kafka.connection())?;
    let headers: &[Header<'_>] = &[("reply-topic", b"answers"), ("correlation-id", &[0, 200])];
    let topic = "round.requests";
    let sent = [
        Outgoing { topic, key: Some(b"k"), value: Some("m\u{fc}ll".as_bytes()), headers },
        Outgoing { topic, key: Some(b"gone"), value: None, headers: &[] },
        Outgoing { topic, key: None, value: Some(b""), headers: &[] },
    ];
    for record in &sent {
        producer.send(record, PATIENCE)?;
    }
    producer.flush(PATIENCE)?;
    expect_eq!(producer.counts().delivered, 3);

    let mut source = Source::new(TopicRole::Requests, topic);
    source.start = Start::Beginning;
    let consumer = Consumer::start(settings(&kafka, "round", vec![source]))?;
    let mut found = 0;
    while found < sent.len() {
        let ConsumerEvent::Batch(batch) = consumer.events().recv_timeout(PATIENCE)? else {
            continue;
        };
        for record in batch.records() {
            expect_eq!((record.key, record.value), (sent[found].key, sent[found].value));
            let asks = found == 0;
            expect_eq!(record.reply_topic, asks.then_some(&b"answers"[..]));
            expect_eq!(record.correlation_id, asks.then_some(&[0, 200][..]));
            found += 1;
        }
    }
    Ok(consumer.stop(PATIENCE)?)
}

fn offsets_and_commits() -> Outcome {
    let kafka = shared()?;
    kafka.create_topic("offsets.events", 2, &[])?;
    let producer = producer(kafka.connection())?;
    send_numbers(&producer, "offsets.events", 0..2000)?;
    let sources = || vec![Source::new(TopicRole::Events, "offsets.events")];
    let (zero, one) = (lane(TopicRole::Events, 0), lane(TopicRole::Events, 1));

    let consumer = Consumer::start(settings(&kafka, "offsets", sources()))?;
    let mut first = Collected::default();
    first.watch(&consumer, |seen| seen.has("CaughtUp"))?;
    first.check_numbers(0..2000)?;
    let ends = [zero, one].map(|lane| NextOffset(first.offsets[&lane].len() as i64));
    anyhow::ensure!(consumer.commit(vec![(zero, ends[0]), (one, ends[1])]));
    wait_for("the commit", || {
        let committed =
            Probe::committed(&kafka.connection(), "offsets", "offsets.events", PATIENCE)?;
        Ok((committed == ends.map(Some)).then_some(()))
    })?;
    consumer.stop(PATIENCE)?;

    // What Kafka has committed does not matter: the caller's offsets do.
    let mut settings = settings(&kafka, "offsets", sources());
    settings.offsets.insert(zero, NextOffset(17));
    settings.offsets.insert(one, ends[1]);
    let consumer = Consumer::start(settings)?;
    let mut second = Collected::default();
    second.watch(&consumer, |seen| seen.has("CaughtUp"))?;
    expect_eq!(second.offsets[&zero], (17..ends[0].0).collect::<Vec<_>>());
    expect_eq!(second.offsets.get(&one), None);
    Ok(consumer.stop(PATIENCE)?)
}

fn a_compacted_topic_is_read_up() -> Outcome {
    let kafka = shared()?;
    let compaction = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "200"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "500"),
    ];
    kafka.create_topic("compact.items", 1, &compaction)?;
    kafka.create_topic("compact.events", 1, &[])?;
    let producer = producer(kafka.connection())?;
    send_numbers(&producer, "compact.events", 900_000..900_100)?;
    let mut sent = 0;
    let held = wait_for("compaction", || {
        send_numbers(&producer, "compact.items", sent..sent + 50)?;
        sent += 50;
        let mut reader =
            Reader::open(&kafka.connection(), "compact.items", Start::Beginning, PATIENCE)?;
        let held = reader.read_to_end(PATIENCE)?.len();
        Ok((held < sent as usize / 2).then_some(held))
    })?;
    let tombstone = Outgoing { topic: "compact.items", key: Some(b"7"), value: None, headers: &[] };
    producer.send(&tombstone, PATIENCE)?;
    producer.flush(PATIENCE)?;

    let sources = vec![
        Source::new(TopicRole::Events, "compact.events"),
        Source::new(TopicRole::Items, "compact.items"),
    ];
    let consumer = Consumer::start(settings(&kafka, "compact", sources))?;
    let mut seen = Collected::default();
    seen.watch(&consumer, |seen| seen.has("ReadUp"))?;
    expect_eq!(seen.tombstones, ["7"]);
    expect_eq!(seen.numbers.len() <= held, true);
    // The last round of values is the state of every key.
    let newest: Vec<u32> =
        seen.numbers.iter().copied().filter(|number| *number >= sent - 50).collect();
    expect_eq!(newest, (sent - 50..sent).collect::<Vec<_>>());
    expect_eq!(seen.offsets.contains_key(&lane(TopicRole::Events, 0)), false);
    seen.watch(&consumer, |seen| seen.has("CaughtUp"))?;
    expect_eq!(seen.offsets[&lane(TopicRole::Events, 0)].len(), 100);
    Ok(consumer.stop(PATIENCE)?)
}

fn restarts_of_the_broker() -> Outcome {
    // Its own broker: the others would notice.
    let kafka = RealKafka::start(Door::Open)?;
    kafka.create_topic("restart.events", 3, &[])?;
    let producer = producer(kafka.connection())?;
    send_numbers(&producer, "restart.events", 0..1000)?;
    let sources = vec![Source::new(TopicRole::Events, "restart.events")];
    let consumer = Consumer::start(settings(&kafka, "restart", sources))?;
    let mut seen = Collected::default();
    seen.watch(&consumer, |seen| seen.numbers.len() >= 1000)?;
    let mut sent = 1000;
    for stop in [RealKafka::down, RealKafka::kill] {
        seen.states.clear();
        stop(&kafka);
        seen.watch(&consumer, |seen| seen.has("BrokersDown"))?;
        let gone = || Ok((!consumer.gauges().connected).then_some(()));
        wait_for("the loss of the connection", gone)?;
        // Sent while nobody is there: delivered after the return, none twice.
        let value = sent.to_string();
        let record = Outgoing {
            topic: "restart.events",
            key: Some(b"0"),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        producer.send(&record, Duration::ZERO)?;
        kafka.up()?;
        send_numbers_after(&producer, sent)?;
        sent += 1000;
        seen.watch(&consumer, |seen| {
            seen.numbers.len() >= sent as usize && seen.has("BrokersBack")
        })?;
        seen.check_numbers(0..sent)?;
    }
    expect_eq!(producer.counts().failed(), 0);
    Ok(consumer.stop(PATIENCE)?)
}

/// Sends the rest of a thousand whose first number waits in the producer already.
fn send_numbers_after(producer: &sluice_daemon::kafka::Producer, first: u32) -> Outcome {
    producer.flush(PATIENCE)?;
    send_numbers(producer, "restart.events", first + 1..first + 1000)
}

fn tls_and_passwords() -> Outcome {
    let kafka = RealKafka::start(Door::Secured)?;
    kafka.create_topic("secret.events", 1, &[])?;
    let producer = producer(kafka.connection())?;
    send_numbers(&producer, "secret.events", 0..100)?;
    let sources = || vec![Source::new(TopicRole::Events, "secret.events")];
    let consumer = Consumer::start(settings(&kafka, "secret", sources()))?;
    let mut seen = Collected::default();
    seen.watch(&consumer, |seen| seen.has("CaughtUp"))?;
    seen.check_numbers(0..100)?;
    consumer.stop(PATIENCE)?;

    let mut wrong = settings(&kafka, "secret", sources());
    if let Some(sasl) = &mut wrong.connection.sasl {
        sasl.password = Secret::new("wrong-horse");
    }
    let consumer = Consumer::start(wrong)?;
    let told = match consumer.events().recv_timeout(PATIENCE)? {
        ConsumerEvent::Fatal(trouble @ Trouble::Refused { .. }) => trouble.to_string(),
        other => anyhow::bail!("{other:?}"),
    };
    anyhow::ensure!(told.contains("uthentication") && !told.contains("wrong-horse"), "{told}");

    // A certificate that nobody vouches for, or no TLS at all: no connection, and the reason is told.
    let mut stranger = settings(&kafka, "secret", sources());
    stranger.connection.tls.ca = None;
    let plain = Connection::plain(&kafka.connection().brokers);
    let plain = ConsumerSettings::new(plain, "secret", sources());
    for (settings, told) in
        [(stranger, "certificate"), (plain, "If it speaks TLS, set security to")]
    {
        let consumer = Consumer::start(settings)?;
        match consumer.events().recv_timeout(PATIENCE)? {
            ConsumerEvent::BrokersDown { reason } => {
                anyhow::ensure!(reason.contains(told), "{reason}");
            }
            other => anyhow::bail!("{other:?}"),
        }
    }
    Ok(())
}

fn a_missing_topic_is_named() -> Outcome {
    let kafka = shared()?;
    let sources = vec![Source::new(TopicRole::Events, "no.such.topic")];
    let consumer = Consumer::start(settings(&kafka, "missing", sources))?;
    match consumer.events().recv_timeout(PATIENCE)? {
        ConsumerEvent::Fatal(Trouble::MissingTopic { topic }) => expect_eq!(topic, "no.such.topic"),
        other => anyhow::bail!("{other:?}"),
    }
    Ok(consumer.stop(PATIENCE)?)
}

fn topics_are_created_and_compared() -> Outcome {
    let kafka = shared()?;
    let brokers = kafka.brokers();
    let sluice = |action: &str, partitions: &str| {
        let flags = ["--brokers", &brokers, "--prefix", "plan", "--partitions", partitions];
        process::run(
            "sluice",
            ["topics", action, flags[0], flags[1], flags[2], flags[3], flags[4], flags[5]],
        )
    };
    let before = sluice("plan", "2")?.succeeded()?;
    anyhow::ensure!(before.stdout.contains("8 topics to create"), "{}", before.stdout);
    expect_eq!(Probe::open(&kafka.connection())?.partitions("plan.events", PATIENCE)?, None);

    let applied = sluice("apply", "2")?.succeeded()?;
    anyhow::ensure!(applied.stdout.contains("8 topics created"), "{}", applied.stdout);
    expect_eq!(Probe::open(&kafka.connection())?.partitions("plan.events", PATIENCE)?, Some(2));

    let after = sluice("plan", "2")?.succeeded()?;
    anyhow::ensure!(after.stdout.contains("nothing to do"), "{}", after.stdout);

    // As many partitions as the events have. Whose clock dates records is advised, not needed: told with the command, and no failure.
    for topic in ["stamps.events", "stamps.items"] {
        let policy = if topic.ends_with("items") { "compact" } else { "delete" };
        kafka.create_topic(topic, 2, &[("cleanup.policy", policy)])?;
    }
    for action in ["plan", "apply", "plan"] {
        let told = process::Running::start(
            "sluice",
            &["topics", action, "--brokers", &brokers, "--prefix", "stamps"],
        )?;
        let told = told.wait()?.succeeded()?.stdout;
        for (topic, dated) in
            [("events", false), ("items", false), ("users", true), ("requests", true)]
        {
            let command = format!(
                "kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics \
                 --entity-name stamps.{topic} --add-config message.timestamp.type=LogAppendTime"
            );
            expect_eq!((topic, told.contains(&command)), (topic, !dated));
        }
    }

    let different = sluice("plan", "3")?;
    expect_eq!(different.code, Some(1));
    anyhow::ensure!(different.stdout.contains("--alter --topic plan.events --partitions 3"));
    Ok(())
}

fn produce_and_query() -> Outcome {
    let kafka = shared()?;
    let brokers = kafka.brokers();
    for topic in ["tool.events", "tool.items", "tool.requests", "tool.responses"] {
        kafka.create_topic(topic, 2, &[])?;
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("records.jsonl");
    let mut lines = String::from("{\"topic\":\"items\",\"item\":\"5\",\"ts\":1,\"features\":{}}\n");
    for number in 0..1000 {
        lines.push_str(&format!(
            "{{\"topic\":\"events\",\"n\":{number},\"user\":\"u{}\"}}\n",
            number % 7
        ));
    }
    std::fs::write(&file, lines)?;
    let file = file.display().to_string();
    let flags = ["--brokers", &brokers, "--prefix", "tool"];
    let run = |more: &[&str]| -> anyhow::Result<process::Finished> {
        process::Running::start("sluice", &[more, &flags].concat())?.wait()
    };
    let told = run(&["produce", &file])?.succeeded()?.stdout;
    expect_eq!(told, "tool.events: 1000 delivered\ntool.items: 1 delivered\n");
    let mut reader = Reader::open(&kafka.connection(), "tool.events", Start::Beginning, PATIENCE)?;
    let mut by_user = BTreeMap::new();
    for record in reader.read_to_end(PATIENCE)? {
        let value = String::from_utf8(record.value.unwrap_or_default())?;
        let key = String::from_utf8(record.key.unwrap_or_default())?;
        anyhow::ensure!(
            value.starts_with("{\"n\":") && value.ends_with(&format!("\"{key}\"}}")),
            "{value}"
        );
        by_user.entry(key).or_insert_with(BTreeSet::new).insert(record.partition);
    }
    expect_eq!(by_user.len(), 7);
    anyhow::ensure!(by_user.values().all(|partitions| partitions.len() == 1), "{by_user:?}");

    let missing = run(&["produce", &file, "--prefix", "nowhere"])?;
    anyhow::ensure!(missing.code == Some(2), "--prefix twice is a mistake of the command line");
    std::fs::write(folder.path().join("requests.jsonl"), "{\"topic\":\"users\",\"user\":\"u\"}\n")?;
    let missing = run(&["produce", &folder.path().join("requests.jsonl").display().to_string()])?;
    expect_eq!(missing.code, Some(1));
    anyhow::ensure!(
        missing.stderr.contains("topic tool.users does not exist"),
        "{}",
        missing.stderr
    );

    // Nobody answers yet: the question can be interrupted, and silence is an error.
    let asked = process::Running::start(
        "sluice",
        &[&["query", "recommend", "--user", "u1", "--timeout", "60s"][..], &flags].concat(),
    )?;
    let mut requests =
        Reader::open(&kafka.connection(), "tool.requests", Start::Beginning, PATIENCE)?;
    let request = requests.next(PATIENCE)?.ok_or_else(|| anyhow::anyhow!("{}", asked.told()))?;
    expect_eq!(request.key.as_deref(), Some(&b"u1"[..]));
    asked.terminate()?;
    expect_eq!(asked.wait()?.code, None);
    let silent = run(&["query", "recommend", "--user", "u1", "--timeout", "300ms"])?;
    expect_eq!(silent.code, Some(1));
    anyhow::ensure!(silent.stderr.contains("no answer within 300ms"), "{}", silent.stderr);
    requests.next(PATIENCE)?;

    let asked = process::Running::start(
        "sluice",
        &[&["query", "similar", "--items", "5", "--timeout", "60s"][..], &flags].concat(),
    )?;
    let request = requests.next(PATIENCE)?.ok_or_else(|| anyhow::anyhow!("{}", asked.told()))?;
    let question: serde_json::Value = serde_json::from_slice(&request.value.unwrap_or_default())?;
    let id = question["id"].as_str().unwrap_or_default();
    let answer = format!("{{\"id\":\"{id}\",\"items\":[{{\"item\":\"88\",\"score\":0.5}}]}}");
    let (key, value) = (Some(id.as_bytes()), Some(answer.as_bytes()));
    let answers = producer(kafka.connection())?;
    answers.send(&Outgoing { topic: "tool.responses", key, value, headers: &[] }, PATIENCE)?;
    answers.flush(PATIENCE)?;
    let told = asked.wait()?.succeeded()?.stdout;
    anyhow::ensure!(told.lines().nth(1).is_some_and(|line| line.contains("88")), "{told}");
    Ok(())
}

fn a_deleted_topic_is_gone() -> Outcome {
    let kafka = shared()?;
    kafka.create_topic("deleted.events", 2, &[])?;
    kafka.create_topic("kept.events", 1, &[])?;
    let probe = Probe::open(&kafka.connection())?;
    expect_eq!(probe.partitions("deleted.events", PATIENCE)?, Some(2));
    let admin = Admin::open(&kafka.connection(), PATIENCE)?;
    admin.delete(&["deleted.events", "never.events"])?;
    wait_for("the topic to be gone", || {
        Ok(probe.partitions("deleted.events", PATIENCE)?.is_none().then_some(()))
    })?;
    expect_eq!(probe.partitions("kept.events", PATIENCE)?, Some(1));
    Ok(admin.delete(&[])?)
}
