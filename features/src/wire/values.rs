//! Readers of single values: texts, ids, whole numbers, lists of ids.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::walk::Walk;
use super::{MAX_ID, MAX_TEXT};
use crate::reject::Reason;
use crate::words::shown;

/// Reads a text, or a whole number as its decimal text; null as none.
pub(super) struct Text<'w> {
    walk: &'w mut Walk,
    id: bool,
}

impl<'w> Text<'w> {
    /// Reads an id.
    pub(super) fn id(walk: &'w mut Walk) -> Self {
        Self { walk, id: true }
    }

    /// Reads any other text.
    pub(super) fn plain(walk: &'w mut Walk) -> Self {
        Self { walk, id: false }
    }

    /// Checks the length, and for ids the characters.
    pub(super) fn check<E: Error>(&mut self, text: &str) -> Result<(), E> {
        let reason = if self.id {
            id_fault(text.as_bytes())
        } else {
            (text.len() > MAX_TEXT).then_some(Reason::TooLong)
        };
        reason.map_or(Ok(()), |reason| Err(refuse(self.walk, reason, text)))
    }
}

/// Refuses a text.
#[cold]
fn refuse<E: Error>(walk: &mut Walk, reason: Reason, text: &str) -> E {
    let found = match reason {
        Reason::IdControl => shown(text),
        _ => format!("{} bytes", text.len()),
    };
    walk.refuse_with(reason, Some(format!("found {found}: {}", reason.expected())))
}

/// Returns a whole number as its text.
#[cold]
fn decimal(number: impl ToString) -> Cow<'static, str> {
    Cow::Owned(number.to_string())
}

/// Refuses a number that is no whole one, or one whose digits were lost.
#[cold]
fn refuse_number<E: Error>(walk: &mut Walk, number: f64, expected: &str) -> E {
    let detail = if number.fract().abs() > 0.0 || number.abs() < EXACT {
        format!("found {number:?}: expected {expected}")
    } else {
        "found a number of more than 64 bits: write it as a text".to_owned()
    };
    walk.refuse_with(Reason::WrongType, Some(detail))
}

/// Returns what is wrong with an id.
pub(super) fn id_fault(id: &[u8]) -> Option<Reason> {
    if id.is_empty() {
        Some(Reason::IdEmpty)
    } else if id.len() > MAX_ID {
        Some(Reason::IdTooLong)
    } else if id.iter().any(u8::is_ascii_control) {
        Some(Reason::IdControl)
    } else {
        None
    }
}

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a whole number")
    }

    fn visit_borrowed_str<E: Error>(mut self, text: &'de str) -> Result<Self::Value, E> {
        self.check(text)?;
        Ok(Some(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<Self::Value, E> {
        self.check(text)?;
        Ok(Some(Cow::Owned(text.to_owned())))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(decimal(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(decimal(number)))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Err(refuse_number(self.walk, number, "a text or a whole number"))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// The largest whole number that an f64 holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Reads a whole number, also one that is written with a fraction of zero; null as none.
pub(super) struct Whole<'w>(pub(super) &'w mut Walk);

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = Option<i64>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        // Nothing that is read here comes near the limit, so the largest number stands for all beyond.
        Ok(Some(i64::try_from(number).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        if number.abs() >= EXACT {
            Ok(Some(if number > 0.0 { i64::MAX } else { i64::MIN }))
        } else if number.fract().abs() > 0.0 {
            Err(refuse_number(self.0, number, "a whole number"))
        } else {
            Ok(Some(number as i64))
        }
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Reads a list of ids, at most `most`; null as none.
pub(super) struct Ids<'w> {
    pub(super) walk: &'w mut Walk,
    pub(super) most: usize,
}

impl<'de> DeserializeSeed<'de> for Ids<'_> {
    type Value = Vec<String>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Ids<'_> {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut ids = Vec::new();
        while let Some(id) = list.next_element_seed(Text::id(self.walk))? {
            let Some(id) = id else {
                let detail = "found null: expected a list of ids".to_owned();
                return Err(self.walk.refuse_with(Reason::WrongType, Some(detail)));
            };
            if ids.len() >= self.most {
                return Err(self.walk.refuse(Reason::TooMany));
            }
            ids.push(id.into_owned());
        }
        Ok(ids)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }
}
