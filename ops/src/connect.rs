//! The flags by which a subcommand reaches Kafka: its own, or the daemon's configuration file.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use sluice_daemon::config::Config;
use sluice_daemon::kafka::{Connection, Sasl, SaslMechanism, Secret, Security, Tls};

/// The name under which the brokers log us.
const CLIENT_ID: &str = "sluice-ops";

/// How to reach the cluster, and the prefix of the topics there.
#[derive(Debug, clap::Args)]
pub struct ConnectArguments {
    /// The daemon's configuration: its connection and its topics, instead of the flags below
    #[arg(long, conflicts_with_all = FLAGS, help_heading = "Kafka")]
    config: Option<PathBuf>,
    /// Brokers as host:port, several separated by commas
    #[arg(long, default_value = "localhost:9092", help_heading = "Kafka")]
    brokers: String,
    /// What stands before the dot in all topic names
    #[arg(long, default_value = "sluice", help_heading = "Kafka")]
    prefix: String,
    /// Encryption and authentication
    #[arg(long, value_enum, default_value = "plaintext", help_heading = "Kafka")]
    security: SecurityFlag,
    /// How the password is proven
    #[arg(long, value_enum, default_value = "scram-sha-512", help_heading = "Kafka")]
    sasl_mechanism: MechanismFlag,
    /// The user, for the SASL securities
    #[arg(long, requires = "password_file", help_heading = "Kafka")]
    user_name: Option<String>,
    /// A file with the user's password
    #[arg(long, requires = "user_name", help_heading = "Kafka")]
    password_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities to trust; the system's where not given
    #[arg(long, help_heading = "Kafka")]
    ca: Option<PathBuf>,
    /// Our own certificate (PEM)
    #[arg(long, requires = "key", help_heading = "Kafka")]
    certificate: Option<PathBuf>,
    /// The key of our certificate (PEM)
    #[arg(long, requires = "certificate", help_heading = "Kafka")]
    key: Option<PathBuf>,
    /// A further option of librdkafka, as NAME=VALUE; may be repeated
    #[arg(long = "kafka-option", value_name = "NAME=VALUE", help_heading = "Kafka")]
    options: Vec<String>,
}

/// The flags that a configuration file stands for.
const FLAGS: [&str; 10] = [
    "brokers",
    "prefix",
    "security",
    "sasl_mechanism",
    "user_name",
    "password_file",
    "ca",
    "certificate",
    "key",
    "options",
];

/// A cluster and the daemon's topics there.
#[derive(Clone, Debug)]
pub struct Target {
    /// How to reach it.
    pub connection: Connection,
    /// What stands before the dot in all topic names.
    pub prefix: String,
}

impl Target {
    /// Returns the full name of a topic.
    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }
}

impl ConnectArguments {
    /// Returns the cluster that is meant, with passwords read from their files.
    ///
    /// # Errors
    /// Everything that is wrong with the flags or the file, at once.
    pub fn target(&self) -> Result<Target> {
        let Some(path) = &self.config else {
            return Ok(Target { connection: self.connection()?, prefix: self.prefix.clone() });
        };
        let config = Config::open(path).map_err(|mistakes| anyhow::anyhow!("{mistakes}"))?;
        let events = config.kafka.topics.events;
        let prefix = events.strip_suffix(".events").unwrap_or(&events).to_owned();
        let mut connection = config.kafka.connection;
        connection.client_id = CLIENT_ID.to_owned();
        Ok(Target { connection, prefix })
    }

    fn connection(&self) -> Result<Connection> {
        let mut connection = Connection::plain(self.brokers.clone());
        connection.client_id = CLIENT_ID.to_owned();
        connection.security = self.security.into();
        if let (Some(user), Some(file)) = (&self.user_name, &self.password_file) {
            let password =
                std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            connection.sasl = Some(Sasl {
                mechanism: self.sasl_mechanism.into(),
                username: user.clone(),
                password: Secret::new(password.trim_end_matches(['\r', '\n'])),
            });
        }
        connection.tls = Tls {
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            key_password: None,
        };
        for option in &self.options {
            let Some((name, value)) = option.split_once('=') else {
                bail!("--kafka-option: expected NAME=VALUE, found {option:?}");
            };
            connection.extra.insert(name.to_owned(), value.to_owned());
        }
        let mistakes = connection.mistakes();
        if !mistakes.is_empty() {
            let lines: Vec<_> = mistakes
                .iter()
                .map(|mistake| format!("{}: {}", mistake.key, mistake.text))
                .collect();
            bail!("the connection cannot work:\n  {}", lines.join("\n  "));
        }
        Ok(connection)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum SecurityFlag {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl From<SecurityFlag> for Security {
    fn from(flag: SecurityFlag) -> Self {
        match flag {
            SecurityFlag::Plaintext => Self::Plaintext,
            SecurityFlag::Ssl => Self::Ssl,
            SecurityFlag::SaslPlaintext => Self::SaslPlaintext,
            SecurityFlag::SaslSsl => Self::SaslSsl,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MechanismFlag {
    Plain,
    #[value(name = "scram-sha-256")]
    ScramSha256,
    #[value(name = "scram-sha-512")]
    ScramSha512,
}

impl From<MechanismFlag> for SaslMechanism {
    fn from(flag: MechanismFlag) -> Self {
        match flag {
            MechanismFlag::Plain => Self::Plain,
            MechanismFlag::ScramSha256 => Self::ScramSha256,
            MechanismFlag::ScramSha512 => Self::ScramSha512,
        }
    }
}

/// A length of time as it is typed: a number with `ms`, `s` or `m`; seconds without.
///
/// # Errors
/// When it is something else.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("expected a number with ms, s or m, found {text:?}")),
    };
    let number: f64 =
        number.parse().map_err(|_| format!("expected a time such as 5s, found {text:?}"))?;
    std::time::Duration::try_from_secs_f64(number * seconds)
        .map_err(|error| format!("{text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        connect: ConnectArguments,
    }

    fn parse(flags: &[&str]) -> ConnectArguments {
        Flags::parse_from(std::iter::once(&"x").chain(flags)).connect
    }

    #[test]
    fn flags_become_a_connection() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "geheim\n").unwrap();
        let file = file.display().to_string();
        let flags = ["--brokers", "k:9093", "--security", "sasl_ssl", "--user-name", "u"];
        let rest = ["--password-file", &file, "--sasl-mechanism", "plain"];
        let connection = parse(&[&flags[..], &rest].concat()).connection().unwrap();
        assert_eq!(
            (connection.security, connection.brokers.as_str()),
            (Security::SaslSsl, "k:9093")
        );
        let sasl = connection.sasl.unwrap();
        assert_eq!((sasl.mechanism, sasl.password), (SaslMechanism::Plain, Secret::new("geheim")));
    }

    #[test]
    fn mistakes_are_all_told() {
        let flags = ["--brokers", "k", "--kafka-option", "group.id=x"];
        let error = parse(&flags).connection().unwrap_err().to_string();
        assert!(error.contains("brokers: ") && error.contains("extra.group.id: "), "{error}");
    }

    #[test]
    fn the_daemons_configuration_stands_for_the_flags() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sluice.toml");
        std::fs::write(&file, "[kafka]\nbrokers = \"k:1\"\nprefix = \"shop\"\n").unwrap();
        let file = file.display().to_string();
        let target = parse(&["--config", &file]).target().unwrap();
        assert_eq!((target.connection.brokers.as_str(), target.prefix.as_str()), ("k:1", "shop"));
        assert_eq!(target.topic("events"), "shop.events");
        let both = Flags::try_parse_from(["x", "--config", &file, "--brokers", "k:2"]);
        assert!(both.is_err(), "a file and a flag that it stands for");
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("3"), Ok(Duration::from_secs(3)));
        assert!(parse_duration("soon").is_err() && parse_duration("-1s").is_err());
    }
}
