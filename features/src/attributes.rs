//! Attributes of items, users and contexts: what a record says about them, independent of the fields that a model reads.
//!
//! Text is kept as its 64-bit id: the schema may change and the attributes still serve.

use serde::{Deserialize, Serialize};

use crate::ids::stable_hash;

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
    /// A text, as its id.
    Text(u64),
    /// A finite number that fits an f32.
    Number(f64),
    /// A truth value.
    Flag(bool),
    /// Several texts or numbers, as ids of their texts.
    List(Box<[u64]>),
}

impl Value {
    /// Returns the value as the id of one category: numbers and flags by their shortest decimal text.
    ///
    /// A list counts by its first entry; an empty one has none.
    pub fn category(&self) -> Option<u64> {
        match self {
            Self::Text(id) => Some(*id),
            Self::Number(number) => Some(number_id(*number)),
            Self::Flag(flag) => Some(stable_hash(if *flag { b"true" } else { b"false" })),
            Self::List(ids) => ids.first().copied(),
        }
    }

    /// Returns the value as a number, flags as 0 and 1; text and lists have none.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Flag(flag) => Some(f64::from(u8::from(*flag))),
            Self::Text(_) | Self::List(_) => None,
        }
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
