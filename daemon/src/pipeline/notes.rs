//! What was noticed of the values and names in records since the start: what spoils learning without being wrong enough to be refused.
//!
//! | noticed | how |
//! |---|---|
//! | values that their field cannot use | each record, by field |
//! | fields that are always missing | one of `EVERY` impressions is looked at; missing in `RUN` of these in a row |
//! | names that no field declares | the newest `NAMES` frequent ones: unknown outermost fields of each record, attributes of a sample; those like a name that is read are misspelt |
//! | ends of items and users that are not known | each record |

use sluice_features::assemble::{Needs, Owner, Shown};
use sluice_features::attributes::{AttributeKey, Attributes};
use sluice_features::ids::EventId;
use sluice_features::schema::{EventField, Source};
use sluice_features::wire::{Scratch, Topic};
use sluice_features::words::{nearest, shown};

use super::Rules;
use super::shared::Shared;

/// The name of the rule that says whether an item can be had.
const AVAILABLE: &str = "items.available";
/// Outermost fields of events that may be left out.
const OF_EVENTS: [&str; 5] = ["impression", "request", "position", "surface", "context"];
/// The usual names of the attributes that the rules read.
const OF_RULES: [&str; 2] = ["available", "category"];
/// One of so many impressions is looked at for missing fields, chosen by its id.
const EVERY: u64 = 8;
/// A field that is missing in so many of these in a row is always missing.
const RUN: u32 = 128;
/// Names that no field declares.
const NAMES: usize = 64;
/// Names of one record that are looked at.
const OF_RECORD: usize = 16;
/// The names of attributes are kept of so many records at first, and then of one in so many.
const AT_FIRST: u64 = 1024;
const LATER: u64 = 61;

/// Values that a field could not use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unusable {
    /// How many.
    pub count: u64,
    /// What the newest of them was.
    pub found: &'static str,
}

/// A field whose value comes with records.
#[derive(Clone, Debug)]
struct Declared {
    name: String,
    source: Source,
    /// In how many impressions that were looked at it has been missing without a break.
    run: u32,
}

/// Where a name stands in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Outermost,
    Features,
    Context,
}

/// A name that no field declares, or one that is read.
#[derive(Clone, Debug)]
struct Name {
    place: Place,
    text: Box<str>,
    /// About how often it came.
    count: u64,
}

/// A name that no field declares and that is like one that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misspelt {
    /// Where and how it stands in records, such as `features.prize`.
    pub found: String,
    /// What may have been meant, such as `features.price`.
    pub likely: String,
}

/// See the module's page.
#[derive(Clone, Debug)]
pub struct Notes {
    needs: Needs,
    unusable: Vec<Unusable>,
    declared: Vec<Declared>,
    category: AttributeKey,
    available: AttributeKey,
    /// Something was said about availability.
    said_available: bool,
    /// Attributes that fields or rules read.
    keys: Vec<AttributeKey>,
    /// Names that are read: the outermost fields, fields and rules by their own names, and attributes as they came.
    read: Vec<Name>,
    names: Vec<Name>,
    records: u64,
    /// The newest key of an end that nobody knows.
    unknown_end: Option<String>,
}

impl Notes {
    /// Nothing was noticed yet.
    pub fn new(rules: &Rules) -> Self {
        let needs = Needs::new(&rules.schema, rules.available, AVAILABLE);
        let comes = |source: &Source| match source {
            Source::Event(event) => {
                matches!(event, EventField::Surface | EventField::Position | EventField::Category)
            }
            Source::Context(_) | Source::Item(_) | Source::User(_) => true,
            Source::Counter(_) | Source::Cross(_) => false,
        };
        let fields = rules.schema.fields.iter().filter(|field| comes(&field.source));
        let declared: Vec<Declared> = fields
            .map(|field| Declared {
                name: field.name.clone(),
                source: field.source.clone(),
                run: 0,
            })
            .collect();
        let mut keys = rules.schema.item_attributes();
        keys.extend(rules.schema.user_attributes());
        keys.extend(declared.iter().filter_map(|field| match field.source {
            Source::Context(key) => Some(key),
            _ => None,
        }));
        keys.extend([rules.category, rules.available]);
        let name = |place, text: &str| Name { place, text: text.into(), count: 0 };
        let mut read: Vec<Name> = OF_EVENTS.map(|text| name(Place::Outermost, text)).into();
        let attribute = |text: &str| keys.contains(&AttributeKey::of(text));
        read.extend(
            OF_RULES.iter().filter(|text| attribute(text)).map(|text| name(Place::Features, text)),
        );
        read.extend(declared.iter().filter(|field| attribute(&field.name)).map(|field| {
            let place = match field.source {
                Source::Context(_) => Place::Context,
                _ => Place::Features,
            };
            name(place, &field.name)
        }));
        Self {
            unusable: vec![Unusable::default(); needs.names().count()],
            needs,
            declared,
            category: rules.category,
            available: rules.available,
            said_available: false,
            keys,
            read,
            names: Vec::new(),
            records: 0,
            unknown_end: None,
        }
    }

    /// Returns the fields and rules that may find a value unusable, with what they found.
    pub fn unusable(&self) -> impl Iterator<Item = (&str, Unusable)> {
        self.needs.names().zip(self.unusable.iter().copied())
    }

    /// Returns what a field or rule expects, by the order of [`Self::unusable`].
    pub fn expected(&self, need: usize) -> &'static str {
        self.needs.expected(need)
    }

    /// Returns the fields whose values come with records, and whether they are always missing.
    pub fn fields(&self) -> impl Iterator<Item = (&str, bool)> {
        self.declared.iter().map(|field| (&*field.name, field.run >= RUN))
    }

    /// Returns the name that came with records and that a missing one may have been meant by.
    pub fn likely(&self, missing: &str) -> Option<&str> {
        nearest(missing, self.names.iter().map(|name| &*name.text))
    }

    /// Returns the names that no field declares and that are like one that is read.
    pub fn misspelt(&self) -> impl Iterator<Item = Misspelt> {
        self.names.iter().filter_map(|name| {
            let text = nearest(&name.text, self.read.iter().map(|read| &*read.text))?;
            let same = self.read.iter().filter(|read| *read.text == *text);
            let likely = same.min_by_key(|read| read.place != name.place)?;
            Some(Misspelt { found: name.path(), likely: likely.path() })
        })
    }

    /// Returns a name that came in place of the attribute that says whether an item can be had, about which nothing was said.
    pub fn misspelt_available(&self) -> Option<&str> {
        if self.said_available { None } else { self.likely("available") }
    }

    /// Returns the names that no field declares, with about how often they came.
    pub fn names(&self) -> impl Iterator<Item = (&str, u64)> {
        self.names.iter().map(|name| (&*name.text, name.count))
    }

    /// Returns the newest id whose end nobody could make out.
    pub fn unknown_end(&self) -> Option<&str> {
        self.unknown_end.as_deref()
    }

    /// Prepares for the next record.
    pub(super) fn begin(&mut self, scratch: &mut Scratch) {
        self.records += 1;
        let keep = self.records <= AT_FIRST || self.records.is_multiple_of(LATER);
        scratch.keep_attribute_names(keep);
    }

    /// Takes note of the names in the newest record, which came from a topic.
    pub(super) fn names_of(&mut self, topic: Topic, scratch: &Scratch) {
        for name in scratch.unknown_fields().take(OF_RECORD) {
            self.name(Place::Outermost, name);
        }
        let place = if topic == Topic::Events { Place::Context } else { Place::Features };
        for name in scratch.attribute_names().take(OF_RECORD) {
            if !self.keys.contains(&AttributeKey::of(name)) {
                self.name(place, name);
            } else if !self.read.iter().any(|read| *read.text == *name) {
                self.read.push(Name { place, text: name.into(), count: 0 });
            }
        }
    }

    /// Takes note of attributes as they came.
    pub(super) fn attributes(&mut self, owner: Owner, attributes: &Attributes) {
        let unusable = &mut self.unusable;
        self.needs.check(owner, attributes, |need, value| {
            unusable[need] = Unusable { count: unusable[need].count + 1, found: value.kind() };
        });
        self.said_available |= owner == Owner::Item && attributes.get(self.available).is_some();
    }

    /// Takes note of what an impression has.
    pub(super) fn impression(&mut self, id: EventId, shown: &Shown<'_>, shared: &Shared) {
        self.attributes(Owner::Context, shown.context);
        if !id.0.is_multiple_of(EVERY) {
            return;
        }
        let category = self.category;
        let declared = &mut self.declared;
        shared.item_features.as_of(shown.item.0, shown.time, |_, item| {
            shared.user_features.as_of(shown.user.0, shown.time, |_, user| {
                let has = |features: Option<&Attributes>, key| {
                    features.is_some_and(|features| features.get(key).is_some())
                };
                for field in declared {
                    let given = match field.source {
                        Source::Event(EventField::Surface) => shown.surface.is_some(),
                        Source::Event(EventField::Position) => shown.position.is_some(),
                        Source::Event(EventField::Category) => has(item, category),
                        Source::Context(key) => has(Some(shown.context), key),
                        Source::Item(key) => has(item, key),
                        Source::User(key) => has(user, key),
                        _ => true,
                    };
                    field.run = if given { 0 } else { field.run.saturating_add(1) };
                }
            });
        });
    }

    /// Takes note of an end that nobody knows.
    pub(super) fn end_of(&mut self, id: &str) {
        self.unknown_end = Some(shown(id));
    }

    /// Counts a name. Where there is no room the rarest gives way, and what came often stays (Metwally, Agrawal and El Abbadi, 2005).
    fn name(&mut self, place: Place, text: &str) {
        if let Some(known) = self.names.iter_mut().find(|known| *known.text == *text) {
            known.count += 1;
        } else if self.names.len() < NAMES {
            self.names.push(Name { place, text: text.into(), count: 1 });
        } else if let Some(rarest) = self.names.iter_mut().min_by_key(|known| known.count) {
            *rarest = Name { place, text: text.into(), count: rarest.count + 1 };
        }
    }
}

impl Name {
    fn path(&self) -> String {
        let text = shown(&self.text);
        match self.place {
            Place::Outermost => text,
            Place::Features => format!("features.{text}"),
            Place::Context => format!("context.{text}"),
        }
    }
}

#[cfg(test)]
mod tests;
