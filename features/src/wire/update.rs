//! Records of the item and the user topic: all features of one id from a time on, or its end.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::object::Object;
use super::values::{Text, Whole, id_fault};
use super::walk::Walk;
use super::{ArrivalTime, Scratch, check_version, event, text_of};
use crate::attributes::Attributes;
use crate::event::Update;
use crate::reject::{Reason, Rejection};
use crate::time::EventTime;

/// Whose features a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// An item's.
    Item,
    /// A user's.
    User,
}

impl Role {
    /// Returns the field that holds the id.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Item => "item",
            Self::User => "user",
        }
    }
}

/// A valid update and what was noticed about its record.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodedUpdate<'a> {
    /// What the record says.
    pub update: Update<'a>,
    /// Of a record without value whose key is JSON: the id in it, meant where the key itself is not known as an id.
    pub inner: Option<Cow<'a, str>>,
    /// The time is more than five minutes ahead of the record's arrival.
    pub skewed: bool,
    /// How many unknown fields were ignored.
    pub ignored: u32,
}

/// Decodes a record of the item or user topic.
///
/// No value (or the text `null` in its place), or `"features": null`, is the end of the item or of what is known of the user. A record without value has its id in the
/// key, which may be JSON ([`DecodedUpdate::inner`]), and holds from the broker's timestamp on.
///
/// # Errors
/// The first thing found wrong with the record.
pub fn decode_update<'a>(
    role: Role,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    clock: ArrivalTime,
    scratch: &'a mut Scratch,
) -> Result<DecodedUpdate<'a>, Rejection> {
    let Some(bytes) = value.filter(|value| value.trim_ascii() != b"null") else {
        return tombstone(role, key, clock);
    };
    let text = text_of(bytes)?;
    let Scratch { walk, attributes } = scratch;
    walk.begin();
    attributes.clear();
    let mut input = serde_json::Deserializer::from_str(text);
    let fields = Fields { text, role, walk, features: attributes }
        .deserialize(&mut input)
        .and_then(|fields| input.end().map(|()| fields))
        .map_err(|error| walk.rejection(&error))?;

    check_version(fields.version)?;
    let id = walk.required(fields.id, role.field())?;
    let time = EventTime(walk.required(fields.time, "ts")?);
    let skewed = clock.check(time)?;
    let features = walk.required(fields.features, "features")?.then_some(&*attributes);
    let update = Update { id, time, features };
    Ok(DecodedUpdate { update, inner: None, skewed, ignored: walk.ignored() })
}

fn tombstone(
    role: Role,
    key: Option<&[u8]>,
    clock: ArrivalTime,
) -> Result<DecodedUpdate<'_>, Rejection> {
    let without_key = Rejection::whole(Reason::TombstoneWithoutKey);
    let key = key.ok_or(without_key)?;
    let text =
        std::str::from_utf8(key).map_err(|_| Rejection::field(Reason::InvalidUtf8, "key"))?;
    let inner = id_in(role, text).map(Cow::Owned);
    let (id, inner) = match (id_fault(key), inner) {
        (None, inner) => (Cow::Borrowed(text), inner),
        (Some(_), Some(inner)) => (inner, None),
        (Some(reason), None) => return Err(Rejection::found(reason, "key", text)),
    };
    let time = clock.0.ok_or(Rejection::whole(Reason::TombstoneWithoutTime))?;
    let update = Update { id, time, features: None };
    Ok(DecodedUpdate { update, inner, skewed: false, ignored: 0 })
}

/// Returns the id in a key that is JSON: a text, an object that has the id in its field, or a `payload` that is one of these. So serialisers
/// of JSON write keys, Kafka's REST proxies and Connect among them.
fn id_in(role: Role, key: &str) -> Option<String> {
    if !key.trim_ascii_start().starts_with(['"', '{']) {
        return None;
    }
    let mut value = serde_json::from_str::<Value>(key).ok()?;
    if let Some(payload) = value.get_mut("payload") {
        value = payload.take();
    }
    if let Some(id) = value.get_mut(role.field()) {
        value = id.take();
    }
    let id = match value {
        Value::String(id) => id,
        Value::Number(number) if !number.is_f64() => number.to_string(),
        _ => return None,
    };
    id_fault(id.as_bytes()).is_none().then_some(id)
}

/// What stands in the record, each part valid by itself.
#[derive(Default)]
struct Found<'a> {
    version: Option<u64>,
    id: Option<Cow<'a, str>>,
    time: Option<i64>,
    /// Whether the features given are an object: otherwise null.
    features: Option<bool>,
}

struct Fields<'w, 'a> {
    text: &'a str,
    role: Role,
    walk: &'w mut Walk,
    features: &'w mut Attributes,
}

impl<'de> DeserializeSeed<'de> for Fields<'_, 'de> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_, 'de> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an update")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Self { text, role, walk, features } = self;
        let mut found = Found::default();
        let base = walk.enter()?;
        while let Some(key) = walk.key(base, &mut map)? {
            match &*key {
                "v" => {
                    found.version = map.next_value_seed(Whole(walk.at("v")))?.map(event::version);
                }
                "ts" => found.time = map.next_value_seed(Whole(walk.at("ts")))?,
                "features" => {
                    let walk = walk.at("features");
                    found.features =
                        Some(map.next_value_seed(Object { text, walk, into: &mut *features })?);
                }
                key if key == role.field() => {
                    found.id = map.next_value_seed(Text::id(walk.at(role.field())))?;
                }
                key => walk.skip(key, &mut map)?,
            }
        }
        walk.leave(base);
        Ok(found)
    }
}
