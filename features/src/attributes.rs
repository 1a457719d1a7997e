//! Attributes of items, users and contexts: what a record says about them, independent of the fields that a model reads.
//!
//! Text is kept as its 64-bit id: the schema may change and the attributes still serve.

use serde::{Deserialize, Serialize};

use crate::ids::stable_hash;
use crate::maps::BLOCK;
use crate::numeral::Numeral;

/// The name of an attribute, as the id of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttributeKey(pub u64);

impl AttributeKey {
    /// Returns the key of a name.
    pub fn of(name: &str) -> Self {
        Self(stable_hash(name.as_bytes()))
    }
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// A text, or a number with more digits than an f64 holds.
    Text {
        /// The id of its characters.
        id: u64,
        /// What it says beside naming something.
        reads: Reads,
    },
    /// A finite number that fits an f32.
    Number(f64),
    /// A truth value.
    Flag(bool),
    /// Several texts or numbers, as ids of their texts.
    List(Box<[u64]>),
}

/// What a text reads as, where that is beyond doubt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reads {
    /// Nothing else: it is a name.
    Nothing,
    /// A number, as JSON writes it.
    Number(f64),
    /// `true` or `yes`, `false` or `no`, in letters of any case.
    Flag(bool),
}

impl Value {
    /// Returns the value of a text.
    pub fn text(text: &str) -> Self {
        Self::Text { id: stable_hash(text.as_bytes()), reads: Reads::of(text.trim_ascii()) }
    }

    /// Returns the value as the id of one category: numbers and flags by their shortest decimal text.
    ///
    /// A list counts by its first entry; an empty one has none.
    pub fn category(&self) -> Option<u64> {
        match self {
            Self::Text { id, .. } => Some(*id),
            Self::Number(number) => Some(number_id(*number)),
            Self::Flag(flag) => Some(stable_hash(if *flag { b"true" } else { b"false" })),
            Self::List(ids) => ids.first().copied(),
        }
    }

    /// Returns the value as a number, a text such as `12.50` included; other texts (`12,50`), truth values and lists have none.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) | Self::Text { reads: Reads::Number(number), .. } => Some(*number),
            Self::Text { .. } | Self::Flag(_) | Self::List(_) => None,
        }
    }

    /// Returns the value as a truth value: as such, as one of the words of [`Reads::Flag`], or as a number that says how many there are
    /// (none: false). Negative numbers, other texts and lists say neither.
    pub fn flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) | Self::Text { reads: Reads::Flag(flag), .. } => Some(*flag),
            _ => self.number().filter(|number| *number >= 0.0).map(|number| number > 0.0),
        }
    }

    /// Returns what kind of value it is, in plain words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text { .. } => "a text",
            Self::Number(_) => "a number",
            Self::Flag(_) => "a truth value",
            Self::List(_) => "a list",
        }
    }
}

impl From<Numeral> for Value {
    fn from(numeral: Numeral) -> Self {
        match numeral {
            Numeral::Number(number) => Self::Number(number),
            Numeral::Digits { id, nearest } => Self::Text { id, reads: Reads::Number(nearest) },
        }
    }
}

impl Reads {
    fn of(text: &str) -> Self {
        match text.as_bytes() {
            [b'0'..=b'9' | b'-' | b'+' | b'.', ..] => number_of(text),
            [b't' | b'T' | b'f' | b'F' | b'y' | b'Y' | b'n' | b'N', ..] => {
                let is =
                    |words: [&str; 2]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
                match (is(["true", "yes"]), is(["false", "no"])) {
                    (true, _) => Self::Flag(true),
                    (_, true) => Self::Flag(false),
                    _ => Self::Nothing,
                }
            }
            _ => Self::Nothing,
        }
    }
}

/// Reads a text of digits, a point, signs and an exponent as a number; nothing else (`1,5`, `1 000`, `inf`) is one beyond doubt.
fn number_of(text: &str) -> Reads {
    let of_number = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    if !text.bytes().all(of_number) {
        return Reads::Nothing;
    }
    match text.parse::<f64>() {
        Ok(number) if number.abs() <= f64::from(f32::MAX) => Reads::Number(number + 0.0),
        _ => Reads::Nothing,
    }
}

/// Whole numbers up to this are written without the search for the shortest text.
const WHOLE: i64 = 1 << 53;

/// Returns the id of a number's shortest decimal text (`39`, `12.5`), the same as that of the text itself.
pub fn number_id(number: f64) -> u64 {
    let whole = number as i64;
    // The bits tell minus zero, which is written with its sign, from zero.
    if (whole as f64).to_bits() == number.to_bits() && whole.abs() < WHOLE {
        whole_id(whole)
    } else {
        shortest_id(number)
    }
}

fn whole_id(number: i64) -> u64 {
    let mut text = [0u8; 20];
    let (mut start, mut left) = (text.len(), number.unsigned_abs());
    loop {
        start -= 1;
        text[start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        start -= 1;
        text[start] = b'-';
    }
    stable_hash(&text[start..])
}

fn shortest_id(number: f64) -> u64 {
    use std::io::Write;

    let mut text = [0u8; 400];
    let mut rest = &mut text[..];
    // The longest f64 in plain decimals has 326 characters: writing cannot fail.
    let written = match write!(rest, "{number}") {
        Ok(()) => 400 - rest.len(),
        Err(_) => 400,
    };
    stable_hash(&text[..written])
}

/// Attributes sorted by key, each at most once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(Vec<(AttributeKey, Value)>);

impl Attributes {
    /// Removes all attributes and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Sets an attribute. Returns false and changes nothing when it is there already.
    pub fn insert(&mut self, key: AttributeKey, value: Value) -> bool {
        match self.0.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(_) => false,
            Err(place) => {
                self.0.insert(place, (key, value));
                true
            }
        }
    }

    /// Returns the value of an attribute.
    pub fn get(&self, key: AttributeKey) -> Option<&Value> {
        let place = self.0.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        Some(&self.0[place].1)
    }

    /// Returns all attributes in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &(AttributeKey, Value)> {
        self.0.iter()
    }

    /// Returns about how many bytes of memory they take beyond their own size.
    pub fn memory(&self) -> usize {
        let lists = self.0.iter().map(|(_, value)| match value {
            Value::List(ids) => size_of_val(&**ids) + BLOCK,
            Value::Text { .. } | Value::Number(_) | Value::Flag(_) => 0,
        });
        let own = self.0.capacity() * size_of::<(AttributeKey, Value)>();
        own + lists.sum::<usize>() + if self.0.capacity() == 0 { 0 } else { BLOCK }
    }

    /// Returns how many attributes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether there are no attributes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_its_text_are_the_same_category() {
        assert_eq!(Value::Number(39.0).category(), Some(stable_hash(b"39")));
        assert_eq!(Value::Number(12.5).category(), Some(stable_hash(b"12.5")));
        assert_eq!(Value::List(Box::new([])).category(), None);
    }

    #[test]
    fn a_text_that_reads_as_a_number_is_one_and_nothing_else_is() {
        let number = |text: &str| Value::text(text).number();
        for (text, expected) in
            [("12.50", 12.5), (" 7 ", 7.0), ("-1e3", -1000.0), ("+2", 2.0), ("-0", 0.0)]
        {
            assert_eq!(number(text).map(f64::to_bits), Some(f64::to_bits(expected)), "{text}");
        }
        for text in [
            "12,50",
            "1 000",
            "1.000.000",
            "abc",
            "",
            "-",
            ".",
            "1e",
            "inf",
            "NaN",
            "0x10",
            "1e39",
            "12.50 EUR",
            "true",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
        assert_eq!(Value::Flag(true).number(), None);
        assert_eq!(Value::List(Box::new([1])).number(), None);
        // It still names what it names.
        assert_eq!(Value::text("12.50").category(), Some(stable_hash(b"12.50")));
    }

    #[test]
    fn a_truth_value_is_read_from_what_says_one() {
        let yes = [
            Value::Flag(true),
            Value::Number(3.0),
            Value::text("TRUE"),
            Value::text("yes"),
            Value::text("12"),
        ];
        let no = [
            Value::Flag(false),
            Value::Number(0.0),
            Value::text("False"),
            Value::text("no"),
            Value::text("0.0"),
        ];
        let neither = [
            Value::text("out_of_stock"),
            Value::text(""),
            Value::Number(-1.0),
            Value::List(Box::new([1])),
        ];
        assert!(yes.iter().all(|value| value.flag() == Some(true)), "{yes:?}");
        assert!(no.iter().all(|value| value.flag() == Some(false)), "{no:?}");
        assert!(neither.iter().all(|value| value.flag().is_none()), "{neither:?}");
    }

    #[test]
    fn what_a_text_reads_as_takes_no_memory() {
        assert_eq!(size_of::<Value>(), 24);
    }

    #[test]
    fn a_whole_number_is_known_by_the_text_of_any_number() {
        let powers = (0..20).flat_map(|i| [-1.0, 0.0, 1.0].map(|more| 10f64.powi(i) + more));
        let halves = (-3..3).map(|i| f64::from(i) / 2.0);
        for number in powers.chain(halves).chain([0.0, -0.0, 9e15, f64::MAX, f64::MIN_POSITIVE]) {
            for number in [number, -number] {
                assert_eq!(number_id(number), shortest_id(number), "{number}");
            }
        }
    }

    #[test]
    fn an_attribute_is_set_once() {
        let mut attributes = Attributes::default();
        assert!(attributes.insert(AttributeKey::of("b"), Value::Flag(true)));
        assert!(attributes.insert(AttributeKey::of("a"), Value::Number(1.0)));
        assert!(!attributes.insert(AttributeKey::of("b"), Value::Flag(false)));
        assert_eq!(attributes.get(AttributeKey::of("b")), Some(&Value::Flag(true)));
        assert_eq!(attributes.get(AttributeKey::of("c")), None);
    }
}
