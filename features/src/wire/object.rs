//! The reader of `features` and `context`: an object becomes [`Attributes`].

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::MAX_LIST;
use super::values::Text;
use super::walk::Walk;
use crate::attributes::{AttributeKey, Attributes, Value, number_id};
use crate::ids::stable_hash;
use crate::reject::Reason;

/// Reads an object into attributes. Returns whether there was one: null is none.
pub(super) struct Object<'w> {
    pub(super) walk: &'w mut Walk,
    pub(super) into: &'w mut Attributes,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let Self { walk, into } = self;
        let base = walk.enter()?;
        while let Some(key) = walk.key(base, &mut map)? {
            let value = match map.next_value_seed(Attribute(walk)) {
                Ok(value) => value,
                Err(error) => {
                    walk.blame(&key);
                    return Err(error);
                }
            };
            if let Some(value) = value
                && !into.insert(AttributeKey::of(&key), value)
            {
                walk.blame(&key);
                return Err(walk.refuse(Reason::DoubledKey));
            }
        }
        walk.leave(base);
        Ok(true)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }
}

/// Reads the value of an attribute; null as none.
struct Attribute<'w>(&'w mut Walk);

impl<'de> DeserializeSeed<'de> for Attribute<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Attribute<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, a truth value or a list of these")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Text::plain(self.0).check(text)?;
        Ok(Some(Value::Text(stable_hash(text.as_bytes()))))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Some(Value::Flag(flag)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(Value::Number(number as f64)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(Value::Number(number as f64)))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        if number.abs() > f64::from(f32::MAX) {
            return Err(self.0.refuse(Reason::NumberOutOfRange));
        }
        // Minus zero becomes zero: they are one category.
        Ok(Some(Value::Number(number + 0.0)))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let walk = self.0;
        let base = walk.enter()?;
        walk.list.clear();
        while let Some(id) = list.next_element_seed(Entry(walk))? {
            if walk.list.len() >= MAX_LIST {
                return Err(walk.refuse(Reason::TooMany));
            }
            walk.list.push(id);
        }
        walk.leave(base);
        Ok(Some(Value::List(walk.list.as_slice().into())))
    }
}

/// Reads an entry of a list as the id of its category.
struct Entry<'w>(&'w mut Walk);

impl<'de> DeserializeSeed<'de> for Entry<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<u64, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entry<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or a truth value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        Text::plain(self.0).check(text)?;
        Ok(stable_hash(text.as_bytes()))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<u64, E> {
        Ok(stable_hash(if flag { b"true" } else { b"false" }))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        Ok(number_id(number as f64))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        Ok(number_id(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
        if number.abs() > f64::from(f32::MAX) {
            return Err(self.0.refuse(Reason::NumberOutOfRange));
        }
        Ok(number_id(number + 0.0))
    }
}
