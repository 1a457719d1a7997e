//! Records of the event topic.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::object::Object;
use super::values::{Text, Whole};
use super::walk::Walk;
use super::{ArrivalTime, Scratch, check_version, text_of};
use crate::attributes::Attributes;
use crate::event::{Behaviour, BehaviourType, Event, Impression};
use crate::funnel::Funnel;
use crate::ids::{EventId, stable_hash};
use crate::reject::{Reason, Rejection};
use crate::time::EventTime;
use crate::words::{listed, nearest, shown};

/// A valid event and what was noticed about its record.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded<'a> {
    /// What the record says.
    pub event: Event<'a>,
    /// The time is more than five minutes ahead of the record's arrival: it must not move the watermark.
    pub skewed: bool,
    /// How many unknown fields were ignored.
    pub ignored: u32,
}

/// Decodes a record of the event topic. An event without an id gets the hash of its bytes as id, so that a repeated record is known.
///
/// # Errors
/// The first thing found wrong with the record.
pub fn decode_event<'a>(
    bytes: &'a [u8],
    funnel: &Funnel,
    clock: ArrivalTime,
    scratch: &'a mut Scratch,
) -> Result<Decoded<'a>, Rejection> {
    let text = text_of(bytes)?;
    let Scratch { walk, attributes } = scratch;
    walk.begin();
    attributes.clear();
    let mut input = serde_json::Deserializer::from_str(text);
    let mut fields = Found::default();
    Fields { text, walk, context: attributes, found: &mut fields }
        .deserialize(&mut input)
        .and_then(|()| input.end())
        .map_err(|error| walk.rejection(&error))?;

    check_version(fields.version)?;
    let name = walk.required(fields.name, "type")?;
    let is_entry = name == funnel.entry_name();
    let kind = if is_entry { None } else { funnel.behaviour_type(&name) };
    if !is_entry && kind.is_none() {
        return Err(unknown_type(&name, funnel));
    }
    let time = EventTime(walk.required(fields.time, "ts")?);
    let skewed = clock.check(time)?;
    let user = walk.required(fields.user, "user")?;
    let item = walk.required(fields.item, "item")?;
    let id = fields.id.map_or_else(|| EventId(stable_hash(bytes)), |id| EventId::of(&id));
    let event = match kind {
        Some(kind) => {
            let impression = fields.impression.map(|id| EventId::of(&id));
            Event::Behaviour(Behaviour { id, kind, time, user, item, impression })
        }
        None => Event::Impression(Impression {
            id,
            time,
            user,
            item,
            request: fields.request,
            position: fields.position.map(position).transpose()?,
            surface: fields.surface,
            context: attributes,
        }),
    };
    Ok(Decoded { event, skewed, ignored: walk.ignored() })
}

fn position(number: i64) -> Result<u32, Rejection> {
    let refused = || Rejection::found(Reason::NumberOutOfRange, "position", number);
    u32::try_from(number).map_err(|_| refused())
}

/// Says of a type that is not one which ones are.
fn unknown_type(name: &str, funnel: &Funnel) -> Rejection {
    if matches!(name, "search" | "erase") {
        return Rejection::found(Reason::Unsupported, "type", name);
    }
    let behaviours = (0u8..).take(funnel.behaviours());
    let behaviours = behaviours.map(|kind| funnel.behaviour_name(BehaviourType(kind)));
    let mut known: Vec<&str> = vec![funnel.entry_name()];
    known.extend(behaviours.filter(|name| *name != funnel.entry_name()));
    let hint = nearest(name, known.iter().copied())
        .map(|name| format!(": did you mean {name}?"))
        .unwrap_or_default();
    let detail = format!("found \"{}\", expected {}{hint}", shown(name), listed(&known));
    Rejection::field(Reason::UnknownType, "type").with(detail)
}

/// What stands in the record, each part valid by itself.
#[derive(Default)]
struct Found<'a> {
    version: Option<u64>,
    name: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    time: Option<i64>,
    user: Option<Cow<'a, str>>,
    item: Option<Cow<'a, str>>,
    impression: Option<Cow<'a, str>>,
    request: Option<Cow<'a, str>>,
    position: Option<i64>,
    surface: Option<Cow<'a, str>>,
}

struct Fields<'w, 'a> {
    text: &'a str,
    walk: &'w mut Walk,
    context: &'w mut Attributes,
    found: &'w mut Found<'a>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Self { text, walk, context, found } = self;
        let base = walk.enter()?;
        while let Some(key) = walk.key(base, &mut map)? {
            match &*key {
                "v" => found.version = map.next_value_seed(Whole(walk.at("v")))?.map(version),
                "type" => found.name = map.next_value_seed(Text::id(walk.at("type")))?,
                "id" => found.id = map.next_value_seed(Text::id(walk.at("id")))?,
                "ts" => found.time = map.next_value_seed(Whole(walk.at("ts")))?,
                "user" => found.user = map.next_value_seed(Text::id(walk.at("user")))?,
                "item" => found.item = map.next_value_seed(Text::id(walk.at("item")))?,
                "impression" => {
                    found.impression = map.next_value_seed(Text::id(walk.at("impression")))?;
                }
                "request" => found.request = map.next_value_seed(Text::id(walk.at("request")))?,
                "position" => found.position = map.next_value_seed(Whole(walk.at("position")))?,
                "surface" => {
                    found.surface = map.next_value_seed(Text::plain(walk.at("surface")))?
                }
                "context" => {
                    let walk = walk.at("context");
                    map.next_value_seed(Object { text, walk, into: context })?;
                }
                key => walk.skip(key, &mut map)?,
            }
        }
        walk.leave(base);
        Ok(())
    }
}

/// Returns a version number; a negative one is none that exists.
pub(super) fn version(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
