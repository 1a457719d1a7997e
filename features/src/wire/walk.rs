//! The walk through one message: keys, depth, what is skipped, and what was refused where.
//!
//! Every reader of a value borrows the one [`Walk`], which remembers what was refused and where, since a JSON error can only carry text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::values::Text;
use super::{MAX_DEPTH, MAX_ID, MAX_LIST};
use crate::ids::stable_hash;
use crate::reject::{Reason, Rejection};
use crate::words::{nearest, shown};

/// What is remembered on the way through one message.
#[derive(Clone, Debug, Default)]
pub(super) struct Walk {
    /// Hashes of the keys of all objects that are open, outermost first.
    keys: Vec<u64>,
    /// Entries of the list being read.
    pub(super) list: Vec<u64>,
    depth: u32,
    at: Option<&'static str>,
    inner: Option<String>,
    refused: Option<Reason>,
    /// What the rejection says beside the reason.
    detail: Option<String>,
    /// The fields of the outermost object that were skipped.
    unknown: Names,
    /// The names of attributes, where somebody asks for them.
    attributes: Option<Names>,
}

/// Names that came in a message, in one block of memory that is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    text: String,
    ends: Vec<usize>,
}

impl Names {
    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(self.text.len());
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.text[start..end])
    }
}

impl Walk {
    /// Starts with a new message.
    pub(super) fn begin(&mut self) {
        self.keys.clear();
        self.depth = 0;
        self.at = None;
        self.inner = None;
        self.refused = None;
        self.detail = None;
        self.unknown.clear();
        if let Some(names) = &mut self.attributes {
            names.clear();
        }
    }

    /// Forgets the names that came. From now on those of attributes are kept, or not.
    pub(super) fn keep_attributes(&mut self, keep: bool) {
        self.unknown.clear();
        match keep {
            true => self.attributes.get_or_insert_default().clear(),
            false => self.attributes = None,
        }
    }

    /// Returns how many fields of the outermost object were skipped.
    pub(super) fn ignored(&self) -> u32 {
        u32::try_from(self.unknown.ends.len()).unwrap_or(u32::MAX)
    }

    /// Returns the fields of the outermost object that were skipped.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &str> {
        self.unknown.iter()
    }

    /// Returns the names of attributes, if they are kept.
    pub(super) fn attributes(&self) -> impl Iterator<Item = &str> {
        self.attributes.iter().flat_map(Names::iter)
    }

    /// Takes note of the name of an attribute.
    pub(super) fn name(&mut self, name: &str) {
        if let Some(names) = &mut self.attributes {
            names.push(name);
        }
    }

    /// Enters an object or list. Returns where its keys begin.
    pub(super) fn enter<E: Error>(&mut self) -> Result<usize, E> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.refuse(Reason::TooDeep));
        }
        Ok(self.keys.len())
    }

    /// Leaves an object or list whose keys began at `base`.
    pub(super) fn leave(&mut self, base: usize) {
        self.depth -= 1;
        self.keys.truncate(base);
    }

    /// Reads the next key of an object whose keys began at `base`.
    pub(super) fn key<'de, A: MapAccess<'de>>(
        &mut self,
        base: usize,
        map: &mut A,
    ) -> Result<Option<Cow<'de, str>>, A::Error> {
        if self.depth == 1 {
            self.at = None;
        }
        let Some(key) = map.next_key_seed(Characters)? else {
            return Ok(None);
        };
        let hash = signature(&key);
        let refused = if key.len() > MAX_ID {
            Some(Reason::TooLong)
        } else if self.keys.len() - base >= MAX_LIST {
            Some(Reason::TooMany)
        } else if self.keys[base..].contains(&hash) {
            Some(Reason::DoubledKey)
        } else {
            None
        };
        if let Some(reason) = refused {
            self.blame(&key);
            return Err(self.refuse(reason));
        }
        self.keys.push(hash);
        Ok(Some(key))
    }

    /// Names the field whose value comes next.
    pub(super) fn at(&mut self, field: &'static str) -> &mut Self {
        self.at = Some(field);
        self
    }

    /// Skips the value of an unknown field of the outermost object.
    pub(super) fn skip<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        self.at = None;
        self.unknown.push(name);
        map.next_value_seed(Skip(self))
    }

    /// Notes why the message is refused and returns the error that ends the walk.
    pub(super) fn refuse<E: Error>(&mut self, reason: Reason) -> E {
        self.refused.get_or_insert(reason);
        E::custom(reason.name())
    }

    /// The same, with what the reason does not say by itself.
    #[cold]
    pub(super) fn refuse_with<E: Error>(&mut self, reason: Reason, detail: Option<String>) -> E {
        if self.refused.is_none() {
            self.detail = detail;
        }
        self.refuse(reason)
    }

    /// Turns the error that ended the walk into what it means.
    #[cold]
    pub(super) fn rejection(&mut self, error: &serde_json::Error) -> Rejection {
        let reason = self.refused.unwrap_or_else(|| {
            if error.is_data() && self.at.is_some() {
                Reason::WrongType
            } else if error.to_string().starts_with("number out of range") {
                Reason::NumberOutOfRange
            } else {
                Reason::InvalidJson
            }
        });
        let field: Option<Cow<'static, str>> = match (self.at, self.inner.take()) {
            _ if reason == Reason::InvalidJson => None,
            (Some(at), Some(inner)) => Some(format!("{at}.{inner}").into()),
            (None, Some(inner)) => Some(inner.into()),
            (at, None) => at.map(Cow::Borrowed),
        };
        let detail = self.detail.take().or_else(|| match self.refused {
            Some(_) => None,
            None => Some(detail(reason, &error.to_string())),
        });
        Rejection { reason, field, detail: detail.map(String::into_boxed_str) }
    }

    /// Returns a value that must have been given; otherwise a field that nobody knows may be the one.
    pub(super) fn required<T>(
        &self,
        value: Option<T>,
        field: &'static str,
    ) -> Result<T, Rejection> {
        value.ok_or_else(|| self.missing(field))
    }

    #[cold]
    fn missing(&self, field: &'static str) -> Rejection {
        let missing = Rejection::field(Reason::MissingField, field);
        match nearest(field, self.unknown()) {
            Some(like) => {
                let (like, must) = (shown(like), Reason::MissingField.expected());
                missing.with(format!("{must}; found \"{like}\": rename it"))
            }
            None => missing,
        }
    }

    /// Keeps the beginning of a key for the report.
    pub(super) fn blame(&mut self, key: &str) {
        if self.inner.is_none() {
            self.inner = Some(key.chars().take(64).collect());
        }
    }
}

/// Returns what the reader of JSON found, in our words.
fn detail(reason: Reason, said: &str) -> String {
    // `invalid type: floating point `1.5`, expected a text at line 1 column 7`
    let told = said.strip_prefix("invalid type: ").and_then(|said| said.rsplit_once(" at line "));
    match told.and_then(|(said, _)| said.rsplit_once(", expected ")) {
        Some((found, expected)) => format!("found {}: expected {expected}", shown(found)),
        None => format!("{}: {}", reason.expected(), shown(said)),
    }
}

/// Returns a number by which equal keys are known. Keys of up to seven bytes, nearly all, are their own number, with the length above
/// the bytes: hashing them would take longer than reading them.
fn signature(key: &str) -> u64 {
    let bytes = key.as_bytes();
    let short = |bytes: &[u8]| match *bytes {
        [] => 0,
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        [a, b, c, ..] => u64::from(u32::from_le_bytes([a, b, c, 0])),
    };
    let number = match bytes {
        [a, b, c, d, rest @ ..] if rest.len() < 4 => {
            u64::from(u32::from_le_bytes([*a, *b, *c, *d])) | short(rest) << 32
        }
        [_, _, _, _, ..] => return stable_hash(bytes),
        _ => short(bytes),
    };
    number | (bytes.len() as u64) << 56
}

/// Reads a key or another text as it stands in the message, where it has no escapes.
pub(super) struct Characters;

impl<'de> DeserializeSeed<'de> for Characters {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Characters {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Reads anything and keeps nothing, under the same limits of depth and keys.
struct Skip<'w>(&'w mut Walk);

impl<'de> DeserializeSeed<'de> for Skip<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let base = self.0.enter()?;
        while list.next_element_seed(Skip(self.0))?.is_some() {}
        self.0.leave(base);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let base = self.0.enter()?;
        while self.0.key(base, &mut map)?.is_some() {
            map.next_value_seed(Skip(self.0))?;
        }
        self.0.leave(base);
        Ok(())
    }
}

/// Finds the `id` of a message that may be broken elsewhere: the text of the first such key of the outermost object.
pub(super) fn find_id(bytes: &[u8]) -> Option<String> {
    struct Find<'f>(&'f mut Option<String>);

    impl<'de> Visitor<'de> for Find<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut walk = Walk::default();
            while let Some(key) = map.next_key_seed(Characters)? {
                if key == "id" {
                    let id = map.next_value_seed(Text::id(&mut walk))?;
                    *self.0 = id.map(Cow::into_owned);
                    return Ok(());
                }
                map.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }

    let valid = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    let text = std::str::from_utf8(&bytes[..valid]).ok()?;
    let mut id = None;
    let mut input = serde_json::Deserializer::from_str(text);
    // What is wrong with the message is known already; only the id is wanted here.
    let _broken = input.deserialize_map(Find(&mut id)).is_err();
    id
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn different_keys_have_different_signatures() {
        let mut keys: HashSet<String> = HashSet::new();
        for letters in ["a", "ab", "ba", "\0", "a\0", "é"] {
            keys.extend((0..=9).map(|count| letters.repeat(count)));
        }
        let signatures: HashSet<u64> = keys.iter().map(|key| signature(key)).collect();
        assert_eq!(signatures.len(), keys.len());
    }
}
