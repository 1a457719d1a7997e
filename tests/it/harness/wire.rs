//! A few requests of Kafka's protocol that the daemon has no use for: access rules are made and lifted, records are deleted.
//!
//! The shared broker lets everybody do what no rule speaks of, so a rule that denies is all that a test needs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::Context;

use super::PATIENCE;

/// What everybody is called who does not say a name.
const NOBODY: &str = "User:ANONYMOUS";

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On<'a> {
    /// A topic.
    Topic(&'a str),
    /// A group of consumers.
    Group(&'a str),
}

/// What a rule denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// Knowing of it at all.
    Describe,
    /// Reading records; committing offsets.
    Read,
    /// Writing records.
    Write,
}

/// Denies something to everybody.
///
/// # Errors
/// When the broker refuses the rule.
pub(crate) fn deny(brokers: &str, to: To, on: On<'_>) -> anyhow::Result<()> {
    let (kind, name) = on.parts();
    // What any rule speaks of is shown to nobody without a rule that allows it; a rule that denies stands above.
    let mut body = 2i32.to_be_bytes().to_vec();
    for (operation, permission) in [(DESCRIBE, ALLOW), (to.code(), DENY)] {
        body.push(kind);
        text(&mut body, name);
        body.push(LITERAL);
        text(&mut body, NOBODY);
        text(&mut body, "*");
        body.extend([operation, permission]);
    }
    ask(brokers, CREATE, &body, RESULT)
}

/// Lifts all rules about something.
///
/// # Errors
/// When the broker refuses.
pub(crate) fn lift(brokers: &str, on: On<'_>) -> anyhow::Result<()> {
    let (kind, name) = on.parts();
    let mut body = 1i32.to_be_bytes().to_vec();
    body.push(kind);
    text(&mut body, name);
    body.push(LITERAL);
    // No principal, no host: any of them.
    body.extend([0xff; 4]);
    body.extend([ANY, ANY]);
    ask(brokers, DELETE, &body, RESULT)
}

/// Deletes the records of a partition below an offset, as retention would.
///
/// # Errors
/// When the broker refuses.
pub(crate) fn delete_records(
    brokers: &str,
    topic: &str,
    partition: i32,
    below: i64,
) -> anyhow::Result<()> {
    let mut body = 1i32.to_be_bytes().to_vec();
    text(&mut body, topic);
    body.extend(1i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    body.extend(below.to_be_bytes());
    body.extend(10_000i32.to_be_bytes());
    // Before the error stand the topic's name, the number of partitions, the partition and its first offset.
    ask(brokers, DELETE_RECORDS, &body, RESULT + 2 + topic.len() + 4 + 4 + 8)
}

/// Where the first result begins: behind the number of the request, the throttle time and the number of results.
const RESULT: usize = 12;
const DELETE_RECORDS: i16 = 21;
const CREATE: i16 = 30;
const DELETE: i16 = 31;
const LITERAL: u8 = 3;
const DENY: u8 = 2;
const ALLOW: u8 = 3;
const DESCRIBE: u8 = 8;
const ANY: u8 = 1;

impl<'a> On<'a> {
    fn parts(self) -> (u8, &'a str) {
        match self {
            On::Topic(name) => (2, name),
            On::Group(name) => (3, name),
        }
    }
}

impl To {
    fn code(self) -> u8 {
        match self {
            To::Describe => DESCRIBE,
            To::Read => 3,
            To::Write => 4,
        }
    }
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend((text.len() as i16).to_be_bytes());
    body.extend(text.as_bytes());
}

/// Sends a request of version 1 and checks the error code that stands at a place of its answer.
fn ask(brokers: &str, request: i16, body: &[u8], at: usize) -> anyhow::Result<()> {
    let mut message = request.to_be_bytes().to_vec();
    message.extend([0, 1, 0, 0, 0, 7]);
    text(&mut message, "test");
    message.extend(body);
    let mut stream = TcpStream::connect(brokers)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&(message.len() as i32).to_be_bytes())?;
    stream.write_all(&message)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(size))?];
    stream.read_exact(&mut answer)?;
    let error = answer.get(at..at + 2).context("an answer without result")?;
    anyhow::ensure!(error == [0, 0], "the broker refuses request {request}: error {error:?}");
    Ok(())
}
