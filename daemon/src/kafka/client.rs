//! Connection settings: typed where we rely on them, free (`extra`) where the operator knows better.
//!
//! `extra` holds further options of librdkafka by their own names. Options that the daemon sets itself
//! are refused there, as are options that load code or run commands.

mod security;

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

pub(crate) use security::{HIDDEN, is_shown};
pub use security::{Sasl, SaslMechanism, Secret, Security, Tls};

/// How to reach a Kafka cluster and who we are there.
#[derive(Clone)]
pub struct Connection {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// Encryption and authentication of the connection.
    pub security: Security,
    /// Needed where `security` says SASL.
    pub sasl: Option<Sasl>,
    /// Certificates, where `security` says TLS; the system's trust store stands in for a missing CA.
    pub tls: Tls,
    /// The name under which the brokers log us.
    pub client_id: String,
    /// Further librdkafka options by name.
    pub extra: BTreeMap<String, String>,
}

impl Connection {
    /// Returns settings for an open broker without encryption.
    pub fn plain(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            security: Security::Plaintext,
            sasl: None,
            tls: Tls::default(),
            client_id: "sluice".to_owned(),
            extra: BTreeMap::new(),
        }
    }

    /// Lists everything that cannot work, each under its key; empty when all is well.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let mut add = |key: &str, text: String| {
            mistakes.push(Mistake { key: key.to_owned(), text });
        };
        for broker in self.brokers.split(',').map(str::trim) {
            if !is_host_and_port(broker) {
                add("brokers", format!("expected host:port, found {broker:?}"));
            }
        }
        if self.security.has_sasl() && self.sasl.is_none() {
            add(
                "sasl",
                format!("security {} needs a mechanism, a user and a password", self.security),
            );
        }
        if !self.security.has_sasl() && self.sasl.is_some() {
            add(
                "sasl",
                format!(
                    "is not used with security {}; use sasl_ssl or sasl_plaintext",
                    self.security
                ),
            );
        }
        if !self.security.has_tls() && self.tls.is_used() {
            add("tls", format!("is not used with security {}; use ssl or sasl_ssl", self.security));
        }
        if (self.security.has_tls() || self.security.has_sasl())
            && !cfg!(feature = "tls")
            && !cfg!(feature = "tls-vendored")
        {
            add(
                "security",
                "this binary was built without TLS and SASL; build it with --features tls"
                    .to_owned(),
            );
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            add(
                "tls",
                "a certificate and its key go together; one of the two is missing".to_owned(),
            );
        }
        let files = [
            ("tls.ca", &self.tls.ca),
            ("tls.certificate", &self.tls.certificate),
            ("tls.key", &self.tls.key),
        ];
        for (key, file) in files {
            if let Some(file) = file.as_ref().filter(|file| !file.is_file()) {
                add(key, format!("no such file: {}", file.display()));
            }
        }
        for (key, value) in &self.extra {
            if let Some(text) = mistake_of_extra(key, value) {
                add(&format!("extra.{key}"), text);
            }
        }
        mistakes
    }

    /// Says what weakens the protection of the connection, each with what it means and its remedy; empty where nothing does. To be told at
    /// every start: what was meant for one evening stays.
    pub fn risks(&self) -> Vec<String> {
        let mut risks = Vec::new();
        let plain = self.sasl.as_ref().is_some_and(|sasl| sasl.mechanism == SaslMechanism::Plain);
        if plain && self.security == Security::SaslPlaintext {
            risks.push(
                "kafka.sasl.mechanism PLAIN over kafka.security sasl_plaintext: whoever sees the network reads the password; set security to \
                 sasl_ssl, or mechanism to SCRAM-SHA-512"
                    .to_owned(),
            );
        }
        let is = |key: &str, value: &str| {
            let extra = self.extra.get(key);
            self.security.has_tls() && extra.is_some_and(|found| found.eq_ignore_ascii_case(value))
        };
        if is("enable.ssl.certificate.verification", "false") {
            risks.push(
                "kafka.extra enable.ssl.certificate.verification is false: anybody can stand in for the brokers, and reads the password; \
                 remove it and name the authority by kafka.tls.ca"
                    .to_owned(),
            );
        }
        if is("ssl.endpoint.identification.algorithm", "none") {
            risks.push(
                "kafka.extra ssl.endpoint.identification.algorithm is none: whoever has any certificate of the authority can stand in for \
                 the brokers; remove it and name the brokers as their certificates do"
                    .to_owned(),
            );
        }
        risks
    }

    /// Returns the library's configuration for one kind of client; the caller adds what that kind owns.
    pub(super) fn options(&self, kind: Kind) -> ClientConfig {
        let mut options = ClientConfig::new();
        options.set_log_level(RDKafkaLogLevel::Info);
        options
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "2000")
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            // A connection that is closed at once is how a port shows that it speaks TLS and we do not, or the reverse.
            .set("log.connection.close", "true")
            .set("topic.metadata.refresh.interval.ms", "10000");
        for (key, value) in self.extra.iter().filter(|(key, _)| kind.takes(key)) {
            options.set(key, value);
        }
        options
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("enable.metrics.push", "false")
            .set("security.protocol", self.security.to_string());
        if let Some(sasl) = &self.sasl {
            options
                .set("sasl.mechanism", sasl.mechanism.name())
                .set("sasl.username", &sasl.username)
                .set("sasl.password", sasl.password.reveal());
        }
        let files = [
            ("ssl.ca.location", &self.tls.ca),
            ("ssl.certificate.location", &self.tls.certificate),
            ("ssl.key.location", &self.tls.key),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                options.set(key, file.display().to_string());
            }
        }
        if let Some(password) = &self.tls.key_password {
            options.set("ssl.key.password", password.reveal());
        }
        options
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(key, value): (&String, &String)| {
            let value = if is_shown(key) { value.clone() } else { HIDDEN.to_owned() };
            (key.clone(), value)
        };
        f.debug_struct("Connection")
            .field("brokers", &self.brokers)
            .field("security", &self.security)
            .field("sasl", &self.sasl)
            .field("tls", &self.tls)
            .field("client_id", &self.client_id)
            .field("extra", &self.extra.iter().map(shown).collect::<BTreeMap<_, _>>())
            .finish()
    }
}

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key below `kafka`, such as `sasl` or `extra.group.id`.
    pub key: String,
    /// What is wrong with it and what would be right.
    pub text: String,
}

/// The kinds of client, as far as options differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads records.
    Consumer,
    /// Writes records.
    Producer,
    /// Asks about topics.
    Metadata,
}

impl Kind {
    /// Says whether an extra option is for this kind; the library logs a warning for each that is not.
    fn takes(self, key: &str) -> bool {
        let reads = [
            "fetch.",
            "queued.",
            "session.",
            "heartbeat.",
            "max.poll.",
            "max.partition.fetch",
            "check.crcs",
        ];
        let writes = ["queue.buffering.", "batch.", "sticky.", "retry.", "message.copy"];
        match self {
            Self::Consumer => !writes.iter().any(|prefix| key.starts_with(prefix)),
            Self::Producer => !reads.iter().any(|prefix| key.starts_with(prefix)),
            Self::Metadata => !reads.iter().chain(&writes).any(|prefix| key.starts_with(prefix)),
        }
    }
}

/// Options that have a key of their own in the configuration.
const TYPED: &[(&str, &str)] = &[
    ("bootstrap.servers", "brokers"),
    ("metadata.broker.list", "brokers"),
    ("client.id", "client_id"),
    ("group.id", "group"),
    ("security.protocol", "security"),
    ("sasl.mechanism", "sasl.mechanism"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.username", "sasl.username"),
    ("sasl.password", "sasl.password_file"),
    ("ssl.ca.location", "tls.ca"),
    ("ssl.certificate.location", "tls.certificate"),
    ("ssl.key.location", "tls.key"),
    ("ssl.key.password", "tls.key_password_file"),
];

/// Options that the daemon sets itself, for exactness and memory rest on them.
const OWNED: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "check.crcs",
    "compression.codec",
    "compression.type",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.metrics.push",
    "enable.partition.eof",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "linger.ms",
    "log_level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.send.max.retries",
    "message.timeout.ms",
    "offset.store.method",
    "partition.assignment.strategy",
    "partitioner",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "request.required.acks",
    "retries",
    "statistics.interval.ms",
    "transactional.id",
];

/// Options that load code, run commands, or replace the brokers.
const DANGEROUS: &[&str] = &[
    "builtin.features",
    "interceptors",
    "opaque",
    "plugin.library.paths",
    "sasl.kerberos.kinit.cmd",
    "test.mock.broker.rtt",
    "test.mock.num.brokers",
];

/// Returns what the library says with our names of the options that have one.
pub(super) fn in_our_names(said: &str) -> String {
    TYPED.iter().fold(said.to_owned(), |said, (theirs, ours)| {
        said.replace(theirs, &format!("kafka.{ours}"))
    })
}

fn mistake_of_extra(key: &str, value: &str) -> Option<String> {
    if let Some((_, own)) = TYPED.iter().find(|(name, _)| *name == key) {
        return Some(format!("set kafka.{own} instead"));
    }
    if OWNED.contains(&key) {
        return Some(
            "belongs to the daemon, whose exactness or memory rests on it; remove it".to_owned(),
        );
    }
    let is_code =
        key.ends_with("_cb") || key.starts_with("ssl.engine") || key.starts_with("ssl.provider");
    if DANGEROUS.contains(&key) || is_code {
        return Some("could load code, run a command or replace the brokers; remove it".to_owned());
    }
    let mut options = ClientConfig::new();
    options.set(key, value);
    match options.create_native_config() {
        Ok(_) => None,
        Err(rdkafka::error::KafkaError::ClientConfig(_, description, _, _)) => Some(description),
        Err(error) => Some(error.to_string()),
    }
}

fn is_host_and_port(broker: &str) -> bool {
    let address = broker.rsplit_once("://").map_or(broker, |(_, address)| address);
    match address.rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(connection: &Connection) -> Vec<String> {
        connection.mistakes().into_iter().map(|mistake| mistake.key).collect()
    }

    #[test]
    fn a_plain_connection_has_no_mistakes() {
        assert_eq!(Connection::plain("a:9092, [::1]:9093").mistakes(), []);
    }

    #[test]
    fn all_mistakes_are_listed_at_once() {
        let mut connection = Connection::plain("nohost,b:99999");
        connection.security = Security::SaslSsl;
        connection.tls.certificate = Some("/no/such/file".into());
        connection.extra.insert("group.id".into(), "x".into());
        connection.extra.insert("plugin.library.paths".into(), "/tmp/evil.so".into());
        connection.extra.insert("enable.auto.commit".into(), "true".into());
        connection.extra.insert("no.such.option".into(), "1".into());
        connection.extra.insert("socket.timeout.ms".into(), "soon".into());
        let keys = keys(&connection);
        let expected = [
            "brokers",
            "brokers",
            "sasl",
            "tls",
            "tls.certificate",
            "extra.enable.auto.commit",
            "extra.group.id",
            "extra.no.such.option",
            "extra.plugin.library.paths",
            "extra.socket.timeout.ms",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn credentials_without_sasl_are_a_mistake() {
        let mut connection = Connection::plain("a:1");
        let password = Secret::new("hidden");
        connection.sasl =
            Some(Sasl { mechanism: SaslMechanism::Plain, username: "u".into(), password });
        assert_eq!(keys(&connection), ["sasl"]);
        assert!(!format!("{connection:?}").contains("hidden"));
    }

    #[test]
    fn only_options_that_are_known_to_hold_no_secret_are_printed() {
        let secrets = [
            "https.ca.pem",
            "sasl.oauthbearer.assertion.claim.jti.include",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "sasl.oauthbearer.assertion.private.key.pem",
            "sasl.oauthbearer.client.credentials.client.secret",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.config",
            "sasl.password",
            "ssl.certificate.pem",
            "ssl.key.password",
            "ssl.key.pem",
            "ssl.keystore.password",
            "an.option.of.another.version",
        ];
        let mut connection = Connection::plain("a:1");
        for key in secrets {
            assert!(!is_shown(key), "{key}");
            connection.extra.insert(key.into(), "hunter2".into());
        }
        connection.extra.insert("socket.timeout.ms".into(), "5000".into());
        let shown = format!("{connection:?}");
        assert!(shown.contains("5000") && !shown.contains("hunter2"), "{shown}");
        // Nor where the library refuses it.
        let refused = |key: &str| {
            let mut options = ClientConfig::new();
            options.set(key, "hunter2");
            let error = options.create_native_config().err().unwrap();
            super::super::Trouble::from_client("x", &error, None).to_string()
        };
        let told = refused("ssl.key.pom");
        assert!(told.contains("ssl.key.pom") && !told.contains("hunter2"), "{told}");
        assert!(refused("socket.timeout.ms").contains("hunter2"));
    }

    #[test]
    fn what_weakens_a_connection_is_told() {
        let mut connection = Connection::plain("a:1");
        assert_eq!(connection.risks(), [""; 0], "plain text without a password is what it says");
        let password = Secret::new("hidden");
        let sasl =
            |mechanism| Some(Sasl { mechanism, username: "u".into(), password: password.clone() });
        connection.security = Security::SaslPlaintext;
        connection.sasl = sasl(SaslMechanism::ScramSha256);
        assert_eq!(connection.risks(), [""; 0]);
        connection.sasl = sasl(SaslMechanism::Plain);
        let risks = connection.risks();
        assert!(risks.len() == 1 && risks[0].contains("sasl_ssl"), "{risks:?}");
        connection.security = Security::SaslSsl;
        assert_eq!(connection.risks(), [""; 0]);
        for (key, value) in [
            ("enable.ssl.certificate.verification", "False"),
            ("ssl.endpoint.identification.algorithm", "none"),
        ] {
            connection.extra.insert(key.into(), value.into());
            let risks = connection.risks();
            assert!(risks.iter().any(|risk| risk.contains(key) && risk.contains("remove it")));
        }
        assert_eq!(connection.risks().len(), 2);
    }

    #[test]
    fn an_owned_option_wins_over_nothing_and_extra_over_our_default() {
        let mut connection = Connection::plain("a:1");
        connection.extra.insert("reconnect.backoff.max.ms".into(), "9000".into());
        connection.extra.insert("fetch.wait.max.ms".into(), "5".into());
        let options = connection.options(Kind::Producer);
        assert_eq!(options.get("reconnect.backoff.max.ms"), Some("9000"));
        assert_eq!(options.get("fetch.wait.max.ms"), None);
        assert_eq!(connection.options(Kind::Consumer).get("fetch.wait.max.ms"), Some("5"));
    }

    #[test]
    fn every_owned_option_is_known_to_the_library() {
        for key in OWNED.iter().chain(TYPED.iter().map(|(key, _)| key)) {
            let mut options = ClientConfig::new();
            options.set(*key, "?");
            let unknown = match options.create_native_config() {
                Err(rdkafka::error::KafkaError::ClientConfig(_, text, _, _)) => {
                    text.contains("No such configuration property")
                }
                _ => false,
            };
            assert!(!unknown, "{key}");
        }
    }
}
