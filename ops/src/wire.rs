//! Records as they are written: wire messages of version 1 and the lines of a file.
//!
//! A message is one JSON object; a line of a file is the same object with its topic in front:
//! `{"topic":"events","v":1,"type":"click",…}`.

use std::io::{self, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

const VERSION: u32 = 1;
/// Below this every whole f64 is exact.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Features of items.
    Items,
    /// Features of users.
    Users,
    /// Impressions and behaviours.
    Events,
}

impl Topic {
    /// Returns the name as it stands in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Users => "users",
            Self::Events => "events",
        }
    }
}

/// An impression or a behaviour.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Event<'a> {
    /// The version of the format.
    pub v: Version,
    /// `impression`, or the name of a task or behaviour.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// The event's own id.
    pub id: &'a str,
    /// Event time, milliseconds since 1970.
    pub ts: i64,
    /// Who.
    pub user: &'a str,
    /// What.
    pub item: &'a str,
    /// The impression that a behaviour follows, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impression: Option<&'a str>,
    /// The request that an impression answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<&'a str>,
    /// Place within the request, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// Where it was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surface: Option<&'a str>,
    /// What else was known at that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<&'a Fields>,
}

/// Features of an item as of a time.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The item.
    pub item: &'a str,
    /// From when on, milliseconds since 1970.
    pub ts: i64,
    /// Its features.
    pub features: &'a Fields,
}

/// Features of a user as of a time.
#[derive(Clone, Copy, Debug)]
pub struct User<'a> {
    /// The user.
    pub user: &'a str,
    /// From when on, milliseconds since 1970.
    pub ts: i64,
    /// Their features.
    pub features: &'a Fields,
}

/// Named values, written as an object in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Adds a value. What is missing is left out, so there is nothing to add for it.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.push((name.into(), value.into()));
    }

    /// Adds a text, unless there is none or it is empty.
    pub fn add_text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.add(name, text);
        }
    }

    /// Adds a number, written without a fraction where it has none.
    pub fn add_number(&mut self, name: &str, number: f64) {
        if number.trunc().to_bits() == number.to_bits() && number.abs() < MAX_WHOLE {
            self.add(name, number as i64);
        } else {
            self.add(name, number);
        }
    }

    /// Returns itself, or nothing when empty.
    pub fn non_empty(&self) -> Option<&Self> {
        (!self.0.is_empty()).then_some(self)
    }
}

/// The version of the wire format, written as a number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Version;

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(VERSION)
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        catalogue_entry(serializer, "item", self.item, self.ts, self.features)
    }
}

impl Serialize for User<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        catalogue_entry(serializer, "user", self.user, self.ts, self.features)
    }
}

fn catalogue_entry<S: Serializer>(
    serializer: S,
    name: &'static str,
    id: &str,
    ts: i64,
    features: &Fields,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(4))?;
    map.serialize_entry("v", &VERSION)?;
    map.serialize_entry(name, id)?;
    map.serialize_entry("ts", &ts)?;
    map.serialize_entry("features", features)?;
    map.end()
}

/// Writes a message (a non-empty JSON object) as a line of a file.
///
/// # Errors
/// When it cannot be written.
pub fn write_line(out: &mut impl Write, topic: Topic, message: &[u8]) -> io::Result<()> {
    debug_assert!(message.starts_with(b"{\""), "a message is a non-empty object");
    out.write_all(b"{\"topic\":\"")?;
    out.write_all(topic.name().as_bytes())?;
    out.write_all(b"\",")?;
    out.write_all(&message[1..])?;
    out.write_all(b"\n")
}

/// Writes a value (an [`Event`], [`Item`] or [`User`]) as a line of a file.
///
/// # Errors
/// When it cannot be written.
pub fn write_value(out: &mut Vec<u8>, topic: Topic, value: &impl Serialize) -> io::Result<()> {
    let mut message = Vec::with_capacity(256);
    serde_json::to_writer(&mut message, value)?;
    write_line(out, topic, &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(topic: Topic, value: &impl Serialize) -> String {
        let mut out = Vec::new();
        write_value(&mut out, topic, value).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_is_written_as_the_design_shows_it() {
        let mut context = Fields::default();
        context.add("device", "ios");
        let impression = Event {
            kind: "impression",
            id: "r42/3",
            ts: 1_650_812_741_436,
            user: "712",
            item: "52\"39",
            request: Some("r42"),
            position: Some(3),
            surface: Some("home"),
            context: context.non_empty(),
            ..Event::default()
        };
        assert_eq!(
            line(Topic::Events, &impression),
            concat!(
                r#"{"topic":"events","v":1,"type":"impression","id":"r42/3","ts":1650812741436,"#,
                r#""user":"712","item":"52\"39","request":"r42","position":3,"surface":"home","#,
                r#""context":{"device":"ios"}}"#,
                "\n"
            )
        );
        let click = Event { kind: "click", id: "c", impression: Some("r"), ..Event::default() };
        assert_eq!(
            line(Topic::Events, &click),
            concat!(
                r#"{"topic":"events","v":1,"type":"click","id":"c","ts":0,"user":"","item":"","#,
                r#""impression":"r"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn an_item_keeps_the_order_of_its_features_and_leaves_out_what_is_missing() {
        let mut features = Fields::default();
        features.add_number("price", 12.5);
        features.add_number("width", 720.0);
        features.add_text("author", None);
        features.add_text("brand", Some(""));
        features.add("category", "39");
        features.add("tags", vec!["39", "4"]);
        assert_eq!(
            line(Topic::Items, &Item { item: "7", ts: 5, features: &features }),
            concat!(
                r#"{"topic":"items","v":1,"item":"7","ts":5,"#,
                r#""features":{"price":12.5,"width":720,"category":"39","tags":["39","4"]}}"#,
                "\n"
            )
        );
    }
}
