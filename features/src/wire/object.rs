//! The reader of `features` and `context`: an object becomes [`Attributes`].
//!
//! A value is looked at as it is written, so that a number keeps its digits ([`Numeral`]): the reader of JSON only makes sure that it is well
//! formed.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::walk::{Characters, Walk};
use super::{MAX_LIST, MAX_TEXT};
use crate::attributes::{AttributeKey, Attributes, Value};
use crate::ids::stable_hash;
use crate::numeral::Numeral;
use crate::reject::Reason;
use crate::words::shown;

/// Reads an object into attributes. Returns whether there was one: null is none.
pub(super) struct Object<'w, 'a> {
    /// The whole message.
    pub(super) text: &'a str,
    pub(super) walk: &'w mut Walk,
    pub(super) into: &'w mut Attributes,
}

impl<'de> DeserializeSeed<'de> for Object<'_, 'de> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, 'de> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let Self { text, walk, into } = self;
        let base = walk.enter()?;
        while let Some(key) = walk.key(base, &mut map)? {
            walk.name(&key);
            let value = match &key {
                Cow::Borrowed(key) => {
                    let written = behind(text, key);
                    if written.starts_with('"') {
                        plain(&map.next_value_seed(Characters)?, Value::text).map(Some)
                    } else {
                        map.next_value::<IgnoredAny>()?;
                        attribute(written, &mut walk.list)
                    }
                }
                // A key with escapes stands elsewhere.
                Cow::Owned(_) => attribute(map.next_value::<&RawValue>()?.get(), &mut walk.list),
            };
            let taken = value.and_then(|value| {
                let kept = value.is_none_or(|value| into.insert(AttributeKey::of(&key), value));
                if kept { Ok(()) } else { Err(Fault::of(Reason::DoubledKey)) }
            });
            let Err(fault) = taken else { continue };
            walk.blame(&key);
            return Err(walk.refuse_with(fault.reason, fault.detail));
        }
        walk.leave(base);
        Ok(true)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }
}

/// Returns the message from the value on whose key, a part of the message, is `key`.
#[inline]
fn behind<'a>(text: &'a str, key: &str) -> &'a str {
    let place = key.as_ptr().addr() - text.as_ptr().addr();
    // The closing quote, a colon and white space stand between.
    let mut start = place + key.len() + 1;
    while let Some(b':' | b' ' | b'\n' | b'\r' | b'\t') = text.as_bytes().get(start) {
        start += 1;
    }
    &text[start..]
}

/// Why a value cannot be taken.
struct Fault {
    reason: Reason,
    detail: Option<String>,
}

impl Fault {
    fn of(reason: Reason) -> Self {
        Self { reason, detail: None }
    }

    #[cold]
    fn wrong_type(found: &str, expected: &str) -> Self {
        let detail = format!("found {found}: expected {expected}");
        Self { reason: Reason::WrongType, detail: Some(detail) }
    }

    #[cold]
    fn out_of_range(found: &str) -> Self {
        let (reason, found) = (Reason::NumberOutOfRange, shown(found));
        Self { reason, detail: Some(format!("found {found}: {}", reason.expected())) }
    }
}

/// Reads the value that stands first and is known to be well formed; null as none.
fn attribute(written: &str, list: &mut Vec<u64>) -> Result<Option<Value>, Fault> {
    Ok(Some(match written.as_bytes() {
        [b'"', ..] => text(written, Value::text)?,
        [b'-' | b'0'..=b'9', ..] => numeral(written)?.into(),
        [b't', ..] => Value::Flag(true),
        [b'f', ..] => Value::Flag(false),
        [b'n', ..] => return Ok(None),
        [b'[', ..] => {
            list.clear();
            let mut fault = None;
            let mut input = serde_json::Deserializer::from_str(written);
            let read = input.deserialize_seq(Entries { list, fault: &mut fault });
            if let Some(fault) = fault {
                return Err(fault);
            }
            read.map_err(|_| Fault::of(Reason::InvalidJson))?;
            Value::List(list.as_slice().into())
        }
        _ => {
            let expected = "a text, a number, a truth value or a list of these";
            return Err(Fault::wrong_type("an object", expected));
        }
    }))
}

/// Calls `read` with a text of the length that there may be.
fn plain<T>(text: &str, read: impl FnOnce(&str) -> T) -> Result<T, Fault> {
    if text.len() <= MAX_TEXT { Ok(read(text)) } else { Err(Fault::of(Reason::TooLong)) }
}

/// Calls `read` with what the text says that stands first.
fn text<T>(written: &str, read: impl FnOnce(&str) -> T) -> Result<T, Fault> {
    let mut input = serde_json::Deserializer::from_str(written);
    let text = Characters.deserialize(&mut input).map_err(|_| Fault::of(Reason::InvalidJson))?;
    plain(&text, read)
}

/// Reads the number that stands first.
fn numeral(written: &str) -> Result<Numeral, Fault> {
    let of_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let length = written.bytes().take_while(of_number).count();
    let digits = &written[..length];
    Numeral::read(digits).ok_or_else(|| Fault::out_of_range(digits))
}

/// Returns the id of an entry of a list.
fn entry(written: &str) -> Result<u64, Fault> {
    match written.as_bytes() {
        [b'"', ..] => text(written, |text| stable_hash(text.as_bytes())),
        [b't' | b'f', ..] => Ok(stable_hash(written.as_bytes())),
        [b'-' | b'0'..=b'9', ..] => Ok(numeral(written)?.id()),
        [first, ..] => {
            let found = match first {
                b'[' => "a list in a list",
                b'{' => "an object in a list",
                _ => "null in a list",
            };
            Err(Fault::wrong_type(found, "texts, numbers or truth values"))
        }
        [] => Err(Fault::of(Reason::InvalidJson)),
    }
}

/// Reads the ids of a list's entries.
struct Entries<'a> {
    list: &'a mut Vec<u64>,
    fault: &'a mut Option<Fault>,
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(written) = list.next_element::<&RawValue>()? {
            let read = match self.list.len() < MAX_LIST {
                true => entry(written.get()),
                false => Err(Fault::of(Reason::TooMany)),
            };
            match read {
                Ok(id) => self.list.push(id),
                Err(fault) => {
                    *self.fault = Some(fault);
                    return Err(A::Error::custom("an entry is refused"));
                }
            }
        }
        Ok(())
    }
}
