//! Records of the request topic. Not the hot path: a request owns its strings, for it travels to another thread.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::object::Object;
use super::values::{Ids, Text, Whole};
use super::walk::{Walk, find_id};
use super::{ArrivalTime, MAX_CANDIDATES, check_version, event, text_of};
use crate::attributes::{AttributeKey, Attributes, Value};
use crate::ids::CategoryId;
use crate::reject::{Reason, Rejection};
use crate::time::{EventTime, Span};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Scores for the given items.
    Rank,
    /// The best items for the user.
    Recommend,
    /// The items nearest to a given one.
    Similar,
}

/// Which items may stand in the answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Only items of these categories (`filter.category`, one or a list).
    pub categories: Option<Vec<CategoryId>>,
    /// Whether items that the user has seen may come again (`filter.seen`).
    pub seen: Option<bool>,
}

/// A valid request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its id, which the answer repeats.
    pub id: String,
    /// What is asked for.
    pub kind: RequestKind,
    /// For whom; always given for [`RequestKind::Rank`] and [`RequestKind::Recommend`].
    pub user: Option<String>,
    /// The candidates of a `rank`, the one item of a `similar`.
    pub items: Vec<String>,
    /// The most items of the answer (`k`; default 20, for `rank` all).
    pub limit: usize,
    /// Items that must not stand in the answer.
    pub exclude: Vec<String>,
    /// Which items may stand in the answer.
    pub filter: Filter,
    /// Page or place of the product.
    pub surface: Option<String>,
    /// As of when to answer (`ts`); otherwise the request's own timestamp.
    pub time: Option<EventTime>,
    /// Further circumstances.
    pub context: Attributes,
    /// The answer is not wanted later than this after the request.
    pub deadline: Option<Span>,
    /// How many unknown fields were ignored.
    pub ignored: u32,
}

/// The items of an answer where the request does not say how many.
const DEFAULT_LIMIT: usize = 20;

/// A request that was refused, with its id where that could be read, so that the error answer reaches who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRequest {
    /// The request's id.
    pub id: Option<String>,
    /// What is wrong with it.
    pub rejection: Rejection,
}

/// Decodes a record of the request topic.
///
/// # Errors
/// The first thing found wrong with the record.
pub fn decode_request(bytes: &[u8], clock: ArrivalTime) -> Result<Request, RefusedRequest> {
    decode(bytes, clock).map_err(|rejection| RefusedRequest { id: find_id(bytes), rejection })
}

fn decode(bytes: &[u8], clock: ArrivalTime) -> Result<Request, Rejection> {
    let text = text_of(bytes)?;
    let mut walk = Walk::default();
    let mut input = serde_json::Deserializer::from_str(text);
    let found = Fields { text, walk: &mut walk }
        .deserialize(&mut input)
        .and_then(|found| input.end().map(|()| found))
        .map_err(|error| walk.rejection(&error))?;

    check_version(found.version)?;
    let id = walk.required(found.id, "id")?.into_owned();
    let kind = kind(&walk.required(found.kind, "kind")?)?;
    let request = Request {
        id,
        kind,
        user: found.user.map(Cow::into_owned),
        limit: limit(found.limit, default_limit(kind, found.items.len()))?,
        items: found.items,
        exclude: found.exclude,
        filter: filter(&found.filter)?,
        surface: found.surface.map(Cow::into_owned),
        time: found.time.map(EventTime),
        context: found.context,
        deadline: deadline(found.deadline)?,
        ignored: walk.ignored(),
    };
    if let Some(time) = request.time {
        clock.check(time)?;
    }
    match kind {
        RequestKind::Rank | RequestKind::Recommend if request.user.is_none() => {
            walk.required(None, "user")
        }
        RequestKind::Rank | RequestKind::Similar if request.items.is_empty() => {
            walk.required(None, "items")
        }
        RequestKind::Similar if request.items.len() > 1 => {
            let detail = format!("found {} items: expected one", request.items.len());
            Err(Rejection::field(Reason::TooMany, "items").with(detail))
        }
        _ => Ok(request),
    }
}

fn kind(name: &str) -> Result<RequestKind, Rejection> {
    match name {
        "rank" => Ok(RequestKind::Rank),
        "recommend" => Ok(RequestKind::Recommend),
        "similar" => Ok(RequestKind::Similar),
        "explain" => Err(Rejection::found(Reason::Unsupported, "kind", name)),
        _ => Err(Rejection::found(Reason::UnknownKind, "kind", name)),
    }
}

/// A `rank` that does not say how many answers with all its candidates.
fn default_limit(kind: RequestKind, items: usize) -> usize {
    if kind == RequestKind::Rank { items.max(1) } else { DEFAULT_LIMIT }
}

fn limit(number: Option<i64>, default: usize) -> Result<usize, Rejection> {
    let limit = number.map_or(Some(default), |number| usize::try_from(number).ok());
    limit.filter(|limit| (1..=MAX_CANDIDATES).contains(limit)).ok_or_else(|| {
        let found = number.unwrap_or_default();
        let detail = format!("found {found}: expected 1 to {MAX_CANDIDATES}");
        Rejection::field(Reason::NumberOutOfRange, "k").with(detail)
    })
}

fn deadline(number: Option<i64>) -> Result<Option<Span>, Rejection> {
    let hour = Span::seconds(3600).0;
    match number {
        Some(number) if !(0..=hour).contains(&number) => {
            let detail = format!("found {number}: expected 0 to {hour} milliseconds");
            Err(Rejection::field(Reason::NumberOutOfRange, "deadline_ms").with(detail))
        }
        number => Ok(number.map(Span)),
    }
}

/// Reads the filter. A condition that is not known would be broken silently, so it is refused.
fn filter(attributes: &Attributes) -> Result<Filter, Rejection> {
    let (category, seen) = (AttributeKey::of("category"), AttributeKey::of("seen"));
    let mut filter = Filter::default();
    for (key, value) in attributes.iter() {
        match value {
            Value::List(ids) if *key == category => {
                filter.categories = Some(ids.iter().copied().map(CategoryId).collect());
            }
            Value::Flag(flag) if *key == seen => filter.seen = Some(*flag),
            _ if *key == category => {
                filter.categories = Some(value.category().map(CategoryId).into_iter().collect());
            }
            _ if *key == seen => {
                let detail = format!("found {}: expected true or false", value.kind());
                return Err(Rejection::field(Reason::WrongType, "filter.seen").with(detail));
            }
            _ => {
                let detail = "found another condition: this version knows category and seen";
                return Err(Rejection::field(Reason::Unsupported, "filter").with(detail));
            }
        }
    }
    Ok(filter)
}

/// What stands in the record, each part valid by itself.
#[derive(Default)]
struct Found<'a> {
    version: Option<u64>,
    id: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    user: Option<Cow<'a, str>>,
    items: Vec<String>,
    limit: Option<i64>,
    exclude: Vec<String>,
    filter: Attributes,
    surface: Option<Cow<'a, str>>,
    time: Option<i64>,
    context: Attributes,
    deadline: Option<i64>,
}

struct Fields<'w, 'a> {
    text: &'a str,
    walk: &'w mut Walk,
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
        f.write_str("a request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Self { text, walk } = self;
        let mut found = Found::default();
        let base = walk.enter()?;
        let most = MAX_CANDIDATES;
        while let Some(key) = walk.key(base, &mut map)? {
            match &*key {
                "v" => {
                    found.version = map.next_value_seed(Whole(walk.at("v")))?.map(event::version);
                }
                "id" => found.id = map.next_value_seed(Text::id(walk.at("id")))?,
                "kind" => found.kind = map.next_value_seed(Text::id(walk.at("kind")))?,
                "user" => found.user = map.next_value_seed(Text::id(walk.at("user")))?,
                "items" => {
                    found.items = map.next_value_seed(Ids { walk: walk.at("items"), most })?;
                }
                "k" => found.limit = map.next_value_seed(Whole(walk.at("k")))?,
                "exclude" => {
                    found.exclude = map.next_value_seed(Ids { walk: walk.at("exclude"), most })?;
                }
                "filter" => {
                    let walk = walk.at("filter");
                    map.next_value_seed(Object { text, walk, into: &mut found.filter })?;
                }
                "surface" => {
                    found.surface = map.next_value_seed(Text::plain(walk.at("surface")))?
                }
                "ts" => found.time = map.next_value_seed(Whole(walk.at("ts")))?,
                "context" => {
                    let walk = walk.at("context");
                    map.next_value_seed(Object { text, walk, into: &mut found.context })?;
                }
                "deadline_ms" => {
                    found.deadline = map.next_value_seed(Whole(walk.at("deadline_ms")))?;
                }
                key => walk.skip(key, &mut map)?,
            }
        }
        walk.leave(base);
        Ok(found)
    }
}
