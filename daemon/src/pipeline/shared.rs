//! What belongs to no shard: names behind ids, features of items and users, counters, popularity.

use std::sync::Arc;

use sluice_features::assemble::{Known, Negatives, UserHistory};
use sluice_features::assortment::Assortment;
use sluice_features::attributes::AttributeKey;
use sluice_features::catalogue::Catalogue;
use sluice_features::counters::{Counters, Subjects};
use sluice_features::dictionary::{Collision, Dictionary};
use sluice_features::ids::{CategoryId, ItemId, Numbers, UserId};
use sluice_features::sequence::{KindNumbers, NO_CATEGORY, Sequence};
use sluice_features::time::{EventTime, Span};
use sluice_features::wire::Role;

use super::Rules;
use super::names::Names;
use super::popular::Popular;
use super::state::Stored;
use crate::config::Share;

/// Half-life of popularity among candidates.
const POPULAR: Span = Span::seconds(24 * 3600);

/// What all shards share. One thread writes; readers come through the pipeline's lock, or read the features by key.
pub struct Shared {
    /// Items by number.
    pub items: Dictionary,
    /// Categories by number; the wire keeps no text of them.
    pub categories: Numbers,
    /// Users by number.
    pub users: Dictionary,
    /// Types of behaviour in sequences by number.
    pub kinds: KindNumbers,
    /// Features of items.
    pub item_features: Arc<Catalogue>,
    /// Features of users.
    pub user_features: Arc<Catalogue>,
    /// What happened lately.
    pub counters: Counters,
    /// Popular and new items.
    pub popular: Popular,
    /// When each item was first seen, by number: in an event, or in the catalogue where no event is older.
    pub first_seen: Vec<EventTime>,
    /// Which items may be drawn.
    pub assortment: Assortment,
    /// Draws the items that were not viewed, where views open the funnel.
    pub negatives: Negatives,
    /// Where the names are of which the dictionaries have no string.
    pub(super) names: Arc<Names>,
    pub(super) stored: Stored,
}

impl Shared {
    /// Creates what is shared, with nothing in it but the numbers of types of behaviour.
    pub fn new(rules: &Rules, kinds: KindNumbers) -> Self {
        let mut item_attributes = rules.schema.item_attributes();
        item_attributes.extend([rules.category, rules.available]);
        Self {
            items: Dictionary::default(),
            categories: Numbers::default(),
            users: Dictionary::default(),
            kinds,
            item_features: Arc::new(Catalogue::new(item_attributes)),
            user_features: Arc::new(Catalogue::new(rules.schema.user_attributes())),
            counters: Counters::new(&rules.schema.counters, counter_entries(rules)),
            popular: Popular::new(POPULAR),
            first_seen: Vec::new(),
            assortment: Assortment::default(),
            negatives: Negatives::new(rules.seed),
            names: Arc::new(Names::in_memory()),
            stored: Stored::default(),
        }
    }

    /// Enters a user.
    ///
    /// # Errors
    /// When another user has the same 64-bit id.
    pub fn enter_user(&mut self, text: &str) -> Result<UserId, Collision> {
        let user = UserId::of(text);
        self.users.enter(user.0, text)?;
        Ok(user)
    }

    /// Enters an item that is seen at a time, with its category if that is known. Returns its number.
    ///
    /// # Errors
    /// When another item has the same 64-bit id.
    pub fn enter_item(
        &mut self,
        item: ItemId,
        text: &str,
        category: Option<CategoryId>,
        time: EventTime,
    ) -> Result<u32, Collision> {
        let number = self.items.enter(item.0, text)?;
        if number as usize >= self.first_seen.len() {
            let category = self.category_number(category);
            self.first_seen.push(time);
            self.popular.appeared(number, category);
        }
        Ok(number)
    }

    /// Returns the names of items or users.
    pub fn dictionary(&self, whose: Role) -> &Dictionary {
        match whose {
            Role::Item => &self.items,
            Role::User => &self.users,
        }
    }

    /// Tells whether an id was ever named by an event or an update.
    pub fn knows(&self, whose: Role, id: &str) -> bool {
        match whose {
            Role::Item => self.items.number(ItemId::of(id).0).is_some(),
            Role::User => self.users.number(UserId::of(id).0).is_some(),
        }
    }

    /// Takes note that an event before its first sight names an item: it was there already.
    pub fn seen_before(&mut self, item: u32, time: EventTime) {
        if let Some(first) = self.first_seen.get_mut(item as usize) {
            *first = time.min(*first);
            self.stored.item_changed(item);
        }
    }

    /// Returns the number of a category, [`NO_CATEGORY`] for none.
    pub fn category_number(&mut self, category: Option<CategoryId>) -> u32 {
        category.map_or(NO_CATEGORY, |CategoryId(id)| self.categories.enter(id))
    }

    /// Returns the category of an item as of a time.
    pub fn category_of(
        &self,
        item: ItemId,
        time: EventTime,
        key: AttributeKey,
    ) -> Option<CategoryId> {
        self.item_features.category_as_of(item.0, time, key).map(CategoryId)
    }

    /// Counts an outcome for the popularity of its item.
    pub fn observe_popular(&mut self, subjects: &Subjects, time: EventTime) {
        let category = self.category_number(subjects.category.map(CategoryId));
        if let Some(item) = self.items.number(subjects.item) {
            self.popular.observe(item, category, time);
        }
    }

    /// Tells whether an item was first seen less than `span` before a time.
    pub fn is_new(&self, item: u32, time: EventTime, span: Span) -> bool {
        self.first_seen.get(item as usize).is_some_and(|first| time - *first < span)
    }

    /// Returns a user's behaviours with ids for numbers.
    pub fn past<'a>(&'a self, sequence: Sequence<'a>) -> UserHistory<'a> {
        UserHistory { sequence, items: &self.items, categories: &self.categories }
    }

    /// Returns what features are looked up in.
    pub fn known(&self) -> Known<'_> {
        Known { items: &self.item_features, users: &self.user_features, counters: &self.counters }
    }

    /// Forgets strings that the store has: those of full pages of what a checkpoint was given that is in force now.
    pub(super) fn names_stored(&mut self) {
        if self.names.has_pages() {
            let (items, users) = self.stored.names();
            self.items.forget(items);
            self.users.forget(users);
        }
    }

    /// Returns how many bytes of strings wait for a checkpoint; those of a page that fills do so for long.
    pub(super) fn names_waiting(&self) -> usize {
        if self.names.has_pages() { self.items.text_bytes() + self.users.text_bytes() } else { 0 }
    }

    /// Returns about how many bytes names take, and what is kept of each item beside its features.
    pub(super) fn names_memory(&self) -> usize {
        self.items.memory()
            + self.users.memory()
            + self.names.memory()
            + self.categories.memory()
            + self.first_seen.capacity() * size_of::<EventTime>()
            + self.popular.memory()
            + self.assortment.memory()
    }
}

/// Returns how many entries all counters together may have.
pub(super) fn counter_entries(rules: &Rules) -> usize {
    let bytes = usize::try_from(rules.bounds.of(Share::Counters)).unwrap_or(usize::MAX);
    bytes / Counters::ENTRY_BYTES
}
