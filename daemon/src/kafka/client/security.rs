//! How a connection is protected, and what of its settings is never printed.

use std::fmt;
use std::path::PathBuf;

/// Encryption and authentication of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Neither.
    Plaintext,
    /// TLS.
    Ssl,
    /// A user and a password, not encrypted.
    SaslPlaintext,
    /// A user and a password over TLS.
    SaslSsl,
}

impl Security {
    /// All values, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];

    pub(super) fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    pub(super) fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        })
    }
}

/// Who we are, for the SASL securities.
#[derive(Clone, Debug)]
pub struct Sasl {
    /// How the password is proven.
    pub mechanism: SaslMechanism,
    /// The user.
    pub username: String,
    /// Its password, already read from its file.
    pub password: Secret,
}

/// How a password is proven to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// Sent as it is; only over TLS.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

impl SaslMechanism {
    /// All values, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    /// Returns Kafka's name of the mechanism.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Certificate files, all PEM.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Authorities that we trust.
    pub ca: Option<PathBuf>,
    /// Our own certificate, where the broker asks for one.
    pub certificate: Option<PathBuf>,
    /// The key of our certificate.
    pub key: Option<PathBuf>,
    /// The password of that key.
    pub key_password: Option<Secret>,
}

impl Tls {
    pub(super) fn is_used(&self) -> bool {
        self.ca.is_some()
            || self.certificate.is_some()
            || self.key.is_some()
            || self.key_password.is_some()
    }
}

/// Stands for what is not printed.
pub(crate) const HIDDEN: &str = "***";

/// Says whether the value of an option of the library may be printed: one of a list, for among those that are not in it, now or in
/// another version, are passwords, keys and tokens.
pub(crate) fn is_shown(key: &str) -> bool {
    const ENDINGS: &[&str] = &[
        ".algorithm",
        ".bytes",
        ".class",
        ".disable",
        ".enable",
        ".family",
        ".kbytes",
        ".lookup",
        ".messages",
        ".min",
        ".ms",
        ".size",
        ".suites",
        ".ttl",
        ".verification",
    ];
    const NAMES: &[&str] = &[
        "check.crcs",
        "client.rack",
        "debug",
        "enable.random.seed",
        "log.connection.close",
        "log.queue",
        "log.thread.name",
        "metadata.recovery.strategy",
        "sasl.kerberos.principal",
        "sasl.kerberos.service.name",
        "sasl.oauthbearer.method",
        "socket.max.fails",
        "ssl.ca.certificate.stores",
        "ssl.crl.location",
        "ssl.curves.list",
        "ssl.keystore.location",
        "ssl.sigalgs.list",
    ];
    NAMES.contains(&key) || ENDINGS.iter().any(|ending| key.ends_with(ending))
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(in super::super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}
