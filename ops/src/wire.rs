//! Lines of files: the wire messages of `sluice-features`, each with its topic in front, as in
//! `{"topic":"events","type":"click",…}`.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value};
use sluice_features::wire::Topic;

/// Named values: the features of an item or user, or the context of an impression.
pub type Fields = Map<String, Value>;

/// Below this every whole f64 is exact.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// Adds a value.
pub fn add(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    fields.insert(name.to_owned(), value.into());
}

/// Adds a text, unless there is none or it is empty: what is missing is left out.
pub fn add_text(fields: &mut Fields, name: &str, text: Option<&str>) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        add(fields, name, text);
    }
}

/// Adds a number, written without a fraction where it has none.
pub fn add_number(fields: &mut Fields, name: &str, number: f64) {
    if number.trunc().to_bits() == number.to_bits() && number.abs() < MAX_WHOLE {
        add(fields, name, number as i64);
    } else {
        add(fields, name, number);
    }
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

/// Writes an `EventMessage` or `UpdateMessage` without a topic as a line of a file.
///
/// # Errors
/// When it cannot be written.
pub fn write_value(out: &mut impl Write, topic: Topic, value: &impl Serialize) -> io::Result<()> {
    write_line(out, topic, &serde_json::to_vec(value)?)
}

/// Decodes a line as the daemon does: says why if it would be refused.
#[cfg(test)]
pub(crate) fn decode(
    line: &str,
    funnel: &sluice_features::funnel::Funnel,
) -> Result<(), sluice_features::reject::Rejection> {
    use sluice_features::wire::{
        ArrivalTime, Role, Scratch, decode_event, decode_update, split_line,
    };

    let (mut line, mut scratch) = (line.as_bytes().to_vec(), Scratch::default());
    let (topic, message) = split_line(&mut line)?;
    let clock = ArrivalTime(None);
    let role = match topic {
        Topic::Items => Role::Item,
        Topic::Users => Role::User,
        _ => return decode_event(message, funnel, clock, &mut scratch).map(|_| ()),
    };
    decode_update(role, None, Some(message), clock, &mut scratch).map(|_| ())
}

/// A funnel below an entry event, without windows, and extra behaviours.
#[cfg(test)]
pub(crate) fn funnel(
    entry: sluice_features::funnel::Entry,
    entry_name: &str,
    tasks: &[(&str, Option<usize>)],
    extras: &[&str],
) -> sluice_features::funnel::Funnel {
    use sluice_features::funnel::{Funnel, LabelRule, Task};
    use sluice_features::time::Span;

    let task = |(name, parent): &(&str, Option<usize>)| Task {
        name: (*name).to_owned(),
        parent: *parent,
        window: Span::seconds(0),
        labels: LabelRule::Wait,
    };
    let extras = extras.iter().map(|name| (*name).to_owned()).collect();
    Funnel::build(entry, entry_name, tasks.iter().map(task).collect(), extras).unwrap()
}

#[cfg(test)]
mod tests {
    use sluice_features::wire::{EventMessage, UpdateMessage, split_line};

    use super::*;

    fn line(topic: Topic, value: &impl Serialize) -> String {
        let mut out = Vec::new();
        write_value(&mut out, topic, value).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_the_message_with_its_topic_in_front() {
        let click = EventMessage {
            id: Some("c9"),
            user: "712",
            item: "52\"39",
            impression: Some("r42/3"),
            ..EventMessage::new("click", 5)
        };
        let mut line = line(Topic::Events, &click);
        assert_eq!(
            line,
            concat!(
                r#"{"topic":"events","type":"click","id":"c9","ts":5,"user":"712","#,
                r#""item":"52\"39","impression":"r42/3"}"#,
                "\n"
            )
        );
        // The bytes that Kafka would carry come out again.
        let mut bytes = std::mem::take(&mut line).into_bytes();
        let (topic, message) = split_line(&mut bytes).unwrap();
        assert_eq!((topic, message), (Topic::Events, &*serde_json::to_vec(&click).unwrap()));
    }

    #[test]
    fn what_is_missing_is_left_out_and_whole_numbers_have_no_fraction() {
        let mut features = Fields::new();
        add_number(&mut features, "price", 12.5);
        add_number(&mut features, "width", 720.0);
        add_text(&mut features, "author", None);
        add_text(&mut features, "brand", Some(""));
        add(&mut features, "tags", vec!["39", "4"]);
        let item = UpdateMessage {
            item: Some("7"),
            ts: 5,
            features: Some(&features),
            ..UpdateMessage::default()
        };
        assert_eq!(
            line(Topic::Items, &item),
            concat!(
                r#"{"topic":"items","item":"7","ts":5,"#,
                r#""features":{"price":12.5,"tags":["39","4"],"width":720}}"#,
                "\n"
            )
        );
    }
}
