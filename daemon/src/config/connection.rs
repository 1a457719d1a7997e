//! The connection to Kafka: what the configuration says of it, with its secrets read from their files.

use super::check::one_of;
use super::file;
use super::mistake::Mistakes;
use crate::kafka::{Connection, Sasl, SaslMechanism, Secret, Security, Tls};

/// Says how to connect, noting what cannot work.
pub(super) fn build(file: &file::Kafka, m: &mut Mistakes) -> Connection {
    let securities = Security::ALL.map(|security| (security.to_string(), security));
    let securities: Vec<_> =
        securities.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let security = one_of(m, "kafka.security", &file.security, &securities);
    let mut connection = Connection {
        brokers: file.brokers.clone(),
        security: security.unwrap_or(Security::Plaintext),
        sasl: sasl(&file.sasl, m),
        tls: Tls {
            ca: path(&file.tls.ca),
            certificate: path(&file.tls.certificate),
            key: path(&file.tls.key),
            key_password: secret("kafka.tls.key_password_file", &file.tls.key_password_file, m),
        },
        client_id: file.client_id.clone(),
        extra: Default::default(),
    };
    for (key, value) in &file.extra {
        let text = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
                value.to_string()
            }
            _ => {
                m.add(format!("kafka.extra.{key}"), "expected a text, a number or a truth value");
                continue;
            }
        };
        connection.extra.insert(key.clone(), text);
    }
    if security.is_some() {
        for mistake in connection.mistakes() {
            m.add(format!("kafka.{}", mistake.key), mistake.text.trim());
        }
    }
    connection
}

fn sasl(file: &file::Sasl, m: &mut Mistakes) -> Option<Sasl> {
    if file.mechanism.is_empty() {
        for (key, value) in [("username", &file.username), ("password_file", &file.password_file)] {
            if !value.is_empty() {
                m.add(
                    format!("kafka.sasl.{key}"),
                    "needs kafka.sasl.mechanism, found none: set it",
                );
            }
        }
        return None;
    }
    let mechanisms = SaslMechanism::ALL.map(|mechanism| (mechanism.name(), mechanism));
    let mechanism = one_of(m, "kafka.sasl.mechanism", &file.mechanism, &mechanisms);
    for (key, value) in [("username", &file.username), ("password_file", &file.password_file)] {
        if value.is_empty() {
            m.add(
                format!("kafka.sasl.{key}"),
                "expected one for a SASL mechanism, found none: set it",
            );
        }
    }
    let password = secret("kafka.sasl.password_file", &file.password_file, m);
    Some(Sasl {
        mechanism: mechanism.unwrap_or(SaslMechanism::ScramSha512),
        username: file.username.clone(),
        password: password.unwrap_or_else(|| Secret::new("")),
    })
}

fn path(text: &str) -> Option<std::path::PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

/// Reads a secret from its file, without the end of its line.
fn secret(key: &str, file: &str, m: &mut Mistakes) -> Option<Secret> {
    if file.is_empty() {
        return None;
    }
    match std::fs::read_to_string(file) {
        Ok(text) => {
            let text = text.trim_end_matches(['\n', '\r']);
            if text.is_empty() {
                m.add(key, format!("expected a password in the file {file}, found none"));
            }
            Some(Secret::new(text))
        }
        Err(error) => {
            m.add(key, format!("cannot read the file {file}: {error}"));
            None
        }
    }
}
