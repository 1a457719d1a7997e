use std::path::Path;

use super::*;
use crate::error::chain;

/// A certificate that signs itself, for the tests alone.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUF5so/sDugZw3yihXhCjd2iCsFB0wCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMzAxMjQ4MjdaGA8yMTI2MTEwNjEyNDgy
N1owDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABAly
Cv99NDGcotF3xmQLKfmWOI576YQmjDcJVFrOaqRvLjNvcth9+wRutF4TfWmrgjUZ
ihfphhsr7590U0mUbeWjUzBRMB0GA1UdDgQWBBRLz33POkG+wF92m7KaTtZpmONo
EDAfBgNVHSMEGDAWgBRLz33POkG+wF92m7KaTtZpmONoEDAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQC4HUJyGpziqPRTkmaftSlH/O8DDIy2yOqV
vm8aELLDigIhAPdJ+F2jU1rl1Ap8u3YFuEph4x7Uh74QPFaJpLCnlgY4
-----END CERTIFICATE-----
";
/// Its key.
const KEY: &str = "\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIGkHa2XRpsFKReXmZdxoYfAbPEigXrqKEr7+rkw2WmQMoAoGCCqGSM49
AwEHoUQDQgAECXIK/300MZyi0XfGZAsp+ZY4jnvphCaMNwlUWs5qpG8uM29y2H37
BG60XhN9aauCNRmKF+mGGyvvn3RTSZRt5Q==
-----END EC PRIVATE KEY-----
";
/// Another one.
const OTHER_KEY: &str = "\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEINgUQkldNLUp/9yEMrzDa+hvLo9tXhvMJe8JTUKaubKVoAoGCCqGSM49
AwEHoUQDQgAEyFqAdCn7Zj6EsEQsIMoh85Ho8I+9sv+/YWBmeRnGkXVql8Ksphb1
JH+fOWX6ca7bQDXarFy4wewQ4yCmzhkuiw==
-----END EC PRIVATE KEY-----
";
/// Its key once more, locked with the password `right`.
const LOCKED_KEY: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgFqhnx6Nn/xgICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEHzS6TCl2cLpzOfgCLr3esMEgZD4
MtYkKQ+tN1dKvF4Dc3pSiWaCMiKV5PNMz5D5GPi5NNvjtRTCjnfCFsRo6zWU3SZA
mRF7X2N7q9FeUHScMaqJEBV8WEYcVzn/RZMXetPOH16vlC0xirkHRzYid6thwTg2
N8gHLNRnr8M0dqnWVZ3Twm6ParpOE0B7IZKHvpSJLNvtet17xJO2OWZ84cLC0Bc=
-----END ENCRYPTED PRIVATE KEY-----
";

fn checked(folder: &Path, tls: &str) -> Result<(), String> {
    let text =
        format!("[kafka]\nbrokers = \"127.0.0.1:1\"\nsecurity = \"ssl\"\n[kafka.tls]\n{tls}");
    let text = text.replace("DIR", &folder.display().to_string());
    let config = Config::build(&text, &[]).map_err(|mistakes| mistakes.to_string())?;
    check(&config).map_err(|stop| {
        assert_eq!(stop.exit(), Exit::Config);
        chain(&stop)
    })
}

#[test]
fn keys_certificates_and_passwords_are_opened_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (name, text) in [
        ("cert", CERTIFICATE),
        ("key", KEY),
        ("other", OTHER_KEY),
        ("locked", LOCKED_KEY),
        ("right", "right\n"),
        ("wrong", "wrong\n"),
        ("empty", "\n"),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let pair = |key: &str, more: &str| {
        checked(folder, &format!("certificate = \"DIR/cert\"\nkey = \"DIR/{key}\"\n{more}"))
    };
    pair("key", "ca = \"DIR/cert\"\n").unwrap();
    pair("locked", "key_password_file = \"DIR/right\"\n").unwrap();
    for (found, told) in [
        (pair("other", ""), "kafka.tls.key failed"),
        (pair("other", ""), "that of another certificate"),
        (pair("cert", ""), "expected a key in PEM"),
        (pair("locked", ""), "and its password if it has one"),
        (pair("locked", "key_password_file = \"DIR/wrong\"\n"), "and its password if it has one"),
        (pair("locked", "key_password_file = \"DIR/empty\"\n"), "expected a password in the file"),
        (pair("key", "ca = \"DIR/key\"\n"), "kafka.tls.ca failed"),
    ] {
        let error = found.unwrap_err();
        assert!(error.contains(told), "{told}: {error}");
    }
}
