//! Messages in files: JSON lines, each with `"topic":"..."` in front.

use crate::reject::{Reason, Rejection};

/// Which topic a line of a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Impressions and behaviours.
    Events,
    /// Items' features.
    Items,
    /// Users' features.
    Users,
    /// Requests.
    Requests,
}

impl Topic {
    /// All topics that lines may belong to.
    pub const ALL: [Self; 4] = [Self::Events, Self::Items, Self::Users, Self::Requests];

    /// Returns the name without prefix.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Items => "items",
            Self::Users => "users",
            Self::Requests => "requests",
        }
    }
}

/// Splits a line into its topic and the message as it would stand in Kafka, without copying: the brace moves behind the topic. So the
/// message's bytes, and with them an id made of them, are the same from a file and from Kafka.
///
/// # Errors
/// When the line does not begin with the topic, or the topic is unknown.
pub fn split_line(line: &mut [u8]) -> Result<(Topic, &[u8]), Rejection> {
    let length = line.trim_ascii_end().len();
    let line = &mut line[..length];
    let missing = || Rejection::field(Reason::MissingField, "topic");
    let mut rest = Rest { line, place: 0 };
    if !rest.take(b"{") {
        return Err(Rejection::whole(Reason::InvalidJson));
    }
    if !rest.take(b"\"topic\"") || !rest.take(b":") || !rest.take(b"\"") {
        return Err(missing());
    }
    let name = &rest.line[rest.place..];
    let length = name.iter().position(|&byte| byte == b'"').ok_or_else(missing)?;
    let topic = Topic::ALL.into_iter().find(|topic| topic.name().as_bytes() == &name[..length]);
    let unknown = || {
        let found = String::from_utf8_lossy(&name[..length]);
        Rejection::found(Reason::UnknownTopic, "topic", found)
    };
    let topic = topic.ok_or_else(unknown)?;
    rest.place += length + 1;
    // The comma, or the closing quote where the topic is all there is, makes room for the brace.
    let brace = if rest.take(b",") { rest.place - 1 } else { name_end(&rest) };
    let line = rest.line;
    line[brace] = b'{';
    Ok((topic, &line[brace..]))
}

/// Returns the place of the last byte taken, which is not white space.
fn name_end(rest: &Rest<'_>) -> usize {
    rest.line[..rest.place].iter().rposition(|byte| *byte == b'"').unwrap_or(0)
}

/// A line and how far it was read.
struct Rest<'l> {
    line: &'l mut [u8],
    place: usize,
}

impl Rest<'_> {
    /// Takes white space and then some bytes, if these come next.
    fn take(&mut self, wanted: &[u8]) -> bool {
        let space = self.line[self.place..].iter().take_while(|b| b.is_ascii_whitespace()).count();
        let found = self.line[self.place + space..].starts_with(wanted);
        if found {
            self.place += space + wanted.len();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Result<(Topic, String), Reason> {
        let mut line = line.as_bytes().to_vec();
        split_line(&mut line)
            .map(|(topic, message)| (topic, String::from_utf8(message.to_vec()).unwrap()))
            .map_err(|rejection| rejection.reason)
    }

    #[test]
    fn the_message_is_what_kafka_would_carry() {
        let events = |message: &str| Ok((Topic::Events, message.to_owned()));
        assert_eq!(split(r#"{"topic":"events","type":"click"}"#), events(r#"{"type":"click"}"#));
        assert_eq!(split(" { \"topic\" : \"events\" , \"a\":1}\r\n"), events(r#"{ "a":1}"#));
        assert_eq!(split(r#"{"topic":"events"}"#), events("{}"));
        assert_eq!(split(r#"{"topic":"events"  }"#), events("{  }"));
    }

    #[test]
    fn a_line_without_a_known_topic_in_front_is_refused() {
        assert_eq!(split(r#"{"type":"click","topic":"events"}"#), Err(Reason::MissingField));
        assert_eq!(split(r#"{"topic":"event"}"#), Err(Reason::UnknownTopic));
        assert_eq!(split(r#"{"topic":"events"#), Err(Reason::MissingField));
        assert_eq!(split(""), Err(Reason::InvalidJson));
        assert_eq!(split("[]"), Err(Reason::InvalidJson));
    }
}
