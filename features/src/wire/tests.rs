//! Every example of the format, every limit, and whatever bytes may come.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::attributes::{AttributeKey, Value};
use crate::event::{BehaviourType, Event};
use crate::funnel::{Entry, Funnel, LabelRule, Task};
use crate::ids::{CategoryId, EventId, stable_hash};

fn funnel() -> Funnel {
    let task = |name: &str, parent| Task {
        name: name.into(),
        parent,
        window: Span::seconds(60),
        labels: LabelRule::Wait,
    };
    let tasks = vec![task("click", None), task("purchase", Some(0))];
    Funnel::build(Entry::Impression, "impression", tasks, vec!["remove-from-cart".into()]).unwrap()
}

const ARRIVAL: ArrivalTime = ArrivalTime(Some(EventTime(1_650_812_800_000)));

fn event(text: &str) -> Result<(), (Reason, String)> {
    event_bytes(text.as_bytes())
}

fn event_bytes(bytes: &[u8]) -> Result<(), (Reason, String)> {
    decode_event(bytes, &funnel(), ARRIVAL, &mut Scratch::default())
        .map(|_| ())
        .map_err(|rejection| (rejection.reason, rejection.field.unwrap_or_default().into_owned()))
}

/// An event with some fields replaced; `null` removes one.
fn click(changes: serde_json::Value) -> String {
    let mut fields =
        json!({"type":"click","id":"c","ts":1_650_812_745_120i64,"user":"u","item":"i"});
    for (key, value) in changes.as_object().unwrap() {
        fields[key] = value.clone();
    }
    fields.to_string()
}

fn refused(changes: serde_json::Value) -> (Reason, String) {
    event(&click(changes)).unwrap_err()
}

macro_rules! example {
    ($name:literal) => {
        include_bytes!(concat!("../../examples_wire/", $name)).trim_ascii_end()
    };
}

#[test]
fn the_example_impression_is_read_in_full() {
    let (funnel, mut scratch) = (funnel(), Scratch::default());
    let decoded =
        decode_event(example!("event-impression.json"), &funnel, ARRIVAL, &mut scratch).unwrap();
    let Event::Impression(impression) = decoded.event else { panic!("an impression") };
    assert_eq!(impression.id, EventId::of("r42/3"));
    assert_eq!(impression.time, EventTime(1_650_812_741_436));
    assert_eq!((&*impression.user, &*impression.item), ("712", "5239"));
    assert_eq!(impression.request.as_deref(), Some("r42"));
    assert_eq!((impression.position, impression.surface.as_deref()), (Some(3), Some("home")));
    let device = impression.context.get(AttributeKey::of("device"));
    assert_eq!(device, Some(&Value::text("ios")));
    assert_eq!((decoded.skewed, decoded.ignored), (false, 0));
}

#[test]
fn the_example_behaviours_are_read_in_full() {
    let (funnel, mut scratch) = (funnel(), Scratch::default());
    let decoded = decode_event(example!("event-click.json"), &funnel, ARRIVAL, &mut scratch);
    let Event::Behaviour(click) = decoded.unwrap().event else { panic!("a behaviour") };
    assert_eq!((click.id, click.kind), (EventId::of("c9"), BehaviourType(0)));
    assert_eq!(click.impression, Some(EventId::of("r42/3")));

    let bytes = example!("event-behaviour.json");
    let decoded = decode_event(bytes, &funnel, ARRIVAL, &mut scratch);
    let Event::Behaviour(removal) = decoded.unwrap().event else { panic!("a behaviour") };
    assert_eq!((removal.id.0, removal.kind), (stable_hash(bytes), BehaviourType(2)));
    assert_eq!(removal.impression, None);
}

#[test]
fn the_example_updates_are_read_in_full() {
    let mut scratch = Scratch::default();
    let decoded =
        decode_update(Role::Item, None, Some(example!("item.json")), ARRIVAL, &mut scratch);
    let update = decoded.unwrap().update;
    assert_eq!((&*update.id, update.time), ("5239", EventTime(1_650_800_000_000)));
    let features = update.features.unwrap();
    let of = |name| features.get(AttributeKey::of(name)).cloned();
    assert_eq!(of("category"), Some(Value::text("39")));
    assert_eq!(of("price"), Some(Value::Number(12.5)));
    assert_eq!(of("available"), Some(Value::Flag(true)));
    let tags = [stable_hash(b"sport"), stable_hash(b"outdoor")];
    assert_eq!(of("tags"), Some(Value::List(Box::new(tags))));
    assert_eq!(features.len(), 5);

    let gone =
        decode_update(Role::Item, None, Some(example!("item-gone.json")), ARRIVAL, &mut scratch);
    assert_eq!(gone.unwrap().update.features, None);
    let user = decode_update(Role::User, None, Some(example!("user.json")), ARRIVAL, &mut scratch);
    assert_eq!(user.unwrap().update.features.unwrap().len(), 2);
}

#[test]
fn a_record_without_value_ends_the_id_in_its_key() {
    let mut scratch = Scratch::default();
    let update =
        decode_update(Role::User, Some(b"712"), None, ARRIVAL, &mut scratch).unwrap().update;
    assert_eq!((&*update.id, update.features), ("712", None));
    assert_eq!(Some(update.time), ARRIVAL.0);
    let mut reason = |key: Option<&'static [u8]>, clock| {
        decode_update(Role::User, key, None, clock, &mut scratch).unwrap_err().reason
    };
    assert_eq!(reason(None, ARRIVAL), Reason::TombstoneWithoutKey);
    assert_eq!(reason(Some(b"712"), ArrivalTime(None)), Reason::TombstoneWithoutTime);
    assert_eq!(reason(Some(b""), ARRIVAL), Reason::IdEmpty);
    assert_eq!(reason(Some(b"\xff"), ARRIVAL), Reason::InvalidUtf8);
}

#[test]
fn the_example_requests_are_read_in_full() {
    let rank = decode_request(example!("request-rank.json"), ARRIVAL).unwrap();
    assert_eq!((rank.kind, rank.user.as_deref()), (RequestKind::Rank, Some("712")));
    assert_eq!(rank.items, ["5239", "88", "1204"]);
    assert_eq!((rank.deadline, rank.surface.as_deref()), (Some(Span(50)), Some("home")));
    assert_eq!((rank.context.len(), rank.limit), (1, 3));

    let recommend = decode_request(example!("request-recommend.json"), ARRIVAL).unwrap();
    assert_eq!((recommend.kind, recommend.limit), (RequestKind::Recommend, 20));
    assert_eq!(recommend.exclude, ["88"]);
    let categories = Some(vec![CategoryId::of("39"), CategoryId::of("7")]);
    assert_eq!(recommend.filter, Filter { categories, seen: Some(false) });

    let similar = decode_request(example!("request-similar.json"), ARRIVAL).unwrap();
    assert_eq!((similar.kind, similar.limit), (RequestKind::Similar, 10));
}

#[test]
fn the_example_file_is_read_line_by_line() {
    let lines = example!("file.jsonl").split(|&byte| byte == b'\n');
    let mut topics = Vec::new();
    for line in lines {
        let mut line = line.to_vec();
        let (topic, message) = split_line(&mut line).unwrap();
        let mut scratch = Scratch::default();
        match topic {
            Topic::Events => drop(decode_event(message, &funnel(), ARRIVAL, &mut scratch).unwrap()),
            Topic::Items => {
                drop(
                    decode_update(Role::Item, None, Some(message), ARRIVAL, &mut scratch).unwrap(),
                );
            }
            _ => {
                drop(decode_update(Role::User, None, Some(message), ARRIVAL, &mut scratch).unwrap())
            }
        }
        topics.push(topic);
    }
    assert_eq!(topics, [Topic::Items, Topic::Users, Topic::Events]);
}

#[test]
fn answers_are_written_as_in_the_examples() {
    let funnel = funnel();
    let p = |values: &'static [f32]| Probabilities { funnel: &funnel, values };
    let scored = |item, score, values, unknown| Scored { item, score, p: p(values), unknown };
    let items = [
        scored("5239", 0.75, &[0.25, 0.025], false),
        scored("1204", 0.125, &[0.0625, 0.003125], true),
    ];
    let (learned_until, model) = (EventTime(1_650_812_799_000), "default/17");
    let mut output = Vec::new();
    let mut response = Response {
        id: "q1",
        items: &items,
        learned_until,
        model,
        took_us: 840,
        unknown_user: false,
        unknown_item: false,
    };
    encode_response(&response, &mut output).unwrap();
    assert_eq!(output, example!("response.json"));

    let nearest = [scored("88", 0.9375, &[], false)];
    response = Response { id: "q3", items: &nearest, took_us: 120, unknown_user: true, ..response };
    encode_response(&response, &mut output).unwrap();
    assert_eq!(output, example!("response-similar.json"));

    let scores = Scores { user: "712", items: &items[..1], learned_until, model };
    encode_scores(&scores, &mut output).unwrap();
    assert_eq!(output, example!("scores.json"));

    let embedding = Embedding { id: "5239", vector: &[0.5, -0.25], version: 17, ts: learned_until };
    encode_embedding(&embedding, &mut output).unwrap();
    assert_eq!(output, example!("embedding.json"));

    let message = Rejection::field(Reason::TooMany, "items").to_string();
    let error = ErrorBody { code: Reason::TooMany.name(), message: &message };
    encode_error(&ErrorResponse { id: Some("q4"), error }, &mut output);
    assert_eq!(output, example!("response-error.json"));
}

#[test]
fn a_message_with_a_number_that_is_not_finite_is_not_written() {
    let mut output = b"before".to_vec();
    let embedding = Embedding { id: "1", vector: &[f32::NAN], version: 1, ts: EventTime(1) };
    assert_eq!(encode_embedding(&embedding, &mut output), Err(NotFinite));
    assert!(output.is_empty());
}

#[test]
fn a_shop_without_impressions_has_its_view_decoded_as_one() {
    let task =
        Task { name: "view".into(), parent: None, window: Span::ZERO, labels: LabelRule::Wait };
    let funnel = Funnel::build(Entry::View { negatives: 4 }, "view", vec![task], vec![]).unwrap();
    let mut scratch = Scratch::default();
    let text = click(json!({"type":"view"}));
    let decoded = decode_event(text.as_bytes(), &funnel, ARRIVAL, &mut scratch).unwrap();
    assert!(matches!(decoded.event, Event::Impression(_)));
    let text = click(json!({"type":"impression"}));
    let refused = decode_event(text.as_bytes(), &funnel, ARRIVAL, &mut scratch).unwrap_err();
    assert_eq!(refused.reason, Reason::UnknownType);
}

#[test]
fn every_limit_of_the_format_has_its_reason_and_field() {
    let at = |reason, field: &str| (reason, field.to_owned());
    assert_eq!(refused(json!({"type":"hover"})), at(Reason::UnknownType, "type"));
    assert_eq!(refused(json!({"type":"search","query":"x"})), at(Reason::Unsupported, "type"));
    assert_eq!(refused(json!({"type":"erase"})), at(Reason::Unsupported, "type"));
    assert_eq!(refused(json!({"v":2})), at(Reason::UnsupportedVersion, "v"));
    assert_eq!(refused(json!({"user":null})), at(Reason::MissingField, "user"));
    assert_eq!(refused(json!({"item":null})), at(Reason::MissingField, "item"));
    assert_eq!(refused(json!({"ts":null})), at(Reason::MissingField, "ts"));
    assert_eq!(refused(json!({"type":null})), at(Reason::MissingField, "type"));
    assert_eq!(refused(json!({"user":712.0})), at(Reason::WrongType, "user"));
    assert_eq!(refused(json!({"user":true})), at(Reason::WrongType, "user"));
    assert_eq!(refused(json!({"ts":"1650812745120"})), at(Reason::WrongType, "ts"));
    assert_eq!(refused(json!({"ts":1.5})), at(Reason::WrongType, "ts"));
    assert_eq!(refused(json!({"context":[]})), at(Reason::WrongType, "context"));
    assert_eq!(refused(json!({"context":{"a":{"b":1}}})), at(Reason::WrongType, "context.a"));
    assert_eq!(refused(json!({"item":""})), at(Reason::IdEmpty, "item"));
    assert_eq!(refused(json!({"item":"x".repeat(257)})), at(Reason::IdTooLong, "item"));
    assert_eq!(refused(json!({"item":"a\u{7f}"})), at(Reason::IdControl, "item"));
    assert_eq!(refused(json!({"user":"a\nb"})), at(Reason::IdControl, "user"));
    let text = "x".repeat(MAX_TEXT + 1);
    assert_eq!(refused(json!({"context":{"t":text}})), at(Reason::TooLong, "context.t"));
    assert_eq!(refused(json!({"surface":text})), at(Reason::TooLong, "surface"));
    let list = vec![1; MAX_LIST + 1];
    assert_eq!(refused(json!({"context":{"l":list}})), at(Reason::TooMany, "context.l"));
    assert_eq!(refused(json!({"context":{"n":1e39}})), at(Reason::NumberOutOfRange, "context.n"));
    assert!(event(&click(json!({"item":"x".repeat(256)}))).is_ok());
    assert!(event(&click(json!({"context":{"n":3e38, "l":vec![1; MAX_LIST]}}))).is_ok());
}

#[test]
fn times_outside_the_format_are_refused_and_skew_is_told() {
    let at = |ts: i64| refused(json!({ "ts": ts })).0;
    assert_eq!(at(0), Reason::TimeTooOld);
    assert_eq!(at(-5), Reason::TimeTooOld);
    assert_eq!(at(1_650_812_745), Reason::TimeTooOld);
    assert_eq!(at(i64::MAX), Reason::TimeInFuture);
    let arrival = ARRIVAL.0.unwrap().0;
    assert_eq!(at(arrival + 24 * 3_600_000 + 1), Reason::TimeInFuture);
    let skewed = |ts: i64| {
        let (text, mut scratch) = (click(json!({ "ts": ts })), Scratch::default());
        decode_event(text.as_bytes(), &funnel(), ARRIVAL, &mut scratch).unwrap().skewed
    };
    assert!(!skewed(631_152_000_000));
    assert!(!skewed(arrival + 300_000));
    assert!(skewed(arrival + 300_001));
    assert!(skewed(arrival + 24 * 3_600_000));
    let unknown = |ts: i64| {
        let text = click(json!({ "ts": ts }));
        decode_event(text.as_bytes(), &funnel(), ArrivalTime(None), &mut Scratch::default()).is_ok()
    };
    assert!(unknown(arrival * 2) && !unknown(i64::MAX));
    let huge = click(json!({})).replace("1650812745120", "9223372036854775808");
    assert_eq!(event(&huge).unwrap_err().0, Reason::TimeInFuture);
    let float = click(json!({})).replace("1650812745120", "1650812745120.0");
    assert_eq!(event(&float), Ok(()));
}

#[test]
fn broken_messages_are_refused_as_such() {
    let reason = |bytes: &[u8]| event_bytes(bytes).unwrap_err().0;
    for bytes in [&b""[..], b"{", b"[]", b"null", b"\"x\"", b"{\"type\":\"click\"", b"{}{}", b"{}x"]
    {
        assert_eq!(reason(bytes), Reason::InvalidJson, "{}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(reason(b"\xef\xbb\xbf{}"), Reason::InvalidJson);
    assert_eq!(reason(br#"{"user":"\ud800"}"#), Reason::InvalidJson);
    assert_eq!(reason(br#"{"x":NaN}"#), Reason::InvalidJson);
    assert_eq!(reason(b"{\"user\":\"\xff\"}"), Reason::InvalidUtf8);
    assert_eq!(reason(&vec![b' '; MAX_MESSAGE + 1]), Reason::TooLarge);
    assert_eq!(reason(br#"{"context":{"n":1e400}}"#), Reason::NumberOutOfRange);
    assert_eq!(reason(br#"{"x":1e400}"#), Reason::NumberOutOfRange);
    let deep = |levels: usize| format!("{{\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(reason(deep(31).as_bytes()), Reason::MissingField);
    assert_eq!(reason(deep(32).as_bytes()), Reason::TooDeep);
    assert_eq!(reason(deep(100_000).as_bytes()), Reason::TooDeep);
    let keys: Vec<String> = (0..600).map(|i| format!("\"{i}\":1")).collect();
    assert_eq!(reason(format!("{{{}}}", keys.join(",")).as_bytes()), Reason::TooMany);
}

#[test]
fn a_key_that_stands_twice_is_refused_on_every_level() {
    let twice = |text: &str| event(text).unwrap_err();
    assert_eq!(twice(r#"{"user":"a","user":"a"}"#), (Reason::DoubledKey, "user".into()));
    assert_eq!(twice(r#"{"user":"a","us\u0065r":"a"}"#).0, Reason::DoubledKey);
    assert_eq!(twice(r#"{"x":1,"x":2}"#), (Reason::DoubledKey, "x".into()));
    assert_eq!(twice(r#"{"x":{"y":[{"z":1,"z":1}]}}"#), (Reason::DoubledKey, "z".into()));
    assert_eq!(twice(r#"{"context":{"a":1,"a":1}}"#), (Reason::DoubledKey, "context.a".into()));
    assert_eq!(twice(r#"{"context":{"a":null,"a":1}}"#).0, Reason::DoubledKey);
}

#[test]
fn unknown_fields_are_ignored_and_counted() {
    let text = click(json!({"campaign":{"a":[1,{"b":null}]},"x":true}));
    let mut scratch = Scratch::default();
    let decoded = decode_event(text.as_bytes(), &funnel(), ARRIVAL, &mut scratch).unwrap();
    assert_eq!(decoded.ignored, 2);
}

#[test]
fn a_refused_request_keeps_the_id_that_can_be_read() {
    let refused = |text: &str| {
        let refused = decode_request(text.as_bytes(), ARRIVAL).unwrap_err();
        (refused.id.unwrap_or_default(), refused.rejection.reason)
    };
    let of = |id: &str, reason| (id.to_owned(), reason);
    assert_eq!(refused(r#"{"kind":"explain","id":"q"}"#), of("q", Reason::Unsupported));
    assert_eq!(refused(r#"{"id":"q","kind":"guess"}"#), of("q", Reason::UnknownKind));
    assert_eq!(refused(r#"{"id":"q","kind":"rank","items":["1"]}"#), of("q", Reason::MissingField));
    assert_eq!(refused(r#"{"id":"q","kind":"rank","user":"u"}"#), of("q", Reason::MissingField));
    assert_eq!(refused(r#"{"user":7.5,"id":"q"}"#), of("q", Reason::WrongType));
    assert_eq!(refused(r#"{"id":"q","user":"u""#), of("q", Reason::InvalidJson));
    assert_eq!(refused(r#"{"user":"u"}"#), of("", Reason::MissingField));
    assert_eq!(refused(r#"{"id":7}"#), of("7", Reason::MissingField));
    assert_eq!(refused(r#"{"id":7.5}"#), of("", Reason::WrongType));
    let similar = |rest: &str| refused(&format!(r#"{{"id":"q","kind":"similar",{rest}}}"#)).1;
    assert_eq!(similar(r#""items":["1","2"]"#), Reason::TooMany);
    assert_eq!(similar(r#""items":["1",null]"#), Reason::WrongType);
    assert_eq!(similar(r#""items":["1"],"k":0"#), Reason::NumberOutOfRange);
    assert_eq!(similar(r#""items":["1"],"k":1001"#), Reason::NumberOutOfRange);
    assert_eq!(similar(r#""items":["1"],"deadline_ms":-1"#), Reason::NumberOutOfRange);
    assert_eq!(similar(r#""items":["1"],"filter":{"price":3}"#), Reason::Unsupported);
    let items: Vec<String> = (0..=MAX_CANDIDATES).map(|i| i.to_string()).collect();
    let many = json!({"kind":"rank","user":"u","items":items,"id":"q"}).to_string();
    assert_eq!(refused(&many), of("q", Reason::TooMany));
    let large = format!(r#"{{"id":"q","x":"{}"}}"#, "x".repeat(MAX_MESSAGE));
    assert_eq!(refused(&large), of("q", Reason::TooLarge));
}

#[test]
fn a_rejection_tells_what_was_found_and_what_is_known() {
    let said = |changes| {
        let text = click(changes);
        decode_event(text.as_bytes(), &funnel(), ARRIVAL, &mut Scratch::default())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        said(json!({"type":"purchse"})),
        "type: found \"purchse\", expected impression, click, purchase or remove-from-cart: \
         did you mean purchase? (unknown-type)"
    );
    assert_eq!(
        said(json!({"user":null, "user_id":"u"})),
        "user: this field must be given; found \"user_id\": rename it (missing-field)"
    );
    assert_eq!(said(json!({"item":null})), "item: this field must be given (missing-field)");
    assert_eq!(
        said(json!({"ts":1_650_812_745})),
        "ts: found 1650812745, which are seconds: write milliseconds since 1970 (time-too-old)"
    );
    assert_eq!(
        said(json!({"user":7.5})),
        "user: found 7.5: expected a text or a whole number (wrong-type)"
    );
    assert_eq!(
        said(json!({"context":{"a":{"b":1}}})),
        "context.a: found an object: expected a text, a number, a truth value or a list of these (wrong-type)"
    );
    assert_eq!(
        said(json!({"context":["a"]})),
        "context: found sequence: expected an object (wrong-type)"
    );
    assert!(
        said(json!({"item":"a\u{7}b"})).starts_with("item: found a\\u{7}b: expected an id without")
    );
    let long = said(json!({"type":"x".repeat(250)}));
    assert!(long.len() < 250, "{long}");
}

#[test]
fn a_whole_number_is_an_id_by_its_decimal_text() {
    let both = |changes: serde_json::Value| {
        let (text, funnel, mut scratch) = (click(changes), funnel(), Scratch::default());
        let decoded = decode_event(text.as_bytes(), &funnel, ARRIVAL, &mut scratch).unwrap();
        let Event::Behaviour(click) = decoded.event else { panic!("a behaviour") };
        (click.id, click.user.into_owned(), click.item.into_owned(), click.impression)
    };
    for id in [json!(12), json!(-5), json!(0), json!(u64::MAX), json!(9_007_199_254_740_993u64)] {
        let text = id.to_string();
        assert_eq!(
            both(json!({"id":id, "user":id, "item":id, "impression":id})),
            both(json!({"id":text, "user":text, "item":text, "impression":text})),
        );
    }
    for float in ["12.0", "1e3", "18446744073709551616", "-0.5"] {
        let text = click(json!({})).replace("\"u\"", float);
        assert_eq!(event(&text), Err((Reason::WrongType, "user".into())), "{float}");
    }
    let request = r#"{"id":7,"kind":"rank","user":12,"items":[1,"2",3],"exclude":[4]}"#;
    let request = decode_request(request.as_bytes(), ARRIVAL).unwrap();
    assert_eq!((&*request.id, request.user.as_deref()), ("7", Some("12")));
    assert_eq!((request.items.join(","), request.exclude.join(",")), ("1,2,3".into(), "4".into()));
    let update = br#"{"item":5239,"ts":1650800000000,"features":{}}"#;
    let mut scratch = Scratch::default();
    let decoded = decode_update(Role::Item, None, Some(update), ARRIVAL, &mut scratch).unwrap();
    assert_eq!(decoded.update.id, "5239");
}

#[test]
fn a_key_that_is_json_holds_an_id() {
    let ids = |role, key: &str| {
        let mut scratch = Scratch::default();
        let decoded = decode_update(role, Some(key.as_bytes()), None, ARRIVAL, &mut scratch);
        decoded.map(|d| (d.update.id.into_owned(), d.inner.map(std::borrow::Cow::into_owned)))
    };
    let of = |key: &str, inner: &str| Ok((key.to_owned(), Some(inner.to_owned())));
    let item = |key: &str, inner: &str| assert_eq!(ids(Role::Item, key), of(key, inner));
    item(r#""a""#, "a");
    item(r#""\u0061\"""#, "a\"");
    item(r#"{"item":"a"}"#, "a");
    item(r#"{ "item" : 7 }"#, "7");
    item(r#"{"schema":{"type":"string"},"payload":"a"}"#, "a");
    item(r#"{"schema":null,"payload":{"item":"a"}}"#, "a");
    assert_eq!(ids(Role::User, r#"{"user":"u"}"#), of(r#"{"user":"u"}"#, "u"));
    for key in ["a", "12", r#""a"#, r#"{"user":"a"}"#, r#"{"item":7.5}"#, r#"{"item":""}"#, r#""""#]
    {
        assert_eq!(ids(Role::Item, key), Ok((key.to_owned(), None)), "{key}");
    }
    // A key that is itself no id: what it holds.
    let wide = format!("{{\"item\":\"a\",\"note\":\"{}\"}}", "x".repeat(300));
    assert_eq!(ids(Role::Item, &wide), Ok(("a".into(), None)));
    assert_eq!(ids(Role::Item, &"x".repeat(300)).unwrap_err().reason, Reason::IdTooLong);

    let mut scratch = Scratch::default();
    let gone = decode_update(Role::Item, Some(b"a"), Some(b" null\n"), ARRIVAL, &mut scratch);
    assert_eq!(gone.unwrap().update.features, None);
}

#[test]
fn names_that_nobody_knows_can_be_asked_for() {
    let text = click(json!({"sruface":"home", "camp\u{e4}gne":1, "context":{"catgory":1}}));
    let mut scratch = Scratch::default();
    decode_event(text.as_bytes(), &funnel(), ARRIVAL, &mut scratch).unwrap();
    let mut unknown: Vec<&str> = scratch.unknown_fields().collect();
    unknown.sort_unstable();
    assert_eq!(unknown, ["camp\u{e4}gne", "sruface"]);
    assert_eq!(scratch.attribute_names().count(), 0);
    scratch.keep_attribute_names(true);
    decode_event(text.as_bytes(), &funnel(), ARRIVAL, &mut scratch).unwrap();
    assert_eq!(scratch.attribute_names().collect::<Vec<_>>(), ["catgory"]);
    // What has no names has none of the message before either.
    scratch.keep_attribute_names(true);
    decode_update(Role::Item, Some(b"a"), None, ARRIVAL, &mut scratch).unwrap();
    assert_eq!(scratch.attribute_names().chain(scratch.unknown_fields()).count(), 0);
}

/// What an attribute of a context is, by the text of the message.
fn attribute(written: &str) -> Option<Value> {
    let text = click(json!({})).replace("\"click\"", "\"impression\"");
    let text = text.replacen('{', &format!("{{\"context\":{{ \"a\" :\n {written} ,\"b\":1}},"), 1);
    let escaped = text.replace("\"a\"", "\"\\u0061\"");
    let of = |text: &str| {
        let (funnel, mut scratch) = (funnel(), Scratch::default());
        let decoded = decode_event(text.as_bytes(), &funnel, ARRIVAL, &mut scratch).unwrap();
        let Event::Impression(impression) = decoded.event else { panic!("an impression") };
        impression.context.get(AttributeKey::of("a")).cloned()
    };
    assert_eq!(of(&text), of(&escaped), "a key with escapes");
    of(&text)
}

#[test]
fn values_of_every_kind_are_read_as_they_are_written() {
    assert_eq!(attribute("null"), None);
    assert_eq!(attribute("true"), Some(Value::Flag(true)));
    assert_eq!(attribute("-0.0"), Some(Value::Number(0.0)));
    assert_eq!(attribute("12.50"), Some(Value::Number(12.5)));
    assert_eq!(attribute(r#""\u0061\n""#), Some(Value::text("a\n")));
    let list = ["a", "2", "true", "9007199254740993", "1.5", "b\"c"];
    let ids = list.map(|text| stable_hash(text.as_bytes()));
    let written = r#"["\u0061", 2 ,true,9007199254740993,1.50,"b\"c"]"#;
    assert_eq!(attribute(written), Some(Value::List(Box::new(ids))));
}

#[test]
fn a_filter_names_a_category_by_its_digits() {
    let of = |category: &str| {
        let text = format!(
            r#"{{"id":"q","kind":"recommend","user":"u","filter":{{"category":{category}}}}}"#
        );
        decode_request(text.as_bytes(), ARRIVAL).unwrap().filter.categories.unwrap()
    };
    assert_eq!(of("9007199254740993"), [CategoryId::of("9007199254740993")]);
    assert_eq!(of("[9007199254740992,9007199254740993]").len(), 2);
    assert_ne!(of("9007199254740993"), of("9007199254740992"));
}

/// Any id of the format, escapes and several scripts included.
fn any_id() -> impl Strategy<Value = String> {
    "[a-z0-9/:\"\\\\äß漢\u{202e} -]{1,20}"
}

proptest! {
    /// Digits in, category out, as a value and in a list; and the number is the nearest one.
    #[test]
    fn a_number_names_what_its_digits_say(digits in "[1-9][0-9]{0,36}", fraction in "|[.][0-9]{0,30}[1-9]") {
        let text = format!("{digits}{fraction}");
        let value = attribute(&text).unwrap();
        prop_assert_eq!(value.category(), Some(stable_hash(text.as_bytes())));
        prop_assert_eq!(value.number(), text.parse().ok());
        let listed = attribute(&format!("[ {text},1]")).unwrap();
        prop_assert_eq!(listed.category(), Some(stable_hash(text.as_bytes())));
        prop_assert_eq!(attribute(&format!("{text:?}")).unwrap().category(), value.category());
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut scratch = Scratch::default();
        let _refused = decode_event(&bytes, &funnel(), ARRIVAL, &mut scratch).is_err();
        let _refused = decode_update(Role::Item, Some(&bytes), Some(&bytes), ARRIVAL, &mut scratch).is_err();
        let _refused = decode_request(&bytes, ARRIVAL).is_err();
        let mut line = bytes.clone();
        let _refused = split_line(&mut line).is_err();
    }

    #[test]
    fn no_change_of_a_valid_message_makes_decoding_panic(
        example in 0usize..4,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let examples: [&[u8]; 4] = [
            example!("event-impression.json"),
            example!("item.json"),
            example!("request-recommend.json"),
            example!("file.jsonl"),
        ];
        let mut bytes = examples[example].to_vec();
        for (place, byte, how) in changes {
            let place = place.index(bytes.len());
            match how {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ => drop(bytes.remove(place)),
            }
        }
        let mut scratch = Scratch::default();
        let _refused = decode_event(&bytes, &funnel(), ARRIVAL, &mut scratch).is_err();
        let _refused = decode_update(Role::Item, None, Some(&bytes), ARRIVAL, &mut scratch).is_err();
        let _refused = decode_request(&bytes, ARRIVAL).is_err();
        let _refused = split_line(&mut bytes).is_err();
    }

    #[test]
    fn what_is_written_is_read_back(
        user in any_id(), item in any_id(), id in proptest::option::of(any_id()),
        surface in proptest::option::of(".{0,40}"), position in proptest::option::of(any::<u32>()),
        ts in 631_152_000_000i64..1_650_812_800_000,
        number in -1e30f64..1e30, text in ".{0,40}", flag in any::<bool>(),
    ) {
        let context = json!({"number": number, "text": text, "flag": flag});
        let message = EventMessage {
            user: &user, item: &item, id: id.as_deref(), surface: surface.as_deref(), position,
            context: context.as_object(),
            ..EventMessage::new("impression", ts)
        };
        let bytes = serde_json::to_vec(&message).unwrap();
        let (funnel, mut scratch) = (funnel(), Scratch::default());
        let decoded = decode_event(&bytes, &funnel, ARRIVAL, &mut scratch).unwrap();
        let Event::Impression(read) = decoded.event else { panic!("an impression") };
        let expected = id.map_or(EventId(stable_hash(&bytes)), |id| EventId::of(&id));
        prop_assert_eq!((read.id, read.time), (expected, EventTime(ts)));
        prop_assert_eq!((&*read.user, &*read.item), (&*user, &*item));
        prop_assert_eq!((read.surface.as_deref(), read.position), (surface.as_deref(), position));
        let of = |name| read.context.get(AttributeKey::of(name)).cloned();
        prop_assert_eq!(of("text"), Some(Value::text(&text)));
        prop_assert_eq!(of("flag"), Some(Value::Flag(flag)));
        let Some(Value::Number(read)) = of("number") else { panic!("a number") };
        prop_assert_eq!(read.to_bits(), number.to_bits());
    }
}
