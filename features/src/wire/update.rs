//! Records of the item and the user topic: all features of one id from a time on, or its end.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::object::Object;
use super::values::{Text, Whole, id_fault};
use super::walk::Walk;
use super::{BrokerTime, Scratch, check_version, event, required, text_of};
use crate::attributes::Attributes;
use crate::event::Update;
use crate::reject::{Reason, Rejection};
use crate::time::EventTime;

/// Whose features a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The time is more than five minutes ahead of the record's arrival.
    pub skewed: bool,
    /// How many unknown fields were ignored.
    pub ignored: u32,
}

/// Decodes a record of the item or user topic.
///
/// No value, or `"features": null`, is the end of the item or of what is known of the user. A record without value has its id in the
/// key and holds from the broker's timestamp on.
///
/// # Errors
/// The first thing found wrong with the record.
pub fn decode_update<'a>(
    role: Role,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    clock: BrokerTime,
    scratch: &'a mut Scratch,
) -> Result<DecodedUpdate<'a>, Rejection> {
    let Some(bytes) = value else {
        return tombstone(key, clock);
    };
    let text = text_of(bytes)?;
    let Scratch { walk, attributes } = scratch;
    walk.begin();
    attributes.clear();
    let mut input = serde_json::Deserializer::from_str(text);
    let fields = Fields { role, walk, features: attributes }
        .deserialize(&mut input)
        .and_then(|fields| input.end().map(|()| fields))
        .map_err(|error| walk.rejection(&error))?;

    check_version(fields.version)?;
    let id = required(fields.id, role.field())?;
    let time = EventTime(required(fields.time, "ts")?);
    let skewed = clock.check(time)?;
    let features = required(fields.features, "features")?.then_some(&*attributes);
    Ok(DecodedUpdate { update: Update { id, time, features }, skewed, ignored: walk.ignored })
}

fn tombstone(key: Option<&[u8]>, clock: BrokerTime) -> Result<DecodedUpdate<'_>, Rejection> {
    let without_key = Rejection::whole(Reason::TombstoneWithoutKey);
    let key = key.ok_or(without_key)?;
    if let Some(reason) = id_fault(key) {
        return Err(Rejection::field(reason, "key"));
    }
    let id = std::str::from_utf8(key).map_err(|_| Rejection::field(Reason::InvalidUtf8, "key"))?;
    let time = clock.0.ok_or(Rejection::whole(Reason::TombstoneWithoutTime))?;
    let update = Update { id: Cow::Borrowed(id), time, features: None };
    Ok(DecodedUpdate { update, skewed: false, ignored: 0 })
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

struct Fields<'w> {
    role: Role,
    walk: &'w mut Walk,
    features: &'w mut Attributes,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an update")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Self { role, walk, features } = self;
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
                        Some(map.next_value_seed(Object { walk, into: &mut *features })?);
                }
                key if key == role.field() => {
                    found.id = map.next_value_seed(Text::id(walk.at(role.field())))?;
                }
                _ => walk.skip(&mut map)?,
            }
        }
        walk.leave(base);
        Ok(found)
    }
}
