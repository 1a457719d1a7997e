//! Records of a simulated shop, and the truth beside them.

use std::io::{self, Write};

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use sluice_features::wire::Topic;

use super::truth::Probabilities;
use crate::wire;

/// A record as a producer sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Where to.
    pub topic: Topic,
    /// The user of an event, else the item or user that is described.
    pub key: String,
    /// Event time, milliseconds since 1970.
    pub ts: i64,
    /// The wire message: a JSON object (unless it is malformed on purpose).
    pub message: String,
    /// Of an impression, the truth.
    pub truth: Option<Truth>,
    /// Of a behaviour that answers an impression, the item's number and the task's place in the
    /// funnel (0 click, 1 cart, 2 purchase).
    pub outcome: Option<(u64, usize)>,
}

/// What is true of an impression and cannot be seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// The impression's id.
    pub impression: String,
    /// Its time, milliseconds since 1970.
    pub ts: i64,
    /// The probabilities of its outcomes.
    pub p: Probabilities,
    /// The outcomes that it will have, in the order of the funnel. Not written: the events tell.
    pub outcomes: [bool; 3],
    /// The item's number. Not written: the impression tells.
    pub item: u64,
}

impl Serialize for Truth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("Truth", 3)?;
        line.serialize_field("impression", &self.impression)?;
        line.serialize_field("ts", &self.ts)?;
        line.serialize_field("p", &self.p)?;
        line.end()
    }
}

impl Record {
    /// Writes the record as a line of a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        wire::write_line(out, self.topic, self.message.as_bytes())
    }

    /// Returns a broken twin of an event: cut off, of no type, without a user, or of a time long ago.
    pub(super) fn malformed(&self, random: &mut ChaCha8Rng) -> Self {
        let message = &self.message;
        let message = match random.random_range(0..4) {
            0 => message.chars().take(message.chars().count() / 2).collect(),
            1 => message.replacen("\"type\":\"", "\"type\":\"un", 1),
            2 => message.replacen("\"user\":", "\"nobody\":", 1),
            _ => message.replacen("\"ts\":", "\"ts\":-", 1),
        };
        Self { message, truth: None, outcome: None, ..self.clone() }
    }
}
