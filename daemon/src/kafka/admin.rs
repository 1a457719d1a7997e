//! Topics as they should be, and as they are.
//!
//! Existing topics are never changed: what differs is named with the command that changes it. The embedded
//! broker answers no administration requests; its topics are made through its own handle.

use std::future::Future;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{Connection, Kind};
use super::context::Listener;
use super::probe::Probe;
use super::trouble::{Right, Trouble};

/// How long to wait before brokers are asked again for a topic that was just made.
const SHOWN: Duration = Duration::from_millis(20);

/// How a topic should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: i32,
    /// Its replicas, at its creation.
    pub replication: i32,
    /// Settings that the daemon needs; an existing topic is compared with them.
    pub needed: Vec<(&'static str, &'static str)>,
    /// Settings without which the daemon works less well; an existing topic is compared with them too.
    pub advised: Vec<(&'static str, &'static str)>,
    /// Settings given at the creation and left to the operator afterwards.
    pub initial: Vec<(&'static str, &'static str)>,
}

/// Whose clock dates a topic's records, and who should: the broker. A producer's stamp is a claim, and Kafka's default is to believe it.
const STAMP: (&str, &str) = ("message.timestamp.type", "LogAppendTime");

/// Returns the topics of the daemon.
///
/// `partitions` holds for all of them: topics keyed by user must agree, and one number is easier to keep.
pub fn standard_topics(prefix: &str, partitions: i32, replication: i32) -> Vec<TopicSpec> {
    const WEEK: &str = "604800000";
    const HOUR: &str = "3600000";
    let topic = |name: &str, policy: &'static str, initial: &[(&'static str, &'static str)]| {
        let mut initial = initial.to_vec();
        if replication >= 3 {
            initial.push(("min.insync.replicas", "2"));
        }
        TopicSpec {
            name: format!("{prefix}.{name}"),
            partitions,
            replication,
            needed: vec![("cleanup.policy", policy)],
            advised: Vec::new(),
            initial,
        }
    };
    let input = |name: &str, policy, initial: &[_]| TopicSpec {
        advised: vec![STAMP],
        ..topic(name, policy, initial)
    };
    // Tombstones must outlive the longest outage of a reader, or it keeps what was deleted.
    let keep_tombstones = [("delete.retention.ms", WEEK)];
    vec![
        input("events", "delete", &[("retention.ms", WEEK)]),
        input("items", "compact", &keep_tombstones),
        input("users", "compact", &keep_tombstones),
        input("requests", "delete", &[("retention.ms", HOUR)]),
        topic("responses", "delete", &[("retention.ms", HOUR)]),
        topic("embeddings", "compact", &keep_tombstones),
        topic("scores", "compact", &keep_tombstones),
        topic("dead-letter", "delete", &[("retention.ms", "2592000000")]),
    ]
}

/// What was found of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicState {
    /// It does not exist.
    Missing,
    /// It is as it should be.
    Right,
    /// It exists and differs, in what is needed or in what is advised.
    Different(Vec<Difference>),
}

/// One way in which a topic differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What differs: `partitions` or a setting's name.
    pub what: String,
    /// Whether the daemon needs it otherwise; it is advised otherwise.
    pub needed: bool,
    /// How it is.
    pub found: String,
    /// How it should be.
    pub expected: String,
    /// The command, or the way, to change it.
    pub remedy: String,
}

/// A client that looks at topics and creates them.
pub struct Admin {
    client: AdminClient<Listener>,
    probe: Probe,
    brokers: String,
    runtime: tokio::runtime::Runtime,
    patience: Duration,
}

impl Admin {
    /// Connects; `patience` limits every request.
    ///
    /// # Errors
    /// [`Trouble::Settings`] when the library refuses the options.
    pub fn open(connection: &Connection, patience: Duration) -> Result<Self, Trouble> {
        let options = connection.options(Kind::Metadata);
        let client = options
            .create_with_context(Listener::default())
            .map_err(|error| Trouble::from_client("connecting", &error, None))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| Trouble::Settings(format!("no runtime for requests: {error}")))?;
        let probe = Probe::open(connection)?;
        let brokers = connection.brokers.clone();
        Ok(Self { client, probe, brokers, runtime, patience })
    }

    /// Returns how many partitions a topic has, if it exists.
    ///
    /// # Errors
    /// [`Trouble::Unreachable`] or [`Trouble::Refused`].
    pub fn partitions(&self, topic: &str) -> Result<Option<i32>, Trouble> {
        let count = self.probe.partitions(topic, self.patience)?;
        Ok(count.map(|count| i32::try_from(count).unwrap_or(i32::MAX)))
    }

    /// Compares topics with how they should be, in the order given.
    ///
    /// # Errors
    /// [`Trouble::Unreachable`], [`Trouble::Refused`], or [`Trouble::Failed`] where the broker has no administration.
    pub fn look(&self, specs: &[TopicSpec]) -> Result<Vec<TopicState>, Trouble> {
        let mut counts = Vec::with_capacity(specs.len());
        for spec in specs {
            counts.push(self.probe.partitions(&spec.name, self.patience)?);
        }
        let existing = specs.iter().zip(&counts).filter(|(_, count)| count.is_some());
        let existing: Vec<_> = existing.map(|(spec, _)| spec.name.as_str()).collect();
        let mut found = self.settings(&existing)?.into_iter();
        let state = |(spec, count): (&TopicSpec, Option<usize>)| match count {
            None => TopicState::Missing,
            Some(count) => {
                let resource = found.next();
                let value = |key: &str| {
                    resource.as_ref().and_then(|resource| resource.get(key)?.value.clone())
                };
                compare(spec, count, value, &self.brokers)
            }
        };
        Ok(specs.iter().zip(counts).map(state).collect())
    }

    /// Returns which of these topics believe the stamps of producers, each with the command that lets the broker date their records.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn stamped_by_producers(&self, topics: &[&str]) -> Result<Vec<Difference>, Trouble> {
        let found = self.settings(topics)?;
        let pairs = topics.iter().zip(&found);
        let differs = pairs.filter_map(|(topic, resource)| {
            let value = |key: &str| resource.get(key)?.value.clone();
            setting_differs(topic, STAMP, false, value, &self.brokers)
        });
        Ok(differs.collect())
    }

    /// Returns the settings of topics that exist, in the order given.
    fn settings(&self, topics: &[&str]) -> Result<Vec<ConfigResource>, Trouble> {
        const ACTION: &str = "reading topic settings";
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let named: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let answer =
            self.ask(ACTION, |options| self.client.describe_configs(named.iter(), options))?;
        let one = |(resource, topic): (Result<_, RDKafkaErrorCode>, &&str)| {
            resource.map_err(|code| {
                self.denied(ACTION, code, Right::on_topic("DescribeConfigs", topic))
            })
        };
        answer.into_iter().zip(topics).map(one).collect()
    }

    /// Creates topics; one that appeared in the meantime is left alone.
    ///
    /// # Errors
    /// As [`Self::look`]; the first refusal is returned, topics before it are created.
    pub fn create(&self, specs: &[&TopicSpec]) -> Result<(), Trouble> {
        if specs.is_empty() {
            return Ok(());
        }
        let topics: Vec<_> = specs
            .iter()
            .map(|spec| {
                let replication = TopicReplication::Fixed(spec.replication);
                let topic = NewTopic::new(&spec.name, spec.partitions, replication);
                let settings = spec.needed.iter().chain(&spec.advised).chain(&spec.initial);
                settings.fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let results = self
            .ask("creating topics", |options| self.client.create_topics(topics.iter(), options))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    let right = Right::on_topic("Create", &topic);
                    return Err(self.denied(&format!("creating topic {topic}"), code, right));
                }
            }
        }
        specs.iter().try_for_each(|spec| self.await_topic(&spec.name))
    }

    /// Deletes topics; one that is gone already is none of its business.
    ///
    /// # Errors
    /// As [`Self::look`]; the first refusal is returned, the other topics are deleted.
    pub fn delete(&self, names: &[&str]) -> Result<(), Trouble> {
        if names.is_empty() {
            return Ok(());
        }
        let results =
            self.ask("deleting topics", |options| self.client.delete_topics(names, options))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => {
                    let right = Right::on_topic("Delete", &topic);
                    return Err(self.denied(&format!("deleting topic {topic}"), code, right));
                }
            }
        }
        Ok(())
    }

    /// Waits until brokers show a topic: the controller answers before they have heard of it, and whoever
    /// uses the topic at once would be told that it is missing.
    fn await_topic(&self, name: &str) -> Result<(), Trouble> {
        let start = Instant::now();
        loop {
            match self.probe.partitions(name, self.patience) {
                Ok(Some(_)) => return Ok(()),
                Err(trouble) if !trouble.is_retriable() => return Err(trouble),
                Ok(None) if start.elapsed() >= self.patience => {
                    return Err(Trouble::MissingTopic { topic: name.to_owned() });
                }
                Err(trouble) if start.elapsed() >= self.patience => return Err(trouble),
                Ok(None) | Err(_) => std::thread::sleep(SHOWN),
            }
        }
    }

    /// Returns the number of brokers: the most replicas that a topic can have.
    ///
    /// # Errors
    /// [`Trouble::Unreachable`] or [`Trouble::Refused`].
    pub fn broker_count(&self) -> Result<usize, Trouble> {
        self.probe.broker_count(self.patience)
    }

    fn ask<T, F>(&self, action: &str, call: impl FnOnce(&AdminOptions) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, KafkaError>>,
    {
        let options = AdminOptions::new()
            .request_timeout(Some(self.patience))
            .operation_timeout(Some(self.patience));
        self.runtime.block_on(call(&options)).map_err(|error| match error {
            KafkaError::AdminOp(code) => self.failed(action, code),
            error => {
                Trouble::from_client(action, &error, self.client.inner().context().last_complaint())
            }
        })
    }

    fn denied(&self, action: &str, code: RDKafkaErrorCode, right: Right) -> Trouble {
        if super::trouble::is_denial(code) {
            let reason = code.to_string();
            return Trouble::Denied { action: action.to_owned(), reason, right };
        }
        self.failed(action, code)
    }

    fn failed(&self, action: &str, code: RDKafkaErrorCode) -> Trouble {
        if super::trouble::is_refusal(code) {
            return Trouble::Refused { action: action.to_owned(), reason: code.to_string() };
        }
        let hint = match code {
            RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::UnsupportedFeature => {
                " (the broker answers no administration requests; an embedded broker never does, \
                 its topics are made when it starts)"
            }
            RDKafkaErrorCode::InvalidReplicationFactor => " (more replicas than brokers)",
            _ => "",
        };
        Trouble::Failed { action: action.to_owned(), reason: format!("{code}{hint}") }
    }
}

fn compare(
    spec: &TopicSpec,
    count: usize,
    value: impl Fn(&str) -> Option<String>,
    brokers: &str,
) -> TopicState {
    let mut differences = Vec::new();
    if usize::try_from(spec.partitions) != Ok(count) {
        let remedy = if usize::try_from(spec.partitions).is_ok_and(|wanted| wanted > count) {
            format!(
                "before the first event: kafka-topics.sh --bootstrap-server {brokers} --alter \
                 --topic {} --partitions {}; later users would change shards",
                spec.name, spec.partitions
            )
        } else {
            format!(
                "partitions cannot be taken away: say --partitions {count}, or make the topic anew"
            )
        };
        differences.push(Difference {
            what: "partitions".to_owned(),
            needed: true,
            found: count.to_string(),
            expected: spec.partitions.to_string(),
            remedy,
        });
    }
    let needed = spec.needed.iter().map(|setting| (*setting, true));
    let advised = spec.advised.iter().map(|setting| (*setting, false));
    differences.extend(needed.chain(advised).filter_map(|(setting, needed)| {
        setting_differs(&spec.name, setting, needed, &value, brokers)
    }));
    if differences.is_empty() { TopicState::Right } else { TopicState::Different(differences) }
}

/// Compares one setting of a topic with how it should be.
fn setting_differs(
    topic: &str,
    (key, expected): (&str, &str),
    needed: bool,
    value: impl Fn(&str) -> Option<String>,
    brokers: &str,
) -> Option<Difference> {
    let found = value(key).unwrap_or_else(|| "nothing".to_owned());
    (found != expected).then(|| Difference {
        what: key.to_owned(),
        needed,
        found,
        expected: expected.to_owned(),
        remedy: format!(
            "kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics \
             --entity-name {topic} --add-config {key}={expected}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacted_topics_are_the_keyed_tables() {
        let specs = standard_topics("shop", 6, 3);
        let compacted: Vec<_> = specs
            .iter()
            .filter(|spec| spec.needed.contains(&("cleanup.policy", "compact")))
            .map(|spec| spec.name.as_str())
            .collect();
        assert_eq!(compacted, ["shop.items", "shop.users", "shop.embeddings", "shop.scores"]);
        assert!(specs.iter().all(|spec| spec.partitions == 6 && spec.replication == 3));
        assert!(specs.iter().all(|spec| spec.initial.contains(&("min.insync.replicas", "2"))));
    }

    #[test]
    fn the_broker_dates_what_comes_in() {
        let specs = standard_topics("s", 1, 1);
        let dated = specs.iter().filter(|spec| spec.advised == [STAMP]);
        let dated: Vec<_> = dated.map(|spec| spec.name.as_str()).collect();
        assert_eq!(dated, ["s.events", "s.items", "s.users", "s.requests"]);
    }

    #[test]
    fn differences_name_what_is_and_what_should_be() {
        let spec = &standard_topics("s", 4, 1)[1];
        let state = |partitions, policy: &str, stamp: &str| {
            let value = |key: &str| {
                Some(if key == "cleanup.policy" { policy.into() } else { String::from(stamp) })
            };
            match compare(spec, partitions, value, "b:1") {
                TopicState::Different(all) => all,
                other => {
                    assert_eq!(other, TopicState::Right);
                    Vec::new()
                }
            }
        };
        assert_eq!(state(4, "compact", "LogAppendTime"), []);
        let all = state(6, "delete", "LogAppendTime");
        let told: Vec<_> =
            all.iter().map(|d| (d.what.as_str(), d.found.as_str(), d.expected.as_str())).collect();
        assert_eq!(told, [("partitions", "6", "4"), ("cleanup.policy", "delete", "compact")]);
        assert!(all.iter().all(|difference| difference.needed));
        assert!(all[1].remedy.contains("--entity-name s.items"));
        let [stamp] = &state(4, "compact", "CreateTime")[..] else { panic!("expected one") };
        assert!(!stamp.needed);
        let command = "kafka-configs.sh --bootstrap-server b:1 --alter --entity-type topics \
                       --entity-name s.items --add-config message.timestamp.type=LogAppendTime";
        assert_eq!(stamp.remedy, command);
    }
}
