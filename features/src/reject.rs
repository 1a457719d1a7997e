//! Why a record is refused: a closed set of reasons, each one metric label, and the field that is to blame.

use std::borrow::Cow;
use std::fmt;

use crate::words::shown;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $text:literal;)*) => {
        /// What is wrong with a record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Returns every reason, in the order of their declaration.
            pub const fn all() -> &'static [Reason] {
                &[$(Self::$variant,)*]
            }

            /// Returns the name: the label in metrics, the header of a dead letter, the code of an error answer.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Returns what was expected, in plain words.
            pub const fn expected(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// Not one JSON object.
    InvalidJson, "invalid-json", "expected one JSON object and nothing after it";
    /// Bytes that are no text.
    InvalidUtf8, "invalid-utf8", "expected UTF-8";
    /// The whole message is too long.
    TooLarge, "too-large", "expected a message of at most 256 KiB";
    /// An event type that is neither the entry, a task nor an extra behaviour.
    UnknownType, "unknown-type", "expected the entry event, a task of the funnel or a declared behaviour";
    /// A request kind that does not exist.
    UnknownKind, "unknown-kind", "expected \"rank\", \"recommend\" or \"similar\"";
    /// A topic name in a file that does not exist.
    UnknownTopic, "unknown-topic", "expected \"events\", \"items\", \"users\" or \"requests\"";
    /// Known, but not handled by this version.
    Unsupported, "unsupported", "this version does not handle it yet: leave it out";
    /// A message format that this version does not know.
    UnsupportedVersion, "unsupported-version", "expected version 1 of the message format";
    /// A field that must be there is not.
    MissingField, "missing-field", "this field must be given";
    /// A field has another type than it must have.
    WrongType, "wrong-type", "the value has the wrong JSON type for this field";
    /// An id of no characters.
    IdEmpty, "id-empty", "expected an id of 1 to 256 bytes";
    /// An id that is too long.
    IdTooLong, "id-too-long", "expected an id of 1 to 256 bytes";
    /// An id with control characters.
    IdControl, "id-control", "expected an id without control characters";
    /// A time before 1990.
    TimeTooOld, "time-too-old", "expected milliseconds since 1970, in 1990 or later";
    /// A time more than 24 hours ahead.
    TimeInFuture, "time-in-future", "expected milliseconds since 1970, at most 24 hours after the record's arrival";
    /// A number outside what the field or an f32 can hold.
    NumberOutOfRange, "number-out-of-range", "expected a finite number within the range of the field (an f32 for features)";
    /// Too many entries.
    TooMany, "too-many", "expected at most 512 entries (1000 for items of a request)";
    /// A text that is too long.
    TooLong, "too-long", "expected a text of at most 4 KiB";
    /// A key that stands twice in one object.
    DoubledKey, "doubled-key", "expected each key once in an object";
    /// Too many levels.
    TooDeep, "too-deep", "expected at most 32 levels of objects and lists";
    /// A record without value and without a usable key.
    TombstoneWithoutKey, "tombstone-without-key", "a record without value needs the id as its key";
    /// A record without value whose time is not known.
    TombstoneWithoutTime, "tombstone-without-time", "a record without value needs the broker's timestamp";
    /// Another string has the same 64-bit id.
    IdCollision, "id-collision", "another id has the same 64-bit hash: rename one of them";
    /// A record at which the program has failed again and again.
    Poison, "poison", "the daemon has panicked at this record several times, which is a bug: please report it with the record";
    /// An event topic's record without value.
    EmptyRecord, "empty-record", "expected a value: a record of this topic has no tombstones";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A record that was refused. A value, not an error: the record goes to the dead-letter topic and the rest goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What is wrong.
    pub reason: Reason,
    /// Where: a field's name or path (`user`, `context.price`), if it is one field's fault.
    pub field: Option<Cow<'static, str>>,
    /// What was found, what is known and what may have been meant, where that says more than the reason: short, and on one line.
    pub detail: Option<Box<str>>,
}

impl Rejection {
    /// Creates a rejection of the whole record.
    pub const fn whole(reason: Reason) -> Self {
        Self { reason, field: None, detail: None }
    }

    /// Creates a rejection because of one field.
    pub fn field(reason: Reason, field: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, field: Some(field.into()), detail: None }
    }

    /// Creates a rejection because of what was found in one field.
    pub fn found(
        reason: Reason,
        field: impl Into<Cow<'static, str>>,
        found: impl fmt::Display,
    ) -> Self {
        let found = shown(&found.to_string());
        Self::field(reason, field).with(format!("found {found}: {}", reason.expected()))
    }

    /// Says more than the reason does.
    pub fn with(self, detail: impl Into<Box<str>>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{}: ", shown(field))?;
        }
        let said = self.detail.as_deref().unwrap_or(self.reason.expected());
        write!(f, "{said} ({})", self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_labels() {
        let names: std::collections::BTreeSet<_> = Reason::all().iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), Reason::all().len());
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(names.iter().all(|name| name.chars().all(plain)));
    }

    #[test]
    fn a_rejection_says_where_what_was_expected_and_its_name() {
        let rejection = Rejection::field(Reason::IdEmpty, "user");
        assert_eq!(rejection.to_string(), "user: expected an id of 1 to 256 bytes (id-empty)");
        let rejection = Rejection::found(Reason::UnsupportedVersion, "v", 7);
        let said = "v: found 7: expected version 1 of the message format (unsupported-version)";
        assert_eq!(rejection.to_string(), said);
    }
}
