//! What fields and rules need of attributes, so that a value which cannot be used is told and not only missing.

use crate::attributes::{AttributeKey, Attributes, Value};
use crate::schema::{Kind, Reading, Schema, Source};

/// Whose attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Those of an impression's context.
    Context,
    /// An item's.
    Item,
    /// A user's.
    User,
}

/// What is needed of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needed {
    Number,
    Flag,
}

/// One field or rule that needs more of an attribute than that it names something.
#[derive(Clone, Debug)]
struct Need {
    name: String,
    owner: Owner,
    key: AttributeKey,
    needed: Needed,
}

/// All such fields and rules of a schema, by number.
#[derive(Clone, Debug)]
pub struct Needs(Vec<Need>);

impl Needs {
    /// Returns what a schema needs, and that the attribute `available` of items says yes or no; that need has this name.
    pub fn new(schema: &Schema, available: AttributeKey, name: &str) -> Self {
        let of_number = |kind| !matches!(kind, Kind::Category | Kind::List);
        let mut needs: Vec<Need> = Vec::new();
        for field in &schema.fields {
            let (owner, key) = match field.source {
                Source::Context(key) if of_number(field.kind) => (Owner::Context, key),
                Source::Item(key) if of_number(field.kind) => (Owner::Item, key),
                Source::User(key) if of_number(field.kind) => (Owner::User, key),
                Source::Counter(counter) => match schema.counters[counter].read {
                    Reading::Beside(key) => (Owner::Item, key),
                    _ => continue,
                },
                _ => continue,
            };
            needs.push(Need { name: field.name.clone(), owner, key, needed: Needed::Number });
        }
        let (name, needed) = (name.to_owned(), Needed::Flag);
        needs.push(Need { name, owner: Owner::Item, key: available, needed });
        Self(needs)
    }

    /// Returns the names, by number.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|need| &*need.name)
    }

    /// Returns what was expected, in plain words.
    ///
    /// # Panics
    /// When there is no need of that number.
    pub fn expected(&self, need: usize) -> &'static str {
        match self.0[need].needed {
            Needed::Number => "a number, or a text such as \"12.50\"",
            Needed::Flag => "true or false, yes or no, or how many there are",
        }
    }

    /// Calls `see` with each need that attributes do not meet, and the value.
    pub fn check<'a>(
        &self,
        owner: Owner,
        attributes: &'a Attributes,
        mut see: impl FnMut(usize, &'a Value),
    ) {
        for (number, need) in self.0.iter().enumerate().filter(|(_, need)| need.owner == owner) {
            let Some(value) = attributes.get(need.key) else { continue };
            let met = match need.needed {
                Needed::Number => value.number().is_some(),
                Needed::Flag => value.flag().is_some(),
            };
            if !met {
                see(number, value);
            }
        }
    }
}
